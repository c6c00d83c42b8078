"""One small layer of every type, with an input for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jtree.layers import (
    GRU,
    LSTM,
    RNN,
    AdaptiveMaxPool,
    AdaptiveMeanPool,
    BatchNorm,
    Chain,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Embedding,
    GroupNorm,
    GRUCell,
    GRUv3,
    GRUv3Cell,
    InstanceNorm,
    LayerNorm,
    LSTMCell,
    MaxPool,
    MeanPool,
    MultiHeadAttention,
    Parallel,
    Recur,
    RNNCell,
    Scale,
    SkipConnection,
)

KEY = jax.random.key(0)
Example = tuple[Callable[[Any], Any], Any]  # a layer for a key, and its input


def rows(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(7), shape)


EXAMPLES: dict[str, Example] = {
    "AdaptiveMaxPool": (lambda _: AdaptiveMaxPool((2, 1)), rows(1, 5, 4, 2)),
    "AdaptiveMeanPool": (lambda _: AdaptiveMeanPool(2), rows(1, 5, 2)),
    "BatchNorm": (lambda _: BatchNorm(3, jnp.tanh), rows(4, 3)),
    "Chain": (lambda key: Chain(Dense(2, 3, key=key), jnp.tanh), rows(4, 2)),
    "Conv": (lambda key: Conv((2, 2), 4, 6, key=key, groups=2, pad="SAME"), rows(2, 3, 3, 4)),
    "Dense": (lambda key: Dense(2, 3, jnp.tanh, key=key), rows(4, 2)),
    "Dropout": (lambda _: Dropout(0.5, dims=1), rows(4, 2)),
    "MaxPool": (lambda _: MaxPool((2, 2)), rows(1, 4, 4, 2)),
    "MeanPool": (lambda _: MeanPool((2,), stride=1, pad=1), rows(1, 4, 2)),
    "Parallel": (lambda key: Parallel(jnp.add, a=Dense(2, 2, key=key), b=jnp.sin), rows(4, 2)),
    "SkipConnection": (lambda key: SkipConnection(Dense(2, 2, key=key), jnp.add), rows(4, 2)),
    "ConvTranspose": (
        lambda key: ConvTranspose((2, 3), 4, 6, key=key, groups=2, stride=2, outpad=(0, 1)),
        rows(2, 3, 3, 4),
    ),
    "Embedding": (lambda key: Embedding(5, 3, key=key), jnp.array([[0, 4], [2, 1]])),
    "GRU": (lambda key: GRU(3, 2, key=key, hidden_bias=True), rows(4, 5, 3)),
    "GRUCell": (lambda key: GRUCell(3, 2, key=key, bias=False), rows(4, 3)),
    "GroupNorm": (lambda _: GroupNorm(4, 2, jnp.tanh), rows(2, 3, 4)),
    "GRUv3": (lambda key: GRUv3(3, 2, key=key, bias=False), rows(4, 5, 3)),
    "GRUv3Cell": (lambda key: GRUv3Cell(3, 2, key=key), rows(4, 3)),
    "InstanceNorm": (
        lambda _: InstanceNorm(3, jnp.tanh, affine=True, track_stats=True),
        rows(2, 4, 3),
    ),
    "LSTM": (lambda key: LSTM(3, 2, key=key), rows(4, 5, 3)),
    "LSTMCell": (lambda key: LSTMCell(3, 2, key=key), rows(4, 3)),
    "LayerNorm": (lambda _: LayerNorm((2, 3)), rows(4, 2, 3)),
    "MultiHeadAttention": (
        lambda key: MultiHeadAttention(6, (4, 8), 5, key=key, heads=2, causal=True),
        rows(2, 3, 6),
    ),
    "Recur": (lambda key: Recur(LSTMCell(3, 2, key=key)), rows(4, 5, 3)),
    "RNN": (lambda key: RNN(3, 2, jnp.sin, key=key), rows(4, 5, 3)),
    "RNNCell": (lambda key: RNNCell(3, 2, key=key), rows(4, 3)),
    "Scale": (lambda _: Scale((2, 3), jnp.tanh), rows(4, 2, 3)),
}
