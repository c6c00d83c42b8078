"""The networks of the curvature benchmarks: perceptrons of given sizes, on random data."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jtree

# Layers of perceptrons of about 2,000, 5,000 and 10,000 parameters.
LAYERS = {2: (64, 24, 16, 10), 5: (64, 56, 22, 10), 10: (64, 96, 36, 10)}
BATCH = 256


class Problem(NamedTuple):
    """A vector of parameters, its labels, and data."""

    flat: jax.Array
    re: Any
    x: jax.Array
    y: jax.Array


def problem(layers: tuple[int, ...], batch: int = BATCH) -> Problem:
    rng = np.random.default_rng(0)
    model = {
        f"layer{i}": {
            "b": np.zeros(m, np.float32),
            "w": (rng.normal(size=(n, m)) / n**0.5).astype(np.float32),
        }
        for i, (n, m) in enumerate(pairwise(layers))
    }
    flat, re = jtree.destructure(model)
    x = jnp.asarray(rng.normal(size=(batch, layers[0])), jnp.float32)
    return Problem(flat, re, x, jnp.asarray(rng.integers(0, layers[-1], batch)))


def forward(layers: Any, x: Any, tanh: Any = jnp.tanh) -> Any:
    for i, layer in enumerate(layers):
        x = (tanh(x) if i else x) @ layer["w"] + layer["b"]
    return x


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    picked = jnp.take_along_axis(logits, y[:, None], 1)[:, 0]
    return (jax.nn.logsumexp(logits, -1) - picked).mean()


def apply(flat: jax.Array, inputs: Any) -> jax.Array:
    re, x = inputs
    return forward(re(flat).values(), x)


def loss(flat: jax.Array, re: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return cross_entropy(forward(re(flat).values(), x), y)
