"""Hints: what users add about layers, because weights do not tell it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from ..._errors import ArgumentTypeError
from ..._state.mismatch import Mismatch, mismatch
from ..._tree.leaves import describe
from .._layouts.canonical import CanonicalArrays
from .._layouts.spec import FrameworkLayout, KeyPath, TypedLayer
from .._rules.base import Rule
from .defaults import Defaults
from .images import Flattened
from .stages import LayerValues, UnfitHint

Hint: TypeAlias = Flattened | Defaults
ImageHints: TypeAlias = Sequence[tuple[KeyPath, Flattened]]


def check_arguments(rules: Iterable[Rule], hints: Iterable[Hint]) -> None:
    """Refuse hints among the rules, rules among the hints, and anything else among the hints."""
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


def image_hints(hints: Iterable[Hint], layout: FrameworkLayout) -> ImageHints:
    """Return the hints about images, each with the key path of its layer."""
    return [(layout.key_path(x.path), x) for x in hints if isinstance(x, Flattened)]


def apply_images(
    hints: Iterable[Flattened],
    layer: TypedLayer,
    canonical: CanonicalArrays,
    source: FrameworkLayout,
) -> tuple[CanonicalArrays, list[str], list[UnfitHint]]:
    """Return a layer with the features of its image permuted, notes, and hints that do not fit.

    Nothing is permuted if both frameworks flatten images in the same order.
    """
    notes: list[str] = []
    unfit: list[UnfitHint] = []
    for hint in hints if canonical else ():
        if not hint.fits(layer.kind, canonical):
            arrays = " and ".join(describe(x) for x in canonical.values())
            unfit.append(UnfitHint(hint, f"{layer.kind} with {arrays}"))
        elif source.channels_first != layer.layout.channels_first:
            canonical = hint.permuted(canonical, channels_first=source.channels_first)
            notes.append(hint.note)
    return canonical, notes, unfit


def unneeded_hints(hints: Sequence[Hint], layers: Iterable[LayerValues]) -> Iterator[Mismatch]:
    """Yield a problem for each hint that concerns no layer."""
    images: set[Flattened] = set()
    globs: set[str] = set()
    for layer in layers:
        images |= set(layer.images)
        globs |= {glob for allowed in layer.defaults.values() for glob in allowed}
    for hint in hints:
        if isinstance(hint, Flattened) and hint not in images:
            expected = f"a dense layer for migrate.{type(hint).__name__.lower()}"
            yield mismatch(hint.path, "missing", expected, "no layer of this name")
    for glob in (x for hint in hints if isinstance(hint, Defaults) for x in hint.where):
        if glob not in globs:
            expected = "a bias, scale or statistic that the source lacks, for migrate.defaults"
            yield mismatch(glob, "missing", expected, "none")
