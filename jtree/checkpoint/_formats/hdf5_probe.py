"""A script that reads an HDF5 file in a process of its own, before this process opens it.

The HDF5 library is written in C. On damaged files it can crash or never return; then it is the
probe that ends. As a script it imports nothing of jtree.
"""

from __future__ import annotations

import io
import math
import os
import sys
from typing import Any

MAX_DEPTH = 50
MAX_ITEMS = 100_000  # groups and datasets
MAX_CHUNKS, CHUNK_BYTES = 10_000, 16  # of an index, which has more for each chunk
UNREADABLE = 3  # the exit code where the library raises an error
GROWTH, MEMORY = 16, 2**26  # as in `limits`, which a script cannot import
SECONDS = 3  # of processor time, and one more for every 10 MB


class Window(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, file: Any, start: int, size: int) -> None:
        self._file = file
        self._start, self._size, self._at = start, size, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to an offset, and return it."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there are bytes, and return their number."""
        view = memoryview(buffer).cast("B")
        view = view[: max(0, min(len(view), self._size - self._at))]
        self._file.seek(self._start + self._at)
        count: int = self._file.readinto(view)
        self._at += count
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def probe(h5py: Any, path: str, start: int, size: int) -> None:
    """Read everything in a file that is read later."""
    with h5py.File(Window(open(path, "rb"), start, size), "r") as root:
        for name in root.attrs:
            root.attrs[name]
        stack, left, declared = [(root, 0)], MAX_ITEMS, 0
        while stack and left:
            group, depth = stack.pop()
            for name in group if depth < MAX_DEPTH else ():
                left -= 1
                if isinstance(group.get(name, getlink=True), h5py.HardLink):
                    item = group[name]
                    if isinstance(item, h5py.Group):
                        stack.append((item, depth + 1))
                    elif isinstance(item, h5py.Dataset):
                        declared += _unstored(item)
                        if declared > GROWTH * size + MEMORY:
                            raise ValueError(
                                f"its arrays would take {declared:,} bytes, and the file has "
                                f"{size:,}: refused as a decompression bomb; unpack it with the "
                                "library that wrote it"
                            )
                        _probe_dataset(item, size)


def _unstored(dataset: Any) -> int:
    """Return the bytes of a dataset in memory where the file has fewer."""
    if dataset.shape is None:
        return 0
    nbytes = math.prod(map(int, dataset.shape)) * int(dataset.dtype.itemsize)
    return nbytes if nbytes > dataset.id.get_storage_size() else 0


def _probe_dataset(dataset: Any, size: int) -> None:
    dataset.attrs.get("dtype")
    if dataset.external or dataset.is_virtual or not dataset.chunks:
        return
    pairs = zip(dataset.shape, dataset.chunks, strict=True)
    count = math.prod(-(-int(n) // int(step)) for n, step in pairs)
    if count > MAX_CHUNKS + size // CHUNK_BYTES:
        raise ValueError(f"a dataset of {count:,} chunks in a file of {size:,} bytes")
    for chunk in dataset.iter_chunks():
        dataset[chunk]


def allocated(path: str) -> int:
    """Return the bytes of a file on its disk: a sparse file declares more."""
    status = os.stat(path)
    return getattr(status, "st_blocks", status.st_size) * 512


def limit(size: int) -> None:
    """Make the system end this process when it takes too long or too much memory."""
    try:
        import resource
    except ImportError:  # Windows
        return
    seconds = SECONDS + size // 10**7
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    try:
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return
    memory = used + 2 * size + 10**8
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


if __name__ == "__main__":
    import h5py

    limit(min(int(sys.argv[3]), allocated(sys.argv[1])))
    try:
        probe(h5py, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    except Exception as error:
        print((str(error).strip().splitlines() or [type(error).__name__])[0])
        sys.exit(UNREADABLE)
