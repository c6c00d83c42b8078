"""Finite values that a cast to another dtype makes infinite, NaN or zero."""

from __future__ import annotations

import logging
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from .._text import plural
from .._tree.lazy import LazyArray
from .._tree.leaves import canonical, isinexact
from .._tree.paths import show

logger = logging.getLogger("jtree")

_CHUNK = 2**20  # elements that are cast at a time
_MOST_UNDERFLOWS = 1e-3  # of all values, without a warning


def narrows(dtype: Any, source: Any) -> bool:
    """Return whether a floating-point or complex dtype has a smaller range than another one."""
    if source == dtype or not (isinexact(dtype) and isinexact(source)):
        return False
    to, of = ml_dtypes.finfo(dtype), ml_dtypes.finfo(source)
    high, low = float(to.max) < float(of.max), to.smallest_subnormal > of.smallest_subnormal
    return bool(high or low or float(to.min) > float(of.min))  # not every dtype has a zero


def cast_problem(path: str, dtype: Any, array: Any) -> str | None:
    """Return how many finite values a cast would lose, or None; warn if many become zero."""
    if not narrows(dtype, array.dtype):
        return None
    overflows, underflows = _count_lost(dtype, array)
    if underflows > _MOST_UNDERFLOWS * array.size:
        logger.warning(
            "%s: %d of %s are too small for %s and become zero",
            *(show(path), underflows, plural(array.size, "value"), np.dtype(dtype).name),
        )
    if not overflows:
        return None
    return (
        f"{overflows} of {plural(array.size, 'value')} would become infinite or NaN in "
        f"{np.dtype(dtype).name}; load into a dtype with a larger range, such as "
        f"{_wider(dtype, array.dtype)}"
    )


def rounding(path: str, expected: Any, array: Any) -> list[str]:
    """Return in words how a cast changes the value of a 0-d array; nothing where it does not.

    Such an array may be a hyperparameter, whose dtype optax takes from the parameters.
    """
    dtype = target_dtype(expected)
    if (
        array.shape != ()
        or array.dtype == dtype
        or not (isinexact(dtype) and isinexact(array.dtype))
    ):
        return []
    value = np.asarray(array)
    with np.errstate(all="ignore"):
        cast = value.astype(dtype)
        same = bool(cast.astype(value.dtype) == value) or bool(value != value)
    texts = (f"{x!s} ({x.dtype})" for x in (value, cast))
    return [] if same else [f"{show(path)} from {' to '.join(texts)}"]


def target_dtype(expected: Any) -> Any:
    """Return the dtype that a leaf of the destination has once it is loaded."""
    exact = isinstance(expected, np.ndarray | LazyArray)
    return expected.dtype if exact else canonical(expected.dtype)


def _wider(dtype: Any, source: Any) -> str:
    """Return the names of dtypes with a larger range than the first, which hold the second."""
    both = source == np.float32 and np.dtype(dtype) != jnp.bfloat16
    return "bfloat16 or float32" if both else np.dtype(source).name


def _count_lost(dtype: Any, array: Any) -> tuple[int, int]:
    """Return how many values the cast makes infinite or NaN, and how many it makes zero."""
    if isinstance(array, jax.Array) and not _is_on_host(array):
        overflows, underflows = _lost_on_device(array, jnp.dtype(dtype))
        return int(overflows), int(underflows)
    values = np.asarray(array).reshape(-1)
    lost = np.zeros(2, np.int64)
    with np.errstate(all="ignore"):
        for start in range(0, values.size, _CHUNK):
            x = values[start : start + _CHUNK]
            y = x.astype(dtype)
            finite = np.isfinite(x)
            if not (ok := np.isfinite(y) & _fits(y, x)).all():
                lost[0] += np.count_nonzero(finite & ~ok)
            lost[1] += np.count_nonzero((y == 0) & (x != 0))
    return int(lost[0]), int(lost[1])


def _fits(y: Any, x: Any) -> Any:
    """Return whether values are in range; dtypes without infinity keep their largest instead."""
    if np.dtype(y.dtype).itemsize > 1 or np.isnan(np.float32(np.inf).astype(y.dtype)):
        return True
    most = float(ml_dtypes.finfo(y.dtype).max)
    return np.isinf(np.float32(np.inf).astype(y.dtype)) or np.abs(x) <= 1.25 * most


def _is_on_host(x: jax.Array) -> bool:
    return x.is_fully_addressable and {d.platform for d in x.devices()} == {"cpu"}


def _lost(x: Any, dtype: Any) -> Any:
    y = x.astype(dtype)
    overflows = jnp.isfinite(x) & ~jnp.isfinite(y)
    return overflows.sum(), ((y == 0) & (x != 0)).sum()


_lost_on_device = jax.jit(_lost, static_argnums=1)
