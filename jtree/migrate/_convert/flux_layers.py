"""The layers of a model with their arrays as Flux.jl has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..._errors import ModelError
from ..._tree import paths
from ..._tree.leaves import isabstract
from ..._tree.ties import Slot
from .._layouts.flux import FLUX
from .._layouts.spec import TypedLayer
from .._layouts.transforms import (
    ArraySpec,
    CanonicalArrays,
    KeyPath,
    from_canonical,
    lost_names,
    to_canonical,
)

# Returns the arrays of a layer with the features of an image in Flux's order, and notes.
Permute: TypeAlias = Callable[
    [KeyPath, TypedLayer, CanonicalArrays], tuple[CanonicalArrays, Sequence[str]]
]
STATISTICS = ("mean", "var")
_COUNTERS = ("counter", "first")


@dataclass(frozen=True)
class FluxLayer:
    """A layer of a model with its arrays as Flux has them.

    Attributes:
      keys: its key path in the model.
      layer: its type in the model.
      arrays: its arrays, by the paths of Flux's fields.
      trained: the fields that are trained, in Flux's order.
      ties: for each field, the index of the first slot of the model that holds the same parameter.
      sources: the paths of its arrays in the model.
      notes: what was done to it, as text.
      shapes: the shapes of its canonical arrays.
    """

    keys: KeyPath
    layer: TypedLayer
    arrays: Mapping[str, Any]
    trained: Sequence[str]
    ties: Mapping[str, int]
    sources: Sequence[str]
    notes: Sequence[str]
    shapes: Mapping[str, tuple[int, ...]]


class _Stored(NamedTuple):
    slot: Slot
    spec: ArraySpec


def flux_layers(
    arrays: Mapping[KeyPath, Slot],
    layers: Mapping[KeyPath, TypedLayer],
    permute: Permute,
) -> dict[KeyPath, FluxLayer]:
    """Return the typed layers of a model with their arrays as Flux has them.

    Args:
      arrays: the slots of the model's arrays, by key path.
      layers: its typed layers.
      permute: permutes the features of an image beside a layer into Flux's order.
    """
    stored: dict[KeyPath, list[_Stored]] = {}
    for keys, slot in arrays.items():
        above = (keys[:n] for n in reversed(range(len(keys))))
        layer = next((x for x in above if x in layers), None)
        if layer is None:
            continue
        specs = (x for x in layers[layer].spec if x.key_path == keys[len(layer) :])
        for spec in islice(specs, 1):
            stored.setdefault(layer, []).append(_Stored(slot, spec))
    ordered = [keys for keys in layers if keys in stored]  # linen's in the order of its calls
    return {keys: _flux_layer(keys, layers[keys], stored[keys], permute) for keys in ordered}


def _flux_layer(
    keys: KeyPath, layer: TypedLayer, stored: Sequence[_Stored], permute: Permute
) -> FluxLayer:
    values = {x.spec.key_path: to_numpy(x.slot.value, x.spec.canonical) for x in stored}
    _check_single(layer, stored)
    canonical = to_canonical(layer.spec, values, layer.options)
    canonical = {name: x for name, x in canonical.items() if name not in _COUNTERS}
    shapes = {name: tuple(x.shape) for name, x in canonical.items()}
    canonical, notes = permute(keys, layer, canonical)
    specs = _newest_specs(layer.kind)
    _check_lossless(layer, canonical, specs)
    arrays = from_canonical(specs, dict.fromkeys(specs, (1,) * 8), canonical, layer.options)
    ties = {name: x.slot.tie for x in reversed(stored) for name in x.spec.canonical}
    return FluxLayer(
        keys,
        layer,
        arrays,
        [path for path in arrays if not {*STATISTICS} & {*specs[path].canonical}],
        {path: ties[specs[path].canonical[0]] for path in arrays},
        [x.slot.path for x in stored],
        notes,
        shapes,
    )


def to_numpy(x: Any, canonical: Sequence[str] = ()) -> Any:
    """Return an array of a model; an abstract one becomes ones for a variance and else zeros."""
    if not isabstract(x):
        return np.asarray(x)
    value = 1 if "var" in canonical else 0
    return np.broadcast_to(np.asarray(value, x.dtype), x.shape)


def _check_single(layer: TypedLayer, stored: Sequence[_Stored]) -> None:
    """Raise an error for a stack of layers, whose arrays have one axis more."""
    for x in stored:
        transform = x.spec.transform
        counts = (layer.options.get(name, count) for name, count in transform.options)
        if len(x.slot.value.shape) != transform.axes + sum(map(int, counts)):
            raise ModelError(
                f"{paths.show(layer.path)}: a stack of layers, which Flux lacks; unstack the model "
                "first"
            )


def _check_lossless(
    layer: TypedLayer, canonical: Mapping[str, Any], specs: Mapping[str, ArraySpec]
) -> None:
    """Raise an error for a layer that Flux lacks, or that lacks one of its parameters in Flux."""
    lost = lost_names(canonical, {name for spec in specs.values() for name in spec.canonical})
    if not specs or lost:
        what = f"the {lost[0].replace('_', ' ')} of a {layer.type}" if lost else f"a {layer.type}"
        raise ModelError(f"{paths.show(layer.path)}: {what} has no counterpart in Flux")


def _newest_specs(kind: str) -> dict[str, ArraySpec]:
    """Return the arrays of a kind of layer by path, each under its newest name only."""
    known: set[str] = set()
    specs: dict[str, ArraySpec] = {}
    for spec in FLUX.specs.get(kind, ()):
        if "" not in spec.canonical and not known & {*spec.canonical}:
            specs[spec.path] = spec
            known |= {*spec.canonical}
    return specs
