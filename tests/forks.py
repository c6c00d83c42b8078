"""Tasks in processes of their own, forked from one interpreter that has imported all they need.

A process that is killed takes its interpreter with it, and importing jtree and Orbax takes seconds.
So one interpreter imports them, computes nothing with JAX, whose threads do not survive a fork, and
forks a child for each task.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "shutil.rmtree"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
MODULES = ("jtree.cli", "jtree.migrate", "jtree.checkpoint._save")


class Exit(NamedTuple):
    """How a child ended: what its task returned, and its exit code, negative for a signal."""

    result: Any
    code: int

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Forks:
    """An interpreter that forks a child for each task: a function, with JSON in and out."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
            text=True,
        )

    def run(self, function: Any, *arguments: Any) -> Exit:
        """Run a function in a child, and return how it ended."""
        task = function.__module__, function.__name__, [*map(_plain, arguments)]
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(task) + "\n")
        stdin.flush()
        exited = Exit(*json.loads(stdout.readline()))
        assert exited.code in (0, -signal.SIGKILL), exited.result
        return exited

    def close(self) -> None:
        """End the interpreter."""
        self.process.kill()
        self.process.communicate()


def watch_changes(directory: str, see: Callable[[int], None]) -> None:
    """Call a function before each change of a file below a directory, with the count so far."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        changes = event in CHANGES or (event == "open" and arguments[2] & WRITES)
        if changes and str(arguments[0]).startswith(directory):
            see(count)
            count += 1

    sys.addaudithook(hook)


def count_changes(directory: str, kill_before: int) -> Callable[[], int]:
    """Count the changes of files below a directory, and kill this process before one of them.

    The changes are counted from 0, so that -1 lets the process end. What is returned is a function
    that returns the number of changes.
    """
    seen = []

    def see(count: int) -> None:
        if count == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)
        seen.append(count)

    watch_changes(directory, see)
    return lambda: len(seen)


def _plain(x: Any) -> Any:
    return str(x) if isinstance(x, Path) else x


def _serve() -> None:
    from orbax.checkpoint import v1

    assert [v1, *map(importlib.import_module, MODULES)]
    for line in sys.stdin:
        module, function, arguments = json.loads(line)
        importlib.import_module(module)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            _run(module, function, arguments, writer)
        os.close(writer)
        with open(reader) as pipe:
            text = pipe.read()
        _, status = os.waitpid(child, 0)
        result = json.loads(text) if text else None
        print(json.dumps((result, os.waitstatus_to_exitcode(status))), flush=True)


def _run(module: str, function: str, arguments: list[Any], writer: int) -> None:
    """Run a task, write its result into a pipe, and end this process."""
    code = 1
    try:
        os.dup2(2, 1)  # what a task prints is not a result
        result = getattr(importlib.import_module(module), function)(*arguments)
        code = 0
    except BaseException:
        result = traceback.format_exc()
    with open(writer, "w") as pipe:
        json.dump(result, pipe)
    os._exit(code)


if __name__ == "__main__":
    _serve()
