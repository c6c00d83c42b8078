"""Arrays that are finished before all are: kept in a file beside the target, with a journal.

A process that is killed leaves them there, and the next one goes on with those whose checksum is
right, if it makes the same of the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..._errors import CheckpointError
from ..._tree.lazy import LazyArray
from ...checkpoint._storage.staging import PIECE, Array, Staged


class Journal(Staged):
    """Staged arrays, and a list of those that are finished, which outlives the process.

    Nothing is forced to disk: what a machine that went down has lost has another checksum.
    """

    def __init__(self, directory: Path, arrays: Iterable[LazyArray]) -> None:
        super().__init__(directory / "data", arrays)
        self.journal = directory / "journal"

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
        self.allocate()

    def missing(self) -> list[int]:
        """Return the numbers of the arrays that are still to be written."""
        return [n for n in range(len(self.arrays)) if n not in self.checksums]

    def write(self, number: int, pieces: Iterable[Array]) -> None:
        """Write an array, and note that it is finished."""
        super().write(number, pieces)
        with self.journal.open("a") as file:
            file.write(_line(number, self.checksums[number]))

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
