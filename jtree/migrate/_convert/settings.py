"""Settings: those of layers that differ between model and source, or that weights do not tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..._tree import paths
from .._layouts.spec import FrameworkLayout, TypedLayer

# Settings that most layers have, which need no note, and those that the shapes of kernels tell.
_USUAL = {
    ("strides", 1),
    ("dilation", 1),
    ("padding", 0),
    ("zero_attention", False),
    ("max_norm", False),
}
_TOLD_BY_SHAPES = (("conv", "groups"),)


class Setting(NamedTuple):
    """A setting of a layer that weights do not tell, in the model and in the source.

    Attributes:
      path: the layer in the model.
      name: the setting, such as `"epsilon"`.
      model: its value in the model.
      source: its value in the source, or None where that is unknown.
      known: whether the source tells its value, which else is the default of its framework.
    """

    path: str
    name: str
    model: Any
    source: Any
    known: bool

    @property
    def text(self) -> str:
        """The setting as a sentence."""
        text = f"{paths.show(self.path)}: {self.name}={short(self.model)} in the model"
        if self.source is None:
            return f"{text}, unknown in the source"
        origin = "in the source" if self.known else "by default in the source's framework"
        return f"{text}, {short(self.source)} {origin}"


def compare_settings(
    model: TypedLayer, source: TypedLayer | None, layout: FrameworkLayout
) -> Iterator[Setting]:
    """Yield the settings of a layer that are not the source's, or that may not be.

    Where the type of the source's layer is unknown, the defaults of its framework are compared.
    """
    known = source is not None
    others = layout.defaults.get(model.kind, {}) if source is None else source.settings
    for name, value in model.settings.items():
        other = others.get(name)
        if isinstance(value, str) and not known and value != other:
            yield Setting(model.path, name, value, None, known=False)
        elif name in others and value is not None and not _is_close(value, other):
            yield Setting(model.path, name, value, other, known)


def _is_close(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-6 * max(abs(a), abs(b))
    return bool(a == b)


def unknown_settings(model: TypedLayer, layout: FrameworkLayout) -> list[str]:
    """Return a note of the settings that a source without types tells nothing about, if any."""
    defaults = layout.defaults.get(model.kind, {})
    unknown = [
        f"{name}={short(value)}"
        for name, value in model.settings.items()
        if not isinstance(value, str | None)
        and name not in defaults
        and (model.kind, name) not in _TOLD_BY_SHAPES
        and not all((name, number) in _USUAL for number in np.ravel(value).tolist())
    ]
    return [f"not in the weights: {', '.join(unknown)}; check"] if unknown else []


def short(x: Any) -> str:
    """Return a setting as text."""
    return f"{x:.6g}" if isinstance(x, float) else str(x)
