"""The fully connected layer."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from .._arguments import check_integers, unexpected
from .._errors import ArgumentError
from .._tree.leaves import isarray
from ..init import glorot_uniform
from ._fields import build, check_function, make_bias, set_fields, split_shape
from ._layer import (
    Activation,
    InitFunction,
    Layer,
    activation_argument,
    add_bias,
    check_concrete,
    check_input,
    identity,
    initialise,
    layer,
)


@layer("weight", "bias")
class Dense(Layer):
    """A fully connected layer: `activation(x @ weight + bias)`.

    The features are the last axis of the input; the axes before it are batch axes.

    Args:
      n_in: the number of input features.
      n_out: the number of output features.
      activation: a function of the output, elementwise or not.
      key: a PRNG key for `init`. Without a key the layer is abstract: it has shapes but no values.
      bias: True for zeros, an array of shape (n_out,), or False for none. False is a leaf, which
        distinguishes an absent parameter from a missing one. `jax.grad` over the layer itself then
        requires `allow_int=True`; `jtree.destructure` does not.
      init: an initialiser with the signature of `jax.nn.initializers`.

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
        init: InitFunction = glorot_uniform,
    ) -> None:
        sizes = check_integers("Dense", (n_in, n_out), least=0)
        weight = initialise(init, key, sizes)
        set_fields(self, weight=weight, bias=bias, activation=activation)._validate()

    def _validate(self) -> None:
        stack, (n_in, n_out) = split_shape(Dense, "weight", self.weight, 2)
        owner = f"Dense({n_in} => {n_out})"
        check_function(owner, "activation", self.activation)
        set_fields(self, bias=make_bias(owner, self.bias, self.weight, (*stack, n_out)))

    @classmethod
    def from_arrays(cls, weight: Any, bias: Any = True, activation: Activation = identity) -> Dense:
        """Return a layer with this weight and bias.

        Args:
          weight: an array of shape (n_in, n_out).
          bias: an array of shape (n_out,), True for zeros, or False for none.
          activation: a function of the output.

        Returns:
          A `Dense`.

        Raises:
          ArgumentError: the weight does not have two dimensions, or the bias does not fit it.

        Example:
          >>> Dense.from_arrays(jnp.array([[1.0, 2.0]]), False)(jnp.array([3.0]))
          Array([3., 6.], dtype=float32)
        """
        try:
            weight = weight if isarray(weight) else jnp.asarray(weight)
        except (TypeError, ValueError) as error:
            raise unexpected("weight", "an array of shape (n_in, n_out)", weight) from error
        if weight.ndim != 2:
            raise ArgumentError(
                "Dense.from_arrays expects a weight of shape (n_in, n_out), "
                f"found shape {weight.shape}"
            )
        x = build(cls, weight=weight, bias=bias, activation=activation)
        x._validate()
        return x

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (..., n_in)."""
        check_concrete(self, self.weight)
        n_in = self.weight.shape[0]
        fits = isarray(x) and x.ndim > 0 and x.shape[-1] == n_in
        check_input(self, fits, f"{n_in} input features", x)
        return self.activation(add_bias(x @ self.weight, self.bias))

    def _arguments(self) -> list[str]:
        sizes = " => ".join(map(str, getattr(self.weight, "shape", "??")))
        absent = ["bias=False"] if self.bias is False else []
        return [sizes, *activation_argument(self.activation), *absent]
