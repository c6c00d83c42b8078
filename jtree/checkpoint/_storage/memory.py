"""Memory that is returned to the system: pages of mapped files, and freed blocks."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..._errors import CheckpointError


def return_freed_memory() -> None:
    """Make the allocator of this process return large blocks as soon as they are freed.

    glibc keeps freed blocks of up to 32 MiB for later, in every thread, and what Orbax has read of
    a checkpoint adds up there. This concerns the whole process, so only the command does it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 2**16)  # M_MMAP_THRESHOLD: from 64 KiB on


def total_memory() -> float:
    """Return the bytes of memory of this machine, or infinity where the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def check_memory(nbytes: int, path: Any) -> None:
    """Refuse arrays that this machine cannot hold; TensorStore would end the process."""
    total = total_memory()
    if nbytes > total:
        raise CheckpointError(
            f"{path}: its arrays would take {nbytes:,} bytes, and this machine has {total:,.0f}; "
            "read some of them with where=, or use another copy of this checkpoint"
        )


@contextlib.contextmanager
def release_pages(memory: mmap.mmap) -> Iterator[None]:
    """Return the pages of a mapped file to the system as they are read, until the block ends."""
    advise: Callable[[int], None] | None = getattr(memory, "madvise", None)
    if advise is None or not hasattr(mmap, "MADV_DONTNEED"):
        yield
        return
    ended = threading.Event()

    def release() -> None:
        while not ended.wait(0.005):
            advise(mmap.MADV_DONTNEED)

    thread = threading.Thread(target=release, name="pages", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
