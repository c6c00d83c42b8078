"""Arrays as one vector and back, and the dtype that they have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._errors import ArgumentError, ModelError
from .._tree import paths
from .._tree.leaves import canonical, describe, isabstract, isinexact, istracer
from . import eager
from .layout import VectorLayout


def ravel(arrays: dict[str, Any], dtype: np.dtype[Any]) -> Any:
    """Return arrays, each at its path, as one new vector, which shares no buffer with them.

    Raises:
      ModelError: arrays are on different devices, or an imaginary part would be lost.
    """
    found = list(arrays.values())
    if any(map(iscomplex, {x.dtype for x in found})) and not iscomplex(dtype):
        _refuse_imaginary(arrays, dtype)
    if any(map(isabstract, found)):
        return jax.ShapeDtypeStruct((sum(math.prod(x.shape) for x in found),), dtype)
    if eager.plain(found):
        compiled = eager.small(found)
        return _concatenate(found, dtype) if compiled else eager.ravel(found, dtype)
    _check_devices(arrays)
    return concatenate(found, dtype)


def _refuse_imaginary(arrays: dict[str, Any], dtype: np.dtype[Any]) -> None:
    for path, x in arrays.items():
        if iscomplex(x.dtype):
            raise ModelError(
                f"{paths.show(path)}: expected real numbers for a vector of {dtype}, "
                f"found {describe(x)}, and the imaginary part would be lost"
            )


def concatenate(arrays: Sequence[Any], dtype: np.dtype[Any]) -> jax.Array:
    """Return arrays as one new vector, traced or not."""
    pieces = [as_dtype(on_device(x), dtype).reshape(-1) for x in arrays]
    if len(pieces) > 1:
        return jnp.concatenate(pieces)
    return jnp.array(pieces[0], copy=True) if pieces else jnp.zeros(0, dtype)


def unravel(flat: Any, layout: VectorLayout, dtypes: Sequence[np.dtype[Any] | None]) -> list[Any]:
    """Return the pieces of a vector, each with its shape and, unless None, its dtype."""
    shapes = layout.shapes
    if isabstract(flat):
        return [
            jax.ShapeDtypeStruct(shape, dtype or flat.dtype)
            for shape, dtype in zip(shapes, dtypes, strict=True)
        ]
    flat = on_device(flat)
    if eager.plain([flat]):
        if 2 <= len(shapes) <= 16 and flat.size <= 4096:
            return list(_split(flat, shapes, tuple(dtypes)))
        return eager.unravel(flat, shapes, [dtype or flat.dtype for dtype in dtypes])
    return split(flat, shapes, dtypes)


def split(
    flat: jax.Array, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[np.dtype[Any] | None]
) -> list[jax.Array]:
    """Return the pieces of a vector, traced or not.

    `lax.split` has one concatenation for a gradient, where slices have a full vector each.
    """
    pieces = lax.split(flat, [math.prod(shape) for shape in shapes]) if shapes else []
    return [
        as_dtype(piece, dtype).reshape(shape)
        for piece, shape, dtype in zip(pieces, shapes, dtypes, strict=True)
    ]


_concatenate = jax.jit(concatenate, static_argnums=1)
_split = jax.jit(split, static_argnums=(1, 2))


def on_device(x: Any) -> jax.Array:
    """Return an array as one of JAX's; integers that JAX would wrap are made floating instead."""
    if isinstance(x, jax.Array):
        return x
    wraps = jnp.issubdtype(x.dtype, jnp.integer) and canonical(x.dtype) != x.dtype
    with np.errstate(all="ignore"):
        x = np.asarray(x, canonical(np.float64 if wraps else x.dtype))
    return jnp.array(x)


@cache
def iscomplex(dtype: Any) -> bool:
    """Tell whether a dtype is complex."""
    return bool(jnp.issubdtype(dtype, jnp.complexfloating))


def as_dtype(x: jax.Array, dtype: np.dtype[Any] | None) -> jax.Array:
    """Convert to a dtype by the rules of `ProjectTo`: a real leaf takes the real part."""
    if dtype is None or (x.dtype == dtype and not getattr(x, "weak_type", False)):
        return x
    if iscomplex(x.dtype) and not iscomplex(dtype):
        x = x.real
    return lax.convert_element_type(x, dtype)


def common_dtype(dtypes: Sequence[Any]) -> np.dtype[Any]:
    """Return what dtypes promote to by JAX's rules; what has no promotion counts as bfloat16."""
    if not dtypes:
        return np.dtype(np.float32)
    with jax.numpy_dtype_promotion("standard"):
        return np.dtype(reduce(jnp.promote_types, map(_promotable, dict.fromkeys(dtypes))))


def _promotable(dtype: Any) -> np.dtype[Any]:
    narrow = isinexact(dtype) and np.dtype(dtype).itemsize == 1
    return canonical(jnp.bfloat16 if narrow else dtype)


def floating(dtype: Any) -> np.dtype[Any]:
    """Return the dtype that a user asks for, if a vector can have it."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or not isinexact(found):
        raise ArgumentError(f"dtype: expected a floating or complex dtype, found {dtype!r}")
    if canonical(found) != found:
        raise ArgumentError(
            f"dtype: {found} needs 64-bit mode, which is off; call "
            'jax.config.update("jax_enable_x64", True) before any array is made'
        )
    return canonical(found)


def _check_devices(arrays: dict[str, Any]) -> None:
    """Refuse arrays that are not on the same devices."""
    first: tuple[str, Any] | None = None
    for path, x in arrays.items():
        if not isinstance(x, jax.Array) or istracer(x):
            continue
        devices = x.sharding.device_set
        if first is None:
            first = path, devices
        elif first[1] != devices:
            raise ModelError(
                f"arrays are on different devices: {paths.show(first[0])} on {_names(first[1])}, "
                f"{paths.show(path)} on {_names(devices)}; move the model with jax.device_put"
            )


def _names(devices: Any) -> str:
    return ", ".join(sorted(map(str, devices)))
