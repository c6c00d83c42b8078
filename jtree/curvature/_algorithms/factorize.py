"""Linear systems by the matrix of an operator: Cholesky, and LU where it is indefinite."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy import linalg

from ..._errors import CurvatureError
from ..._tree.leaves import istracer
from .._autodiff import dense
from .._autodiff.finite import power_of_two, require_finite_rows
from .._autodiff.protocol import Symmetric
from .krylov import norm


class Factors(NamedTuple):
    """The factors of a matrix that was divided by a scale, and its norm.

    Attributes:
      matrix: the lower factor of Cholesky, or both factors of LU.
      pivots: the pivots of LU, or None for Cholesky.
      norm: the Frobenius norm of the divided matrix.
      scale: the scale.
    """

    matrix: jax.Array
    pivots: jax.Array | None
    norm: jax.Array
    scale: jax.Array


def solve_by_matrix(op: Symmetric, b: jax.Array, method: str) -> jax.Array:
    """Return the solutions for a vector, or for the columns of a matrix.

    Args:
      op: an operator.
      b: `(n,)` or `(n, k)`.
      method: "cholesky", or "auto", which takes LU for an indefinite operator.

    Returns:
      An array like `b`, at least in single precision. Where something is traced it is
      differentiated as the solution of the system, and NaN where it failed.
    """
    b = dense.promote(b)
    if any(map(istracer, jax.tree.leaves((op, b)))):
        return _solve_traced(op, b, method)
    matrix = dense.promote(op.dense(progress=False))
    require_finite_rows(op, matrix, "solve")
    factors, definite = _cholesky(matrix)
    if not definite and method == "cholesky":
        least = float(jnp.linalg.eigvalsh(matrix / factors.scale)[0] * factors.scale)
        raise CurvatureError(
            "cholesky: the operator is not positive definite: its smallest eigenvalue is "
            f"{least:.3g}; add a larger damping=, use method='minres', or a ggn"
        )
    solution: tuple[jax.Array, jax.Array] = _substitute(factors if definite else _lu(matrix), b)
    if bool(solution[1].any()):
        raise CurvatureError(f"{method}: the operator is singular to rounding; add damping=")
    return solution[0]


def _solve_traced(op: Symmetric, b: jax.Array, method: str) -> jax.Array:
    """Return the solutions, by one product and one more solution for each derivative.

    The matrix is constant to the derivatives: they are those of the product.
    """
    matrix = dense.promote(lax.stop_gradient(op).dense(progress=False))
    factors = _cholesky(matrix)[0] if method == "cholesky" else _lu(matrix)
    x: jax.Array = _differentiable(op, factors, b)
    return x


@jax.jit
def _differentiable(op: Symmetric, factors: Factors, b: jax.Array) -> jax.Array:
    def solution(_: Any, b: jax.Array) -> jax.Array:
        x, failed = _substitute(factors, b)
        return jnp.multiply(x, jnp.where(failed, jnp.nan, 1))

    if not op.traceable:  # its data are on the host, and nothing in it is differentiated
        return solution(None, b)
    linear = op.linear()

    def product(v: jax.Array) -> jax.Array:
        return dense.promote(linear(v.astype(op.dtype)))

    columns = product if b.ndim == 1 else jax.vmap(product, 1, 1)
    x: jax.Array = lax.custom_linear_solve(columns, b, solution, symmetric=True)
    return x


@jax.jit
def _cholesky(matrix: jax.Array) -> tuple[Factors, jax.Array]:
    """Return the factor and whether it exists; a missing factor is zero."""
    scale = power_of_two(matrix)
    matrix = matrix / scale
    factor = jnp.linalg.cholesky(matrix)
    definite = jnp.isfinite(factor).all()
    factor = jnp.where(definite, factor, 0)
    return Factors(factor, None, jnp.linalg.norm(matrix), scale), definite


@jax.jit
def _lu(matrix: jax.Array) -> Factors:
    scale = power_of_two(matrix)
    matrix = matrix / scale
    lu, pivots = linalg.lu_factor(matrix)
    return Factors(lu, pivots, jnp.linalg.norm(matrix), scale)


@jax.jit
def _substitute(factors: Factors, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the solution of each column, zero where it is not finite, and whether it failed.

    A solution that is larger than rounding allows means a matrix that is singular to rounding.
    """
    b_scale = power_of_two(b, columns=True)
    b = b / b_scale
    if factors.pivots is None:
        x = linalg.cho_solve((factors.matrix, True), b)
    else:
        x = linalg.lu_solve((factors.matrix, factors.pivots), b)
    finite = jnp.isfinite(x).all(0, keepdims=True)
    x = jnp.where(finite, x, 0)
    rounding = factors.norm * norm(x) * jnp.finfo(b.dtype).eps
    return x * (b_scale / factors.scale), ~finite | (rounding > 0.01 * norm(b))
