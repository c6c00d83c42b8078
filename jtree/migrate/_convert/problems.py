"""Problems: all the reasons why a source cannot become the model, as sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from ..._errors import did_you_mean
from ..._state.mismatch import Mismatch, mismatch
from .._layouts.spec import FrameworkLayout
from .._layouts.transforms import ONES, TOKENS, KeyPath
from .hints import default_remedy
from .stages import (
    Candidate,
    LayerMatch,
    LayerValues,
    LostArray,
    NamedModel,
    NamedSource,
    UnfitHint,
    Unused,
    Values,
)

_NEAR = 20  # the number of missing arrays for which near names are looked for


def find_problems(
    model: NamedModel,
    source: NamedSource,
    values: Values,
    unused: Unused,
    mismatches: Iterable[Mismatch],
) -> tuple[Mismatch, ...]:
    """Return every reason why nothing can be loaded, sorted by name.

    Args:
      model: the model.
      source: the source.
      values: the new arrays of the model.
      unused: the arrays of the source that the model does not take.
      mismatches: the mismatches of the new arrays with the model.
    """
    problems = [
        *chain.from_iterable(_layer_problems(layer, source) for layer in values.layers),
        *(
            _ambiguous(x.match.slot.path, x.match.candidates, source.layout)
            for x in values.arrays
            if len(x.match.candidates) > 1
        ),
        *unused.problems,
        *values.unneeded,
        *_explained(model, source, values, unused, mismatches),
    ]
    in_model = {slot.path: keys for keys, slot in model.arrays.items()}
    in_source = {x.name: x.key_path for x in source.arrays}

    def order(x: Mismatch) -> tuple[KeyPath, str]:  # a missing array beside its near names
        key_paths = in_model if x.kind == "missing" else in_source
        return key_paths.get(x.path, tuple(x.path.split("/"))), x.kind

    return tuple(sorted(problems, key=order))


def _layer_problems(values: LayerValues, source: NamedSource) -> Iterator[Mismatch]:
    """Yield the problems of a layer other than shapes and missing arrays."""
    match = values.match
    if len(match.candidates) > 1:
        yield _ambiguous(match.layer.path, match.candidates, source.layout)
    elif not match.same_kind:
        yield _other_kind(match)
    else:
        yield from (_doubled(match, name, sources) for name, sources in values.doubled)
        yield from (_lost(match, x, source) for x in values.lost)
        yield from (_unfit(match, x) for x in values.unfit)


def _ambiguous(path: str, candidates: Sequence[Candidate], layout: FrameworkLayout) -> Mismatch:
    """Return the problem of a layer whose number may be at several keys of its name."""
    separator = layout.separator
    names = [[separator.join(layer.key_path) for layer in x] for x in candidates]
    below = f"{separator}{'*' if separator == '.' else '**'}"
    if candidates[0][0].index is None:
        texts = [f"{name[0]} to {name[-1]}" for name in names]
        first, second = (layer.key_path for layer in candidates[-1][:2])
        same = next(n for n, (x, y) in enumerate(zip(first, second, strict=True)) if x != y)
        above = separator.join(first[:same])
        rule = f"stack('{above}{separator}#{below}', '{above}{below}')"
    else:
        pairs = zip(candidates, names, strict=True)
        texts = [f"layer {x[0].index} of {name[0]}" for x, name in pairs]
        rule = f"unstack('{names[-1][0]}{below}', '{names[-1][0]}{separator}#{below}')"
    advice = f"; choose one with rules such as migrate.{rule}"
    return mismatch(path, "kind", "one match in the source", " or ".join(texts), advice)


def _other_kind(match: LayerMatch) -> Mismatch:
    """Return the problem of a layer of another kind in the source."""
    assert match.source_layer is not None
    expected = f"{_words(match.layer.kind)} weights for {match.layer.type}"
    found = f"{match.source_layer.type} in the source"
    advice = (
        "; give the model a matching layer, or pass arrays without types, such as a state_dict(), "
        "with rules where shapes differ"
    )
    return mismatch(match.layer.path, "kind", expected, found, advice)


def _doubled(match: LayerMatch, name: str, sources: Sequence[str]) -> Mismatch:
    """Return the problem of several arrays for one canonical array."""
    expected, found = f"one array for its {_words(name)}", " and ".join(sources)
    advice = "; drop or rename one of them with a rule"
    return mismatch(match.layer.path, "kind", expected, found, advice)


def _lost(match: LayerMatch, lost: LostArray, source: NamedSource) -> Mismatch:
    """Return the problem of an array that the model lacks and whose values are not its default."""
    key_paths = (
        (*lost.source.key_path, *spec.key_path)
        for spec in match.source_spec
        if lost.name in spec.canonical
    )
    names = [source.by_name[keys].name for keys in key_paths if keys in source.by_name]
    values = "" if lost.name in TOKENS else f", which is not all {_default(lost.name)}"
    found = f"{lost.array} in {' and '.join(names)}{values}"
    advice = _REMEDIES.get(lost.name, "add this parameter to the layer, or drop it with a rule")
    expected = f"no {_words(lost.name)} in {match.layer.type}"
    return mismatch(match.layer.path, "kind", expected, found, f"; {advice}")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _default(name: str) -> str:
    return "one" if name in ONES else "zero"


_REMEDIES = {
    "hidden_bias_n": "use a GRU that has this bias, such as flax.linen.GRUCell or eqx.nn.GRUCell",
    "mean": "give the model its running statistics: for Equinox, pass (model, state)",
    "var": "give the model its running statistics: for Equinox, pass (model, state)",
}


def _unfit(match: LayerMatch, unfit: UnfitHint) -> Mismatch:
    """Return the problem of a hint about an image of another size than its layer has."""
    expected = f"a dense layer with {math.prod(unfit.hint.shape)} {unfit.hint.features}"
    advice = f"; correct the shape in {unfit.hint!r}"
    return mismatch(match.layer.path, "shape", expected, unfit.layer, advice)


def _explained(
    model: NamedModel,
    source: NamedSource,
    values: Values,
    unused: Unused,
    mismatches: Iterable[Mismatch],
) -> Iterator[Mismatch]:
    """Yield the mismatches; those of missing arrays name what the source lacks."""
    refused = set(_refused(values))
    others = [x for x in mismatches if x.path not in refused]
    join = source.layout.separator.join
    names = {path: join(keys) for path, keys in expected_names(model, values)}
    remedies: dict[str, str] = {}
    for layer in values.layers:
        remedies |= _remedies(layer, alone=not unused.names)
    for n, x in enumerate(others):
        name = names.get(x.path, "") if x.kind == "missing" else ""
        advice = did_you_mean(name, unused.names) if name and n < _NEAR else ""
        advice += remedies.get(x.path, "")
        yield _missing(x, name, advice) if name else x


def _missing(x: Mismatch, name: str, advice: str) -> Mismatch:
    text = mismatch(x.path, x.kind, x.expected, f"no {name} in the source", advice).text
    return x._replace(text=text)


def _refused(values: Values) -> Iterator[str]:
    """Yield the paths of arrays that are missing only because their layer is refused."""
    for layer in values.layers:
        if len(layer.match.candidates) > 1 or not layer.match.same_kind:
            yield from layer.match.specs
    yield from (x.match.slot.path for x in values.arrays if len(x.match.candidates) > 1)


def _remedies(layer: LayerValues, *, alone: bool) -> dict[str, str]:
    """Return how to fill the missing arrays of a layer, unless its name may be wrong."""
    if not layer.match.sources and not alone:
        return {}
    missing = layer.match.specs.keys() - layer.arrays.keys()
    return {path: default_remedy(path, layer.match.specs[path]) for path in missing}


def expected_names(model: NamedModel, values: Values) -> Iterator[tuple[str, KeyPath]]:
    """Yield for each array of the model its path, and the key path expected in the source."""
    for layer in values.layers:
        match = layer.match
        prefix = model.names[match.key_path][-1]
        if match.sources:
            prefix = (layer.incomplete or match.sources[0]).key_path
        for path, spec in match.specs.items():
            for stored in match.source_spec:
                if {*stored.canonical} & {*spec.canonical}:
                    yield path, (*prefix, *stored.key_path)
                    break
    for x in values.arrays:
        parent = x.match.names[-1] if x.incomplete is None else x.incomplete.key_path
        yield x.match.slot.path, (*parent, x.match.key)
