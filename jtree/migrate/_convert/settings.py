"""Settings of layers, such as epsilon and strides, that are not among the weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..._tree import paths
from .._layouts.spec import FrameworkLayout, TypedLayer

# Values that most layers have need no note, nor settings that the shape of the kernel tells.
_USUAL = {
    ("strides", 1),
    ("dilation", 1),
    ("padding", 0),
    ("zero_attention", False),
    ("max_norm", False),
}
_KNOWN_FROM_SHAPES = (("conv", "groups"),)


class Setting(NamedTuple):
    """A setting of a layer that may differ between the model and the source.

    Attributes:
      path: the path of the layer.
      name: the name of the setting, such as `"epsilon"`.
      model: its value in the model.
      source: its value in the source, or None if that is unknown.
      known: whether the value is the source's own, and not the default of its framework.

    Example:
      >>> from flax import nnx
      >>> from jtree import migrate
      >>> model = nnx.LayerNorm(2, rngs=nnx.Rngs(0))
      >>> model, report = migrate.convert(model, {"weight": np.ones(2), "bias": np.zeros(2)})
      >>> report.settings[0].text
      "(root): epsilon=1e-06 in the model, 1e-05 by default in the source's framework"
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
    """Yield the settings of a layer that differ from those of the source, or that may.

    If the type of the source's layer is unknown, the defaults of its framework are compared.
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
    """Return a note on the settings that a source without types does not tell, if any."""
    defaults = layout.defaults.get(model.kind, {})
    unknown = [
        f"{name}={short(value)}"
        for name, value in model.settings.items()
        if not isinstance(value, str | None)
        and name not in defaults
        and (model.kind, name) not in _KNOWN_FROM_SHAPES
        and not all((name, number) in _USUAL for number in np.ravel(value).tolist())
    ]
    return [f"not in the weights: {', '.join(unknown)}; check"] if unknown else []


def short(x: Any) -> str:
    """Return a setting as text."""
    return f"{x:.6g}" if isinstance(x, float) else str(x)
