"""Which numbers can become which dtype without loss."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from .._tree.lazy import LazyArray
from .._tree.leaves import isconcrete, isinexact


def no_conversion(dtype: Any, found: Any) -> str | None:
    """Return why these numbers cannot become this dtype, or None where they can."""
    if found.dtype == dtype:
        return None
    ours, theirs = family(dtype), family(found.dtype)
    if "other" in (ours, theirs) or ours == "bool":
        return "these dtypes are not converted into each other"
    if theirs in ("floating", "complex") and ours == "integer":
        return "numbers are not rounded to integers; convert the source first"
    if theirs == "complex" and ours == "floating":
        return "the imaginary part would be lost; take the real part of the source first"
    if theirs in ("integer", "bool") and not _fits(dtype, found):
        return "not every integer in it fits"
    return None


def family(dtype: Any) -> str:
    """Return what a dtype is: floating, complex, integer, bool, or other."""
    if isinexact(dtype):
        return "complex" if jnp.issubdtype(dtype, jnp.complexfloating) else "floating"
    if jnp.issubdtype(dtype, jnp.integer):
        return "integer"
    return "bool" if jnp.issubdtype(dtype, jnp.bool_) else "other"


def _fits(dtype: Any, found: Any) -> bool:
    """Tell whether every integer of an array is the same number in another dtype."""
    if family(found.dtype) == "bool":
        return True
    low, high = _range(found.dtype)
    least, most = _range(dtype)
    exact = isinexact(dtype)
    if least <= low and high <= most:
        return True
    if not readable(found):
        return False
    numbers = np.asarray(found)
    if numbers.dtype.itemsize == 1:  # NumPy does not compare 4-bit integers with others
        numbers = numbers.astype(np.int64)
    if not exact:
        return bool(((numbers >= least) & (numbers <= most)).all())
    with np.errstate(all="ignore"):
        there = numbers.astype(dtype).real.astype(np.float64)
    return bool((np.isfinite(there) & (_exactly(there) == numbers.astype(object))).all())


def _exactly(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return whole floating numbers as Python integers, of which none is too large."""
    whole = [int(x) if np.isfinite(x) else None for x in numbers.flat]
    return np.array(whole, object).reshape(numbers.shape)


def _range(dtype: Any) -> tuple[int, int]:
    """Return the least and the greatest of the integers that a dtype has without a gap."""
    if isinexact(dtype):
        most = 2 ** (ml_dtypes.finfo(dtype).nmant + 1)
        return -most, most
    info = ml_dtypes.iinfo(dtype)
    return int(info.min), int(info.max)


def readable(x: Any) -> bool:
    """Tell whether the numbers of an array can be read now."""
    return isconcrete(x) or isinstance(x, np.generic | LazyArray)
