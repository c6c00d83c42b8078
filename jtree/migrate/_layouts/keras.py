"""How Keras stores layers: names in a model, and positions in a file.

Source: the documentation of Keras, https://keras.io/api/layers.
"""

from __future__ import annotations

from .spec import Form, Layout, Part
from .transforms import CONV, MATRIX, TRANSPOSED_SWAPPED, Turn, flat, same


def _vars(**names: tuple[str, Turn]) -> Form:
    """Return arrays by name, and in order, as files have them."""
    named = [Part(name, (role,), turn) for name, (role, turn) in names.items()]
    return (*named, *(part._replace(name=f"vars/{n}") for n, part in enumerate(named)))


_VECTOR = same(1)
_BIAS = ("bias", _VECTOR)


def _heads(name: str, role: str, inputs: int, outputs: int) -> Form:
    kernel = Part("kernel", (f"{role}_kernel",), flat(inputs, outputs))
    parts = (kernel, Part("bias", (f"{role}_bias",), flat(0, outputs)))
    return tuple(
        part._replace(name=f"{name}/{prefix or part.name}")
        for n, part in enumerate(parts)
        for prefix in ("", f"vars/{n}")
    )


def _gated(gates: str) -> Form:
    return (Part("bias", tuple(f"bias_{g}" for g in gates)),)


def _recurrent(gates: str, biases: Form) -> Form:
    """Return the cell of a layer: its arrays are named, or numbered in a file."""
    parts = (
        Part("kernel", tuple(f"input_{g}" for g in gates), MATRIX, 1),
        Part("recurrent_kernel", tuple(f"hidden_{g}" for g in gates), MATRIX, 1),
        *biases,
    )
    return tuple(
        part._replace(name=f"{cell}{name}")
        for cell in ("", *(f"{x}_cell/" for x in ("lstm", "gru", "simple_rnn")), "cell/")
        for n, part in enumerate(parts)
        for name in (part.name, f"vars/{n}")
    )


# A GRU's two biases, for the input and for the state: what `reset_after=True`, the default, has.
# Without it the layer is another function, and has one row only.
_PAIR = Part(
    "bias",
    ("bias_z", "bias_r", "bias_n", "bias_z", "bias_r", "hidden_bias_n"),
    _VECTOR,
    rows=2,
)

_FORMS: dict[str, Form] = {
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

KERAS = Layout(
    name="keras",
    separator="/",
    forms=_FORMS,
    defaults={
        "batch_norm": {"epsilon": 1e-3, "momentum": 0.99},
        **{kind: {"epsilon": 1e-3} for kind in ("layer_norm", "group_norm")},
        "rms_norm": {"epsilon": 1e-6},
    },
)
