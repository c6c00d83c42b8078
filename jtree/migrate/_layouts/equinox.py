"""How Equinox stores layers: as PyTorch does, with wide biases and flipped transposed kernels.

Source: the documentation of Equinox, https://docs.kidger.site/equinox.
"""

from __future__ import annotations

from typing import Any

from .spec import (
    ArraySpec,
    FrameworkLayout,
    LayerSpec,
    LayerType,
    conv_settings,
    conv_transpose_settings,
    no_max_norm,
    read_fields,
    transposed_conv_padding,
)
from .transforms import (
    CONV_FRONT,
    MATRIX,
    SWAPPED,
    TRANSPOSED_GROUPED,
    WIDE_BIAS,
    Transform,
    flat,
    identity,
)

_AFFINE: LayerSpec = (
    ArraySpec("weight", ("scale",), identity(1)),
    ArraySpec("bias", ("bias",), identity(1)),
)


def _convolved(transform: Transform) -> LayerSpec:
    return (ArraySpec("weight", ("kernel",), transform), ArraySpec("bias", ("bias",), WIDE_BIAS))


def _recurrent(gates: str) -> LayerSpec:
    return (
        ArraySpec("weight_ih", tuple(f"input_{g}" for g in gates), SWAPPED),
        ArraySpec("weight_hh", tuple(f"hidden_{g}" for g in gates), SWAPPED),
        ArraySpec("bias", tuple(f"bias_{g}" for g in gates)),
    )


def _projected(name: str, role: str) -> LayerSpec:
    return (
        ArraySpec(f"{name}_proj/weight", (f"{role}_kernel",), SWAPPED),
        ArraySpec(f"{name}_proj/bias", (f"{role}_bias",)),
    )


_SPECS: dict[str, LayerSpec] = {
    "dense": (ArraySpec("weight", ("kernel",), SWAPPED), ArraySpec("bias", ("bias",))),
    "conv": _convolved(CONV_FRONT),
    "conv_transpose": _convolved(TRANSPOSED_GROUPED),
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
    "prelu": (ArraySpec("negative_slope", ("slope",), flat(0, 0)),),
    "lstm": _recurrent("ifgo"),
    "gru": (*_recurrent("rzn"), ArraySpec("bias_n", ("hidden_bias_n",))),
    "attention": (
        *_projected("query", "query"),
        *_projected("key", "key"),
        *_projected("value", "value"),
        *_projected("output", "out"),
    ),
}


def _convolution(node: Any) -> dict[str, Any]:
    return conv_settings(
        node.kernel_size,
        stride=node.stride,
        dilation=node.dilation,
        padding=node.padding,
        groups=node.groups,
    )


def _transposed(node: Any) -> dict[str, Any]:
    size, dilation = node.kernel_size, node.dilation
    pads = transposed_conv_padding(size, node.padding, node.output_padding, dilation)
    return conv_transpose_settings(size, pads, stride=node.stride, dilation=dilation)


def _attention(node: Any) -> dict[str, Any]:
    return {"heads": node.num_heads, "zero_attention": False}


def _rank(node: Any) -> dict[str, Any]:
    return {"rank": len(node.shape)}


_EPSILON = read_fields(epsilon="eps")
_DIMS = read_fields(dims="num_spatial_dims", groups="groups")
_TYPES = {
    "Linear": LayerType("dense", _SPECS["dense"]),
    "Conv": LayerType("conv", _SPECS["conv"], _DIMS, _convolution),
    "ConvTranspose": LayerType("conv_transpose", _SPECS["conv_transpose"], _DIMS, _transposed),
    "BatchNorm": LayerType(
        "batch_norm", _SPECS["batch_norm"], settings=read_fields(epsilon="eps", momentum="momentum")
    ),
    "LayerNorm": LayerType("layer_norm", _SPECS["layer_norm"], _rank, _EPSILON),
    "GroupNorm": LayerType(
        "group_norm", _SPECS["group_norm"], settings=read_fields(epsilon="eps", groups="groups")
    ),
    "RMSNorm": LayerType("rms_norm", _SPECS["rms_norm"], _rank, _EPSILON),
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
    types={("equinox.nn", name): recipe for name, recipe in _TYPES.items()},
    containers={("equinox.nn", "Sequential"): {"layers": ()}},
    defaults={
        "batch_norm": {"epsilon": 1e-5, "momentum": 0.99},
        **{kind: {"epsilon": 1e-5} for kind in ("layer_norm", "group_norm", "rms_norm")},
    },
    channels_first=True,
)
