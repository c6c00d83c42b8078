"""Transforms of arrays between a framework's layout and the canonical one.

In the canonical layout kernels are `(in, out)` or `(*window, in, out)`, as in JAX, and every other
array has one axis. The kernel of a transposed convolution is `(*window, in, out)` and not flipped:
`x[i] @ kernel[k]` is added to `y[stride * i + k]`.

`to_canonical` reads the arrays that a framework stores for a layer, `from_canonical` writes them;
an `ArraySpec` names the canonical arrays in each of them, and their transform.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

KeyPath: TypeAlias = tuple[str, ...]  # a path as its segments
Array: TypeAlias = np.ndarray[Any, Any]
LayerOptions: TypeAlias = Mapping[str, Any]  # read from a layer, such as its groups
Shape: TypeAlias = tuple[int, ...]
CanonicalArrays: TypeAlias = dict[str, Array]

TOKENS = ("bias_k", "bias_v")  # one more position to attend to, which changes all others
ONES = ("scale", "var")  # an absent one stands for ones, every other array for zeros


class Transform(NamedTuple):
    """A transform of an array, in both directions.

    Attributes:
      to_canonical: returns the canonical array for the framework's.
      from_canonical: returns the framework's array for the canonical one; it also takes the shape
        that the destination has.
      axes: the number of axes in the framework's layout, apart from those that options count.
      options: the options that count axes, each with its default.
    """

    to_canonical: Callable[[Array, LayerOptions], Array]
    from_canonical: Callable[[Array, LayerOptions, Shape], Array]
    axes: int = 0
    options: tuple[tuple[str, int], ...] = ()


def identity(rank: int) -> Transform:
    """Return the transform of an array that is stored in the canonical layout."""
    return Transform(_unchanged, _unchanged, options=(("rank", rank),))


def merged_axes(inputs: int, outputs: int) -> Transform:
    """Return the transform of an array with several axes for its inputs, its outputs, or both."""

    def merged(shape: Shape, options: LayerOptions) -> Shape:
        n = int(options.get("inputs", inputs)) if inputs else 0
        columns = (math.prod(shape[n:]),)
        return (math.prod(shape[:n]), *columns) if inputs else columns

    def separate(x: Array, options: LayerOptions, shape: Shape) -> Array:
        return x.reshape(shape) if x.shape == merged(shape, options) else x

    options = (("inputs", inputs), ("outputs", outputs)) if inputs else (("outputs", outputs),)
    return Transform(
        lambda x, options: x.reshape(merged(x.shape, options)), separate, options=options
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
TRANSPOSED_MATRIX = Transform(_swap_matrix, _swap_matrix, 2)
EINSUM = Transform(_from_einsum, _to_einsum, options=(("inputs", 1), ("outputs", 1)))

WINDOW = (("dims", 0),)  # the axes of a window
CONV_WINDOW_IN_OUT = Transform(_unchanged, _unchanged, 2, WINDOW)
CONV_OUT_IN_WINDOW = Transform(_window_first, _window_last, 2, WINDOW)
CONV_BIAS_WITH_WINDOW = Transform(lambda x, _: x.reshape(-1), _to_broadcast, 1, WINDOW)

CONV_TRANSPOSE_IN_OUT_WINDOW = Transform(
    lambda x, options: _swap_last(_window_first(x, options), options),
    lambda x, options, _: _window_last(_swap_last(x, options), options),
    2,
    WINDOW,
)
CONV_TRANSPOSE_WINDOW_OUT_IN = Transform(_swap_last, _swap_last, 2, WINDOW)
CONV_TRANSPOSE_LAX = Transform(_from_lax, _from_lax, 2, WINDOW)
CONV_TRANSPOSE_EQUINOX = Transform(_from_grouped, _to_grouped, 2, WINDOW)


@dataclass(frozen=True)
class ArraySpec:
    """One array that a framework stores for a layer.

    Attributes:
      path: where it is below the layer.
      canonical: the names of the canonical arrays in it; several are packed one after another.
      transform: the transform between it, or each array packed in it, and the canonical layout.
      axis: the axis along which several arrays are packed.
      rows: the number of rows that the packed arrays are spread over; 0 where there are none.
      key_path: the keys of its path below the layer.
    """

    path: str
    canonical: tuple[str, ...]
    transform: Transform = VECTOR
    axis: int = 0
    rows: int = 0
    key_path: KeyPath = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key_path", tuple(self.path.split("/")))


LayerSpec: TypeAlias = tuple[ArraySpec, ...]


def to_canonical(
    layer_spec: LayerSpec, stored: Mapping[KeyPath, Array | None], options: LayerOptions
) -> CanonicalArrays:
    """Return the canonical arrays of a layer, from the arrays that its framework stores.

    Arrays of the same canonical name are added, such as the two biases of PyTorch's LSTM.
    """
    arrays: CanonicalArrays = {}
    for spec in layer_spec:
        array = stored.get(spec.key_path)
        if array is None or not spec.canonical:
            continue
        for name, block in zip(spec.canonical, _unpack(spec, array), strict=False):
            if name:
                x = spec.transform.to_canonical(block, options)
                arrays[name] = _add(arrays[name], x) if name in arrays else x
    return arrays


def from_canonical(
    specs: Mapping[str, ArraySpec],
    shapes: Mapping[str, Shape],
    arrays: Mapping[str, Array],
    options: LayerOptions,
) -> dict[str, Array]:
    """Return a layer's arrays as its framework stores them, if their canonical arrays are there."""
    present = {path: spec for path, spec in specs.items() if {*spec.canonical} <= arrays.keys()}
    return {path: _pack(x, arrays, options, shapes[path]) for path, x in present.items()}


def lost_names(arrays: Mapping[str, Array], stored: Iterable[str]) -> list[str]:
    """Return the names of arrays that a destination does not store and that are not defaults."""
    lost = [name for name in arrays if name not in set(stored)]
    return [name for name in lost if not _is_default(name, arrays[name])]


def _pack(
    spec: ArraySpec, arrays: Mapping[str, Array], options: LayerOptions, shape: Shape
) -> Array:
    """Return an array of this shape from its blocks."""
    count, axis = len(spec.canonical), spec.axis
    if count > 1:
        shape = (*shape[:axis], shape[axis] // count, *shape[axis + 1 :])
    transform = spec.transform.from_canonical
    blocks = [transform(arrays[name], options, shape) for name in spec.canonical]
    return np.concatenate(blocks, axis) if count > 1 else blocks[0]


def _unpack(spec: ArraySpec, stored: Array) -> list[Array]:
    """Return the blocks of an array, or none where they cannot be of equal size."""
    if spec.rows:
        stored = stored.reshape(-1) if stored.shape[:-1] == (spec.rows,) else stored[:0]
    count, axis = len(spec.canonical), spec.axis
    if count == 1:
        return [stored]
    if stored.ndim <= axis or not stored.size or stored.shape[axis] % count:
        return []
    return np.split(stored, count, axis)


def _is_default(name: str, x: Array) -> bool:
    if name in TOKENS:
        return False
    values = np.asarray(x, np.float64)
    return bool((values == 1).all()) if name in ONES else not values.any()


def _add(x: Array, y: Array) -> Array:
    """Add in at least single precision; the destination rounds the sum once."""
    dtype = jnp.promote_types(x.dtype, y.dtype)
    if not jnp.issubdtype(dtype, jnp.inexact) or jnp.finfo(dtype).bits < 32:
        dtype = jnp.dtype(jnp.float32)
    total: Array = np.add(np.asarray(x, dtype), np.asarray(y, dtype))
    return total
