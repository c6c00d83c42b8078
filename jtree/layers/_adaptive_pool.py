"""Pooling to a size of the output, whatever that of the input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from .._arguments import unexpected
from .._tree.leaves import isarray, isnumber
from ._fields import set_fields
from ._layer import Layer, check_input, layer
from ._pool import lowest, zero
from ._window import Window, axes_text, window_size


class _AdaptivePool(Layer):
    """The base of the adaptive pooling layers."""

    size: tuple[int, ...]

    def _validate(self) -> None:
        set_fields(self, size=window_size(self.size))

    def _reduce(
        self, x: Any, init: Callable[[Any], Any], function: Callable[[Any, Any], Any]
    ) -> tuple[Any, int]:
        """Return windows of `x` reduced, and the number of elements in each of them."""
        rank = len(self.size) + 2
        numeric = isarray(x) and isnumber(x.dtype)
        check_input(self, numeric and x.ndim == rank, axes_text(rank), x)
        space = x.shape[1:-1]
        fits = all(0 < n <= m for n, m in zip(self.size, space, strict=True))
        check_input(self, fits, f"space of at least {self.size}", x)
        stride = [m // n for n, m in zip(self.size, space, strict=True)]
        window = [m - (n - 1) * s for n, m, s in zip(self.size, space, stride, strict=True)]
        y = lax.reduce_window(
            jnp.asarray(x), init(x), function, (1, *window, 1), (1, *stride, 1), "VALID"
        )
        return y, math.prod(window)

    def _arguments(self) -> list[str]:
        return [str(self.size)]


@layer()
class AdaptiveMaxPool(_AdaptivePool):
    """Max pooling to an output of a given size.

    All windows have the same size, `n - (size - 1) * (n // size)` for an axis of length n.

    Args:
      size: the size of the output along each spatial axis. An int is one axis.

    Example:
      >>> AdaptiveMaxPool((2, 2))(jnp.arange(16.0).reshape(1, 4, 4, 1)).ravel()
      Array([ 5.,  7., 13., 15.], dtype=float32)

    Source: `AdaptiveMaxPool` of Flux.jl.
    """

    size: tuple[int, ...]

    def __init__(self, size: Window) -> None:
        set_fields(self, size=size)._validate()

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (batch, *space, channels)."""
        return self._reduce(x, lowest, lax.max)[0]


@layer()
class AdaptiveMeanPool(_AdaptivePool):
    """Mean pooling to an output of a given size.

    All windows have the same size, `n - (size - 1) * (n // size)` for an axis of length n.

    Args:
      size: the size of the output along each spatial axis. An int is one axis.

    Example:
      >>> AdaptiveMeanPool((1, 1))(jnp.arange(16.0).reshape(1, 4, 4, 1)).ravel()
      Array([7.5], dtype=float32)

    Source: `AdaptiveMeanPool` of Flux.jl.
    """

    size: tuple[int, ...]

    def __init__(self, size: Window) -> None:
        set_fields(self, size=size)._validate()

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (batch, *space, channels)."""
        total, count = self._reduce(x, zero, lax.add)
        return total / count


def global_max_pool(x: Any, /) -> Any:
    """Return the maximum of every channel over all of space.

    Args:
      x: an array of shape (batch, *space, channels).

    Returns:
      An array of the same rank, whose spatial axes have length 1.

    Example:
      >>> global_max_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
      [[[[6.0, 7.0]]]]

    Source: `GlobalMaxPool` of Flux.jl.
    """
    return jnp.asarray(_image("global_max_pool", x)).max(tuple(range(1, x.ndim - 1)), keepdims=True)


def global_mean_pool(x: Any, /) -> Any:
    """Return the mean of every channel over all of space.

    Args:
      x: an array of shape (batch, *space, channels).

    Returns:
      An array of the same rank, whose spatial axes have length 1.

    Example:
      >>> global_mean_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
      [[[[3.0, 4.0]]]]

    Source: `GlobalMeanPool` of Flux.jl.
    """
    image = jnp.asarray(_image("global_mean_pool", x))
    return image.mean(tuple(range(1, x.ndim - 1)), keepdims=True)


def _image(name: str, x: Any) -> Any:
    """Return an array of shape (batch, *space, channels), or raise an error."""
    if not isarray(x) or not isnumber(x.dtype) or x.ndim < 3:
        raise unexpected(name, "an array of shape (batch, *space, channels)", x)
    return x
