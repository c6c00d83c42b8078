"""Predicates on leaves: array or not, numeric or not, abstract, traced, equal."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import DeletedArrayError, ModelError
from .lazy import LazyArray

BASIC = (bool, int, float, complex, str, bytes, type(None))


def isarray(x: object) -> bool:
    """Return whether `x` is an array of any dtype: JAX's, NumPy's, traced, abstract or lazy."""
    cls = type(x)
    if cls in _ARRAYS:
        return True
    known = isinstance(x, jax.Array | np.ndarray | jax.ShapeDtypeStruct)
    if known and not istracer(x) and hasattr(x, "is_deleted"):
        _ARRAYS.add(cls)  # isinstance(x, jax.Array) takes several times as long as a lookup
    return known


_SHOWN_BITS = 4096  # of an integer; Python refuses to print many more
_ARRAYS: set[type] = {np.ndarray, jax.ShapeDtypeStruct, LazyArray}


def isscalar(x: Any) -> bool:
    """Return whether a leaf is a number, a bool, text or bytes, of Python or NumPy."""
    return x is not None and isinstance(x, (*BASIC, np.generic))


def isabstract(x: object) -> bool:
    """Return whether `x` has a shape and a dtype, but no values in memory."""
    return isinstance(x, jax.ShapeDtypeStruct | LazyArray)


def istracer(x: object) -> bool:
    """Return whether `x` is a tracer, as inside `jit`."""
    return isinstance(x, jax.core.Tracer)


def isconcrete(x: object) -> bool:
    """Return whether `x` is an array whose values are in memory."""
    return isarray(x) and not isabstract(x) and not istracer(x)


def isnumeric(x: object, /) -> bool:
    """Return whether `x` is an array with a floating-point or complex dtype.

    Arrays are `jax.Array` (including tracers), `numpy.ndarray` and `jax.ShapeDtypeStruct`.
    Integers, booleans, PRNG keys and Python scalars are not numeric, since they have no gradient.

    Args:
      x: any object.

    Returns:
      A bool.

    Example:
      >>> isnumeric(jnp.ones(2)), isnumeric(np.ones(2, complex)), isnumeric(jnp.arange(3))
      (True, True, False)
      >>> isnumeric(1.0), isnumeric(jax.random.key(0))
      (False, False)

    Source: `isnumeric` of Optimisers.jl, with the dtypes of `jax.numpy.inexact`.
    """
    return isarray(x) and isinexact(x.dtype)  # type: ignore[attr-defined]


@cache
def isinexact(dtype: Any) -> bool:
    """Return whether a dtype is floating-point or complex, including the types of ml_dtypes."""
    return bool(jnp.issubdtype(dtype, jnp.inexact))


@cache
def isnumber(dtype: Any) -> bool:
    """Return whether a dtype is a JAX dtype for numbers or booleans."""
    return bool(jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_))


def isdata(x: Any) -> bool:
    """Return whether `x` is an array that `jit` accepts without changing its dtype."""
    if isinstance(x, np.ndarray):
        return isnumber(x.dtype) and x.dtype == canonical(x.dtype)
    return isinstance(x, jax.Array)


def canonical(dtype: Any) -> np.dtype[Any]:
    """Return the dtype that JAX uses for this one: float32 for float64 while x64 is off.

    The byte order becomes the native one, since JAX supports no other.
    """
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return dtype  # type: ignore[no-any-return]
    return np.dtype(jax.dtypes.canonicalize_dtype(np.dtype(dtype).newbyteorder("=")))


def equal(a: Any, b: Any) -> bool:
    """Return whether two arrays have the same shape and values; NaN is equal to NaN."""
    if a is b or a.shape != b.shape:
        return a is b
    if jnp.issubdtype(a.dtype, jax.dtypes.extended):
        same = a.dtype == b.dtype
        return same and bool((jax.random.key_data(a) == jax.random.key_data(b)).all())
    x, y = np.asarray(a), np.asarray(b)
    return bool(((x == y) | ((x != x) & (y != y))).all())


def describe(x: Any) -> str:
    """Return a short description of a leaf: `float32[3, 2]` for an array.

    >>> describe(np.zeros((3, 2), np.float32)), describe(None), describe(True), describe("relu")
    ('float32[3, 2]', 'None', 'True', "'relu'")
    """
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{x.dtype}{list(x.shape)}"
    if isinstance(x, int) and x.bit_length() > _SHOWN_BITS:
        return f"an int of {x.bit_length():,} bits"
    if x is None or isinstance(x, bool | int | float | complex):
        return repr(x)
    if isinstance(x, str):
        return repr(x if len(x) <= 20 else x[:17] + "...")
    if isinstance(x, bytes):
        return repr(x if len(x) <= 20 else x[:17] + b"...")
    if callable(x) and hasattr(x, "__name__"):
        return f"the function {x.__name__}"
    name = type(x).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def type_name(x: object) -> str:
    """Return the name of a type as users know it: `Array` for every JAX array."""
    return "Array" if isinstance(x, jax.Array) else type(x).__name__


def check_alive(path: str, x: Any) -> None:
    """Raise an error if an array was deleted, or if it is a mutable reference."""
    cls = type(x)
    if cls in _NEVER_DELETED or (cls in _ARRAYS and not x.is_deleted()):
        return
    if isinstance(x, jax.Ref):
        raise ModelError(
            f"{path or '(root)'}: expected an array, found a mutable reference; "
            "freeze the model with jax.freeze or nnx.to_arrays"
        )
    if isarray(x) and not istracer(x) and getattr(x, "is_deleted", bool)():
        raise DeletedArrayError(
            f"{path or '(root)'}: this {describe(x)} array has been deleted, most often because it "
            "was donated to a jitted function; use the output of that function"
        )


_NEVER_DELETED = {
    *(np.ndarray, jax.ShapeDtypeStruct, LazyArray),
    *(bool, int, float, complex, str, type(None)),
}
