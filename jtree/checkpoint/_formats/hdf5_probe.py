"""A look through a file of HDF5, in a process of its own, before this one opens it.

The library that reads HDF5 is written in C. On damaged files it can crash, or never return; then
it is this process that ends. Run as a script, so it imports nothing of jtree.
"""

from __future__ import annotations

import io
import sys
from typing import Any

DEEP = 50
MANY = 100_000  # groups and datasets


class Window(io.RawIOBase):
    """A part of a file, as a file of its own that can be read and sought."""

    def __init__(self, held: Any, start: int, count: int) -> None:
        self._held = held
        self._start, self._count, self._at = start, count, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place, and return it."""
        self._at = max(0, offset + (0, self._at, self._count)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there are bytes, and return their number."""
        view = memoryview(buffer).cast("B")
        view = view[: max(0, min(len(view), self._count - self._at))]
        self._held.seek(self._start + self._at)
        done: int = self._held.readinto(view)
        self._at += done
        return done

    def close(self) -> None:
        """Close the file."""
        self._held.close()
        super().close()


def look(h5py: Any, path: str, start: int, size: int) -> None:
    """Do with a file all that will be done with it later."""
    with h5py.File(Window(open(path, "rb"), start, size), "r") as root:
        for name in root.attrs:
            root.attrs[name]
        todo, left = [(root, 0)], MANY
        while todo and left:
            group, depth = todo.pop()
            for name in group if depth < DEEP else ():
                left -= 1
                if isinstance(group.get(name, getlink=True), h5py.HardLink):
                    found = group[name]
                    if isinstance(found, h5py.Group):
                        todo.append((found, depth + 1))
                    elif isinstance(found, h5py.Dataset):
                        _look_at(found)


def _look_at(dataset: Any) -> None:
    dataset.attrs.get("dtype")
    if not dataset.external and not dataset.is_virtual and dataset.chunks:
        for part in dataset.iter_chunks():
            dataset[part]


def limit(size: int) -> None:
    """Let the system end this process when it takes too long or too much memory."""
    try:
        import resource
    except ImportError:  # Windows
        return
    seconds = 5 + size // 10**7
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    try:
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return
    most = now + 2 * size + 10**8
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    import h5py

    limit(int(sys.argv[3]))
    try:
        look(h5py, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    except Exception as error:
        print((str(error).strip().splitlines() or [type(error).__name__])[0])
        sys.exit(3)
