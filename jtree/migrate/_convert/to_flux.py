"""Conversion of a model into a state of Flux.jl."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from .._layouts.flux import FLUX
from .checks import KernelShape, dense_warnings
from .flux_layers import FluxLayer, flux_layers, image_hints
from .flux_state import FluxState
from .hints import Hint
from .names import name_model
from .report import ConvertedLayer, Report
from .target import read_target

logger = logging.getLogger("jtree")


def convert_to_flux(model: Any, hints: Sequence[Hint]) -> tuple[Any, Report]:
    """Return the state that `Flux.loadmodel!` reads into the same model in Julia, and a report."""
    target = name_model(read_target(model))
    layout = next(iter(target.layers.values())).layout
    images = image_hints(target, hints)
    layers = flux_layers(target, images)
    state = FluxState(model, target, layers)
    hinted = {(keys, hint.axis) for keys, hint in images}
    same_order = layout.channels_first or _flattens_channels_first(target.walked.nodes)
    warnings = () if same_order else tuple(dense_warnings(_kernels(layers), hinted))
    for warning in warnings:
        logger.warning("converted, but %s", warning)
    report = Report(layout.name, tuple(map(_converted, layers.values())), warnings=warnings)
    return state.tree, report


def _flattens_channels_first(nodes: Sequence[tuple[str, Any]]) -> bool:
    return any(repr(node) == "flatten_channels_first" for _, node in nodes)


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
