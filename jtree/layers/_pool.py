"""Pooling with channels last, and flattening."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from .._arguments import unexpected
from .._tree.leaves import isabstract, isarray, isnumber
from ._fields import set_fields
from ._layer import Layer, changed_arguments, check_input, layer
from ._window import (
    Padding,
    Window,
    axes_text,
    normalise_padding,
    pairs,
    per_axis,
    short,
    window_size,
)


class _Pool(Layer):
    """The base of the pooling layers."""

    window: tuple[int, ...]
    stride: tuple[int, ...]
    pad: Any

    def _validate(self) -> None:
        size = window_size(self.window)
        owner = f"{type(self).__name__}({size})"
        steps = size if self.stride is None else per_axis(owner, "stride", self.stride, len(size))
        set_fields(
            self, window=size, stride=steps, pad=normalise_padding(owner, self.pad, len(size))
        )

    def _reduce(
        self, x: Any, init: Callable[[Any], Any], function: Callable[[Any, Any], Any]
    ) -> Any:
        rank = len(self.window) + 2
        fits = isarray(x) and isnumber(x.dtype) and x.ndim == rank
        check_input(self, fits, axes_text(rank), x)
        pad = self.pad if isinstance(self.pad, str) else [(0, 0), *pairs(self.pad), (0, 0)]
        return lax.reduce_window(
            jnp.asarray(x), init(x), function, (1, *self.window, 1), (1, *self.stride, 1), pad
        )

    def _arguments(self) -> list[str]:
        values = {"pad": short(self.pad), "stride": short(self.stride)}
        changed = changed_arguments(values, {"pad": 0, "stride": short(self.window)})
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
        set_fields(self, window=window, stride=stride, pad=pad)._validate()

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (batch, *space, channels)."""
        return self._reduce(x, lowest, lax.max)


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
        set_fields(self, window=window, stride=stride, pad=pad)._validate()

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (batch, *space, channels)."""
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
    if not isarray(x) or isabstract(x) or not x.ndim:
        raise unexpected("flatten", "an array of shape (batch, ...)", x)
    return jnp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))


def flatten_channels_first(x: Any, /) -> Any:
    """Return an array with all axes except the first flattened, the channels before space.

    The features of the result are in the order in which Flux.jl and PyTorch flatten images, so a
    dense layer from there can follow without a permutation of its weights.

    Args:
      x: an array of shape (batch, *space, channels).

    Returns:
      An array of shape (batch, n).

    Example:
      >>> flatten_channels_first(jnp.arange(8).reshape(1, 2, 2, 2)).tolist()
      [[0, 2, 4, 6, 1, 3, 5, 7]]

    Source: `flatten` of Flux.jl, whose images are (width, height, channels, batch) in memory order.
    """
    if not isarray(x) or not x.ndim:
        raise unexpected("flatten_channels_first", "an array of shape (batch, ..., channels)", x)
    return flatten(jnp.moveaxis(jnp.asarray(x), -1, 1) if x.ndim > 2 else x)


def lowest(x: Any) -> Any:
    """Return the lowest value of the dtype of an array, where a maximum begins."""
    low = -jnp.inf if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.iinfo(x.dtype).min
    return np.asarray(low, x.dtype)


def zero(x: Any) -> Any:
    """Return zero in the dtype of an array, where a sum begins."""
    return np.zeros((), x.dtype)
