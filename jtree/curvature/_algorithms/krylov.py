"""CG and MINRES that report negative curvature and breakdown.

The CG of `lineax` does not check the curvature of its directions, so that it returns NaN or wrong
values for an indefinite matrix. `lineax` has no MINRES.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Product = Callable[[jax.Array], jax.Array]


class KrylovSolution(NamedTuple):
    """The state in which an iteration stopped.

    Attributes:
      x: the solution so far.
      residual: the norm of the residual, by the recurrence of the iteration.
      steps: the number of products.
      curvature: the smallest `d @ A @ d / (d @ d)` over the directions; infinite for MINRES.
    """

    x: jax.Array
    residual: jax.Array
    steps: jax.Array
    curvature: jax.Array


class CGState(NamedTuple):
    """The state of conjugate gradients: residual r, direction d, and `rz = r @ precondition(r)`."""

    x: jax.Array
    r: jax.Array
    d: jax.Array
    rz: jax.Array
    steps: jax.Array
    curvature: jax.Array


def cg(
    mv: Product, b: jax.Array, precondition: Product, tol: jax.Array, maxiter: int
) -> KrylovSolution:
    """Solve `A @ x = b`, stopping before a direction whose curvature is not positive.

    Source: Hestenes and Stiefel, Journal of Research of the NBS 49, 1952, doi:10.6028/jres.049.044;
    the check of curvature: Steihaug, SIAM Journal on Numerical Analysis 20, 1983,
    doi:10.1137/0720042.
    """
    z = precondition(b)
    curvature = jnp.array(jnp.inf, b.dtype)
    start = CGState(jnp.zeros_like(b), b, z, jnp.vdot(b, z), jnp.zeros((), int), curvature)

    def unfinished(s: CGState) -> Any:
        return (jnp.linalg.norm(s.r) > tol) & (s.steps < maxiter) & (s.curvature > 0)

    end = lax.while_loop(unfinished, partial(_cg_step, mv, precondition), start)
    return KrylovSolution(end.x, jnp.linalg.norm(end.r), end.steps, end.curvature)


def _cg_step(mv: Product, precondition: Product, s: CGState) -> CGState:
    ad = mv(s.d)
    dad = jnp.vdot(s.d, ad)
    positive = dad > 0  # False for NaN
    alpha = jnp.where(positive, s.rz / jnp.where(positive, dad, 1), 0)
    r = s.r - alpha * ad
    z = precondition(r)
    rz = jnp.vdot(r, z)
    d = jnp.where(positive, z + rz / s.rz * s.d, s.d)
    curvature = jnp.where(positive, dad, jnp.minimum(dad, 0)) / jnp.vdot(s.d, s.d)
    least = jnp.where(positive, jnp.minimum(s.curvature, curvature), jnp.minimum(curvature, 0))
    return CGState(s.x + alpha * s.d, r, d, rz, s.steps + 1, least)


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


def minres(mv: Product, b: jax.Array, tol: jax.Array, maxiter: int) -> KrylovSolution:
    """Solve `A @ x = b` for a symmetric A that may be indefinite; the residual never grows.

    It has no preconditioner, which would have to be definite and would change the norm that is
    minimized.

    Source: Paige and Saunders, SIAM Journal on Numerical Analysis 12, 1975, doi:10.1137/0712047.
    """
    zeros, norm = jnp.zeros_like(b), jnp.linalg.norm(b)
    first = b / jnp.where(norm > 0, norm, 1)
    zero, one = jnp.zeros_like(norm), jnp.ones_like(norm)
    rotations = ((one, zero), (one, zero))
    steps = jnp.zeros((), int)
    start = MinresState(zeros, (zeros, first), zero, (zeros, zeros), rotations, norm, steps)

    def unfinished(s: MinresState) -> Any:
        more = (s.beta > 0) | (s.steps == 0)
        return more & (jnp.abs(s.phi) > tol) & (s.steps < maxiter)

    end = lax.while_loop(unfinished, partial(_minres_step, mv), start)
    return KrylovSolution(end.x, jnp.abs(end.phi), end.steps, jnp.array(jnp.inf, b.dtype))


def _minres_step(mv: Product, s: MinresState) -> MinresState:
    (v0, v1), (d0, d1), ((c0, s0), (c1, s1)) = s.vs, s.ds, s.rotations
    w = mv(v1) - s.beta * v0
    alpha = jnp.vdot(v1, w)
    w = w - alpha * v1
    beta = jnp.linalg.norm(w)
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
