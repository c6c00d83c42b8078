"""Lazy arrays that are computed from other lazy arrays when they are read."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, Final, cast

import jax
import numpy as np

from ..._tree.lazy import LazyArray, Source, read_all, read_batch_bytes
from ..._tree.leaves import canonical
from .lazy_ops import Array, BlockArray, Values, full_block, split_blocks, unchanged


class BlockSource(Source):
    """The source of computed arrays; each is named by the `BlockArray` that computes it."""

    def read(self, shardings: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        """Return computed arrays, with their inputs read together."""
        names = cast(Mapping[BlockArray, Any], shardings)
        values = _read_sources(names)
        arrays = ((x, x.read(full_block(x.shape), values)) for x in names)
        return {x: _put(array, names[x]) for x, array in arrays}


BLOCKS: Final = BlockSource()


def as_lazy(x: BlockArray) -> LazyArray:
    """Return a computed array as a lazy one; an unchanged array of the source stays what it is."""
    return x.source or LazyArray(BLOCKS, x, x.shape, x.dtype)


def as_blocks(x: LazyArray) -> BlockArray:
    """Return a lazy array as one that is computed block by block."""
    return cast(BlockArray, x.name) if x.source is BLOCKS else unchanged(x)


def read_pieces(arrays: Iterable[LazyArray], limit: int, /) -> Iterator[Iterator[Array]]:
    """Yield the values of each array, in C order, in pieces of at most `limit` bytes.

    Small arrays are read together. The memory needed is that of the arrays read, and of one piece.
    """
    for batch in _batches([as_blocks(x) for x in arrays]):
        values = _read_sources(batch)
        for x in batch:
            yield _pieces(x, values, limit)
        del values  # before more is read


def _pieces(x: BlockArray, values: Values, limit: int) -> Iterator[Array]:
    for block in split_blocks(x.shape, max(1, limit // max(1, int(x.dtype.itemsize)))):
        yield np.ascontiguousarray(x.read(block, values))


def _batches(arrays: list[BlockArray]) -> Iterator[list[BlockArray]]:
    """Yield arrays, in order, in batches whose inputs are read together."""
    limit = read_batch_bytes(source for x in arrays for source in x.sources())
    batch: list[BlockArray] = []
    size = 0
    for x in arrays:
        cost = sum(source.source.cost(source) for source in set(x.sources()))
        if batch and size + cost > limit:
            yield batch
            batch, size = [], 0
        batch.append(x)
        size += cost
    if batch:
        yield batch


def _read_sources(arrays: Iterable[BlockArray]) -> Values:
    sources = dict.fromkeys(source for x in arrays for source in x.sources())
    return {x: np.asarray(array) for x, array in read_all((x, None) for x in sources).items()}


def _put(x: Array, sharding: Any) -> Any:
    """Return an array on its sharding, unless JAX would lose precision."""
    if sharding is None or canonical(x.dtype) != x.dtype:
        return x
    return jax.device_put(x, sharding)
