"""How PyTorch stores layers: kernels `(out, in, *window)`, gates packed, two biases.

Source: the documentation of `torch.nn`, https://docs.pytorch.org/docs/stable/nn.html.
"""

from __future__ import annotations

import re
from typing import Any

from .spec import (
    ArraySpec,
    FrameworkLayout,
    KeyPath,
    LayerSpec,
    LayerType,
    conv_settings,
    conv_transpose_settings,
    read_fields,
    transposed_conv_padding,
)
from .transforms import CONV_FRONT, MATRIX, SWAPPED, TRANSPOSED_FRONT, identity

_AFFINE: LayerSpec = (
    ArraySpec("weight", ("scale",), identity(1)),
    ArraySpec("bias", ("bias",), identity(1)),
)
_LSTM = ("i", "f", "g", "o")
_GRU = ("r", "z", "n")


def _biased(*kernel: ArraySpec) -> LayerSpec:
    return (*kernel, ArraySpec("bias", ("bias",)))


def _recurrent(gates: tuple[str, ...], hidden_bias: tuple[str, ...]) -> LayerSpec:
    return (
        ArraySpec("weight_ih", tuple(f"input_{g}" for g in gates), SWAPPED),
        ArraySpec("weight_hh", tuple(f"hidden_{g}" for g in gates), SWAPPED),
        ArraySpec("bias_ih", tuple(f"bias_{g}" for g in gates)),
        ArraySpec("bias_hh", hidden_bias),
    )


def _projected(name: str, role: str) -> LayerSpec:
    """Return a projection that is a layer of its own, as many models have it."""
    return (
        ArraySpec(f"{name}/weight", (f"{role}_kernel",), SWAPPED),
        ArraySpec(f"{name}/bias", (f"{role}_bias",)),
    )


SPECS: dict[str, LayerSpec] = {
    "dense": _biased(ArraySpec("weight", ("kernel",), SWAPPED)),
    "conv": _biased(ArraySpec("weight", ("kernel",), CONV_FRONT)),
    "conv_transpose": _biased(ArraySpec("weight", ("kernel",), TRANSPOSED_FRONT)),
    "batch_norm": (
        *_AFFINE,
        ArraySpec("running_mean", ("mean",)),
        ArraySpec("running_var", ("var",)),
        ArraySpec("num_batches_tracked", ()),
    ),
    "layer_norm": _AFFINE,
    "group_norm": _AFFINE,
    "instance_norm": _AFFINE,
    "rms_norm": (ArraySpec("weight", ("scale",), identity(1)),),
    "embedding": (ArraySpec("weight", ("table",), MATRIX),),
    "prelu": (ArraySpec("weight", ("slope",), identity(1)),),
    "lstm": _recurrent(_LSTM, tuple(f"bias_{g}" for g in _LSTM)),
    "gru": _recurrent(_GRU, ("bias_r", "bias_z", "hidden_bias_n")),
    "rnn": _recurrent(("h",), ("bias_h",)),
    "attention": (
        ArraySpec("in_proj_weight", ("query_kernel", "key_kernel", "value_kernel"), SWAPPED),
        ArraySpec("in_proj_bias", ("query_bias", "key_bias", "value_bias")),
        ArraySpec("q_proj_weight", ("query_kernel",), SWAPPED),
        ArraySpec("k_proj_weight", ("key_kernel",), SWAPPED),
        ArraySpec("v_proj_weight", ("value_kernel",), SWAPPED),
        ArraySpec("bias_k", ("bias_k",)),
        ArraySpec("bias_v", ("bias_v",)),
        *_projected("q_proj", "query"),
        *_projected("k_proj", "key"),
        *_projected("v_proj", "value"),
        *_projected("out_proj", "out"),
    ),
}


def _convolution(node: Any) -> dict[str, Any]:
    found = conv_settings(
        node.kernel_size,
        stride=node.stride,
        dilation=node.dilation,
        padding=node.padding,
        groups=node.groups,
    )
    mode = node.padding_mode
    if mode == "circular" and found["padding"] == _halves(node):
        return found | {"padding": "CIRCULAR"}
    return found if mode == "zeros" else found | {"padding": (mode, found["padding"])}


def _halves(node: Any) -> Any:
    same = conv_settings(node.kernel_size, dilation=node.dilation, padding="SAME")
    return same["padding"]


def _transposed(node: Any) -> dict[str, Any]:
    size, dilation = node.kernel_size, node.dilation
    pads = transposed_conv_padding(size, node.padding, node.output_padding, dilation)
    return conv_transpose_settings(size, pads, stride=node.stride, dilation=dilation)


def _instance(node: Any) -> dict[str, Any]:
    return {"epsilon": node.eps, "groups": node.num_features}


def _batch(node: Any) -> dict[str, Any]:
    momentum = node.momentum
    return {"epsilon": node.eps, "momentum": None if momentum is None else 1 - momentum}


def _kind(kind: str, **options: Any) -> LayerType:
    return LayerType(kind, SPECS[kind], **options)


_EPSILON = read_fields(epsilon="eps")
_CONV = _kind("conv", settings=_convolution)
_CONV_TRANSPOSE = _kind(
    "conv_transpose", options=read_fields(groups="groups"), settings=_transposed
)
_RECIPES = {
    "Linear": _kind("dense"),
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d"), _CONV),
    **dict.fromkeys(("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"), _CONV_TRANSPOSE),
    **dict.fromkeys(
        ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"),
        _kind("batch_norm", settings=_batch),
    ),
    "LayerNorm": _kind("layer_norm", settings=_EPSILON),
    "GroupNorm": _kind("group_norm", settings=read_fields(epsilon="eps", groups="num_groups")),
    **dict.fromkeys(
        ("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"),
        _kind("instance_norm", settings=_instance),
    ),
    "RMSNorm": _kind("rms_norm", settings=_EPSILON),
    "Embedding": _kind("embedding", settings=lambda node: {"max_norm": node.max_norm or False}),
    "PReLU": _kind("prelu"),
    **dict.fromkeys(("LSTM", "LSTMCell"), _kind("lstm")),
    **dict.fromkeys(("GRU", "GRUCell"), _kind("gru")),
    **dict.fromkeys(
        ("RNN", "RNNCell"), _kind("rnn", settings=read_fields(activation="nonlinearity"))
    ),
    "MultiheadAttention": _kind(
        "attention", settings=read_fields(heads="num_heads", zero_attention="add_zero_attn")
    ),
}

_LAYERED = re.compile(r"(\w+_[ih]h|weight_hr)_l(\d+)(_reverse)?")


def _split(steps: KeyPath) -> KeyPath:
    """Read the number and the direction of a layer in a name such as `weight_ih_l0_reverse`."""
    found = _LAYERED.fullmatch(steps[-1]) if steps else None
    if found is None:
        return steps
    reverse = ("reverse",) if found[3] else ()
    return (*steps[:-1], found[2], *reverse, found[1])


TORCH = FrameworkLayout(
    name="torch",
    separator=".",
    specs=SPECS,
    types={("torch.nn", name): recipe for name, recipe in _RECIPES.items()},
    defaults={
        "batch_norm": {"epsilon": 1e-5, "momentum": 0.9},
        "layer_norm": {"epsilon": 1e-5},
        "group_norm": {"epsilon": 1e-5},
        "instance_norm": {"epsilon": 1e-5},
        "rms_norm": {},
        "rnn": {"activation": "tanh"},
    },
    split=_split,
    channels_first=True,
)
