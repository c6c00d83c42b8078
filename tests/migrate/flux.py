"""Models of Flux as a reader returns them, and what they compute, in NumPy from Flux's docs.

Arrays have Julia's order of axes: features first, images (width, height, channels, batch). The
convolutions are true ones, by loops over their definition.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from jtree._state.sources import open_tree

Array = Any


@dataclass
class FluxFile:
    """A file as it is after its reader: a nested state, and the Julia types by path."""

    tree: Any
    types: dict[str, str] = field(default_factory=dict)
    format: str = "BSON"


@open_tree.register
def _(x: FluxFile) -> Any:
    return x.tree


class Struct:
    """A struct of Julia, or a function, with its type."""

    def __init__(self, type: str, /, **fields: Any) -> None:
        self.type, self.fields = type, fields


def flux_file(**values: Any) -> FluxFile:
    """Return a file with these values, such as `model=chain(...)`."""
    types: dict[str, str] = {}
    return FluxFile(_plain(values, "", types), types)


def _plain(x: Any, path: str, types: dict[str, str]) -> Any:
    if isinstance(x, Struct):
        types[path] = x.type
        x = x.fields or ()
    if isinstance(x, dict):
        return {key: _plain(y, f"{path}/{key}".strip("/"), types) for key, y in x.items()}
    if isinstance(x, tuple | list):
        return type(x)(_plain(y, f"{path}/{n}".strip("/"), types) for n, y in enumerate(x))
    return x


def state_of(x: Any) -> Any:
    """Return what `Flux.state` returns: a struct as a named tuple, a function as ()."""
    if isinstance(x, Struct):
        return {key: state_of(y) for key, y in x.fields.items()} or ()
    if isinstance(x, dict):
        return {key: state_of(y) for key, y in x.items()}
    return tuple(map(state_of, x)) if isinstance(x, tuple | list) else x


EPSILON = {"ϵ": 1e-5}  # Python would change the letter of a keyword
RELU, TANH, SIGMOID = (Struct(f"NNlib.{x}") for x in ("relu", "tanh_fast", "σ"))
IDENTITY, SOFTMAX, GELU = Struct("Base.identity"), Struct("NNlib.softmax"), Struct("NNlib.gelu")
PLUS, VCAT, FLATTEN = Struct("Base.+"), Struct("Base.vcat"), Struct("Flux.flatten")


class Random:
    """Layers with random arrays, as Flux 0.16 has them."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, *shape: int) -> Array:
        return (self.rng.normal(size=shape) / 2).astype(np.float32)

    def positive(self, *shape: int) -> Array:
        return self.rng.uniform(0.5, 2, size=shape).astype(np.float32)

    def dense(
        self, n_in: int, n_out: int, activation: Struct = IDENTITY, bias: Any = True
    ) -> Struct:
        bias = self(n_out) if bias else False
        return Struct("Flux.Dense", weight=self(n_out, n_in), bias=bias, σ=activation)

    def conv(
        self,
        window: tuple[int, ...],
        c_in: int,
        c_out: int,
        activation: Struct = IDENTITY,
        *,
        stride: int = 1,
        pad: Any = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        type: str = "Conv",
        **more: Any,
    ) -> Struct:
        n = len(window)
        sizes = (c_in // groups, c_out) if type != "ConvTranspose" else (c_out // groups, c_in)
        return Struct(
            f"Flux.{type}",
            σ=activation,
            weight=self(*window, *sizes),
            bias=self(c_out) if bias else False,
            stride=(stride,) * n,
            pad=(pad,) * 2 * n if isinstance(pad, int) else pad,
            **more,
            dilation=(dilation,) * n,
            **({} if type == "CrossCor" else {"groups": groups}),
        )

    def norm(
        self, channels: int, activation: Struct = IDENTITY, type: str = "BatchNorm", **fields: Any
    ) -> Struct:
        return Struct(
            f"Flux.{type}",
            **({"G": fields.pop("G")} if "G" in fields else {}),
            λ=activation,
            **{
                "β": self(channels),
                "γ": self(channels),
                "μ": self(channels) if type == "BatchNorm" else None,
                "σ²": self.positive(channels) if type == "BatchNorm" else None,
                "ϵ": 1e-5,
                "momentum": 0.25,
                "affine": True,
                "track_stats": type == "BatchNorm",
                "active": None,
                "chs": channels,
                **fields,
            },
        )

    def layer_norm(self, *size: int, activation: Struct = IDENTITY) -> Struct:
        diag = Struct("Flux.Scale", scale=self(*size), bias=self(*size), σ=activation)
        return Struct("Flux.LayerNorm", λ=activation, diag=diag, **EPSILON, size=size, affine=True)

    def cell(
        self, name: str, n_in: int, n_out: int, *, old: bool = False, bias: Any = True
    ) -> Struct:
        gates = {"RNNCell": 1, "LSTMCell": 4}.get(name, 3)
        hidden = 2 if name == "GRUv3Cell" and old else gates
        fields: dict[str, Any] = {"σ": TANH} if name == "RNNCell" else {}
        fields |= {"Wi": self(gates * n_out, n_in), "Wh": self(hidden * n_out, n_out)}
        key = "b" if old or name.startswith("GRU") else "bias"
        fields[key] = self(gates * n_out) if bias else False
        if name == "GRUv3Cell":
            fields["Wh_h̃"] = self(n_out, n_out)
        if old:
            state = self(n_out, 1)
            fields["state0"] = (state, self(n_out, 1)) if name == "LSTMCell" else state
        return Struct(f"Flux.{name}", **fields)

    def recurrent(
        self, name: str, n_in: int, n_out: int, *, old: bool = False, bias: Any = True
    ) -> Struct:
        cell = self.cell(f"{name}Cell", n_in, n_out, old=old, bias=bias)
        if old:
            return Struct("Flux.Recur", cell=cell, state=cell.fields["state0"])
        return Struct(f"Flux.{name}", cell=cell)


def chain(*layers: Any, **named: Any) -> Struct:
    return Struct("Flux.Chain", layers=named or layers)


def pool(type: str, k: tuple[int, ...], *, pad: Any = 0, stride: Any = None) -> Struct:
    pad = (pad,) * 2 * len(k) if isinstance(pad, int) else pad
    return Struct(f"Flux.{type}", k=k, pad=pad, stride=stride or k)


def call(layer: Any, x: Array) -> Array:
    """Return what a layer of Flux computes, in inference."""
    name = layer.type.rpartition(".")[2]
    if name in FUNCTIONS:
        return FUNCTIONS[name](x)
    return CALLS[name](layer.fields, x)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(0, keepdims=True))
    return e / e.sum(0, keepdims=True)


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leakyrelu": lambda x: np.where(x > 0, x, 0.01 * x),
    "tanh_fast": np.tanh,
    "tanh": np.tanh,
    "σ": sigmoid,
    "swish": lambda x: x * sigmoid(x),
    "gelu": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "softplus": lambda x: np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0),
    "softmax": softmax,
    "flatten": lambda x: x.reshape(-1, x.shape[-1], order="F"),
    "GlobalMeanPool": lambda x: x.mean(tuple(range(x.ndim - 2)), keepdims=True),
    "GlobalMaxPool": lambda x: x.max(tuple(range(x.ndim - 2)), keepdims=True),
}


def _dense(p: Mapping[str, Any], x: Array) -> Array:
    weight = p["weight"] if "weight" in p else p["W"]
    y = np.tensordot(weight, x, 1)
    bias = p.get("bias", p.get("b"))
    return call(p["σ"], y if bias is False else y + bias.reshape(-1, *(1,) * (x.ndim - 1)))


def convolve(
    x: Array, w: Array, stride: Any, pad: Any, dilation: Any, groups: int, flip: bool
) -> Array:
    """Return a true convolution of (space..., channels, batch), or a cross-correlation."""
    n = w.ndim - 2
    pads = [(pad[2 * i], pad[2 * i + 1]) if len(pad) == 2 * n else (pad[i],) * 2 for i in range(n)]
    x = np.pad(x, [*pads, (0, 0), (0, 0)])
    sizes = [(x.shape[i] - dilation[i] * (w.shape[i] - 1) - 1) // stride[i] + 1 for i in range(n)]
    y = np.zeros((*sizes, w.shape[-1], x.shape[-1]))
    c_in, c_out = w.shape[-2], w.shape[-1] // groups
    for at in product(*map(range, sizes)):
        for k in product(*map(range, w.shape[:n])):
            tap = tuple(m - 1 - j for m, j in zip(w.shape, k, strict=False)) if flip else k
            point = x[
                tuple(s * a + d * j for s, a, d, j in zip(stride, at, dilation, k, strict=True))
            ]
            for g in range(groups):
                inputs = point[g * c_in : (g + 1) * c_in]
                kernel = w[tap][:, g * c_out : (g + 1) * c_out]
                y[at][g * c_out : (g + 1) * c_out] += kernel.T @ inputs
    return y


def _conv(p: Mapping[str, Any], x: Array, flip: bool = True) -> Array:
    groups = p.get("groups", 1)
    y = convolve(x, p["weight"], p["stride"], p["pad"], p["dilation"], groups, flip)
    return call(p["σ"], _add_bias(p, y))


def _add_bias(p: Mapping[str, Any], y: Array) -> Array:
    return y if p["bias"] is False else y + p["bias"].reshape(*(1,) * (y.ndim - 2), -1, 1)


def _depthwise(p: Mapping[str, Any], x: Array) -> Array:
    """Return the output for a weight (window..., multiplier, in): by channels, then multipliers."""
    w = p["weight"]
    outputs = []
    for c, m in product(range(w.shape[-1]), range(w.shape[-2])):
        kernel = w[..., m : m + 1, c : c + 1]
        one = x[..., c : c + 1, :]
        outputs.append(convolve(one, kernel, p["stride"], p["pad"], p["dilation"], 1, True))
    return call(p["σ"], _add_bias(p, np.concatenate(outputs, -2)))


def _conv_transpose(p: Mapping[str, Any], x: Array) -> Array:
    """Return the transpose of the linear map that the convolution with this weight is."""
    w, stride, pad, dilation = p["weight"], p["stride"], p["pad"], p["dilation"]
    outpad, groups = p.get("outpad", (0,) * len(stride)), p.get("groups", 1)
    size = [
        (x.shape[i] - 1) * stride[i]
        + dilation[i] * (w.shape[i] - 1)
        + 1
        - pad[2 * i]
        - pad[2 * i + 1]
        + outpad[i]
        for i in range(len(stride))
    ]
    shape = (*size, w.shape[-2] * groups)
    y = np.zeros((*shape, x.shape[-1]))
    for index in np.ndindex(*shape):
        unit = np.zeros((*shape, 1))
        unit[index] = 1
        z = convolve(unit, w, stride, pad, dilation, groups, True)
        y[index] = np.tensordot(z[..., 0], x, x.ndim - 1)
    return call(p["σ"], _add_bias(p, y))


def _norm(p: Mapping[str, Any], x: Array, axes: tuple[int, ...] | None = None) -> Array:
    shape = (*(1,) * (x.ndim - 2), -1, 1)
    if p["μ"] is not None:
        mean, var = p["μ"].reshape(shape), p["σ²"].reshape(shape)
    else:
        axes = tuple(range(x.ndim - 2)) if axes is None else axes
        mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    y = (x - mean) / np.sqrt(var + p["ϵ"])
    if p["γ"] is not None:
        y = p["γ"].reshape(shape) * y + p["β"].reshape(shape)
    return call(p["λ"], y)


def _group_norm(p: Mapping[str, Any], x: Array) -> Array:
    *space, channels, batch = x.shape
    grouped = x.reshape(*space, channels // p["G"], p["G"], batch, order="F")
    axes = tuple(range(len(space) + 1))
    y = grouped - grouped.mean(axes, keepdims=True)
    y = (y / np.sqrt(grouped.var(axes, keepdims=True) + p["ϵ"])).reshape(x.shape, order="F")
    shape = (*(1,) * len(space), -1, 1)
    return call(p["λ"], p["γ"].reshape(shape) * y + p["β"].reshape(shape))


def _layer_norm(p: Mapping[str, Any], x: Array) -> Array:
    axes = tuple(range(len(p["size"])))
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + p["ϵ"] ** 2)
    scale, bias = (p["diag"].fields[name] for name in ("scale", "bias"))
    more = (1,) * (x.ndim - scale.ndim)
    return call(p["λ"], scale.reshape(*scale.shape, *more) * y + bias.reshape(*scale.shape, *more))


def _pool(p: Mapping[str, Any], x: Array, reduce: Any, fill: float) -> Array:
    n, k, stride, pad = len(p["k"]), p["k"], p["stride"], p["pad"]
    x = np.pad(
        x, [*((pad[2 * i], pad[2 * i + 1]) for i in range(n)), (0, 0), (0, 0)], constant_values=fill
    )
    sizes = [(x.shape[i] - k[i]) // stride[i] + 1 for i in range(n)]
    y = np.zeros((*sizes, *x.shape[n:]))
    for at in product(*map(range, sizes)):
        window = tuple(slice(s * a, s * a + m) for s, a, m in zip(stride, at, k, strict=True))
        y[at] = reduce(x[window], axis=tuple(range(n)))
    return y


def _adaptive(p: Mapping[str, Any], x: Array, reduce: Any) -> Array:
    out = p["out"]
    stride = tuple(n // m for n, m in zip(x.shape, out, strict=False))
    k = tuple(n - (m - 1) * s for n, m, s in zip(x.shape, out, stride, strict=False))
    return _pool({"k": k, "stride": stride, "pad": (0,) * 2 * len(k)}, x, reduce, 0)


def step(cell: Struct, state: Any, x: Array) -> tuple[Array, Any]:
    """Return the output and the state of one step for x of shape (features, batch)."""
    p, name = cell.fields, cell.type.rpartition(".")[2]
    bias = p.get("b", p.get("bias"))
    bias = np.zeros(p["Wi"].shape[0]) if bias is False else bias
    gx, b, n = p["Wi"] @ x, bias[:, None], p["Wh"].shape[1]
    block = lambda a, i: a[i * n : (i + 1) * n]  # noqa: E731
    if name == "RNNCell":
        h = call(p["σ"], gx + p["Wh"] @ state + b)
        return h, h
    if name == "LSTMCell":
        g = gx + p["Wh"] @ state[0] + b
        c = sigmoid(block(g, 1)) * state[1] + sigmoid(block(g, 0)) * np.tanh(block(g, 2))
        h = sigmoid(block(g, 3)) * np.tanh(c)
        return h, (h, c)
    gh = p["Wh"] @ state
    r, z = (sigmoid(block(gx, i) + block(gh, i) + block(b, i)) for i in (0, 1))
    inner = p["Wh_h̃"] @ (r * state) if name == "GRUv3Cell" else r * block(gh, 2)
    h = (1 - z) * np.tanh(block(gx, 2) + inner + block(b, 2)) + z * state
    return h, h


def _recurrent(p: Mapping[str, Any], x: Array) -> Array:
    """Return the outputs for (features, time, batch)."""
    cell = p["cell"]
    n, batch = cell.fields["Wh"].shape[1], x.shape[-1]
    zeros = np.zeros((n, batch))
    state = cell.fields.get("state0", (zeros, zeros) if "LSTM" in cell.type else zeros)
    state = tuple(s + zeros for s in state) if isinstance(state, tuple) else state + zeros
    outputs = []
    for t in range(x.shape[1]):
        y, state = step(cell, state, x[:, t])
        outputs.append(y)
    return np.stack(outputs, 1)


def attend(p: Mapping[str, Any], x: Array, *, causal: bool = False) -> Array:
    """Return the attention of (features, time, batch) to itself."""
    q, k, v = (_dense(p[f"{name}_proj"].fields, x) for name in "qkv")
    heads, size = p["nheads"], q.shape[0] // p["nheads"]
    outputs = np.zeros_like(v)
    for n, h in product(range(x.shape[-1]), range(heads)):
        rows = slice(h * size, (h + 1) * size)
        scores = k[rows, :, n].T @ q[rows, :, n] / np.sqrt(size)  # (keys, queries)
        if causal:
            scores = np.where(np.triu(np.ones_like(scores)) > 0, scores, -np.inf)
        outputs[rows, :, n] = v[rows, :, n] @ softmax(scores)
    return _dense(p["out_proj"].fields, outputs)


def _chain(p: Mapping[str, Any], x: Array) -> Array:
    layers = p["layers"]
    for layer in layers.values() if isinstance(layers, dict) else layers:
        x = call(layer, x)
    return x


def _combine(connection: Struct, ys: list[Array]) -> Array:
    if connection.type.endswith("BroadcastFunction"):
        return np.multiply(*ys)
    return np.concatenate(ys) if connection.type.endswith("vcat") else sum(ys)


CALLS: dict[str, Callable[[Mapping[str, Any], Array], Array]] = {
    "Chain": _chain,
    "Dense": _dense,
    "Conv": _conv,
    "CrossCor": lambda p, x: _conv(p, x, flip=False),
    "DepthwiseConv": _depthwise,
    "ConvTranspose": _conv_transpose,
    "BatchNorm": _norm,
    "InstanceNorm": _norm,
    "GroupNorm": _group_norm,
    "LayerNorm": _layer_norm,
    "MaxPool": lambda p, x: _pool(p, x, np.max, -np.inf),
    "MeanPool": lambda p, x: _pool(p, x, np.mean, 0),
    "AdaptiveMaxPool": lambda p, x: _adaptive(p, x, np.max),
    "AdaptiveMeanPool": lambda p, x: _adaptive(p, x, np.mean),
    "Embedding": lambda p, ids: p["weight"][:, ids - 1],
    "Dropout": lambda _, x: x,
    **dict.fromkeys(("Recur", "RNN", "LSTM", "GRU", "GRUv3"), _recurrent),
    "SkipConnection": lambda p, x: _combine(p["connection"], [call(p["layers"], x), x]),
    "Parallel": lambda p, x: _combine(p["connection"], [call(y, x) for y in p["layers"]]),
    "Maxout": lambda p, x: np.max([call(y, x) for y in p["layers"]], 0),
}


def write_bson(path: Any, **values: Any) -> None:
    """Write values as BSON.jl does: structs by position, arrays column-major."""
    Path(path).write_bytes(_document({name: _lowered(x) for name, x in values.items()}))


def _lowered(x: Any) -> Any:
    """Return a value of Julia as a document of tags."""
    if isinstance(x, Struct):
        return {
            "tag": "struct",
            "type": _datatype(x.type),
            "data": [*map(_lowered, x.fields.values())],
        }
    if isinstance(x, np.ndarray):
        name = {"float32": "Float32", "float64": "Float64"}[x.dtype.name]
        data = x.tobytes(order="F")
        return {
            "tag": "array",
            "type": _datatype(f"Core.{name}"),
            "size": list(x.shape),
            "data": data,
        }
    if isinstance(x, dict):
        keys = [{"tag": "symbol", "name": name} for name in x]
        types = [{"tag": "tuple", "data": keys}, _datatype("Core.Tuple")]
        data = [*map(_lowered, x.values())]
        return {"tag": "struct", "type": _datatype("Core.NamedTuple", types), "data": data}
    return {"tag": "tuple", "data": [*map(_lowered, x)]} if isinstance(x, tuple) else x


def _datatype(name: str, params: Any = ()) -> Any:
    return {"tag": "datatype", "params": [*params], "name": name.split(".")}


def _document(x: Any) -> bytes:
    items = x.items() if isinstance(x, dict) else ((str(n), y) for n, y in enumerate(x))
    body = b"".join(_element(str(name), y) for name, y in items)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def _element(name: str, x: Any) -> bytes:
    kinds = {bool: 8, int: 18, float: 1, str: 2, bytes: 5, dict: 3, list: 4, type(None): 10}
    return bytes([kinds[type(x)]]) + name.encode() + b"\0" + _content(x)


def _content(x: Any) -> bytes:
    if isinstance(x, str):
        return struct.pack("<i", len(x.encode()) + 1) + x.encode() + b"\0"
    if isinstance(x, bytes):
        return struct.pack("<ib", len(x), 0) + x
    if x is None:
        return b""
    if isinstance(x, bool | int | float):
        return struct.pack({bool: "<?", int: "<q", float: "<d"}[type(x)], x)
    return _document(x)


def nhwc(x: Array) -> Array:
    """Return images (batch, height, width, channels) for (width, height, channels, batch)."""
    return x.transpose(x.ndim - 1, *reversed(range(x.ndim - 2)), x.ndim - 2)


def reversed_axes(x: Array) -> Array:
    """Return (batch, time, features) for (features, time, batch)."""
    return x.transpose()
