"""Train over the flat vector, as an optimiser or a Hessian needs it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jtree

from ._digits import LabelledImages
from ._network import Network

DECAY = 1e-3
SOLVER = optax.lbfgs()


def cross_entropy(network: Network, split: LabelledImages) -> jax.Array:
    """Return the mean cross-entropy of the logits of a network."""
    losses = optax.softmax_cross_entropy_with_integer_labels(network(split.images), split.labels)
    return jnp.mean(losses)


def loss(flat: jax.Array, re: jtree.Restructure, split: LabelledImages) -> jax.Array:
    """Return the cross-entropy, with weight decay, as a function of one vector."""
    return cross_entropy(re(flat), split) + DECAY / 2 * jnp.vdot(flat, flat)


@jax.jit
def accuracy(network: Network, split: LabelledImages) -> jax.Array:
    """Return the fraction of images that a network classifies correctly."""
    return jnp.mean(network(split.images).argmax(axis=-1) == split.labels)


def train(network: Network, split: LabelledImages, steps: Iterable[int]) -> tuple[Network, float]:
    """Return the network after some steps of L-BFGS, and its loss before the last one."""
    flat, re = jtree.destructure(network)
    state, value = _strong(SOLVER.init(flat)), jnp.inf
    for _ in steps:
        flat, state, value = _step(flat, state, re, split)
        jax.block_until_ready(value)  # so that the progress bar waits for the work
    return re(flat), float(value)


def _strong(state: Any) -> Any:
    """Return a state without weak types, with which the first step would compile twice."""
    return jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state)


@jax.jit
def _step(
    flat: jax.Array, state: Any, re: jtree.Restructure, split: LabelledImages
) -> tuple[jax.Array, Any, jax.Array]:
    objective = partial(loss, re=re, split=split)
    value, grad = optax.value_and_grad_from_state(objective)(flat, state=state)
    updates, state = SOLVER.update(grad, state, flat, value=value, grad=grad, value_fn=objective)
    return optax.apply_updates(flat, updates), state, value
