"""What a conversion passes from stage to stage: source, model, matches, values, unused arrays.

Each is made once, by the file that is named in its docstring, and never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from ..._state.mismatch import Mismatch
from ..._tree.ties import Slot
from ..._tree.walk import Walk
from .._layouts.spec import ArraySpec, FrameworkLayout, KeyPath, LayerSpec, TypedLayer
from .images import Flattened


@dataclass(frozen=True)
class SourceModel:
    """What a source holds, by its own names; `source.py` reads it.

    Attributes:
      layout: how its framework stores layers.
      arrays: its arrays.
      layers: its layers, where the source is a model whose types are known.
      other_types: the types of modules that no layout lists.
      short_names: for an array the name without containers, such as `layers` of a Sequential.
    """

    layout: FrameworkLayout
    arrays: Mapping[str, Any]
    layers: Mapping[str, TypedLayer] = field(default_factory=dict)
    other_types: Mapping[str, str] = field(default_factory=dict)
    short_names: Mapping[str, str] = field(default_factory=dict)


class SourceArray(NamedTuple):
    """An array of a source: its own name, and its key path in the names of the model."""

    name: str
    array: Any
    key_path: KeyPath


@dataclass(frozen=True)
class NamedSource:
    """A source by the names that the model has for its layers; `names.py` makes it.

    Attributes:
      layout: how its framework stores layers.
      arrays: its arrays, each once.
      by_name: its arrays by every key path that they have, with and without containers.
      layers: its layers, where their types are known.
      other_types: the types of modules with arrays of their own that no layout lists.
    """

    layout: FrameworkLayout
    arrays: Sequence[SourceArray]
    by_name: Mapping[KeyPath, SourceArray]
    layers: Mapping[KeyPath, TypedLayer]
    other_types: Mapping[KeyPath, str]


@dataclass(frozen=True)
class TypedModel:
    """A model, or linen's variables, whose layers are known by their types; `target.py` reads it.

    Attributes:
      walked: the walk over what holds the arrays.
      layers: its layers.
      arrays: the slots of its arrays.
      optional: the paths of arrays that a source may lack, such as PRNG keys and caches.
      names: for each layer, and for what holds each array, its own key path and those that it may
        have in other frameworks; the last is without any container.
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


Candidate: TypeAlias = tuple[SourceLayer, ...]  # one layer, or as many as the model has in a stack


@dataclass(frozen=True)
class LayerMatch:
    """A layer of the model, and the layers of the source that it is made from; see `match.py`.

    Attributes:
      key_path: its key path in the model.
      layer: what it is in the model.
      slots: the slots of its arrays.
      specs: what these arrays are, by path.
      stacked: the number of layers that are stacked in it, or None.
      names: the key paths that it may have in the source.
      source_spec: how the source stores it.
      source_layer: what it is in the source, where the source's types are known.
      same_kind: whether what it is in the source can become what it is in the model.
      candidates: where it is in the source; several where nothing tells which of them is meant.
      sources: the one candidate; none where it is missing, uncertain or of another kind.
    """

    key_path: KeyPath
    layer: TypedLayer
    slots: Sequence[Slot]
    specs: Mapping[str, ArraySpec]
    stacked: int | None
    names: Sequence[KeyPath]
    source_spec: LayerSpec
    source_layer: TypedLayer | None
    same_kind: bool
    candidates: Sequence[Candidate]
    sources: Candidate


@dataclass(frozen=True)
class ArrayMatch:
    """An array of the model that belongs to no typed layer, and where the source has it.

    Attributes:
      slot: its slot in the model.
      key: its name below what holds it.
      stacked: the number of arrays of the source that are stacked in it, or None.
      names: the key paths that what holds it may have in the source.
      candidates: what holds it in the source; several where nothing tells which of them is meant.
      sources: the one candidate; none where it is missing or uncertain.
    """

    slot: Slot
    key: str
    stacked: int | None
    names: Sequence[KeyPath]
    candidates: Sequence[Candidate]
    sources: Candidate


class Matches(NamedTuple):
    """The matches of all arrays of a model; `match.py` makes them."""

    layers: Sequence[LayerMatch]
    arrays: Sequence[ArrayMatch]


class LostArray(NamedTuple):
    """A canonical array, described, of a layer of the source that the model cannot hold."""

    name: str
    array: str
    source: SourceLayer


class UnfitHint(NamedTuple):
    """A hint about an image, and a layer, described, whose features are not those of the image."""

    hint: Flattened
    layer: str


@dataclass(frozen=True)
class LayerValues:
    """The new arrays of a layer of the model; `values.py` makes them.

    Attributes:
      match: the layer.
      arrays: its new arrays, by path; some are missing where the source lacks them.
      defaults: by path, the globs of the hints that allowed an array to be a default.
      images: the hints about images that concern the layer.
      notes: what was done to it.
      shapes: the shapes of its canonical arrays.
      incomplete: the first layer of the source that lacks some of the arrays, or None.
      lost: the arrays of the source that the model cannot hold.
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
    unfit: Sequence[UnfitHint]


class ArrayValue(NamedTuple):
    """The new value of an array that belongs to no typed layer, or None; `values.py` makes it."""

    match: ArrayMatch
    array: Any
    incomplete: SourceLayer | None  # the first that lacks it


class Values(NamedTuple):
    """The new arrays of a model; `values.py` makes them.

    Attributes:
      layers: those of layers whose types are known.
      arrays: those of no such layer.
      by_path: all new arrays, and None for those that are kept.
      kept: the paths of optional arrays that the source lacks.
    """

    layers: Sequence[LayerValues]
    arrays: Sequence[ArrayValue]
    by_path: Mapping[str, Any]
    kept: Sequence[str]


class Unused(NamedTuple):
    """The arrays of a source that the model does not take; `unused.py` finds them.

    Attributes:
      names: the names of all of them.
      ignored: those that nothing needs, and why.
      problems: those that the model should take.
    """

    names: Sequence[str]
    ignored: Mapping[str, str]
    problems: Sequence[Mismatch]
