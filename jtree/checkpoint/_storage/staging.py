"""Arrays staged in one file while a checkpoint is made of them, to bound memory."""

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
from . import atomic, paths
from .memory import release_pages

PIECE: Final = 2**24  # bytes that are computed or written at a time
_ALIGNMENT: Final = 4096  # bytes: what mapping a file into memory takes

Array: TypeAlias = np.ndarray[Any, Any]


class MappedArray(NamedTuple):
    """An array in memory that a file is mapped to, and the checksum of its bytes."""

    array: Array
    crc32: int


class Staged(Source):
    """Arrays by index, in one file; those that have a checksum are complete."""

    def __init__(self, data: Path, arrays: Iterable[LazyArray]) -> None:
        self.arrays = list(arrays)
        self.data = data
        sizes = [-(-max(x.nbytes, 1) // _ALIGNMENT) * _ALIGNMENT for x in self.arrays]
        self.starts = list(accumulate(sizes, initial=0))
        self.checksums: dict[int, int] = {}

    def allocate(self) -> None:
        """Make the file as large as it has to be; its content stays."""
        with self.data.open("ab") as file:
            file.truncate(self.starts[-1])

    def write(self, index: int, pieces: Iterable[Array]) -> None:
        """Write an array."""
        crc32 = 0
        with self.data.open("r+b") as file:
            file.seek(self.starts[index])
            for piece in pieces:
                data = piece.reshape(-1).view(np.uint8).data if piece.size else b""
                crc32 = zlib.crc32(data, crc32)
                file.write(data)
        self.checksums[index] = crc32

    def read(self, shardings: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        """Return arrays by index, each in memory of its own."""
        return {index: self._read(index) for index in shardings}  # type: ignore[arg-type]

    def lazy(self) -> list[LazyArray]:
        """Return the arrays, to be read from here."""
        return [LazyArray(self, n, x.shape, x.dtype) for n, x in enumerate(self.arrays)]

    @contextlib.contextmanager
    def mapped(self) -> Iterator[list[MappedArray]]:
        """Give the arrays in mapped memory, which is returned to the system as it is read."""
        with self.data.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        whole = np.frombuffer(memory, np.uint8)
        parts = [whole[n : n + x.nbytes] for n, x in zip(self.starts, self.arrays, strict=False)]
        with release_pages(memory):
            yield [
                MappedArray(_view(part, x), self.checksums[n])
                for n, (x, part) in enumerate(zip(self.arrays, parts, strict=True))
            ]

    def _read(self, index: int) -> Array:
        x = self.arrays[index]
        return _view(np.fromfile(self.data, np.uint8, x.nbytes, offset=self.starts[index]), x)


def _view(data: Array, x: LazyArray) -> Array:
    array: Array = data.view(x.dtype).reshape(x.shape)
    return array


class StagedState(NamedTuple):
    """A state with its values, and the checksums of the staged arrays by path."""

    state: Any
    checksums: dict[str, int]


@contextlib.contextmanager
def stage(state: Any, target: paths.Path, *, shown: bool) -> Iterator[StagedState]:
    """Give a state whose lazy arrays are in mapped memory, except for PRNG keys.

    Those that are not in such a file yet are written into one beside the target, some at a time.
    """
    walked = walk(state, ties=())
    lazy = {x.path: x.value for x in walked.slots if isinstance(x.value, LazyArray)}
    arrays = {x: None for x in lazy.values() if not _is_key(x)}
    values: dict[LazyArray, Any] = read_all((x, None) for x in lazy.values() if _is_key(x))
    with contextlib.ExitStack() as stack:
        mapped: dict[LazyArray, MappedArray] = {}
        if arrays:
            directory = stack.enter_context(atomic.local_staging_directory(target))
            mapped = stack.enter_context(_map(list(arrays), directory / "data", shown))
        values |= {x: y.array for x, y in mapped.items()}
        checksums = {path: mapped[x].crc32 for path, x in lazy.items() if x in mapped}
        leaves = [values[x] if isinstance(x, LazyArray) else x for x in walked.values]
        yield StagedState(walked.rebuild(leaves) if lazy else state, checksums)


@contextlib.contextmanager
def _map(
    arrays: list[LazyArray], data: Path, shown: bool
) -> Iterator[dict[LazyArray, MappedArray]]:
    """Give arrays in mapped memory, written into a file first unless they are in one."""
    source, *others = {x.source for x in arrays}
    if others or not isinstance(source, Staged):
        source = Staged(data, arrays)
        _fill(source, shown)
        indices: dict[LazyArray, Any] = {x: n for n, x in enumerate(arrays)}
    else:
        indices = {x: x.name for x in arrays}
    with source.mapped() as mapped:
        yield {x: mapped[n] for x, n in indices.items()}


def _fill(staged: Staged, shown: bool) -> None:
    """Read the arrays of a file some at a time, and write them into it."""
    staged.allocate()
    indices = {x: n for n, x in enumerate(staged.arrays)}
    with progress_bar("reading", sum(x.nbytes for x in indices), shown=shown) as bar:
        for batch in batches(indices, read_batch_bytes(indices)):
            values = read_all((x, None) for x in batch)
            for x in batch:
                staged.write(indices[x], [np.ascontiguousarray(values.pop(x))])
            bar.advance(sum(x.nbytes for x in batch))


def _is_key(x: LazyArray) -> bool:
    return bool(jnp.issubdtype(x.dtype, jax.dtypes.extended))
