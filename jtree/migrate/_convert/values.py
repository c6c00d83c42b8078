"""Values: the new arrays of the model, from those of the source through the canonical layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._tree.leaves import describe
from .._layouts.canonical import CanonicalArrays, from_canonical, lost_names, to_canonical
from .._layouts.spec import KeyPath
from .defaults import Defaults, allowing_globs, default_value, value_name
from .hints import Hint, ImageHints, apply_images, image_hints
from .images import Flattened
from .stages import (
    ArrayMatch,
    ArrayValue,
    LayerMatch,
    LayerValues,
    LostArray,
    Matches,
    NamedSource,
    SourceArray,
    SourceLayer,
    TypedModel,
    UnfitHint,
    Values,
)

# What Equinox's BatchNorm keeps beside its statistics: they are of many batches, as of one.
_COUNTERS: dict[str, Any] = {"counter": np.int32(2**30), "first": np.bool_(False)}


def convert_values(
    model: TypedModel, source: NamedSource, matches: Matches, hints: Sequence[Hint]
) -> Values:
    """Return the new arrays of a model, with what the source lacks, and what the model lacks."""
    reader = _Reader(source.by_name, {})
    images = image_hints(hints, source.layout) if hints else []
    defaults = [hint for hint in hints if isinstance(hint, Defaults)]
    layers = [_convert_layer(match, source, reader, images, defaults) for match in matches.layers]
    arrays = [_convert_array(match, reader) for match in matches.arrays]
    by_path = {x.match.slot.path: x.array for x in arrays if x.array is not None}
    for layer in layers:
        by_path |= layer.arrays
    missing = [x.match for x in arrays if x.array is None and len(x.match.candidates) < 2]
    kept = [x.slot.path for x in missing if x.slot.path in model.optional]
    return Values(layers, arrays, by_path | dict.fromkeys(kept), kept)


class _Reader(NamedTuple):
    """Reads arrays of a source; a stack is read once for all of its layers."""

    arrays: Mapping[KeyPath, SourceArray]
    stacks: dict[KeyPath, Any]

    def read(self, layer: SourceLayer, keys: KeyPath, rank: int | None) -> Any:
        """Return an array of a layer, or None; one of a stack has an axis more than its rank."""
        found = self.arrays.get((*layer.key_path, *keys))
        if found is None or layer.index is None:
            return None if found is None else np.asarray(found.array)
        shape = tuple(found.array.shape)
        if len(shape) - 1 != rank or layer.index >= shape[0]:
            return None
        if found.key_path not in self.stacks:
            self.stacks[found.key_path] = np.asarray(found.array)
        return self.stacks[found.key_path][layer.index]


def _convert_array(match: ArrayMatch, reader: _Reader) -> ArrayValue:
    """Return the array as the source has it, or None where the source lacks some of it."""
    rank = len(match.slot.value.shape)
    arrays = [reader.read(layer, (match.key,), rank) for layer in match.sources]
    pairs = zip(match.sources, arrays, strict=True)
    incomplete = next((layer for layer, x in pairs if x is None), None)
    if not arrays or incomplete is not None:
        return ArrayValue(match, None, incomplete)
    return ArrayValue(match, arrays[0] if match.stacked is None else np.stack(arrays), None)


class _Converted(NamedTuple):
    """What one layer of the source becomes."""

    source: SourceLayer
    arrays: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    lost: Sequence[LostArray]
    images: Sequence[Flattened]
    notes: Sequence[str]
    unfit: Sequence[UnfitHint]


def _convert_layer(
    match: LayerMatch,
    source: NamedSource,
    reader: _Reader,
    images: ImageHints,
    defaults: Sequence[Defaults],
) -> LayerValues:
    """Return the new arrays of a layer, stacked where the model has a stack."""
    converted = [_convert_one(match, layer, source, reader, images) for layer in match.sources]
    arrays: dict[str, Any] = {}
    for path in match.specs:
        blocks = [x.arrays[path] for x in converted if path in x.arrays]
        if blocks and len(blocks) == len(converted):
            arrays[path] = blocks[0] if match.stacked is None else np.stack(blocks)
    incomplete = [x.source for x in converted if len(x.arrays) < len(match.specs)]
    filled, globs, notes = _fill(match, arrays, defaults)
    return LayerValues(
        match,
        arrays | filled,
        globs,
        _distinct(x.images for x in converted),
        _distinct([*(x.notes for x in converted), notes]),
        converted[-1].shapes if converted else {},
        incomplete[0] if incomplete else None,
        [array for x in converted for array in x.lost],
        _distinct(x.unfit for x in converted),
    )


def _distinct(groups: Iterable[Iterable[Any]]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(x for group in groups for x in group))


def _convert_one(
    match: LayerMatch,
    layer: SourceLayer,
    source: NamedSource,
    reader: _Reader,
    images: ImageHints,
) -> _Converted:
    """Return what one layer of the source becomes, alone or in a stack of the model."""
    options = match.layer.options if match.source_layer is None else match.source_layer.options
    arrays = {
        spec.key_path: reader.read(
            layer,
            spec.key_path,
            None if layer.index is None else spec.transform.rank(options),
        )
        for spec in match.source_spec
    }
    canonical = to_canonical(match.source_spec, arrays, options)
    hints = [hint for keys, hint in images if keys in (*match.names, layer.key_path)]
    notes: Sequence[str] = ()
    unfit: Sequence[UnfitHint] = ()
    if hints:
        canonical, notes, unfit = apply_images(hints, match.layer, canonical, source.layout)
    stored = {name for spec in match.specs.values() for name in spec.canonical}
    if "mean" in canonical:
        canonical |= {name: x for name, x in _COUNTERS.items() if name in stored}
    lost = [
        LostArray(name, describe(canonical[name]), layer) for name in lost_names(canonical, stored)
    ]
    shapes = {name: tuple(x.shape) for name, x in canonical.items()}
    used = hints if canonical else []
    return _Converted(layer, _write(match, canonical), shapes, lost, used, notes, unfit)


def _write(match: LayerMatch, canonical: CanonicalArrays) -> dict[str, Any]:
    """Return the arrays of a layer as the model stores them."""
    start = 0 if match.stacked is None else 1
    arrays = {}
    for slot in match.slots:
        shape = slot.value.shape[start:]
        x = from_canonical(match.specs[slot.path], canonical, match.layer.options, shape)
        if x is not None:
            arrays[slot.path] = x
    return arrays


def _fill(
    match: LayerMatch, arrays: Mapping[str, Any], defaults: Sequence[Defaults]
) -> tuple[dict[str, Any], dict[str, Sequence[str]], list[str]]:
    """Return defaults for missing arrays, the globs that allow them, and notes that say so."""
    filled: dict[str, Any] = {}
    allowed: dict[str, Sequence[str]] = {}
    notes: list[str] = []
    certain = match.same_kind and len(match.candidates) < 2
    for slot in match.slots if defaults and certain else ():
        spec, globs = match.specs[slot.path], allowing_globs(defaults, slot.path)
        value = default_value(spec)
        if slot.path not in arrays and globs and value is not None:
            filled[slot.path] = np.full(slot.value.shape, value, slot.value.dtype)
            allowed[slot.path] = globs
            notes.append(f"{spec.path}: {value_name(value)}, by migrate.defaults")
    return filled, allowed, notes
