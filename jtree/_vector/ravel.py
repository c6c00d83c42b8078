"""Arrays as one vector, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._errors import ModelError
from .._tree import paths
from .._tree.leaves import describe, isabstract, istracer
from . import eager
from .dtypes import as_dtype, as_jax, iscomplex
from .layout import VectorLayout


def ravel(arrays: dict[str, Any], dtype: np.dtype[Any]) -> Any:
    """Return arrays, given by path, as one new vector that shares no buffer with them.

    Raises:
      ModelError: arrays are on different devices, or an imaginary part would be lost.
    """
    values = list(arrays.values())
    if any(map(iscomplex, {x.dtype for x in values})) and not iscomplex(dtype):
        _refuse_imaginary(arrays, dtype)
    if any(map(isabstract, values)):
        return jax.ShapeDtypeStruct((sum(math.prod(x.shape) for x in values),), dtype)
    if eager.isplain(values):
        if eager.issmall(values):
            return _concatenate_compiled(values, dtype)
        return eager.ravel(values, dtype)
    _check_devices(arrays)
    return concatenate(values, dtype)


def _refuse_imaginary(arrays: dict[str, Any], dtype: np.dtype[Any]) -> None:
    for path, x in arrays.items():
        if iscomplex(x.dtype):
            raise ModelError(
                f"{paths.show(path)}: expected a real array for a vector of {dtype}, found "
                f"{describe(x)}, whose imaginary part would be lost; pass a complex dtype"
            )


def concatenate(arrays: Sequence[Any], dtype: np.dtype[Any]) -> jax.Array:
    """Return arrays, traced or not, as one new vector."""
    pieces = [as_dtype(as_jax(x), dtype).reshape(-1) for x in arrays]
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
    flat = as_jax(flat)
    if eager.isplain([flat]):
        if 2 <= len(shapes) <= 16 and flat.size <= 4096:
            return list(_split_compiled(flat, shapes, tuple(dtypes)))
        return eager.unravel(flat, shapes, [dtype or flat.dtype for dtype in dtypes])
    return split(flat, shapes, dtypes)


def split(
    flat: jax.Array, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[np.dtype[Any] | None]
) -> list[jax.Array]:
    """Return the pieces of a vector, traced or not.

    The gradient of `lax.split` is one concatenation. The gradient of a slice is a full vector, one
    for each slice.
    """
    pieces = lax.split(flat, [math.prod(shape) for shape in shapes]) if shapes else []
    return [
        as_dtype(piece, dtype).reshape(shape)
        for piece, shape, dtype in zip(pieces, shapes, dtypes, strict=True)
    ]


_concatenate_compiled = jax.jit(concatenate, static_argnums=1)
_split_compiled = jax.jit(split, static_argnums=(1, 2))


def _check_devices(arrays: dict[str, Any]) -> None:
    """Raise an error for arrays on different devices."""
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
