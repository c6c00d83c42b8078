"""What weights cannot carry: settings that differ, and dense layers after flattened images."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ._layer import Layer, Layout, Steps
from ._report import Setting

Kernels = Mapping[Steps, tuple[str, tuple[int, ...]]]  # kind and shape of each layer's kernel


def differing(path: str, here: Layer, there: Layer | None, layout: Layout) -> Iterator[Setting]:
    """Yield the settings of a layer that are not the source's, or that depend on more.

    Without a layer in the source, its framework's defaults stand for what it was.
    """
    known = there is not None
    theirs = there.settings if there is not None else layout.defaults.get(here.kind, {})
    for name, value in here.settings.items():
        other = theirs.get(name)
        if isinstance(value, str) and not known and value != other:
            yield Setting(path, name, value, None, known=False)
        elif name in theirs and value is not None and not _alike(value, other):
            yield Setting(path, name, value, other, known)


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-6 * max(abs(a), abs(b))
    return bool(a == b)


def suspicious(kernels: Kernels, told: Collection[Steps]) -> Iterator[str]:
    """Yield warnings for dense layers whose inputs seem to be a flattened image.

    Their inputs are a multiple of a convolution's channels, and the outputs of no dense layer.
    """
    channels = {shape[-1] for kind, shape in kernels.values() if kind == "conv"}
    features = {shape[-1] for kind, shape in kernels.values() if kind in ("dense", "embedding")}
    for path, (kind, shape) in kernels.items():
        if kind != "dense" or path in told or shape[0] in features or shape[0] in channels:
            continue
        found = sorted(n for n in channels if shape[0] % n == 0)
        if found:
            name, n = "/".join(path), found[-1]
            yield (
                f"{name}: its {shape[0]} inputs may be {shape[0] // n} positions of {n} channels "
                "that were flattened, which frameworks do in different orders; if so add "
                f'migrate.flattened("{name}", shape=({n}, height, width)) to the rules'
            )


def several_axes(path: str, shape: tuple[int, ...]) -> str:
    """Return a warning for a norm over several axes, which frameworks have in different orders."""
    return (
        f"{path}: its scale {shape} has several axes, taken in the source's order; if they are "
        "those of an image, whose channels are first in one framework and last in the other, "
        "add migrate.transpose for its scale and its bias to the rules"
    )
