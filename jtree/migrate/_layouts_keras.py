"""How Keras stores layers: names in a model, and positions in a file.

Source: the documentation of Keras, https://keras.io/api/layers.
"""

from __future__ import annotations

from ._layer import Form, Layout, Part
from ._turns import CONV, MATRIX, TRANSPOSED_SWAPPED, Turn, flat, same


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
        **dict.fromkeys(("layer_norm", "group_norm"), {"epsilon": 1e-3}),
        "rms_norm": {"epsilon": 1e-6},
    },
)
