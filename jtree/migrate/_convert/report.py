"""What a conversion did: what came from where, and what weights cannot carry."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

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
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self._title())
        for column in ("place", "kind", "from", "notes"):
            table.add_column(column, overflow="fold")

        def add(*cells: str, style: str = "") -> None:
            table.add_row(*map(Text, cells), style=style)

        for layer in self.layers:
            add(
                paths.show(layer.path), layer.kind, ", ".join(layer.sources), "; ".join(layer.notes)
            )
        for path, name in (self.copied or {}).items():
            add(path, "array", name, "as it is")
        for path in self.kept:
            add(path, "kept", "", "the model's own", style="dim")
        for name, reason in (self.ignored or {}).items():
            add("", "ignored", name, reason, style="dim")
        table.add_section()
        for text in (*self.warnings, *(setting.text for setting in self.settings)):
            add("", "check", "", text)
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=120, color_system=None)
        console.print(self)
        return console.file.getvalue().rstrip()  # type: ignore[attr-defined, no-any-return]


def short(x: Any) -> str:
    """Return a setting as text."""
    return f"{x:.6g}" if isinstance(x, float) else str(x)
