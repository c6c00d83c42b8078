"""Conversions that run in a process of their own: killed at some moment, or measured."""

from __future__ import annotations

from pathlib import Path

from ..forks import count_changes


def convert_until(source: str, target: str, rules: str, last: int) -> int:
    """Convert a file, and kill this process before a change of a file; return how many there were.

    The changes are counted from 0, so that -1 lets the conversion end.
    """
    from jtree.migrate import convert_file, rules_from_toml

    changes = count_changes(str(Path(target).parent), last)
    convert_file(source, target, rules=rules_from_toml(rules))
    return changes()


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
