"""Images beside dense layers, which frameworks flatten in different orders, and their padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..._arguments import check_integers, unexpected
from ..._errors import ArgumentError
from .._layouts.fields import transposed_conv_padding


@dataclass(frozen=True, repr=False)
class Flattened:
    """A hint that the inputs of a dense layer are a flattened image, from `migrate.flattened`."""

    path: str
    shape: tuple[int, ...]
    axis: ClassVar[int] = 0  # the axis of the kernel (in, out) that runs over the image
    features: ClassVar[str] = "inputs"
    note: ClassVar[str] = "rows permuted"

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()}({self.path!r}, shape={self.shape})"


@dataclass(frozen=True, repr=False)
class Unflattened(Flattened):
    """A hint that the outputs of a dense layer become an image, from `migrate.unflattened`."""

    axis = 1
    features = "outputs"
    note = "columns permuted"


def flattened(path: str, /, *, shape: Sequence[int]) -> Flattened:
    """Return a hint for `convert`: the input of this dense layer is a flattened image.

    PyTorch and Equinox flatten images as `(channels, height, width)`; Flax, Keras and jtree as
    `(height, width, channels)`. Where the two orders differ, the rows of the kernel are permuted.

    Args:
      path: the dense layer, by its name in the model or in the source.
      shape: the shape `(channels, *space)` of the image, without the batch.

    Returns:
      A hint.

    Raises:
      ArgumentError: the shape is not a sequence of at least two positive integers.

    Example:
      >>> from jtree import migrate
      >>> migrate.flattened("classifier/0", shape=(16, 7, 7))
      flattened('classifier/0', shape=(16, 7, 7))
    """
    return Flattened(path, _image_shape("flattened", path, shape))


def unflattened(path: str, /, *, shape: Sequence[int]) -> Unflattened:
    """Return a hint for `convert`: the output of this dense layer is reshaped into an image.

    The decoders of autoencoders and generators begin so. PyTorch and Equinox reshape into
    `(channels, height, width)`; Flax, Keras and jtree into `(height, width, channels)`. Where the
    two orders differ, the columns of the kernel and the bias are permuted. A batch norm between
    the dense layer and the image needs the same hint under its own name.

    Args:
      path: the dense layer or the norm, by its name in the model or in the source.
      shape: the shape `(channels, *space)` of the image, without the batch.

    Returns:
      A hint.

    Raises:
      ArgumentError: the shape is not a sequence of at least two positive integers.

    Example:
      >>> from jtree import migrate
      >>> migrate.unflattened("decoder/fc", shape=(64, 7, 7))
      unflattened('decoder/fc', shape=(64, 7, 7))
    """
    return Unflattened(path, _image_shape("unflattened", path, shape))


def _image_shape(name: str, path: str, shape: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(path, str):
        raise unexpected(f"{name}: path", "a str", path)
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    if len(sizes) < 2 or not all(type(n) is int and n > 0 for n in sizes):
        raise ArgumentError(
            f"{name}: expected a shape (channels, *space) of positive integers, found {shape!r}"
        )
    return sizes


def transposed_padding(
    window: Sequence[int],
    *,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> tuple[tuple[int, int], ...]:
    """Return the padding that makes Flax's transposed convolution equal to PyTorch's.

    The `padding` of PyTorch is that of the convolution whose transpose the layer is. Flax and
    `jax.lax.conv_transpose` pad the input after it is dilated by the strides.

    Args:
      window: the shape of the kernel's window.
      padding: PyTorch's `padding`, one for all axes or one for each.
      output_padding: PyTorch's `output_padding`.
      dilation: PyTorch's `dilation`.

    Returns:
      A pair (before, after) for each axis, for `padding=` of `nnx.ConvTranspose`.

    Example:
      >>> from jtree import migrate
      >>> migrate.transposed_padding((4, 4), padding=1)
      ((2, 2), (2, 2))

    Source: `torch.nn.ConvTranspose2d`, https://docs.pytorch.org/docs/stable/nn.html.
    """
    window = check_integers("window", window, least=1)
    options = {"padding": padding, "output_padding": output_padding, "dilation": dilation}
    for name, x in options.items():
        values = check_integers(name, (x,) * len(window) if isinstance(x, int) else x)
        if len(values) != len(window):
            raise ArgumentError(f"{name}: expected one or {len(window)} integers, found {x!r}")
    return transposed_conv_padding(window, padding, output_padding, dilation)
