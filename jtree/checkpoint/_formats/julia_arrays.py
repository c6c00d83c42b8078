"""Arrays that Julia wraps in a struct: transposed, reshaped, permuted, in part, or as bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ..._tree.lazy import LazyArray
from .julia_values import JuliaFunction, JuliaStruct, last_name
from .limits import MEMORY, array_nbytes

Values: TypeAlias = "np.ndarray[Any, Any]"
Parent: TypeAlias = Callable[[Any], LazyArray | None]


def unwrap_array(x: JuliaStruct, parent: Parent) -> LazyArray | None:
    """Return the array that a struct stands for, or None where it is not a known wrapper.

    Args:
      x: a struct.
      parent: returns the array that a value is or stands for, or None.
    """
    name = last_name(x.type)
    array = parent(x.values[0]) if name in _WRAPPERS and x.values else None
    return None if array is None else _WRAPPERS[name](x, array)


def _derive(
    array: LazyArray, shape: Any, transform: Callable[[Values], Values], dtype: Any = None
) -> LazyArray:
    """Return an array that is computed from another one when it is read."""
    source: Any = array.source
    name, dtype = source.names[array.name], dtype or array.dtype
    derived: LazyArray = source.add_named(name, shape, dtype, lambda: transform(array.read()))
    return derived


def _transpose(x: JuliaStruct, array: LazyArray) -> LazyArray:
    shape = (1, *array.shape) if array.ndim == 1 else array.shape[::-1]
    conjugate = last_name(x.type) == "Adjoint" and array.dtype.kind == "c"
    return _derive(array, shape, lambda a: (a.conj() if conjugate else a).T.reshape(shape))


def _reshape(x: JuliaStruct, array: LazyArray) -> LazyArray | None:
    shape = _integers(x.values[1]) if len(x.values) > 1 else None
    if shape is None:
        return None
    array_nbytes(shape, array.dtype)
    if math.prod(shape) != array.size:
        raise ValueError(f"an array of shape {list(array.shape)} reshaped to {list(shape)!s:.80}")
    return _derive(array, shape, lambda a: a.reshape(shape, order="F"))


def _permute(x: JuliaStruct, array: LazyArray) -> LazyArray | None:
    axes = _integers(x.parameters[2]) if len(x.parameters) > 2 else None
    if axes is None or sorted(axes) != list(range(1, array.ndim + 1)):
        return None
    order = tuple(n - 1 for n in axes)
    return _derive(array, tuple(array.shape[n] for n in order), lambda a: a.transpose(order))


def _select(x: JuliaStruct, array: LazyArray) -> LazyArray | None:
    """Return a part of an array, selected by integers, ranges and arrays of integers."""
    selected = x.values[1] if len(x.values) > 1 else ()
    if not isinstance(selected, tuple | list) or len(selected) != array.ndim:
        return None
    indices = [_index(i, n) for i, n in zip(selected, array.shape, strict=True)]
    if any(index is None for index in indices):
        return None
    shape = tuple(len(i) for i in indices if isinstance(i, range))
    return _derive(array, shape, lambda a: a[tuple(map(_as_slice, indices))])


def _index(x: Any, size: int) -> Any:
    """Return an index of Julia, from 1 on, as an integer or a range from 0 on; None where unknown.

    A range that leaves the axis is refused.
    """
    if isinstance(x, int | np.integer):
        index: Any = int(x) - 1
        first = last = index
    else:
        index = _range(x, size)
        if not index:
            return index
        first, last = min(index[0], index[-1]), max(index[0], index[-1])
    if first < 0 or last >= size:
        raise ValueError(f"an index of {last + 1:,} into an axis of {size:,}")
    return index


def _range(x: Any, size: int) -> range | None:
    numbers = _integers(x.values) if isinstance(x, JuliaStruct) else None
    name = last_name(x.type) if isinstance(x, JuliaStruct) else ""
    if name == "Slice":
        return range(size)
    if numbers is None:
        return None
    if name == "OneTo" and len(numbers) == 1:
        return range(numbers[0])
    if name == "UnitRange" and len(numbers) == 2:
        return range(numbers[0] - 1, max(numbers[1], numbers[0] - 1))
    if name == "StepRange" and len(numbers) == 3 and numbers[1]:
        start, step, stop = numbers
        return range(start - 1, stop if step > 0 else stop - 2, step)
    return None


def _as_slice(index: Any) -> Any:
    if not isinstance(index, range):
        return index
    if not index:
        return slice(0, 0)
    end = index[-1] + (1 if index.step > 0 else -1)
    return slice(index[0], None if end < 0 else end, index.step)


def _bit_array(x: JuliaStruct, array: LazyArray) -> LazyArray | None:
    """Return Booleans that are stored as bits of 64-bit words."""
    sizes = _integers(x.values[2]) if len(x.values) > 2 else _integers(x.values[1:2])
    if sizes is None or array.dtype != np.uint64:
        return None
    count = array_nbytes(sizes, bool)
    if count > array.nbytes * 8:
        raise ValueError(f"expected {count:,} bits, found {array.nbytes * 8:,}")

    def unpack(a: Values) -> Values:
        bits = np.unpackbits(a.view(np.uint8), bitorder="little", count=count)
        return bits.view(bool).reshape(sizes, order="F")

    return _derive(array, sizes, unpack, bool)


def _one_hot(x: JuliaStruct, array: LazyArray) -> LazyArray | None:
    """Return the Booleans of one-hot vectors, one for each index; None where they are too many."""
    sizes = _integers((*x.values[1:2], *x.parameters[1:2]))
    source: Any = array.source
    if not sizes or array.dtype.kind not in "iu":
        return None
    height = sizes[0]
    shape = (height, *array.shape)
    if array_nbytes(shape, bool) > 2 * source.file.size + MEMORY:
        return None

    def expand(a: Values) -> Values:
        if a.size and (a.min() < 1 or a.max() > height):
            raise ValueError(f"a one-hot index of {a.max():,} in a vector of {height:,}")
        labels = np.arange(1, height + 1).reshape(-1, *[1] * a.ndim)
        return np.asarray(labels == a)

    return _derive(array, shape, expand, bool)


def _integers(x: Any) -> tuple[int, ...] | None:
    """Return a sequence of integers as Python's, or None."""
    if isinstance(x, JuliaFunction) or not isinstance(x, tuple | list):
        return None
    if any(not isinstance(n, int | np.integer) or isinstance(n, bool) for n in x):
        return None
    return tuple(int(n) for n in x)


_WRAPPERS: dict[str, Callable[[JuliaStruct, LazyArray], LazyArray | None]] = {
    "Adjoint": _transpose,
    "BitArray": _bit_array,
    "OneHotArray": _one_hot,
    "PermutedDimsArray": _permute,
    "ReshapedArray": _reshape,
    "SubArray": _select,
    "Transpose": _transpose,
}
