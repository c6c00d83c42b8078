"""The fast path for concrete arrays, which compiles nothing large.

JAX compiles an eager operation once per shape, and an operation with thousands of results takes
minutes to compile. On a CPU, NumPy reads an array without a copy, and a slice becomes a JAX array
without a copy. On other devices, one small function is compiled per shape, with the offset as an
argument.

This module affects speed only. If `isplain` were always false, every result would have the same
bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache, partial
from typing import Any

import jax
import numpy as np
from jax import lax

from .._tree.leaves import istracer

try:
    from jax._src.interpreters import pxla as _private  # see `_put_each`
except ImportError:
    _private = None  # type: ignore[assignment]

_BLOCK = 2**20  # elements that are copied together
ALIGNMENT = 64  # bytes; XLA uses memory of NumPy on a CPU without a copy if it is aligned so


def isplain(arrays: Iterable[Any]) -> bool:
    """Return whether arrays are concrete, and all in the default memory of one device."""
    shardings, committed = set[Any](), False
    for x in arrays:
        if istracer(x) or x.size >= 2**31:
            return False
        if isinstance(x, jax.Array):
            shardings.add(x.sharding)
            committed |= x.committed
    if jax.config.jax_default_device or not jax.sharding.get_abstract_mesh().empty:  # type: ignore[attr-defined]
        return False
    return not shardings or (len(shardings) == 1 and _is_single_device(*shardings, committed))


def issmall(arrays: Sequence[Any]) -> bool:
    """Return whether arrays are so few and small that one compiled function is fastest."""
    few = 2 <= len(arrays) <= 16
    return few and all(isinstance(x, jax.Array) and x.size <= 4096 for x in arrays)


def ravel(arrays: Sequence[Any], dtype: np.dtype[Any]) -> jax.Array:
    """Return plain arrays as one new vector, using no memory in addition to the vector."""
    size, of_jax = sum(x.size for x in arrays), [x for x in arrays if isinstance(x, jax.Array)]
    if of_jax and not on_cpu(of_jax[0]):
        return _write_each(arrays, size, dtype, of_jax[0])
    return join([*arrays], size, dtype, next((x for x in of_jax if x.committed), None))


def join(
    arrays: list[Any], size: int, dtype: np.dtype[Any], committed: jax.Array | None
) -> jax.Array:
    """Return arrays in the memory of the CPU as one vector, on the device of a committed array.

    The list is emptied from its end, so that arrays that only it holds are freed on the way.
    """
    out, end = _aligned(size, dtype), size
    while arrays:
        block, count = list[Any](), 0
        while arrays and count < _BLOCK:
            block.append(np.asarray(arrays.pop()).reshape(-1))
            count += block[-1].size
        with np.errstate(all="ignore"):
            np.concatenate(block[::-1], out=out[end - count : end], casting="unsafe")
        end -= count
    return _put(out, committed)  # type: ignore[no-any-return]


def unravel(
    flat: jax.Array, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[np.dtype[Any]]
) -> list[jax.Array]:
    """Return the pieces of a plain vector; on a CPU, aligned pieces are views of it.

    A view keeps the memory of the vector alive. Donating the vector or a view makes a copy.
    """
    starts = np.cumsum([0, *map(math.prod, shapes)]).tolist()
    rows = zip(starts, starts[1:], shapes, dtypes, strict=False)
    if not on_cpu(flat):
        return [_piece(flat, start, shape=s, dtype=d) for start, _, s, d in rows]
    host = np.asarray(flat)
    with np.errstate(all="ignore"):
        pieces = [_project(host[start:end], d).reshape(s) for start, end, s, d in rows]
    return _put_each(pieces, flat)


def views(
    flat: jax.Array, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[np.dtype[Any]]
) -> list[Any]:
    """Return the pieces of a plain vector as arguments of a compiled function.

    On the first CPU they are NumPy's views, which `jit` takes without a copy: making one takes a
    tenth of the time of a JAX array. No view stays with the vector, which can be donated later.
    """
    if not _on_first_cpu(flat):
        return unravel(flat, shapes, dtypes)
    host, start, pieces = _borrow(flat), 0, []
    for shape in shapes:
        end = start + math.prod(shape)
        pieces.append(host[start:end].reshape(shape))
        start = end
    if set(dtypes) == {flat.dtype}:
        return pieces
    with np.errstate(all="ignore"):
        return list(map(_project, pieces, dtypes))


def rows(x: jax.Array, sizes: Sequence[int]) -> list[Any]:
    """Return the rows of a plain vector or matrix, so many in each piece, as `views` does."""
    return views(x.reshape(-1), [(n, *x.shape[1:]) for n in sizes], [x.dtype] * len(sizes))


def _borrow(x: Any) -> np.ndarray[Any, Any]:
    """Return a view of an array on the CPU that it does not keep, as `np.asarray` makes it do."""
    try:
        return np.from_dlpack(x.block_until_ready())
    except (BufferError, RuntimeError, TypeError):  # dtypes that DLPack lacks
        return np.asarray(x)


def _on_first_cpu(x: jax.Array) -> bool:
    device = jax.local_devices()[0]
    return device.platform == "cpu" and x.sharding.device_set == {device}


def _project(x: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    real = np.iscomplexobj(x) and not np.issubdtype(dtype, np.complexfloating)
    return (x.real if real else x).astype(dtype, copy=False)


def _put(x: Any, like: jax.Array | None) -> Any:
    """Return NumPy arrays as JAX arrays without a copy, committed to the device of `like`."""
    return jax.device_put(x, None if like is None else like.sharding, may_alias=True)


def _put_each(pieces: list[np.ndarray[Any, Any]], like: jax.Array) -> list[jax.Array]:
    """Return many NumPy arrays as JAX arrays without a copy.

    `jax.device_put` takes four times as long per array, nearly all of it in Python (measured with
    JAX 0.10.2), so the private function that it calls for each array is used where it exists.
    """
    sharding, committed = like.sharding, like.committed
    devices = list(sharding.device_set)
    try:
        return [
            _private.batched_device_put(_aval(x.shape, x.dtype), sharding, [x], devices, committed)
            for x in pieces
        ]
    except (AttributeError, TypeError):  # a version of JAX without this private function
        return _put(pieces, like if committed else None)  # type: ignore[no-any-return]


@lru_cache(4096)
def _aval(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.core.ShapedArray(shape, dtype)


def _aligned(size: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return uninitialised memory that XLA can use without a copy."""
    memory = np.empty(size * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size * dtype.itemsize].view(dtype)


@cache
def _is_single_device(sharding: Any, committed: bool) -> bool:
    """Return whether a sharding is one device: the default one, unless arrays are committed."""
    if not isinstance(sharding, jax.sharding.SingleDeviceSharding):
        return False
    (device,) = set[Any](sharding.device_set)
    default_memory = sharding.memory_kind in (None, device.default_memory().kind)
    return default_memory and (committed or device == jax.local_devices()[0])


def on_cpu(x: jax.Array) -> bool:
    devices: set[Any] = x.sharding.device_set
    return all(device.platform == "cpu" for device in devices)


def _write_each(
    arrays: Sequence[Any], size: int, dtype: np.dtype[Any], like: jax.Array
) -> jax.Array:
    out, start = jax.numpy.zeros(size, dtype, device=like.sharding), 0
    for x in arrays:
        out = _write(out, x, start)
        start += x.size
    return out


@partial(jax.jit, donate_argnums=0)
def _write(out: jax.Array, x: Any, start: Any) -> jax.Array:
    piece = lax.convert_element_type(x.reshape(-1), out.dtype)
    return lax.dynamic_update_slice(out, piece, (start,))


@partial(jax.jit, static_argnames=("shape", "dtype"))
def _piece(flat: jax.Array, start: Any, *, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    piece = lax.dynamic_slice(flat, (start,), (math.prod(shape),))
    if jax.numpy.iscomplexobj(piece) and not jax.numpy.issubdtype(dtype, jax.numpy.complexfloating):
        piece = piece.real
    return lax.convert_element_type(piece, dtype).reshape(shape)
