"""What users tell of layers, and which of it there was a layer for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TypeAlias

from ..._state.diff import Mismatch
from .._layouts.canonical import CanonicalArrays
from .._layouts.spec import ArraySpec, FrameworkLayout, KeyPath, TypedLayer
from .defaults import Neutral, allowed, neutral_number
from .images import Flattened
from .names import key_path
from .problems import no_image
from .unused import mismatch

Rules: TypeAlias = Flattened | Neutral


class Told:
    """Rules about layers, for sources of a layout.

    Attributes:
      sides: the layers that have an image, and the axis of their kernel that is one.
      problems: what does not fit.
    """

    def __init__(self, rules: Sequence[Rules], layout: FrameworkLayout) -> None:
        self.layout = layout
        self.images = [(key_path(x.path, layout), x) for x in rules if isinstance(x, Flattened)]
        self.neutral = [x for x in rules if isinstance(x, Neutral)]
        self.sides: set[tuple[KeyPath, int]] = set()
        self.problems: list[Mismatch] = []
        self.needed: set[Flattened | str] = set()

    def image(
        self,
        place: KeyPath,
        names: Collection[KeyPath],
        layer: TypedLayer,
        canonical: CanonicalArrays,
    ) -> tuple[CanonicalArrays, list[str]]:
        """Return a layer with the features that are an image permuted, and notes of it."""
        notes: list[str] = []
        for path, rule in self.images:
            if path not in names or not canonical:
                continue
            self.needed.add(rule)
            self.sides.add((place, rule.side))
            if not rule.fits(layer.kind, canonical):
                self.problems.append(no_image(layer, rule, canonical))
            elif self.layout.channels_first != layer.layout.channels_first:
                canonical = rule.permuted(canonical, channels_first=self.layout.channels_first)
                notes.append(rule.note)
        return canonical, notes

    def number(self, path: str, spec: ArraySpec) -> int | None:
        """Return the neutral number that an array may be filled with, or None."""
        number, globs = neutral_number(spec), allowed(self.neutral, path)
        if number is None or not globs:
            return None
        self.needed |= set(globs)
        return number

    def unneeded(self) -> Iterator[Mismatch]:
        """Yield what there was no layer for."""
        for _, rule in self.images:
            if rule not in self.needed:
                what = f"a dense layer for {type(rule).__name__.lower()}"
                yield mismatch(rule.path, "missing", what, "none of that name")
        for glob in (glob for rule in self.neutral for glob in rule.where):
            if glob not in self.needed:
                what = "a bias, a scale or a statistic that the source has not, for neutral"
                yield mismatch(glob, "missing", what, "none")
