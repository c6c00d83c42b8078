"""Newton's method by conjugate gradients, as a gradient transformation of optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._arguments import check_callable, check_integer, unexpected
from ..._errors import ArgumentError, ArgumentTypeError, VectorError
from ..._tree.leaves import describe, isarray, istracer
from ..._vector.restructure import Restructure, check_restructure
from .._autodiff.arguments import check_scalar, check_tol, import_extra
from .._operators.base import Operator, require_operator
from .._operators.differentiated import as_point
from .._operators.hessian import hessian
from .krylov import cg


class NewtonState(NamedTuple):
    """The state of `newton` between steps.

    Attributes:
      damping: the damping of the next step.
      ratio: the actual decrease of the loss, relative to the predicted one.
      products: the number of products in the step.
      rejected: whether the step was not taken, since it would have increased the loss.
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
    """Return damped Newton's method with conjugate gradients, as an optax transformation.

    Every step solves `(A + damping * I) @ d = -gradient` until it reaches `tol`, has taken
    `maxiter` products, or meets a direction of negative curvature. The damping is adapted to the
    ratio of the actual to the predicted decrease of the loss (Levenberg-Marquardt): it shrinks
    above 3/4 and grows below 1/4. A step that would increase the loss is not taken.

    `update(gradient, state, params, *args)` takes the arguments of the loss after the vector, also
    as `args=(...)`. With another matrix it is another method, such as a natural gradient:
    `newton(loss, curvature=lambda flat, x, y: fisher(apply, flat, x))`.

    Args:
      loss: `loss(flat, *args)`, a scalar.
      re: with it, parameters and gradients may be models instead of vectors.
      curvature: `curvature(flat, *args)`, an operator; by default the Hessian of the loss.
      damping: the first damping. A damping of 0 grows when a step fails.
      tol: the residual to reach, relative to the norm of the gradient.
      maxiter: the largest number of products in a step.

    Returns:
      An `optax.GradientTransformationExtraArgs`, whose state is a `NewtonState`.

    Raises:
      ExtraError: optax is not installed.
      ArgumentError: `damping` is negative, or `maxiter` less than 1.

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
    optax = import_extra("optax")
    if not callable(loss):
        raise ArgumentTypeError(f"loss: expected a function, found {describe(loss)}")
    if curvature is not None:
        check_callable("curvature", curvature)
    check_tol(tol)
    if check_integer("maxiter", maxiter) < 1:
        raise ArgumentError(f"maxiter: expected 1 or more, found {maxiter}")
    if not istracer(check_scalar("damping", damping)) and not damping >= 0:
        raise ArgumentError(f"damping: expected 0 or more, found {damping}")
    if re is not None:
        check_restructure(re)
    make = curvature or (lambda flat, *args: hessian(loss, flat, *args))

    def init(params: Any) -> NewtonState:
        dtype = (params if (labels := _labels(re, params)) is None else labels).dtype
        scalar = jnp.asarray(damping, dtype)
        return NewtonState(scalar, jnp.ones_like(scalar), jnp.zeros((), int), jnp.array(False))

    def update(
        gradient: Any,
        state: NewtonState,
        params: Any = None,
        *more: Any,
        args: Any = (),
        **_: Any,
    ) -> tuple[Any, NewtonState]:
        if params is None:
            raise ArgumentTypeError("newton: pass the parameters, as in update(g, state, params)")
        if not isinstance(state, NewtonState):
            raise unexpected("state", "the NewtonState that init returned", state)
        labels = _labels(re, params)
        flat = params if labels is None else labels.ravel(params)
        slope = gradient if labels is None else labels.ravel_grad(gradient).astype(flat.dtype)
        if np.shape(slope) != flat.shape:
            raise VectorError(
                f"newton: expected a gradient of {len(flat)} elements, found {describe(slope)}"
            )
        args = more or (args if isinstance(args, tuple) else (args,))
        op = make(flat, *args)
        require_operator(op, "curvature")
        step, state = _step(lambda v: loss(v, *args), op, flat, slope, state, tol, maxiter)
        return (step if labels is None else _as_model(labels, step, params)), state

    return optax.GradientTransformationExtraArgs(init, update)


def _labels(re: Restructure | None, params: Any) -> Restructure | None:
    """Return `re` where it is needed: not for parameters that are a vector already."""
    if re is not None and not (isarray(params) and params.shape == (re.size,)):
        return re
    as_point(params, None)  # raises for anything but a vector
    return None


def _step(
    loss: Callable[[jax.Array], jax.Array],
    op: Operator,
    flat: jax.Array,
    slope: jax.Array,
    state: NewtonState,
    tol: float,
    maxiter: int,
) -> tuple[jax.Array, NewtonState]:
    linear, dtype = op.linear(), flat.dtype

    def damped(v: jax.Array) -> jax.Array:
        return linear(v) + state.damping * v

    solution = cg(damped, -slope, lambda r: r, tol * jnp.linalg.norm(slope), maxiter)
    descent = (solution.steps == 1) & ~(solution.curvature > 0)  # even the gradient curves down
    step = jnp.where(descent, -slope, solution.x)
    predicted = jnp.vdot(slope, step) + jnp.vdot(step, linear(step)) / 2
    before = loss(flat)
    actual = loss(flat + step) - before
    rounding = 8 * jnp.finfo(dtype).eps * jnp.abs(before)
    ratio = jnp.where(jnp.abs(actual) <= rounding, 1.0, actual / predicted).astype(dtype)
    rejected = ~(actual <= rounding)
    scale = jnp.abs(jnp.vdot(slope, linear(slope))) / jnp.maximum(jnp.vdot(slope, slope), 1e-30)
    larger = jnp.maximum(1e-3 * scale, -2 * solution.curvature)
    larger = jnp.maximum(4 * state.damping, larger)
    damping = jnp.where(ratio > 0.75, state.damping / 4, state.damping)
    damping = jnp.where(rejected | ~(ratio >= 0.25) | descent, larger, damping)
    step = jnp.where(rejected, 0, step)
    return step, NewtonState(damping.astype(dtype), ratio, solution.steps, rejected)


def _as_model(re: Restructure, step: jax.Array, params: Any) -> Any:
    """Return a step as a tree of the parameters' structure, zero for other arrays."""
    zeros = jax.tree.map(lambda x: jnp.zeros_like(x) if isarray(x) else x, params)
    return re.refresh(zeros)(step)
