"""Arrays staged beside a target, and a journal of those that are complete.

A process that is killed leaves both behind. The next one keeps the arrays whose checksum matches,
if it computes the same arrays from the same files.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..._errors import CheckpointError
from ..._tree.lazy import LazyArray
from ...checkpoint._storage.atomic import lock
from ...checkpoint._storage.durable import full_error, is_full
from ...checkpoint._storage.staging import PIECE, Array, Staged

_INSTALLED = "installed"


class Journal(Staged):
    """Staged arrays, and a list of those that are complete, which outlives the process.

    Nothing is flushed to disk: values that are lost when the machine goes down fail their checksum.
    """

    def __init__(self, staging: Path, arrays: Iterable[LazyArray]) -> None:
        super().__init__(staging / "data", arrays)
        self.journal = staging / "journal"

    def resume(self, fingerprint: str) -> None:
        """Keep the complete arrays of an earlier process that has the same fingerprint."""
        lines = _read_lines(self.journal)
        if next(lines, None) == {"fingerprint": fingerprint} and self.data.exists():
            for line in lines:
                with contextlib.suppress(KeyError, TypeError, IndexError):
                    if self._checksum(line["index"]) == line["crc32"]:
                        self.checksums[line["index"]] = line["crc32"]
        with self.journal.open("w") as file:
            file.write(json.dumps({"fingerprint": fingerprint}) + "\n")
            file.writelines(_line(n, crc32) for n, crc32 in self.checksums.items())
        self.allocate()

    def missing(self) -> list[int]:
        """Return the indices of the arrays that are not complete."""
        return [n for n in range(len(self.arrays)) if n not in self.checksums]

    def write(self, index: int, pieces: Iterable[Array]) -> None:
        """Write an array, and note that it is complete."""
        super().write(index, pieces)
        with self.journal.open("a") as file:
            file.write(_line(index, self.checksums[index]))

    def _checksum(self, index: int) -> int:
        """Return the checksum of the bytes in the file, or -1 where it is truncated."""
        crc32, remaining = 0, self.arrays[index].nbytes
        with self.data.open("rb") as file:
            file.seek(self.starts[index])
            while remaining and (data := file.read(min(remaining, PIECE))):
                crc32, remaining = zlib.crc32(data, crc32), remaining - len(data)
        return crc32 if not remaining else -1


def mark_installed(staging: Path, fingerprint: str) -> None:
    """Note that the target is about to be complete."""
    (staging / _INSTALLED).write_text(fingerprint)


def is_installed(staging: Path, fingerprint: str) -> bool:
    """Return whether a process was killed after it installed the target, before it cleaned up."""
    mark = staging / _INSTALLED
    if mark.exists():
        return mark.read_text() == fingerprint
    with contextlib.suppress(OSError):
        staging.rmdir()  # where only the empty directory is left
    return False


def remove(path: Path) -> None:
    """Remove a file or a directory, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def staging_path(target: Path) -> Path:
    """Return the directory beside a target in which its arrays are staged."""
    return target.parent / f".{target.name}.convert"


@contextlib.contextmanager
def locked_staging(staging: Path, target: Path, nbytes: int) -> Iterator[None]:
    """Make a directory that one process at a time may use, and remove it at the end.

    Where the block raises an exception, the directory stays for the next process, unless the disk
    is full: then its arrays of `nbytes` bytes make room.
    """
    staging.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock(staging, wait=False))
        except BlockingIOError as error:
            raise CheckpointError(
                f"{target}: another process is converting to this path; wait until it ends"
            ) from error
        try:
            yield
        except Exception as error:
            if not is_full(error):
                raise
            shutil.rmtree(staging, ignore_errors=True)
            raise full_error(target, nbytes) from error
        for path in staging.iterdir():
            if path.name != _INSTALLED:  # a process that is killed here is not to begin again
                remove(path)
        shutil.rmtree(staging, ignore_errors=True)


def _read_lines(file: Path) -> Iterator[Any]:
    """Yield the lines of a journal, up to one that is cut off."""
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text("utf-8").splitlines():
            yield json.loads(line)


def _line(index: int, crc32: int) -> str:
    return json.dumps({"index": index, "crc32": crc32}) + "\n"
