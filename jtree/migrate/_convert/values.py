"""Values: the source's arrays through the canonical layout into the arrays of the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._tree.leaves import describe
from .._layouts.transforms import (
    KeyPath,
    from_canonical,
    lost_names,
    to_canonical,
)
from .hints import Hint, allowing_globs, apply_images, default_array, unneeded_hints
from .images import Flattened
from .stages import (
    ArrayMatch,
    ArrayValue,
    LayerMatch,
    LayerValues,
    LostArray,
    Matches,
    NamedModel,
    NamedSource,
    SourceArray,
    SourceLayer,
    UnfitHint,
    Values,
)

# Equinox's BatchNorm counts the batches behind its statistics; these values say "enough".
_COUNTERS: dict[str, Any] = {"counter": np.int32(2**30), "first": np.bool_(False)}


def convert_values(
    model: NamedModel, source: NamedSource, matches: Matches, hints: Sequence[Hint]
) -> Values:
    """Return the new arrays of a model from the layers that they match in a source."""
    reader = _Reader(source.by_name, {})
    arrays = [_convert_array(match, reader) for match in matches.arrays]
    layers = [_convert_layer(match, source, reader, hints) for match in matches.layers]
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
    match: LayerMatch, source: NamedSource, reader: _Reader, hints: Sequence[Hint]
) -> LayerValues:
    """Return the new arrays of a layer, stacked if the model stacks its layers."""
    converted = [_convert_source(match, layer, source, reader) for layer in match.sources]
    arrays: dict[str, Any] = {}
    for path in match.specs:
        blocks = [x.arrays[path] for x in converted if path in x.arrays]
        if blocks and len(blocks) == len(converted):
            arrays[path] = blocks[0] if match.stacked is None else np.stack(blocks)
    missing = [path for path in match.specs if path not in arrays] if hints else []
    globs = allowing_globs(match, missing, hints) if missing else {}
    filled = {path: default_array(match, path) for path in globs}
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


def _convert_source(
    match: LayerMatch, layer: SourceLayer, source: NamedSource, reader: _Reader
) -> _ConvertedSource:
    """Return one layer of the source converted, with all that the model's layer lacks."""
    arrays = {
        spec.key_path: reader.read(layer, spec.key_path, axes)
        for spec, axes in zip(match.source_spec, match.source_axes, strict=True)
    }
    doubled = list(_doubled(match, layer, source))
    first = 0 if match.stacked is None else 1
    shapes = {path: slot.value.shape[first:] for path, slot in match.slots.items()}
    hints = [hint for keys, hint in source.images if keys in (*match.names, layer.key_path)]
    stored = {name for spec in match.specs.values() for name in spec.canonical}
    canonical = to_canonical(match.source_spec, arrays, match.source_options)
    notes: Sequence[str] = ()
    unfit: Sequence[UnfitHint] = ()
    if hints:
        canonical, notes, unfit = apply_images(hints, match.layer, canonical, source.layout)
    if "mean" in canonical:
        canonical |= {name: x for name, x in _COUNTERS.items() if name in stored}
    lost = lost_names(canonical, stored)
    return _ConvertedSource(
        layer,
        from_canonical(match.specs, shapes, canonical, match.layer.options),
        hints if canonical else (),
        notes,
        {name: tuple(x.shape) for name, x in canonical.items()},
        [LostArray(name, describe(canonical[name]), layer) for name in lost],
        doubled,
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
