"""The source of a conversion: a mapping, a state, a checkpoint, or a model of any framework."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..._errors import ArgumentError, did_you_mean
from ..._state.sources import open_tree, resolve
from ..._text import plural
from ..._tree.frameworks import loaded
from ..._tree.leaves import isarray
from ..._tree.walk import walk
from .._layouts.registry import FLUX, LAYOUTS
from .._layouts.spec import FrameworkLayout
from .flux_source import check_fields, read_flux
from .names import name_model
from .stages import NamedModel, SourceModel
from .target import read_model, recognise
from .tensors import check_readable, read_tensor


def read_source(
    source: Any, layout_name: str, fields: Mapping[str, Sequence[str]] | None = None
) -> SourceModel:
    """Return the arrays of a source by name, and its layers as far as their types are known."""
    layout = _find_layout(layout_name)
    if fields is not None:
        check_fields(fields)
    if _is_instance(source, "torch.nn", "Module"):
        _check_layout(layout, "torch", "a PyTorch module")
        return _read_torch(source, layout)
    if _is_instance(source, "keras", "Model"):
        _check_layout(layout, "keras", "a Keras model")
        return SourceModel(layout, _read_keras(source))
    source = resolve(source)
    if getattr(source, "format", None) == "Equinox":
        raise ArgumentError(
            f"source: {source.path} has no names to match with layers; load it into the Equinox "
            "model that it was saved from, with jtree.load(path, model), and convert that"
        )
    tree = open_tree(source)
    if layout is FLUX and (isinstance(tree, tuple | list) or type(tree) is dict):
        types = getattr(source, "types", {})
        return read_flux(tree, types, fields=fields, in_file=tree is not source)
    if isinstance(tree, Mapping):
        arrays = _read_mapping(tree)
        tied = _tied_names(arrays, getattr(source, "metadata", None))
        return SourceModel(layout, arrays | tied)
    model = name_model(read_model(tree))
    for layer in model.layers.values():
        _check_layout(layout, layer.layout.name, f"a model with a {layer.type} layer")
    if not model.layers:
        values = ((slot.path, _read(slot.path, slot.value)) for slot in model.walked.slots)
        return SourceModel(layout, {path: x for path, x in values if isarray(x)})
    return _read_typed(model, layout)


def _find_layout(name: object) -> FrameworkLayout:
    if not isinstance(name, str) or name not in LAYOUTS:
        raise ArgumentError(
            f"layout: expected one of {', '.join(LAYOUTS)}, found {name!r}"
            + did_you_mean(str(name), LAYOUTS)
        )
    return LAYOUTS[name]


def _is_instance(x: Any, module: str, name: str) -> bool:
    cls = loaded(module, name)
    return cls is not None and isinstance(x, cls)


def _check_layout(layout: FrameworkLayout, expected: str, source: str) -> None:
    if layout.name != expected:
        raise ArgumentError(
            f"layout: expected {expected!r}, since the source is {source}, found {layout.name!r}"
        )


def _read_mapping(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the arrays of a nested state, or of a mapping that JAX does not open."""
    opened_by_jax = not jax.tree_util.all_leaves([tree])
    walked = walk(tree if opened_by_jax else dict(tree), ties=())
    values = ((slot.path, _read(slot.path, slot.value)) for slot in walked.slots)
    return {path: x for path, x in values if isarray(x)}


def _tied_names(arrays: Mapping[str, Any], metadata: Any) -> dict[str, Any]:
    """Return arrays under the names of tied ones, which safetensors files keep in metadata."""
    pairs = metadata.items() if isinstance(metadata, Mapping) else ()
    return {
        name: arrays[kept]
        for name, kept in pairs
        if isinstance(kept, str) and kept in arrays and name not in arrays
    }


def _read_keras(model: Any) -> dict[str, Any]:
    """Return the weights of a Keras model by path; its paths need not be distinct."""
    counts = Counter(x.path for x in model.weights)
    twice = sorted(path for path, count in counts.items() if count > 1)
    if twice:
        raise ArgumentError(
            f"source: expected weights of distinct paths, found {plural(len(twice), 'path')} of "
            f"several weights, {twice[0]!r} the first; give the layers of each part of the Keras "
            "model distinct names, as by keras.layers.Dense(..., name='tower_a_dense')"
        )
    return {x.path: np.asarray(x.value) for x in model.weights}


def _read_torch(module: Any, layout: FrameworkLayout) -> SourceModel:
    state = {name: x for name, x in module.state_dict().items() if not _is_extra(name)}
    arrays = {name: _read(name, x) for name, x in state.items()}
    for name, x in arrays.items():
        check_readable(name, x)
    modules = dict(module.named_modules())
    layers = {name: recognise(x, (LAYOUTS["torch"],), name) for name, x in modules.items()}
    parents = {name.rpartition(".")[0] for name in arrays} & modules.keys()
    return SourceModel(
        layout,
        arrays,
        {name: layer for name, layer in layers.items() if layer is not None},
        {name: type(modules[name]).__name__ for name in parents if layers[name] is None},
    )


def _read(name: str, x: Any) -> Any:
    """Return a tensor of PyTorch as a NumPy array, and anything else as it is."""
    return read_tensor(name, x) if _is_instance(x, "torch", "Tensor") else x


def _is_extra(name: str) -> bool:
    """Return whether an entry of a state dict is what `get_extra_state` of a module returns."""
    return name.rpartition(".")[2] == "_extra_state"


def _read_typed(model: NamedModel, layout: FrameworkLayout) -> SourceModel:
    """Return the arrays and the layers of a model of JAX."""
    arrays = {keys: slot.value for keys, slot in model.arrays.items()}
    arrays |= _unbiased_statistics(model, arrays)
    kept = [keys for keys, slot in model.arrays.items() if slot.path not in model.optional]
    short = {keys: (*model.names[keys[:-1]][-1], keys[-1]) for keys in kept}
    layers = dict(model.layers) | {model.names[keys][-1]: x for keys, x in model.layers.items()}
    return SourceModel(
        layout,
        {"/".join(keys): arrays[keys] for keys in kept},
        {"/".join(keys): layer for keys, layer in layers.items()},
        short_names={"/".join(x): "/".join(y) for x, y in short.items() if x != y},
    )


def _unbiased_statistics(model: NamedModel, arrays: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the running statistics of Equinox, bias-corrected as in a call of the layer."""
    statistics: dict[Any, Any] = {}
    for keys, layer in model.layers.items():
        counter = arrays.get((*keys, "counter"))
        if layer.layout.name == "equinox" and counter is not None:
            scale = _bias_correction(counter, layer.settings["momentum"])
            for name in ("mean", "var"):
                statistics[*keys, name] = np.asarray(arrays[*keys, name]) / scale
    return statistics


def _bias_correction(counter: Any, momentum: float) -> Any:
    """Return the divisor of running statistics after `counter` updates, as Equinox computes it."""
    count = int(np.asarray(counter))
    return np.float32(1) if not count else np.float32(1 - np.float32(momentum) ** np.float32(count))
