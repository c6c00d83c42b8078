"""Linear systems with an operator."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial

from ..._arguments import check_integer
from ..._errors import ArgumentError, ArgumentTypeError, CurvatureError, VectorError
from ..._tree.leaves import describe, isabstract, isarray, istracer
from .._autodiff import host
from .._autodiff.arguments import as_columns, check_tol
from .._autodiff.call import with_automatic_axes
from .._autodiff.finite import power_of_two, require_finite, require_finite_vector
from .._operators.base import Operator, require_operator
from .factorize import solve_by_matrix
from .krylov import cg, minres, norm

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

    A solution has derivatives of every order, forward and reverse, with respect to `b`, `damping`,
    and the parameters and data that the operator was built from. Each takes one more system, and
    does not depend on how the system was solved.

    Args:
      op: an operator.
      b: `(n,)`, or `(n, k)` for k systems at once.
      damping: a scalar that is added to the diagonal.
      method: `"cg"` for a positive definite operator; `"minres"` for any; `"cholesky"` for a
        positive definite one, by its matrix. `"auto"` is Cholesky up to 2,000 parameters and CG
        beyond; for an indefinite operator it falls back to LU and MINRES.
      preconditioner: for `"cg"`, an approximate inverse: a function or an operator that applies it,
        or a vector with its diagonal, such as `1 / diagonal(op)`. An approximation of the operator
        by `block_diagonal` or `nystrom` is inverted with the damping. With a preconditioner,
        `"auto"` is CG.
      tol: the residual to reach, relative to the norm of `b`; by default the dtype's precision to
        the power of 3/4.
      maxiter: the largest number of products; by default 10 n, but at most 10,000.

    Returns:
      An array like `b`. Within `jit` and `grad`, where nothing can be raised, a failed solution is
      NaN.

    Raises:
      CurvatureError: the method needs a positive definite operator, or did not converge; or the
        operator is not finite.
      VectorError: `b` or the preconditioner has another length or rank, or is not finite.
      ArgumentTypeError: the preconditioner is neither a function nor a vector.
      ArgumentError: the method is unknown or takes no preconditioner, or `tol` or `damping` is out
        of range.

    Example:
      >>> op = jtree.curvature.hessian(lambda v: (v ** 2).sum(), jnp.ones(2))
      >>> jtree.curvature.solve(op, jnp.array([2.0, 4.0])).round(4)
      Array([1., 2.], dtype=float32)
      >>> jax.grad(lambda d: jtree.curvature.solve(op, jnp.ones(2), damping=d).sum())(2.0)
      Array(-0.125, dtype=float32, weak_type=True)
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
    if isinstance(damping, int | float) and not math.isfinite(damping):
        raise ArgumentError(f"damping: expected a finite scalar, found {damping}")
    columns = as_columns(b, op.size, op.dtype)
    require_finite_vector(op, columns, "b")
    damped = op if isinstance(damping, int | float) and damping == 0 else op.damped(damping)
    function = prepare_preconditioner(preconditioner, damping, op)
    if not op.size:
        return jnp.zeros_like(columns)
    if method == "auto" and preconditioner is None:
        known = op.known_solution(columns, damping)
        if known is not None:
            return known
    small = op.size <= _DENSE_SIZE and preconditioner is None
    if method == "cholesky" or (method == "auto" and small):
        return solve_by_matrix(damped, columns, method).astype(op.dtype)
    tol = float(jnp.finfo(op.dtype).eps) ** 0.75 if tol is None else tol
    steps = min(10 * op.size, 10_000) if maxiter is None else int(maxiter)
    name = "cg" if preconditioner is not None else method
    if any(map(istracer, jax.tree.leaves((damped, columns, tol, function)))):
        differentiable = partial(_differentiable, name, steps)
        x: jax.Array = host.run(differentiable, damped, columns, tol, function)
        return x
    solution: Solution = host.run(partial(_iterate, name, steps), damped, columns, tol, function)
    if istracer(solution.x):  # by what the preconditioner closes over
        return jnp.multiply(solution.x, jnp.where(_failed(solution, tol), jnp.nan, 1))
    if not bool(_failed(solution, tol).any()):
        return solution.x
    require_finite(damped, "solve")
    raise CurvatureError(_explain(name, solution, tol) + _OTHER_METHOD * (method != name))


_OTHER_METHOD = "; without preconditioner= method='auto' also tries MINRES"


def prepare_preconditioner(preconditioner: Any, damping: Any, op: Operator) -> Any:
    """Return an approximate inverse of an operator, as a pytree that `jit` accepts.

    It is an operator, a function, a vector, or None; an approximation of the operator is inverted.
    """
    if isinstance(preconditioner, Operator) and preconditioner.size == op.size:
        return preconditioner.as_preconditioner(damping)
    _check_preconditioner(preconditioner, op)
    if preconditioner is None or isinstance(preconditioner, Partial):
        return preconditioner
    if callable(preconditioner):
        return Partial(preconditioner)
    array = with_automatic_axes(jnp.asarray(preconditioner, op.dtype))
    require_finite_vector(op, array, "preconditioner")
    return array


def _check_preconditioner(preconditioner: Any, op: Operator) -> None:
    if preconditioner is None:
        return
    array = isarray(preconditioner) and not isabstract(preconditioner)
    if not callable(preconditioner) and not array:
        raise ArgumentTypeError(
            f"preconditioner: expected a function or a vector, found {describe(preconditioner)}"
        )
    called = callable(preconditioner)
    vector = jax.ShapeDtypeStruct((op.size,), op.dtype)
    result = jax.eval_shape(preconditioner, vector) if called else preconditioner
    if getattr(result, "shape", None) != (op.size,):
        kind = "a function that returns" if called else "a function or"
        raise VectorError(
            f"preconditioner: expected {kind} a vector of {op.size} elements, "
            f"found {describe(result)}"
        )


class Solution(NamedTuple):
    """The result of an iteration: a scalar for each column, along a first axis of length 1.

    Attributes:
      x: the solution.
      residual: the norm of the true residual, relative to that of `b`.
      steps: the number of products.
      curvature: the smallest curvature over the directions of CG.
    """

    x: jax.Array
    residual: jax.Array
    steps: jax.Array
    curvature: jax.Array


@partial(jax.jit, static_argnums=(0, 1))
def _differentiable(
    name: str, steps: int, op: Operator, b: jax.Array, tol: Any, preconditioner: Any
) -> jax.Array:
    """Return x, differentiated as the solution of the system and not through the iteration.

    Nothing can be raised, so that what failed is NaN, in a derivative too.
    """

    def solution(_: Any, b: jax.Array) -> jax.Array:
        result = _iterate(name, steps, op, b, tol, preconditioner)
        return jnp.multiply(result.x, jnp.where(_failed(result, tol), jnp.nan, 1))

    if not op.traceable:  # it reads its data on the host, from which nothing is differentiated
        return solution(None, b)
    linear = op.linear()
    product = linear if b.ndim == 1 else jax.vmap(linear, 1, 1)
    x: jax.Array = lax.custom_linear_solve(product, b, solution, symmetric=True)
    return x


@partial(jax.jit, static_argnums=(0, 1))
def _iterate(
    name: str, steps: int, op: Operator, b: jax.Array, tol: Any, preconditioner: Any
) -> Solution:
    """Return the solution of a system, whose matrix and right side are divided by powers of two."""
    if isinstance(preconditioner, Operator):
        preconditioner = preconditioner.linear()
    linear = op.linear()
    product = linear if b.ndim == 1 else jax.vmap(linear, 1, 1)
    b_scale = power_of_two(b, columns=True)
    b = b / b_scale
    scale = power_of_two(product(b), columns=True)
    length = norm(b)
    goal = jnp.asarray(tol).astype(b.dtype) * length

    def divided(v: jax.Array) -> jax.Array:
        return product(v) / scale

    def measured(x: jax.Array, count: jax.Array, curvature: jax.Array) -> Solution:
        residual = norm(b - divided(x)) / jnp.where(length == 0, 1, length)
        return Solution(x, residual, count, curvature)

    result = Solution(jnp.zeros_like(b), length, jnp.zeros_like(length, int), length)
    if name != "minres":
        end = cg(divided, b, partial(_precondition, preconditioner, scale), goal, steps)
        result = measured(end.x, end.steps, end.curvature)
    if name != "cg":
        failed = _failed(result, tol) if name == "auto" else True
        other = minres(divided, b, goal, jnp.where(failed, steps, 0))
        both = measured(other.x, other.steps, result.curvature)
        result = jax.tree.map(partial(jnp.where, failed), both, result)
    return result._replace(x=result.x * (b_scale / scale), curvature=result.curvature * scale)


def _precondition(preconditioner: Any, scale: jax.Array, r: jax.Array) -> jax.Array:
    """Return the product of a preconditioner with a vector, or with columns.

    Args:
      preconditioner: a function, the diagonal of a matrix, or None for the identity.
      scale: the scale by which the operator was divided.
      r: `(n,)` or `(n, k)`.
    """
    if preconditioner is None:
        return r
    if callable(preconditioner):
        product = preconditioner if r.ndim == 1 else jax.vmap(preconditioner, 1, 1)
        applied: jax.Array = product(r)
        return applied * scale
    diagonal: jax.Array = preconditioner.reshape(-1, *[1] * (r.ndim - 1))
    return diagonal * r * scale


def _failed(solution: Solution, tol: Any) -> jax.Array:
    """Return whether the true residual of a column, relative to `b`, is too large.

    The limit is above `tol`, since rounding keeps the true residual above that of the iteration.
    """
    dtype = solution.residual.dtype
    limit = jnp.maximum(100 * jnp.asarray(tol).astype(dtype), jnp.finfo(dtype).eps ** 0.5)
    converged: jax.Array = solution.residual <= limit
    return ~converged


def _explain(name: str, solution: Solution, tol: Any) -> str:
    """Return why an iteration failed in its worst column."""
    column = int(jnp.nan_to_num(solution.residual[0], nan=jnp.inf).argmax())
    where = f"column {column}: " if solution.x.ndim == 2 else ""
    residual, steps, curvature = (x.reshape(-1)[column] for x in solution[1:])
    if name == "cg" and not curvature > 0:
        return (
            f"{where}cg: the operator is not positive definite: step {int(steps)} has curvature "
            f"{float(curvature):.3g}; add a larger damping=, use method='minres', or a ggn"
        )
    remedy = "pass a preconditioner=, or a larger tol=" if name == "cg" else "or pass a larger tol="
    return (
        f"{where}{'cg' if name == 'cg' else 'minres'}: no convergence: after {int(steps)} products "
        f"the relative residual is {float(residual):.2g}, but tol is {float(tol):.2g}; "
        f"add damping=, {remedy}"
    )
