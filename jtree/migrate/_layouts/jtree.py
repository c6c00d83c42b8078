"""The layout of jtree's own layers."""

from __future__ import annotations

from typing import Any

from .fields import conv_settings, conv_transpose_settings, no_max_norm, read_fields
from .spec import FrameworkLayout, LayerType
from .transforms import CONV_WINDOW_IN_OUT, MATRIX, ArraySpec, LayerSpec


def _recurrent(gates: str) -> LayerSpec:
    return (
        ArraySpec("weight_ih", tuple(f"input_{g}" for g in gates), MATRIX, 1),
        ArraySpec("weight_hh", tuple(f"hidden_{g}" for g in gates), MATRIX, 1),
        ArraySpec("bias", tuple(f"bias_{g}" for g in gates)),
    )


def _projection(name: str, canonical: str) -> LayerSpec:
    return (
        ArraySpec(f"{name}/weight", (f"{canonical}_kernel",), MATRIX),
        ArraySpec(f"{name}/bias", (f"{canonical}_bias",)),
    )


_CONV: LayerSpec = (
    ArraySpec("weight", ("kernel",), CONV_WINDOW_IN_OUT),
    ArraySpec("bias", ("bias",)),
)
_SPECS: dict[str, LayerSpec] = {
    "dense": (ArraySpec("weight", ("kernel",), MATRIX), ArraySpec("bias", ("bias",))),
    "conv": _CONV,
    "conv_transpose": _CONV,
    "embedding": (ArraySpec("weight", ("table",), MATRIX),),
    "layer_norm": (ArraySpec("diag/scale", ("scale",)), ArraySpec("diag/bias", ("bias",))),
    "group_norm": (ArraySpec("gamma", ("scale",)), ArraySpec("beta", ("bias",))),
    "instance_norm": (
        ArraySpec("gamma", ("scale",)),
        ArraySpec("beta", ("bias",)),
        ArraySpec("mu", ("mean",)),
        ArraySpec("sigma2", ("var",)),
    ),
    "lstm": _recurrent("ifgo"),
    "gru": (*_recurrent("rzn"), ArraySpec("bias_n", ("hidden_bias_n",))),
    "rnn": _recurrent("h"),
    "gru_v3": (
        ArraySpec("weight_ih", tuple(f"input_{g}" for g in "rzn"), MATRIX, 1),
        ArraySpec("weight_hh", ("hidden_r", "hidden_z"), MATRIX, 1),
        ArraySpec("bias", tuple(f"bias_{g}" for g in "rzn")),
        ArraySpec("weight_hn", ("hidden_n",), MATRIX),
    ),
    "attention": (
        *_projection("q_proj", "query"),
        *_projection("k_proj", "key"),
        *_projection("v_proj", "value"),
        *_projection("out_proj", "out"),
    ),
    "batch_norm": (
        ArraySpec("gamma", ("scale",)),
        ArraySpec("beta", ("bias",)),
        ArraySpec("mu", ("mean",)),
        ArraySpec("sigma2", ("var",)),
    ),
}


def _conv_options(node: Any) -> dict[str, Any]:
    return {"dims": len(node.stride), "groups": node.groups}


def _conv(node: Any) -> dict[str, Any]:
    return conv_settings(
        node.weight.shape[:-2],
        stride=node.stride,
        dilation=node.dilation,
        padding=node.pad,
        groups=node.groups,
    )


def _conv_transpose(node: Any) -> dict[str, Any]:
    return conv_transpose_settings(
        node.weight.shape[:-2],
        node.input_padding,
        stride=node.stride,
        dilation=node.dilation,
    )


def _layer_norm_options(node: Any) -> dict[str, Any]:
    return {"rank": len(node.size)}


def _rnn(node: Any) -> dict[str, Any]:
    return {"activation": getattr(node.activation, "__name__", None)}


def _instance_norm(node: Any) -> dict[str, Any]:
    return {"epsilon": node.eps, "momentum": 1 - node.momentum, "groups": node.channels}


def _attention(node: Any) -> dict[str, Any]:
    return {"heads": node.heads, "zero_attention": False}


def _batch_norm(node: Any) -> dict[str, Any]:
    return {"epsilon": node.eps, "momentum": 1 - node.momentum}


_TYPES = {
    "Dense": LayerType("dense", _SPECS["dense"]),
    "Conv": LayerType("conv", _SPECS["conv"], _conv_options, _conv),
    "ConvTranspose": LayerType(
        "conv_transpose", _SPECS["conv_transpose"], _conv_options, _conv_transpose
    ),
    "BatchNorm": LayerType("batch_norm", _SPECS["batch_norm"], settings=_batch_norm),
    "LayerNorm": LayerType(
        "layer_norm", _SPECS["layer_norm"], _layer_norm_options, read_fields(epsilon="eps")
    ),
    "GroupNorm": LayerType(
        "group_norm", _SPECS["group_norm"], settings=read_fields(epsilon="eps", groups="groups")
    ),
    "InstanceNorm": LayerType("instance_norm", _SPECS["instance_norm"], settings=_instance_norm),
    "Embedding": LayerType("embedding", _SPECS["embedding"], settings=no_max_norm),
    "LSTMCell": LayerType("lstm", _SPECS["lstm"]),
    "GRUCell": LayerType("gru", _SPECS["gru"]),
    "GRUv3Cell": LayerType("gru_v3", _SPECS["gru_v3"]),
    "RNNCell": LayerType("rnn", _SPECS["rnn"], settings=_rnn),
    "MultiHeadAttention": LayerType("attention", _SPECS["attention"], settings=_attention),
}

JTREE = FrameworkLayout(
    name="jtree",
    separator="/",
    specs=_SPECS,
    types={("jtree.layers", name): layer_type for name, layer_type in _TYPES.items()},
    containers={
        ("jtree.layers", "Chain"): {"layers": ()},
        ("jtree.layers", "Parallel"): {"layers": ()},
        ("jtree.layers", "SkipConnection"): {"layer": ()},
        **{
            ("jtree.layers", name): {"cell": ()}
            for name in ("RNN", "LSTM", "GRU", "GRUv3", "Recur")
        },
    },
    defaults={
        "batch_norm": {"epsilon": 1e-5, "momentum": 0.9},
        "layer_norm": {"epsilon": 1e-5},
        "group_norm": {"epsilon": 1e-5},
        "rnn": {"activation": "tanh"},
    },
)
