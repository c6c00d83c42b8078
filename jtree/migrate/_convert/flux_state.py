"""A model as a state of Flux.jl, in the order of Flux's fields.

Source: the structs of Flux.jl 0.16, and `Recur` of 0.14.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..._tree.frameworks import loaded
from ..._tree.leaves import isarray, isnumeric
from ..._tree.nodes import children
from ..._tree.ties import Slot
from .._layouts.transforms import KeyPath
from .flux_layers import FluxLayer, to_numpy

Fields: TypeAlias = dict[str, Any]


class FluxArray(NamedTuple):
    """An array of a model in Flux's order of axes.

    Attributes:
      name: its path: that of its layer in the model, then Flux's field.
      array: the array.
      trained: whether `Flux.destructure` has it.
      tie: the index of the first slot of the model that holds the same parameter.
    """

    name: str
    array: Any
    trained: bool
    tie: int


class FluxState:
    """The state that `Flux.state` would return for a model, and its arrays in order.

    Attributes:
      tree: named tuples as dicts, tuples, arrays and numbers; functions are `()`.
      arrays: every array of a layer, in the order of Flux's fields.
    """

    def __init__(
        self,
        root: Any,
        layers: Mapping[KeyPath, FluxLayer],
        arrays: Mapping[KeyPath, Slot],
        *,
        by_name: bool = False,
    ) -> None:
        self.layers = {x.layer.path: x for x in layers.values()}
        self.slots = {slot.path: slot for slot in arrays.values()}
        self.names = {slot.path: "/".join(keys) for keys, slot in arrays.items()}
        self.arrays: list[FluxArray] = []
        self.tree = self._nest(layers) if by_name else self._node("", root)

    def _node(self, path: str, node: Any) -> Any:
        """Return a node as Flux has it: a layer, a container, an array or a number."""
        if path in self.layers:
            return self._layer(self.layers[path], node)
        if isarray(node):
            return self._array(path, node)
        builder = next((f for (m, n), f in _CONTAINERS.items() if _is_type(node, m, n)), None)
        if builder is not None:
            return builder(self, path, node)
        if isinstance(node, tuple | list):
            return tuple(self._node(_join(path, str(n)), x) for n, x in enumerate(node))
        if isinstance(node, Mapping):
            return {str(key): self._node(_join(path, str(key)), x) for key, x in node.items()}
        if isinstance(node, bool | int | float | str | None):
            return node
        return {name: self._node(_join(path, name), x) for name, x in _ordered(node)} or ()

    def _layer(self, layer: FluxLayer, node: Any) -> Fields:
        """Return the fields of a layer, and note its arrays in their order."""
        recurrent = _is_type(node, "jtree.layers", "GRUv3Cell")
        arrays = dict(layer.arrays)
        if recurrent and not self._in_recur(layer.layer.path):
            wh = arrays["Wh"]  # Flux 0.16 has a third block, which it does not use
            arrays["Wh"] = np.concatenate([wh, np.zeros_like(wh[: wh.shape[1]])])
        for path, x in arrays.items():
            name = "/".join((*layer.keys, path))
            self.arrays.append(FluxArray(name, x, path in layer.trained, layer.ties[path]))
        return _FIELDS[layer.layer.kind](arrays, layer, node)

    def _in_recur(self, path: str) -> bool:
        above = path.rpartition("/")[0]
        return any(x in self.slots for x in (_join(above, "state0"), _join(above, "state0/0")))

    def _array(self, path: str, x: Any) -> Any:
        array, slot = to_numpy(x), self.slots[path]
        self.arrays.append(
            FluxArray(self.names[path], array, isnumeric(x) and slot.trainable, slot.tie)
        )
        return array

    def _nest(self, layers: Mapping[KeyPath, FluxLayer]) -> Any:
        """Return layers as nested dicts by their paths, since linen has no nodes."""
        tree: dict[str, Any] = {}
        for layer in layers.values():
            parent, keys = tree, layer.layer.path.split("/")
            for key in keys[:-1]:
                parent = parent.setdefault(key, {})
            parent[keys[-1]] = self._layer(layer, None)
        return tree[""] if set(tree) == {""} else tree


def _is_type(node: Any, module: str, name: str) -> bool:
    cls = loaded(module, name)
    return cls is not None and isinstance(node, cls)


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _ordered(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the children of a node; those of an NNX module in the order of their definition."""
    by_name = children(node)
    order = [name for name in getattr(node, "__dict__", {}) if name in by_name]
    for name in [*order, *(x for x in by_name if x not in order)]:
        yield name, by_name[name]


def _layers(state: FluxState, path: str, node: Any, name: str = "layers") -> Any:
    return state._node(_join(path, name), getattr(node, name))


def _recurrent(state: FluxState, path: str, node: Any) -> Fields:
    return {"cell": _layers(state, path, node, "cell")}


def _recur(state: FluxState, path: str, node: Any) -> Fields:
    """Return the fields of Recur, whose cell holds the state before the first step."""
    cell = _layers(state, path, node, "cell")
    several = isinstance(node.state0, tuple)
    arrays = node.state0 if several else (node.state0,)
    names = [f"state0/{n}" for n in range(len(arrays))] if several else ["state0"]
    columns = [
        state._array(_join(path, name), x).reshape(-1, 1)
        for name, x in zip(names, arrays, strict=True)
    ]
    state0 = tuple(columns) if several else columns[0]
    older = {{"bias": "b"}.get(name, name): value for name, value in cell.items()}
    return {"cell": older | {"state0": state0}, "state": state0}


def _scale(state: FluxState, path: str, node: Any) -> Fields:
    scale = _layers(state, path, node, "scale")
    return {"scale": scale, "bias": _layers(state, path, node, "bias"), "σ": ()}


def _parallel(state: FluxState, path: str, node: Any) -> Fields:
    return {"connection": (), "layers": _layers(state, path, node)}


def _skip_connection(state: FluxState, path: str, node: Any) -> Fields:
    return {"layers": _layers(state, path, node, "layer"), "connection": ()}


def _pool(_: FluxState, __: str, node: Any) -> Fields:
    pad = _flux_padding(node.pad, node.window)
    return {"k": node.window[::-1], "pad": pad, "stride": node.stride[::-1]}


def _adaptive_pool(_: FluxState, __: str, node: Any) -> Fields:
    return {"out": node.size[::-1]}


def _dropout(_: FluxState, __: str, node: Any) -> Fields:
    return {"p": node.p, "dims": (), "active": node.active, "rng": ()}


_CONTAINERS: dict[tuple[str, str], Callable[[FluxState, str, Any], Any]] = {
    ("jtree.layers", "Chain"): lambda state, path, node: {"layers": _layers(state, path, node)},
    ("jtree.layers", "Parallel"): _parallel,
    ("jtree.layers", "SkipConnection"): _skip_connection,
    ("jtree.layers", "Recur"): _recur,
    ("jtree.layers", "Scale"): _scale,
    **{("jtree.layers", name): _recurrent for name in ("RNN", "LSTM", "GRU", "GRUv3")},
    **{("jtree.layers", name): _pool for name in ("MaxPool", "MeanPool")},
    **{("jtree.layers", name): _adaptive_pool for name in ("AdaptiveMaxPool", "AdaptiveMeanPool")},
    ("jtree.layers", "Dropout"): _dropout,
    ("flax.nnx", "Sequential"): lambda state, path, node: {"layers": _layers(state, path, node)},
    ("equinox.nn", "Sequential"): lambda state, path, node: {"layers": _layers(state, path, node)},
    ("flax.nnx", "RNN"): _recurrent,
}


def _flux_padding(pad: Any, window: tuple[int, ...]) -> tuple[int, ...]:
    """Return the padding of an axis after the other, before and after it, the width first."""
    if isinstance(pad, str):  # that of Flux's SamePad, and none for "VALID"
        totals = [n - 1 if pad == "SAME" else 0 for n in window]
        pad = [(-(-total // 2), total // 2) for total in totals]
    pairs = [(x, x) if isinstance(x, int) else x for x in pad]
    return tuple(int(n) for pair in reversed(pairs) for n in pair)


def _dense(arrays: Fields, _: FluxLayer, __: Any) -> Fields:
    return {"weight": arrays["weight"], "bias": arrays.get("bias", False), "σ": ()}


def _conv(arrays: Fields, layer: FluxLayer, _: Any) -> Fields:
    settings, window = layer.layer.settings, layer.shapes["kernel"][:-2]
    return {
        "σ": (),
        "weight": arrays["weight"],
        "bias": arrays.get("bias", False),
        "stride": tuple(settings["strides"][::-1]),
        "pad": _flux_padding(settings["padding"], window),
        "dilation": tuple(settings["dilation"][::-1]),
        "groups": int(settings.get("groups", 1)),
    }


def _conv_transpose(arrays: Fields, layer: FluxLayer, node: Any) -> Fields:
    settings, window = layer.layer.settings, layer.shapes["kernel"][:-2]
    dilation = settings["dilation"]
    outpad = getattr(node, "outpad", (0,) * len(window))
    pairs = zip(window, dilation, settings["padding"], outpad, strict=True)
    pad = [(d * (n - 1) - a, d * (n - 1) - b + extra) for n, d, (a, b), extra in pairs]
    return {
        "σ": (),
        "weight": arrays["weight"],
        "bias": arrays.get("bias", False),
        "stride": tuple(settings["strides"][::-1]),
        "pad": _flux_padding(pad, window),
        "outpad": tuple(outpad[::-1]),
        "dilation": tuple(dilation[::-1]),
        "groups": int(layer.layer.options.get("groups", 1)),
    }


def _norm(arrays: Fields, layer: FluxLayer, _: Any) -> Fields:
    settings = layer.layer.settings
    size = next((x.shape[0] for x in arrays.values()), settings.get("groups", 0))
    momentum = settings.get("momentum")
    return {
        "λ": (),
        "β": arrays.get("β"),
        "γ": arrays.get("γ"),
        "μ": arrays.get("μ"),
        "σ²": arrays.get("σ²"),
        "ϵ": settings["epsilon"],
        "momentum": 0.1 if momentum is None else 1 - momentum,
        "affine": "γ" in arrays,
        "track_stats": "μ" in arrays,
        "active": None,
        "chs": int(size),
    }


def _group_norm(arrays: Fields, layer: FluxLayer, node: Any) -> Fields:
    return {"G": int(layer.layer.settings.get("groups", 1)), **_norm(arrays, layer, node)}


def _layer_norm(arrays: Fields, layer: FluxLayer, node: Any) -> Fields:
    scale = arrays.get("diag/scale")
    size = scale.shape if scale is not None else tuple(getattr(node, "size", ()))[::-1]
    bias = arrays.get("diag/bias", False)
    diag: Any = () if scale is None else {"scale": scale, "bias": bias, "σ": ()}
    epsilon = math.sqrt(layer.layer.settings["epsilon"])
    return {"λ": (), "diag": diag, "ϵ": epsilon, "size": size, "affine": scale is not None}


def _embedding(arrays: Fields, _: FluxLayer, __: Any) -> Fields:
    return {"weight": arrays["weight"]}


def _rnn(arrays: Fields, layer: FluxLayer, node: Any) -> Fields:
    return {"σ": (), **_lstm(arrays, layer, node)}


def _lstm(arrays: Fields, _: FluxLayer, __: Any) -> Fields:
    return {"Wi": arrays["Wi"], "Wh": arrays["Wh"], "bias": arrays.get("bias", False)}


def _gru(arrays: Fields, _: FluxLayer, __: Any) -> Fields:
    return {"Wi": arrays["Wi"], "Wh": arrays["Wh"], "b": arrays.get("b", False)}


def _gru_v3(arrays: Fields, layer: FluxLayer, node: Any) -> Fields:
    return {**_gru(arrays, layer, node), "Wh_h̃": arrays["Wh_h̃"]}


def _attention(arrays: Fields, layer: FluxLayer, _: Any) -> Fields:
    def projection(name: str) -> Fields:
        bias = arrays.get(f"{name}/bias", False)
        return {"weight": arrays[f"{name}/weight"], "bias": bias, "σ": ()}

    return {
        "nheads": int(layer.layer.settings["heads"]),
        "q_proj": projection("q_proj"),
        "k_proj": projection("k_proj"),
        "v_proj": projection("v_proj"),
        "attn_drop": {"p": 0.0, "dims": (), "active": None, "rng": ()},
        "out_proj": projection("out_proj"),
    }


_FIELDS: dict[str, Callable[[Fields, FluxLayer, Any], Fields]] = {
    "dense": _dense,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "batch_norm": _norm,
    "instance_norm": _norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "embedding": _embedding,
    "rnn": _rnn,
    "lstm": _lstm,
    "gru": _gru,
    "gru_v3": _gru_v3,
    "attention": _attention,
}
