"""Dropout, which differs between training and inference."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._arguments import check_integers
from .._errors import ArgumentError, ModelError
from ._fields import isprobability, set_fields
from ._layer import Layer, changed_arguments, check_input, layer, train


@layer()
class Dropout(Layer):
    """Dropout: in training, set elements to zero at random and scale the others up.

    The scale keeps the mean of the output the same.

    Args:
      p: the probability that an element becomes zero.
      dims: the axes along which elements are dropped independently; along all other axes they are
        dropped together. By default every element is independent.
      active: whether to drop. True means always, False never, and None in training.

    Raises:
      ArgumentError: p is not a probability.

    Example:
      >>> layer = Dropout(0.5)
      >>> layer(jnp.ones(4))
      Array([1., 1., 1., 1.], dtype=float32)
      >>> y, _ = jtree.layers.forward(layer, jnp.ones(1000), key=jax.random.key(0))
      >>> sorted(set(y.tolist()))
      [0.0, 2.0]

    Source: Srivastava et al., 2014, https://jmlr.org/papers/v15/srivastava14a.html; `Dropout` of
    Flux.jl.
    """

    p: float
    dims: tuple[int, ...]
    active: bool | None

    def __init__(
        self, p: float, *, dims: int | tuple[int, ...] = (), active: bool | None = None
    ) -> None:
        set_fields(self, p=p, dims=dims, active=active)._validate()

    def _validate(self) -> None:
        if not isprobability(self.p):
            raise ArgumentError(
                f"Dropout expects a probability p between 0 and 1, found {self.p!r}"
            )
        dims: Any = self.dims
        several = dims if isinstance(dims, tuple | list) else (dims,)
        axes = check_integers("Dropout: dims", several)
        set_fields(self, p=float(self.p), dims=axes)

    def __call__(self, x: Any, /, *, key: Any = None) -> Any:
        """Return the input, or the output of training if `active` is True."""
        return self._drop(x, key) if self.active else x

    def _drop(self, x: Any, key: Any) -> Any:
        if self.p in (0, 1):
            return x if self.p == 0 else jnp.zeros_like(x)
        if key is None:
            raise ModelError(
                f"{self!r} needs a PRNG key in training; pass it as "
                "jtree.layers.forward(model, x, key=key)"
            )
        keep = jax.random.bernoulli(key, 1 - self.p, self._mask_shape(x))
        return jnp.where(keep, x / (1 - self.p), 0)

    def _mask_shape(self, x: Any) -> tuple[int, ...]:
        axes = {axis % x.ndim for axis in self.dims if -x.ndim <= axis < x.ndim}
        check_input(self, len(axes) == len(set(self.dims)), f"axes {self.dims}", x)
        return tuple(n if i in axes or not axes else 1 for i, n in enumerate(x.shape))

    def _arguments(self) -> list[str]:
        values = {"dims": self.dims, "active": self.active}
        return [str(self.p), *changed_arguments(values, {"dims": (), "active": None})]


@train.register(Dropout)
def _(x: Dropout, inputs: Any, key: Any) -> tuple[Any, Dropout]:
    return (inputs if x.active is False else x._drop(inputs, key)), x
