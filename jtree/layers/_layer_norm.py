"""Normalisation of each example by itself, and the scale and shift that follow it."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from .._arguments import check_flag, check_integer
from .._errors import ArgumentError
from .._tree.leaves import isarray
from .._tree.nodes import NodeKind, declare_kind
from ..init import ones32
from ._fields import check_function, check_present, make_bias, set_fields, split_shape
from ._layer import (
    Activation,
    InitFunction,
    Layer,
    activation_argument,
    add_bias,
    changed_arguments,
    check_concrete,
    check_input,
    identity,
    initialise,
    layer,
)
from ._norm import normalise, statistics
from ._window import Window, check_groups, short, window_size


@layer("scale", "bias")
class Scale(Layer):
    """An elementwise scale and shift: `activation(scale * x + bias)`.

    Args:
      size: the size of the last axis, or of several last axes.
      activation: a function of the output.
      key: a PRNG key for `init`, if it needs one.
      bias: True for zeros, an array of shape `size`, or False for none; see `Dense`.
      init: an initialiser with the signature of `jax.nn.initializers`, by default ones.

    Example:
      >>> Scale(3, bias=jnp.array([1.0, 2.0, 3.0]))(jnp.ones((1, 3)))
      Array([[2., 3., 4.]], dtype=float32)

    Source: `Scale` of Flux.jl.
    """

    scale: Any  # (*size,)
    bias: Any  # (*size,), or False
    activation: Activation

    def __init__(
        self,
        size: Window,
        activation: Activation = identity,
        *,
        key: Any = None,
        bias: Any = True,
        init: InitFunction = ones32,
    ) -> None:
        scale = initialise(init, key, window_size(size))
        set_fields(self, scale=scale, bias=bias, activation=activation)._validate()

    def _validate(self) -> None:
        _, shape = split_shape(Scale, "scale", self.scale, 1)
        owner = f"Scale({shape[0]})"
        check_function(owner, "activation", self.activation)
        set_fields(self, bias=make_bias(owner, self.bias, self.scale, self.scale.shape))

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (..., *size)."""
        check_concrete(self, self.scale)
        _check_last(self, self.scale.shape, x)
        return self.activation(add_bias(x * self.scale, self.bias))

    def _arguments(self) -> list[str]:
        size = str(short(getattr(self.scale, "shape", "?"), ones=True))
        absent = ["bias=False"] if self.bias is False else []
        return [size, *activation_argument(self.activation), *absent]


@layer("diag")
class LayerNorm(Layer):
    """Layer normalisation: over the last axes, then a learnt scale and shift of each element.

    For half precision, the mean and the variance are computed in float32.

    Args:
      size: the size of the last axis, or of several last axes, which are normalised together.
      activation: a function of the output.
      affine: whether to learn a scale and a shift, which are the `Scale` in the field `diag`. If
        False it is None.
      eps: added to the variance.

    Example:
      >>> layer = LayerNorm(3)
      >>> layer, list(jtree.trainables(layer))
      (LayerNorm(3), ['diag/scale', 'diag/bias'])
      >>> layer(jnp.array([[1.0, 2.0, 3.0]])).round(3)
      Array([[-1.225,  0.   ,  1.225]], dtype=float32)

    Source: Ba et al., 2016, https://arxiv.org/abs/1607.06450; `LayerNorm` of Flux.jl.
    """

    diag: Any  # a Scale, or None
    activation: Activation
    size: tuple[int, ...]
    affine: bool
    eps: float

    def __init__(
        self,
        size: Window,
        activation: Activation = identity,
        *,
        affine: bool = True,
        eps: float = 1e-5,
    ) -> None:
        size = window_size(size)
        diag = Scale(size) if check_flag("affine", affine) else None
        set_fields(
            self, diag=diag, activation=activation, size=size, affine=affine, eps=eps
        )._validate()

    def _validate(self) -> None:
        size = window_size(self.size)
        owner = f"LayerNorm({short(size, ones=True)})"
        check_function(owner, "activation", self.activation)
        if self.affine and not isinstance(self.diag, Scale):
            raise ArgumentError(f"{owner} expects diag to be a Scale, found {self.diag!r}")
        scale = self.diag.scale if isinstance(self.diag, Scale) else self.diag
        check_present(owner, "diag", scale, size if self.affine else None)
        set_fields(self, size=size)

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (..., *size)."""
        _check_last(self, self.size, x)
        axes = tuple(range(-len(self.size), 0))
        y = normalise(x, *statistics(x, axes, keepdims=True), self.eps)
        return self.activation(y if self.diag is None else self.diag(y))

    def _arguments(self) -> list[str]:
        changed = changed_arguments({"affine": self.affine}, {"affine": True})
        size = str(short(self.size, ones=True))
        return [size, *activation_argument(self.activation), *changed]


declare_kind(LayerNorm, NodeKind(all_fields=True, one_line=True))


@layer("beta", "gamma")
class GroupNorm(Layer):
    """Group normalisation: over all axes but the batch, for each group of channels by itself.

    Channels are the last axis. For half precision, the mean and the variance are computed in
    float32.

    Args:
      channels: the size of the last axis.
      groups: the number of groups into which the channels are divided.
      activation: a function of the output.
      affine: whether to learn a shift `beta` and a scale `gamma` of each channel. If False they are
        None.
      eps: added to the variance.

    Raises:
      ArgumentError: `groups` does not divide the channels.

    Example:
      >>> layer = GroupNorm(4, 2)
      >>> layer
      GroupNorm(4, 2)
      >>> layer(jnp.array([[1.0, 3.0, 10.0, 30.0]])).round(3)
      Array([[-1.,  1., -1.,  1.]], dtype=float32)

    Source: Wu and He, 2018, https://arxiv.org/abs/1803.08494; `GroupNorm` of Flux.jl.
    """

    beta: Any
    gamma: Any
    activation: Activation
    channels: int
    groups: int
    affine: bool
    eps: float

    def __init__(
        self,
        channels: int,
        groups: int,
        activation: Activation = identity,
        *,
        affine: bool = True,
        eps: float = 1e-5,
    ) -> None:
        check_integer("GroupNorm: channels", channels, least=0)
        set_fields(
            self,
            beta=jnp.zeros(channels, jnp.float32) if check_flag("affine", affine) else None,
            gamma=jnp.ones(channels, jnp.float32) if affine else None,
            activation=activation,
            channels=channels,
            groups=groups,
            affine=affine,
            eps=eps,
        )._validate()

    def _validate(self) -> None:
        owner = f"GroupNorm({self.channels}, {self.groups})"
        check_groups(owner, self.groups, self.channels)
        check_function(owner, "activation", self.activation)
        for name in ("beta", "gamma"):
            shape = (self.channels,) if self.affine else None
            check_present(owner, name, getattr(self, name), shape)

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (batch, ..., channels)."""
        fits = isarray(x) and x.ndim > 1 and x.shape[-1] == self.channels
        check_input(self, fits, f"(batch, ..., {self.channels} channels)", x)
        grouped = x.reshape(*x.shape[:-1], self.groups, self.channels // self.groups)
        axes = (*range(1, x.ndim - 1), x.ndim)
        y = normalise(grouped, *statistics(grouped, axes, keepdims=True), self.eps)
        y = y.reshape(x.shape)
        return self.activation(y if self.gamma is None else y * self.gamma + self.beta)

    def _arguments(self) -> list[str]:
        changed = changed_arguments({"affine": self.affine}, {"affine": True})
        sizes = [str(self.channels), str(self.groups)]
        return [*sizes, *activation_argument(self.activation), *changed]


def _check_last(owner: Layer, size: tuple[int, ...], x: Any) -> None:
    """Raise an error for an input whose last axes do not have these sizes."""
    count = len(size)
    fits = isarray(x) and x.ndim >= count and tuple(x.shape[x.ndim - count :]) == size
    axes = "a last axis" if count == 1 else f"{count} last axes"
    check_input(owner, fits, f"{axes} of size {short(size, ones=True)}", x)
