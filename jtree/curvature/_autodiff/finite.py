"""Operators whose values are not finite, and powers of two that keep algorithms free of scale."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import CurvatureError, VectorError
from ..._tree.leaves import istracer
from .protocol import Symmetric

Rows = np.ndarray[Any, Any]  # a flag for each row

_SHOWN = 5  # paths in a message


def require_finite(op: Symmetric, name: str) -> None:
    """Raise for an operator whose product with one vector is not finite, unless traced."""
    if op.size and not any(map(istracer, jax.tree.leaves(op))):
        require_finite_rows(op, _probe(op), name)


def require_finite_rows(op: Symmetric, rows: jax.Array, name: str) -> None:
    """Raise for products or a matrix that are not finite, and name the parameters; not in `jit`."""
    if istracer(rows) or bool(jnp.isfinite(rows).all()):
        return
    finite = _finite_rows(_probe(op))  # in a matrix a row that is not finite spoils its column too
    bad = ~(_finite_rows(rows) if finite.all() else finite)
    raise CurvatureError(
        f"{name}: the operator has values that are not finite, in {_describe_rows(op, bad)}; "
        "check the loss and its gradient at this point"
    )


def require_finite_vector(op: Symmetric, v: jax.Array, name: str) -> None:
    """Raise for a vector that is not finite, and name the operator's parameters; not in `jit`."""
    if istracer(v) or bool(jnp.isfinite(v).all()):
        return
    raise VectorError(
        f"{name}: expected finite values, found others in {_describe_rows(op, ~_finite_rows(v))}"
    )


def _probe(op: Symmetric) -> jax.Array:
    """Return the product with random signs, which are small, so that large values fit."""
    signs = jnp.where(jax.random.bernoulli(jax.random.key(1), shape=(op.size,)), 1.0, -1.0)
    return op.mv((signs / op.size**0.5).astype(op.dtype))


def _finite_rows(rows: jax.Array) -> Rows:
    finite = np.isfinite(np.asarray(rows, np.float64)).reshape(len(rows), -1)
    return np.asarray(finite.all(1))


def _describe_rows(op: Symmetric, bad: Rows) -> str:
    """Return how many rows are marked, and the paths of their parameters."""
    count = f"{int(bad.sum())} of {op.size} rows"
    if op.re is None:
        return count
    starts = np.cumsum([0, *op.re.layout.sizes])
    bounds = zip(op.re.paths, starts[:-1], starts[1:], strict=True)
    paths = [path for path, start, stop in bounds if bad[start:stop].any()]
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return f"{count}: {', '.join(paths[:_SHOWN])}{more}"


def power_of_two(array: jax.Array, *, columns: bool = False) -> jax.Array:
    """Return the power of two next to the largest magnitude in an array, or 1 for zeros.

    It is kept where it and its inverse are normal numbers, and dividing by it does not round.

    Args:
      array: an array.
      columns: whether to return one for each column, along a first axis of length 1.
    """
    axis = 0 if columns else None
    largest = jnp.abs(jax.lax.stop_gradient(array)).max(axis, keepdims=columns, initial=0)
    _, exponent = jnp.frexp(jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1))
    most = jnp.finfo(array.dtype).maxexp - 2
    return jnp.ldexp(jnp.ones_like(largest), jnp.clip(exponent, -most, most))
