"""Gauss-Newton matrices and Fisher information."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree import curvature as C  # noqa: N812
from jtree.curvature._operators import ggn as gauss_newton

from .problems import (
    KEY,
    TARGET,
    X,
    Y,
    apply,
    close,
    cross_entropy,
    forward,
    loss,
    mse,
    network_ggn,
    normal,
    point,
    random,
    true_ggn,
)

pytestmark = pytest.mark.usefixtures("double")


def network_fisher(*args: Any, **options: Any) -> C.Operator:
    flat, re = point()
    return C.fisher(apply, flat, (re, X), *args, **options)


def test_gauss_newton_is_the_hessian_of_a_linear_model() -> None:
    op = C.ggn(lambda w, x: x @ w, mse, normal(3), X, normal(7))
    close(op.dense(), 2 * X.T @ X / 7)


@pytest.mark.parametrize("chunk", ["auto", 4])
def test_gauss_newton_by_examples_and_by_products(chunk: Any) -> None:
    close(network_ggn().dense(chunk), true_ggn())


def test_a_product_of_a_gauss_newton_matrix() -> None:
    v = normal(31)
    close(network_ggn() @ v, true_ggn() @ v)


def test_the_exact_fisher_is_the_gauss_newton_matrix_of_the_negative_log_likelihood() -> None:
    op = network_fisher(re=point()[1])
    close(op.dense(), true_ggn())
    close(op.dense(chunk=5), true_ggn())


@pytest.mark.parametrize(
    ("likelihood", "nll"),
    [
        ("bernoulli", lambda o, y: (jax.nn.softplus(o) - y * o).sum() / len(o)),
        ("gaussian", lambda o, y: ((o - y) ** 2).sum() / 2 / len(o)),
    ],
)
def test_the_fisher_of_other_likelihoods(likelihood: Any, nll: Any) -> None:
    w, x = normal(6), X[:, :2]
    outputs = lambda v, x: jnp.tanh(x @ v.reshape(2, 3))  # noqa: E731
    op = C.fisher(outputs, w, x, likelihood=likelihood)
    true = C.ggn(outputs, nll, w, x, jnp.ones((7, 3))).dense(chunk=4)
    close(op.dense(), true)
    close(op @ w, np.asarray(true) @ np.asarray(w))


def test_the_fisher_of_a_gaussian_in_mean_and_log_sigma() -> None:
    def pair(v: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return v[0] + 0 * x, v[1] + 0 * x

    flat, x = jnp.array([3.0, jnp.log(2.0)]), jnp.ones(5)
    exact = C.fisher(pair, flat, x, likelihood="gaussian")
    close(exact.dense(), np.diag([1 / 4, 2.0]))
    options: Any = {"likelihood": "gaussian", "kind": "mc", "samples": 20_000, "key": KEY}
    close(C.fisher(pair, flat, x, **options).dense(), exact.dense(), 0.1)


def test_the_empirical_fisher_sums_squares_of_gradients_not_the_square_of_their_sum() -> None:
    flat, re = point()
    op = network_fisher(Y, kind="empirical", re=re)
    one = lambda x, y: jax.grad(loss)(flat, re, x[None], y[None])  # noqa: E731
    gradients = np.asarray(jax.jit(jax.vmap(one))(jnp.asarray(X), jnp.asarray(Y)))
    close(op.dense(), gradients.T @ gradients / 7)
    close(op.dense(chunk=4), gradients.T @ gradients / 7)
    mean = gradients.mean(0)
    assert abs(np.asarray(op.dense()) - np.outer(mean, mean)).max() > 0.01


def test_the_sampled_fisher_is_one_matrix_per_key_and_converges_to_the_exact_one() -> None:
    few: Any = {"kind": "mc", "key": KEY, "samples": 3}
    close(network_fisher(**few).dense(), network_fisher(**few).dense(chunk=4))
    close(network_fisher(kind="mc", key=KEY, samples=20_000).dense(chunk=8), true_ggn(), 0.02)


def test_relu_networks_have_equal_diagonal_blocks_in_each_layer() -> None:
    flat, re = point()
    relu = lambda v, inputs: forward(inputs[0](v), inputs[1], jax.nn.relu)  # noqa: E731
    full = lambda v, re, x, y: cross_entropy(relu(v, (re, x)), y)  # noqa: E731
    hessian = C.hessian(full, flat, re, X, Y, re=re)
    ggn = C.ggn(relu, cross_entropy, flat, (re, X), Y, re=re)
    for layer in ("layer0", "layer1"):
        close(hessian.block(f"{layer}/**"), ggn.block(f"{layer}/**"))


class Pair(NamedTuple):
    mean: Any
    log_sigma: Any


def test_a_gaussian_whose_pair_is_a_named_tuple() -> None:
    flat, x = jnp.array([3.0, jnp.log(2.0)]), jnp.ones((5, 1))
    op = C.fisher(lambda v, x: Pair(v[0] * x, v[1] * x), flat, x, likelihood="gaussian")
    close(op.dense(), np.diag([0.25, 2.0]))


def test_logits_in_a_dict() -> None:
    logits = lambda v, x: x @ v.reshape(3, 2)  # noqa: E731
    expected = C.fisher(logits, normal(6), X).dense()
    close(C.fisher(lambda v, x: {"logits": logits(v, x)}, normal(6), X).dense(), expected)


def test_an_input_with_as_many_rows_as_there_are_examples_by_chance() -> None:
    x, mixing = normal(3, 3), normal(3, 3, seed=1)
    product = lambda v, inputs: inputs[0] @ inputs[1] @ v  # noqa: E731
    op = C.ggn(product, lambda o, y: ((o - y) ** 2).sum() / 2, normal(3), (x, mixing), jnp.ones(3))
    true = np.asarray((x @ mixing).T @ x @ mixing)
    close(op.dense(), true)
    close(C.diagonal(op), np.diag(true))


def test_examples_that_depend_on_each_other() -> None:
    def normalized(v: jax.Array, x: jax.Array) -> jax.Array:
        h = x * v
        return (h - h.mean(0)) / (1 + h.std(0))

    weighted = lambda outputs, y: (outputs**2 * y).sum()  # noqa: E731
    op = C.ggn(normalized, weighted, normal(4), random(7, 4, seed=3), 1.0)
    true = op.dense(chunk=2)
    close(C.diagonal(op), np.diag(true))
    close(op.dense(), true)
    assert bool(jnp.isnan(jax.jit(C.diagonal)(op)).all())


def test_a_loss_that_compares_examples() -> None:
    variance = lambda outputs, y: (outputs[:, None] - outputs - y).var()  # noqa: E731
    op = C.ggn(lambda v, x: x @ v, variance, normal(3), X, 1.0)
    close(C.diagonal(op), np.diag(op.dense(chunk=2)))


@pytest.mark.parametrize(("outputs", "by_examples"), [(1, True), (16, False)])
def test_a_matrix_is_computed_in_the_cheaper_way(outputs: int, by_examples: bool) -> None:
    flat, re = jtree.destructure({"a": normal(8, 8), "b": normal(8, outputs)})
    model = lambda v, x: jnp.tanh(x @ re(v)["a"]) @ re(v)["b"]  # noqa: E731
    op = C.ggn(model, mse, flat, normal(20, 8), normal(20, outputs), re=re)
    assert gauss_newton._is_cheaper(op, budget=None) is by_examples
    assert not gauss_newton._is_cheaper(op, budget=1000)


def test_mixed_precision() -> None:
    v = jnp.ones(3, jnp.bfloat16)
    op = C.ggn(lambda v, x: x @ v.astype(x.dtype), lambda o, y: ((o - y) ** 2).mean(), v, X, TARGET)
    assert op.dense().dtype == C.diagonal(op).dtype == v.dtype
