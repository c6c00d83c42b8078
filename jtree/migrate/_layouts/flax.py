"""How Flax stores layers, linen and NNX: kernels `(*window, in, out)`, heads as axes.

Source: the documentation of Flax, https://flax.readthedocs.io.
"""

from __future__ import annotations

from typing import Any

from .spec import Form, Layout, Part, Recipe, Steps, fields, transposed_window, unbounded, window
from .transforms import CONV, EINSUM, MATRIX, TRANSPOSED_LAX, VECTOR, flat, same

_AFFINE: Form = (Part("scale", ("scale",), same(1)), Part("bias", ("bias",), same(1)))
_LSTM = ("i", "f", "g", "o")
_GRU = ("r", "z", "n")


def _biased(kernel: Part) -> Form:
    return (kernel, Part("bias", ("bias",)))


def _gates(names: dict[str, str], roles: dict[str, str]) -> Form:
    """Return one kernel for each gate, and the biases that there are."""
    kernels = (Part(f"{name}/kernel", (role,), MATRIX) for name, role in names.items())
    return (*kernels, *(Part(f"{name}/bias", (role,)) for name, role in roles.items()))


def _packed(gates: tuple[str, ...], biased: str) -> Form:
    return (
        Part("dense_i/kernel", tuple(f"input_{g}" for g in gates), MATRIX, 1),
        Part("dense_h/kernel", tuple(f"hidden_{g}" for g in gates), MATRIX, 1),
        Part(f"{biased}/bias", tuple(f"bias_{g}" for g in gates)),
    )


def _lstm(suffix: str) -> Form:
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


def _heads(name: str) -> Form:
    return (
        Part(f"{name}/kernel", (f"{name}_kernel",), flat(1, 2)),
        Part(f"{name}/bias", (f"{name}_bias",), flat(0, 2)),
    )


_COMMON: dict[str, Form] = {
    "dense": _biased(Part("kernel", ("kernel",), MATRIX)),
    "conv": _biased(Part("kernel", ("kernel",), CONV)),
    "conv_transpose": _biased(Part("kernel", ("kernel",), TRANSPOSED_LAX)),
    "batch_norm": (*_AFFINE, Part("mean", ("mean",)), Part("var", ("var",))),
    "layer_norm": _AFFINE,
    "group_norm": _AFFINE,
    "instance_norm": _AFFINE,
    "rms_norm": _AFFINE[:1],
    "embedding": (Part("embedding", ("table",), MATRIX),),
    "prelu": (Part("negative_slope", ("slope",), flat(0, 0)),),
    "attention": (
        *_heads("query"),
        *_heads("key"),
        *_heads("value"),
        Part("out/kernel", ("out_kernel",), flat(2, 1)),
        Part("out/bias", ("out_bias",), VECTOR),
        Part("query_ln/scale", ("query_norm",), VECTOR),
        Part("key_ln/scale", ("key_norm",), VECTOR),
    ),
}
LINEN_FORMS = _COMMON | {"lstm": _lstm(""), "gru": _LINEN_GRU, "rnn": _LINEN_RNN}
NNX_FORMS = _COMMON | {
    "lstm": (*_lstm("_"), *_packed(_LSTM, "dense_h")),
    "gru": _packed(_GRU, "dense_i"),
    "rnn": _packed(("h",), "dense_i"),
}
_EINSUM = (Part("kernel", ("kernel",), EINSUM), Part("bias", ("bias",), flat(0, 1)))
_GENERAL = (Part("kernel", ("kernel",), flat(1, 1)), Part("bias", ("bias",), flat(0, 1)))


def _convolution(node: Any) -> dict[str, Any]:
    return window(
        _size(node),
        stride=node.strides,
        dilation=node.kernel_dilation,
        padding=node.padding,
        groups=node.feature_group_count,
    )


def _transposed(node: Any) -> dict[str, Any]:
    return transposed_window(
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


_EPSILON = fields(epsilon="epsilon")


def _recipes(forms: dict[str, Form]) -> dict[str, Recipe]:
    """Return what linen and NNX have in common."""
    return {
        "Conv": Recipe("conv", forms["conv"], _dims, _convolution),
        "ConvTranspose": Recipe("conv_transpose", forms["conv_transpose"], _dims, _transposed),
        "BatchNorm": Recipe(
            "batch_norm",
            forms["batch_norm"],
            settings=fields(epsilon="epsilon", momentum="momentum"),
        ),
        "LayerNorm": Recipe("layer_norm", forms["layer_norm"], _rank, _EPSILON),
        "GroupNorm": Recipe("group_norm", forms["group_norm"], settings=_grouped),
        "InstanceNorm": Recipe("instance_norm", forms["instance_norm"], settings=_EPSILON),
        "RMSNorm": Recipe("rms_norm", forms["rms_norm"], _rank, _EPSILON),
        "Embed": Recipe("embedding", forms["embedding"], settings=unbounded),
        "PReLU": Recipe("prelu", forms["prelu"]),
        "LSTMCell": Recipe("lstm", forms["lstm"]),
        "OptimizedLSTMCell": Recipe("lstm", forms["lstm"]),
        "GRUCell": Recipe("gru", forms["gru"]),
        "SimpleCell": Recipe("rnn", forms["rnn"], settings=_activation),
        "MultiHeadAttention": Recipe("attention", forms["attention"], settings=_attention),
        "Linear": Recipe("dense", forms["dense"]),
        "LinearGeneral": Recipe("dense", _GENERAL, _general),
        "Einsum": Recipe("dense", _EINSUM, _einsum, accepts=_isdense),
    }


def _grouped(node: Any) -> dict[str, Any]:
    groups = node.num_groups
    return {"epsilon": node.epsilon} | ({"groups": groups} if groups else {})


_LINEN_NAMES = {"Linear": "Dense", "LinearGeneral": "DenseGeneral"}
_LINEN_TYPES = {_LINEN_NAMES.get(name, name): x for name, x in _recipes(LINEN_FORMS).items()}
_LINEN_TYPES["MultiHeadDotProductAttention"] = _LINEN_TYPES["MultiHeadAttention"]
_DEFAULTS: dict[str, dict[str, Any]] = {
    "batch_norm": {"epsilon": 1e-5, "momentum": 0.99},
    "rnn": {"activation": "tanh"},
    **{f"{kind}_norm": {"epsilon": 1e-6} for kind in ("layer", "group", "rms", "instance")},
}
_CONTAINERS: dict[str, dict[str, Steps]] = {
    "Sequential": {"layers": ()},
    "RNN": {"cell": ()},
    "Bidirectional": {"forward_rnn": (), "backward_rnn": ("reverse",)},
}


def _uncollected(steps: Steps) -> Steps:
    """Leave out the collection that linen's variables are in."""
    return steps[1:] if steps[:1] in (("params",), ("batch_stats",)) else steps


LINEN = Layout(
    name="linen",
    separator="/",
    forms=LINEN_FORMS,
    types={("flax.linen", name): recipe for name, recipe in _LINEN_TYPES.items()},
    containers={("flax.linen", name): steps for name, steps in _CONTAINERS.items()},
    defaults=_DEFAULTS,
    split=_uncollected,
)
NNX = Layout(
    name="nnx",
    separator="/",
    forms=NNX_FORMS,
    types={("flax.nnx", name): recipe for name, recipe in _recipes(NNX_FORMS).items()},
    containers={("flax.nnx", name): steps for name, steps in _CONTAINERS.items()},
    defaults=_DEFAULTS,
)
