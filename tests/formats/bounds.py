"""Bounds on the memory and the work that reading a file may take."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from cProfile import Profile
from pathlib import Path

import pytest

import jtree

from ..same import calls

ROOM = 100 * 2**20


@contextmanager
def bounded(path: Path) -> Iterator[None]:
    """Fail where more memory is taken than twice the file and 100 MB."""
    tracemalloc.start()
    try:
        yield
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    size = sum(x.stat().st_size for x in path.rglob("*")) if path.is_dir() else path.stat().st_size
    assert peak <= 2 * size + ROOM, f"{peak:,}"


def refused(path: Path, text: str | None = None) -> None:
    """Fail unless a file is refused when it is opened, or when its arrays are read."""
    with bounded(path), pytest.raises(jtree.CheckpointError, match=text):
        jtree.load(path)


def refusal(path: Path) -> str:
    """Return the message with which a file is refused, without its path."""
    with bounded(path), pytest.raises(jtree.CheckpointError) as error:
        jtree.load(path)
    return str(error.value).removeprefix(f"{path}: ")


CALLS = 5  # of functions, per byte of a file; where values are copied or repeated, it is thousands


def refused_quickly(path: Path, text: str) -> None:
    """Fail unless a file is refused with little memory, and few calls of functions."""
    refused(path, text)
    with Profile() as work, pytest.raises(jtree.CheckpointError):
        jtree.load(path)
    assert calls(work) < CALLS * path.stat().st_size + 10_000
