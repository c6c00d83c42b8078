"""The values that pass from stage to stage of a conversion; none of them is ever changed.

SourceModel -> NamedSource -+
                            +-> Matches -> Values, Unused -> problems, Cautions -> Report
TypedModel -> NamedModel ---+

Each stage lies in one file, helpers included, so that a conversion passes through every file once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from ..._state.mismatch import Mismatch
from ..._tree.ties import Slot
from ..._tree.walk import Walk
from .._layouts.spec import FrameworkLayout, TypedLayer
from .._layouts.transforms import ArraySpec, KeyPath, LayerSpec
from .images import Flattened


@dataclass(frozen=True)
class SourceModel:
    """A source with the names that it has itself, read by `source.py`.

    Attributes:
      layout: the layout of its framework.
      arrays: its arrays.
      layers: its layers, if the source is a model of known types.
      other_types: the types of the modules that no layout lists.
      short_names: for an array, its name without containers such as the `layers` of a Sequential.
      document: the name of the model in a file that holds more than a model, or "".
      ignored: for each array that no model needs, the reason.
    """

    layout: FrameworkLayout
    arrays: Mapping[str, Any]
    layers: Mapping[str, TypedLayer] = field(default_factory=dict)
    other_types: Mapping[str, str] = field(default_factory=dict)
    short_names: Mapping[str, str] = field(default_factory=dict)
    document: str = ""
    ignored: Mapping[str, str] = field(default_factory=dict)


class SourceArray(NamedTuple):
    """An array of a source.

    Attributes:
      name: its name in the source.
      array: the array, which may be lazy.
      key_path: its key path, with the names of the model.
    """

    name: str
    array: Any
    key_path: KeyPath


@dataclass(frozen=True)
class NamedSource:
    """A source with the names that the model has for its layers, renamed by `names.py`.

    Attributes:
      layout: the layout of its framework.
      arrays: its arrays, each once.
      by_name: its arrays by all of their key paths, with and without containers.
      layers: its layers, as far as their types are known.
      other_types: the types of modules that hold arrays and that no layout lists.
      images: the hints about images, each with the key path of its layer.
      ignored: for each array that no model needs, the reason.
      unchanged: for each array whose values no rule changes, its name before the rules.
    """

    layout: FrameworkLayout
    arrays: Sequence[SourceArray]
    by_name: Mapping[KeyPath, SourceArray]
    layers: Mapping[KeyPath, TypedLayer]
    other_types: Mapping[KeyPath, str]
    images: Sequence[tuple[KeyPath, Flattened]]
    ignored: Mapping[str, str] = field(default_factory=dict)
    unchanged: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TypedModel:
    """A model, or the variables of a linen module, with its own names, read by `target.py`.

    Attributes:
      walked: the walk over the tree that holds the arrays.
      layout: the layout by which its names are read.
      layers: its layers whose types a layout lists, by name.
      containers: what replaces the keys below its containers elsewhere, by the containers' names.
      names: the names of its arrays, by path.
      optional: the paths of arrays that a source may lack, such as PRNG keys and caches.
    """

    walked: Walk
    layout: FrameworkLayout
    layers: Mapping[str, TypedLayer]
    containers: Mapping[str, Mapping[str, KeyPath]]
    names: Mapping[str, str]
    optional: frozenset[str]


@dataclass(frozen=True)
class NamedModel:
    """A model whose layers and arrays have key paths, from `names.py`.

    Attributes:
      walked: the walk over the tree that holds the arrays.
      layers: its layers whose types a layout lists.
      arrays: the slots of its arrays.
      optional: the paths of arrays that a source may lack, such as PRNG keys and caches.
      names: for each layer and each parent of an array, the key paths that it may have in other
        frameworks. The first is its own, the last has no containers.
    """

    walked: Walk
    layers: Mapping[KeyPath, TypedLayer]
    arrays: Mapping[KeyPath, Slot]
    optional: frozenset[str]
    names: Mapping[KeyPath, Sequence[KeyPath]]


@dataclass(frozen=True)
class SourceLayer:
    """A layer of the source: its key path, and its index if it is one of a stack."""

    key_path: KeyPath
    index: int | None = None


Candidate: TypeAlias = tuple[SourceLayer, ...]  # one layer, or one for each that the model stacks


@dataclass(frozen=True)
class LayerMatch:
    """A layer of the model and the layers of the source that it is made from, from `match.py`.

    Attributes:
      key_path: the key path of the layer in the model.
      layer: the type of the layer in the model.
      slots: the slots of its arrays, by path.
      specs: the specifications of its arrays, by path.
      stacked: the number of layers that are stacked in it, or None.
      names: the key paths that it may have in the source.
      source_spec: the specification of the layer in the source.
      source_axes: the number of axes of each array of that, for one layer.
      source_options: what the transforms of the source's arrays depend on.
      source_layer: the type of the layer in the source, if that is known.
      same_kind: whether the source's layer is of a kind that the model's can be made from.
      candidates: the layers of the source that may be meant; more than one is ambiguous.
      sources: the only candidate; empty if the layer is missing, ambiguous or of another kind.
    """

    key_path: KeyPath
    layer: TypedLayer
    slots: Mapping[str, Slot]
    specs: Mapping[str, ArraySpec]
    stacked: int | None
    names: Sequence[KeyPath]
    source_spec: LayerSpec
    source_axes: Sequence[int]
    source_options: Mapping[str, Any]
    source_layer: TypedLayer | None
    same_kind: bool
    candidates: Sequence[Candidate]
    sources: Candidate


@dataclass(frozen=True)
class ArrayMatch:
    """An array of the model outside of all typed layers, and its parents in the source.

    Attributes:
      slot: the slot of the array in the model.
      key: the last key of its key path.
      stacked: the number of arrays that are stacked in it, or None.
      names: the key paths that its parent may have in the source.
      candidates: the parents in the source that may be meant; more than one is ambiguous.
      sources: the only candidate; empty if the array is missing or ambiguous.
    """

    slot: Slot
    key: str
    stacked: int | None
    names: Sequence[KeyPath]
    candidates: Sequence[Candidate]
    sources: Candidate


class Matches(NamedTuple):
    """The matches of all arrays of a model, from `match.py`."""

    layers: Sequence[LayerMatch]
    arrays: Sequence[ArrayMatch]


class LostArray(NamedTuple):
    """An array of a layer of the source that the model's layer lacks.

    Attributes:
      name: the canonical name of the array.
      array: the array as text, such as `float32[4]`.
      source: the layer of the source.
    """

    name: str
    array: str
    source: SourceLayer


class UnfitHint(NamedTuple):
    """A hint about an image whose size is not that of the layer, and the layer as text."""

    hint: Flattened
    layer: str


@dataclass(frozen=True)
class LayerValues:
    """The new arrays of a layer of the model, from `values.py`.

    Attributes:
      match: the match of the layer.
      arrays: the new arrays by path, without those that the source lacks.
      defaults: for each array filled with a default, the globs of the hints that allow it.
      images: the hints about images that concern the layer.
      notes: what was done to the layer, as text.
      shapes: the shapes of its canonical arrays.
      incomplete: the first layer of the source that lacks arrays, or None.
      lost: the arrays of the source that the model lacks.
      doubled: the canonical arrays that the source has twice, each with the names of its sources.
      unfit: the hints that do not fit the layer.
    """

    match: LayerMatch
    arrays: Mapping[str, Any]
    defaults: Mapping[str, Sequence[str]]
    images: Sequence[Flattened]
    notes: Sequence[str]
    shapes: Mapping[str, tuple[int, ...]]
    incomplete: SourceLayer | None
    lost: Sequence[LostArray]
    doubled: Sequence[tuple[str, Sequence[str]]]
    unfit: Sequence[UnfitHint]


class ArrayValue(NamedTuple):
    """The new value of an array outside of all typed layers, from `values.py`.

    Attributes:
      match: the match of the array.
      array: the new value, or None if the source lacks it.
      incomplete: the first parent in the source that lacks it, or None.
    """

    match: ArrayMatch
    array: Any
    incomplete: SourceLayer | None


class Values(NamedTuple):
    """The new arrays of a model, from `values.py`.

    Attributes:
      layers: the arrays of typed layers.
      arrays: all other arrays.
      by_path: all new arrays by path, with None for each that the model keeps.
      kept: the paths of optional arrays that the model keeps, since the source lacks them.
      unneeded: a mismatch for each hint that concerns no layer.
      refused: whether there is a problem beside missing arrays and other shapes.
    """

    layers: Sequence[LayerValues]
    arrays: Sequence[ArrayValue]
    by_path: Mapping[str, Any]
    kept: Sequence[str]
    unneeded: Sequence[Mismatch]
    refused: bool


class Unused(NamedTuple):
    """The arrays of a source that the model does not take, from `unused.py`.

    Attributes:
      names: their names.
      ignored: for those that no model needs, the reason.
      problems: a mismatch for each of the others.
    """

    names: Sequence[str]
    ignored: Mapping[str, str]
    problems: Sequence[Mismatch]
