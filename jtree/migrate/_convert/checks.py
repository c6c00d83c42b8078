"""Warnings: what is probably an image, of which frameworks have the axes in different orders."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from .._layouts.canonical import CanonicalArrays
from .._layouts.spec import KeyPath, TypedLayer

Kernels = Mapping[KeyPath, tuple[str, tuple[int, ...]]]  # kind and shape of each layer's kernel
Shapes = Mapping[KeyPath, tuple[int, ...]]
IMAGE = 4  # as many channels as an image has, or fewer


class Seen:
    """What warnings need to know of the layers.

    Attributes:
      kernels: the kind of each layer that has a kernel, and its shape in the common form.
      warnings: those that one layer is enough for.
    """

    def __init__(self) -> None:
        self.kernels: dict[KeyPath, tuple[str, tuple[int, ...]]] = {}
        self.warnings: dict[str, None] = {}

    def add(
        self, place: KeyPath, layer: TypedLayer, canonical: CanonicalArrays, *, differ: bool
    ) -> None:
        """Remember a layer; `differ` tells whether the orders of axes do."""
        kernel, scale = canonical.get("kernel", canonical.get("table")), canonical.get("scale")
        if kernel is not None and kernel.ndim >= 2:
            self.kernels[place] = (layer.kind, tuple(kernel.shape))
        if differ and scale is not None and scale.ndim > 1:
            self.warnings[several_axes(layer.name, tuple(scale.shape))] = None


def suspicious(kernels: Kernels, told: Collection[tuple[KeyPath, int]]) -> Iterator[str]:
    """Yield warnings for dense layers beside which an image seems to be flattened.

    Their features are a multiple of a convolution's channels, and those of no dense layer beside
    them. What was told is a layer, and the axis of its kernel that is an image.
    """
    made = {p: shape for p, (kind, shape) in kernels.items() if kind in ("dense", "embedding")}
    dense = {
        p: shape for p, (kind, shape) in kernels.items() if kind == "dense" and len(shape) == 2
    }
    upwards = _channels(kernels, "conv_transpose", -2)
    makers = {p for p, shape in dense.items() if _divisor(upwards, shape[1])}
    for path, (inputs, outputs) in dense.items():
        before = [p for p in made if p != path and made[p][-1] == inputs]
        if (path, 0) not in told and all(p in makers and not _beside(p, path) for p in before):
            yield from _text(path, inputs, _channels(kernels, "conv", -1), "flattened")
        after = [p for p in dense if p != path and dense[p][0] == outputs]
        if (path, 1) not in told and not any(_beside(p, path) for p in after):
            inner = {} if after else _channels(kernels, "conv", -2)
            square = {c: n for c, n in inner.items() if c > IMAGE and _isspace(outputs, c, n)}
            yield from _text(path, outputs, upwards or square, "unflattened")


def _channels(kernels: Kernels, kind: str, axis: int) -> dict[int, int]:
    """Return the numbers of channels, and how many axes their images have."""
    shapes = [shape for found, shape in kernels.values() if found == kind]
    return {shape[axis]: len(shape) - 2 for shape in shapes if shape[axis] > 1}


def _divisor(channels: Collection[int], features: int) -> int | None:
    """Return the most channels that features may be positions of, unless they are channels."""
    found = [c for c in channels if features % c == 0]
    return None if features in channels else max(found, default=None)


def _beside(path: KeyPath, other: KeyPath) -> bool:
    """Tell whether two layers are in one block, and not only in the model."""
    return len(path) > 1 and path[:-1] == other[:-1]


def _isspace(features: int, channels: int, axes: int) -> bool:
    """Tell whether features may be an image with as many positions along each axis."""
    return features > channels and any(channels * n**axes == features for n in range(2, features))


def _text(path: KeyPath, features: int, channels: Mapping[int, int], rule: str) -> Iterator[str]:
    number = _divisor(channels, features)
    if number is None:
        return
    name, flat = "/".join(path), rule == "flattened"
    side, what = ("inputs", "were flattened") if flat else ("outputs", "become an image")
    space = {1: "length", 3: "depth, height, width"}.get(channels[number], "height, width")
    yield (
        f"{name}: its {features} {side} may be {features // number} positions of {number} channels "
        f"that {what}, which frameworks do in different orders; if so add "
        f'migrate.{rule}("{name}", shape=({number}, {space})) to the hints'
    )


def several_axes(path: str, shape: tuple[int, ...]) -> str:
    """Return a warning for a norm over several axes, which frameworks have in different orders."""
    return (
        f"{path}: its scale {shape} has several axes, taken in the source's order; if they are "
        "those of an image, whose channels are first in one framework and last in the other, "
        "add migrate.transpose for its scale and its bias to the rules"
    )
