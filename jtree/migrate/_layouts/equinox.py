"""How Equinox stores layers: as PyTorch does, with wide biases and flipped transposed kernels.

Source: the documentation of Equinox, https://docs.kidger.site/equinox.
"""

from __future__ import annotations

from typing import Any

from .spec import Form, Layout, Part, Recipe, behind, fields, transposed_window, unbounded, window
from .transforms import CONV_FRONT, MATRIX, SWAPPED, TRANSPOSED_GROUPED, WIDE_BIAS, Turn, flat, same

_AFFINE: Form = (Part("weight", ("scale",), same(1)), Part("bias", ("bias",), same(1)))


def _convolved(turn: Turn) -> Form:
    return (Part("weight", ("kernel",), turn), Part("bias", ("bias",), WIDE_BIAS))


def _recurrent(gates: str) -> Form:
    return (
        Part("weight_ih", tuple(f"input_{g}" for g in gates), SWAPPED),
        Part("weight_hh", tuple(f"hidden_{g}" for g in gates), SWAPPED),
        Part("bias", tuple(f"bias_{g}" for g in gates)),
    )


def _projected(name: str, role: str) -> Form:
    return (
        Part(f"{name}_proj/weight", (f"{role}_kernel",), SWAPPED),
        Part(f"{name}_proj/bias", (f"{role}_bias",)),
    )


_FORMS: dict[str, Form] = {
    "dense": (Part("weight", ("kernel",), SWAPPED), Part("bias", ("bias",))),
    "conv": _convolved(CONV_FRONT),
    "conv_transpose": _convolved(TRANSPOSED_GROUPED),
    "batch_norm": (
        *_AFFINE,
        Part("mean", ("mean",)),
        Part("var", ("var",)),
        Part("counter", ("counter",), same(0)),
        Part("first", ("first",), same(0)),
    ),
    "layer_norm": _AFFINE,
    "group_norm": _AFFINE,
    "rms_norm": _AFFINE,
    "embedding": (Part("weight", ("table",), MATRIX),),
    "prelu": (Part("negative_slope", ("slope",), flat(0, 0)),),
    "lstm": _recurrent("ifgo"),
    "gru": (*_recurrent("rzn"), Part("bias_n", ("hidden_bias_n",))),
    "attention": (
        *_projected("query", "query"),
        *_projected("key", "key"),
        *_projected("value", "value"),
        *_projected("output", "out"),
    ),
}


def _convolution(node: Any) -> dict[str, Any]:
    return window(
        node.kernel_size,
        stride=node.stride,
        dilation=node.dilation,
        padding=node.padding,
        groups=node.groups,
    )


def _transposed(node: Any) -> dict[str, Any]:
    size, dilation = node.kernel_size, node.dilation
    pads = behind(size, node.padding, node.output_padding, dilation)
    return transposed_window(size, pads, stride=node.stride, dilation=dilation)


def _attention(node: Any) -> dict[str, Any]:
    return {"heads": node.num_heads, "zero_attention": False}


def _rank(node: Any) -> dict[str, Any]:
    return {"rank": len(node.shape)}


_EPSILON = fields(epsilon="eps")
_DIMS = fields(dims="num_spatial_dims", groups="groups")
_TYPES = {
    "Linear": Recipe("dense", _FORMS["dense"]),
    "Conv": Recipe("conv", _FORMS["conv"], _DIMS, _convolution),
    "ConvTranspose": Recipe("conv_transpose", _FORMS["conv_transpose"], _DIMS, _transposed),
    "BatchNorm": Recipe(
        "batch_norm", _FORMS["batch_norm"], settings=fields(epsilon="eps", momentum="momentum")
    ),
    "LayerNorm": Recipe("layer_norm", _FORMS["layer_norm"], _rank, _EPSILON),
    "GroupNorm": Recipe(
        "group_norm", _FORMS["group_norm"], settings=fields(epsilon="eps", groups="groups")
    ),
    "RMSNorm": Recipe("rms_norm", _FORMS["rms_norm"], _rank, _EPSILON),
    "Embedding": Recipe("embedding", _FORMS["embedding"], settings=unbounded),
    "PReLU": Recipe("prelu", _FORMS["prelu"]),
    "LSTMCell": Recipe("lstm", _FORMS["lstm"]),
    "GRUCell": Recipe("gru", _FORMS["gru"]),
    "MultiheadAttention": Recipe("attention", _FORMS["attention"], settings=_attention),
}

EQUINOX = Layout(
    name="equinox",
    separator="/",
    forms=_FORMS,
    types={("equinox.nn", name): recipe for name, recipe in _TYPES.items()},
    containers={("equinox.nn", "Sequential"): {"layers": ()}},
    defaults={
        "batch_norm": {"epsilon": 1e-5, "momentum": 0.99},
        **{kind: {"epsilon": 1e-5} for kind in ("layer_norm", "group_norm", "rms_norm")},
    },
    channels_first=True,
)
