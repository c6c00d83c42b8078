"""PyTorch's layout: kernels `(out, in, *window)`, packed gates, two biases for each gate.

Source: https://docs.pytorch.org/docs/stable/nn.html.
"""

from __future__ import annotations

from typing import Any

from .fields import conv_settings, conv_transpose_settings, read_fields, transposed_conv_padding
from .spec import FrameworkLayout, LayerType
from .transforms import (
    CONV_OUT_IN_WINDOW,
    CONV_TRANSPOSE_IN_OUT_WINDOW,
    MATRIX,
    TRANSPOSED_MATRIX,
    ArraySpec,
    LayerSpec,
)

_AFFINE: LayerSpec = (ArraySpec("weight", ("scale",)), ArraySpec("bias", ("bias",)))
_LSTM = ("i", "f", "g", "o")
_GRU = ("r", "z", "n")
_PACKED_KERNELS = ("query_kernel", "key_kernel", "value_kernel")


def _with_bias(kernel: ArraySpec) -> LayerSpec:
    return (kernel, ArraySpec("bias", ("bias",)))


def _recurrent(gates: tuple[str, ...], hidden_bias: tuple[str, ...]) -> LayerSpec:
    return (
        ArraySpec("weight_ih", tuple(f"input_{g}" for g in gates), TRANSPOSED_MATRIX),
        ArraySpec("weight_hh", tuple(f"hidden_{g}" for g in gates), TRANSPOSED_MATRIX),
        ArraySpec("bias_ih", tuple(f"bias_{g}" for g in gates)),
        ArraySpec("bias_hh", hidden_bias),
    )


def _projection(name: str, canonical: str) -> LayerSpec:
    """Return the arrays of a projection that is a layer of its own, as in many models."""
    return (
        ArraySpec(f"{name}/weight", (f"{canonical}_kernel",), TRANSPOSED_MATRIX),
        ArraySpec(f"{name}/bias", (f"{canonical}_bias",)),
    )


_SPECS: dict[str, LayerSpec] = {
    "dense": _with_bias(ArraySpec("weight", ("kernel",), TRANSPOSED_MATRIX)),
    "conv": _with_bias(ArraySpec("weight", ("kernel",), CONV_OUT_IN_WINDOW)),
    "conv_transpose": _with_bias(ArraySpec("weight", ("kernel",), CONV_TRANSPOSE_IN_OUT_WINDOW)),
    "batch_norm": (
        *_AFFINE,
        ArraySpec("running_mean", ("mean",)),
        ArraySpec("running_var", ("var",)),
        ArraySpec("num_batches_tracked", ()),
    ),
    "layer_norm": _AFFINE,
    "group_norm": _AFFINE,
    "instance_norm": _AFFINE,
    "rms_norm": (ArraySpec("weight", ("scale",)),),
    "embedding": (ArraySpec("weight", ("table",), MATRIX),),
    "prelu": (ArraySpec("weight", ("slope",)),),
    "lstm": _recurrent(_LSTM, tuple(f"bias_{g}" for g in _LSTM)),
    "gru": _recurrent(_GRU, ("bias_r", "bias_z", "hidden_bias_n")),
    "rnn": _recurrent(("h",), ("bias_h",)),
    "attention": (
        ArraySpec("in_proj_weight", _PACKED_KERNELS, TRANSPOSED_MATRIX),
        ArraySpec("in_proj_bias", ("query_bias", "key_bias", "value_bias")),
        ArraySpec("q_proj_weight", ("query_kernel",), TRANSPOSED_MATRIX),
        ArraySpec("k_proj_weight", ("key_kernel",), TRANSPOSED_MATRIX),
        ArraySpec("v_proj_weight", ("value_kernel",), TRANSPOSED_MATRIX),
        ArraySpec("bias_k", ("bias_k",)),
        ArraySpec("bias_v", ("bias_v",)),
        *_projection("q_proj", "query"),
        *_projection("k_proj", "key"),
        *_projection("v_proj", "value"),
        *_projection("out_proj", "out"),
    ),
}


def _conv(node: Any) -> dict[str, Any]:
    settings = conv_settings(
        node.kernel_size,
        stride=node.stride,
        dilation=node.dilation,
        padding=node.padding,
        groups=node.groups,
    )
    mode = node.padding_mode
    if mode == "zeros":
        return settings
    circular = mode == "circular" and settings["padding"] == _same_padding(node)
    padding = "CIRCULAR" if circular else (mode, settings["padding"])
    return settings | {"padding": padding}


def _same_padding(node: Any) -> Any:
    return conv_settings(node.kernel_size, dilation=node.dilation, padding="SAME")["padding"]


def _conv_transpose(node: Any) -> dict[str, Any]:
    window, dilation = node.kernel_size, node.dilation
    padding = transposed_conv_padding(window, node.padding, node.output_padding, dilation)
    return conv_transpose_settings(window, padding, stride=node.stride, dilation=dilation)


def _instance_norm(node: Any) -> dict[str, Any]:
    return {"epsilon": node.eps, "groups": node.num_features}


def _batch_norm(node: Any) -> dict[str, Any]:
    momentum = node.momentum
    return {"epsilon": node.eps, "momentum": None if momentum is None else 1 - momentum}


def _type(kind: str, **options: Any) -> LayerType:
    return LayerType(kind, _SPECS[kind], **options)


_EPSILON = read_fields(epsilon="eps")
_CONV = _type("conv", settings=_conv)
_CONV_TRANSPOSE = _type(
    "conv_transpose", options=read_fields(groups="groups"), settings=_conv_transpose
)
_TYPES = {
    "Linear": _type("dense"),
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d"), _CONV),
    **dict.fromkeys(("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"), _CONV_TRANSPOSE),
    **dict.fromkeys(
        ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"),
        _type("batch_norm", settings=_batch_norm),
    ),
    "LayerNorm": _type("layer_norm", settings=_EPSILON),
    "GroupNorm": _type("group_norm", settings=read_fields(epsilon="eps", groups="num_groups")),
    **dict.fromkeys(
        ("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"),
        _type("instance_norm", settings=_instance_norm),
    ),
    "RMSNorm": _type("rms_norm", settings=_EPSILON),
    "Embedding": _type("embedding", settings=lambda node: {"max_norm": node.max_norm or False}),
    "PReLU": _type("prelu"),
    **dict.fromkeys(("LSTM", "LSTMCell"), _type("lstm")),
    **dict.fromkeys(("GRU", "GRUCell"), _type("gru")),
    **dict.fromkeys(
        ("RNN", "RNNCell"), _type("rnn", settings=read_fields(activation="nonlinearity"))
    ),
    "MultiheadAttention": _type(
        "attention", settings=read_fields(heads="num_heads", zero_attention="add_zero_attn")
    ),
}

# PyTorch has the layer's index and direction in names such as `weight_ih_l0_reverse`.
_NUMBERED = r"(?<![^/])(\w+_[ih]h|weight_hr)_l(\d+)"


TORCH = FrameworkLayout(
    name="torch",
    separator=".",
    specs=_SPECS,
    types={("torch.nn", name): layer_type for name, layer_type in _TYPES.items()},
    defaults={
        "batch_norm": {"epsilon": 1e-5, "momentum": 0.9},
        "layer_norm": {"epsilon": 1e-5},
        "group_norm": {"epsilon": 1e-5},
        "instance_norm": {"epsilon": 1e-5},
        "rms_norm": {},
        "rnn": {"activation": "tanh"},
    },
    substitutions=((f"{_NUMBERED}_reverse$", r"\2/reverse/\1"), (f"{_NUMBERED}$", r"\2/\1")),
    channels_first=True,
)
