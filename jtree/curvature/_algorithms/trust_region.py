"""Steps that minimize a quadratic model within a radius, and are shortened without products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_SUFFICIENT = 1e-4  # of the decrease that the gradient predicts
_MAX_TRIALS = 12  # evaluations of the loss along a step


class TrustState(NamedTuple):
    """The state of conjugate gradients within a radius.

    Attributes:
      x: the step so far.
      r: the residual, `-gradient - A @ x`.
      d: the direction.
      steps: the number of products.
      bounded: whether the step ended at the radius, or along a direction of negative curvature.
    """

    x: jax.Array
    r: jax.Array
    d: jax.Array
    steps: jax.Array
    bounded: jax.Array


def steihaug(
    mv: Callable[[jax.Array], jax.Array],
    gradient: jax.Array,
    radius: jax.Array,
    tol: jax.Array,
    maxiter: Any,
) -> TrustState:
    """Minimize `gradient @ x + x @ A @ x / 2` by conjugate gradients, up to `norm(x) = radius`.

    A direction of negative curvature is followed to the radius; if that is infinite, as far as a
    Newton step with the magnitude of the curvature.

    Source: Steihaug, SIAM Journal on Numerical Analysis 20, 1983, doi:10.1137/0720042.
    """
    start = TrustState(
        jnp.zeros_like(gradient), -gradient, -gradient, jnp.zeros((), int), jnp.array(False)
    )

    def unfinished(s: TrustState) -> Any:
        return (jnp.linalg.norm(s.r) > tol) & (s.steps < maxiter) & ~s.bounded

    end: TrustState = lax.while_loop(unfinished, partial(_step, mv, radius), start)
    return end


def _step(mv: Callable[[jax.Array], jax.Array], radius: jax.Array, s: TrustState) -> TrustState:
    ad = mv(s.d)
    curvature, rr, dd = jnp.vdot(s.d, ad), jnp.vdot(s.r, s.r), jnp.vdot(s.d, s.d)
    # the magnitude, and at least that of rounding, so that a step is finite
    least = jnp.finfo(s.x.dtype).eps * jnp.linalg.norm(ad) * jnp.sqrt(dd)
    magnitude = jnp.maximum(jnp.abs(curvature), least)
    newton = rr / jnp.where(magnitude > 0, magnitude, dd)
    limit = _to_radius(s.x, s.d, dd, radius)
    positive = curvature > 0  # False for NaN
    bounded = ~(positive & (newton < limit))
    length = jnp.where(~positive & jnp.isfinite(limit), limit, jnp.minimum(newton, limit))
    r = s.r - length * ad
    d = r + jnp.vdot(r, r) / rr * s.d
    return TrustState(s.x + length * s.d, r, d, s.steps + 1, bounded)


def _to_radius(x: jax.Array, d: jax.Array, dd: jax.Array, radius: jax.Array) -> jax.Array:
    """Return how often a direction can be added to a step before its norm exceeds the radius."""
    xd, room = jnp.vdot(x, d), jnp.maximum(radius**2 - jnp.vdot(x, x), 0)
    return (jnp.sqrt(xd**2 + dd * room) - xd) / dd


class Shortened(NamedTuple):
    """A step along its direction.

    Attributes:
      t: the share of the step that is taken.
      actual: the change of the loss.
      trials: the number of evaluations of the loss.
    """

    t: jax.Array
    actual: jax.Array
    trials: jax.Array


def shorten(
    change: Callable[[jax.Array], jax.Array], slope: jax.Array, rounding: jax.Array
) -> Shortened:
    """Return the first share of a step that decreases the loss enough, by interpolation.

    Args:
      change: the change of the loss for a share of the step.
      slope: its derivative at zero, which is negative.
      rounding: a change that is due to rounding.
    """

    def insufficient(s: Shortened) -> Any:
        enough = (s.actual <= _SUFFICIENT * s.t * slope) | (jnp.abs(s.actual) <= rounding)
        return ~enough & (s.trials < _MAX_TRIALS)

    def shorter(s: Shortened) -> Shortened:
        bend = s.actual - slope * s.t  # of the parabola through the loss and its slope
        minimum = -slope * s.t / (2 * jnp.where(bend > 0, bend, 1))
        share = jnp.where(jnp.isfinite(bend), jnp.clip(minimum, 0.1, 0.5), 0.1)
        t = jnp.where(s.trials == 0, 1, share * s.t).astype(s.t.dtype)
        return Shortened(t, change(t), s.trials + 1)

    one = jnp.ones_like(slope)
    start = Shortened(one, jnp.full_like(one, jnp.inf), jnp.zeros((), int))
    end: Shortened = lax.while_loop(insufficient, shorter, start)
    return end
