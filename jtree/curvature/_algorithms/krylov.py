"""CG and MINRES that report negative curvature and breakdown.

The CG of `lineax` does not check the curvature of its directions, so that it returns NaN or wrong
values for an indefinite matrix. `lineax` has no MINRES.

Both take a vector `(n,)` or the columns of a matrix `(n, k)`, which are solved side by side: the
products are of all columns at once, and a column that is finished stays as it is. The scalars of an
iteration keep the first axis, `(1,)` or `(1, k)`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from .._autodiff.varying import as_carry

Product = Callable[[jax.Array], jax.Array]
State = TypeVar("State", "CGState", "MinresState")


def norm(x: jax.Array) -> jax.Array:
    """Return the norm of each column."""
    norms: jax.Array = jnp.linalg.norm(x, axis=0, keepdims=True)
    return norms


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    return (x * y).sum(0, keepdims=True)


def _iterate(
    step: Callable[[State], State], unfinished: Callable[[State], Any], start: State
) -> State:
    """Repeat a step for the columns that are unfinished, until none is."""

    def body(state: State) -> State:
        after, active = step(state), unfinished(state)
        if active.ndim == 1:
            return after
        kept: State = jax.tree.map(lambda a, b: jnp.where(active, a, b), after, state)
        return kept

    start = as_carry(body, start)
    end: State = lax.while_loop(lambda state: unfinished(state).any(), body, start)
    return end


class CGState(NamedTuple):
    """The state of conjugate gradients.

    Attributes:
      x: the solution so far.
      r: the residual.
      d: the direction.
      rz: `r @ precondition(r)`.
      steps: the number of products.
      curvature: the smallest `d @ A @ d / (d @ d)` over the directions.
      first: that of the first direction.
    """

    x: jax.Array
    r: jax.Array
    d: jax.Array
    rz: jax.Array
    steps: jax.Array
    curvature: jax.Array
    first: jax.Array


def cg(mv: Product, b: jax.Array, precondition: Product, tol: jax.Array, maxiter: Any) -> CGState:
    """Solve `A @ x = b`, stopping before a direction whose curvature is not positive.

    Source: Hestenes and Stiefel, Journal of Research of the NBS 49, 1952, doi:10.6028/jres.049.044;
    the check of curvature: Steihaug, SIAM Journal on Numerical Analysis 20, 1983,
    doi:10.1137/0720042.
    """
    z = precondition(b)
    rz = _dot(b, z)
    infinite = jnp.full_like(rz, jnp.inf)
    steps = jnp.zeros_like(rz, int)
    start = CGState(jnp.zeros_like(b), b, z, rz, steps, infinite, jnp.zeros_like(rz))

    def unfinished(s: CGState) -> Any:
        return (norm(s.r) > tol) & (s.steps < maxiter) & (s.curvature > 0)

    return _iterate(partial(_cg_step, mv, precondition), unfinished, start)


def _cg_step(mv: Product, precondition: Product, s: CGState) -> CGState:
    ad = mv(s.d)
    dad = _dot(s.d, ad)
    positive = dad > 0  # False for NaN
    alpha = jnp.where(positive, s.rz / jnp.where(positive, dad, 1), 0)
    r = s.r - alpha * ad
    z = precondition(r)
    rz = _dot(r, z)
    d = jnp.where(positive, z + rz / jnp.where(s.rz == 0, 1, s.rz) * s.d, s.d)
    curvature = jnp.where(positive, dad, jnp.minimum(dad, 0)) / _dot(s.d, s.d)
    least = jnp.where(positive, jnp.minimum(s.curvature, curvature), jnp.minimum(curvature, 0))
    first = jnp.where(s.steps == 0, curvature, s.first)
    return CGState(s.x + alpha * s.d, r, d, rz, s.steps + 1, least, first)


class MinresState(NamedTuple):
    """The state of MINRES, in the notation of the paper.

    Attributes:
      x: the solution so far.
      vs: the last two Lanczos vectors.
      beta: the norm of the last one before it was normalized.
      ds: the last two directions.
      rotations: cosine and sine of the last two Givens rotations.
      phi: the norm of the residual, signed.
      steps: the number of products.
    """

    x: jax.Array
    vs: tuple[jax.Array, jax.Array]
    beta: jax.Array
    ds: tuple[jax.Array, jax.Array]
    rotations: tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    phi: jax.Array
    steps: jax.Array


def minres(mv: Product, b: jax.Array, tol: jax.Array, maxiter: Any) -> MinresState:
    """Solve `A @ x = b` for a symmetric A that may be indefinite; the residual never grows.

    It has no preconditioner, which would have to be definite and would change the norm that is
    minimized.

    Source: Paige and Saunders, SIAM Journal on Numerical Analysis 12, 1975, doi:10.1137/0712047.
    """
    zeros, length = jnp.zeros_like(b), norm(b)
    first = b / jnp.where(length > 0, length, 1)
    zero, one = jnp.zeros_like(length), jnp.ones_like(length)
    rotations = ((one, zero), (one, zero))
    steps = jnp.zeros_like(length, int)
    start = MinresState(zeros, (zeros, first), zero, (zeros, zeros), rotations, length, steps)

    def unfinished(s: MinresState) -> Any:
        more = (s.beta > 0) | (s.steps == 0)
        return more & (jnp.abs(s.phi) > tol) & (s.steps < maxiter)

    return _iterate(partial(_minres_step, mv), unfinished, start)


def _minres_step(mv: Product, s: MinresState) -> MinresState:
    (v0, v1), (d0, d1), ((c0, s0), (c1, s1)) = s.vs, s.ds, s.rotations
    w = mv(v1) - s.beta * v0
    alpha = _dot(v1, w)
    w = w - alpha * v1
    beta = norm(w)
    epsilon = s0 * s.beta
    delta = c1 * c0 * s.beta + s1 * alpha
    gamma = c1 * alpha - s1 * c0 * s.beta
    rho = jnp.hypot(gamma, beta)
    safe = jnp.where(rho > 0, rho, 1)
    c, sine = gamma / safe, jnp.where(rho > 0, beta / safe, 1)
    d = (v1 - delta * d1 - epsilon * d0) / safe
    v = w / jnp.where(beta > 0, beta, 1)
    x = s.x + c * s.phi * d
    rotations = ((c1, s1), (c, sine))
    return MinresState(x, (v1, v), beta, (d1, d), rotations, -sine * s.phi, s.steps + 1)
