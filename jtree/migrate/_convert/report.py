"""What a conversion did: what came from where, and what weights cannot carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..._text import render, table
from ..._tree import paths

if TYPE_CHECKING:
    from rich.table import Table


class ConvertedLayer(NamedTuple):
    """A layer, and the arrays of the source that it was made from; `notes` say what is unusual."""

    path: str
    kind: str
    sources: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Setting(NamedTuple):
    """A setting of a layer that weights cannot carry, here and in the source.

    `known` tells whether the source says so itself, or it is its framework's default.
    """

    path: str
    name: str
    here: Any
    there: Any
    known: bool

    @property
    def text(self) -> str:
        """The setting as a sentence."""
        there = "in the source" if self.known else "by default in the source's framework"
        if self.there is None:
            there = "which weights do not tell of the source"
            return f"{paths.show(self.path)}: {self.name}={short(self.here)}, {there}"
        return (
            f"{paths.show(self.path)}: {self.name}={short(self.here)} in the model, "
            f"{short(self.there)} {there}"
        )


@dataclass(frozen=True, repr=False)
class Report:
    """What `migrate.convert` did.

    Attributes:
      layout: how the source stores layers.
      layers: what each layer was made from.
      copied: arrays that no type of layer explains, taken as they are: from place to source.
      settings: those that differ, or cannot be known; outputs agree only where they do.
      warnings: what is probably wrong.
      ignored: arrays of the source that nothing needs, and why.
      kept: places of the model that stay as they were, such as PRNG keys.
    """

    layout: str
    layers: tuple[ConvertedLayer, ...] = ()
    copied: Mapping[str, str] | None = None
    settings: tuple[Setting, ...] = ()
    warnings: tuple[str, ...] = ()
    ignored: Mapping[str, str] | None = None
    kept: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Report({self._title()})"

    def _title(self) -> str:
        parts = [f"{len(self.layers)} layers from {self.layout}"]
        parts += [f"{len(self.copied)} arrays as they are"] if self.copied else []
        parts += [f"{len(self.settings)} settings to check"] if self.settings else []
        parts += [f"{len(self.warnings)} warnings"] if self.warnings else []
        return ", ".join(parts)

    def __rich__(self) -> Table:
        rows = [
            (paths.show(x.path), x.kind, ", ".join(x.sources), "; ".join(x.notes))
            for x in self.layers
        ]
        rows += [(path, "array", name, "as it is") for path, name in (self.copied or {}).items()]
        kept = [(path, "kept", "", "the model's own") for path in self.kept]
        kept += [("", "ignored", name, reason) for name, reason in (self.ignored or {}).items()]
        texts = (*self.warnings, *(setting.text for setting in self.settings))
        checks = [("", "check", "", text) for text in texts]
        titles = ("place", "kind", "from", "notes")
        return table(titles, rows, kept, checks, dim={1}, title=self._title())

    def __str__(self) -> str:
        return render(self, width=120)


def short(x: Any) -> str:
    """Return a setting as text."""
    return f"{x:.6g}" if isinstance(x, float) else str(x)
