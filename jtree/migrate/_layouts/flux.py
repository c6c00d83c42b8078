"""Flux.jl's layout: arrays in Julia's order of axes, convolutions that flip their kernels.

Arrays are those that Julia indexes: a Dense's weight is `(out, in)`, that of a convolution
`(width, height, in / groups, out)`. A layer is known by its Julia type, or by the names of its
fields in a state, which `Flux.state` saves without types.

Source: https://fluxml.ai/Flux.jl, versions 0.4 to 0.16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .fields import conv_settings, conv_transpose_settings, transposed_conv_padding
from .spec import FrameworkLayout
from .transforms import (
    TRANSPOSED_MATRIX,
    VECTOR,
    WINDOW,
    Array,
    ArraySpec,
    LayerOptions,
    LayerSpec,
    Shape,
    Transform,
    flip_window,
)

Fields = Mapping[str, Any]  # the fields of a Julia struct, by name


def _reverse_window(x: Array) -> Array:
    """Return `(height, width, ...)` for `(width, height, ...)`, whose last two axes stay."""
    dims = x.ndim - 2
    return x.transpose(*reversed(range(dims)), dims, dims + 1)


def _conv(x: Array, _: LayerOptions, __: Shape = ()) -> Array:
    """Return the kernel `(*window, in, out)` of a convolution; its own inverse."""
    return flip_window(_reverse_window(x))


def _cross_correlation(x: Array, _: LayerOptions, __: Shape = ()) -> Array:
    return _reverse_window(x)


def _conv_transpose(x: Array, _: LayerOptions, __: Shape = ()) -> Array:
    """Return the kernel `(*window, in, out)` for Flux's `(*window, out, in)`; its own inverse."""
    return flip_window(_reverse_window(x)).swapaxes(-1, -2)


def _depthwise(x: Array, _: LayerOptions) -> Array:
    """Return the kernel for that of Flux 0.12 and older, `(*window, multiplier, in)`."""
    kernel = flip_window(_reverse_window(x)).swapaxes(-1, -2)
    return kernel.reshape(*kernel.shape[:-2], 1, -1)


def _from_depthwise(x: Array, options: LayerOptions, _: Shape) -> Array:
    groups = int(options["groups"])
    return flip_window(_reverse_window(x.reshape(*x.shape[:-2], groups, -1).swapaxes(-1, -2)))


def last_axes(count: int, *, image: bool = False) -> tuple[int, ...]:
    """Return the axes of features in the order of JAX, which Julia has before the batch.

    >>> last_axes(2), last_axes(3, image=True)
    ((1, 0), (1, 0, 2))
    """
    space = count - 1 if image else count
    return (*reversed(range(space)), *range(space, count))


def _last_axes(x: Array, _: LayerOptions, __: Shape = ()) -> Array:
    """Return features of one or two axes reversed, and images as (height, width, channels)."""
    return x.transpose(last_axes(x.ndim, image=x.ndim > 2))


def _zeros(x: Array, _: LayerOptions, __: Shape = ()) -> Array:
    return np.zeros_like(x)


_CONV = Transform(_conv, _conv, 2, WINDOW)
_CROSS_CORRELATION = Transform(_cross_correlation, _cross_correlation, 2, WINDOW)
_CONV_TRANSPOSE = Transform(_conv_transpose, _conv_transpose, 2, WINDOW)
_DEPTHWISE = Transform(_depthwise, _from_depthwise, 2, WINDOW)
_LAST_AXES = Transform(_last_axes, _last_axes, options=(("rank", 1),))
_HIDDEN_BIAS = Transform(_zeros, _zeros, 1)


def _names(*names: str, canonical: str, transform: Transform = VECTOR) -> LayerSpec:
    """Return an array under each of the names that it has had in Flux, the newest first."""
    return tuple(ArraySpec(name, (canonical,), transform) for name in names)


_BIAS = _names("bias", "b", canonical="bias")


def _with_bias(*names: str, transform: Transform) -> LayerSpec:
    return (*_names(*names, canonical="kernel", transform=transform), *_BIAS)


def _gates(gates: str, bias: str) -> LayerSpec:
    """Return the arrays of a cell, under the newest name of its bias and under the other one."""
    inputs, hidden, biases = (
        tuple(f"{name}_{g}" for g in gates) for name in ("input", "hidden", "bias")
    )
    older = "b" if bias == "bias" else "bias"
    return (
        ArraySpec("Wi", inputs, TRANSPOSED_MATRIX),
        ArraySpec("Wh", hidden, TRANSPOSED_MATRIX),
        ArraySpec(bias, biases),
        ArraySpec(older, biases),
    )


_GRU_V3_BIAS = tuple(f"bias_{g}" for g in "rzn")
_NORM: LayerSpec = (
    *_names("β", canonical="bias"),
    *_names("γ", canonical="scale"),
    *_names("μ", canonical="mean"),
    *_names("σ²", canonical="var"),
)


def _projection(name: str, canonical: str) -> LayerSpec:
    return (
        ArraySpec(f"{name}/weight", (f"{canonical}_kernel",), TRANSPOSED_MATRIX),
        ArraySpec(f"{name}/bias", (f"{canonical}_bias",)),
    )


_SPECS: dict[str, LayerSpec] = {
    "dense": _with_bias("weight", "W", transform=TRANSPOSED_MATRIX),
    "conv": _with_bias("weight", transform=_CONV),
    "conv_transpose": _with_bias("weight", transform=_CONV_TRANSPOSE),
    "batch_norm": _NORM,
    "group_norm": _NORM,
    "instance_norm": _NORM,
    "layer_norm": (
        *_names("diag/scale", "diag/α", canonical="scale", transform=_LAST_AXES),
        *_names("diag/bias", "diag/β", canonical="bias", transform=_LAST_AXES),
    ),
    "embedding": _names("weight", canonical="table", transform=TRANSPOSED_MATRIX),
    "rnn": _gates("h", "bias"),
    "lstm": _gates("ifgo", "bias"),
    "gru": (
        *_gates("rzn", "b"),
        # Other frameworks add a bias to the state, which Flux lacks.
        *(ArraySpec(x, ("", "", "hidden_bias_n"), _HIDDEN_BIAS) for x in ("b", "bias")),
    ),
    "gru_v3": (
        ArraySpec("Wi", tuple(f"input_{g}" for g in "rzn"), TRANSPOSED_MATRIX),
        ArraySpec("Wh", ("hidden_r", "hidden_z"), TRANSPOSED_MATRIX),
        ArraySpec("b", _GRU_V3_BIAS),
        ArraySpec("bias", _GRU_V3_BIAS),
        ArraySpec("Wh_h̃", ("hidden_n",), TRANSPOSED_MATRIX),
    ),
    "attention": (
        *_projection("q_proj", "query"),
        *_projection("k_proj", "key"),
        *_projection("v_proj", "value"),
        *_projection("out_proj", "out"),
    ),
}

_CROSS_CORRELATION_SPEC = _with_bias("weight", transform=_CROSS_CORRELATION)
_DEPTHWISE_SPEC = _with_bias("weight", transform=_DEPTHWISE)


class FluxType(NamedTuple):
    """A type of layer of Flux.

    Attributes:
      kind: the kind of layer, such as `"dense"`.
      spec: the arrays that it stores.
      settings: reads from its fields what its weights do not tell, such as epsilon.
      activation: the field that holds the function of its output, or "".
    """

    kind: str
    spec: LayerSpec
    settings: Callable[[Fields], dict[str, Any]]
    activation: str = ""


def spatial(fields: Fields, name: str, default: int) -> tuple[int, ...]:
    """Return one integer for each axis of a window, of which Julia has the width first."""
    dims = weight(fields).ndim - 2
    values = fields.get(name, default)
    several = tuple(values) if isinstance(values, Sequence) else (values,) * dims
    return tuple(int(n) for n in reversed(several))


def padding(pad: Any, dims: int) -> tuple[tuple[int, int], ...]:
    """Return (before, after) for each axis, for Flux's `(left, right, top, bottom)`."""
    values = [int(n) for n in pad] if isinstance(pad, Sequence) else [int(pad)] * dims
    pairs = zip(values[::2], values[1::2], strict=True) if len(values) == 2 * dims else None
    return tuple(reversed(tuple(pairs) if pairs else [(n, n) for n in values]))


def weight(fields: Fields) -> Any:
    """Return the weight of a dense layer or a convolution."""
    return fields["weight"] if "weight" in fields else fields["W"]


def conv_groups(name: str, fields: Fields) -> int:
    """Return the groups of a convolution, of which a depthwise one has one for each channel."""
    channels = weight(fields).shape[-1]
    return int(channels if name == "DepthwiseConv" else fields.get("groups", 1))


def _conv_settings(name: str) -> Callable[[Fields], dict[str, Any]]:
    def settings(fields: Fields) -> dict[str, Any]:
        window = weight(fields).shape[:-2][::-1]
        return conv_settings(
            window,
            stride=spatial(fields, "stride", 1),
            dilation=spatial(fields, "dilation", 1),
            padding=padding(fields.get("pad", 0), len(window)),
            groups=conv_groups(name, fields),
        )

    return settings


def _conv_transpose_settings(fields: Fields) -> dict[str, Any]:
    window = weight(fields).shape[:-2][::-1]
    dilation = spatial(fields, "dilation", 1)
    pad = padding(fields.get("pad", 0), len(window))
    outer = transposed_conv_padding(window, pad, spatial(fields, "outpad", 0), dilation)
    strides = spatial(fields, "stride", 1)
    return conv_transpose_settings(window, outer, stride=strides, dilation=dilation)


def epsilon(fields: Fields) -> float:
    """Return the number that a normalisation adds to the variance."""
    return float(next((fields[name] for name in ("ϵ", "ε", "eps") if name in fields), 1e-5))


def layer_norm_epsilon(fields: Fields) -> float:
    """Return what a layer normalisation adds to the variance, which is the square in Flux."""
    return epsilon(fields) ** 2


def _norm_settings(fields: Fields) -> dict[str, Any]:
    settings: dict[str, Any] = {"epsilon": epsilon(fields)}
    if "momentum" in fields:
        settings["momentum"] = 1 - float(fields["momentum"])
    return settings


def _group_norm_settings(fields: Fields) -> dict[str, Any]:
    return {"epsilon": epsilon(fields)} | ({"groups": int(fields["G"])} if "G" in fields else {})


def _instance_norm_settings(fields: Fields) -> dict[str, Any]:
    channels = fields.get("chs")
    groups = {} if channels is None else {"groups": int(channels)}
    return _norm_settings(fields) | groups


def _attention_settings(fields: Fields) -> dict[str, Any]:
    return {"heads": int(fields["nheads"]), "zero_attention": False}


def _no_settings(_: Fields) -> dict[str, Any]:
    return {}


def _type(kind: str, settings: Any = _no_settings, activation: str = "") -> FluxType:
    return FluxType(kind, _SPECS[kind], settings, activation)


FLUX_TYPES = {
    "Dense": _type("dense", activation="σ"),
    "Conv": _type("conv", _conv_settings("Conv"), "σ"),
    "CrossCor": FluxType("conv", _CROSS_CORRELATION_SPEC, _conv_settings("CrossCor"), "σ"),
    "DepthwiseConv": FluxType("conv", _DEPTHWISE_SPEC, _conv_settings("DepthwiseConv"), "σ"),
    "ConvTranspose": _type("conv_transpose", _conv_transpose_settings, "σ"),
    "BatchNorm": _type("batch_norm", _norm_settings, "λ"),
    "InstanceNorm": _type("instance_norm", _instance_norm_settings, "λ"),
    "GroupNorm": _type("group_norm", _group_norm_settings, "λ"),
    "LayerNorm": _type("layer_norm", lambda fields: {"epsilon": layer_norm_epsilon(fields)}, "λ"),
    "Embedding": _type("embedding", lambda _: {"max_norm": False}),
    "RNNCell": _type("rnn"),
    "LSTMCell": _type("lstm"),
    "GRUCell": _type("gru"),
    "GRUv3Cell": _type("gru_v3"),
    "MultiHeadAttention": _type("attention", _attention_settings),
}

# Containers of Flux, with the field whose key other frameworks lack.
FLUX_CONTAINERS = {
    **dict.fromkeys(("Chain", "Parallel", "SkipConnection", "Maxout"), "layers"),
    **dict.fromkeys(("Recur", "Recurrence", "RNN", "LSTM", "GRU", "GRUv3"), "cell"),
}

FLUX = FrameworkLayout(
    name="flux",
    separator="/",
    specs=_SPECS,
    defaults={
        "batch_norm": {"epsilon": 1e-5, "momentum": 0.9},
        "layer_norm": {"epsilon": 1e-10},
        "group_norm": {"epsilon": 1e-5},
        "instance_norm": {"epsilon": 1e-5},
        "rnn": {"activation": "tanh"},
    },
    channels_first=True,
    notes={"embedding": "ids count from 1 in Julia and from 0 in JAX"},
)


def type_name(julia_type: str | None) -> str:
    """Return the name of a type of Flux, such as `"Dense"`, and "" for any other type."""
    module, _, name = (julia_type or "").rpartition(".")
    return name if module.partition(".")[0] == "Flux" else ""


def guess_type(fields: Fields) -> str:
    """Return the type of layer whose fields have these names, as in a state without types, or "".

    >>> guess_type({"σ": (), "weight": np.ones((2, 3)), "bias": False})
    'Dense'
    """
    names = fields.keys()
    kernel = fields.get("weight", fields.get("W", fields.get("γ")))
    rank = getattr(kernel, "ndim", 0)
    if "Wi" in names and getattr(fields.get("Wh"), "ndim", 0) == 2:
        if "Wh_h̃" in names:
            return "GRUv3Cell"
        rows, columns = fields["Wi"].shape[0], fields["Wh"].shape[1]
        return {1: "RNNCell", 3: "GRUCell", 4: "LSTMCell"}.get(rows // max(columns, 1), "")
    if rank > 2 and "stride" in names:
        return "ConvTranspose" if "outpad" in names else "Conv"
    if rank == 2:
        return "Dense" if {"bias", "b"} & names else "Embedding"
    if "γ" in names and "β" in names and (rank or kernel is None):
        return (
            "GroupNorm"
            if "G" in names
            else "InstanceNorm"
            if fields.get("μ") is None
            else "BatchNorm"
        )
    return _guess_composed(fields)


def _guess_composed(fields: Fields) -> str:
    names = fields.keys()
    if "nheads" in names and "q_proj" in names:
        return "MultiHeadAttention"
    if "diag" in names:
        return "LayerNorm"
    if {"scale", "bias"} <= names:
        return "Scale"
    if "cell" in names:
        return "Recur"
    if "layers" in names:
        return "Parallel" if "connection" in names else "Chain"
    return ""
