"""Outputs that are probabilities where logits are expected."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jtree
from jtree import curvature as C  # noqa: N812

from .problems import X, Y, close, cross_entropy, mse, normal

V = normal(9).astype(jnp.float32)
INPUTS = jnp.asarray(X, jnp.float32)


def logits(v: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.tanh(x) @ v.reshape(3, 3)


def probabilities(v: jax.Array, x: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits(v, x))


def by_hand(v: jax.Array, x: jax.Array) -> jax.Array:
    z = jnp.exp(logits(v, x))
    return z / jnp.exp(logits(v, x)).sum(-1, keepdims=True)


def by_example(v: jax.Array, x: jax.Array) -> jax.Array:
    return jax.vmap(lambda row: jnp.exp(jax.nn.log_softmax(logits(v, row[None])))[0])(x)


def log_probabilities(v: jax.Array, x: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(logits(v, x))


def nll(p: jax.Array, y: jax.Array) -> jax.Array:
    return -jnp.log(jnp.take_along_axis(p, y[:, None], 1)).mean()


def linear_nll(log_p: jax.Array, y: jax.Array) -> jax.Array:
    return -jnp.take_along_axis(log_p, y[:, None], 1).mean()


@pytest.mark.parametrize("apply", [probabilities, by_hand, by_example])
def test_softmax_of_probabilities_warns(apply: Any) -> None:
    message = (
        f"^{apply.__name__}: the outputs are probabilities p, but {{}} takes logits, and applies "
        r"softmax to them once more; return the logits, or log\(p\)$"
    )
    with pytest.warns(UserWarning, match=message.format("cross_entropy")):
        C.ggn(apply, cross_entropy, V, INPUTS, Y)
    with pytest.warns(UserWarning, match=message.format("categorical exact")):
        C.fisher(apply, V, INPUTS)


def test_a_sigmoid_before_a_bernoulli_likelihood_warns() -> None:
    def sigmoids(v: jax.Array, x: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(logits(v, x))

    message = r"applies a sigmoid to them once more; return the logits, or log\(p / \(1 - p\)\)$"
    with pytest.warns(UserWarning, match=message):
        C.fisher(sigmoids, V, INPUTS, likelihood="bernoulli")


def one_hot(v: jax.Array, x: jax.Array) -> jax.Array:
    return x * v[:3]


def same_rows(v: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.exp(0 * logits(v, x)) / 3


def test_what_is_right_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for apply, loss in [
            (logits, cross_entropy),
            (probabilities, nll),
            (probabilities, mse),
            (log_probabilities, cross_entropy),
            (one_hot, cross_entropy),
            (same_rows, cross_entropy),
        ]:
            y = Y if loss is not mse else jnp.eye(3)[Y]
            C.ggn(apply, loss, V, jnp.eye(7, 3) if apply is one_hot else INPUTS, y)
        C.fisher(logits, V, INPUTS)
        jax.jit(lambda v: C.fisher(probabilities, v, INPUTS) @ v)(V)  # traced: not looked at


def test_log_probabilities_are_logits() -> None:
    ours = C.ggn(log_probabilities, cross_entropy, V, INPUTS, Y).dense()
    close(ours, C.ggn(logits, cross_entropy, V, INPUTS, Y).dense(), 1e-6)


def test_a_loss_that_is_linear_in_the_outputs() -> None:
    message = (
        "linear_nll: the loss is linear in the outputs, so its Hessian is zero, and so is the "
        "matrix; if the outputs are log-probabilities, return logits, and apply log_softmax in the "
        "loss"
    )
    with pytest.raises(jtree.ArgumentError) as caught:
        C.ggn(log_probabilities, linear_nll, V, INPUTS, Y)
    assert str(caught.value) == message
