"""How Flax stores layers, linen and NNX: kernels `(*window, in, out)`, heads as axes.

Source: the documentation of Flax, https://flax.readthedocs.io.
"""

from __future__ import annotations

from typing import Any

from .spec import (
    ArraySpec,
    FrameworkLayout,
    KeyPath,
    LayerSpec,
    LayerType,
    conv_settings,
    conv_transpose_settings,
    no_max_norm,
    read_fields,
)
from .transforms import CONV, EINSUM, MATRIX, TRANSPOSED_LAX, VECTOR, flat, identity

_AFFINE: LayerSpec = (
    ArraySpec("scale", ("scale",), identity(1)),
    ArraySpec("bias", ("bias",), identity(1)),
)
_LSTM = ("i", "f", "g", "o")
_GRU = ("r", "z", "n")


def _biased(kernel: ArraySpec) -> LayerSpec:
    return (kernel, ArraySpec("bias", ("bias",)))


def _gates(names: dict[str, str], roles: dict[str, str]) -> LayerSpec:
    """Return one kernel for each gate, and the biases that there are."""
    kernels = (ArraySpec(f"{name}/kernel", (role,), MATRIX) for name, role in names.items())
    return (*kernels, *(ArraySpec(f"{name}/bias", (role,)) for name, role in roles.items()))


def _packed(gates: tuple[str, ...], biased: str) -> LayerSpec:
    return (
        ArraySpec("dense_i/kernel", tuple(f"input_{g}" for g in gates), MATRIX, 1),
        ArraySpec("dense_h/kernel", tuple(f"hidden_{g}" for g in gates), MATRIX, 1),
        ArraySpec(f"{biased}/bias", tuple(f"bias_{g}" for g in gates)),
    )


def _lstm(suffix: str) -> LayerSpec:
    """Return the gates of an LSTM; `if` is a word of Python, so NNX has `if_`."""
    last = {"f": f"f{suffix}"}
    names = {f"i{last.get(g, g)}": f"input_{g}" for g in _LSTM}
    names |= {f"h{g}": f"hidden_{g}" for g in _LSTM}
    return _gates(names, {f"h{g}": f"bias_{g}" for g in _LSTM})


_LINEN_GRU = _gates(
    {f"i{g}": f"input_{g}" for g in _GRU} | {f"h{g}": f"hidden_{g}" for g in _GRU},
    {f"i{g}": f"bias_{g}" for g in _GRU} | {"hn": "hidden_bias_n"},
)
_LINEN_RNN = _gates({"i": "input_h", "h": "hidden_h"}, {"i": "bias_h"})


def _heads(name: str) -> LayerSpec:
    return (
        ArraySpec(f"{name}/kernel", (f"{name}_kernel",), flat(1, 2)),
        ArraySpec(f"{name}/bias", (f"{name}_bias",), flat(0, 2)),
    )


_COMMON: dict[str, LayerSpec] = {
    "dense": _biased(ArraySpec("kernel", ("kernel",), MATRIX)),
    "conv": _biased(ArraySpec("kernel", ("kernel",), CONV)),
    "conv_transpose": _biased(ArraySpec("kernel", ("kernel",), TRANSPOSED_LAX)),
    "batch_norm": (*_AFFINE, ArraySpec("mean", ("mean",)), ArraySpec("var", ("var",))),
    "layer_norm": _AFFINE,
    "group_norm": _AFFINE,
    "instance_norm": _AFFINE,
    "rms_norm": _AFFINE[:1],
    "embedding": (ArraySpec("embedding", ("table",), MATRIX),),
    "prelu": (ArraySpec("negative_slope", ("slope",), flat(0, 0)),),
    "attention": (
        *_heads("query"),
        *_heads("key"),
        *_heads("value"),
        ArraySpec("out/kernel", ("out_kernel",), flat(2, 1)),
        ArraySpec("out/bias", ("out_bias",), VECTOR),
        ArraySpec("query_ln/scale", ("query_norm",), VECTOR),
        ArraySpec("key_ln/scale", ("key_norm",), VECTOR),
    ),
}
LINEN_SPECS = _COMMON | {"lstm": _lstm(""), "gru": _LINEN_GRU, "rnn": _LINEN_RNN}
NNX_SPECS = _COMMON | {
    "lstm": (*_lstm("_"), *_packed(_LSTM, "dense_h")),
    "gru": _packed(_GRU, "dense_i"),
    "rnn": _packed(("h",), "dense_i"),
}
_EINSUM = (ArraySpec("kernel", ("kernel",), EINSUM), ArraySpec("bias", ("bias",), flat(0, 1)))
_GENERAL = (ArraySpec("kernel", ("kernel",), flat(1, 1)), ArraySpec("bias", ("bias",), flat(0, 1)))


def _convolution(node: Any) -> dict[str, Any]:
    return conv_settings(
        _size(node),
        stride=node.strides,
        dilation=node.kernel_dilation,
        padding=node.padding,
        groups=node.feature_group_count,
    )


def _transposed(node: Any) -> dict[str, Any]:
    return conv_transpose_settings(
        _size(node), node.padding, stride=node.strides, dilation=node.kernel_dilation
    )


def _size(node: Any) -> tuple[int, ...]:
    size = node.kernel_size
    return (size,) if isinstance(size, int) else tuple(size)


def _dims(node: Any) -> dict[str, Any]:
    return {
        "dims": len(_size(node)),
        "groups": getattr(node, "feature_group_count", 1),
        "transpose_kernel": getattr(node, "transpose_kernel", False),
    }


def _rank(node: Any) -> dict[str, Any]:
    axes = node.feature_axes
    return {"rank": 1 if isinstance(axes, int) else len(axes)}


def _general(node: Any) -> dict[str, Any]:
    """Return how many axes there are; linen knows only those that it contracts."""
    features = getattr(node, "out_features", None) or node.features
    inputs = getattr(node, "in_features", None) or node.axis
    return {"inputs": _number(inputs), "outputs": _number(features)}


def _einsum(node: Any) -> dict[str, Any]:
    """Return the axes of an einsum's kernel: first those that it contracts, then the new ones."""
    inputs, kernel, outputs = _labels(node)
    contracted = [kernel.index(x) for x in inputs if x in kernel and x not in outputs]
    new = [kernel.index(x) for x in outputs if x in kernel and x not in inputs]
    return {"axes": [*contracted, *new], "inputs": len(contracted), "outputs": len(new)}


def _labels(node: Any) -> tuple[str, str, str]:
    text = (node.einsum_str or "").replace(" ", "").replace("...", "")
    inputs, _, outputs = text.partition("->")
    first, _, kernel = inputs.partition(",")
    return first, kernel, outputs


def _isdense(node: Any) -> bool:
    """Tell whether each axis of an einsum's kernel is contracted, or new."""
    kernel, axes = _labels(node)[1], _einsum(node)["axes"]
    return bool(kernel) and sorted(axes) == list(range(len(kernel)))


def _number(x: Any) -> int:
    return 1 if isinstance(x, int) else len(x)


def _activation(node: Any) -> dict[str, Any]:
    """Return the name of what a simple cell applies."""
    return {"activation": getattr(node.activation_fn, "__name__", None)}


def _attention(node: Any) -> dict[str, Any]:
    return {"heads": node.num_heads, "zero_attention": False}


_EPSILON = read_fields(epsilon="epsilon")


def _recipes(specs: dict[str, LayerSpec]) -> dict[str, LayerType]:
    """Return what linen and NNX have in common."""
    return {
        "Conv": LayerType("conv", specs["conv"], _dims, _convolution),
        "ConvTranspose": LayerType("conv_transpose", specs["conv_transpose"], _dims, _transposed),
        "BatchNorm": LayerType(
            "batch_norm",
            specs["batch_norm"],
            settings=read_fields(epsilon="epsilon", momentum="momentum"),
        ),
        "LayerNorm": LayerType("layer_norm", specs["layer_norm"], _rank, _EPSILON),
        "GroupNorm": LayerType("group_norm", specs["group_norm"], settings=_grouped),
        "InstanceNorm": LayerType("instance_norm", specs["instance_norm"], settings=_EPSILON),
        "RMSNorm": LayerType("rms_norm", specs["rms_norm"], _rank, _EPSILON),
        "Embed": LayerType("embedding", specs["embedding"], settings=no_max_norm),
        "PReLU": LayerType("prelu", specs["prelu"]),
        "LSTMCell": LayerType("lstm", specs["lstm"]),
        "OptimizedLSTMCell": LayerType("lstm", specs["lstm"]),
        "GRUCell": LayerType("gru", specs["gru"]),
        "SimpleCell": LayerType("rnn", specs["rnn"], settings=_activation),
        "MultiHeadAttention": LayerType("attention", specs["attention"], settings=_attention),
        "Linear": LayerType("dense", specs["dense"]),
        "LinearGeneral": LayerType("dense", _GENERAL, _general),
        "Einsum": LayerType("dense", _EINSUM, _einsum, accepts=_isdense),
    }


def _grouped(node: Any) -> dict[str, Any]:
    groups = node.num_groups
    return {"epsilon": node.epsilon} | ({"groups": groups} if groups else {})


_LINEN_NAMES = {"Linear": "Dense", "LinearGeneral": "DenseGeneral"}
_LINEN_TYPES = {_LINEN_NAMES.get(name, name): x for name, x in _recipes(LINEN_SPECS).items()}
_LINEN_TYPES["MultiHeadDotProductAttention"] = _LINEN_TYPES["MultiHeadAttention"]
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


def _uncollected(steps: KeyPath) -> KeyPath:
    """Leave out the collection that linen's variables are in."""
    return steps[1:] if steps[:1] in (("params",), ("batch_stats",)) else steps


LINEN = FrameworkLayout(
    name="linen",
    separator="/",
    specs=LINEN_SPECS,
    types={("flax.linen", name): recipe for name, recipe in _LINEN_TYPES.items()},
    containers={("flax.linen", name): steps for name, steps in _CONTAINERS.items()},
    defaults=_DEFAULTS,
    split=_uncollected,
)
NNX = FrameworkLayout(
    name="nnx",
    separator="/",
    specs=NNX_SPECS,
    types={("flax.nnx", name): recipe for name, recipe in _recipes(NNX_SPECS).items()},
    containers={("flax.nnx", name): steps for name, steps in _CONTAINERS.items()},
    defaults=_DEFAULTS,
)
