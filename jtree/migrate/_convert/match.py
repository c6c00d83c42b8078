"""Matching of the model's layers with those of the source, single or stacked."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count, takewhile
from typing import Any, NamedTuple, TypeAlias

from ..._tree.ties import Slot
from .._layouts.spec import FrameworkLayout, TypedLayer
from .._layouts.transforms import ArraySpec, KeyPath, LayerSpec
from .stages import ArrayMatch, Candidate, LayerMatch, Matches, NamedModel, NamedSource, SourceLayer

RECURRENT = ("lstm", "gru", "rnn")
Shapes: TypeAlias = Mapping[KeyPath, tuple[int, ...]]


def match_layers(model: NamedModel, source: NamedSource) -> Matches:
    """Return a match for each typed layer of the model, and for each array outside of them."""
    shapes = {keys: tuple(x.array.shape) for keys, x in source.by_name.items()}
    known = set(chain.from_iterable(model.names.values()))
    layers: dict[KeyPath, list[tuple[Slot, ArraySpec]]] = {}
    arrays: list[ArrayMatch] = []
    for keys, slot in model.arrays.items():
        above = (keys[:n] for n in reversed(range(len(keys))))  # `fc_1` lies below `fc`, too
        layer = next((x for x in above if x in model.layers), None)
        spec = None if layer is None else _spec_at(model.layers[layer].spec, keys[len(layer) :])
        if layer is None or spec is None:
            arrays.append(_match_array(slot, keys[-1], model.names[keys[:-1]], shapes, known))
        else:
            layers.setdefault(layer, []).append((slot, spec))
    matches = (
        _match_layer(keys, model, specs, source, shapes, known) for keys, specs in layers.items()
    )
    return Matches(tuple(matches), tuple(arrays))


def _spec_at(layer_spec: LayerSpec, keys: KeyPath) -> ArraySpec | None:
    return next((spec for spec in layer_spec if spec.key_path == keys), None)


def _match_array(
    slot: Slot, key: str, names: Sequence[KeyPath], shapes: Shapes, known: Container[KeyPath]
) -> ArrayMatch:
    shape = slot.value.shape
    for stacked in (None, shape[0] if shape else None):
        candidates = find_layers(shapes, names, [(key,)], stacked, known)
        if candidates:
            break
    sources = candidates[0] if len(candidates) == 1 else ()
    return ArrayMatch(slot, key, stacked, names, candidates, sources)


def _match_layer(
    keys: KeyPath,
    model: NamedModel,
    specs: Sequence[tuple[Slot, ArraySpec]],
    source: NamedSource,
    shapes: Shapes,
    known: Container[KeyPath],
) -> LayerMatch:
    layer = model.layers[keys]
    names = _source_names(source.layout, layer.kind, model.names[keys])
    source_layer = next((source.layers[name] for name in names if name in source.layers), None)
    if source_layer is not None and source_layer.guessed and source_layer.kind != layer.kind:
        source_layer = None
    same_kind = source_layer is None or _can_become(source_layer.kind, layer.kind)
    source_spec = _source_spec(source.layout, layer, source_layer)
    options = layer.options if source_layer is None else source_layer.options
    stacked = _count_stacked(layer, specs)
    below = [spec.key_path for spec in source_spec]
    candidates = find_layers(shapes, names, below, stacked, known)
    return LayerMatch(
        keys,
        layer,
        {slot.path: slot for slot, _ in specs},
        {slot.path: spec for slot, spec in specs},
        stacked,
        names,
        source_spec,
        [_count_axes(spec, options) for spec in source_spec],
        options,
        source_layer,
        same_kind,
        candidates,
        candidates[0] if same_kind and len(candidates) == 1 else (),
    )


def _can_become(source: str, model: str) -> bool:
    """Return whether one kind of layer can be made from another; an instance norm has groups."""
    return source == model or (source, model) == ("instance_norm", "group_norm")


def _count_stacked(layer: TypedLayer, specs: Sequence[tuple[Slot, ArraySpec]]) -> int | None:
    """Return the number of stacked layers, whose arrays have one axis more than the type needs."""
    counts = set()
    for slot, spec in specs:
        shape = slot.value.shape
        one_more = len(shape) == _count_axes(spec, layer.options) + 1
        counts.add(int(shape[0]) if one_more else None)
    return counts.pop() if len(counts) == 1 else None


def _count_axes(spec: ArraySpec, options: Mapping[str, Any]) -> int:
    """Return the number of axes of an array of one layer."""
    counts = (options.get(name, count) for name, count in spec.transform.options)
    return spec.transform.axes + sum(map(int, counts))


def _source_names(
    layout: FrameworkLayout, kind: str, names: Sequence[KeyPath]
) -> Sequence[KeyPath]:
    """Return the key paths that a layer may have; PyTorch numbers the layers of an RNN module."""
    if layout.name != "torch" or kind not in RECURRENT:
        return names
    numbered = [(*name, "0") for name in names]
    reverse = [(*name[:-1], "0", "reverse") for name in names if name[-1:] == ("reverse",)]
    return [*names, *numbered, *reverse]


def _source_spec(
    layout: FrameworkLayout, layer: TypedLayer, source_layer: TypedLayer | None
) -> LayerSpec:
    """Return the specification of a layer in the source, from its type or its framework."""
    if source_layer is not None:
        return source_layer.spec
    if layout.name == layer.layout.name:
        return layer.spec
    return _with_names(layout.specs.get(layer.kind, ()), layer)


def _with_names(source_spec: LayerSpec, layer: TypedLayer) -> LayerSpec:
    """Return a specification that also accepts the model's names, such as `query` and `out`."""
    names = {
        spec.canonical[0]: spec.key_path[0]
        for spec in layer.spec
        if len(spec.canonical) == 1 and len(spec.key_path) == 2
    }
    renamed = (
        replace(spec, path=f"{names[spec.canonical[0]]}/{spec.key_path[1]}")
        for spec in source_spec
        if len(spec.canonical) == 1 and len(spec.key_path) == 2 and spec.canonical[0] in names
    )
    known = {spec.path for spec in source_spec}
    return (*source_spec, *(spec for spec in renamed if spec.path not in known))


def find_layers(
    shapes: Shapes,
    names: Collection[KeyPath],
    below: Collection[KeyPath],
    stacked: int | None,
    layers: Container[KeyPath] = (),
) -> list[Candidate]:
    """Return the layers of the source that a layer, or a stack of layers, may be made from.

    Numbered layers become a stack, and a stack becomes numbered layers. If a name has more than
    one number, the count and the shapes of the layers tell which of them is meant.

    Args:
      shapes: the shapes of the source's arrays.
      names: the key paths that the layer may have.
      below: the key paths of its arrays, relative to it.
      stacked: the number of layers that are stacked in the model, or None.
      layers: the key paths of all layers of the model.

    Returns:
      The candidates: none if the source lacks the layer, several if it is ambiguous.

    Example:
      >>> source = {("h", "0", "w"): (2,), ("h", "1", "w"): (2,)}
      >>> find_layers(source, [("h",)], [("w",)], 2)[0]
      (SourceLayer(key_path=('h', '0'), index=None), SourceLayer(key_path=('h', '1'), index=None))
      >>> find_layers({("h", "w"): (2, 2)}, [("h", "1")], [("w",)], None)
      [(SourceLayer(key_path=('h',), index=1),)]
    """
    search = _Search(shapes, below, stacked, layers)
    for name in names:
        if search.has_layer(name):
            indices = [None] if stacked is None else range(stacked)
            return [tuple(SourceLayer(name, index) for index in indices)]
    for name in names:
        candidates = search.numbered(name)
        if candidates:
            return candidates
    return []


class _Search(NamedTuple):
    """The arguments of `find_layers`, and the candidates that a name has."""

    shapes: Shapes
    below: Collection[KeyPath]
    stacked: int | None
    layers: Container[KeyPath]

    def shapes_at(self, prefix: KeyPath) -> list[tuple[int, ...] | None]:
        return [self.shapes.get((*prefix, *keys)) for keys in self.below]

    def has_layer(self, prefix: KeyPath) -> bool:
        return any(shape is not None for shape in self.shapes_at(prefix))

    def numbered(self, name: KeyPath) -> list[Candidate]:
        """Return the candidates that fit, or else the first, so that errors can name it."""
        fits: dict[Candidate, bool] = {}
        for head, tail in ((name[:n], name[n:]) for n in range(len(name) + 1)):
            if self.stacked is not None and self.has_layer((*head, "0", *tail)):
                single = [(*head, str(n), *tail) for n in range(self.stacked)]
                more = self.has_layer((*head, str(self.stacked), *tail))
                fits.setdefault(tuple(map(SourceLayer, single)), not more and self._alike(single))
            elif self.stacked is None and head and head[-1].isdigit():
                stack = (*head[:-1], *tail)
                if self.has_layer(stack):
                    layer = SourceLayer(stack, int(head[-1]))
                    fits.setdefault((layer,), self._has_length(stack, head[:-1], tail))
        return [candidate for candidate, fit in fits.items() if fit] or list(fits)[:1]

    def _alike(self, layers: Sequence[KeyPath]) -> bool:
        shapes = [self.shapes_at(layer) for layer in layers]
        return all(x == shapes[0] for x in shapes)

    def _has_length(self, stack: KeyPath, head: KeyPath, tail: KeyPath) -> bool:
        """Return whether a stack is as long as the list of layers in the model."""
        siblings = takewhile(lambda n: (*head, str(n), *tail) in self.layers, count())
        length = sum(1 for _ in siblings)
        return all(shape[:1] == (length,) for shape in self.shapes_at(stack) if shape)
