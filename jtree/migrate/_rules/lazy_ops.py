"""Operations on arrays that are computed from others, block by block.

A `BlockArray` knows its shape and dtype, and computes any block of itself from blocks of its
inputs. So a chain of rules needs no memory for what lies between, and an array can be written to a
file piece by piece.
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
Values: TypeAlias = Mapping[LazyArray, Array]  # the arrays of the source that were read
BlockSlices: TypeAlias = tuple[slice, ...]  # start and stop along each axis
ReadBlock: TypeAlias = Callable[[BlockSlices, Values], Array]


@dataclass(frozen=True, eq=False)
class BlockArray:
    """An array that is computed from its inputs, block by block.

    Attributes:
      shape: its shape.
      dtype: its dtype.
      inputs: the arrays that it is computed from.
      read: returns a block, given the values of the source's arrays.
      source: the array of the source, if this is one of them unchanged.
    """

    shape: tuple[int, ...]
    dtype: Any
    inputs: tuple[BlockArray, ...]
    read: ReadBlock
    source: LazyArray | None = None

    def sources(self) -> Iterator[LazyArray]:
        """Yield the arrays of the source that it is computed from."""
        if self.source is not None:
            yield self.source
        for x in self.inputs:
            yield from x.sources()


def full_block(shape: Sequence[int]) -> BlockSlices:
    """Return the block that is all of an array."""
    return tuple(slice(0, n) for n in shape)


def unchanged(x: LazyArray) -> BlockArray:
    """Return an array of the source as it is."""
    return BlockArray(x.shape, x.dtype, (), lambda block, values: values[x][block], x)


def full(shape: tuple[int, ...], dtype: Any, value: Any) -> BlockArray:
    """Return an array with one value everywhere."""
    return BlockArray(shape, dtype, (), lambda block, _: np.full(_lengths(block), value, dtype))


def map_values(x: BlockArray, dtype: Any, function: Callable[[Array], Array]) -> BlockArray:
    """Return an array with an elementwise function applied."""
    return BlockArray(x.shape, dtype, (x,), lambda block, values: function(x.read(block, values)))


def transpose(x: BlockArray, axes: tuple[int, ...]) -> BlockArray:
    """Return an array with its axes in another order."""

    def read(block: BlockSlices, values: Values) -> Array:
        inner = tuple(block[axes.index(axis)] for axis in range(len(axes)))
        return x.read(inner, values).transpose(axes)

    return BlockArray(tuple(x.shape[axis] for axis in axes), x.dtype, (x,), read)


def flip(x: BlockArray, axes: tuple[int, ...]) -> BlockArray:
    """Return an array reversed along some axes."""

    def read(block: BlockSlices, values: Values) -> Array:
        inner = list(block)
        for axis in axes:
            length = x.shape[axis]
            inner[axis] = slice(length - block[axis].stop, length - block[axis].start)
        return np.flip(x.read(tuple(inner), values), axes)

    return BlockArray(x.shape, x.dtype, (x,), read)


def take(x: BlockArray, axis: int, indices: Array) -> BlockArray:
    """Return an array whose entries along an axis are those at these indices."""

    def read(block: BlockSlices, values: Values) -> Array:
        selected = indices[block[axis]]
        if not selected.size:
            return x.read(block, values)
        low, high = int(selected.min()), int(selected.max()) + 1
        return x.read(_replace(block, axis, slice(low, high)), values).take(selected - low, axis)

    return BlockArray(x.shape, x.dtype, (x,), read)


def reshape(x: BlockArray, shape: tuple[int, ...]) -> BlockArray:
    """Return an array with the same values, in C order, in another shape."""

    def read(block: BlockSlices, values: Values) -> Array:
        bounds = _flat_range(shape, block)
        if bounds is None:
            return x.read(full_block(x.shape), values).reshape(shape)[block]
        cover, start = _covering_block(x.shape, *bounds)
        flat = x.read(cover, values).reshape(-1)
        return flat[start : start + bounds[1] - bounds[0]].reshape(_lengths(block))

    return BlockArray(shape, x.dtype, (x,), read)


def stack(xs: Sequence[BlockArray], axis: int) -> BlockArray:
    """Return arrays of one shape, joined along a new axis."""
    first = xs[0]

    def read(block: BlockSlices, values: Values) -> Array:
        inner = (*block[:axis], *block[axis + 1 :])
        arrays = [x.read(inner, values) for x in xs[block[axis]]]
        return np.stack(arrays, axis) if arrays else np.empty(_lengths(block), first.dtype)

    shape = (*first.shape[:axis], len(xs), *first.shape[axis:])
    return BlockArray(shape, first.dtype, tuple(xs), read)


def take_one(x: BlockArray, axis: int, index: int) -> BlockArray:
    """Return an array without an axis: its entry at one index of it."""

    def read(block: BlockSlices, values: Values) -> Array:
        inner = (*block[:axis], slice(index, index + 1), *block[axis:])
        return x.read(inner, values).squeeze(axis)

    return BlockArray((*x.shape[:axis], *x.shape[axis + 1 :]), x.dtype, (x,), read)


def slice_axis(x: BlockArray, axis: int, start: int, stop: int) -> BlockArray:
    """Return the slice of an array between two indices of an axis."""

    def read(block: BlockSlices, values: Values) -> Array:
        shifted = slice(block[axis].start + start, block[axis].stop + start)
        return x.read(_replace(block, axis, shifted), values)

    shape = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
    return BlockArray(shape, x.dtype, (x,), read)


def concatenate(xs: Sequence[BlockArray], axis: int) -> BlockArray:
    """Return arrays joined along an existing axis."""
    ends = list(accumulate((x.shape[axis] for x in xs), initial=0))

    def read(block: BlockSlices, values: Values) -> Array:
        outer, arrays = block[axis], []
        for x, (start, stop) in zip(xs, pairwise(ends), strict=True):
            low, high = max(outer.start, start), min(outer.stop, stop)
            if low < high:
                inner = _replace(block, axis, slice(low - start, high - start))
                arrays.append(x.read(inner, values))
        return np.concatenate(arrays, axis) if arrays else np.empty(_lengths(block), xs[0].dtype)

    shape = (*xs[0].shape[:axis], ends[-1], *xs[0].shape[axis + 1 :])
    return BlockArray(shape, xs[0].dtype, tuple(xs), read)


def require_equal(x: BlockArray, y: BlockArray, message: str) -> BlockArray:
    """Return an array that must be equal to another, which is checked when it is read."""

    def read(block: BlockSlices, values: Values) -> Array:
        array = x.read(block, values)
        if not equal(array, y.read(block, values)):
            raise RuleError(message)
        return array

    return BlockArray(x.shape, x.dtype, (x, y), read)


def split_blocks(shape: tuple[int, ...], limit: int) -> Iterator[BlockSlices]:
    """Yield blocks of an array in C order, of at most `limit` elements each.

    >>> [block[0] for block in split_blocks((5, 2), 4)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    sizes = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    axis = next((n for n, size in enumerate(sizes) if size <= limit), len(shape) - 1)
    if math.prod(shape) <= limit or axis < 0:
        yield full_block(shape)
        return
    step = max(1, limit // sizes[axis])
    for outer in np.ndindex(*shape[:axis]):
        for start in range(0, shape[axis], step):
            stop = min(start + step, shape[axis])
            indices = tuple(slice(n, n + 1) for n in outer)
            yield (*indices, slice(start, stop), *full_block(shape[axis + 1 :]))


def _lengths(block: BlockSlices) -> list[int]:
    return [s.stop - s.start for s in block]


def _replace(block: BlockSlices, axis: int, new: slice) -> BlockSlices:
    return (*block[:axis], new, *block[axis + 1 :])


def _flat_range(shape: tuple[int, ...], block: BlockSlices) -> tuple[int, int] | None:
    """Return where a block begins and ends in C order, or None if it is not contiguous."""
    lengths = _lengths(block)
    count = math.prod(lengths)
    axis = next((n for n, length in enumerate(lengths) if length != 1), len(shape))
    if not count or lengths[axis + 1 :] != list(shape[axis + 1 :]):
        return None
    start = 0
    for length, s in zip(shape, block, strict=True):
        start = start * length + s.start
    return start, start + count


def _covering_block(shape: tuple[int, ...], start: int, stop: int) -> tuple[BlockSlices, int]:
    """Return a block that contains a range of an array in C order, and where that begins in it."""
    block: list[slice] = []
    for axis in range(len(shape)):
        size = math.prod(shape[axis + 1 :])
        low, high = start // size, (stop - 1) // size
        block.append(slice(low, high + 1))
        start, stop = start - low * size, stop - low * size
        if low != high:
            return (*block, *full_block(shape[axis + 1 :])), start
    return tuple(block), 0
