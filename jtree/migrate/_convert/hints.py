"""Hints: what users add about layers, and which hints no layer needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TypeAlias

from ..._errors import ArgumentTypeError
from ..._state.diff import Mismatch
from .._layouts.canonical import CanonicalArrays
from .._layouts.spec import ArraySpec, FrameworkLayout, KeyPath, TypedLayer
from .._rules.base import Rule
from .defaults import Defaults, allowed, default_value
from .images import Flattened
from .names import key_path
from .problems import no_image
from .unused import mismatch

Hint: TypeAlias = Flattened | Defaults


def checked(rules: Iterable[Rule], hints: Iterable[Hint]) -> tuple[list[Rule], list[Hint]]:
    """Return rules and hints, or refuse one of them among the others."""
    rules, hints = list(rules), list(hints)
    for rule in rules:
        if isinstance(rule, Hint):
            raise ArgumentTypeError(
                f"rules: {rule!r} is a hint about the model's layers, not a rule that rewrites the "
                f"source; pass it as hints=[{rule!r}]"
            )
    for hint in hints:
        if isinstance(hint, Rule):
            raise ArgumentTypeError(
                f"hints: {hint!r} is a rule that rewrites the source, not a hint about the model's "
                f"layers; pass it as rules=[{hint!r}]"
            )
        if not isinstance(hint, Hint):
            raise ArgumentTypeError(
                "hints: expected migrate.flattened, migrate.unflattened or migrate.defaults, "
                f"found {hint!r}"
            )
    return rules, hints


class Told:
    """Hints about layers, for sources of a layout.

    Attributes:
      sides: the layers that have an image, and the axis of their kernel that is one.
      problems: what does not fit.
    """

    def __init__(self, rules: Sequence[Hint], layout: FrameworkLayout) -> None:
        self.layout = layout
        self.images = [(key_path(x.path, layout), x) for x in rules if isinstance(x, Flattened)]
        self.defaults = [x for x in rules if isinstance(x, Defaults)]
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
        """Return the value that an array may be filled with, or None."""
        number, globs = default_value(spec), allowed(self.defaults, path)
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
        for glob in (glob for hint in self.defaults for glob in hint.where):
            if glob not in self.needed:
                what = "a bias, a scale or a statistic that the source lacks, for defaults"
                yield mismatch(glob, "missing", what, "none")
