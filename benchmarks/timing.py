"""Medians of times, and peaks of memory."""

from __future__ import annotations

import random
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


def time_call(function: Callable[[], Any]) -> float:
    """Return the seconds that one call takes, until its results are computed."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def median(*functions: Callable[[], Any], repeat: int = 7, keep: bool = False) -> list[float]:
    """Return the median seconds of each function, in rounds, so that drift affects all alike.

    The order changes from round to round, since each function changes the caches for the next.
    With `keep`, results stay in memory until the end, so that all are written into fresh memory.
    """
    kept = [function() for function in functions]
    times: list[list[float]] = [[] for _ in functions]
    order = list(range(len(functions)))
    for _ in range(repeat):
        random.Random(len(times[0])).shuffle(order)
        for i in order:
            times[i].append(time_call(lambda i=i: _and_keep(functions[i](), kept, keep)))
    return list(map(statistics.median, times))


def _and_keep(result: Any, kept: list[Any], keep: bool) -> Any:
    if keep:
        kept.append(result)
    return result


def peak(function: Callable[[], Any]) -> int:
    """Return by how many bytes the resident memory grows at most during a call, on Linux."""
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")
    jax.block_until_ready(function())
    lines = Path("/proc/self/status").read_text().splitlines()
    (highest,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return highest * 1024 - before


def resident() -> int:
    """Return the bytes of resident memory of this process, on Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
