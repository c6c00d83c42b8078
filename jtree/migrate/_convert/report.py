"""The report of a conversion: the sources of each layer, and what to check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ..._text import format_value, plural, render, table
from ..._tree import paths

if TYPE_CHECKING:
    from rich.table import Table


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
    def only_trains(self) -> bool:
        """Whether the setting matters in training only, as momentum does."""
        return self.name == "momentum"

    @property
    def text(self) -> str:
        """The setting as a sentence."""
        text = f"{paths.show(self.path)}: {self.name}={format_value(self.model)} in the model"
        if self.source is None:
            return f"{text}, unknown in the source"
        origin = "in the source" if self.known else "by default in the source's framework"
        return f"{text}, {format_value(self.source)} {origin}"


class ConvertedLayer(NamedTuple):
    """A layer of the model in a report.

    Attributes:
      path: the path of the layer.
      kind: its kind, such as `"dense"`.
      sources: the names of the arrays of the source that it is made from.
      notes: what was done to it, and what to check.

    Example:
      >>> from flax import nnx
      >>> from jtree import migrate
      >>> model = nnx.Linear(2, 2, use_bias=False, rngs=nnx.Rngs(0))
      >>> model, report = migrate.convert(model, {"weight": np.eye(2)})
      >>> report.layers[0].kind, report.layers[0].sources
      ('dense', ('weight',))
    """

    path: str
    kind: str
    sources: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Cautions(NamedTuple):
    """The first lines of a report: warnings, and settings that are not verified."""

    warnings: Sequence[str]
    unverified: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Report:
    """The report of `migrate.convert`; it prints as a table.

    Attributes:
      layout: the layout of the source.
      layers: the converted layers of the model.
      copied: for each array that was copied unchanged, its path and its name in the source.
      settings: the settings that differ or may differ, those that matter in training only last;
        outputs agree only if the others are equal.
      warnings: what is probably wrong.
      ignored: for each array of the source that no model needs, its name and the reason.
      kept: the paths of arrays that the model keeps, such as PRNG keys.
      unverified: settings that change the outputs and that the source does not tell.

    Example:
      >>> from flax import nnx
      >>> from jtree import migrate
      >>> model = nnx.LayerNorm(2, rngs=nnx.Rngs(0))
      >>> model, report = migrate.convert(model, {"weight": np.ones(2), "bias": np.zeros(2)})
      >>> report
      Report(1 layer from torch, 1 setting to check)
    """

    layout: str
    layers: tuple[ConvertedLayer, ...] = ()
    copied: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[Setting, ...] = ()
    warnings: tuple[str, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Report({self._title()})"

    def _title(self) -> str:
        parts = [f"{plural(len(self.layers), 'layer')} from {self.layout}"]
        parts += [f"{plural(len(self.copied), 'array')} copied"] if self.copied else []
        parts += [f"{plural(len(self.settings), 'setting')} to check"] if self.settings else []
        parts += [plural(len(self.warnings), "warning")] if self.warnings else []
        parts += [f"{len(self.unverified)} not verified"] if self.unverified else []
        return ", ".join(parts)

    def __rich__(self) -> Table:
        rows = [
            (paths.show(x.path), x.kind, ", ".join(x.sources), "; ".join(x.notes))
            for x in self.layers
        ]
        rows += [(path, "array", name, "copied") for path, name in self.copied.items()]
        dim = [(path, "array", "", "kept: the model's own") for path in self.kept]
        dim += [("", "ignored", name, reason) for name, reason in self.ignored.items()]
        outputs = [x.text for x in self.settings if not x.only_trains]
        training = [x.text for x in self.settings if x.only_trains]
        first = [("", "check", "", x) for x in (*self.warnings, *self.unverified, *outputs)]
        last = [("", "training", "", x) for x in training]
        titles = ("path", "kind", "source", "notes")
        return table(titles, first, rows, dim, last, dim={2, 3}, title=self._title())

    def __str__(self) -> str:
        return render(self, width=120)
