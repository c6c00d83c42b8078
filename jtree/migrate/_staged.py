"""Arrays that are finished before all are: kept in a file beside the target, with a journal.

A process that is killed leaves them there, and the next one goes on with those whose checksum is
right, if it makes the same of the same.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import sys
import zlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np

from .._errors import CheckpointError
from .._lazy import LazyArray
from .._leaves import canonical
from ._blocks import Array

PIECE: Final = 2**24  # bytes that are computed, written or checked at a time
_ALIGN: Final = 4096  # bytes: where a file can be mapped into memory


class Staged:
    """Finished arrays by number, in one file, and what is known of those to come."""

    def __init__(self, directory: Path, arrays: Iterable[LazyArray]) -> None:
        self.arrays = list(arrays)
        self.data = directory / "data"
        self.journal = directory / "journal"
        sizes = [-(-max(x.nbytes, 1) // _ALIGN) * _ALIGN for x in self.arrays]
        self.starts = list(accumulate(sizes, initial=0))
        self.checksums: dict[int, int] = {}

    def resume(self, key: str) -> None:
        """Find what an earlier process has finished; begin anew where it made something else."""
        lines = _lines(self.journal)
        if next(lines, None) == {"key": key} and self.data.exists():
            for line in lines:
                with contextlib.suppress(KeyError, TypeError, IndexError):
                    if self._checksum(line["number"]) == line["crc32"]:
                        self.checksums[line["number"]] = line["crc32"]
        with self.journal.open("w") as file:
            file.write(json.dumps({"key": key}) + "\n")
            file.writelines(_line(n, crc32) for n, crc32 in self.checksums.items())
            _flush(file)
        with self.data.open("ab") as file:
            file.truncate(self.starts[-1])

    def missing(self) -> list[int]:
        """Return the numbers of the arrays that are still to be written."""
        return [n for n in range(len(self.arrays)) if n not in self.checksums]

    def write(self, number: int, pieces: Iterable[Array]) -> None:
        """Write an array, and note that it is finished."""
        crc32 = 0
        with self.data.open("r+b") as file:
            file.seek(self.starts[number])
            for piece in pieces:
                data = piece.reshape(-1).view(np.uint8).data if piece.size else b""
                crc32 = zlib.crc32(data, crc32)
                file.write(data)
            _flush(file)
        with self.journal.open("a") as file:
            file.write(_line(number, crc32))
            _flush(file)
        self.checksums[number] = crc32

    def read(self, wanted: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        """Return arrays by number, each in memory of its own."""
        return {number: self._read(number) for number in wanted}  # type: ignore[arg-type]

    def lazy(self) -> list[LazyArray]:
        """Return the arrays, to be read from here."""
        return [LazyArray(self, n, x.shape, x.dtype) for n, x in enumerate(self.arrays)]

    def mapped(self) -> tuple[list[Any], mmap.mmap]:
        """Return the arrays, as JAX has them, in the memory that their file is mapped to."""
        with self.data.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        whole, cpu = np.frombuffer(memory, np.uint8), jax.devices("cpu")[0]
        found: list[Any] = []
        for start, x in zip(self.starts, self.arrays, strict=False):
            view = whole[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
            same = canonical(x.dtype) == x.dtype
            found.append(jax.device_put(view, cpu, may_alias=True) if same else view)
        return found, memory

    def _read(self, number: int) -> Array:
        x = self.arrays[number]
        flat = np.fromfile(self.data, np.uint8, x.nbytes, offset=self.starts[number])
        found: Array = flat.view(x.dtype).reshape(x.shape)
        return found

    def _checksum(self, number: int) -> int:
        crc32, left = 0, self.arrays[number].nbytes
        with self.data.open("rb") as file:
            file.seek(self.starts[number])
            while left and (data := file.read(min(left, PIECE))):
                crc32, left = zlib.crc32(data, crc32), left - len(data)
        return crc32 if not left else -1


def workplace(target: Path) -> Path:
    """Return the directory beside a target where its arrays are staged."""
    return target.parent / f".{target.name}.convert"


@contextlib.contextmanager
def locked(work: Path, target: Path) -> Iterator[None]:
    """Make a directory that only one process at a time has, and remove it at the end.

    Where anything fails, it stays for the next process.
    """
    work.mkdir(parents=True, exist_ok=True)
    with _locked(work, target):
        yield
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _locked(work: Path, target: Path) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise CheckpointError(f"{target}: another process is converting to it just now") from error
    finally:
        os.close(handle)


def _lines(file: Path) -> Iterator[Any]:
    """Yield what is in a journal, up to a line that was cut off."""
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text("utf-8").splitlines():
            yield json.loads(line)


def _line(number: int, crc32: int) -> str:
    return json.dumps({"number": number, "crc32": crc32}) + "\n"


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
