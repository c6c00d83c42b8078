"""Arrays of the source that the model does not take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from ..._state.mismatch import Mismatch, mismatch
from ..._text import plural
from ..._tree.leaves import describe, equal
from .._layouts.transforms import ArraySpec, KeyPath
from .quantised import dequantise, scaled_weight
from .stages import (
    Candidate,
    LayerMatch,
    Matches,
    NamedSource,
    SourceArray,
    SourceLayer,
    Unused,
)

Taken: TypeAlias = dict[KeyPath, set[int | None]]  # for a stack, the indices of the layers taken

_PARAMETRIZED = re.compile(r"(^|\.)parametrizations\.|(^|\.)weight_(g|v|u|orig)$")


def find_unused(source: NamedSource, matches: Matches) -> Unused:
    """Return the arrays of a source that no match takes; tied heads and counters are ignored."""
    taken: Taken = {}
    for keys, index in _matched(matches):
        if keys in source.by_name:
            taken.setdefault(source.by_name[keys].key_path, set()).add(index)
    arrays = [(match, *pair) for match in matches.layers for pair in _arrays(match, source)]
    tables = [array for match, _, array in arrays if match.layer.kind == "embedding"]
    counters = (array.name for _, spec, array in arrays if not spec.canonical)
    ignored = {**dict.fromkeys(counters, "a counter of batches"), **source.ignored}
    problems: list[Mismatch] = []
    names = {x.name: x.array for x in source.arrays}
    for array in source.arrays:
        indices = taken.get(array.key_path, set())
        table = None if indices else _tied_table(array, tables)
        if table is not None:
            ignored[array.name] = f"equal to {table.name}"
        elif not indices:
            weight = scaled_weight(array.name, names)
            remedy = _remedy(array.name) if weight is None else dequantise(weight)
            problems.append(_untaken(array, remedy))
        elif None not in indices and len(indices) != array.array.shape[0]:
            problems.append(_partly_taken(array, len(indices)))
    untaken = tuple(x.name for x in source.arrays if x.key_path not in taken)
    return Unused(untaken, ignored, problems)


def _matched(matches: Matches) -> Iterator[tuple[KeyPath, int | None]]:
    """Yield the key paths, and indices in stacks, of the arrays that belong to any match."""
    for match in matches.layers:
        below = [spec.key_path for spec in match.source_spec]
        for layer in _matched_layers(match):
            yield from (((*layer.key_path, *keys), layer.index) for keys in below)
    for other in matches.arrays:
        for layer in _candidate_layers(other.candidates):
            yield (*layer.key_path, other.key), layer.index


def _matched_layers(match: LayerMatch) -> Candidate:
    """Return the layers of the source that belong to a match, even if the match is refused."""
    if not match.same_kind and len(match.candidates) < 2:
        return tuple(map(SourceLayer, match.names))
    return _candidate_layers(match.candidates)


def _candidate_layers(candidates: Sequence[Candidate]) -> Candidate:
    if len(candidates) == 1:
        return candidates[0]
    return tuple(SourceLayer(layer.key_path) for x in candidates for layer in x)


def _arrays(match: LayerMatch, source: NamedSource) -> Iterator[tuple[ArraySpec, SourceArray]]:
    """Yield the arrays of the source that a layer is made from, with their specifications."""
    for layer in match.sources:
        for spec in match.source_spec:
            array = source.by_name.get((*layer.key_path, *spec.key_path))
            if array is not None:
                yield spec, array


def _tied_table(array: SourceArray, tables: Sequence[SourceArray]) -> SourceArray | None:
    """Return the table of an embedding that an array is equal to."""
    shape = tuple(array.array.shape)
    same_shape = (table for table in tables if tuple(table.array.shape) == shape)
    matches = (x for x in same_shape if equal(np.asarray(x.array), np.asarray(array.array)))
    return next(matches, None)


def _untaken(array: SourceArray, remedy: str) -> Mismatch:
    text = f"{describe(array.array)}, which no layer of the model takes"
    return mismatch(array.name, "unexpected", "nothing", text, f"; {remedy}")


def _remedy(name: str) -> str:
    if _PARAMETRIZED.search(name):
        return (
            "PyTorch computes a weight from it (weight norm, spectral norm, parametrizations): "
            "call torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight'), "
            "remove_weight_norm or remove_spectral_norm before taking the state dict"
        )
    return f"rename it, or add migrate.drop({name!r}) to rules"


def _partly_taken(array: SourceArray, count: int) -> Mismatch:
    remedy = (
        f"; give the model {array.array.shape[0]} layers, or split the stack with migrate.unstack "
        "and drop the others"
    )
    expected, found = f"a stack of {plural(count, 'layer')}", describe(array.array)
    return mismatch(array.name, "unexpected", expected, found, remedy)
