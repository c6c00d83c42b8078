"""Arrays that are computed from others, block by block.

A node knows its shape and dtype, and computes any block of itself from blocks of what it is made
of. So a chain of rules needs no memory for what is between, and an array can be written to a file
piece by piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

import numpy as np

from ..._errors import RuleError
from ..._tree.lazy import LazyArray
from ..._tree.leaves import equal

Array: TypeAlias = np.ndarray[Any, Any]
Inputs: TypeAlias = Mapping[LazyArray, Array]  # the arrays that were read
Index: TypeAlias = tuple[slice, ...]  # start and stop for each axis
Block: TypeAlias = Callable[[Index, Inputs], Array]


@dataclass(frozen=True, eq=False)
class Node:
    """An array that is computed from others; `block(index, held)` is part of it."""

    shape: tuple[int, ...]
    dtype: Any
    inputs: tuple[Node, ...]
    block: Block
    array: LazyArray | None = None  # of the source, where it is one as it is

    def leaves(self) -> Iterator[LazyArray]:
        """Yield the arrays of the source that it is computed from."""
        if self.array is not None:
            yield self.array
        for x in self.inputs:
            yield from x.leaves()


def whole(shape: Sequence[int]) -> Index:
    """Return the index of all of an array."""
    return tuple(slice(0, n) for n in shape)


def leaf(x: LazyArray) -> Node:
    """Return an array of the source as it is."""
    return Node(x.shape, x.dtype, (), lambda index, held: held[x][index], x)


def filled(shape: tuple[int, ...], dtype: Any, value: Any) -> Node:
    """Return an array with one number everywhere."""
    return Node(shape, dtype, (), lambda index, _: np.full(_lengths(index), value, dtype))


def mapped(x: Node, dtype: Any, function: Callable[[Array], Array]) -> Node:
    """Return an array of a function of each number."""
    return Node(x.shape, dtype, (x,), lambda index, held: function(x.block(index, held)))


def transposed(x: Node, axes: tuple[int, ...]) -> Node:
    """Return an array with its axes in another order."""

    def block(index: Index, held: Inputs) -> Array:
        inner = [index[axes.index(n)] for n in range(len(axes))]
        return x.block(tuple(inner), held).transpose(axes)

    return Node(tuple(x.shape[n] for n in axes), x.dtype, (x,), block)


def flipped(x: Node, axes: tuple[int, ...]) -> Node:
    """Return an array that runs backwards along some axes."""

    def block(index: Index, held: Inputs) -> Array:
        inner = list(index)
        for n in axes:
            inner[n] = slice(x.shape[n] - index[n].stop, x.shape[n] - index[n].start)
        return np.flip(x.block(tuple(inner), held), axes)

    return Node(x.shape, x.dtype, (x,), block)


def reordered(x: Node, axis: int, places: Array) -> Node:
    """Return an array whose entries along an axis are those at these places."""

    def block(index: Index, held: Inputs) -> Array:
        wanted = places[index[axis]]
        if not wanted.size:
            return x.block(index, held)
        low, high = int(wanted.min()), int(wanted.max()) + 1
        return x.block(_replace(index, axis, slice(low, high)), held).take(wanted - low, axis)

    return Node(x.shape, x.dtype, (x,), block)


def reshaped(x: Node, shape: tuple[int, ...]) -> Node:
    """Return an array with the same numbers, in C order, in another shape."""

    def block(index: Index, held: Inputs) -> Array:
        bounds = _flat_range(shape, index)
        if bounds is None:
            return x.block(whole(x.shape), held).reshape(shape)[index]
        inner, start = _cover(x.shape, *bounds)
        flat = x.block(inner, held).reshape(-1)
        return flat[start : start + bounds[1] - bounds[0]].reshape(_lengths(index))

    return Node(shape, x.dtype, (x,), block)


def stacked(xs: Sequence[Node], axis: int) -> Node:
    """Return arrays of one shape, side by side along a new axis."""
    first = xs[0]

    def block(index: Index, held: Inputs) -> Array:
        inner = (*index[:axis], *index[axis + 1 :])
        chosen = [x.block(inner, held) for x in xs[index[axis]]]
        return np.stack(chosen, axis) if chosen else np.empty(_lengths(index), first.dtype)

    shape = (*first.shape[:axis], len(xs), *first.shape[axis:])
    return Node(shape, first.dtype, tuple(xs), block)


def picked(x: Node, axis: int, place: int) -> Node:
    """Return what is at one place of an axis."""

    def block(index: Index, held: Inputs) -> Array:
        inner = (*index[:axis], slice(place, place + 1), *index[axis:])
        return x.block(inner, held).squeeze(axis)

    return Node((*x.shape[:axis], *x.shape[axis + 1 :]), x.dtype, (x,), block)


def part(x: Node, axis: int, start: int, stop: int) -> Node:
    """Return what is between two places of an axis."""

    def block(index: Index, held: Inputs) -> Array:
        moved = slice(index[axis].start + start, index[axis].stop + start)
        return x.block(_replace(index, axis, moved), held)

    shape = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
    return Node(shape, x.dtype, (x,), block)


def joined(xs: Sequence[Node], axis: int) -> Node:
    """Return arrays one after another along an axis that they have."""
    ends = list(accumulate((x.shape[axis] for x in xs), initial=0))

    def block(index: Index, held: Inputs) -> Array:
        wanted, found = index[axis], []
        for x, (start, stop) in zip(xs, pairwise(ends), strict=True):
            low, high = max(wanted.start, start), min(wanted.stop, stop)
            if low < high:
                inner = _replace(index, axis, slice(low - start, high - start))
                found.append(x.block(inner, held))
        return np.concatenate(found, axis) if found else np.empty(_lengths(index), xs[0].dtype)

    shape = (*xs[0].shape[:axis], ends[-1], *xs[0].shape[axis + 1 :])
    return Node(shape, xs[0].dtype, tuple(xs), block)


def agreed(x: Node, y: Node, message: str) -> Node:
    """Return an array that another must be equal to, which is checked when it is read."""

    def block(index: Index, held: Inputs) -> Array:
        found = x.block(index, held)
        if not equal(found, y.block(index, held)):
            raise RuleError(message)
        return found

    return Node(x.shape, x.dtype, (x, y), block)


def boxes(shape: tuple[int, ...], most: int) -> Iterator[Index]:
    """Yield parts of an array, in C order, of at most so many numbers each.

    >>> [box[0] for box in boxes((5, 2), 4)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    sizes = [math.prod(shape[n + 1 :]) for n in range(len(shape))]
    axis = next((n for n, size in enumerate(sizes) if size <= most), len(shape) - 1)
    if math.prod(shape) <= most or axis < 0:
        yield whole(shape)
        return
    step = max(1, most // sizes[axis])
    for above in np.ndindex(*shape[:axis]):
        for start in range(0, shape[axis], step):
            stop = min(start + step, shape[axis])
            outer = tuple(slice(n, n + 1) for n in above)
            yield (*outer, slice(start, stop), *whole(shape[axis + 1 :]))


def _lengths(index: Index) -> list[int]:
    return [s.stop - s.start for s in index]


def _replace(index: Index, axis: int, new: slice) -> Index:
    return (*index[:axis], new, *index[axis + 1 :])


def _flat_range(shape: tuple[int, ...], index: Index) -> tuple[int, int] | None:
    """Return where a block begins and ends in C order, or None if it is not in one piece."""
    lengths = _lengths(index)
    count = math.prod(lengths)
    axis = next((n for n, length in enumerate(lengths) if length != 1), len(shape))
    if not count or lengths[axis + 1 :] != list(shape[axis + 1 :]):
        return None
    start = 0
    for n, s in zip(shape, index, strict=True):
        start = start * n + s.start
    return start, start + count


def _cover(shape: tuple[int, ...], start: int, stop: int) -> tuple[Index, int]:
    """Return a block that holds a range of an array in C order, and where in it that begins."""
    index: list[slice] = []
    for n in range(len(shape)):
        size = math.prod(shape[n + 1 :])
        low, high = start // size, (stop - 1) // size
        index.append(slice(low, high + 1))
        start, stop = start - low * size, stop - low * size
        if low != high:
            return (*index, *whole(shape[n + 1 :])), start
    return tuple(index), 0
