"""The embedding of indices as vectors."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from .._arguments import check_integers
from .._errors import ModelError
from .._tree.leaves import describe, isarray
from ..init import randn32
from ._fields import set_fields, split_shape
from ._layer import InitFunction, Layer, check_concrete, initialise, layer


@layer("weight")
class Embedding(Layer):
    """A table of vectors, one for each index: `weight[x]`.

    Indices count from 0. An index outside of the table, and a negative one, gives NaN.

    Args:
      n_in: the number of indices.
      n_out: the size of the vector for each index.
      key: a PRNG key for `init`. Without a key the layer is abstract: it has shapes but no values.
      init: an initialiser with the signature of `jax.nn.initializers`.

    Example:
      >>> layer = Embedding(26, 4, key=jax.random.key(0))
      >>> layer
      Embedding(26 => 4)
      >>> layer.weight.shape, layer(jnp.array([[0, 3, 25]])).shape
      ((26, 4), (1, 3, 4))

    Source: `Embedding` of Flux.jl, transposed to JAX's (in, out).
    """

    weight: Any  # (n_in, n_out)

    def __init__(
        self, n_in: int, n_out: int, *, key: Any = None, init: InitFunction = randn32
    ) -> None:
        sizes = check_integers("Embedding", (n_in, n_out), least=0)
        set_fields(self, weight=initialise(init, key, sizes))._validate()

    def _validate(self) -> None:
        split_shape(Embedding, "weight", self.weight, 2)

    def __call__(self, x: Any, /) -> Any:
        """Return the vectors, of shape (..., n_out), for integers of shape (...)."""
        check_concrete(self, self.weight)
        if not isarray(x) or not jnp.issubdtype(x.dtype, jnp.integer):
            text = describe(x) if isarray(x) else repr(x)
            raise ModelError(f"{self!r} expects an array of integers, found {text}")
        n_in = self.weight.shape[0]
        index = x.astype(jnp.int32) if x.dtype.itemsize < 4 else jnp.asarray(x)
        inside = (index >= 0) & (index < n_in)
        return jnp.take(self.weight, jnp.where(inside, index, n_in), axis=0, mode="fill")

    def _arguments(self) -> list[str]:
        return [" => ".join(map(str, getattr(self.weight, "shape", "??")))]
