"""Equinox's layout: PyTorch's, with biases that broadcast and transposed kernels flipped.

Source: https://docs.kidger.site/equinox.
"""

from __future__ import annotations

from typing import Any

from .fields import (
    conv_settings,
    conv_transpose_settings,
    no_max_norm,
    read_fields,
    transposed_conv_padding,
)
from .spec import FrameworkLayout, LayerType
from .transforms import (
    CONV_BIAS_WITH_WINDOW,
    CONV_OUT_IN_WINDOW,
    CONV_TRANSPOSE_EQUINOX,
    MATRIX,
    TRANSPOSED_MATRIX,
    ArraySpec,
    LayerSpec,
    Transform,
    identity,
    merged_axes,
)

_AFFINE: LayerSpec = (ArraySpec("weight", ("scale",)), ArraySpec("bias", ("bias",)))


def _conv_spec(transform: Transform) -> LayerSpec:
    return (
        ArraySpec("weight", ("kernel",), transform),
        ArraySpec("bias", ("bias",), CONV_BIAS_WITH_WINDOW),
    )


def _recurrent(gates: str) -> LayerSpec:
    return (
        ArraySpec("weight_ih", tuple(f"input_{g}" for g in gates), TRANSPOSED_MATRIX),
        ArraySpec("weight_hh", tuple(f"hidden_{g}" for g in gates), TRANSPOSED_MATRIX),
        ArraySpec("bias", tuple(f"bias_{g}" for g in gates)),
    )


def _projection(name: str, canonical: str) -> LayerSpec:
    return (
        ArraySpec(f"{name}_proj/weight", (f"{canonical}_kernel",), TRANSPOSED_MATRIX),
        ArraySpec(f"{name}_proj/bias", (f"{canonical}_bias",)),
    )


_SPECS: dict[str, LayerSpec] = {
    "dense": (ArraySpec("weight", ("kernel",), TRANSPOSED_MATRIX), ArraySpec("bias", ("bias",))),
    "conv": _conv_spec(CONV_OUT_IN_WINDOW),
    "conv_transpose": _conv_spec(CONV_TRANSPOSE_EQUINOX),
    "batch_norm": (
        *_AFFINE,
        ArraySpec("mean", ("mean",)),
        ArraySpec("var", ("var",)),
        ArraySpec("counter", ("counter",), identity(0)),
        ArraySpec("first", ("first",), identity(0)),
    ),
    "layer_norm": _AFFINE,
    "group_norm": _AFFINE,
    "rms_norm": _AFFINE,
    "embedding": (ArraySpec("weight", ("table",), MATRIX),),
    "prelu": (ArraySpec("negative_slope", ("slope",), merged_axes(0, 0)),),
    "lstm": _recurrent("ifgo"),
    "gru": (*_recurrent("rzn"), ArraySpec("bias_n", ("hidden_bias_n",))),
    "attention": (
        *_projection("query", "query"),
        *_projection("key", "key"),
        *_projection("value", "value"),
        *_projection("output", "out"),
    ),
}


def _conv(node: Any) -> dict[str, Any]:
    return conv_settings(
        node.kernel_size,
        stride=node.stride,
        dilation=node.dilation,
        padding=node.padding,
        groups=node.groups,
    )


def _conv_transpose(node: Any) -> dict[str, Any]:
    window, padding, dilation = node.kernel_size, node.padding, node.dilation
    if not isinstance(padding, str):
        padding = transposed_conv_padding(window, padding, node.output_padding, dilation)
    return conv_transpose_settings(window, padding, stride=node.stride, dilation=dilation)


def _attention(node: Any) -> dict[str, Any]:
    return {"heads": node.num_heads, "zero_attention": False}


def _norm_options(node: Any) -> dict[str, Any]:
    return {"rank": len(node.shape)}


_EPSILON = read_fields(epsilon="eps")
_CONV_OPTIONS = read_fields(dims="num_spatial_dims", groups="groups")
_TYPES = {
    "Linear": LayerType("dense", _SPECS["dense"]),
    "Conv": LayerType("conv", _SPECS["conv"], _CONV_OPTIONS, _conv),
    "ConvTranspose": LayerType(
        "conv_transpose", _SPECS["conv_transpose"], _CONV_OPTIONS, _conv_transpose
    ),
    "BatchNorm": LayerType(
        "batch_norm", _SPECS["batch_norm"], settings=read_fields(epsilon="eps", momentum="momentum")
    ),
    "LayerNorm": LayerType("layer_norm", _SPECS["layer_norm"], _norm_options, _EPSILON),
    "GroupNorm": LayerType(
        "group_norm", _SPECS["group_norm"], settings=read_fields(epsilon="eps", groups="groups")
    ),
    "RMSNorm": LayerType("rms_norm", _SPECS["rms_norm"], _norm_options, _EPSILON),
    "Embedding": LayerType("embedding", _SPECS["embedding"], settings=no_max_norm),
    "PReLU": LayerType("prelu", _SPECS["prelu"]),
    "LSTMCell": LayerType("lstm", _SPECS["lstm"]),
    "GRUCell": LayerType("gru", _SPECS["gru"]),
    "MultiheadAttention": LayerType("attention", _SPECS["attention"], settings=_attention),
}

EQUINOX = FrameworkLayout(
    name="equinox",
    separator="/",
    specs=_SPECS,
    types={("equinox.nn", name): layer_type for name, layer_type in _TYPES.items()},
    containers={("equinox.nn", "Sequential"): {"layers": ()}},
    defaults={
        "batch_norm": {"epsilon": 1e-5, "momentum": 0.99},
        **{kind: {"epsilon": 1e-5} for kind in ("layer_norm", "group_norm", "rms_norm")},
    },
    channels_first=True,
)
