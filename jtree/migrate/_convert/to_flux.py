"""Conversion of a model into a state of Flux.jl."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..._errors import ArgumentError
from ..._tree import paths
from .._layouts.registry import FLUX, LINEN
from .._layouts.spec import TypedLayer
from .._layouts.transforms import CanonicalArrays, KeyPath
from .checks import KernelShape, channels_first, dense_warnings
from .flux_layers import FluxLayer, flux_layers
from .flux_state import FluxArray, FluxState
from .hints import Hint, apply_images, check_arguments
from .images import Flattened
from .names import key_path, name_model
from .report import ConvertedLayer, Report
from .stages import NamedModel
from .target import equinox_state, read_target

logger = logging.getLogger("jtree")


def convert_to_flux(model: Any, hints: Iterable[Hint]) -> tuple[Any, Report]:
    """Return the state that `Flux.loadmodel!` reads into the same model in Julia, and a report."""
    target = name_model(read_target(model))
    layout = next(iter(target.layers.values())).layout
    images = _image_hints(target, hints)
    layers = flux_layers(target.arrays, target.layers, partial(_permute, images))
    state = _flux_state(model, target, layers)
    hinted = {(keys, hint.axis) for keys, hint in images}
    same_order = layout.channels_first or channels_first(target.walked.nodes)
    warnings = () if same_order else tuple(dense_warnings(_kernels(layers), hinted))
    for warning in warnings:
        logger.warning("converted, but %s", warning)
    report = Report(layout.name, tuple(map(_converted, layers.values())), warnings=warnings)
    return state.tree, report


def flux_arrays(model: Any, hints: Iterable[Hint]) -> list[FluxArray]:
    """Return the arrays of a model as Flux has them, in the order of Flux's fields."""
    target = name_model(read_target(model))
    permute = partial(_permute, _image_hints(target, hints))
    layers = flux_layers(target.arrays, target.layers, permute)
    return _flux_state(model, target, layers).arrays


def _flux_state(model: Any, target: NamedModel, layers: Mapping[KeyPath, FluxLayer]) -> FluxState:
    by_name = next(iter(target.layers.values())).layout is LINEN
    root = model if equinox_state(model) is None else model[0]
    return FluxState(root, layers, target.arrays, by_name=by_name)


def _image_hints(model: NamedModel, hints: Iterable[Hint]) -> list[tuple[KeyPath, Flattened]]:
    """Return the hints about images, each with the key path of its layer in the model."""
    hints = list(hints)
    check_arguments((), hints)
    names = {name: keys for keys in model.layers for name in model.names[keys]}
    images = []
    for hint in hints:
        keys = key_path(FLUX, hint.path) if isinstance(hint, Flattened) else ()
        if not isinstance(hint, Flattened) or keys not in names:
            raise ArgumentError(f"hints: {hint!r} concerns no layer of the model")
        images.append((names[keys], hint))
    return images


def _permute(
    images: Sequence[tuple[KeyPath, Flattened]],
    keys: KeyPath,
    layer: TypedLayer,
    canonical: CanonicalArrays,
) -> tuple[CanonicalArrays, Sequence[str]]:
    """Return the arrays of a layer with the features of an image in Flux's order, and notes."""
    hints = [hint for name, hint in images if name == keys]
    as_flux = replace(layer, layout=FLUX)
    canonical, notes, unfit = apply_images(hints, as_flux, canonical, layer.layout)
    if unfit:
        where = paths.show(layer.path)
        raise ArgumentError(f"{where}: {unfit[0].hint!r} does not fit {unfit[0].layer}")
    return canonical, notes


def _kernels(layers: dict[Any, FluxLayer]) -> dict[Any, KernelShape]:
    shapes = {keys: x.shapes.get("kernel", x.shapes.get("table", ())) for keys, x in layers.items()}
    return {
        keys: KernelShape(layers[keys].layer.kind, shape)
        for keys, shape in shapes.items()
        if len(shape) > 1
    }


def _converted(x: FluxLayer) -> ConvertedLayer:
    notes = [*x.notes, *([FLUX.notes[x.layer.kind]] if x.layer.kind in FLUX.notes else [])]
    return ConvertedLayer(x.layer.path, x.layer.kind, tuple(x.sources), tuple(notes))
