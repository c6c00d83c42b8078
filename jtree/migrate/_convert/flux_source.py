"""The source of a conversion from Flux.jl: layers by Julia type, or by the names of fields."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..._arguments import unexpected
from ..._tree import paths
from ..._tree.leaves import isarray
from .._layouts.flux import (
    FLUX,
    FLUX_CONTAINERS,
    FLUX_TYPES,
    FluxType,
    conv_groups,
    epsilon,
    guess_type,
    type_name,
)
from .._layouts.spec import TypedLayer
from .stages import NamedModel, SourceModel

_NOT_PARAMETERS = ("Dropout", "AlphaDropout")
_OLD_EPSILON = 1e-8  # of Flux 0.6 and older, whose BatchNorm keeps deviations and not variances
_OUTSIDE = "not in the model"


def read_flux(
    tree: Any,
    types: Mapping[str, str],
    *,
    fields: Mapping[str, Sequence[str]] | None = None,
    in_file: bool = False,
) -> SourceModel:
    """Return the arrays of a state of Flux, and its layers as far as they are known.

    Args:
      tree: the state.
      types: the Julia types of its structs and functions, by path.
      fields: the names of the fields of further structs, by type.
      in_file: whether the state is a file, in which the model has a name.
    """
    nodes = {path: node for path, node in flux_nodes(tree) if not _is_skipped(path, types)}
    names = {path: flux_type(path, node, types) for path, node in nodes.items()}
    arrays: dict[str, Any] = {}
    layers: dict[str, TypedLayer] = {}
    for path, node in nodes.items():
        if isarray(node):
            arrays.setdefault(_newest_name(path, names), node)
        elif names[path] in FLUX_TYPES and is_complete(names[path], node):
            layers[path] = _typed_layer(path, names[path], node, types)
            below = f"{path}/" if path else ""
            arrays |= {f"{below}{name}": x for name, x in _changed(names[path], node)}
        elif names[path] == "Recur":
            arrays |= dict(_initial_states(path, node))
    dropped = {path for path in arrays if _is_dropped(path, names)}
    arrays = {path: x for path, x in arrays.items() if path not in dropped}
    short = {path: _without_containers(path, names) for path in arrays}

    def rename(path: str) -> str:
        return rename_fields(path, types, fields) if fields else path

    shorter = {_without_containers(path, names): layer for path, layer in layers.items()}
    layers = (shorter if len(shorter) == len(layers) else {}) | layers
    return SourceModel(
        FLUX,
        {rename(path): x for path, x in arrays.items()},
        {rename(path): layer for path, layer in layers.items()},
        short_names={rename(path): name for path, name in short.items() if name != path},
        document=_find_document(tree, layers or [x for x in names if names[x]]) if in_file else "",
    )


def check_fields(fields: Any) -> Any:
    """Return the argument `fields`, a mapping from types to names, or None."""
    if fields is None:
        return None
    if not isinstance(fields, Mapping) or not all(
        isinstance(names, Sequence) and not isinstance(names, str) for names in fields.values()
    ):
        raise unexpected("fields", "a dict from types to the names of their fields", fields)
    return fields


def flux_nodes(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every node of a nested state with its path, the root first."""
    stack = [(path, tree)]
    while stack:
        path, node = stack.pop()
        yield path, node
        if isinstance(node, Mapping):
            children = [(str(key), child) for key, child in node.items()]
        else:
            several = node if isinstance(node, tuple | list) else ()
            children = [(str(n), child) for n, child in enumerate(several)]
        stack += [(paths.join([*filter(None, [path]), *key]), x) for *key, x in reversed(children)]


def flux_type(path: str, node: Any, types: Mapping[str, str]) -> str:
    """Return the name of a node's type in Flux, guessed from its fields if the file has none."""
    if path in types:
        return type_name(types[path])
    return guess_type(node) if isinstance(node, Mapping) else ""


def is_complete(name: str, fields: Any) -> bool:
    """Return whether a layer of this type has the arrays that its settings are read from."""
    if not isinstance(fields, Mapping):
        return False
    if name in ("Conv", "ConvTranspose", "CrossCor", "DepthwiseConv"):
        return getattr(fields.get("weight"), "ndim", 0) > 2
    if name.endswith("Cell"):
        return isarray(fields.get("Wi")) and isarray(fields.get("Wh"))
    if name in ("Dense", "Embedding"):
        return isarray(fields.get("weight", fields.get("W")))
    return name != "MultiHeadAttention" or "nheads" in fields


def _is_skipped(path: str, types: Mapping[str, str]) -> bool:
    """Return whether a path lies in the state of a random number generator."""
    above = (types.get(x, "") for x in (*paths.ancestors(path), path))
    return any(x.startswith("Random.") or type_name(x) in _NOT_PARAMETERS for x in above)


def _typed_layer(
    path: str, name: str, fields: Mapping[str, Any], types: Mapping[str, str]
) -> TypedLayer:
    known = FLUX_TYPES[name]
    function = types.get(f"{path}/{known.activation}", "") if known.activation else ""
    plain = function.rpartition(".")[2] in ("", "identity", "Missing")
    settings = _read_settings(known, fields)
    if name == "RNNCell" and f"{path}/σ" in types:
        activation = types[f"{path}/σ"].rpartition(".")[2].removesuffix("_fast")
        settings["activation"] = {"σ": "sigmoid"}.get(activation, activation)
    kernel: Any = fields.get("weight")
    conv = known.kind in ("conv", "conv_transpose")
    return TypedLayer(
        known.kind,
        FLUX,
        known.spec,
        name,
        path,
        {"dims": kernel.ndim - 2, "groups": conv_groups(name, fields)} if conv else {},
        settings,
        () if plain else (f"{function} follows in Flux",),
        guessed=path not in types,
    )


def _read_settings(known: FluxType, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a layer; none where its fields are not those of Flux."""
    try:
        return known.settings(fields)
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def _changed(name: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the arrays of a layer that are absent, or stored in another form than used."""
    yield from absent_arrays(name, fields)
    if name == "GRUv3Cell" and fields["Wh"].shape[0] == 3 * fields["Wh"].shape[1]:
        yield "Wh", np.asarray(fields["Wh"])[: 2 * fields["Wh"].shape[1]]
    if name == "BatchNorm" and (variance := old_variance(fields)) is not None:
        yield "σ²", variance


def old_variance(fields: Mapping[str, Any]) -> Any:
    """Return the variance of a BatchNorm of Flux 0.6 or older, which kept deviations, or None."""
    old = "affine" not in fields and "ϵ" in fields and epsilon(fields) == _OLD_EPSILON
    deviations = fields.get("σ", fields.get("σ²") if old else None)
    return np.square(np.asarray(deviations)) - epsilon(fields) if isarray(deviations) else None


def absent_arrays(name: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield zeros for a bias that is switched off, and for a norm without scale and shift ones."""
    kind = FLUX_TYPES[name].kind
    for bias in ("bias", "b"):
        if fields.get(bias, ()) is False:
            outputs = _outputs(kind, fields) * (
                fields["weight"].shape[-2] if name == "DepthwiseConv" else 1
            )
            yield bias, np.zeros(outputs, np.float32)
    if kind.endswith("_norm") and fields.get("affine") is False and "chs" in fields:
        yield "β", np.zeros(int(fields["chs"]), np.float32)
        yield "γ", np.ones(int(fields["chs"]), np.float32)
    if kind == "layer_norm" and fields.get("affine") is False:
        size = tuple(map(int, fields["size"]))
        yield "diag/scale", np.ones(size, np.float32)
        yield "diag/bias", np.zeros(size, np.float32)


def _outputs(kind: str, fields: Mapping[str, Any]) -> int:
    """Return the number of elements of the bias of a layer."""
    array = fields["Wi"] if "Wi" in fields else fields.get("weight", fields.get("W"))
    if kind == "conv":
        return int(array.shape[-1])
    if kind == "conv_transpose":
        return int(array.shape[-2]) * int(fields.get("groups", 1))
    return int(array.shape[0])


def _initial_states(path: str, recur: Any) -> Iterator[tuple[str, Any]]:
    """Yield the states before the first step, which jtree's Recur keeps beside its cell."""
    below = f"{path}/" if path else ""
    states = initial_states(recur.get("cell"))
    for n, x in enumerate(states):
        yield f"{below}state0/{n}" if len(states) > 1 else f"{below}state0", x


def initial_states(cell: Any) -> list[Any]:
    """Return the states of a cell before the first step, each of one axis; none since Flux 0.15."""
    if not isinstance(cell, Mapping):
        return []
    state = cell.get("state0", [cell[name] for name in ("h", "c") if name in cell])
    several = state if isinstance(state, tuple | list) else [state]
    return [np.asarray(x).reshape(-1) for x in several if isarray(x)]


def _newest_name(path: str, names: Mapping[str, str]) -> str:
    """Return the path of an array with the name that the fields of a Diagonal have since 0.13."""
    parent, _, name = path.rpartition("/")
    newest = {"α": "scale", "β": "bias"}.get(name, name)
    return f"{parent}/{newest}" if names.get(parent) == "Diagonal" else path


def _is_dropped(path: str, names: Mapping[str, str]) -> bool:
    """Return whether an array is a state of a recurrent layer as the file has it."""
    *above, name = path.split("/")
    parent = names.get(paths.join(above), "")
    if name.isdigit() and above:  # one of a pair
        *above, name = above
        parent = names.get(paths.join(above), "")
    cell = parent.endswith("Cell") and name in ("state0", "h", "c")
    return cell or (parent == "Recur" and name in ("state", "init"))


def _without_containers(path: str, names: Mapping[str, str]) -> str:
    """Return a path without the keys of containers that other frameworks lack."""
    keys = path.split("/")
    above = [names.get(paths.join(keys[:n]), "") for n in range(len(keys))]
    pairs = zip(keys, above, strict=True)
    return paths.join([key for key, name in pairs if FLUX_CONTAINERS.get(name) != key])


def _find_document(tree: Any, layers: Collection[str]) -> str:
    """Return the name of the model in a file, if only one of the names has layers below it."""
    heads = {path.partition("/")[0] for path in layers}
    return heads.pop() if len(heads) == 1 and isinstance(tree, Mapping) else ""


def fit_to_model(source: SourceModel, model: NamedModel) -> SourceModel:
    """Return a source without what lies beside its model, and the model's name in the file."""
    known = {keys for several in model.names.values() for keys in several}
    source = _without_zero_states(
        source,
        {keys[-1] for keys in model.arrays} | {keys[-2] for keys in model.arrays if len(keys) > 1},
    )
    head = source.document
    if not head or any(keys[:1] == (head,) for keys in known):
        return source
    beside = [path for path in source.arrays if path.partition("/")[0] != head]
    source = replace(source, ignored={**source.ignored, **dict.fromkeys(beside, _OUTSIDE)})

    def strip(items: Mapping[str, Any]) -> dict[str, Any]:
        inside = ((path, x) for path, x in items.items() if path.partition("/")[0] == head)
        return {path.partition("/")[2]: x for path, x in inside}

    short = {path: _strip(name, head) for path, name in strip(source.short_names).items()}
    return replace(
        source, arrays=strip(source.arrays), layers=strip(source.layers), short_names=short
    )


def _strip(name: str, head: str) -> str:
    return name.removeprefix(head).removeprefix("/")


def _without_zero_states(source: SourceModel, keys: Collection[str]) -> SourceModel:
    """Return a source without initial states of zeros, unless the model has such states."""
    if "state0" in keys:
        return source
    zeros = [
        path
        for path, x in source.arrays.items()
        if "state0" in path.split("/")[-2:] and not np.asarray(x).any()
    ]
    kept = {path: x for path, x in source.arrays.items() if path not in zeros}
    reason = "zeros, from which the model's layer starts"
    return replace(source, arrays=kept, ignored=dict.fromkeys(zeros, reason))


def rename_fields(path: str, types: Mapping[str, str], fields: Mapping[str, Sequence[str]]) -> str:
    """Return a path with names in place of the positions of the fields of structs."""
    keys = path.split("/")
    for n, key in enumerate(path.split("/")):
        julia_type = types.get(paths.join(path.split("/")[:n]), "")
        names = fields.get(julia_type, fields.get(julia_type.rpartition(".")[2]))
        if names is not None and key.isdigit() and int(key) < len(names):
            keys[n] = names[int(key)]
    return paths.join(keys)
