"""The inverse of an operator, as an operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from ..._arguments import check_integer
from ..._errors import ArgumentError
from ..._tree.leaves import istracer
from ..._tree.paths import Where
from ..._vector.restructure import Restructure
from .._autodiff import dense, host, memory
from .._autodiff.arguments import as_columns
from .._autodiff.dense import DenseOptions
from .._autodiff.pieces import labeled_pieces
from .._autodiff.protocol import Piecewise
from .._operators.base import Operator, require_operator
from .decomposed import Decomposed, decompose, only_positive, reciprocal
from .solve import _DENSE_SIZE, _METHODS, prepare_preconditioner, solve


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["op", "damping", "preconditioner"],
    meta_fields=["method", "tol", "maxiter"],
)
@dataclass(frozen=True, eq=False, repr=False)
class Inverse(Operator):
    """The inverse of an operator plus a multiple of the identity: what `inverse` returns."""

    op: Operator
    damping: Any
    preconditioner: Any
    method: str
    tol: float | None
    maxiter: int | None

    @property
    def size(self) -> int:
        return self.op.size

    @property
    def dtype(self) -> Any:
        return self.op.dtype

    @property
    def re(self) -> Restructure | None:
        return self.op.re

    @property
    def name(self) -> str:
        damped = self.op.damped(self.damping)
        return damped.name

    @property
    def traceable(self) -> bool:
        return self.op.traceable

    @property
    def semidefinite(self) -> bool:
        return self.op.damped(self.damping).semidefinite

    def piecewise(self) -> Piecewise:
        return labeled_pieces(self)

    def linear(self) -> Callable[[jax.Array], jax.Array]:
        if not self.traceable:
            return partial(host.product, self)
        product, solution = self.op.damped(self.damping).linear(), self._solution()
        # so that derivatives are those of the solution, not of the steps that lead to it
        return lambda v: lax.custom_linear_solve(
            product, v, lambda _, b: solution(b), symmetric=True
        )

    def _solution(self) -> Callable[[jax.Array], jax.Array]:
        """Return the solution for one vector; a matrix is decomposed here."""
        if self.method in ("cg", "minres"):
            return self._solve
        weigh = reciprocal if self.method == "auto" else lambda x: reciprocal(only_positive(x))
        if isinstance(self.op, Decomposed):
            return self.op.function(weigh, self.damping, "solve")
        space = decompose(self.op.damped(self.damping).dense(progress=False))
        weights = weigh(space.values)
        return lambda b: space.multiply(weights, dense.promote(b)).astype(self.dtype)

    def _solve(self, b: jax.Array) -> jax.Array:
        return solve(
            self.op,
            b,
            damping=self.damping,
            method=self.method,  # type: ignore[arg-type]
            preconditioner=self.preconditioner,
            tol=self.tol,
            maxiter=self.maxiter,
        )

    def mv(self, v: Any, /) -> jax.Array:
        b = as_columns(v, self.size, self.dtype)
        if not b.size:
            return b
        if not self.traceable and istracer(b):
            return host.product(self, b) if b.ndim == 1 else jax.vmap(self.mv, 1, 1)(b)
        x = super().mv(b) if self.traceable else _map_columns(self._solution(), b)
        if istracer(x) or bool(jnp.isfinite(x).all()) or not bool(jnp.isfinite(b).all()):
            return x
        return _map_columns(self._solve, b)  # raises and says why

    def matrix(self, options: DenseOptions) -> jax.Array:
        if options.sharding is not None:
            return super().matrix(options)
        memory.budget(self, options.memory)  # raises where the matrix does not fit
        return self.mv(jnp.eye(self.size, dtype=self.dtype))

    def exact_diagonal(self) -> jax.Array:
        diagonal: jax.Array = jnp.diagonal(self.dense(progress=False))
        return diagonal

    def restrict(self, where: Where, /) -> Operator:  # noqa: ARG002
        """Raise, since to restrict and to invert do not commute."""
        raise ArgumentError(
            "restrict: inverse(op.restrict(...)) has the other parameters fixed, and "
            "inverse(op).block(...) is the part of the inverse"
        )


def _map_columns(function: Callable[[jax.Array], jax.Array], v: jax.Array) -> jax.Array:
    return function(v) if v.ndim == 1 else jnp.stack([function(x) for x in v.T], 1)


def inverse(
    op: Operator,
    damping: Any = 0.0,
    /,
    *,
    method: Literal["auto", "cg", "minres", "cholesky"] = "auto",
    preconditioner: Any = None,
    tol: float | None = None,
    maxiter: int | None = None,
) -> Inverse:
    """Return the inverse of an operator, as an operator whose products are solutions.

    It has all methods of an `Operator`: `eigsh`, `trace`, `diagonal`, `as_lineax` and sums take
    it. Products can be differentiated, by `v` and by what the operator depends on.

    Args:
      op: an operator.
      damping: a scalar that is added to the diagonal before it is inverted.
      method: the method of `solve`. `"auto"` decomposes the matrix up to 2,000 parameters, when the
        first product needs it, and keeps that; beyond it is CG for operators that are known to
        be positive semidefinite, or with a preconditioner, and MINRES for others.
      preconditioner: that of `solve`, for `"cg"`.
      tol: the residual to reach, relative to the norm of the vector.
      maxiter: the largest number of products in one solution.

    Returns:
      An `Inverse`, `(n, n)`. Within `jit`, where nothing can be raised, failed solutions are NaN.

    Raises:
      ArgumentError: the method is unknown, or takes no preconditioner.
      ArgumentTypeError: `op` is not an operator, or `damping` not a scalar.

    Example:
      >>> op = jtree.curvature.hessian(lambda v: (v ** 2).sum(), jnp.ones(2))
      >>> covariance = jtree.curvature.inverse(op, 2.0)
      >>> covariance
      Inverse(Hessian(<lambda>) + 2 I, 2 x 2, float32)
      >>> covariance @ jnp.array([2.0, 4.0])
      Array([0.5, 1. ], dtype=float32)
      >>> jtree.curvature.trace(covariance)
      Estimate(0.5, error=0)

    Source: the `InverseLinearOperator`s of curvlinops; see `solve` for the methods.
    """
    require_operator(op, "inverse")
    if not isinstance(method, str) or method not in _METHODS:
        raise ArgumentError(f"method: expected one of {', '.join(_METHODS)}, found {method!r}")
    if preconditioner is not None and method in ("minres", "cholesky"):
        raise ArgumentError(f"preconditioner: method={method!r} takes none; use method='cg'")
    if maxiter is not None:
        maxiter = check_integer("maxiter", maxiter, least=1)
    damped = op.damped(damping)  # raises for a damping that is not a scalar
    prepared = prepare_preconditioner(preconditioner, damping, op)
    by_matrix = prepared is None and (op.size <= _DENSE_SIZE or isinstance(op, Decomposed))
    if method == "auto" and not by_matrix:
        method = "cg" if damped.semidefinite or prepared is not None else "minres"
    return Inverse(op, damping, prepared, method, tol, maxiter)
