"""Files of other libraries: bytes that are read on demand, and what the files contain."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..._errors import CheckpointError, ChecksumError, ExtraError
from ..._text import printable
from ..._tree.lazy import Computed, LazyArray
from .limits import DamageError as DamageError
from .limits import array_nbytes

Path: TypeAlias = Any  # etils.epath.Path: a local path, gs:// or s3://

CHUNK = 2**20  # bytes that are read at a time


class FileContents(NamedTuple):
    """The tree of a file, with lazy arrays, and what else is known of the file.

    Attributes:
      types: the Julia type of each struct and function, by path.
    """

    format: str
    tree: Any
    metadata: Any
    source: Any
    ties: tuple[tuple[str, ...], ...] = ()
    types: Mapping[str, str] = MappingProxyType({})


class File:
    """A file that is read in parts. It is opened for each read, and must not change in between.

    Arrays are read straight into memory of their own: nothing is mapped, so nothing that happens
    to the file later can change or break an array.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.islocal = "://" not in str(path)
        self.size, self.changed = self._stamp()

    def read(self, start: int, count: int) -> bytes:
        """Return exactly `count` bytes."""
        self._check(start, count)
        with self._open() as file:
            file.seek(start)
            data: bytes = file.read(count)
        if len(data) != count:
            raise _truncated(start, count, len(data))
        return data

    def array(self, start: int, shape: Iterable[int], dtype: Any) -> np.ndarray[Any, Any]:
        """Return an array whose values are stored one after another."""
        shape = tuple(shape)
        count = array_nbytes(shape, dtype)
        self._check(start, count)
        buffer = np.empty(count, np.uint8)
        view, end = buffer.data, 0
        with self._open() as file:
            file.seek(start)
            while end < count:
                more = file.readinto(view[end:])
                if not more:
                    raise _truncated(start, count, end)
                end += more
        array: np.ndarray[Any, Any] = buffer.view(dtype).reshape(shape)
        return array

    def chunks(self, start: int, count: int) -> Iterator[bytes]:
        """Yield `count` bytes, a mebibyte at a time."""
        self._check(start, count)
        with self._open() as file:
            file.seek(start)
            for at in range(0, count, CHUNK):
                yield file.read(min(CHUNK, count - at))

    def check_unchanged(self) -> None:
        """Refuse a file that has changed since it was opened."""
        if self._stamp() != (self.size, self.changed):
            raise ValueError("the file has changed since it was opened; open it again")

    def _open(self) -> Any:
        """Open the file, where it is local with Python's own `open`, which takes a fraction."""
        self.check_unchanged()
        return open(self.path, "rb") if self.islocal else self.path.open("rb")

    def _check(self, start: int, count: int) -> None:
        if start < 0 or count < 0 or start + count > self.size:
            raise _truncated(start, count, max(0, self.size - start))

    def _stamp(self) -> tuple[int, Any]:
        if not self.islocal:
            remote = self.path.stat()
            return int(remote.length), remote.mtime
        status = os.stat(self.path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(
                "expected a regular file, found a pipe or a device; copy its contents to a file"
            )
        return status.st_size, status.st_mtime_ns


def _truncated(start: int, expected: int, found: int) -> ValueError:
    return ValueError(
        f"truncated: expected {expected:,} bytes at offset {start:,}, found {found:,}"
    )


class Entries(Computed):
    """A source of arrays in a file. An error in reading one names the file and the array."""

    def __init__(self, file: File, *, verified: bool = False) -> None:
        super().__init__()
        self.file = file
        self.verified = verified
        self.names: list[str] = []

    def add_named(
        self, name: str, shape: Iterable[int], dtype: Any, reader: Callable[[], Any]
    ) -> LazyArray:
        """Return a lazy array whose values are what the function returns."""
        self.names.append(name)
        return self.add(shape, np.dtype(dtype), reader)

    def _read(self, name: Any, sharding: Any) -> Any:
        with as_checkpoint_error(self.file.path, f"cannot read {self.names[name]}"):
            return super()._read(name, sharding)


@contextmanager
def as_checkpoint_error(path: Path, failure: str) -> Iterator[None]:
    """Turn whatever a malformed file causes into an error that names the file and the failure."""
    try:
        yield
    except (CheckpointError, ExtraError):
        raise
    except DamageError as error:
        raise ChecksumError(
            f"{path}: {failure}: {error}; use another copy of this file, or pass verify=False to "
            "read it as it is"
        ) from error
    except RecursionError as error:
        raise CheckpointError(f"{path}: {failure}: nested too deeply") from error
    except Exception as error:  # the parsers of Python and HDF5 raise nearly everything
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{path}: {failure}: {printable(lines[0][:300])}") from error


def little_endian(dtype: Any) -> np.dtype[Any]:
    """Return a dtype with little-endian byte order."""
    little: np.dtype[Any] = np.dtype(dtype).newbyteorder("<")
    return little


def to_native(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array with the byte order of this machine."""
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
