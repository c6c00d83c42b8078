"""How Keras stores layers: names in a model, and positions in a file.

Source: the documentation of Keras, https://keras.io/api/layers.
"""

from __future__ import annotations

from .spec import ArraySpec, FrameworkLayout, LayerSpec
from .transforms import CONV, MATRIX, TRANSPOSED_SWAPPED, Transform, flat, identity


def _vars(**names: tuple[str, Transform]) -> LayerSpec:
    """Return arrays by name, and in order, as files have them."""
    named = [ArraySpec(name, (role,), turn) for name, (role, turn) in names.items()]
    return (*named, *(part._replace(path=f"vars/{n}") for n, part in enumerate(named)))


_VECTOR = identity(1)
_BIAS = ("bias", _VECTOR)


def _heads(name: str, role: str, inputs: int, outputs: int) -> LayerSpec:
    kernel = ArraySpec("kernel", (f"{role}_kernel",), flat(inputs, outputs))
    parts = (kernel, ArraySpec("bias", (f"{role}_bias",), flat(0, outputs)))
    return tuple(
        part._replace(path=f"{name}/{prefix or part.path}")
        for n, part in enumerate(parts)
        for prefix in ("", f"vars/{n}")
    )


def _gated(gates: str) -> LayerSpec:
    return (ArraySpec("bias", tuple(f"bias_{g}" for g in gates)),)


def _recurrent(gates: str, biases: LayerSpec) -> LayerSpec:
    """Return the cell of a layer: its arrays are named, or numbered in a file."""
    parts = (
        ArraySpec("kernel", tuple(f"input_{g}" for g in gates), MATRIX, 1),
        ArraySpec("recurrent_kernel", tuple(f"hidden_{g}" for g in gates), MATRIX, 1),
        *biases,
    )
    return tuple(
        part._replace(path=f"{cell}{name}")
        for cell in ("", *(f"{x}_cell/" for x in ("lstm", "gru", "simple_rnn")), "cell/")
        for n, part in enumerate(parts)
        for name in (part.path, f"vars/{n}")
    )


# A GRU's two biases, for the input and for the state: what `reset_after=True`, the default, has.
# Without it the layer is another function, and has one row only.
_PAIR = ArraySpec(
    "bias",
    ("bias_z", "bias_r", "bias_n", "bias_z", "bias_r", "hidden_bias_n"),
    _VECTOR,
    rows=2,
)

_SPECS: dict[str, LayerSpec] = {
    "dense": _vars(kernel=("kernel", MATRIX), bias=_BIAS),
    "conv": _vars(kernel=("kernel", CONV), bias=_BIAS),
    "conv_transpose": _vars(kernel=("kernel", TRANSPOSED_SWAPPED), bias=_BIAS),
    "batch_norm": _vars(
        gamma=("scale", _VECTOR),
        beta=_BIAS,
        moving_mean=("mean", _VECTOR),
        moving_variance=("var", _VECTOR),
    ),
    "layer_norm": _vars(gamma=("scale", _VECTOR), beta=_BIAS),
    "group_norm": _vars(gamma=("scale", _VECTOR), beta=_BIAS),
    "rms_norm": _vars(scale=("scale", _VECTOR)),
    "embedding": _vars(embeddings=("table", MATRIX)),
    "lstm": _recurrent("ifgo", _gated("ifgo")),
    "gru": _recurrent("zrn", (_PAIR,)),
    "rnn": _recurrent("h", _gated("h")),
    "attention": (
        *_heads("query", "query", 1, 2),
        *_heads("key", "key", 1, 2),
        *_heads("value", "value", 1, 2),
        *_heads("attention_output", "out", 2, 1),
    ),
}

KERAS = FrameworkLayout(
    name="keras",
    separator="/",
    specs=_SPECS,
    defaults={
        "batch_norm": {"epsilon": 1e-3, "momentum": 0.99},
        **{kind: {"epsilon": 1e-3} for kind in ("layer_norm", "group_norm")},
        "rms_norm": {"epsilon": 1e-6},
    },
)
