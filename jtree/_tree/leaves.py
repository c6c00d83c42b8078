"""What a leaf is: an array or not, numeric or not, alive, equal to another."""

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
    """Tell whether `x` is an array of any dtype: JAX's, NumPy's, a tracer, abstract or lazy."""
    cls = type(x)
    if cls in _ARRAYS:
        return True
    found = isinstance(x, jax.Array | np.ndarray | jax.ShapeDtypeStruct)
    if found and not istracer(x) and hasattr(x, "is_deleted"):
        _ARRAYS.add(cls)  # asking JAX takes longer
    return found


_ARRAYS: set[type] = {np.ndarray, jax.ShapeDtypeStruct, LazyArray}


def isabstract(x: object) -> bool:
    """Tell whether `x` has a shape and a dtype but no numbers, or none that have been read."""
    return isinstance(x, jax.ShapeDtypeStruct | LazyArray)


def istracer(x: object) -> bool:
    """Tell whether `x` stands for numbers that are not known yet, as inside `jit`."""
    return isinstance(x, jax.core.Tracer)


def isconcrete(x: object) -> bool:
    """Tell whether `x` is an array whose numbers can be read now."""
    return isarray(x) and not isabstract(x) and not istracer(x)


def isnumeric(x: object, /) -> bool:
    """Tell whether `x` is an array of floating or complex numbers.

    Arrays are `jax.Array` (tracers too), `numpy.ndarray` and `jax.ShapeDtypeStruct`. Integers,
    booleans, PRNG keys and Python numbers are not numeric: no gradient is taken by them.

    Args:
      x: anything.

    Returns:
      A bool.

    Example:
      >>> isnumeric(jnp.ones(2)), isnumeric(np.ones(2, complex)), isnumeric(jnp.arange(3))
      (True, True, False)
      >>> isnumeric(1.0), isnumeric(jax.random.key(0))
      (False, False)

    Source: `isnumeric` of Optimisers.jl; `jax.numpy.inexact` decides on the dtype.
    """
    return isarray(x) and isinexact(x.dtype)  # type: ignore[attr-defined]


@cache
def isinexact(dtype: Any) -> bool:
    """Tell whether a dtype is floating or complex, those that NumPy lacks included."""
    return bool(jnp.issubdtype(dtype, jnp.inexact))


def canonical(dtype: Any) -> np.dtype[Any]:
    """Return the dtype that JAX has for this one: float32 for float64 while x64 is off.

    So also for the other order of bytes, which JAX has not.
    """
    extended = jnp.issubdtype(dtype, jax.dtypes.extended)
    found: np.dtype[Any] = (
        dtype
        if extended
        else np.dtype(jax.dtypes.canonicalize_dtype(np.dtype(dtype).newbyteorder("=")))
    )
    return found


def equal(a: Any, b: Any) -> bool:
    """Tell whether two arrays hold the same numbers; NaN is equal to NaN."""
    if a is b or a.shape != b.shape:
        return a is b
    if jnp.issubdtype(a.dtype, jax.dtypes.extended):
        same = a.dtype == b.dtype
        return same and bool((jax.random.key_data(a) == jax.random.key_data(b)).all())
    x, y = np.asarray(a), np.asarray(b)
    return bool(((x == y) | ((x != x) & (y != y))).all())


def describe(x: Any) -> str:
    """Return what a leaf is, in few words: `float32[3, 2]` for an array.

    >>> describe(np.zeros((3, 2), np.float32)), describe(None), describe(True), describe("relu")
    ('float32[3, 2]', 'None', 'True', "'relu'")
    """
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{x.dtype}{list(x.shape)}"
    if x is None or isinstance(x, bool | int | float | complex):
        return repr(x)
    if isinstance(x, str):
        return repr(x if len(x) <= 20 else x[:17] + "...")
    if callable(x) and hasattr(x, "__name__"):
        return f"the function {x.__name__}"
    name = type(x).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def type_name(x: object) -> str:
    """Return the name of a type as users know it: `Array` for every array of JAX."""
    return "Array" if isinstance(x, jax.Array) else type(x).__name__


def check_alive(path: str, x: Any) -> None:
    """Refuse an array whose buffer is gone, or may be changed, before any work is done."""
    cls = type(x)
    if cls in _NEVER_DELETED or (cls in _ARRAYS and not x.is_deleted()):
        return
    if isinstance(x, jax.Ref):
        raise ModelError(
            f"{path or '(root)'}: this is a reference to an array that can be changed in place; "
            "freeze the model first, with jax.freeze or nnx.to_arrays"
        )
    if isarray(x) and not istracer(x) and getattr(x, "is_deleted", bool)():
        raise DeletedArrayError(
            f"{path or '(root)'}: this {describe(x)} array has been deleted, most often because it "
            "was donated to a jitted function; use what that function returned"
        )


_NEVER_DELETED = {
    *(np.ndarray, jax.ShapeDtypeStruct, LazyArray),
    *(bool, int, float, complex, str, type(None)),
}


def isdata(x: Any) -> bool:
    """Tell whether `x` is an array that `jit` takes as it is, without converting its dtype."""
    if isinstance(x, np.ndarray):
        return isnumber(x.dtype) and x.dtype == canonical(x.dtype)
    return isinstance(x, jax.Array)


@cache
def isnumber(dtype: Any) -> bool:
    """Tell whether a dtype is one of numbers, booleans included, that JAX has too."""
    return bool(jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_))
