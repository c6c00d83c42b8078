"""What is wrong with a layer, as sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..._state.diff import Mismatch
from ..._tree.leaves import describe
from .._layouts.canonical import ONES, TOKENS, CanonicalArrays
from .._layouts.spec import KeyPath, LayerSpec, TypedLayer
from .images import Flattened
from .match import Spot, doubled
from .unused import mismatch


def ambiguous(path: str, ways: Sequence[Sequence[Spot]], separator: str) -> Mismatch:
    """Refuse a layer whose number may be at several steps of its name."""
    names = [[separator.join(spot.prefix) for spot in way] for way in ways]
    rest = f"{separator}{'*' if separator == '.' else '**'}"
    instack = ways[0][0].place is not None
    if instack:
        found = [
            f"layer {way[0].place} of {name[0]}" for way, name in zip(ways, names, strict=True)
        ]
        rule = f"unstack('{names[-1][0]}{rest}', '{names[-1][0]}{separator}#{rest}')"
    else:
        found = [f"{name[0]} to {name[-1]}" for name in names]
        first, second = (spot.prefix for spot in ways[-1][:2])
        above = separator.join(first[: _differ(first, second)])
        rule = f"stack('{above}{separator}#{rest}', '{above}{rest}')"
    return mismatch(
        path,
        "kind",
        "one way to number it in the source",
        " or ".join(found),
        f"; say which with rules such as migrate.{rule}",
    )


def _differ(first: KeyPath, second: KeyPath) -> int:
    """Return the first step at which two names differ."""
    return next(n for n, (x, y) in enumerate(zip(first, second, strict=True)) if x != y)


def wrong_kind(own: TypedLayer, layer: TypedLayer) -> Mismatch:
    """Refuse a layer that is of another kind in the source."""
    advice = (
        "; use that type in the model, or convert from arrays without types (of PyTorch a "
        "state_dict()), with rules such as migrate.reshape where shapes differ"
    )
    expected = f"a layer that {layer.type} can hold"
    return mismatch(layer.name, "kind", expected, f"{own.type} in the source", advice)


def twice(path: str, layer_spec: LayerSpec, held: Mapping[KeyPath, str]) -> Iterator[Mismatch]:
    """Refuse a layer that is there twice, in two ways to store it."""
    for canonical_name, places in doubled(layer_spec, held):
        expected = f"one array for its {canonical_name.replace('_', ' ')}"
        found = " and ".join(held[x] for x in places)
        yield mismatch(path, "kind", expected, found, "; drop or rename one of them with a rule")


def unplaced(layer: TypedLayer, canonical_name: str, x: Any, names: Iterable[str]) -> Mismatch:
    """Refuse numbers that a layer has no place for."""
    number = "one" if canonical_name in ONES else "zero"
    why = "" if canonical_name in TOKENS else f" not all {number},"
    what = f"no {canonical_name.replace('_', ' ')} in {layer.type}"
    found = f"{describe(x)},{why} in {' and '.join(names)}"
    advice = _ADVICE.get(canonical_name, "give the layer this parameter, or drop it with a rule")
    return mismatch(layer.name, "kind", what, found, f"; {advice}")


def no_image(layer: TypedLayer, rule: Flattened, canonical: CanonicalArrays) -> Mismatch:
    """Refuse a layer that has other features than an image that was told."""
    found = f"{layer.kind} {' and '.join(describe(x) for x in canonical.values())}"
    return mismatch(layer.name, "shape", f"a dense layer with {rule.size} {rule.features}", found)


_ADVICE = {
    "hidden_bias_n": "use a GRU that has this bias, as flax.linen.GRUCell and eqx.nn.GRUCell do",
    "mean": "give the model its running statistics: for Equinox, the pair (model, state)",
    "var": "give the model its running statistics: for Equinox, the pair (model, state)",
}
