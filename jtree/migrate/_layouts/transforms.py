"""The ways of one array between a framework's form and the common form of its layer.

The common form is JAX's: kernels are `(in, out)` and `(*window, in, out)`, everything else is flat.
The kernel of a transposed convolution is `(*window, in, out)` without a flip: what it adds to
`y[stride * i + k]` is `x[i] @ kernel[k]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
Options: TypeAlias = Mapping[str, Any]  # what a layer's type says: groups, dims
Shape: TypeAlias = tuple[int, ...]


class Transform(NamedTuple):
    """A way there and back, and how many axes the framework's form has."""

    read: Callable[[Array, Options], Array]
    write: Callable[[Array, Options, Shape], Array]
    rank: Callable[[Options], int]


def _as_is(x: Array, _: Options, __: Shape = ()) -> Array:
    return x


def identity(rank: int) -> Transform:
    """Return the turn of an array that is stored in the common form."""
    return Transform(_as_is, _as_is, lambda options: options.get("rank", rank))


def flat(inputs: int, outputs: int) -> Transform:
    """Return the turn of an array with several axes for its inputs, its outputs, or both."""

    def number(options: Options) -> int:
        return int(options.get("inputs", inputs)) if inputs else 0

    def matrix(shape: Shape, options: Options) -> Shape:
        n = number(options)
        rest = (math.prod(shape[n:]),)
        return (math.prod(shape[:n]), *rest) if inputs else rest

    def write(x: Array, options: Options, shape: Shape) -> Array:
        return x.reshape(shape) if x.shape == matrix(shape, options) else x

    return Transform(
        lambda x, options: x.reshape(matrix(x.shape, options)),
        write,
        lambda options: number(options) + int(options.get("outputs", outputs)),
    )


def _from_einsum(x: Array, options: Options) -> Array:
    """Return (in, out) from a kernel whose axes are in the order of an einsum's text."""
    found = x.transpose(options["axes"])
    return found.reshape(math.prod(found.shape[: options["inputs"]]), -1)


def _to_einsum(x: Array, options: Options, shape: Shape) -> Array:
    """Return a kernel with its axes in the order of an einsum's text from (in, out)."""
    axes, n = options["axes"], options["inputs"]
    found = tuple(shape[axis] for axis in axes)
    fits = x.shape == (math.prod(found[:n]), math.prod(found[n:]))
    return x.reshape(found).transpose(np.argsort(axes)) if fits else x


def _kernel_rank(options: Options) -> int:
    return int(options["dims"]) + 2


def _to_front(x: Array, _: Options, __: Shape = ()) -> Array:
    """Return (out, in, *window) from (*window, in, out)."""
    return x.transpose(x.ndim - 1, x.ndim - 2, *range(x.ndim - 2))


def _to_back(x: Array, _: Options, __: Shape = ()) -> Array:
    """Return (*window, in, out) from (out, in, *window)."""
    return x.transpose(*range(2, x.ndim), 1, 0)


def _window(x: Array) -> tuple[int, ...]:
    return tuple(range(x.ndim - 2))


def _from_grouped(x: Array, options: Options) -> Array:
    """Return (*window, in, out / groups) from Equinox's (out, in / groups, *window), flipped."""
    groups = options.get("groups", 1)
    n_out, n_in, *window = x.shape
    found = x.reshape(groups, n_out // groups, n_in, *window).swapaxes(1, 2)
    found = _to_back(found.reshape(groups * n_in, n_out // groups, *window), options)
    return np.flip(found, _window(found)).swapaxes(-1, -2)


def _to_grouped(x: Array, options: Options, _: Shape = ()) -> Array:
    """Return Equinox's (out, in / groups, *window), flipped, from (*window, in, out / groups)."""
    groups = options.get("groups", 1)
    front = _to_front(np.flip(x, _window(x)).swapaxes(-1, -2), options)
    n_in, n_out, *window = front.shape
    if n_in % groups:
        return front
    found = front.reshape(groups, n_in // groups, n_out, *window).swapaxes(1, 2)
    return found.reshape(groups * n_out, n_in // groups, *window)


def _lax_transposed(x: Array, options: Options, _: Shape = ()) -> Array:
    """Turn a kernel of `lax.conv_transpose`, which takes it in one of two orders."""
    if options.get("transpose_kernel"):
        return x.swapaxes(-1, -2)
    return np.flip(x, _window(x))


def _broadcast(x: Array, _: Options, shape: Shape) -> Array:
    return x.reshape(shape) if x.shape == shape[:1] else x


VECTOR = identity(1)
MATRIX = identity(2)
SWAPPED = Transform(lambda x, _: x.T, lambda x, _, __: x.T, lambda _: 2)
CONV = Transform(_as_is, _as_is, _kernel_rank)
CONV_FRONT = Transform(_to_back, _to_front, _kernel_rank)
TRANSPOSED_LAX = Transform(_lax_transposed, _lax_transposed, _kernel_rank)
TRANSPOSED_GROUPED = Transform(_from_grouped, _to_grouped, _kernel_rank)
TRANSPOSED_FRONT = Transform(
    lambda x, options: _to_back(x, options).swapaxes(-1, -2),
    lambda x, options, _: _to_front(x.swapaxes(-1, -2), options),
    _kernel_rank,
)
TRANSPOSED_SWAPPED = Transform(
    lambda x, _: x.swapaxes(-1, -2), lambda x, _, __: x.swapaxes(-1, -2), _kernel_rank
)
EINSUM = Transform(_from_einsum, _to_einsum, lambda options: len(options["axes"]))
WIDE_BIAS = Transform(lambda x, _: x.reshape(-1), _broadcast, lambda options: options["dims"] + 1)
