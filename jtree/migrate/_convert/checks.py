"""Checks of a conversion: its report, settings that differ, images in another order of axes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._text import format_value
from .._layouts.spec import FrameworkLayout, TypedLayer
from .._layouts.transforms import KeyPath
from .report import Cautions, ConvertedLayer, Report, Setting
from .stages import LayerValues, NamedSource, SourceLayer, Unused, Values

# Values that most layers have need no note, nor settings that the shape of the kernel tells.
_USUAL = {
    ("strides", 1),
    ("dilation", 1),
    ("padding", 0),
    ("zero_attention", False),
    ("max_norm", False),
}
_KNOWN_FROM_SHAPES = (("conv", "groups"),)
_IMAGE = 4  # the largest number of channels of an image before any convolution


def make_report(
    source: NamedSource,
    values: Values,
    unused: Unused,
    cautions: Cautions,
    nodes: Iterable[tuple[str, Any]],
) -> Report:
    """Return the report of a conversion; `nodes` are those of the model, by path."""
    layers = [x for x in values.layers if x.arrays]
    settings = [y for x in layers for y in _settings(x, source)]
    images = [] if channels_first(nodes) else _image_warnings(values.layers, source.layout)
    return Report(
        layout=source.layout.name,
        layers=tuple(_converted_layer(x, source) for x in layers),
        copied={
            x.match.slot.path: ", ".join(_names(x.match.sources, [(x.match.key,)], source))
            for x in values.arrays
            if x.array is not None
        },
        settings=tuple(sorted(settings, key=lambda x: x.only_trains)),
        warnings=(*cautions.warnings, *images),
        ignored=unused.ignored,
        kept=tuple(values.kept),
        unverified=cautions.unverified,
    )


def _converted_layer(values: LayerValues, source: NamedSource) -> ConvertedLayer:
    match = values.match
    below = [spec.key_path for spec in match.source_spec if spec.canonical]
    notes = [f"{match.stacked} layers stacked"] if match.stacked else []
    if match.stacked is None and match.sources and match.sources[0].index is not None:
        notes.append(f"layer {match.sources[0].index} of a stack")
    unknown = _unknown_settings(match.layer, source.layout) if match.source_layer is None else []
    if match.layer.kind in source.layout.notes:
        notes.append(source.layout.notes[match.layer.kind])
    notes += match.source_layer.notes if match.source_layer is not None else ()
    sources = _names(match.sources, below, source)
    return ConvertedLayer(
        match.layer.path, match.layer.kind, sources, (*notes, *values.notes, *unknown)
    )


def _names(
    layers: Iterable[SourceLayer], below: Sequence[KeyPath], source: NamedSource
) -> tuple[str, ...]:
    """Return the names of arrays of layers of the source, each once."""
    key_paths = ((*layer.key_path, *keys) for layer in layers for keys in below)
    arrays = (source.by_name.get(keys) for keys in key_paths)
    return tuple(dict.fromkeys(x.name for x in arrays if x is not None))


def _settings(values: LayerValues, source: NamedSource) -> Iterator[Setting]:
    """Yield the settings of a layer to check, its type among them if no layout lists it."""
    match, layer = values.match, values.match.layer
    yield from _compare_settings(layer, match.source_layer, source.layout)
    keys = {x.key_path for x in match.sources}
    for other in sorted({source.other_types[x] for x in keys if x in source.other_types}):
        yield Setting(layer.path, "type", layer.type, other, known=True)


def _compare_settings(
    model: TypedLayer, source: TypedLayer | None, layout: FrameworkLayout
) -> Iterator[Setting]:
    """Yield the settings of a layer that differ from those of the source, or that may.

    If the type of the source's layer is unknown, the defaults of its framework are compared.
    """
    known = source is not None
    others = layout.defaults.get(model.kind, {}) if source is None else source.settings
    for name, value in model.settings.items():
        other = others.get(name)
        if isinstance(value, str) and not known and value != other:
            yield Setting(model.path, name, value, None, known=False)
        elif name in others and value is not None and not _is_close(value, other):
            yield Setting(model.path, name, value, other, known)


def _is_close(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-6 * max(abs(a), abs(b))
    return bool(a == b)


def _unknown_settings(model: TypedLayer, layout: FrameworkLayout) -> list[str]:
    """Return a note on the settings that a source without types does not tell, if any."""
    defaults = layout.defaults.get(model.kind, {})
    unknown = [
        f"{name}={format_value(value)}"
        for name, value in model.settings.items()
        if not isinstance(value, str | None)
        and name not in defaults
        and (model.kind, name) not in _KNOWN_FROM_SHAPES
        and not all((name, number) in _USUAL for number in np.ravel(value).tolist())
    ]
    return [f"not in the weights: {', '.join(unknown)}; check"] if unknown else []


class KernelShape(NamedTuple):
    """The kernel or table of a layer: the layer's kind, and the shape in the canonical layout."""

    kind: str
    shape: tuple[int, ...]


def channels_first(nodes: Iterable[tuple[str, Any]]) -> bool:
    """Return whether a model of jtree flattens images with their channels first."""
    functions = (getattr(node, "function", None) for _, node in nodes)
    return any(getattr(x, "__name__", "") == "flatten_channels_first" for x in functions)


def _image_warnings(layers: Sequence[LayerValues], source: FrameworkLayout) -> tuple[str, ...]:
    """Return a warning for each layer whose features may be in another order than in the model."""
    differing = [x for x in layers if x.match.layer.layout.channels_first != source.channels_first]
    kernels = _kernels(layers) if differing else {}
    hinted = {(x.match.key_path, hint.axis) for x in layers for hint in x.images}
    scales = ((x.match.layer.path, x.shapes.get("scale", ())) for x in differing)
    images = 3 if source.name == "flux" else 0  # whose axes are those of JAX already
    norms = [
        _norm_warning(path, shape) for path, shape in scales if len(shape) not in (0, 1, images)
    ]
    return (*dense_warnings(kernels, hinted), *norms)


def _kernels(layers: Iterable[LayerValues]) -> dict[KeyPath, KernelShape]:
    shapes = ((x.match, x.shapes.get("kernel", x.shapes.get("table", ()))) for x in layers)
    return {
        match.key_path: KernelShape(match.layer.kind, shape)
        for match, shape in shapes
        if len(shape) > 1
    }


def dense_warnings(
    kernels: Mapping[KeyPath, KernelShape], hinted: Collection[tuple[KeyPath, int]]
) -> Iterator[str]:
    """Yield a warning for each dense layer beside which an image seems to be flattened or made.

    Its features are a multiple of the channels of a convolution, and no dense layer beside it has
    the same number. `hinted` holds the layers that hints are about, with the axis of the kernel.
    """
    before = {keys: x.shape for keys, x in kernels.items() if x.kind in ("dense", "embedding")}
    dense = {
        keys: x.shape for keys, x in kernels.items() if x.kind == "dense" and len(x.shape) == 2
    }
    upwards = _channels(kernels, "conv_transpose", -2)
    makers = {keys for keys, shape in dense.items() if _divisor(upwards, shape[1])}
    for keys, (inputs, outputs) in dense.items():
        feeding = [x for x in before if x != keys and before[x][-1] == inputs]
        flat = all(x in makers and not _in_one_block(x, keys) for x in feeding)
        if (keys, 0) not in hinted and flat:
            yield from _dense_warning(keys, inputs, _channels(kernels, "conv", -1), "flattened")
        fed = [x for x in dense if x != keys and dense[x][0] == outputs]
        if (keys, 1) not in hinted and not any(_in_one_block(x, keys) for x in fed):
            below = {} if fed else _channels(kernels, "conv", -2)
            square = {c: n for c, n in below.items() if c > _IMAGE and _is_space(outputs, c, n)}
            yield from _dense_warning(keys, outputs, upwards or square, "unflattened")


def _channels(kernels: Mapping[KeyPath, KernelShape], kind: str, axis: int) -> dict[int, int]:
    """Return the channel counts of layers of a kind, with the number of axes of their windows."""
    shapes = [x.shape for x in kernels.values() if x.kind == kind]
    return {shape[axis]: len(shape) - 2 for shape in shapes if shape[axis] > 1}


def _divisor(channels: Collection[int], features: int) -> int | None:
    """Return the largest channel count that divides features, unless it is their number."""
    divisors = [c for c in channels if features % c == 0]
    return None if features in channels else max(divisors, default=None)


def _in_one_block(keys: KeyPath, other: KeyPath) -> bool:
    """Return whether two layers have the same parent, other than the model itself."""
    return len(keys) > 1 and keys[:-1] == other[:-1]


def _is_space(features: int, channels: int, axes: int) -> bool:
    """Return whether features may be an image of equal size along each axis."""
    return features > channels and any(channels * n**axes == features for n in range(2, features))


def _dense_warning(
    keys: KeyPath, features: int, channels: Mapping[int, int], hint: str
) -> Iterator[str]:
    count = _divisor(channels, features)
    if count is None:
        return
    path = "/".join(keys)
    what = (
        "inputs may be a flattened image" if hint == "flattened" else "outputs may become an image"
    )
    space = {1: "length", 3: "depth, height, width"}.get(channels[count], "height, width")
    yield (
        f"{path}: its {features} {what} of {count} channels and {features // count} positions, "
        "which the two frameworks order differently; if so, add "
        f'migrate.{hint}("{path}", shape=({count}, {space})) to hints'
    )


def _norm_warning(path: str, shape: tuple[int, ...]) -> str:
    return (
        f"{path}: its scale of shape {shape} keeps the source's order of axes; if they are those "
        "of an image, whose channels come first in one framework and last in the other, add "
        "migrate.transpose for its scale and its bias to rules"
    )
