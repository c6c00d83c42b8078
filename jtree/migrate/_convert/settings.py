"""What weights cannot carry: the settings of layers that differ, or that nothing tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._layouts.spec import FrameworkLayout, TypedLayer
from .report import Setting, short

# What layers have mostly, which is not worth a note, and what the shapes of kernels tell.
_USUAL = {
    ("strides", 1),
    ("dilation", 1),
    ("padding", 0),
    ("zero_attention", False),
    ("max_norm", False),
}
_IN_WEIGHTS = (("conv", "groups"),)


def differing(
    path: str, here: TypedLayer, there: TypedLayer | None, layout: FrameworkLayout
) -> Iterator[Setting]:
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


def untold(here: TypedLayer, layout: FrameworkLayout) -> str:
    """Return a note of the settings that a source without types says nothing of."""
    defaults = layout.defaults.get(here.kind, {})
    names = [
        f"{name}={short(value)}"
        for name, value in here.settings.items()
        if not isinstance(value, str | None)
        and name not in defaults
        and (here.kind, name) not in _IN_WEIGHTS
        and not all((name, number) in _USUAL for number in np.ravel(value).tolist())
    ]
    return f"not in the weights: {', '.join(names)}; check" if names else ""
