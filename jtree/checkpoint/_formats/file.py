"""Files of other libraries: bytes that are read when they are asked for, and what they hold."""

from __future__ import annotations

import json
import math
import os
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..._errors import CheckpointError, ChecksumError
from ..._tree.lazy import Computed, LazyArray
from .._storage.atomic import Path, is_local

CHUNK = 2**20  # bytes that are looked at a time
ROOM = 2**26  # bytes of memory that even a small file may ask for
MOST_PACKED = 16  # times its size that a file may grow when it is unpacked
DEEP = 100  # containers in one another


class Opened(NamedTuple):
    """What is in a file: its tree with lazy arrays, and what else is to be known of it."""

    format: str
    tree: Any
    metadata: Any
    source: Any
    ties: tuple[tuple[str, ...], ...] = ()


class File:
    """A file that is read in parts. It is opened for each, and must stay what it was.

    Arrays are read straight into memory of their own: nothing is mapped, so nothing that happens
    to the file later can change or break an array.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size, self.changed = _stamp(path)

    def read(self, start: int, count: int) -> bytes:
        """Return some bytes; there must be as many."""
        self._check(start, count)
        with self._open() as file:
            file.seek(start)
            found: bytes = file.read(count)
        if len(found) != count:
            raise ValueError("it ends too early")
        return found

    def array(self, start: int, shape: Iterable[int], dtype: Any) -> np.ndarray[Any, Any]:
        """Return the numbers of an array that are stored one after another."""
        shape = tuple(shape)
        count = nbytes(shape, dtype)
        self._check(start, count)
        out = np.empty(count, np.uint8)
        view = out.data
        with self._open() as file:
            file.seek(start)
            done = 0
            while done < count:
                more = file.readinto(view[done:])
                if not more:
                    raise ValueError("it ends too early")
                done += more
        found: np.ndarray[Any, Any] = out.view(dtype).reshape(shape)
        return found

    def chunks(self, start: int, count: int) -> Iterator[bytes]:
        """Yield some bytes, a mebibyte at a time."""
        self._check(start, count)
        with self._open() as file:
            file.seek(start)
            for at in range(0, count, CHUNK):
                yield file.read(min(CHUNK, count - at))

    def _open(self) -> Any:
        """Open the file; Python's own way takes a fraction of the time, where there are many."""
        if _stamp(self.path) != (self.size, self.changed):
            raise ValueError("the file was changed after it was opened; open it again")
        return open(self.path, "rb") if is_local(self.path) else self.path.open("rb")

    def _check(self, start: int, count: int) -> None:
        if start < 0 or count < 0 or start + count > self.size:
            raise ValueError(
                f"it ends too early: bytes {start:,} to {start + count:,} are asked for, and it "
                f"has {self.size:,}"
            )


class Entries(Computed):
    """A source of arrays in a file. An error in reading one names the file and the array."""

    def __init__(self, file: File, format: str, *, verified: bool = False) -> None:
        super().__init__()
        self.file = file
        self.format = format
        self.verified = verified
        self.names: list[str] = []

    def add_named(
        self, name: str, shape: Iterable[int], dtype: Any, reader: Callable[[], Any]
    ) -> LazyArray:
        """Return a lazy array whose values are what the function returns."""
        self.names.append(name)
        return self.add(shape, np.dtype(dtype), reader)

    def _read(self, name: Any, sharding: Any) -> Any:
        with explained(self.file.path, self.format, f"{self.names[name]} cannot be read: "):
            return super()._read(name, sharding)


@contextmanager
def explained(path: Path, format: str, what: str = "") -> Iterator[None]:
    """Turn whatever a malformed file brings about into an error that names the file."""
    try:
        yield
    except CheckpointError:
        raise
    except DamageError as error:
        raise ChecksumError(
            f"{path}: {what}{error}; use another copy of this file, or verify=False to see what is "
            "left"
        ) from error
    except RecursionError as error:
        raise CheckpointError(f"{path}: {what}{format}: it is nested too deeply") from error
    except Exception as error:  # the parsers of Python and HDF5 raise nearly everything
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{path}: {what}{format}: {_printable(lines[0][:300])}") from error


class Budget:
    """How many values a file may hold: each takes about a kilobyte, and what its path is long."""

    def __init__(self, size: int) -> None:
        self.most = self.left = 80_000 + size // 512

    def spend(self, parts: Sequence[str] = ()) -> None:
        """Count a value at a place; refuse it where it is one too many."""
        self.left -= 1 + sum(map(len, parts)) // 256
        if len(parts) > DEEP:
            raise ValueError("it is nested too deeply")
        if self.left < 0:
            raise ValueError(
                f"it has too many values for its size: more than {self.most:,}, those with very "
                "long names counted several times; keep long lists in it as arrays"
            )


class DamageError(Exception):
    """Bytes that are not those that were written."""


def nbytes(shape: Iterable[int], dtype: Any) -> int:
    """Return the bytes of an array, as a number that cannot overflow; refuse what is no shape."""
    shape = tuple(shape)
    wrong = [n for n in shape if type(n) is not int or not 0 <= n < 2**62]
    if wrong or len(shape) > 32:
        raise ValueError(f"no array has the shape {shape!s:.80}")
    if math.prod(max(n, 1) for n in shape) * max(np.dtype(dtype).itemsize, 1) >= 2**62:
        raise ValueError(f"an array of the shape {list(shape)} is too large for any memory")
    return math.prod(shape) * int(np.dtype(dtype).itemsize)


def parse_json(text: bytes, size: int) -> Any:
    """Return what JSON says, unless the objects made of it would take too much memory."""
    costs = {b"{": 100, b"[": 100, b",": 40, b":": 130}  # bytes of memory
    cost = sum(text.count(x) * each for x, each in costs.items()) + 2 * len(text)
    if cost > 2 * size + ROOM:
        raise ValueError(f"its JSON of {len(text):,} bytes has too many parts")
    return json.loads(text.decode(), object_pairs_hook=_unique)


def check_growth(total: int, size: int) -> None:
    """Refuse arrays that take much more memory than the file that they are in."""
    if total > MOST_PACKED * size + ROOM:
        raise ValueError(
            f"its arrays would take {total:,} bytes, and the file has {size:,}: that is refused, "
            "as for a bomb; unpack it with the library that wrote it"
        )


def inflate(chunks: Iterable[bytes], out: memoryview) -> None:
    """Unpack deflated bytes into a buffer that they must fill exactly."""
    unpack, done = zlib.decompressobj(-zlib.MAX_WBITS), 0
    for chunk in chunks:
        while chunk:
            found = unpack.decompress(chunk, CHUNK)
            if done + len(found) > len(out):
                raise ValueError("it unpacks to more than it says")
            out[done : done + len(found)] = found
            done += len(found)
            chunk = unpack.unconsumed_tail
    rest = unpack.flush()
    if rest or done != len(out) or not unpack.eof:
        raise ValueError(f"it unpacks to {done + len(rest):,} bytes, and says {len(out):,}")


def native(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return numbers in this machine's order of bytes."""
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"its JSON has the key {twice!r:.80} twice")
    return found


def _stamp(path: Path) -> tuple[int, Any]:
    if is_local(path):
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("expected a file, found a pipe or a device; copy it into a file")
        return found.st_size, found.st_mtime_ns
    stored = path.stat()
    return int(stored.length), stored.mtime


def _printable(text: str) -> str:
    """Return text of a file without what would control a terminal."""
    return "".join(x if x.isprintable() else repr(x)[1:-1] for x in text)
