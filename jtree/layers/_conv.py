"""Convolution and pooling with channels last."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import lax

from .._errors import ArgumentError
from .._tree.leaves import isarray
from ..init import glorot_uniform
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
    make_bias,
    set_fields,
)

Window: TypeAlias = int | Sequence[int]
Padding: TypeAlias = Literal["SAME", "VALID"] | int | Sequence[int | tuple[int, int]]


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
        size = (window,) if isinstance(window, int) else tuple(window)
        owner = f"Conv({size}, {c_in} => {c_out})"
        if c_in % groups or c_out % groups:
            raise ArgumentError(
                f"{owner} expects numbers of channels that are divisible by groups={groups}"
            )
        weight = initialise(init, key, (*size, c_in // groups, c_out))
        set_fields(
            self,
            weight=weight,
            bias=make_bias(owner, bias, weight),
            activation=activation,
            stride=_per_axis(owner, "stride", stride, len(size)),
            pad=_padding(owner, pad, len(size)),
            dilation=_per_axis(owner, "dilation", dilation, len(size)),
            groups=groups,
        )

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (batch, *space, c_in)."""
        check_concrete(self, self.weight)
        rank, c_in = self.weight.ndim, self.weight.shape[-2] * self.groups
        check_input(self, isarray(x) and x.ndim == rank, _axes_text(rank), x)
        check_input(self, x.shape[-1] == c_in, f"{c_in} input channels", x)
        dtype = jnp.result_type(x, self.weight)
        y = lax.conv_general_dilated(
            jnp.asarray(x, dtype),
            jnp.asarray(self.weight, dtype),
            self.stride,
            _pairs(self.pad),
            rhs_dilation=self.dilation,
            dimension_numbers=_channels_last(rank),
            feature_group_count=self.groups,
        )
        return self.activation(add_bias(y, self.bias))

    def _arguments(self) -> list[str]:
        *window, c_in, c_out = getattr(self.weight, "shape", ("?", "?"))
        c_in = c_in * self.groups if isinstance(c_in, int) else c_in
        names = ("pad", "stride", "dilation", "groups")
        values = {name: _short(getattr(self, name)) for name in names}
        changed = changed_arguments(values, {"stride": 1, "pad": 0, "dilation": 1, "groups": 1})
        absent = ["bias=False"] if self.bias is False else []
        sizes = [str(tuple(window)), f"{c_in} => {c_out}"]
        return [*sizes, *activation_argument(self.activation), *changed, *absent]


class _Pool(Layer):
    """The base of the pooling layers."""

    window: tuple[int, ...]
    stride: tuple[int, ...]
    pad: Any

    def _set(self, window: Window, stride: Window | None, pad: Padding) -> None:
        size = (window,) if isinstance(window, int) else tuple(window)
        owner = f"{type(self).__name__}({size})"
        steps = _per_axis(owner, "stride", size if stride is None else stride, len(size))
        set_fields(self, window=size, stride=steps, pad=_padding(owner, pad, len(size)))

    def _reduce(self, x: Any, init: Any, function: Callable[[Any, Any], Any]) -> Any:
        rank = len(self.window) + 2
        check_input(self, isarray(x) and x.ndim == rank, _axes_text(rank), x)
        pad = self.pad if isinstance(self.pad, str) else [(0, 0), *_pairs(self.pad), (0, 0)]
        return lax.reduce_window(
            jnp.asarray(x), init, function, (1, *self.window, 1), (1, *self.stride, 1), pad
        )

    def _arguments(self) -> list[str]:
        values = {"pad": _short(self.pad), "stride": _short(self.stride)}
        changed = changed_arguments(values, {"pad": 0, "stride": _short(self.window)})
        return [str(self.window), *changed]


@layer()
class MaxPool(_Pool):
    """Max pooling: the maximum of every window, ignoring padding.

    Args:
      window: the size of the window along each spatial axis. An int is one axis.
      stride: the stride, by default the size of the window.
      pad: `"SAME"`, `"VALID"`, an int, or an int or a pair (before, after) per axis.

    Raises:
      ArgumentError: an option does not fit the window.

    Example:
      >>> MaxPool((2, 2))(jnp.arange(16.0).reshape(1, 4, 4, 1)).ravel()
      Array([ 5.,  7., 13., 15.], dtype=float32)

    Source: `MaxPool` of Flux.jl.
    """

    window: tuple[int, ...]
    stride: tuple[int, ...]
    pad: Any

    def __init__(self, window: Window, *, stride: Window | None = None, pad: Padding = 0) -> None:
        self._set(window, stride, pad)

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (batch, *space, channels)."""
        return self._reduce(x, _lowest(x), lax.max)


@layer()
class MeanPool(_Pool):
    """Mean pooling: the mean of every window, in which padding counts as zero.

    Args:
      window: the size of the window along each spatial axis. An int is one axis.
      stride: the stride, by default the size of the window.
      pad: `"SAME"`, `"VALID"`, an int, or an int or a pair (before, after) per axis.

    Raises:
      ArgumentError: an option does not fit the window.

    Example:
      >>> MeanPool((2, 2))(jnp.arange(16.0).reshape(1, 4, 4, 1)).ravel()
      Array([ 2.5,  4.5, 10.5, 12.5], dtype=float32)

    Source: `MeanPool` of Flux.jl.
    """

    window: tuple[int, ...]
    stride: tuple[int, ...]
    pad: Any

    def __init__(self, window: Window, *, stride: Window | None = None, pad: Padding = 0) -> None:
        self._set(window, stride, pad)

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (batch, *space, channels)."""
        zero = np.zeros((), getattr(x, "dtype", None))
        return self._reduce(x, zero, lax.add) / math.prod(self.window)


def flatten(x: Any, /) -> Any:
    """Return an array with all axes except the first (the batch) flattened into one.

    Args:
      x: an array of shape (batch, ...).

    Returns:
      An array of shape (batch, n).

    Example:
      >>> flatten(jnp.ones((10, 5, 5, 3))).shape
      (10, 75)

    Source: `flatten` of Flux.jl.
    """
    return jnp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))


def _per_axis(owner: str, name: str, x: Any, axes: int) -> tuple[int, ...]:
    values = (x,) * axes if isinstance(x, int) else tuple(x)
    if len(values) != axes or not all(isinstance(n, int) and n > 0 for n in values):
        raise ArgumentError(
            f"{owner} expects {name} to be a positive number, or {axes} of them, found {x!r}"
        )
    return values


def _padding(owner: str, pad: Any, axes: int) -> Any:
    """Return "SAME", "VALID", or an int or an unequal pair for every axis."""
    if isinstance(pad, str) and pad.upper() in ("SAME", "VALID"):
        return pad.upper()
    pads = (pad,) * axes if isinstance(pad, int) else pad
    fits = isinstance(pads, tuple | list) and len(pads) == axes and all(map(_ispad, pads))
    if not fits:
        raise ArgumentError(
            f'{owner} expects pad to be "SAME", "VALID", a number, or {axes} numbers or pairs, '
            f"found {pad!r}"
        )
    return tuple(x if isinstance(x, int) or x[0] != x[1] else x[0] for x in map(_pad, pads))


def _ispad(x: Any) -> bool:
    pair = isinstance(x, tuple | list) and len(x) == 2 and all(isinstance(n, int) for n in x)
    return isinstance(x, int) or pair


def _pad(x: Any) -> Any:
    return x if isinstance(x, int) else tuple(x)


def _pairs(pad: Any) -> Any:
    return pad if isinstance(pad, str) else [(x, x) if isinstance(x, int) else x for x in pad]


def _short(x: Any) -> Any:
    """Return a single int in place of equal ones."""
    same = isinstance(x, tuple) and len(set(x)) == 1 and isinstance(x[0], int)
    return x[0] if same else x


def _axes_text(rank: int) -> str:
    return f"an input of {rank} dimensions, (batch, {'space, ' * (rank - 2)}channels)"


def _channels_last(rank: int) -> lax.ConvDimensionNumbers:
    """Return the dimension numbers for inputs, kernels and outputs with channels last."""
    space = tuple(range(1, rank - 1))
    kernel = (rank - 1, rank - 2, *range(rank - 2))
    outer = (0, rank - 1, *space)
    return lax.ConvDimensionNumbers(outer, kernel, outer)


def _lowest(x: Any) -> Any:
    dtype = getattr(x, "dtype", np.dtype(np.float32))
    low = -jnp.inf if jnp.issubdtype(dtype, jnp.inexact) else jnp.iinfo(dtype).min
    return np.asarray(low, dtype)
