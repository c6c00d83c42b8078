"""The report of a conversion: the sources of each layer, and what to check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ..._text import plural, render, table
from ..._tree import paths
from .._layouts.spec import KeyPath
from .checks import image_warnings
from .settings import Setting, compare_settings, unknown_settings
from .stages import LayerValues, NamedSource, SourceLayer, Unused, Values

if TYPE_CHECKING:
    from rich.table import Table


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


@dataclass(frozen=True, repr=False)
class Report:
    """The report of `migrate.convert`; it prints as a table.

    Attributes:
      layout: the layout of the source.
      layers: the converted layers of the model.
      copied: for each array that was copied unchanged, its path and its name in the source.
      settings: the settings that differ or may differ; outputs agree only if they are equal.
      warnings: what is probably wrong.
      ignored: for each array of the source that no model needs, its name and the reason.
      kept: the paths of arrays that the model keeps, such as PRNG keys.

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

    def __repr__(self) -> str:
        return f"Report({self._title()})"

    def _title(self) -> str:
        parts = [f"{plural(len(self.layers), 'layer')} from {self.layout}"]
        parts += [f"{plural(len(self.copied), 'array')} copied"] if self.copied else []
        parts += [f"{plural(len(self.settings), 'setting')} to check"] if self.settings else []
        parts += [plural(len(self.warnings), "warning")] if self.warnings else []
        return ", ".join(parts)

    def __rich__(self) -> Table:
        rows = [
            (paths.show(x.path), x.kind, ", ".join(x.sources), "; ".join(x.notes))
            for x in self.layers
        ]
        rows += [(path, "array", name, "copied") for path, name in self.copied.items()]
        dim = [(path, "array", "", "kept: the model's own") for path in self.kept]
        dim += [("", "ignored", name, reason) for name, reason in self.ignored.items()]
        texts = (*self.warnings, *(setting.text for setting in self.settings))
        checks = [("", "check", "", text) for text in texts]
        titles = ("path", "kind", "source", "notes")
        return table(titles, rows, dim, checks, dim={1}, title=self._title())

    def __str__(self) -> str:
        return render(self, width=120)


def make_report(source: NamedSource, values: Values, unused: Unused) -> Report:
    """Return the report of a conversion."""
    layers = [x for x in values.layers if x.arrays]
    settings = (y for x in layers for y in _settings(x, source))
    return Report(
        layout=source.layout.name,
        layers=tuple(_converted_layer(x, source) for x in layers),
        copied={
            x.match.slot.path: ", ".join(_names(x.match.sources, [(x.match.key,)], source))
            for x in values.arrays
            if x.array is not None
        },
        settings=tuple(settings),
        warnings=tuple(image_warnings(values.layers, source.layout)),
        ignored=unused.ignored,
        kept=tuple(values.kept),
    )


def _converted_layer(values: LayerValues, source: NamedSource) -> ConvertedLayer:
    match = values.match
    below = [spec.key_path for spec in match.source_spec if spec.canonical]
    notes = [f"{match.stacked} layers stacked"] if match.stacked else []
    if match.stacked is None and match.sources and match.sources[0].index is not None:
        notes.append(f"layer {match.sources[0].index} of a stack")
    unknown = unknown_settings(match.layer, source.layout) if match.source_layer is None else []
    sources = _names(match.sources, below, source)
    return ConvertedLayer(
        match.layer.path, match.layer.kind, sources, (*notes, *values.notes, *unknown)
    )


def _names(
    layers: Iterable[SourceLayer], below: Sequence[KeyPath], source: NamedSource
) -> tuple[str, ...]:
    """Return the names of arrays of layers of the source, each once."""
    key_paths = ((*layer.key_path, *keys) for layer in layers for keys in below)
    arrays = (source.by_name.get(keys) for keys in key_paths)
    return tuple(dict.fromkeys(x.name for x in arrays if x is not None))


def _settings(values: LayerValues, source: NamedSource) -> Iterator[Setting]:
    """Yield the settings of a layer to check, its type among them if no layout lists it."""
    match, layer = values.match, values.match.layer
    yield from compare_settings(layer, match.source_layer, source.layout)
    keys = {x.key_path for x in match.sources}
    for other in sorted({source.other_types[x] for x in keys if x in source.other_types}):
        yield Setting(layer.path, "type", layer.type, other, known=True)
