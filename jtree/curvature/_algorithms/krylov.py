"""Conjugate gradients and MINRES, which say what they met.

`lineax` has conjugate gradients too, but they do not look at the curvature of a direction, and
go on to numbers that are not. MINRES it has not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Product = Callable[[jax.Array], jax.Array]


class KrylovSolution(NamedTuple):
    """Where an iteration stopped.

    Attributes:
      x: the best solution so far.
      residual: the norm of what is missing, as the iteration knows it.
      steps: how many products were taken.
      curvature: the smallest `d @ A @ d / (d @ d)` of its directions; for MINRES infinity.
    """

    x: jax.Array
    residual: jax.Array
    steps: jax.Array
    curvature: jax.Array


def cg(
    mv: Product, b: jax.Array, precondition: Product, tol: jax.Array, maxiter: int
) -> KrylovSolution:
    """Solve `A @ x = b`, and stop before a direction of curvature that is not positive.

    Source: Hestenes and Stiefel, Journal of Research of the NBS 49, 1952, doi:10.6028/jres.049.044;
    the test of curvature: Steihaug, SIAM Journal on Numerical Analysis 20, 1983,
    doi:10.1137/0720042.
    """
    z = precondition(b)
    start: tuple[Any, ...] = (
        jnp.zeros_like(b),
        b,
        z,
        jnp.vdot(b, z),
        jnp.zeros((), int),
        jnp.array(jnp.inf, b.dtype),
    )

    def going(state: tuple[Any, ...]) -> Any:
        _, r, _, _, steps, curvature = state
        return (jnp.linalg.norm(r) > tol) & (steps < maxiter) & (curvature > 0)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        x, r, d, rz, steps, least = state
        ad = mv(d)
        dad = jnp.vdot(d, ad)
        good = dad > 0  # false for NaN too
        alpha = jnp.where(good, rz / jnp.where(good, dad, 1), 0)
        r = r - alpha * ad
        z = precondition(r)
        new = jnp.vdot(r, z)
        d = jnp.where(good, z + new / rz * d, d)
        curvature = jnp.where(good, dad, jnp.minimum(dad, 0)) / jnp.vdot(state[2], state[2])
        least = jnp.where(good, jnp.minimum(least, curvature), jnp.minimum(curvature, 0))
        return x + alpha * state[2], r, d, new, steps + 1, least

    x, r, _, _, steps, curvature = lax.while_loop(going, step, start)
    return KrylovSolution(x, jnp.linalg.norm(r), steps, curvature)


def minres(
    mv: Product, b: jax.Array, unused: Product, tol: jax.Array, maxiter: int
) -> KrylovSolution:
    """Solve `A @ x = b` for a symmetric A of any signs: the residual shrinks at every step.

    Source: Paige and Saunders, SIAM Journal on Numerical Analysis 12, 1975, doi:10.1137/0712047.
    """
    zero, norm = jnp.zeros_like(b), jnp.linalg.norm(b)
    first = b / jnp.where(norm > 0, norm, 1)
    none, one = jnp.zeros_like(norm), jnp.ones_like(norm)
    rotation = (one, none)
    start: tuple[Any, ...] = (
        zero,
        (zero, first),
        none,
        (zero, zero),
        rotation,
        rotation,
        norm,
        jnp.zeros((), int),
    )

    def going(state: tuple[Any, ...]) -> Any:
        *_, beta, _, _, _, phi, steps = state
        more = (beta > 0) | (steps == 0)
        return more & (jnp.abs(phi) > tol) & (steps < maxiter)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        x, (before, v), beta, (d2, d1), (c2, s2), (c1, s1), phi, steps = state
        w = mv(v) - beta * before
        alpha = jnp.vdot(v, w)
        w = w - alpha * v
        after = jnp.linalg.norm(w)
        delta = c1 * c2 * beta + s1 * alpha
        gamma = c1 * alpha - s1 * c2 * beta
        rho = jnp.hypot(gamma, after)
        safe = jnp.where(rho > 0, rho, 1)
        c, s = gamma / safe, jnp.where(rho > 0, after / safe, 1)
        d = (v - delta * d1 - s2 * beta * d2) / safe
        following = w / jnp.where(after > 0, after, 1)
        x = x + c * phi * d
        return x, (v, following), after, (d1, d), (c1, s1), (c, s), -s * phi, steps + 1

    del unused  # a preconditioner of MINRES would have to be definite, and change its norm
    x, *_, phi, steps = lax.while_loop(going, step, start)
    return KrylovSolution(x, jnp.abs(phi), steps, jnp.array(jnp.inf, b.dtype))
