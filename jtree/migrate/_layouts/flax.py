"""Flax's layouts, linen's and NNX's: kernels `(*window, in, out)`, one axis for the heads.

Source: https://flax.readthedocs.io.
"""

from __future__ import annotations

from typing import Any

from .fields import conv_settings, conv_transpose_settings, no_max_norm, read_fields
from .spec import FrameworkLayout, LayerType
from .transforms import (
    CONV_TRANSPOSE_LAX,
    CONV_WINDOW_IN_OUT,
    EINSUM,
    MATRIX,
    VECTOR,
    ArraySpec,
    KeyPath,
    LayerSpec,
    merged_axes,
)

_AFFINE: LayerSpec = (ArraySpec("scale", ("scale",)), ArraySpec("bias", ("bias",)))
_LSTM = ("i", "f", "g", "o")
_GRU = ("r", "z", "n")


def _with_bias(kernel: ArraySpec) -> LayerSpec:
    return (kernel, ArraySpec("bias", ("bias",)))


def _gates(kernels: dict[str, str], biases: dict[str, str]) -> LayerSpec:
    """Return the arrays of gates that are layers, given the canonical name for each path."""
    return (
        *(ArraySpec(f"{path}/kernel", (name,), MATRIX) for path, name in kernels.items()),
        *(ArraySpec(f"{path}/bias", (name,)) for path, name in biases.items()),
    )


def _packed_gates(gates: tuple[str, ...], biased: str) -> LayerSpec:
    return (
        ArraySpec("dense_i/kernel", tuple(f"input_{g}" for g in gates), MATRIX, 1),
        ArraySpec("dense_h/kernel", tuple(f"hidden_{g}" for g in gates), MATRIX, 1),
        ArraySpec(f"{biased}/bias", tuple(f"bias_{g}" for g in gates)),
    )


def _lstm(forget: str) -> LayerSpec:
    """Return the gates of an LSTM; NNX calls one `if_`, since `if` is a keyword of Python."""
    kernels = {forget if g == "f" else f"i{g}": f"input_{g}" for g in _LSTM}
    kernels |= {f"h{g}": f"hidden_{g}" for g in _LSTM}
    return _gates(kernels, {f"h{g}": f"bias_{g}" for g in _LSTM})


_LINEN_GRU = _gates(
    {f"i{g}": f"input_{g}" for g in _GRU} | {f"h{g}": f"hidden_{g}" for g in _GRU},
    {f"i{g}": f"bias_{g}" for g in _GRU} | {"hn": "hidden_bias_n"},
)
_LINEN_RNN = _gates({"i": "input_h", "h": "hidden_h"}, {"i": "bias_h"})


def _heads(name: str) -> LayerSpec:
    return (
        ArraySpec(f"{name}/kernel", (f"{name}_kernel",), merged_axes(1, 2)),
        ArraySpec(f"{name}/bias", (f"{name}_bias",), merged_axes(0, 2)),
    )


_SHARED: dict[str, LayerSpec] = {
    "dense": _with_bias(ArraySpec("kernel", ("kernel",), MATRIX)),
    "conv": _with_bias(ArraySpec("kernel", ("kernel",), CONV_WINDOW_IN_OUT)),
    "conv_transpose": _with_bias(ArraySpec("kernel", ("kernel",), CONV_TRANSPOSE_LAX)),
    "batch_norm": (*_AFFINE, ArraySpec("mean", ("mean",)), ArraySpec("var", ("var",))),
    "layer_norm": _AFFINE,
    "group_norm": _AFFINE,
    "instance_norm": _AFFINE,
    "rms_norm": _AFFINE[:1],
    "embedding": (ArraySpec("embedding", ("table",), MATRIX),),
    "prelu": (ArraySpec("negative_slope", ("slope",), merged_axes(0, 0)),),
    "attention": (
        *_heads("query"),
        *_heads("key"),
        *_heads("value"),
        ArraySpec("out/kernel", ("out_kernel",), merged_axes(2, 1)),
        ArraySpec("out/bias", ("out_bias",), VECTOR),
        ArraySpec("query_ln/scale", ("query_norm",), VECTOR),
        ArraySpec("key_ln/scale", ("key_norm",), VECTOR),
    ),
}
_LINEN_SPECS = _SHARED | {"lstm": _lstm("if"), "gru": _LINEN_GRU, "rnn": _LINEN_RNN}
_NNX_SPECS = _SHARED | {
    "lstm": (*_lstm("if_"), *_packed_gates(_LSTM, "dense_h")),
    "gru": _packed_gates(_GRU, "dense_i"),
    "rnn": _packed_gates(("h",), "dense_i"),
}
_EINSUM = (
    ArraySpec("kernel", ("kernel",), EINSUM),
    ArraySpec("bias", ("bias",), merged_axes(0, 1)),
)
_LINEAR_GENERAL = (
    ArraySpec("kernel", ("kernel",), merged_axes(1, 1)),
    ArraySpec("bias", ("bias",), merged_axes(0, 1)),
)


def _conv(node: Any) -> dict[str, Any]:
    return conv_settings(
        _window(node),
        stride=node.strides,
        dilation=node.kernel_dilation,
        padding=node.padding,
        groups=node.feature_group_count,
    )


def _conv_transpose(node: Any) -> dict[str, Any]:
    return conv_transpose_settings(
        _window(node), node.padding, stride=node.strides, dilation=node.kernel_dilation
    )


def _window(node: Any) -> tuple[int, ...]:
    window = node.kernel_size
    return (window,) if isinstance(window, int) else tuple(window)


def _conv_options(node: Any) -> dict[str, Any]:
    return {
        "dims": len(_window(node)),
        "groups": getattr(node, "feature_group_count", 1),
        "transpose_kernel": getattr(node, "transpose_kernel", False),
    }


def _norm_options(node: Any) -> dict[str, Any]:
    return {"rank": _count(node.feature_axes)}


def _linear_general_options(node: Any) -> dict[str, Any]:
    """Return how many axes the kernel has; linen knows only those that are contracted."""
    features = getattr(node, "out_features", None) or node.features
    inputs = getattr(node, "in_features", None) or node.axis
    return {"inputs": _count(inputs), "outputs": _count(features)}


def _einsum_options(node: Any) -> dict[str, Any]:
    """Return the axes of the kernel: first those that are contracted, then the new ones."""
    inputs, kernel, outputs = _subscripts(node)
    contracted = [kernel.index(x) for x in inputs if x in kernel and x not in outputs]
    new = [kernel.index(x) for x in outputs if x in kernel and x not in inputs]
    return {"axes": [*contracted, *new], "inputs": len(contracted), "outputs": len(new)}


def _subscripts(node: Any) -> tuple[str, str, str]:
    """Return the subscripts of the input, the kernel and the output of an einsum."""
    text = (node.einsum_str or "").replace(" ", "").replace("...", "")
    operands, _, outputs = text.partition("->")
    inputs, _, kernel = operands.partition(",")
    return inputs, kernel, outputs


def _is_dense(node: Any) -> bool:
    """Return whether each axis of the kernel of an einsum is either contracted or new."""
    kernel, axes = _subscripts(node)[1], _einsum_options(node)["axes"]
    return bool(kernel) and sorted(axes) == list(range(len(kernel)))


def _count(x: Any) -> int:
    return 1 if isinstance(x, int) else len(x)


def _activation(node: Any) -> dict[str, Any]:
    return {"activation": getattr(node.activation_fn, "__name__", None)}


def _attention(node: Any) -> dict[str, Any]:
    return {"heads": node.num_heads, "zero_attention": False}


def _group_norm(node: Any) -> dict[str, Any]:
    groups = node.num_groups
    return {"epsilon": node.epsilon} | ({"groups": groups} if groups else {})


_EPSILON = read_fields(epsilon="epsilon")


def _layer_types(specs: dict[str, LayerSpec]) -> dict[str, LayerType]:
    """Return the types of layers that linen and NNX share, by their names in NNX."""
    conv_transpose = specs["conv_transpose"]
    return {
        "Linear": LayerType("dense", specs["dense"]),
        "LinearGeneral": LayerType("dense", _LINEAR_GENERAL, _linear_general_options),
        "Einsum": LayerType("dense", _EINSUM, _einsum_options, accepts=_is_dense),
        "Conv": LayerType("conv", specs["conv"], _conv_options, _conv),
        "ConvTranspose": LayerType(
            "conv_transpose", conv_transpose, _conv_options, _conv_transpose
        ),
        "BatchNorm": LayerType(
            "batch_norm",
            specs["batch_norm"],
            settings=read_fields(epsilon="epsilon", momentum="momentum"),
        ),
        "LayerNorm": LayerType("layer_norm", specs["layer_norm"], _norm_options, _EPSILON),
        "GroupNorm": LayerType("group_norm", specs["group_norm"], settings=_group_norm),
        "InstanceNorm": LayerType("instance_norm", specs["instance_norm"], settings=_EPSILON),
        "RMSNorm": LayerType("rms_norm", specs["rms_norm"], _norm_options, _EPSILON),
        "Embed": LayerType("embedding", specs["embedding"], settings=no_max_norm),
        "PReLU": LayerType("prelu", specs["prelu"]),
        "LSTMCell": LayerType("lstm", specs["lstm"]),
        "OptimizedLSTMCell": LayerType("lstm", specs["lstm"]),
        "GRUCell": LayerType("gru", specs["gru"]),
        "SimpleCell": LayerType("rnn", specs["rnn"], settings=_activation),
        "MultiHeadAttention": LayerType("attention", specs["attention"], settings=_attention),
    }


_LINEN_NAMES = {"Linear": "Dense", "LinearGeneral": "DenseGeneral"}
_LINEN_TYPES = {_LINEN_NAMES.get(name, name): x for name, x in _layer_types(_LINEN_SPECS).items()}
for _name in ("MultiHeadDotProductAttention", "SelfAttention"):
    _LINEN_TYPES[_name] = _LINEN_TYPES["MultiHeadAttention"]
_DEFAULTS: dict[str, dict[str, Any]] = {
    "batch_norm": {"epsilon": 1e-5, "momentum": 0.99},
    "rnn": {"activation": "tanh"},
    **{f"{kind}_norm": {"epsilon": 1e-6} for kind in ("layer", "group", "rms", "instance")},
}
_CONTAINERS: dict[str, dict[str, KeyPath]] = {
    "Sequential": {"layers": ()},
    "RNN": {"cell": ()},
    "Bidirectional": {"forward_rnn": (), "backward_rnn": ("reverse",)},
}


LINEN = FrameworkLayout(
    name="linen",
    separator="/",
    specs=_LINEN_SPECS,
    types={("flax.linen", name): layer_type for name, layer_type in _LINEN_TYPES.items()},
    containers={("flax.linen", name): keys for name, keys in _CONTAINERS.items()},
    defaults=_DEFAULTS,
    substitutions=((r"^(params|batch_stats)(/|$)", ""),),  # the collection of a variable
)
NNX = FrameworkLayout(
    name="nnx",
    separator="/",
    specs=_NNX_SPECS,
    types={("flax.nnx", name): x for name, x in _layer_types(_NNX_SPECS).items()},
    containers={("flax.nnx", name): keys for name, keys in _CONTAINERS.items()},
    defaults=_DEFAULTS,
)
