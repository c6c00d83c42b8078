"""Values: the source's arrays through the canonical layout into the arrays of the model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._tree.leaves import describe
from .._layouts.canonical import CanonicalArrays, from_canonical, lost_names, to_canonical
from .._layouts.spec import KeyPath
from .defaults import Defaults, allowing_globs, default_value
from .hints import Hint, ImageHints, apply_images, image_hints, unneeded_hints
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

# Equinox's BatchNorm counts the batches behind its statistics; these values say "enough".
_COUNTERS: dict[str, Any] = {"counter": np.int32(2**30), "first": np.bool_(False)}


def convert_values(
    model: TypedModel, source: NamedSource, matches: Matches, hints: Sequence[Hint]
) -> Values:
    """Return the new arrays of a model from the layers that they match in a source."""
    reader = _Reader(source.by_name, {})
    images = image_hints(hints, source.layout) if hints else []
    defaults = [hint for hint in hints if isinstance(hint, Defaults)]
    layers = [_convert_layer(match, source, reader, images, defaults) for match in matches.layers]
    arrays = [_convert_array(match, reader) for match in matches.arrays]
    by_path = {x.match.slot.path: x.array for x in arrays if x.array is not None}
    for layer in layers:
        by_path |= layer.arrays
    missing = [x.match for x in arrays if x.array is None and len(x.match.candidates) < 2]
    tied = {slot.tie for slot in model.arrays.values() if slot.path in by_path}
    optional = [x.slot for x in missing if x.slot.path in model.optional]
    kept = [slot.path for slot in optional if slot.tie not in tied]
    unneeded = list(unneeded_hints(hints, layers)) if hints else []
    refused = bool(unneeded) or any(x.lost or x.doubled or x.unfit for x in layers)
    return Values(layers, arrays, by_path | dict.fromkeys(kept), kept, unneeded, refused)


class _Reader(NamedTuple):
    """Reads arrays of a source, a stack only once for all of its layers."""

    arrays: Mapping[KeyPath, SourceArray]
    stacks: dict[KeyPath, Any]

    def read(self, layer: SourceLayer, keys: KeyPath, rank: int) -> Any:
        """Return an array of a layer, or None if the source, or its stack, lacks it."""
        source = self.arrays.get((*layer.key_path, *keys))
        if source is None or layer.index is None:
            return None if source is None else np.asarray(source.array)
        shape = tuple(source.array.shape)
        if len(shape) != rank + 1 or layer.index >= shape[0]:
            return None
        if source.key_path not in self.stacks:
            self.stacks[source.key_path] = np.asarray(source.array)
        return self.stacks[source.key_path][layer.index]


def _convert_array(match: ArrayMatch, reader: _Reader) -> ArrayValue:
    """Return the array of the source unchanged, or its arrays stacked."""
    rank = len(match.slot.value.shape)
    arrays = [reader.read(layer, (match.key,), rank) for layer in match.sources]
    pairs = zip(match.sources, arrays, strict=True)
    incomplete = next((layer for layer, x in pairs if x is None), None)
    if not arrays or incomplete is not None:
        return ArrayValue(match, None, incomplete)
    return ArrayValue(match, arrays[0] if match.stacked is None else np.stack(arrays), None)


class _ConvertedSource(NamedTuple):
    """One layer of the source converted; the attributes are those of `LayerValues`."""

    source: SourceLayer
    arrays: Mapping[str, Any]
    images: Sequence[Flattened]
    notes: Sequence[str]
    shapes: Mapping[str, tuple[int, ...]]
    lost: Sequence[LostArray]
    doubled: Sequence[tuple[str, Sequence[str]]]
    unfit: Sequence[UnfitHint]


def _convert_layer(
    match: LayerMatch,
    source: NamedSource,
    reader: _Reader,
    images: ImageHints,
    defaults: Sequence[Defaults],
) -> LayerValues:
    """Return the new arrays of a layer, stacked if the model stacks its layers."""
    converted = [_convert_source(match, layer, source, reader, images) for layer in match.sources]
    arrays: dict[str, Any] = {}
    for path in match.specs:
        blocks = [x.arrays[path] for x in converted if path in x.arrays]
        if blocks and len(blocks) == len(converted):
            arrays[path] = blocks[0] if match.stacked is None else np.stack(blocks)
    globs = _allowed_defaults(match, arrays, defaults) if defaults else {}
    filled = {path: _default(match, path) for path in globs}
    notes = [
        f"{match.specs[path].path}: {'ones' if x.all() else 'zeros'}, by migrate.defaults"
        for path, x in filled.items()
    ]
    return LayerValues(
        match,
        arrays | filled,
        globs,
        _distinct(x.images for x in converted),
        _distinct([*(x.notes for x in converted), notes]),
        converted[-1].shapes if converted else {},
        next((x.source for x in converted if len(x.arrays) < len(match.specs)), None),
        [array for x in converted for array in x.lost],
        [pair for x in converted for pair in x.doubled],
        _distinct(x.unfit for x in converted),
    )


def _distinct(groups: Iterable[Iterable[Any]]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(x for group in groups for x in group))


def _allowed_defaults(
    match: LayerMatch, arrays: Collection[str], hints: Sequence[Defaults]
) -> dict[str, Sequence[str]]:
    """Return for each missing array that may be filled the globs that allow it."""
    if not match.same_kind or len(match.candidates) > 1:
        return {}
    defaulted = (x for x, spec in match.specs.items() if default_value(spec) is not None)
    globs = {path: allowing_globs(hints, path) for path in defaulted if path not in arrays}
    return {path: x for path, x in globs.items() if x}


def _default(match: LayerMatch, path: str) -> np.ndarray[Any, Any]:
    leaf = match.slots[path].value
    return np.full(leaf.shape, default_value(match.specs[path]), leaf.dtype)


def _convert_source(
    match: LayerMatch,
    layer: SourceLayer,
    source: NamedSource,
    reader: _Reader,
    images: ImageHints,
) -> _ConvertedSource:
    """Return one layer of the source converted, with all that the model's layer lacks."""
    options = match.layer.options if match.source_layer is None else match.source_layer.options
    arrays = {
        spec.key_path: reader.read(
            layer, spec.key_path, 0 if layer.index is None else spec.transform.rank(options)
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
    lost = lost_names(canonical, stored)
    return _ConvertedSource(
        layer,
        _write(match, canonical),
        hints if canonical else (),
        notes,
        {name: tuple(x.shape) for name, x in canonical.items()},
        [LostArray(name, describe(canonical[name]), layer) for name in lost],
        list(_doubled(match, layer, source)),
        unfit,
    )


def _doubled(
    match: LayerMatch, layer: SourceLayer, source: NamedSource
) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield canonical arrays with several sources, apart from the biases of cells, which add up."""
    names: dict[str, list[str]] = {}
    for spec in match.source_spec:
        array = source.by_name.get((*layer.key_path, *spec.key_path))
        if array is not None:
            for name in spec.canonical:
                names.setdefault(name, []).append(array.name)
    for name, sources in names.items():
        if name and len(sources) > 1 and not name.startswith("bias_"):
            yield name, sources


def _write(match: LayerMatch, canonical: CanonicalArrays) -> dict[str, Any]:
    """Return the arrays of a layer of the model, without those that have no canonical arrays."""
    first = 0 if match.stacked is None else 1
    arrays = {}
    for path, slot in match.slots.items():
        spec, shape = match.specs[path], slot.value.shape[first:]
        x = from_canonical(spec, canonical, match.layer.options, shape)
        if x is not None:
            arrays[path] = x
    return arrays
