"""Checks for images that were flattened, or made, in another order of axes than in the model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from .._layouts.spec import FrameworkLayout, KeyPath
from .stages import LayerValues

_IMAGE = 4  # the largest number of channels of an image before any convolution


class _KernelShape(NamedTuple):
    """The kernel or table of a layer: the layer's kind, and the shape in the canonical layout."""

    kind: str
    shape: tuple[int, ...]


def image_warnings(layers: Sequence[LayerValues], source: FrameworkLayout) -> list[str]:
    """Return a warning for each layer whose features may be in another order than in the model."""
    differing = [x for x in layers if x.match.layer.layout.channels_first != source.channels_first]
    kernels = _kernels(layers) if differing else {}
    hinted = {(x.match.key_path, hint.axis) for x in layers for hint in x.images}
    scales = ((x.match.layer.path, x.shapes.get("scale", ())) for x in differing)
    norms = [_norm_warning(path, shape) for path, shape in scales if len(shape) > 1]
    return [*_dense_warnings(kernels, hinted), *norms]


def _kernels(layers: Iterable[LayerValues]) -> dict[KeyPath, _KernelShape]:
    shapes = ((x.match, x.shapes.get("kernel", x.shapes.get("table", ()))) for x in layers)
    return {
        match.key_path: _KernelShape(match.layer.kind, shape)
        for match, shape in shapes
        if len(shape) > 1
    }


def _dense_warnings(
    kernels: Mapping[KeyPath, _KernelShape], hinted: Collection[tuple[KeyPath, int]]
) -> Iterator[str]:
    """Yield a warning for each dense layer beside which an image seems to be flattened or made.

    Its features are a multiple of the channels of a convolution, and no dense layer beside it has
    the same number. `hinted` holds the layers that hints are about, with the axis of the kernel.
    """
    before = {keys: x.shape for keys, x in kernels.items() if x.kind in ("dense", "embedding")}
    dense = {
        keys: x.shape for keys, x in kernels.items() if x.kind == "dense" and len(x.shape) == 2
    }
    upwards = _channels(kernels, "conv_transpose", -2)
    makers = {keys for keys, shape in dense.items() if _divisor(upwards, shape[1])}
    for keys, (inputs, outputs) in dense.items():
        feeding = [x for x in before if x != keys and before[x][-1] == inputs]
        flat = all(x in makers and not _in_one_block(x, keys) for x in feeding)
        if (keys, 0) not in hinted and flat:
            yield from _dense_warning(keys, inputs, _channels(kernels, "conv", -1), "flattened")
        fed = [x for x in dense if x != keys and dense[x][0] == outputs]
        if (keys, 1) not in hinted and not any(_in_one_block(x, keys) for x in fed):
            below = {} if fed else _channels(kernels, "conv", -2)
            square = {c: n for c, n in below.items() if c > _IMAGE and _is_space(outputs, c, n)}
            yield from _dense_warning(keys, outputs, upwards or square, "unflattened")


def _channels(kernels: Mapping[KeyPath, _KernelShape], kind: str, axis: int) -> dict[int, int]:
    """Return the channel counts of layers of a kind, with the number of axes of their windows."""
    shapes = [x.shape for x in kernels.values() if x.kind == kind]
    return {shape[axis]: len(shape) - 2 for shape in shapes if shape[axis] > 1}


def _divisor(channels: Collection[int], features: int) -> int | None:
    """Return the largest channel count that divides features, unless it is their number."""
    divisors = [c for c in channels if features % c == 0]
    return None if features in channels else max(divisors, default=None)


def _in_one_block(keys: KeyPath, other: KeyPath) -> bool:
    """Return whether two layers have the same parent, other than the model itself."""
    return len(keys) > 1 and keys[:-1] == other[:-1]


def _is_space(features: int, channels: int, axes: int) -> bool:
    """Return whether features may be an image of equal size along each axis."""
    return features > channels and any(channels * n**axes == features for n in range(2, features))


def _dense_warning(
    keys: KeyPath, features: int, channels: Mapping[int, int], hint: str
) -> Iterator[str]:
    count = _divisor(channels, features)
    if count is None:
        return
    path = "/".join(keys)
    what = (
        "inputs may be a flattened image" if hint == "flattened" else "outputs may become an image"
    )
    space = {1: "length", 3: "depth, height, width"}.get(channels[count], "height, width")
    yield (
        f"{path}: its {features} {what} of {count} channels and {features // count} positions, "
        "which the two frameworks order differently; if so, add "
        f'migrate.{hint}("{path}", shape=({count}, {space})) to hints'
    )


def _norm_warning(path: str, shape: tuple[int, ...]) -> str:
    return (
        f"{path}: its scale of shape {shape} keeps the source's order of axes; if they are those "
        "of an image, whose channels come first in one framework and last in the other, add "
        "migrate.transpose for its scale and its bias to rules"
    )
