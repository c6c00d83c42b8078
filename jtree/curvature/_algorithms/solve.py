"""Linear systems with an operator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from ..._arguments import check_integer
from ..._errors import ArgumentError, ArgumentTypeError, CurvatureError, VectorError
from ..._tree.leaves import describe, isarray, istracer
from .._autodiff import dense, host
from .._autodiff.arguments import as_columns, check_tol, import_extra
from .._autodiff.call import with_automatic_axes
from .._autodiff.finite import power_of_two, require_finite, require_finite_rows
from .._operators.base import Operator, require_operator
from .krylov import KrylovSolution, cg, minres

_DENSE_SIZE = 2000  # up to this size "auto" forms the matrix
_METHODS = ("auto", "cg", "minres", "cholesky")


def solve(
    op: Operator,
    b: Any,
    /,
    *,
    damping: Any = 0.0,
    method: Literal["auto", "cg", "minres", "cholesky"] = "auto",
    preconditioner: Callable[[jax.Array], jax.Array] | jax.Array | Operator | None = None,
    tol: float | None = None,
    maxiter: int | None = None,
) -> jax.Array:
    """Return x with `(op + damping * I) @ x = b`.

    Args:
      op: an operator.
      b: `(n,)`.
      damping: a scalar that is added to the diagonal.
      method: `"cg"` for a positive definite operator; `"minres"` for any; `"cholesky"` for a
        positive definite one, by its matrix. `"auto"` is Cholesky up to 2,000 parameters and CG
        beyond; for an indefinite operator it falls back to LU and MINRES.
      preconditioner: for `"cg"`, an approximate inverse: a function or an operator that applies it,
        or a vector with its diagonal, such as `1 / diagonal(op)`. An approximation of the operator
        by `block_diagonal` or `nystrom` is inverted with the damping. With a preconditioner,
        `"auto"` begins with CG.
      tol: the residual to reach, relative to the norm of `b`; by default the dtype's precision to
        the power of 3/4.
      maxiter: the largest number of products; by default 10 n, but at most 10,000.

    Returns:
      `(n,)`. Within `jit`, where nothing can be raised, a failed solution is NaN.

    Raises:
      CurvatureError: the method needs a positive definite operator, or did not converge; or the
        operator is not finite.
      VectorError: `b` or the preconditioner has another length or rank.
      ArgumentTypeError: the preconditioner is neither a function nor a vector.
      ArgumentError: the method is unknown, or takes no preconditioner.

    Example:
      >>> op = jtree.curvature.hessian(lambda v: (v ** 2).sum(), jnp.ones(2))
      >>> jtree.curvature.solve(op, jnp.array([2.0, 4.0])).round(4)
      Array([1., 2.], dtype=float32)
      >>> jtree.curvature.solve(-op, jnp.ones(2), method="cg")
      Traceback (most recent call last):
          ...
      jtree.CurvatureError: cg: the operator is not positive definite: step 1 has curvature -2; \
add a larger damping=, use method='minres', or a ggn

    Source: see the methods; for other methods, `op.as_lineax()` with `lineax`.
    """
    require_operator(op, "solve")
    if not isinstance(method, str) or method not in _METHODS:
        raise ArgumentError(f"method: expected one of {', '.join(_METHODS)}, found {method!r}")
    if preconditioner is not None and method in ("minres", "cholesky"):
        raise ArgumentError(f"preconditioner: method={method!r} takes none; use method='cg'")
    check_tol(tol)
    if maxiter is not None and check_integer("maxiter", maxiter) < 1:
        raise ArgumentError(f"maxiter: expected 1 or more, found {maxiter}")
    v = as_columns(b, op.size, op.dtype)
    if v.ndim != 1:
        raise VectorError(f"b: expected a vector of {op.size} elements, found {describe(v)}")
    damped = op if isinstance(damping, int | float) and damping == 0 else op.damped(damping)
    function = prepare_preconditioner(preconditioner, damping, op)
    if not op.size:
        return jnp.zeros(0, op.dtype)
    known = op.known_solution(v, damping) if method == "auto" and preconditioner is None else None
    if known is not None:
        return known
    small = op.size <= _DENSE_SIZE and preconditioner is None
    if method == "cholesky" or (method == "auto" and small):
        return _by_matrix(damped, v, method).astype(op.dtype)
    tol = float(jnp.finfo(op.dtype).eps) ** 0.75 if tol is None else tol
    steps = min(10 * op.size, 10_000) if maxiter is None else int(maxiter)
    for name in ("cg", "minres") if method == "auto" else (method,):
        solution = host.run(partial(_iterate, name, steps), damped, v, tol, function)
        failure = _explain(name, solution, tol)
        if failure is None:
            return _nan_if_failed(solution, tol)
    require_finite(damped, "solve")
    raise CurvatureError(failure)


def prepare_preconditioner(preconditioner: Any, damping: Any, op: Operator) -> Any:
    """Return an approximate inverse of an operator, as a pytree that `jit` accepts.

    It is an operator, a function, a vector, or None; an approximation of the operator is inverted.
    """
    if isinstance(preconditioner, Operator) and preconditioner.size == op.size:
        return preconditioner.as_preconditioner(damping)
    _check_preconditioner(preconditioner, jax.ShapeDtypeStruct((op.size,), op.dtype))
    if isinstance(preconditioner, Partial):
        return preconditioner
    if callable(preconditioner):
        return Partial(preconditioner)
    return with_automatic_axes(preconditioner)


def _check_preconditioner(preconditioner: Any, b: jax.ShapeDtypeStruct) -> None:
    if preconditioner is None:
        return
    if not callable(preconditioner) and not isarray(preconditioner):
        raise ArgumentTypeError(
            f"preconditioner: expected a function or a vector, found {describe(preconditioner)}"
        )
    called = callable(preconditioner)
    result = jax.eval_shape(preconditioner, b) if called else preconditioner
    if getattr(result, "shape", None) != b.shape:
        kind = "a function that returns" if called else "a function or"
        raise VectorError(
            f"preconditioner: expected {kind} a vector of {b.shape[0]} elements, "
            f"found {describe(result)}"
        )


@partial(jax.jit, static_argnums=(0, 1))
def _iterate(
    name: str, steps: int, op: Operator, b: jax.Array, tol: Any, preconditioner: Any
) -> KrylovSolution:
    if isinstance(preconditioner, Operator):
        preconditioner = preconditioner.linear()
    linear, b_scale = op.linear(), power_of_two(b)
    b = b / b_scale
    scale = power_of_two(linear(b))

    def product(v: jax.Array) -> jax.Array:
        return linear(v) / scale

    def precondition(r: jax.Array) -> Any:
        if preconditioner is None:
            return r
        if callable(preconditioner):
            return preconditioner(r) * scale
        return preconditioner.astype(r.dtype) * r * scale

    norm = jnp.linalg.norm(b)
    goal = jnp.asarray(tol).astype(b.dtype) * norm
    if name == "minres":
        solution = minres(product, b, goal, steps)
    else:
        solution = cg(product, b, precondition, goal, steps)
    residual = jnp.linalg.norm(b - product(solution.x)) / jnp.where(norm == 0, 1, norm)
    x, curvature = solution.x * (b_scale / scale), solution.curvature * scale
    return KrylovSolution(x, residual, solution.steps, curvature)


def _failed(solution: KrylovSolution, tol: Any) -> jax.Array:
    """Return whether the true residual, relative to `b`, is too large.

    The limit is above `tol`, since rounding keeps the true residual above that of the iteration.
    """
    dtype = solution.residual.dtype
    limit = jnp.maximum(100 * jnp.asarray(tol).astype(dtype), jnp.finfo(dtype).eps ** 0.5)
    converged: jax.Array = solution.residual <= limit
    return ~converged


def _nan_if_failed(solution: KrylovSolution, tol: Any) -> jax.Array:
    if not istracer(solution.x):
        return solution.x
    return jnp.where(_failed(solution, tol), jnp.nan, solution.x)


def _explain(name: str, solution: KrylovSolution, tol: Any) -> str | None:
    """Return why an iteration failed, or None if it did not or is traced."""
    if istracer(solution.x) or not bool(_failed(solution, tol)):
        return None
    steps, curvature = int(solution.steps), float(solution.curvature)
    if name == "cg" and not curvature > 0:
        return (
            f"cg: the operator is not positive definite: step {steps} has curvature "
            f"{curvature:.3g}; add a larger damping=, use method='minres', or a ggn"
        )
    relative = float(solution.residual)
    return (
        f"{name}: no convergence: after {steps} products the relative residual is {relative:.2g}, "
        f"but tol is {float(tol):.2g}; add damping=, pass a preconditioner=, or a larger tol="
    )


def _by_matrix(op: Operator, b: jax.Array, method: str) -> jax.Array:
    matrix, b = dense.promote(op.dense(progress=False)), dense.promote(b)
    require_finite_rows(op, matrix, "solve")
    scale, b_scale = power_of_two(matrix), power_of_two(b)
    x = _factorize(matrix / scale, b / b_scale, method, scale)
    return x * (b_scale / scale)


def _factorize(matrix: jax.Array, b: jax.Array, method: str, scale: jax.Array) -> jax.Array:
    """Return the solution for a matrix that was divided by a scale."""
    lx = import_extra("lineax")
    operator = lx.MatrixLinearOperator(matrix, lx.positive_semidefinite_tag)
    x: jax.Array = lx.linear_solve(operator, b, lx.Cholesky(), throw=False).value
    if istracer(x):
        return x
    if method == "auto" and not bool(jnp.isfinite(x).all()):
        x = jnp.linalg.solve(matrix, b)
    amplified = jnp.linalg.norm(matrix) * jnp.linalg.norm(x) * jnp.finfo(b.dtype).eps
    if amplified <= 0.01 * jnp.linalg.norm(b):
        return x
    if method == "auto" or bool(jnp.isfinite(x).all()):
        raise CurvatureError(f"{method}: the operator is singular to rounding; add damping=")
    least = float(jnp.linalg.eigvalsh(matrix)[0] * scale)
    raise CurvatureError(
        f"cholesky: the operator is not positive definite: its smallest eigenvalue is {least:.3g}; "
        "add a larger damping=, use method='minres', or a ggn"
    )
