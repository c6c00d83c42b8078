"""Hessians: exact cases, and every kind of model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import curvature as C  # noqa: N812

from .problems import (
    KEY,
    TARGET,
    X,
    Y,
    close,
    cross_entropy,
    fit,
    forward,
    loss,
    mse,
    network,
    normal,
    point,
    quadratic,
    random,
    softmax,
    true_hessian,
)

pytestmark = pytest.mark.usefixtures("double")


def test_logistic_regression() -> None:
    w, y = normal(3), jnp.asarray(Y > 0, float)
    nll = lambda w, x, y: (jax.nn.softplus(x @ w) - y * (x @ w)).sum()  # noqa: E731
    p = 1 / (1 + np.exp(-X @ np.asarray(w)))
    close(C.hessian(nll, w, X, y).dense(), X.T @ np.diag(p * (1 - p)) @ X)


def test_softmax_regression_is_a_sum_of_kronecker_products() -> None:
    w = normal(3, 3)
    flat, re = jtree.destructure(w)
    op = C.hessian(lambda v, re, x, y: cross_entropy(x @ re(v), y), flat, re, X, Y, re=re)
    blocks = [np.diag(p) - np.outer(p, p) for p in softmax(X @ np.asarray(w))]
    expected = sum(np.kron(np.outer(x, x), b) for x, b in zip(X, blocks, strict=True)) / len(X)
    close(op.dense(), expected)


def test_linear_regression() -> None:
    op = C.hessian(lambda w, x, y: mse(x @ w, y), normal(3), X, normal(7))
    close(op.dense(), 2 * X.T @ X / 7)


def test_a_quadratic_form_has_its_symmetric_part() -> None:
    matrix = random(6, 6)
    op = C.hessian(lambda v, a: v @ a @ v / 2, normal(6), matrix)
    close(op.dense(), (matrix + matrix.T) / 2)


def test_rosenbrock_in_ten_dimensions() -> None:
    def f(v: jax.Array) -> jax.Array:
        return (100 * (v[1:] - v[:-1] ** 2) ** 2 + (1 - v[:-1]) ** 2).sum()

    v = random(10)
    middle = np.full(10, 202.0)
    middle[0], middle[-1] = 2.0, 200.0
    expected = np.diag(middle + np.append(1200 * v[:-1] ** 2 - 400 * v[1:], 0))
    beside = np.diag(-400 * v[:-1], 1)
    close(C.hessian(f, jnp.asarray(v)).dense(), expected + beside + beside.T)


def test_two_linear_layers_have_a_saddle_at_zero_of_known_inertia() -> None:
    flat, re = jtree.destructure({"a": jnp.zeros((2, 2)), "b": jnp.zeros((2, 2))})
    target = np.diag([2.0, 1.0])

    def f(v: jax.Array, re: Any, target: jax.Array) -> jax.Array:
        return ((re(v)["b"] @ re(v)["a"] - target) ** 2).sum() / 2

    op = C.hessian(f, flat, re, target, re=re)
    close(np.linalg.eigvalsh(op.dense()), [-2, -2, -1, -1, 1, 1, 2, 2])
    assert C.inertia(op) == (4, 4, 0)


def test_a_tied_autoencoder_has_twice_the_parameter_once() -> None:
    w = normal(3, 2)
    flat, re = jtree.destructure({"dec": w, "enc": w}, ties=[("enc", "dec")])

    def f(v: jax.Array, re: Any, x: jax.Array) -> jax.Array:
        m = re(v)
        return mse(jnp.tanh(x @ m["enc"]) @ m["dec"].T, x)

    op = C.hessian(f, flat, re, X, re=re)
    direct = lambda v: mse(jnp.tanh(X @ v.reshape(3, 2)) @ v.reshape(3, 2).T, X)  # noqa: E731
    assert op.shape == (6, 6)
    close(op.dense(), jax.jit(jax.hessian(direct))(w.reshape(-1)))
    close(op.block("enc", "dec"), op.dense())


def test_euler_relation_of_relu_networks_without_biases() -> None:
    flat, re = jtree.destructure([abs(normal(*shape)) for shape in ((3, 4), (4, 4), (4, 1))])

    def f(v: jax.Array, re: Any, x: jax.Array) -> jax.Array:
        for w in re(v):
            x = jax.nn.relu(x @ w)
        return x.sum()

    op = C.hessian(f, flat, re, np.abs(X), re=re)
    value = f(flat, re, jnp.asarray(np.abs(X)))
    assert value > 0
    close(flat @ (op @ flat), 3 * 2 * value)


def test_the_order_in_the_vector_may_differ_from_the_order_of_use() -> None:
    names = {"layer0": "c", "layer1": "a", "layer2": "b"}
    model = {names[k]: v for k, v in network((2, 3, 2, 3)).items()}
    flat, re = jtree.destructure(model)

    def f(v: jax.Array, re: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        m = re(v)
        return cross_entropy(forward({k: m[k] for k in "cab"}, x), y)

    op = C.hessian(f, flat, re, X[:, :2], Y, re=re)
    true = jax.jit(jax.hessian(f))(flat, re, jnp.asarray(X[:, :2]), jnp.asarray(Y))
    close(op.dense(3), true)
    close(C.diagonal(op), np.diag(true))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jitted"])
def test_a_loss_may_use_the_vector_in_other_ways(wrap: Callable[[Any], Any]) -> None:
    flat, re = point()
    x = X[:, :3]

    @wrap
    def f(v: jax.Array, x: jax.Array) -> jax.Array:
        weights = v[4:16].reshape(4, 3)
        return loss(v, re, x, jnp.asarray(Y)) + (v**4).sum() + (weights @ x.T).std() * v[-1]

    op = C.hessian(f, flat, x, re=re)
    true = jax.jit(jax.hessian(f))(flat, jnp.asarray(x))
    close(op.dense(), true)
    close(op.restrict("layer1/w").dense(), true[re["layer1/w"], re["layer1/w"]])


def test_one_product() -> None:
    flat, re = point()
    v = normal(31, 3)
    close(C.hvp(loss, flat, v[:, 0], re, X, Y), true_hessian() @ v[:, 0])
    close(C.hvp(loss, flat, v, re, X, Y), true_hessian() @ v)


def test_integers_and_python_numbers_are_not_parameters() -> None:
    flat, re = jtree.destructure({"w": normal(2), "step": jnp.array(3), "rate": 0.1})
    assert C.hessian(lambda v: (v**2).sum(), flat, re=re).re.paths == ("w",)


def test_scalars_that_the_loss_uses_are_parameters() -> None:
    flat, re = jtree.destructure({"rate": jnp.array(0.1), "w": jnp.ones(2)})
    assert C.hessian(lambda v: re(v)["rate"] * re(v)["w"].sum(), flat, re=re).size == 3


def test_the_number_of_examples_is_the_common_length_of_the_data() -> None:
    torch = pytest.importorskip("torch")
    v, weights = normal(3), {"a": normal(2), "b": normal(5)}
    assert C.hessian(fit, v, X, TARGET).examples == 7
    assert C.hessian(fit, v, torch.tensor(X), torch.tensor(TARGET)).examples == 7
    assert quadratic(v).examples is None
    several = C.hessian(lambda v, x, y: v @ x.sum(0) + y.sum(), v, X, X[:2])
    assert several.examples is None
    model = jax.tree_util.Partial(lambda m, x: x + m["a"].sum(), weights)
    called = C.hessian(lambda v, model, x: (model(x) @ v).sum(), v, model, X)
    assert called.examples == 7  # the arrays of a model are not data


def test_the_statistics_of_batch_norm_are_rebuilt_inside_the_loss() -> None:
    flat, re = jtree.destructure(nnx.BatchNorm(4, rngs=nnx.Rngs(0)))
    x = random(7, 4).astype(np.float32)
    op = C.hessian(lambda v: (re(v)(x) ** 3).sum(), flat, re=re)
    assert op.dense().shape == (8, 8)


# Models


class Net(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.hidden = nnx.Linear(3, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(2, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(self.drop(jnp.tanh(self.norm(self.hidden(x)))))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(3)(nn.BatchNorm(use_running_average=True)(nn.Dense(2)(x)))


def nnx_network() -> Any:
    model = Net()
    model.eval()
    return *jtree.destructure(model), lambda re, v, x: re(v)(x)


def linen_network() -> Any:
    variables = Linen().init(KEY, X[:1].astype(np.float32))
    flat, re = jtree.destructure(variables, where="params/**")
    return flat, re, lambda re, v, x: Linen().apply(re(v), x)


def equinox_network() -> Any:
    model = eqx.nn.MLP(3, 3, 2, 1, key=KEY, dtype=jnp.float32)
    return *jtree.destructure(model), lambda re, v, x: jax.vmap(re(v))(x)


def layers_network() -> Any:
    from jtree.layers import BatchNorm, Chain, Dense

    model = jtree.f32(Chain(Dense(3, 2, jnp.tanh, key=KEY), BatchNorm(2), Dense(2, 3, key=KEY)))
    return *jtree.destructure(model), lambda re, v, x: re(v)(x)


def mixed_dtypes() -> Any:
    model = {
        "low": jnp.ones((3, 4), jnp.bfloat16),
        "step": jnp.array(3),
        "w": jnp.ones((4, 3), jnp.float32),
        "act": jnp.tanh,
    }
    run = lambda m, x: m["act"](x @ m["low"].astype(x.dtype)) @ m["w"].astype(x.dtype)  # noqa: E731
    return *jtree.destructure(model), lambda re, v, x: run(re(v), x)


def frozen_leaves() -> Any:
    flat, re = jtree.destructure(jtree.f32(network((3, 2, 2, 3))), where=["layer0/**", "layer2/**"])
    return flat, re, lambda re, v, x: forward(re(v), x)


@pytest.mark.parametrize(
    "make",
    [
        nnx_network,
        mixed_dtypes,
        *(
            pytest.param(make, marks=pytest.mark.slow)
            for make in (linen_network, equinox_network, layers_network, frozen_leaves)
        ),
    ],
)
def test_every_kind_of_model(make: Callable[[], Any]) -> None:
    flat, re, run = make()
    x = jnp.asarray(X, jnp.float32)

    def f(v: jax.Array, re: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return cross_entropy(run(re, v, x), y)

    op = C.hessian(f, flat, re, x, Y, re=re)
    true = np.asarray(jax.jit(jax.hessian(lambda v: f(v, re, x, jnp.asarray(Y))))(flat))
    tol = 0.02 if make is mixed_dtypes else 1e-5
    assert op.dtype == flat.dtype == jnp.float32
    assert abs(true).max() > 1e-3
    close(op.dense(), true, tol)
    close(op @ flat, true @ np.asarray(flat), 10 * tol)
    last = re.paths[-1]
    close(op.restrict(last).dense(), true[re[last], re[last]], tol)
    ggn = C.ggn(lambda v, i: run(i[0], v, i[1]), cross_entropy, flat, (re, x), Y, re=re)
    close(C.diagonal(ggn), np.diag(ggn.dense(chunk=8)), tol)
