"""Newton's method with conjugate gradients, as a gradient transformation of optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import ArgumentError, ArgumentTypeError, VectorError
from ..._tree.leaves import describe, isarray
from ..._vector.restructure import Restructure
from .._autodiff.arguments import extra
from .._operators.base import Operator
from .._operators.hessian import hessian
from . import krylov


class NewtonState(NamedTuple):
    """What `newton` remembers from step to step.

    Attributes:
      damping: what the next step adds to the diagonal.
      ratio: how far the loss fell, as a part of what the quadratic model foretold.
      products: how many products the step took.
      rejected: whether the loss would have grown, so that the step was not taken.
    """

    damping: jax.Array
    ratio: jax.Array
    products: jax.Array
    rejected: jax.Array


def newton(
    loss: Callable[..., Any],
    /,
    *,
    re: Restructure | None = None,
    curvature: Callable[..., Operator] | None = None,
    damping: float = 0.0,
    tol: float = 1e-6,
    maxiter: int = 100,
) -> Any:
    """Return damped Newton's method with conjugate gradients, for optax.

    Every step solves `(A + damping * I) @ d = -gradient` until `tol` is reached, `maxiter` products
    are taken, or a direction of negative curvature is met. The damping then follows the ratio of
    what the loss fell by to what was foretold (Levenberg-Marquardt): it shrinks above 3/4, grows
    below 1/4, and a step that would raise the loss is not taken.

    `update(gradient, state, params, *args)` takes what the loss takes behind the vector, also as
    `args=(...)`. A natural gradient is the same with another matrix:
    `newton(loss, curvature=lambda flat, x, y: fisher(apply, flat, x))`.

    Args:
      loss: `loss(flat, *args)`, a scalar.
      re: with it, parameters and gradients may be models instead of vectors.
      curvature: `curvature(flat, *args)`, an operator; by default the loss's Hessian.
      damping: to start with. From 0 it grows as soon as a step fails.
      tol: the residual to reach, as a part of the norm of the gradient.
      maxiter: the most products in a step.

    Returns:
      An `optax.GradientTransformationExtraArgs`, whose state is a `NewtonState`.

    Raises:
      ExtraError: optax is not installed.
      ArgumentError: `damping` is below 0, or `maxiter` below 1.

    Example:
      >>> import optax
      >>> loss = lambda v: (v[0] - 1) ** 2 + 10 * (v[1] - v[0]) ** 2
      >>> opt, v = jtree.curvature.newton(loss), jnp.zeros(2)
      >>> updates, state = opt.update(jax.grad(loss)(v), opt.init(v), v)
      >>> optax.apply_updates(v, updates).round(4)
      Array([1., 1.], dtype=float32)

    Source: Martens, "Deep learning via Hessian-free optimization", ICML 2010; Marquardt, SIAM
    Journal on Applied Mathematics 11, 1963, doi:10.1137/0111030.
    """
    optax = extra("optax")
    if not callable(loss):
        raise ArgumentTypeError(f"loss: expected a function, found {describe(loss)}")
    if maxiter < 1 or not damping >= 0:
        raise ArgumentError(
            f"expected maxiter of 1 or more and damping of 0 or more, found {maxiter} and {damping}"
        )
    make = curvature or (lambda flat, *args: hessian(loss, flat, *args))

    def init(params: Any) -> NewtonState:
        dtype = (params if (labels := _labels(re, params)) is None else labels).dtype
        number = jnp.asarray(damping, dtype)
        return NewtonState(number, jnp.ones_like(number), jnp.zeros((), int), jnp.array(False))

    def update(
        gradient: Any,
        state: NewtonState,
        params: Any = None,
        *behind: Any,
        args: Any = (),
        **_: Any,
    ) -> tuple[Any, NewtonState]:
        if params is None:
            raise ArgumentTypeError("newton: give the parameters, as in update(g, state, params)")
        labels = _labels(re, params)
        flat = params if labels is None else labels.ravel(params)
        slope = gradient if labels is None else labels.ravel_grad(gradient).astype(flat.dtype)
        if np.shape(slope) != flat.shape:
            raise VectorError(
                f"newton: expected a gradient of {len(flat)} numbers, found {describe(slope)}"
            )
        args = behind or (args if isinstance(args, tuple) else (args,))
        step, state = _step(loss, make(flat, *args), flat, slope, state, args, tol, maxiter)
        return (step if labels is None else _tree(labels, step, params)), state

    return optax.GradientTransformationExtraArgs(init, update)


def _labels(re: Restructure | None, params: Any) -> Restructure | None:
    """Return what makes parameters a vector; None where they are one, as they may be with `re`."""
    return None if re is None or (isarray(params) and params.shape == (re.size,)) else re


def _step(
    loss: Callable[..., Any],
    op: Operator,
    flat: jax.Array,
    slope: jax.Array,
    state: NewtonState,
    args: tuple[Any, ...],
    tol: float,
    maxiter: int,
) -> tuple[jax.Array, NewtonState]:
    linear = op._linear()
    damped = lambda v: linear(v) + state.damping * v  # noqa: E731
    goal = tol * jnp.linalg.norm(slope)
    found = krylov.cg(damped, -slope, lambda r: r, goal, maxiter)
    fallback = (found.steps == 1) & ~(found.curvature > 0)  # the gradient itself curves downwards
    step = jnp.where(fallback, -slope, found.x)
    foretold = jnp.vdot(slope, step) + jnp.vdot(step, linear(step)) / 2
    fell = loss(flat + step, *args) - loss(flat, *args)
    noise = 8 * jnp.finfo(flat.dtype).eps * jnp.abs(loss(flat, *args))
    ratio = jnp.where(jnp.abs(fell) <= noise, 1.0, fell / foretold).astype(flat.dtype)
    rejected = ~(fell <= noise)
    scale = jnp.abs(jnp.vdot(slope, linear(slope))) / jnp.maximum(jnp.vdot(slope, slope), 1e-30)
    grown = jnp.maximum(4 * state.damping, jnp.maximum(1e-3 * scale, -2 * found.curvature))
    damping = jnp.where(ratio > 0.75, state.damping / 4, state.damping)
    damping = jnp.where(rejected | ~(ratio >= 0.25) | fallback, grown, damping)
    step = jnp.where(rejected, 0, step)
    return step, NewtonState(damping.astype(flat.dtype), ratio, found.steps, rejected)


def _tree(re: Restructure, step: jax.Array, params: Any) -> Any:
    """Return a step as a tree of the parameters' structure, zero beside the parameters."""
    zeros = jax.tree.map(lambda x: jnp.zeros_like(x) if isarray(x) else x, params)
    return re.refresh(zeros)(step)
