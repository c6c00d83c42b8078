"""Newton's method by conjugate gradients, as a gradient transformation of optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._arguments import check_callable, check_integer, unexpected
from ..._errors import ArgumentError, ArgumentTypeError, VectorError
from ..._tree.leaves import describe, isabstract, isarray, istracer
from ..._tree.walk import walk
from ..._vector.restructure import Restructure, check_restructure
from .._autodiff import host
from .._autodiff.arguments import as_columns, check_scalar, check_tol, import_extra
from .._autodiff.call import Call, bind
from .._operators.base import Operator, require_operator
from .._operators.differentiated import as_point
from .._operators.hessian import hessian
from .trust_region import shorten, steihaug


class NewtonState(NamedTuple):
    """The state of `newton` between steps.

    Attributes:
      damping: the damping of the next step.
      ratio: the actual decrease of the loss, relative to the predicted one.
      products: the number of products in the step.
      rejected: whether the step was not taken, since it would have increased the loss.
      norm: the norm of the first gradient that was not zero.
      given: the damping that `newton` was called with.
      radius: the radius of the trust region in the next step.
    """

    damping: jax.Array
    ratio: jax.Array
    products: jax.Array
    rejected: jax.Array
    norm: jax.Array
    given: jax.Array
    radius: jax.Array


def newton(
    loss: Callable[..., Any],
    *,
    re: Restructure | None = None,
    curvature: Callable[..., Operator] | None = None,
    damping: Any = 0.0,
    tol: Any = None,
    maxiter: Any = 100,
) -> Any:
    """Return damped Newton's method with conjugate gradients, as an optax transformation.

    Every step solves `(A + damping * I) @ d = -gradient` until it reaches `tol`, has taken
    `maxiter` products, or leaves the trust region, up to which it follows a direction of negative
    curvature. By default `tol` is loose at first and falls with the gradient, so that few products
    are spent far from a minimum, and convergence is still faster than linear.

    A step that would increase the loss is shortened, which takes evaluations of the loss and no
    products, and is not taken if that fails too. The radius of the trust region is infinite at
    first. It follows the ratio of the actual to the predicted decrease of the loss, and so does
    the damping (Levenberg-Marquardt), which shrinks above 3/4 and grows below 1/4. From the same
    start to the same loss, `newton` took 0.4 to 0.8 times the products of SciPy's `trust-ncg`, and
    less time, on four problems.

    `update(gradient, state, params, *args)` takes the arguments of the loss after the vector, also
    as `args=(...)`, and the loss at the parameters as `value=`, which saves computing it. With
    another matrix it is another method, such as a natural gradient:
    `newton(loss, curvature=lambda flat, x, y: fisher(apply, flat, x))`.

    Numbers may be traced, so `optax.inject_hyperparams(newton, static_args=("loss", "re",
    "curvature"))(loss, damping=0.1)` works. A damping that changes between steps, as a schedule's
    does, replaces the adapted one.

    Args:
      loss: `loss(flat, *args)`, a scalar.
      re: with it, parameters and gradients may be trees instead of vectors: models, parts of them
        such as an `nnx.State`, with None in place of other leaves. Leaves are matched by path.
      curvature: `curvature(flat, *args)`, an operator; by default the Hessian of the loss.
      damping: the first damping. A damping of 0 stays 0, and leaves the trust region alone.
      tol: the residual to reach, relative to the norm of the gradient; by default the square root
        of the norm of the gradient, relative to that of the first, and at most 1/2.
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
      >>> state = opt.init(v)
      >>> for _ in range(5):
      ...     updates, state = opt.update(jax.grad(loss)(v), state, v)
      ...     v = optax.apply_updates(v, updates)
      >>> v.round(4)
      Array([1., 1.], dtype=float32)

    Source: Steihaug, SIAM Journal on Numerical Analysis 20, 1983, doi:10.1137/0720042; Nocedal and
    Yuan, "Combining trust region and line search techniques", Advances in Nonlinear Programming,
    1998; Martens, "Deep learning via Hessian-free optimization", ICML 2010; Marquardt, SIAM Journal
    on Applied Mathematics 11, 1963, doi:10.1137/0111030; Dembo and Steihaug, "Truncated-Newton
    algorithms for large-scale unconstrained optimization", Mathematical Programming 26, 1983,
    doi:10.1007/BF02592055.
    """
    optax = import_extra("optax")
    if not callable(loss):
        raise ArgumentTypeError(f"loss: expected a function, found {describe(loss)}")
    if curvature is not None:
        check_callable("curvature", curvature)
    check_tol(tol)
    if not istracer(maxiter) and check_integer("maxiter", maxiter) < 1:
        raise ArgumentError(f"maxiter: expected 1 or more, found {maxiter}")
    if not istracer(check_scalar("damping", damping)) and not damping >= 0:
        raise ArgumentError(f"damping: expected 0 or more, found {damping}")
    if re is not None:
        check_restructure(re)
    make = curvature or (lambda flat, *args: hessian(loss, flat, *args))

    def init(params: Any) -> NewtonState:
        labels = _labels(re, params)
        scalar = jnp.asarray(damping).astype((params if labels is None else labels).dtype)
        zero, none = jnp.zeros_like(scalar), jnp.zeros((), int)
        return NewtonState(
            scalar,
            jnp.ones_like(scalar),
            none,
            jnp.array(False),
            zero,
            scalar,
            jnp.full_like(scalar, jnp.inf),
        )

    def update(
        gradient: Any,
        state: NewtonState,
        params: Any = None,
        *more: Any,
        args: Any = (),
        value: Any = None,
        **_: Any,
    ) -> tuple[Any, NewtonState]:
        if params is None:
            raise ArgumentTypeError("newton: pass the parameters, as in update(g, state, params)")
        if not isinstance(state, NewtonState):
            raise unexpected("state", "the NewtonState that init returned", state)
        labels = _labels(re, params)
        flat = params if labels is None else labels.ravel(params)
        slope = gradient if labels is None else labels.ravel_grad(gradient).astype(flat.dtype)
        if isabstract(slope) or np.shape(slope) != flat.shape:
            raise VectorError(
                f"newton: expected a gradient of {len(flat)} elements, found {describe(slope)}"
            )
        slope = as_columns(slope, len(flat), flat.dtype)
        args = more or (args if isinstance(args, tuple) else (args,))
        value = None if value is None else check_scalar("value", value)
        function, op = bind(loss, *args), make(flat, *args)
        require_operator(op, "curvature")
        step, state = host.run(
            _step, op, function, flat, slope, value, state, damping, tol, maxiter
        )
        return (step if labels is None else _as_updates(labels, step, params)), state

    return optax.GradientTransformationExtraArgs(init, update)


def _labels(re: Restructure | None, params: Any) -> Restructure | None:
    """Return `re` where it is needed: not for parameters that are a vector already."""
    if re is not None and not (isarray(params) and params.shape == (re.size,)):
        return re
    if not isarray(params):
        raise ArgumentTypeError(
            f"newton: expected a vector of parameters, found {describe(params)}; for a model pass "
            "re=, the second result of destructure, and a loss of the vector"
        )
    as_point(params, None)  # raises for anything but a vector
    return None


@jax.jit
def _step(
    op: Operator,
    loss: Call,
    flat: jax.Array,
    slope: jax.Array,
    value: Any,
    state: NewtonState,
    given: Any,
    tol: Any,
    maxiter: Any,
) -> tuple[jax.Array, NewtonState]:
    linear, dtype = op.linear(), flat.dtype
    norm, given = jnp.linalg.norm(slope), jnp.asarray(given).astype(dtype)
    damping = jnp.where(given == state.given, state.damping, given)
    first = jnp.where(state.norm > 0, state.norm, norm)
    goal = norm * (_forcing(norm, first) if tol is None else jnp.asarray(tol).astype(dtype))
    end = steihaug(lambda v: linear(v) + damping * v, slope, state.radius, goal, maxiter)
    before = loss(flat) if value is None else jnp.asarray(value).astype(dtype)
    rounding = (8 * jnp.finfo(dtype).eps * jnp.abs(before)).astype(dtype)
    descent = jnp.vdot(slope, end.x)

    def change(t: jax.Array) -> jax.Array:
        difference: jax.Array = loss(flat + t * end.x) - before
        return difference.astype(dtype)

    t, actual, _ = shorten(change, descent, rounding)
    rejected = ~(actual <= rounding)
    curved = -descent - jnp.vdot(end.r, end.x) - damping * jnp.vdot(end.x, end.x)
    predicted = t * (descent + t * curved / 2)
    ratio = actual / jnp.where(predicted == 0, 1, predicted)
    ratio = jnp.where(jnp.abs(actual) <= rounding, 1, ratio).astype(dtype)
    worse = rejected | ~(ratio >= 0.25) | (t < 1)
    damping = jnp.where(worse, 4 * damping, jnp.where(ratio > 0.75, damping / 4, damping))
    length = t * jnp.linalg.norm(end.x)
    radius = jnp.where((ratio > 0.75) & end.bounded, 2 * length, state.radius)
    radius = jnp.where(worse, jnp.where(t < 1, length, length / 4), radius)
    step = jnp.where(rejected, 0, t * end.x)
    return step, NewtonState(damping, ratio, end.steps, rejected, first, given, radius)


def _forcing(norm: jax.Array, first: jax.Array) -> jax.Array:
    """Return the relative residual to reach: it falls with the gradient, whatever its scale."""
    return jnp.minimum(0.5, jnp.sqrt(norm / jnp.where(first > 0, first, 1)))


def _as_updates(re: Restructure, step: jax.Array, params: Any) -> Any:
    """Return a step as a tree of the parameters' structure, zero for other arrays."""
    layout, walked = re.layout, walk(params)

    def value(path: str, x: Any) -> Any:
        if path not in layout.by_path:
            return jnp.zeros_like(x) if isarray(x) else x
        return step[layout.slices[layout.by_path[path]]].reshape(x.shape).astype(x.dtype)

    return walked.rebuild([value(slot.path, slot.value) for slot in walked.slots])
