"""The fast path: vectors of arrays whose numbers are known, without compiling anything large.

JAX compiles an eager operation once for each shape, and one with thousands of results for minutes.
On a CPU an array can be read without a copy, and a slice of it handed back without one. On another
device one small function per shape is compiled, with the offset as an argument.

What is here decides speed only: `plain` false everywhere gives the same numbers, to the bit.
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
    from jax._src.interpreters import pxla as _private
except ImportError:  # `_put_each` does without
    _private = None  # type: ignore[assignment]

# XLA reads its arrays on a CPU without a copy where they are aligned to this many bytes.
ALIGNMENT = 64


def plain(arrays: Iterable[Any]) -> bool:
    """Tell whether arrays are concrete, and all on one device in its default memory."""
    shardings, committed = set[Any](), False
    for x in arrays:
        if istracer(x) or x.size >= 2**31:
            return False
        if isinstance(x, jax.Array):
            shardings.add(x.sharding)
            committed |= x.committed
    if jax.config.jax_default_device or not jax.sharding.get_abstract_mesh().empty:  # type: ignore[attr-defined]
        return False
    return not shardings or (len(shardings) == 1 and _single(*shardings, committed))


def small(arrays: Sequence[Any]) -> bool:
    """Tell whether arrays are so few and small that calling one compiled function is fastest."""
    few = 2 <= len(arrays) <= 16
    return few and all(isinstance(x, jax.Array) and x.size <= 4096 for x in arrays)


def ravel(arrays: Sequence[Any], dtype: np.dtype[Any]) -> jax.Array:
    """Return plain arrays as one new vector, with nothing but this vector in memory beside them."""
    first = next((x for x in arrays if isinstance(x, jax.Array)), None)
    size = sum(x.size for x in arrays)
    if first is not None and not _on_cpu(first):
        return _write_each(arrays, size, dtype, first)
    out, start = _aligned(size, dtype), 0
    with np.errstate(all="ignore"):
        for x in arrays:
            np.copyto(out[start : start + x.size], np.asarray(x).reshape(-1), casting="unsafe")
            start += x.size
    committed = [x for x in arrays if isinstance(x, jax.Array) and x.committed]
    return _put(out, committed[0] if committed else None)  # type: ignore[no-any-return]


def unravel(
    flat: jax.Array, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[np.dtype[Any]]
) -> list[jax.Array]:
    """Return the pieces of a plain vector: on a CPU views of it, where they are aligned.

    A view keeps the vector's memory alive, and donating either copies it.
    """
    starts = np.cumsum([0, *map(math.prod, shapes)]).tolist()
    places = zip(starts, starts[1:], shapes, dtypes, strict=False)
    if not _on_cpu(flat):
        return [_piece(flat, start, shape=s, dtype=d) for start, _, s, d in places]
    host = np.asarray(flat)
    with np.errstate(all="ignore"):
        pieces = [_project(host[start:end], d).reshape(s) for start, end, s, d in places]
    return _put_each(pieces, flat)


def _project(x: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    real = np.iscomplexobj(x) and not np.issubdtype(dtype, np.complexfloating)
    return (x.real if real else x).astype(dtype, copy=False)


def _put(x: Any, like: jax.Array | None) -> Any:
    """Hand NumPy arrays to JAX without a copy; committed to a device where `like` is."""
    return jax.device_put(x, None if like is None else like.sharding, may_alias=True)


def _put_each(pieces: list[np.ndarray[Any, Any]], like: jax.Array) -> list[jax.Array]:
    """Hand many NumPy arrays to JAX: by what `jax.device_put` calls for each, where that is found.

    The public function takes four times as long for each array, nearly all of it in Python.
    """
    sharding, committed = like.sharding, like.committed
    devices = list(sharding.device_set)
    try:
        return [
            _private.batched_device_put(_aval(x.shape, x.dtype), sharding, [x], devices, committed)
            for x in pieces
        ]
    except (AttributeError, TypeError):  # another version of JAX
        return _put(pieces, like if committed else None)  # type: ignore[no-any-return]


@lru_cache(4096)
def _aval(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.core.ShapedArray(shape, dtype)


def _aligned(size: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return uninitialised memory that XLA can take over as it is."""
    room = np.empty(size * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size * dtype.itemsize].view(dtype)


@cache
def _single(sharding: Any, committed: bool) -> bool:
    """Tell whether a sharding is that of one device, the default one unless committed to it."""
    if not isinstance(sharding, jax.sharding.SingleDeviceSharding):
        return False
    (device,) = set[Any](sharding.device_set)
    default_memory = sharding.memory_kind in (None, device.default_memory().kind)
    return default_memory and (committed or device == jax.local_devices()[0])


def _on_cpu(x: jax.Array) -> bool:
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
