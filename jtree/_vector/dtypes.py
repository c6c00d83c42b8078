"""Dtypes of vectors: what parameters promote to, and conversions by the rules of `ProjectTo`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._errors import ArgumentError
from .._tree.leaves import canonical, isinexact


@cache
def iscomplex(dtype: Any) -> bool:
    """Return whether a dtype is complex."""
    return bool(jnp.issubdtype(dtype, jnp.complexfloating))


def as_jax(x: Any) -> jax.Array:
    """Return an array as a JAX array; integers that JAX would wrap around become floating-point."""
    if isinstance(x, jax.Array):
        return x
    wraps = jnp.issubdtype(x.dtype, jnp.integer) and canonical(x.dtype) != x.dtype
    with np.errstate(all="ignore"):
        x = np.asarray(x, canonical(np.float64 if wraps else x.dtype))
    return jnp.array(x)


def as_dtype(x: jax.Array, dtype: np.dtype[Any] | None) -> jax.Array:
    """Return an array in another dtype: the real part for a real one, unchanged for None."""
    if dtype is None or (x.dtype == dtype and not getattr(x, "weak_type", False)):
        return x
    if iscomplex(x.dtype) and not iscomplex(dtype):
        x = x.real
    return lax.convert_element_type(x, dtype)


def as_weak(x: jax.Array) -> jax.Array:
    """Return an array that is weakly typed, as JAX makes it from Python numbers of its dtype."""
    zero = jnp.asarray(np.zeros((), x.dtype).item())
    if zero.dtype != x.dtype:  # JAX makes such an array in another 64-bit mode only
        return x
    return jnp.broadcast_to(zero, x.shape).at[...].set(x)


def common_dtype(dtypes: Sequence[Any]) -> np.dtype[Any]:
    """Return what dtypes promote to in JAX; float8 and smaller count as bfloat16."""
    if not dtypes:
        return np.dtype(np.float32)
    with jax.numpy_dtype_promotion("standard"):
        return np.dtype(reduce(jnp.promote_types, map(_promotable, dict.fromkeys(dtypes))))


def _promotable(dtype: Any) -> np.dtype[Any]:
    # JAX has no implicit promotion for these dtypes; bfloat16 holds all of their values.
    small = isinexact(dtype) and np.dtype(dtype).itemsize == 1
    return canonical(jnp.bfloat16 if small else dtype)


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the `dtype` of a user, or raise an error if a vector cannot have it."""
    try:
        checked = np.dtype(dtype)
    except (TypeError, ValueError):
        checked = None
    if checked is None or not isinexact(checked):
        raise ArgumentError(f"dtype: expected a floating or complex dtype, found {dtype!r}")
    if canonical(checked) != checked:
        raise ArgumentError(
            f"dtype: {checked} requires 64-bit mode, which is off; call "
            'jax.config.update("jax_enable_x64", True) before creating any array'
        )
    return canonical(checked)
