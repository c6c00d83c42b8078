"""The network of the demo, in Flax NNX."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise

import jax
from flax import nnx


class Network(nnx.Module):
    """Dense layers with one activation between them.

    Args:
      sizes: the number of features, from the input to the logits.
      activation: a function of an array.
      unbiased: the indices of the layers without a bias.
      seed: the seed of the kernels.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: Callable[[jax.Array], jax.Array],
        unbiased: Collection[int] = (),
        seed: int,
    ) -> None:
        rngs = nnx.Rngs(seed)
        self.layers = nnx.List(
            nnx.Linear(fan_in, fan_out, use_bias=i not in unbiased, rngs=rngs)
            for i, (fan_in, fan_out) in enumerate(pairwise(sizes))
        )
        self.activation = activation

    def __call__(self, images: jax.Array, /) -> jax.Array:
        """Return the logits `(batch, sizes[-1])` of images `(batch, sizes[0])`."""
        *hidden, last = self.layers
        for layer in hidden:
            images = self.activation(layer(images))
        return last(images)
