"""Newton's method as an optax transformation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy.optimize import minimize

import jtree
from jtree import curvature as C  # noqa: N812
from jtree.curvature._algorithms.trust_region import steihaug

from .problems import TARGET, X, close, fit, form, matrix_of, normal, square

pytestmark = pytest.mark.usefixtures("double")


def test_one_step_on_a_quadratic() -> None:
    matrix, v = jnp.asarray(matrix_of(*np.linspace(1, 9, 10))), normal(10)
    opt = C.newton(form, tol=1e-6)
    updates, state = opt.update(jax.grad(form)(v, matrix), opt.init(v), v, args=(matrix,))
    close(optax.apply_updates(v, updates), np.zeros(10), 1e-5)
    assert float(state.ratio) == pytest.approx(1, abs=1e-6)
    assert float(state.damping) == 0
    assert int(state.products) <= 11


def test_rosenbrock_never_increases() -> None:
    opt, v = C.newton(rosenbrock), jnp.full(4, -1.2)
    step, state, values = jax.jit(opt.update), opt.init(v), [float(rosenbrock(v))]
    value_and_grad = jax.jit(jax.value_and_grad(rosenbrock))
    for _ in range(80):
        updates, state = step(value_and_grad(v)[1], state, v)
        v = optax.apply_updates(v, updates)
        values.append(float(value_and_grad(v)[0]))
    assert values == sorted(values, reverse=True)
    close(v, np.ones(4), 1e-6)


def test_models_and_a_fisher() -> None:
    model = {"w": normal(3), "b": jnp.zeros(())}
    _, re = jtree.destructure(model)
    apply = lambda v, x: x @ re(v)["w"] + re(v)["b"]  # noqa: E731
    loss = lambda v, x, y: ((apply(v, x) - y) ** 2).mean() / 2  # noqa: E731
    natural = lambda v, x, _: C.fisher(apply, v, x, likelihood="gaussian")  # noqa: E731
    opt = optax.chain(C.newton(loss, re=re, curvature=natural, tol=1e-6), optax.scale(1.0))
    grads = jax.grad(lambda m: loss(re.ravel(m), X, TARGET))(model)
    updates, _ = opt.update(grads, opt.init(model), model, args=(X, TARGET))
    minimum = re.ravel(optax.apply_updates(model, updates))
    close(jax.grad(loss)(minimum, X, TARGET), np.zeros(4), 1e-5)


def test_a_vector_with_the_labels_of_its_model() -> None:
    flat, re = jtree.destructure({"w": jnp.ones(2), "b": jnp.ones(())})
    loss = lambda v: (jnp.array([1.0, 2.0, 3.0]) * (v - 4) ** 2).sum()  # noqa: E731
    opt = C.newton(loss, re=re, tol=1e-6)
    updates, _ = jax.jit(opt.update)(jax.grad(loss)(flat), opt.init(flat), flat)
    close(optax.apply_updates(flat, updates), [4, 4, 4], 1e-5)


def test_arguments_are_passed_as_the_loss_takes_them() -> None:
    v = normal(3)
    opt, g = C.newton(fit), jax.grad(fit)(v, X, TARGET)
    updates, _ = opt.update(g, opt.init(v), v, X, TARGET)
    expected, _ = opt.update(g, opt.init(v), v, args=(X, TARGET))
    close(updates, expected)


def test_the_state_keeps_its_types() -> None:
    opt, v = C.newton(square), normal(4)
    step, state = jax.jit(opt.update), opt.init(v)
    assert not any(x.weak_type for x in state)
    for _ in range(3):
        _, after = step(2 * v, state, v)
        assert [x.aval for x in after] == [x.aval for x in state]
        state = after
    assert step._cache_size() == 1
    with jax.disable_jit():
        _, after = opt.update(2 * v, opt.init(v), v)
    assert [x.aval for x in after] == [x.aval for x in state]


def rosenbrock(v: jax.Array) -> jax.Array:
    return (100 * (v[1:] - v[:-1] ** 2) ** 2 + (1 - v[:-1]) ** 2).sum()


def descend(opt: Any, v: Any, loss: Any, steps: int, **options: Any) -> tuple[Any, Any]:
    """Return the parameters and the state after some steps."""
    state = opt.init(v)
    value_and_grad = jax.value_and_grad(loss)

    @jax.jit
    def step(v: Any, state: Any) -> Any:
        value, gradient = value_and_grad(v)
        extra = {"value": value, "grad": gradient} if options else {}
        updates, state = opt.update(gradient, state, v, **extra, **options)
        return optax.apply_updates(v, updates), state

    for _ in range(steps):
        v, state = step(v, state)
    return v, state


@pytest.mark.parametrize("scale", [1e-12, pytest.param(1e12, marks=pytest.mark.slow)])
def test_a_loose_tolerance_at_first_whatever_the_scale(scale: float) -> None:
    matrix, v = jnp.asarray(matrix_of(*np.geomspace(1e-3, 1, 12))), normal(12)
    loss = lambda v: form(v, scale * matrix) + scale * (v**4).sum()  # noqa: E731
    opt, products = C.newton(loss), []
    state, step = opt.init(v), jax.jit(opt.update)
    for _ in range(14):
        updates, state = step(jax.grad(loss)(v), state, v)
        v, products = optax.apply_updates(v, updates), [*products, int(state.products)]
    assert products[0] <= 2 < products[-1]
    assert float(loss(v)) < 1e-9 * scale


def test_numbers_may_be_injected() -> None:
    static = ("loss", "re", "curvature")
    opt = optax.inject_hyperparams(C.newton, static_args=static)(square, damping=2.0, tol=1e-6)
    v = jnp.ones(3)
    updates, state = jax.jit(opt.update)(2 * v, opt.init(v), v)
    close(updates, -0.5 * v)  # 2 / (2 + 2)
    state.hyperparams["damping"] = jnp.asarray(6.0)
    updates, state = jax.jit(opt.update)(2 * v, state, v)
    close(updates, -0.25 * v)  # 2 / (2 + 6): it replaces the adapted damping
    schedule = optax.inject_hyperparams(C.newton, static_args=static)(
        square, damping=optax.linear_schedule(2.0, 6.0, 1), tol=1e-6
    )
    state = schedule.init(v)
    for expected in (-0.5, -0.25):
        updates, state = schedule.update(2 * v, state, v)
        close(updates, expected * v)


@pytest.mark.parametrize(
    "chained",
    [
        optax.scale_by_backtracking_linesearch(max_backtracking_steps=10),
        optax.scale_by_zoom_linesearch(max_linesearch_steps=10),
        optax.inject_hyperparams(optax.scale_by_learning_rate)(0.9, flip_sign=False),
    ],
    ids=["backtracking", "zoom", "learning rate"],
)
def test_line_searches(chained: Any) -> None:
    opt = optax.chain(C.newton(rosenbrock), chained)
    v, _ = descend(opt, jnp.full(3, -1.2), rosenbrock, 40, value_fn=rosenbrock)
    close(v, np.ones(3), 1e-5)


def test_none_and_other_leaves_beside_parameters() -> None:
    model = {"w": normal(3), "b": None, "name": None, "steps": jnp.array(3), "c": jnp.zeros(())}
    flat, re = jtree.destructure(model)
    loss = lambda v: ((re(v)["w"] - 4) ** 2).sum() + (re(v)["c"] - 2) ** 2  # noqa: E731
    opt = C.newton(loss, re=re, tol=1e-6)
    gradient = {**re(jax.grad(loss)(flat)), "steps": None}
    updates, _ = opt.update(gradient, opt.init(model), model)
    after = optax.apply_updates(model, updates)
    assert after["b"] is None
    assert after["name"] is None
    assert int(after["steps"]) == 3
    close(re.ravel(after), [2, 4, 4, 4], 1e-6)


def test_an_optimizer_of_nnx_trains() -> None:
    class Model(nnx.Module):
        def __init__(self) -> None:
            self.first = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
            self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=nnx.Rngs(0))
            self.last = nnx.Linear(4, 1, rngs=nnx.Rngs(1))

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.last(jnp.tanh(self.norm(self.first(x))))[:, 0]

    model, x, y = Model(), jnp.asarray(X, jnp.float32), jnp.asarray(TARGET, jnp.float32) / 7
    _, re = jtree.destructure(model)
    loss = lambda flat, x, y: ((re(flat)(x) - y) ** 2).mean()  # noqa: E731
    optimizer = nnx.Optimizer(model, C.newton(loss, re=re), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any) -> jax.Array:
        value, grads = nnx.value_and_grad(lambda m: ((m(x) - y) ** 2).mean())(model)
        optimizer.update(model, grads, args=(x, y))
        return value

    values = [float(step(model, optimizer)) for _ in range(25)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 1e-3 * values[0]


def test_a_failed_step_is_shortened_without_products() -> None:
    loss, v = lambda v: jnp.sqrt(1 + v @ v), jnp.array([3.0])  # a full step goes to -27
    opt = C.newton(loss, tol=1e-6)
    updates, state = opt.update(jax.grad(loss)(v), opt.init(v), v)
    assert int(state.products) == 1
    assert not state.rejected
    assert float(loss(v + updates)) < float(loss(v))
    close(state.radius, jnp.abs(updates[0]))
    v, _ = descend(opt, v, loss, 8)
    close(v, [0.0], 1e-6)


def test_negative_curvature_is_followed_to_the_radius() -> None:
    saddle = lambda v: v[0] ** 2 - v[1] ** 2 / 2 + v[1] ** 4 / 4  # noqa: E731
    v, _ = descend(C.newton(saddle), jnp.array([1.0, 1e-2]), saddle, 20)
    close(v, [0.0, 1.0], 1e-6)
    mv, gradient = (lambda v: jnp.array([2.0, -1.0]) * v), jnp.array([1.0, 1.0])
    end = steihaug(mv, gradient, jnp.asarray(0.5), jnp.asarray(1e-9), 10)
    close(jnp.linalg.norm(end.x), 0.5)
    close(end.r, -gradient - mv(end.x))
    assert bool(end.bounded)


def test_fewer_products_than_a_trust_region_of_scipy() -> None:
    v, count = jnp.tile(jnp.array([-1.2, 1.0]), 10), []
    gradient = jax.jit(jax.grad(rosenbrock))
    hvp = jax.jit(lambda v, p: jax.jvp(jax.grad(rosenbrock), (v,), (p,))[1])
    hessp = lambda v, p: (count.append(1), np.asarray(hvp(v, p)))[1]  # noqa: E731
    minimize(rosenbrock, v, jac=gradient, hessp=hessp, method="trust-ncg")
    opt, products = C.newton(rosenbrock), 0
    state, step = opt.init(v), jax.jit(opt.update)
    while float(rosenbrock(v)) > 1e-9:
        updates, state = step(gradient(v), state, v)
        v, products = optax.apply_updates(v, updates), products + int(state.products)
    assert products < len(count)


def test_a_model_without_labels_is_an_error() -> None:
    message = (
        "newton: expected a vector of parameters, found a dict; for a model pass re=, the second "
        "result of destructure, and a loss of the vector"
    )
    with pytest.raises(jtree.ArgumentTypeError, match=f"^{message}$"):
        C.newton(square).init({"w": jnp.ones(2)})
