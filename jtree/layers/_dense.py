"""A layer that multiplies by a matrix."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from .._errors import ArgumentError
from .._tree.leaves import isarray
from ..init import glorot_uniform
from ._layer import (
    Activation,
    Init,
    Layer,
    activated,
    bias_of,
    build,
    check_input,
    check_numbers,
    fill,
    identity,
    initialised,
    layer,
    plus,
)


@layer("weight", "bias")
class Dense(Layer):
    """A fully connected layer: `activation(x @ weight + bias)`.

    The features are the last axis of the input; the axes before it are batch axes.

    Args:
      n_in: how many features go in.
      n_out: how many come out.
      activation: a function of the output, elementwise or not.
      key: a PRNG key for `init`. Without one the layer is abstract: shapes without numbers.
      bias: True for zeros, an array of shape (n_out,), or False for none. False stays a leaf, so
        that an absent parameter can be told from a missing one; `jax.grad` over the layer itself
        then needs `allow_int=True`, while `jtree.destructure` needs nothing.
      init: an initialiser of the signature of `jax.nn.initializers`.

    Example:
      >>> layer = Dense(3, 2, jnp.tanh, key=jax.random.key(0))
      >>> layer
      Dense(3 => 2, tanh)
      >>> layer.weight.shape, layer.bias.shape, layer(jnp.ones((5, 3))).shape
      ((3, 2), (2,), (5, 2))

    Source: `Dense` of Flux.jl, transposed to JAX's (in, out).
    """

    weight: Any  # (n_in, n_out)
    bias: Any  # (n_out,), or False
    activation: Activation

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: Activation = identity,
        *,
        key: Any = None,
        bias: Any = True,
        init: Init = glorot_uniform,
    ) -> None:
        weight = initialised(init, key, (n_in, n_out))
        found = bias_of(f"Dense({n_in} => {n_out})", bias, weight)
        fill(self, weight=weight, bias=found, activation=activation)

    @classmethod
    def of(cls, weight: Any, bias: Any = True, activation: Activation = identity) -> Dense:
        """Return a layer with this weight and bias.

        Args:
          weight: an array of shape (n_in, n_out).
          bias: an array of shape (n_out,), True for zeros, or False for none.
          activation: a function of the output.

        Returns:
          A `Dense`.

        Raises:
          ArgumentError: the weight has not two dimensions, or the bias does not fit it.

        Example:
          >>> Dense.of(jnp.array([[1.0, 2.0]]), False)(jnp.array([3.0]))
          Array([3., 6.], dtype=float32)
        """
        found = weight if isarray(weight) else jnp.asarray(weight)
        if found.ndim != 2:
            raise ArgumentError(
                f"Dense.of expects a weight of shape (n_in, n_out), found shape {found.shape}"
            )
        owner = f"Dense({found.shape[0]} => {found.shape[1]})"
        return build(cls, weight=found, bias=bias_of(owner, bias, found), activation=activation)

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (..., n_in)."""
        check_numbers(self, self.weight)
        n_in = self.weight.shape[0]
        fits = isarray(x) and x.ndim > 0 and x.shape[-1] == n_in
        check_input(self, fits, f"{n_in} input features", x)
        return self.activation(plus(x @ self.weight, self.bias))

    def _arguments(self) -> list[str]:
        sizes = " => ".join(map(str, getattr(self.weight, "shape", "??")))
        absent = ["bias=False"] if self.bias is False else []
        return [sizes, *activated(self.activation), *absent]
