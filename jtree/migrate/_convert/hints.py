"""Hints: what users add about layers, checked, and applied to the values of a layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..._errors import ArgumentTypeError
from ..._state.mismatch import Mismatch, mismatch
from ..._tree import paths
from ..._tree.leaves import describe
from .._layouts.spec import FrameworkLayout, TypedLayer
from .._layouts.transforms import ONES, ArraySpec, CanonicalArrays
from .._rules.base import Rule
from .bases import AsBase
from .defaults import Defaults
from .images import Flattened
from .stages import LayerMatch, LayerValues, UnfitHint

Hint: TypeAlias = Flattened | Defaults | AsBase


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
                "hints: expected migrate.flattened, migrate.unflattened, migrate.defaults or "
                f"migrate.as_base, found {hint!r}"
            )


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
        if not _fits(hint, layer.kind, canonical):
            arrays = " and ".join(describe(x) for x in canonical.values())
            unfit.append(UnfitHint(hint, f"{layer.kind} with {arrays}"))
        elif source.channels_first != layer.layout.channels_first:
            canonical = _permuted(hint, canonical, channels_first=source.channels_first)
            notes.append(hint.note)
    return canonical, notes, unfit


def _fits(hint: Flattened, kind: str, canonical: CanonicalArrays) -> bool:
    """Return whether a dense layer, or a norm beside it, has as many features as the image."""
    size = math.prod(hint.shape)
    if kind == "dense" and "kernel" in canonical:
        return bool(canonical["kernel"].shape[hint.axis] == size)
    return kind.endswith("_norm") and all(x.shape == (size,) for x in canonical.values())


def _permuted(
    hint: Flattened, canonical: CanonicalArrays, *, channels_first: bool
) -> CanonicalArrays:
    """Return the arrays of a layer with the channels of the image moved to the other end."""
    channels, *space = hint.shape
    indices = np.arange(math.prod(hint.shape))
    if channels_first:
        order = np.moveaxis(indices.reshape(channels, *space), 0, -1).ravel()
    else:
        order = np.moveaxis(indices.reshape(*space, channels), -1, 0).ravel()
    if "kernel" not in canonical:
        return {name: x[order] for name, x in canonical.items()}
    permuted = {"kernel": canonical["kernel"].take(order, hint.axis)}
    if hint.axis == 1 and "bias" in canonical:
        permuted["bias"] = canonical["bias"][order]
    return canonical | permuted


def allowing_globs(
    match: LayerMatch, missing: Iterable[str], hints: Sequence[Hint]
) -> dict[str, Sequence[str]]:
    """Return for each missing array of a layer that may be filled the globs that allow it."""
    if not match.same_kind or len(match.candidates) > 1:
        return {}
    where = [glob for hint in hints if isinstance(hint, Defaults) for glob in hint.where]
    defaulted = (path for path in missing if _default_value(match.specs[path]) is not None)
    globs = {path: [glob for glob in where if paths.matches(glob, path)] for path in defaulted}
    return {path: x for path, x in globs.items() if x}


def default_array(match: LayerMatch, path: str) -> np.ndarray[Any, Any]:
    """Return the identity values of an array of a layer."""
    leaf = match.slots[path].value
    return np.full(leaf.shape, _default_value(match.specs[path]), leaf.dtype)


def default_remedy(path: str, spec: ArraySpec) -> str:
    """Return the advice for a missing array, which is empty if it has no identity value."""
    value = _default_value(spec)
    if value is None:
        return ""
    if spec.canonical[0] in ("mean", "var"):
        return (
            "; if the source and the model normalise by the statistics of each batch, add "
            f"migrate.defaults({path!r}) to hints"
        )
    return f"; for {'ones' if value else 'zeros'}, add migrate.defaults({path!r}) to hints"


def _default_value(spec: ArraySpec) -> int | None:
    """Return the identity value of an array of a layer, or None."""
    values = {_identity(name) for name in spec.canonical}
    return values.pop() if len(values) == 1 else None


def _identity(name: str) -> int | None:
    if name in ONES:
        return 1
    bias = name.startswith(("bias", "hidden_bias")) or name.endswith("_bias")
    return 0 if bias or name == "mean" else None


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
