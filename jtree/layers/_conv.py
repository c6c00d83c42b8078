"""Convolution with channels last."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from .._tree.leaves import isarray
from ..init import glorot_uniform
from ._fields import check_function, make_bias, set_fields, split_shape
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
from ._window import (
    Padding,
    Window,
    axes_text,
    channels_last,
    check_groups,
    count_axes,
    normalise_padding,
    pairs,
    per_axis,
    short,
    window_size,
)


@layer("weight", "bias")
class Conv(Layer):
    """A convolution over one or more spatial axes.

    Inputs have the shape (batch, *space, c_in). As in JAX and Flax the kernel is not flipped, so
    this is a cross-correlation. Flux.jl flips the kernel.

    Args:
      window: the size of the kernel along each spatial axis. An int is one axis.
      c_in: the number of input channels.
      c_out: the number of output channels.
      activation: a function of the output.
      key: a PRNG key for `init`. Without a key the layer is abstract: it has shapes but no values.
      stride: the stride, one int or one per axis.
      pad: `"SAME"`, `"VALID"`, an int, or an int or a pair (before, after) per axis.
      dilation: the dilation of the kernel, one int or one per axis.
      groups: the number of groups into which the channels are divided.
      bias: True for zeros, an array of shape (c_out,), or False for none; see `Dense`.
      init: an initialiser with the signature of `jax.nn.initializers`.

    Raises:
      ArgumentError: an option does not fit the window, or `groups` does not divide the channels.

    Example:
      >>> layer = Conv((3, 3), 3, 16, jax.nn.relu, key=jax.random.key(0), pad="SAME")
      >>> layer
      Conv((3, 3), 3 => 16, relu, pad='SAME')
      >>> layer.weight.shape, layer(jnp.ones((1, 8, 8, 3))).shape
      ((3, 3, 3, 16), (1, 8, 8, 16))

    Source: `Conv` of Flux.jl; `jax.lax.conv_general_dilated`.
    """

    weight: Any  # (*window, c_in / groups, c_out)
    bias: Any  # (c_out,), or False
    activation: Activation
    stride: tuple[int, ...]
    pad: Any  # "SAME", "VALID", or a number or a pair per axis
    dilation: tuple[int, ...]
    groups: int

    def __init__(
        self,
        window: Window,
        c_in: int,
        c_out: int,
        activation: Activation = identity,
        *,
        key: Any = None,
        stride: Window = 1,
        pad: Padding = 0,
        dilation: Window = 1,
        groups: int = 1,
        bias: Any = True,
        init: InitFunction = glorot_uniform,
    ) -> None:
        size = window_size(window)
        check_groups(f"Conv({size}, {c_in} => {c_out})", groups, c_in, c_out)
        set_fields(
            self,
            weight=initialise(init, key, (*size, c_in // groups, c_out)),
            bias=bias,
            activation=activation,
            stride=per_axis("Conv", "stride", stride, len(size)),
            pad=pad,
            dilation=dilation,
            groups=groups,
        )._validate()

    def _validate(self) -> None:
        axes = count_axes(self.stride, self.weight)
        stack, (*size, c_in, c_out) = split_shape(Conv, "weight", self.weight, axes + 2)
        check_groups("Conv", self.groups)
        owner = f"Conv({tuple(size)}, {c_in * self.groups} => {c_out})"
        check_function(owner, "activation", self.activation)
        check_groups(owner, self.groups, c_out)
        set_fields(
            self,
            bias=make_bias(owner, self.bias, self.weight, (*stack, c_out)),
            stride=per_axis(owner, "stride", self.stride, axes),
            pad=normalise_padding(owner, self.pad, axes),
            dilation=per_axis(owner, "dilation", self.dilation, axes),
        )

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (batch, *space, c_in)."""
        check_concrete(self, self.weight)
        rank, c_in = self.weight.ndim, self.weight.shape[-2] * self.groups
        check_input(self, isarray(x) and x.ndim == rank, axes_text(rank), x)
        check_input(self, x.shape[-1] == c_in, f"{c_in} input channels", x)
        dtype = jnp.result_type(x, self.weight)
        y = lax.conv_general_dilated(
            jnp.asarray(x, dtype),
            jnp.asarray(self.weight, dtype),
            self.stride,
            pairs(self.pad),
            rhs_dilation=self.dilation,
            dimension_numbers=channels_last(rank),
            feature_group_count=self.groups,
        )
        return self.activation(add_bias(y, self.bias))

    def _arguments(self) -> list[str]:
        *window, c_in, c_out = getattr(self.weight, "shape", ("?", "?"))
        c_in = c_in * self.groups if isinstance(c_in, int) else c_in
        names = ("pad", "stride", "dilation", "groups")
        values = {name: short(getattr(self, name)) for name in names}
        changed = changed_arguments(values, {"stride": 1, "pad": 0, "dilation": 1, "groups": 1})
        absent = ["bias=False"] if self.bias is False else []
        sizes = [str(tuple(window)), f"{c_in} => {c_out}"]
        return [*sizes, *activation_argument(self.activation), *changed, *absent]
