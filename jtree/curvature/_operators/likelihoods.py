"""The likelihoods of `fisher`: distributions of labels, given a model's outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Likelihood(NamedTuple):
    """A distribution of `y` given a model's outputs.

    Attributes:
      root: `root(outputs, u)`, a square root B of the Fisher information, times u.
      transposed: `transposed(outputs, u)`, the transpose of B, times u.
      log: `log(outputs, y)`, the log-likelihood, summed.
      sample: `sample(key, outputs)`, one y for every example.
    """

    root: Callable[[Any, Any], Any]
    transposed: Callable[[Any, Any], Any]
    log: Callable[[Any, Any], jax.Array]
    sample: Callable[[Any, Any], Any]


def _categorical() -> Likelihood:
    def root(logits: jax.Array, u: jax.Array) -> jax.Array:
        p = jax.nn.softmax(logits)
        return jnp.sqrt(p) * u - p * (jnp.sqrt(p) * u).sum(-1, keepdims=True)

    def transposed(logits: jax.Array, u: jax.Array) -> jax.Array:
        p = jax.nn.softmax(logits)
        return jnp.sqrt(p) * (u - (p * u).sum(-1, keepdims=True))

    def log(logits: jax.Array, y: jax.Array) -> jax.Array:
        soft = y.shape == logits.shape
        target = y if soft else jax.nn.one_hot(y, logits.shape[-1], dtype=logits.dtype)
        return (jax.nn.log_softmax(logits) * target.astype(logits.dtype)).sum()

    return Likelihood(root, transposed, log, jax.random.categorical)


def _bernoulli() -> Likelihood:
    def root(logits: jax.Array, u: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(logits)
        return jnp.sqrt(p * (1 - p)) * u

    def log(logits: jax.Array, y: jax.Array) -> jax.Array:
        y = y.reshape(logits.shape).astype(logits.dtype)
        return (y * logits - jax.nn.softplus(logits)).sum()

    def sample(key: Any, logits: jax.Array) -> jax.Array:
        return jax.random.bernoulli(key, jax.nn.sigmoid(logits))

    return Likelihood(root, root, log, sample)


def _gaussian() -> Likelihood:
    """Means with unit variance, or a pair of means and log standard deviations."""

    def mean_and_log_sigma(outputs: Any) -> tuple[jax.Array, jax.Array]:
        if isinstance(outputs, tuple):
            return outputs[0], outputs[1]
        return outputs, jnp.zeros_like(outputs)

    def root(outputs: Any, u: Any) -> Any:
        if not isinstance(outputs, tuple):
            return u
        return u[0] * jnp.exp(-outputs[1]), u[1] * jnp.sqrt(2).astype(u[1].dtype)

    def log(outputs: Any, y: jax.Array) -> jax.Array:
        mean, log_sigma = mean_and_log_sigma(outputs)
        y = y.reshape(mean.shape).astype(mean.dtype)
        return (-0.5 * ((y - mean) * jnp.exp(-log_sigma)) ** 2 - log_sigma).sum()

    def sample(key: Any, outputs: Any) -> jax.Array:
        mean, log_sigma = mean_and_log_sigma(outputs)
        return mean + jnp.exp(log_sigma) * jax.random.normal(key, mean.shape, mean.dtype)

    return Likelihood(root, root, log, sample)


LIKELIHOODS = {
    "categorical": _categorical(),
    "bernoulli": _bernoulli(),
    "gaussian": _gaussian(),
}
