"""Conversions between dtypes that lose nothing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from .._tree.lazy import LazyArray
from .._tree.leaves import isconcrete, isinexact


def conversion_problem(dtype: Any, array: Any) -> str | None:
    """Return why an array cannot be converted to a dtype, or None if it can."""
    if array.dtype == dtype:
        return None
    to, of = dtype_kind(dtype), dtype_kind(array.dtype)
    if "other" in (to, of) or to == "bool":
        return "there is no conversion between these dtypes"
    if of in ("floating", "complex") and to == "integer":
        return "values are not rounded to integers; convert the source first"
    if of == "complex" and to == "floating":
        return "the imaginary part would be lost; take the real part of the source first"
    if of in ("integer", "bool") and not _fits(dtype, array):
        return "not every integer in it fits"
    return None


def dtype_kind(dtype: Any) -> str:
    """Return the kind of a dtype: floating, complex, integer, bool, or other."""
    if isinexact(dtype):
        return "complex" if jnp.issubdtype(dtype, jnp.complexfloating) else "floating"
    if jnp.issubdtype(dtype, jnp.integer):
        return "integer"
    return "bool" if jnp.issubdtype(dtype, jnp.bool_) else "other"


def key_hint(expected: Any, found: Any) -> str:
    """Return how to turn a PRNG key of one sort into the other."""
    typed = [jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in (expected, found)]
    if typed == [True, False] and found.dtype == np.uint32:
        return "; make it a key with jax.random.wrap_key_data"
    if typed == [False, True] and expected.dtype == np.uint32:
        return "; take the data of the key with jax.random.key_data"
    return ""


def isreadable(x: Any) -> bool:
    """Return whether the values of an array can be read now."""
    return isconcrete(x) or isinstance(x, np.generic | LazyArray)


def _fits(dtype: Any, array: Any) -> bool:
    """Return whether every integer of an array has the same value in another dtype."""
    if dtype_kind(array.dtype) == "bool":
        return True
    low, high = _exact_range(array.dtype)
    least, most = _exact_range(dtype)
    if least <= low and high <= most:
        return True
    if not isreadable(array):
        return False
    values = np.asarray(array)
    if values.dtype.itemsize == 1:  # NumPy cannot compare 4-bit integers with others
        values = values.astype(np.int64)
    if not isinexact(dtype):
        return bool(((values >= least) & (values <= most)).all())
    with np.errstate(all="ignore"):
        converted = values.astype(dtype).real.astype(np.float64)
    return bool((np.isfinite(converted) & (_as_ints(converted) == values.astype(object))).all())


def _as_ints(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return whole floating-point values as Python ints, which have no largest value."""
    ints = [int(x) if np.isfinite(x) else None for x in values.flat]
    return np.array(ints, object).reshape(values.shape)


def _exact_range(dtype: Any) -> tuple[int, int]:
    """Return the least and the greatest integer between which a dtype has every integer."""
    if isinexact(dtype):
        most = 2 ** (ml_dtypes.finfo(dtype).nmant + 1)
        return -most, most
    info = ml_dtypes.iinfo(dtype)
    return int(info.min), int(info.max)
