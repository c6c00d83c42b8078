"""Norms, condition numbers and the inertia of operators."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import ArgumentError
from ..._tree.leaves import istracer
from .._autodiff import dense
from .._autodiff.arguments import check_tol
from .._autodiff.finite import require_finite, require_finite_rows
from .._operators.base import Operator, require_operator
from .eigen import eigsh


class Inertia(NamedTuple):
    """The numbers of positive and negative eigenvalues, and of those that are zero to rounding."""

    positive: int
    negative: int
    zero: int


def inertia(op: Operator, /, *, tol: float | None = None) -> Inertia:
    """Return how many eigenvalues of an operator are positive, negative and zero, by its matrix.

    Args:
      op: an operator.
      tol: the magnitude that counts as zero, relative to the largest; by default n times the
        dtype's precision.

    Returns:
      An `Inertia`.

    Raises:
      ArgumentError: the matrix needs more memory than there is.
      CurvatureError: the operator is not finite.

    Example:
      >>> saddle = jtree.curvature.hessian(lambda v: v[0] ** 2 - v[1] ** 2 + 0 * v[2], jnp.ones(3))
      >>> jtree.curvature.inertia(saddle)
      Inertia(positive=1, negative=1, zero=1)

    Source: Sylvester's law of inertia, Philosophical Magazine 4, 1852,
    doi:10.1080/14786445208647087.
    """
    require_operator(op, "inertia")
    check_tol(tol)
    if not op.size:
        return Inertia(0, 0, 0)
    matrix = dense.promote(op.dense())
    if istracer(matrix):
        raise ArgumentError("inertia: it counts values, so call it outside of jit; or use eigsh")
    require_finite_rows(op, matrix, "inertia")
    values = np.asarray(jnp.linalg.eigvalsh(matrix))
    tol = op.size * float(jnp.finfo(op.dtype).eps) if tol is None else tol
    limit = tol * np.abs(values).max(initial=0.0)
    positive, negative = int((values > limit).sum()), int((values < -limit).sum())
    return Inertia(positive, negative, len(values) - positive - negative)


def norm(op: Operator, /, ord: Literal[2, "fro"] = 2) -> jax.Array:
    """Return the spectral norm of an operator, or its Frobenius norm.

    Args:
      op: an operator.
      ord: 2 for the largest magnitude of an eigenvalue, by products; `"fro"` for the Frobenius
        norm, by the matrix.

    Returns:
      A scalar of the operator's dtype.

    Raises:
      ArgumentError: `ord` is neither 2 nor `"fro"`.

    Example:
      >>> op = jtree.curvature.hessian(lambda v: 3 * v[0] ** 2 + 4 * v[1] ** 2, jnp.ones(2))
      >>> jtree.curvature.norm(op).item(), jtree.curvature.norm(op, "fro").item()
      (8.0, 10.0)
    """
    require_operator(op, "norm")
    if not isinstance(ord, int | str) or ord not in (2, "fro"):
        raise ArgumentError(f"ord: expected 2 or 'fro', found {ord!r}")
    if not op.size:
        return jnp.zeros((), op.dtype)
    return jnp.abs(eigsh(op, 1).values[0]) if ord == 2 else jnp.asarray(jnp.linalg.norm(op.dense()))


def cond(op: Operator, /) -> jax.Array:
    """Return the condition number of an operator, by its matrix.

    It is the largest magnitude of an eigenvalue over the smallest.

    Args:
      op: an operator.

    Returns:
      A scalar of the operator's dtype; infinite for a singular matrix.

    Raises:
      ArgumentError: the matrix needs more memory than there is, or has no rows.
      CurvatureError: the operator is not finite.

    Example:
      >>> op = jtree.curvature.hessian(lambda v: v[0] ** 2 - 4 * v[1] ** 2, jnp.ones(2))
      >>> jtree.curvature.cond(op).item()
      4.0
    """
    require_operator(op, "cond")
    if not op.size:
        raise ArgumentError("cond: expected an operator with at least one row, found 0 x 0")
    require_finite(op, "cond")
    values = jnp.abs(jnp.linalg.eigvalsh(dense.promote(op.dense())))
    least, most = values.min(), values.max()
    return jnp.where(most > 0, most / least, most + jnp.inf).astype(op.dtype)  # NaN stays NaN
