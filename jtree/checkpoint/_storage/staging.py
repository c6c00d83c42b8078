"""Arrays in one file while a checkpoint is made of them, so that memory need not hold them."""

from __future__ import annotations

import contextlib
import mmap
import zlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ..._progress import progress_bar
from ..._tree.lazy import LazyArray, Source, batches, read_all, read_batch_bytes
from ..._tree.walk import walk
from . import atomic
from .memory import unmapped

PIECE: Final = 2**24  # bytes that are computed or written at a time
_ALIGN: Final = 4096  # bytes: where a file can be mapped into memory

Array: TypeAlias = np.ndarray[Any, Any]


class Mapped(NamedTuple):
    """An array in memory that a file is mapped to, and the checksum of its numbers."""

    array: Array
    crc32: int


class Staged(Source):
    """Arrays by number, in one file; those that have a checksum are finished."""

    def __init__(self, data: Path, arrays: Iterable[LazyArray]) -> None:
        self.arrays = list(arrays)
        self.data = data
        sizes = [-(-max(x.nbytes, 1) // _ALIGN) * _ALIGN for x in self.arrays]
        self.starts = list(accumulate(sizes, initial=0))
        self.checksums: dict[int, int] = {}

    def allocate(self) -> None:
        """Make the file as large as it has to be; what is in it stays."""
        with self.data.open("ab") as file:
            file.truncate(self.starts[-1])

    def write(self, number: int, pieces: Iterable[Array]) -> None:
        """Write an array."""
        crc32 = 0
        with self.data.open("r+b") as file:
            file.seek(self.starts[number])
            for piece in pieces:
                data = piece.reshape(-1).view(np.uint8).data if piece.size else b""
                crc32 = zlib.crc32(data, crc32)
                file.write(data)
        self.checksums[number] = crc32

    def read(self, wanted: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        """Return arrays by number, each in memory of its own."""
        return {number: self._read(number) for number in wanted}  # type: ignore[arg-type]

    def lazy(self) -> list[LazyArray]:
        """Return the arrays, to be read from here."""
        return [LazyArray(self, n, x.shape, x.dtype) for n, x in enumerate(self.arrays)]

    @contextlib.contextmanager
    def mapped(self) -> Iterator[list[Mapped]]:
        """Give the arrays in memory that the file is mapped to; it is given back as it is read."""
        with self.data.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        whole = np.frombuffer(memory, np.uint8)
        parts = [whole[n : n + x.nbytes] for n, x in zip(self.starts, self.arrays, strict=False)]
        with unmapped(memory):
            yield [
                Mapped(_as(x, part), self.checksums[n])
                for n, (x, part) in enumerate(zip(self.arrays, parts, strict=True))
            ]

    def _read(self, number: int) -> Array:
        x = self.arrays[number]
        return _as(x, np.fromfile(self.data, np.uint8, x.nbytes, offset=self.starts[number]))


def _as(x: LazyArray, data: Array) -> Array:
    found: Array = data.view(x.dtype).reshape(x.shape)
    return found


class StagedState(NamedTuple):
    """A state with its numbers, and the checksums of those that are in a file, by path."""

    state: Any
    checksums: dict[str, int]


@contextlib.contextmanager
def in_file(state: Any, target: atomic.Path, *, shown: bool) -> Iterator[StagedState]:
    """Give a state whose lazy arrays are in memory that a file is mapped to, PRNG keys aside.

    Those that are in no such file are put into one beside the target, some at a time.
    """
    walked = walk(state, ties=())
    lazy = {x.path: x.value for x in walked.slots if isinstance(x.value, LazyArray)}
    arrays = {x: None for x in lazy.values() if not _iskey(x)}
    values: dict[LazyArray, Any] = read_all((x, None) for x in lazy.values() if _iskey(x))
    with contextlib.ExitStack() as stack:
        held: dict[LazyArray, Mapped] = {}
        if arrays:
            directory = stack.enter_context(atomic.scratch(target))
            held = stack.enter_context(_mapped(list(arrays), directory / "data", shown))
        values |= {x: mapped.array for x, mapped in held.items()}
        checksums = {path: held[x].crc32 for path, x in lazy.items() if x in held}
        found = (values[x] if isinstance(x, LazyArray) else x for x in walked.values)
        yield StagedState(walked.rebuild(list(found)) if lazy else state, checksums)


@contextlib.contextmanager
def _mapped(arrays: list[LazyArray], data: Path, shown: bool) -> Iterator[dict[LazyArray, Mapped]]:
    """Give arrays in memory that a file is mapped to, once they are in one."""
    home, *others = {x.source for x in arrays}
    if others or not isinstance(home, Staged):
        home = Staged(data, arrays)
        _fill(home, shown)
        numbers: dict[LazyArray, Any] = {x: n for n, x in enumerate(arrays)}
    else:
        numbers = {x: x.name for x in arrays}
    with home.mapped() as held:
        yield {x: held[n] for x, n in numbers.items()}


def _fill(staged: Staged, shown: bool) -> None:
    """Read the arrays that are to be in a file, some at a time, and write them."""
    staged.allocate()
    numbers = {x: n for n, x in enumerate(staged.arrays)}
    with progress_bar("reading", sum(x.nbytes for x in numbers), shown=shown) as bar:
        for batch in batches(numbers, read_batch_bytes(numbers)):
            found = read_all((x, None) for x in batch)
            for x in batch:
                staged.write(numbers[x], [np.ascontiguousarray(found.pop(x))])
            bar.advance(sum(x.nbytes for x in batch))


def _iskey(x: LazyArray) -> bool:
    return bool(jnp.issubdtype(x.dtype, jax.dtypes.extended))
