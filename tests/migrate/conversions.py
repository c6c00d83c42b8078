"""Conversions that run in a process of their own: killed at some moment, or measured."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "shutil.rmtree"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def convert_until(source: str, target: str, rules: str, last: int) -> int:
    """Convert a file, and kill this process before a change of a file; return how many there were.

    The changes are counted from 0, so that -1 lets the conversion end.
    """
    from jtree.migrate import convert_file, rules_from_toml

    directory, count = str(Path(target).parent), 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        changes = event in CHANGES or (event == "open" and arguments[2] & WRITES)
        if changes and str(arguments[0]).startswith(directory):
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

    sys.addaudithook(hook)
    convert_file(source, target, rules=rules_from_toml(rules))
    return count


def measure_memory(*arguments: str) -> int:
    """Run a command, and return the bytes of memory by which this process grew at its peak."""
    from jtree.cli import app

    before = _memory("VmRSS")
    app(list(arguments), standalone_mode=False)
    return _memory("VmHWM") - before


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    return kilobytes * 1024
