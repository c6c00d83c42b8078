"""Lazy arrays that stand for computed ones: what they need is read together, when they are read."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, Final, cast

import jax
import numpy as np

from ..._tree.lazy import LazyArray, Source, read_all, read_batch_bytes
from ..._tree.leaves import canonical
from .lazy_ops import Array, Inputs, Node, boxes, leaf, whole


class Derived(Source):
    """The source of computed arrays; the name of each is the node that computes it."""

    def read(self, wanted: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        """Return computed arrays by name, their inputs read in one batch."""
        nodes = [cast(Node, name) for name in wanted]
        held = _read(*nodes)
        found = ((x, x.block(whole(x.shape), held), wanted[x]) for x in nodes)
        return {x: _placed(array, sharding) for x, array, sharding in found}


DERIVED: Final = Derived()


def lazy(x: Node) -> LazyArray:
    """Return a computed array as a lazy one; one that is an array as it is stays what it was."""
    return x.array or LazyArray(DERIVED, x, x.shape, x.dtype)


def node(x: LazyArray) -> Node:
    """Return what computes a lazy array."""
    return cast(Node, x.name) if x.source is DERIVED else leaf(x)


def pieces(xs: Iterable[LazyArray], most: int, /) -> Iterator[Iterator[Array]]:
    """Yield for each array its numbers, in C order, in pieces of at most so many bytes.

    Small arrays are read together. No more memory is needed than for what is read, and a piece.
    """
    for batch in _batches(list(xs)):
        nodes = [node(x) for x in batch]
        held = _read(*nodes)
        for x in nodes:
            yield _pieces(x, held, most)
        del held  # before more is read


def _pieces(x: Node, held: Inputs, most: int) -> Iterator[Array]:
    for box in boxes(x.shape, max(1, most // max(1, int(x.dtype.itemsize)))):
        yield np.ascontiguousarray(x.block(box, held))


def _batches(xs: list[LazyArray]) -> Iterator[list[LazyArray]]:
    most = read_batch_bytes(y for x in xs for y in node(x).leaves())
    batch: list[LazyArray] = []
    size = 0
    for x in xs:
        needed = sum(y.source.cost(y) for y in set(node(x).leaves()))
        if batch and size + needed > most:
            yield batch
            batch, size = [], 0
        batch.append(x)
        size += needed
    if batch:
        yield batch


def _read(*nodes: Node) -> Inputs:
    leaves = dict.fromkeys(x for found in nodes for x in found.leaves())
    return {x: np.asarray(array) for x, array in read_all((x, None) for x in leaves).items()}


def _placed(x: Array, sharding: Any) -> Any:
    """Return an array on devices, unless JAX would lose numbers of it."""
    if sharding is None or canonical(x.dtype) != x.dtype:
        return x
    return jax.device_put(x, sharding)
