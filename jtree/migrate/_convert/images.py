"""What users say of layers: a dense layer beside a flattened image, a padding in other terms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..._errors import ArgumentError
from .._layouts.canonical import CanonicalArrays
from .._layouts.convolution import transposed_conv_padding


@dataclass(frozen=True, repr=False)
class Flattened:
    """A dense layer whose input is an image that was flattened; made by `migrate.flattened`."""

    path: str
    shape: tuple[int, ...]
    side: ClassVar[int] = 0  # the axis of the kernel (in, out) that is the image
    features: ClassVar[str] = "inputs"
    note: ClassVar[str] = "rows permuted"

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()}({self.path!r}, shape={self.shape})"

    def permuted(self, canonical: CanonicalArrays, *, channels_first: bool) -> CanonicalArrays:
        """Return what a dense layer holds for the other order of axes than it has now."""
        channels, *space = self.shape
        places, last = np.arange(self.size), len(space)
        if channels_first:  # to channels last
            order = places.reshape(channels, *space).transpose(*range(1, last + 1), 0)
        else:
            order = places.reshape(*space, channels).transpose(last, *range(last))
        order = order.reshape(-1)
        if "kernel" not in canonical:  # a norm beside the dense layer
            return {name: x[order] for name, x in canonical.items()}
        changed = {"kernel": canonical["kernel"].take(order, self.side)}
        if self.side and "bias" in canonical:
            changed["bias"] = canonical["bias"][order]
        return canonical | changed

    def fits(self, kind: str, canonical: CanonicalArrays) -> bool:
        """Tell whether a layer has so many features: a dense one, or a norm of vectors."""
        if kind == "dense" and "kernel" in canonical:
            return bool(canonical["kernel"].shape[self.side] == self.size)
        return kind.endswith("_norm") and all(x.shape == (self.size,) for x in canonical.values())

    @property
    def size(self) -> int:
        """The number of features."""
        return math.prod(self.shape)


@dataclass(frozen=True, repr=False)
class Unflattened(Flattened):
    """A dense layer whose output becomes an image; made by `migrate.unflattened`."""

    side = 1
    features = "outputs"
    note = "columns permuted"


def flattened(path: str, /, *, shape: Sequence[int]) -> Flattened:
    """Return a hint for `convert`: this dense layer's input is a flattened image.

    PyTorch and Equinox flatten `(channels, height, width)`, Flax, Keras and jtree
    `(height, width, channels)`. Where the two orders differ the rows of the kernel are permuted.

    Args:
      path: the dense layer, by its name in the model or in the source.
      shape: `(channels, *space)` of what is flattened, without the batch.

    Returns:
      A hint.

    Example:
      >>> from jtree import migrate
      >>> migrate.flattened("classifier/0", shape=(16, 7, 7))
      flattened('classifier/0', shape=(16, 7, 7))
    """
    return Flattened(path, _image("flattened", shape))


def unflattened(path: str, /, *, shape: Sequence[int]) -> Unflattened:
    """Return a hint for `convert`: this dense layer's output is reshaped into an image.

    So the decoder of an autoencoder begins, or a generator: PyTorch and Equinox reshape into
    `(channels, height, width)`, Flax, Keras and jtree into `(height, width, channels)`. Where the
    two orders differ the columns of the kernel and the bias are permuted.

    Args:
      path: the dense layer, by its name in the model or in the source.
      shape: `(channels, *space)` of the image, without the batch.

    Returns:
      A hint.

    Example:
      >>> from jtree import migrate
      >>> migrate.unflattened("decoder/fc", shape=(64, 7, 7))
      unflattened('decoder/fc', shape=(64, 7, 7))
    """
    return Unflattened(path, _image("unflattened", shape))


def _image(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    found = tuple(shape)
    if len(found) < 2 or not all(type(n) is int and n > 0 for n in found):
        raise ArgumentError(
            f"{name}: expected a shape (channels, *space) of positive numbers, found {shape!r}"
        )
    return found


def transposed_padding(
    window: Sequence[int],
    *,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> tuple[tuple[int, int], ...]:
    """Return the padding of a transposed convolution in Flax that PyTorch's layer has.

    PyTorch's `padding` is that of the convolution whose gradient the layer is; Flax and
    `jax.lax.conv_transpose` pad the input that is spread by the strides.

    Args:
      window: the sizes of the kernel.
      padding: PyTorch's, a number or one per axis.
      output_padding: PyTorch's.
      dilation: distances within the window.

    Returns:
      A pair (before, after) for each axis, as `padding` of `nnx.ConvTranspose` takes it.

    Example:
      >>> from jtree import migrate
      >>> migrate.transposed_padding((4, 4), padding=1)
      ((2, 2), (2, 2))

    Source: `torch.nn.ConvTranspose2d`, https://docs.pytorch.org/docs/stable/nn.html.
    """
    return transposed_conv_padding(window, padding, output_padding, dilation)
