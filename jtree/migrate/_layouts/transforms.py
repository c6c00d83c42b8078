"""Transforms of one array between a framework's layout and the canonical one.

In the canonical layout kernels are `(in, out)` or `(*window, in, out)`, as in JAX, and every other
array has one axis. The kernel of a transposed convolution is `(*window, in, out)` and not flipped:
`x[i] @ kernel[k]` is added to `y[stride * i + k]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
LayerOptions: TypeAlias = Mapping[str, Any]  # read from a layer, such as its groups
Shape: TypeAlias = tuple[int, ...]


class Transform(NamedTuple):
    """A transform of an array, in both directions.

    Attributes:
      to_canonical: returns the canonical array for the framework's.
      from_canonical: returns the framework's array for the canonical one; it also takes the shape
        that the destination has.
      rank: returns the number of axes in the framework's layout.
    """

    to_canonical: Callable[[Array, LayerOptions], Array]
    from_canonical: Callable[[Array, LayerOptions, Shape], Array]
    rank: Callable[[LayerOptions], int]


def identity(rank: int) -> Transform:
    """Return the transform of an array that is stored in the canonical layout."""
    return Transform(_unchanged, _unchanged, lambda options: options.get("rank", rank))


def merged_axes(inputs: int, outputs: int) -> Transform:
    """Return the transform of an array with several axes for its inputs, its outputs, or both."""

    def count_inputs(options: LayerOptions) -> int:
        return int(options.get("inputs", inputs)) if inputs else 0

    def merged(shape: Shape, options: LayerOptions) -> Shape:
        n = count_inputs(options)
        columns = (math.prod(shape[n:]),)
        return (math.prod(shape[:n]), *columns) if inputs else columns

    def separate(x: Array, options: LayerOptions, shape: Shape) -> Array:
        return x.reshape(shape) if x.shape == merged(shape, options) else x

    return Transform(
        lambda x, options: x.reshape(merged(x.shape, options)),
        separate,
        lambda options: count_inputs(options) + int(options.get("outputs", outputs)),
    )


def flip_window(x: Array) -> Array:
    """Reverse a kernel whose window axes come first along each of them."""
    return np.flip(x, tuple(range(x.ndim - 2)))


def _unchanged(x: Array, _: LayerOptions, __: Shape = ()) -> Array:
    return x


def _swap_matrix(x: Array, _: LayerOptions, __: Shape = ()) -> Array:
    return x.T


def _swap_last(x: Array, _: LayerOptions, __: Shape = ()) -> Array:
    return x.swapaxes(-1, -2)


def _conv_rank(options: LayerOptions) -> int:
    return int(options["dims"]) + 2


def _window_last(x: Array, _: LayerOptions, __: Shape = ()) -> Array:
    """Return (out, in, *window) for (*window, in, out)."""
    return x.transpose(x.ndim - 1, x.ndim - 2, *range(x.ndim - 2))


def _window_first(x: Array, _: LayerOptions, __: Shape = ()) -> Array:
    """Return (*window, in, out) for (out, in, *window)."""
    return x.transpose(*range(2, x.ndim), 1, 0)


def _from_lax(x: Array, options: LayerOptions, _: Shape = ()) -> Array:
    """Return the canonical kernel for that of `lax.conv_transpose`; its own inverse."""
    return x.swapaxes(-1, -2) if options.get("transpose_kernel") else flip_window(x)


def _from_grouped(x: Array, options: LayerOptions) -> Array:
    """Return (*window, in, out / groups) for Equinox's flipped (out, in / groups, *window)."""
    groups = options.get("groups", 1)
    n_out, n_in, *window = x.shape
    blocks = x.reshape(groups, n_out // groups, n_in, *window).swapaxes(1, 2)
    kernel = _window_first(blocks.reshape(groups * n_in, n_out // groups, *window), options)
    return flip_window(kernel).swapaxes(-1, -2)


def _to_grouped(x: Array, options: LayerOptions, _: Shape = ()) -> Array:
    """Return Equinox's flipped (out, in / groups, *window) for (*window, in, out / groups)."""
    groups = options.get("groups", 1)
    kernel = _window_last(flip_window(x).swapaxes(-1, -2), options)
    n_in, n_out, *window = kernel.shape
    if n_in % groups:
        return kernel
    blocks = kernel.reshape(groups, n_in // groups, n_out, *window).swapaxes(1, 2)
    return blocks.reshape(groups * n_out, n_in // groups, *window)


def _from_einsum(x: Array, options: LayerOptions) -> Array:
    """Return (in, out) for a kernel whose axes are in the order of an einsum's subscripts."""
    ordered = x.transpose(options["axes"])
    return ordered.reshape(math.prod(ordered.shape[: options["inputs"]]), -1)


def _to_einsum(x: Array, options: LayerOptions, shape: Shape) -> Array:
    """Return a kernel with its axes in the order of an einsum's subscripts for (in, out)."""
    axes, n = options["axes"], options["inputs"]
    ordered = tuple(shape[axis] for axis in axes)
    fits = x.shape == (math.prod(ordered[:n]), math.prod(ordered[n:]))
    return x.reshape(ordered).transpose(np.argsort(axes)) if fits else x


def _to_broadcast(x: Array, _: LayerOptions, shape: Shape) -> Array:
    return x.reshape(shape) if x.shape == shape[:1] else x


VECTOR = identity(1)
MATRIX = identity(2)
TRANSPOSED_MATRIX = Transform(_swap_matrix, _swap_matrix, lambda _: 2)
EINSUM = Transform(_from_einsum, _to_einsum, lambda options: len(options["axes"]))

CONV_WINDOW_IN_OUT = Transform(_unchanged, _unchanged, _conv_rank)
CONV_OUT_IN_WINDOW = Transform(_window_first, _window_last, _conv_rank)
CONV_BIAS_WITH_WINDOW = Transform(
    lambda x, _: x.reshape(-1), _to_broadcast, lambda options: options["dims"] + 1
)

CONV_TRANSPOSE_IN_OUT_WINDOW = Transform(
    lambda x, options: _swap_last(_window_first(x, options), options),
    lambda x, options, _: _window_last(_swap_last(x, options), options),
    _conv_rank,
)
CONV_TRANSPOSE_WINDOW_OUT_IN = Transform(_swap_last, _swap_last, _conv_rank)
CONV_TRANSPOSE_LAX = Transform(_from_lax, _from_lax, _conv_rank)
CONV_TRANSPOSE_EQUINOX = Transform(_from_grouped, _to_grouped, _conv_rank)
