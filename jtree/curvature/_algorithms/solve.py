"""Linear systems with an operator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from ..._errors import ArgumentError, ArgumentTypeError, CurvatureError, VectorError
from ..._tree.leaves import describe, isarray, istracer
from .._autodiff import dense, host
from .._autodiff.arguments import checked_vector, extra
from .._autodiff.call import automatic
from .._operators.base import Operator
from . import krylov

_SMALL = 2000  # up to this size "auto" makes the matrix
_METHODS = ("auto", "cg", "minres", "cholesky")


def solve(
    op: Operator,
    b: Any,
    /,
    *,
    damping: Any = 0.0,
    method: Literal["auto", "cg", "minres", "cholesky"] = "auto",
    preconditioner: Callable[[jax.Array], jax.Array] | jax.Array | None = None,
    tol: float | None = None,
    maxiter: int | None = None,
) -> jax.Array:
    """Return x with `(op + damping * I) @ x = b`.

    Args:
      op: an operator.
      b: `(n,)`.
      damping: what is added to the diagonal.
      method: `"cg"` for a positive definite operator, `"minres"` for any, `"cholesky"` by the
        matrix, for a positive definite one. `"auto"` is Cholesky up to 2,000 parameters, else
        conjugate gradients; where the operator turns out to be indefinite, MINRES.
      preconditioner: for `"cg"`: a function that applies an approximate inverse, or the vector that
        an approximate inverse has on its diagonal, such as `1 / diagonal(op)`.
      tol: the residual to reach, as a part of the norm of `b`; by default the dtype's precision to
        the power of 3/4.
      maxiter: the most products; by default 10 n, up to 10,000.

    Returns:
      `(n,)`. Inside of `jit` nothing can be raised: there, what failed is NaN.

    Raises:
      CurvatureError: the operator is not positive definite and the method needs it, or there was
        no convergence.
      VectorError: another length or rank, of the preconditioner too.
      ArgumentTypeError: the preconditioner is neither a function nor a vector.
      ArgumentError: another method.

    Example:
      >>> op = jtree.curvature.hessian(lambda v: (v ** 2).sum(), jnp.ones(2))
      >>> jtree.curvature.solve(op, jnp.array([2.0, 4.0])).round(4)
      Array([1., 2.], dtype=float32)
      >>> jtree.curvature.solve(-op, jnp.ones(2), method="cg")
      Traceback (most recent call last):
          ...
      jtree.CurvatureError: cg: the operator is not positive definite: a direction of curvature -2 \
was met at step 1; add damping= of more than that, use method='minres', or take a ggn

    Source: see the methods; `lineax` for others, by `op.as_lineax()`.
    """
    if method not in _METHODS:
        raise ArgumentError(f"method: expected one of {', '.join(_METHODS)}, found {method!r}")
    v = checked_vector(op, b)
    if v.ndim != 1:
        raise VectorError(f"b: expected a vector of {op.size} numbers, found {v.shape}")
    damped = op if isinstance(damping, int | float) and damping == 0 else op.damped(damping)
    if method == "cholesky" or (method == "auto" and op.size <= _SMALL):
        return _by_matrix(damped, v, method).astype(op.dtype)
    tol = float(jnp.finfo(op.dtype).eps) ** 0.75 if tol is None else tol
    steps = min(10 * op.size, 10_000) if maxiter is None else maxiter
    _check_preconditioner(preconditioner, v)
    function = Partial(preconditioner) if callable(preconditioner) else automatic(preconditioner)
    for name in ("cg", "minres") if method == "auto" else (method,):
        found = host.run(partial(_iterate, name, steps), damped, v, tol, function)
        trouble = _trouble(name, found, v, tol)
        if trouble is None:
            return _marked(found, v, tol)
    raise CurvatureError(trouble or "no convergence")


def _check_preconditioner(given: Any, b: jax.Array) -> None:
    if given is None:
        return
    if not callable(given) and not isarray(given):
        raise ArgumentTypeError(
            f"preconditioner: expected a function or a vector, found {describe(given)}"
        )
    found = jax.eval_shape(given, b) if callable(given) else given
    if getattr(found, "shape", None) != b.shape:
        kind = "a function that returns" if callable(given) else "a function or"
        raise VectorError(
            f"preconditioner: expected {kind} a vector of {len(b)} numbers, found {describe(found)}"
        )


@partial(jax.jit, static_argnums=(0, 1))
def _iterate(
    name: str, steps: int, op: Operator, b: jax.Array, tol: Any, preconditioner: Any
) -> krylov.KrylovSolution:
    def precondition(r: jax.Array) -> Any:
        if preconditioner is None:
            return r
        if callable(preconditioner):
            return preconditioner(r)
        return preconditioner.astype(r.dtype) * r

    goal = jnp.asarray(tol).astype(b.dtype) * jnp.linalg.norm(b)
    linear = op._linear()
    found: krylov.KrylovSolution = getattr(krylov, name)(linear, b, precondition, goal, steps)
    return found._replace(residual=jnp.linalg.norm(b - linear(found.x)))


def _failed(found: krylov.KrylovSolution, b: jax.Array, tol: Any) -> jax.Array:
    """Tell whether the true residual, which rounding keeps above the iteration's, is too large."""
    goal = jnp.maximum(100 * jnp.asarray(tol).astype(b.dtype), jnp.finfo(b.dtype).eps ** 0.5)
    good: jax.Array = found.residual <= goal * jnp.linalg.norm(b)
    return ~good


def _marked(found: krylov.KrylovSolution, b: jax.Array, tol: Any) -> jax.Array:
    return jnp.where(_failed(found, b, tol), jnp.nan, found.x) if istracer(found.x) else found.x


def _trouble(name: str, found: krylov.KrylovSolution, b: jax.Array, tol: Any) -> str | None:
    """Return what went wrong, in words; None if nothing did, or if that cannot be known yet."""
    if istracer(found.x) or not bool(_failed(found, b, tol)):
        return None
    steps = int(found.steps)
    if name == "cg" and not float(found.curvature) > 0:
        return (
            "cg: the operator is not positive definite: a direction of curvature "
            f"{float(found.curvature):.3g} was met at step {steps}; add damping= of more than "
            "that, use method='minres', or take a ggn"
        )
    part = float(found.residual / jnp.linalg.norm(b))
    return (
        f"{name}: no convergence: after {steps} products the residual is {part:.2g} of b, "
        f"and tol is {float(tol):.2g}; add damping=, give a preconditioner=, or a larger tol="
    )


def _by_matrix(op: Operator, b: jax.Array, method: str) -> jax.Array:
    matrix, b = dense.wide(op.dense(progress=False)), dense.wide(b)
    lx = extra("lineax")
    operator = lx.MatrixLinearOperator(matrix, lx.positive_semidefinite_tag)
    x: jax.Array = lx.linear_solve(operator, b, lx.Cholesky(), throw=False).value
    if istracer(x):
        return x
    if method == "auto" and not bool(jnp.isfinite(x).all()):
        x = jnp.linalg.solve(matrix, b)
    grown = jnp.linalg.norm(matrix) * jnp.linalg.norm(x) * jnp.finfo(b.dtype).eps
    if grown <= 0.01 * jnp.linalg.norm(b):
        return x
    if method == "auto" or bool(jnp.isfinite(x).all()):
        raise CurvatureError(f"{method}: the operator is singular to rounding: add damping=")
    least = float(jnp.linalg.eigvalsh(matrix)[0])
    raise CurvatureError(
        f"cholesky: the operator is not positive definite: its smallest eigenvalue is {least:.3g}; "
        "add damping= of more than that, use method='minres', or take a ggn"
    )
