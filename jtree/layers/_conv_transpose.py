"""Transposed convolution with channels last."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from .._arguments import check_integers
from .._errors import ArgumentError
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
from ._padding import named_padding
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
class ConvTranspose(Layer):
    """A transposed convolution over one or more spatial axes.

    Inputs have the shape (batch, *space, c_in). `x[i] @ weight[k]` is added to the output at
    `stride * i + dilation * k - pad`, so the layer is the gradient of a `Conv` with this stride and
    padding with respect to its input, whose size `outpad` tells where several are possible.

    Args:
      window: the size of the kernel along each spatial axis. An int is one axis.
      c_in: the number of input channels.
      c_out: the number of output channels.
      activation: a function of the output.
      key: a PRNG key for `init`. Without a key the layer is abstract: it has shapes but no values.
      stride: the stride, one int or one per axis.
      pad: an int, or an int or a pair (before, after) per axis, by which the output shrinks.
        `"SAME"` makes the output `stride` times as large as the input, and `"VALID"` at least as
        large as that, as in `jax.lax.conv_transpose`.
      outpad: the size that is added at the end of each axis of the output, one int or one per axis.
      dilation: the dilation of the kernel, one int or one per axis.
      groups: the number of groups into which the channels are divided.
      bias: True for zeros, an array of shape (c_out,), or False for none; see `Dense`.
      init: an initialiser with the signature of `jax.nn.initializers`.

    Raises:
      ArgumentError: an option does not fit the window, or `groups` does not divide the channels.

    Example:
      >>> layer = ConvTranspose((3, 3), 16, 3, key=jax.random.key(0), stride=2, pad="SAME")
      >>> layer
      ConvTranspose((3, 3), 16 => 3, pad='SAME', stride=2)
      >>> layer.weight.shape, layer(jnp.ones((1, 8, 8, 16))).shape
      ((3, 3, 16, 3), (1, 16, 16, 3))

    Source: `ConvTranspose` of Flux.jl; `jax.lax.conv_transpose`.
    """

    weight: Any  # (*window, c_in, c_out / groups)
    bias: Any  # (c_out,), or False
    activation: Activation
    stride: tuple[int, ...]
    pad: Any  # "SAME", "VALID", or a number or a pair per axis
    outpad: tuple[int, ...]
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
        outpad: Window = 0,
        dilation: Window = 1,
        groups: int = 1,
        bias: Any = True,
        init: InitFunction = glorot_uniform,
    ) -> None:
        size = window_size(window)
        check_integers("ConvTranspose", (c_in, c_out), least=0)
        check_groups(f"ConvTranspose({size}, {c_in} => {c_out})", groups, c_in, c_out)
        set_fields(
            self,
            weight=initialise(init, key, (*size, c_in, c_out // groups)),
            bias=bias,
            activation=activation,
            stride=per_axis("ConvTranspose", "stride", stride, len(size)),
            pad=pad,
            outpad=outpad,
            dilation=dilation,
            groups=groups,
        )._validate()

    def _validate(self) -> None:
        axes = count_axes(self.stride, self.weight)
        shape = split_shape(ConvTranspose, "weight", self.weight, axes + 2)
        stack, (*size, c_in, c_out) = shape
        check_groups("ConvTranspose", self.groups)
        owner = f"ConvTranspose({tuple(size)}, {c_in} => {c_out * self.groups})"
        check_groups(owner, self.groups, c_in)
        check_function(owner, "activation", self.activation)
        set_fields(
            self,
            bias=make_bias(owner, self.bias, self.weight, (*stack, c_out * self.groups)),
            stride=per_axis(owner, "stride", self.stride, axes),
            pad=normalise_padding(owner, self.pad, axes),
            outpad=_outpad(owner, self.outpad, axes),
            dilation=per_axis(owner, "dilation", self.dilation, axes),
        )

    @property
    def input_padding(self) -> tuple[tuple[int, int], ...]:
        """The padding around the input after its dilation by the stride, as in `jax.lax`."""
        axes = len(self.stride)
        window = self.weight.shape[-2 - axes : -2]
        sizes = [d * (n - 1) + 1 for d, n in zip(self.dilation, window, strict=True)]
        if isinstance(self.pad, str):
            steps = zip(sizes, self.stride, strict=True)
            pads = [named_padding(self.pad, size, step) for size, step in steps]
        else:
            given = zip(sizes, pairs(self.pad), strict=True)
            pads = [(size - 1 - a, size - 1 - b) for size, (a, b) in given]
        return tuple((a, b + extra) for (a, b), extra in zip(pads, self.outpad, strict=True))

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (batch, *space, c_in)."""
        check_concrete(self, self.weight)
        rank, c_in = self.weight.ndim, self.weight.shape[-2]
        check_input(self, isarray(x) and x.ndim == rank, axes_text(rank), x)
        check_input(self, x.shape[-1] == c_in, f"{c_in} input channels", x)
        dtype = jnp.result_type(x, self.weight)
        y = lax.conv_general_dilated(
            jnp.asarray(x, dtype),
            _conv_kernel(jnp.asarray(self.weight, dtype), self.groups),
            (1,) * (rank - 2),
            self.input_padding,
            lhs_dilation=self.stride,
            rhs_dilation=self.dilation,
            dimension_numbers=channels_last(rank),
            feature_group_count=self.groups,
        )
        return self.activation(add_bias(y, self.bias))

    def _arguments(self) -> list[str]:
        *window, c_in, c_out = getattr(self.weight, "shape", ("?", "?"))
        c_out = c_out * self.groups if isinstance(c_out, int) else c_out
        defaults = {"pad": 0, "stride": 1, "outpad": 0, "dilation": 1, "groups": 1}
        values = {name: short(getattr(self, name)) for name in defaults}
        absent = ["bias=False"] if self.bias is False else []
        sizes = [str(tuple(window)), f"{c_in} => {c_out}"]
        changed = changed_arguments(values, defaults)
        return [*sizes, *activation_argument(self.activation), *changed, *absent]


def _conv_kernel(weight: Any, groups: int) -> Any:
    """Return the kernel of the convolution of the dilated input: flipped, and by groups."""
    *window, c_in, c_out = weight.shape
    blocks = weight.reshape(*window, groups, c_in // groups, c_out)
    kernel = jnp.moveaxis(blocks, -3, -2).reshape(*window, c_in // groups, groups * c_out)
    return jnp.flip(kernel, tuple(range(len(window))))


def _outpad(owner: str, x: Any, axes: int) -> tuple[int, ...]:
    values = (x,) * axes if isinstance(x, int) else x
    fits = isinstance(values, tuple | list) and len(values) == axes
    if not fits or not all(isinstance(n, int) and n >= 0 for n in values):
        raise ArgumentError(
            f"{owner} expects outpad to be a number of at least 0, or {axes} of them, found {x!r}"
        )
    return tuple(values)
