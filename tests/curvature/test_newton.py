"""Newton's method as an optax transformation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jtree
from jtree import curvature as C  # noqa: N812

from .problems import TARGET, X, close, fit, form, matrix_of, normal, square

pytestmark = pytest.mark.usefixtures("double")


def test_one_step_on_a_quadratic() -> None:
    matrix, v = jnp.asarray(matrix_of(*np.linspace(1, 9, 10))), normal(10)
    opt = C.newton(form)
    updates, state = opt.update(jax.grad(form)(v, matrix), opt.init(v), v, args=(matrix,))
    close(optax.apply_updates(v, updates), np.zeros(10), 1e-5)
    assert float(state.ratio) == pytest.approx(1, abs=1e-6)
    assert float(state.damping) == 0
    assert int(state.products) <= 11


def test_rosenbrock_never_increases() -> None:
    def f(v: jax.Array) -> jax.Array:
        return (100 * (v[1:] - v[:-1] ** 2) ** 2 + (1 - v[:-1]) ** 2).sum()

    opt, v = C.newton(f), jnp.full(4, -1.2)
    step, state, values = jax.jit(opt.update), opt.init(v), [float(f(v))]
    value_and_grad = jax.jit(jax.value_and_grad(f))
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
    opt = optax.chain(C.newton(loss, re=re, curvature=natural), optax.scale(1.0))
    grads = jax.grad(lambda m: loss(re.ravel(m), X, TARGET))(model)
    updates, _ = opt.update(grads, opt.init(model), model, args=(X, TARGET))
    minimum = re.ravel(optax.apply_updates(model, updates))
    close(jax.grad(loss)(minimum, X, TARGET), np.zeros(4), 1e-5)


def test_a_vector_with_the_labels_of_its_model() -> None:
    flat, re = jtree.destructure({"w": jnp.ones(2), "b": jnp.ones(())})
    loss = lambda v: (jnp.array([1.0, 2.0, 3.0]) * (v - 4) ** 2).sum()  # noqa: E731
    opt = C.newton(loss, re=re)
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
