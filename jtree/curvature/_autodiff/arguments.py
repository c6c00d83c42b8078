"""Vectors, selections of parameters, and optional libraries, checked before they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import ArgumentError, ArgumentTypeError, VectorError, VectorTypeError
from ..._extras import check_extra
from ..._tree.leaves import describe, isabstract, isarray, isnumber, istracer
from ..._tree.paths import Where
from ..._vector.layout import VectorLayout
from .call import with_automatic_axes

T = TypeVar("T")


def as_columns(v: Any, size: int, dtype: Any) -> jax.Array:
    """Return a vector `(size,)`, or a matrix of columns `(size, k)`, as an array of a dtype."""
    if not isarray(v) or isabstract(v) or not isnumber(v.dtype):
        raise VectorTypeError(f"expected a vector of {size} elements, found {describe(v)}")
    if v.dtype != dtype and jnp.issubdtype(v.dtype, jnp.complexfloating):
        raise VectorTypeError(f"expected a real vector, found {describe(v)}")
    if v.ndim not in (1, 2) or v.shape[0] != size:
        hint = "; transpose it" if v.ndim == 2 and v.shape[1] == size else ""
        raise VectorError(
            f"expected a vector of {size} elements or a matrix of {size} rows, "
            f"found {describe(v)}{hint}"
        )
    array: jax.Array = with_automatic_axes(v if _fits(v, dtype) else jnp.asarray(v, dtype))
    return array


def _fits(v: Any, dtype: Any) -> bool:
    """Return whether `jit` takes an array as it is; converting it takes as long as small products.

    An array that is weakly typed would be compiled for anew.
    """
    return v.dtype == dtype and (type(v) is np.ndarray or not getattr(v, "weak_type", True))


def isreal(dtype: Any) -> bool:
    """Return whether a dtype is one for numbers or booleans, but not complex."""
    return isnumber(dtype) and not jnp.issubdtype(dtype, jnp.complexfloating)


def as_scalar(x: Any) -> Any:
    """Return a real number, of Python or as an array without axes, and None for anything else.

    An object that JAX takes for an array, such as an `Estimate`, is one.
    """
    if not istracer(x) and hasattr(type(x), "__jax_array__"):
        x = x.__jax_array__()
    if isinstance(x, int | float):
        return x
    array = isarray(x) or isinstance(x, np.generic)
    return x if array and x.shape == () and isreal(x.dtype) else None


def check_scalar(name: str, x: Any, hint: str = "") -> Any:
    """Return a real number, which may be traced."""
    scalar = as_scalar(x)
    if scalar is None:
        raise ArgumentTypeError(f"{name}: expected a scalar, found {describe(x)}{hint}")
    return scalar


def check_tol(tol: Any) -> None:
    """Raise for a tolerance that is neither None nor a scalar of 0 or more; it may be traced."""
    if tol is not None and not istracer(check_scalar("tol", tol)) and not tol >= 0:
        raise ArgumentError(f"tol: expected 0 or more, found {tol}")


def require_labels(labels: T | None, method: str) -> T:
    """Return the labels of an operator, or raise for a method that needs them."""
    if labels is None:
        raise ArgumentError(no_labels(method))
    return labels


def no_labels(method: str) -> str:
    """Return the message of a method that needs labels."""
    return (
        f"{method}: the operator has no labels; pass the second result of destructure, "
        "as in hessian(loss, flat, x, y, re=re)"
    )


def select_elements(layout: VectorLayout, where: Where) -> np.ndarray[Any, Any]:
    """Return the indices of the vector's elements that belong to the selected parameters."""
    starts = np.cumsum([0, *layout.sizes])
    selected = layout.select(where)
    return np.concatenate([np.arange(starts[k], starts[k + 1]) for k in selected])


def import_extra(name: str) -> Any:
    """Import a module of a package of the extra `curvature`."""
    check_extra("jtree.curvature", "curvature", name.partition(".")[0])
    return import_module(name)
