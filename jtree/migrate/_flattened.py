"""What users say of layers: a dense layer after a flattened image, a padding in other terms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._errors import ArgumentError
from ._layer import per_axis


@dataclass(frozen=True)
class Flattened:
    """A dense layer whose input is an image that was flattened; made by `migrate.flattened`."""

    path: str
    shape: tuple[int, ...]

    def permute(self, kernel: Any, *, channels_first: bool) -> Any:
        """Return a kernel (in, out) for the other order of axes than the one that it has now."""
        channels, *space = self.shape
        axes = len(self.shape)
        if channels_first:  # to channels last
            found = kernel.reshape(channels, *space, -1).transpose(*range(1, axes), 0, axes)
        else:
            found = kernel.reshape(*space, channels, -1)
            found = found.transpose(axes - 1, *range(axes - 1), axes)
        return np.ascontiguousarray(found).reshape(kernel.shape)

    @property
    def size(self) -> int:
        """The number of features."""
        return math.prod(self.shape)


def flattened(path: str, /, *, shape: Sequence[int]) -> Flattened:
    """Return a rule for `convert`: this dense layer's input is a flattened image.

    PyTorch and Equinox flatten `(channels, height, width)`, Flax, Keras and jtree
    `(height, width, channels)`. Where the two orders differ the rows of the kernel are permuted.

    Args:
      path: the dense layer, by its name in the model or in the source.
      shape: `(channels, *space)` of what is flattened, without the batch.

    Returns:
      A rule.

    Example:
      >>> from jtree import migrate
      >>> migrate.flattened("classifier/0", shape=(16, 7, 7))
      Flattened(path='classifier/0', shape=(16, 7, 7))
    """
    found = tuple(shape)
    if len(found) < 2 or not all(type(n) is int and n > 0 for n in found):
        raise ArgumentError(
            f"flattened: expected a shape (channels, *space) of positive numbers, found {shape!r}"
        )
    return Flattened(path, found)


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
    axes = len(window)
    pads, extras, spread = (per_axis(x, axes) for x in (padding, output_padding, dilation))
    sizes = zip(window, pads, extras, spread, strict=True)
    return tuple((d * (n - 1) - p, d * (n - 1) - p + extra) for n, p, extra, d in sizes)
