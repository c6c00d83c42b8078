"""Keras's layout: arrays by name in a model, and by index in a file.

Source: https://keras.io/api/layers.
"""

from __future__ import annotations

from dataclasses import replace

from .spec import FrameworkLayout
from .transforms import (
    CONV_TRANSPOSE_WINDOW_OUT_IN,
    CONV_WINDOW_IN_OUT,
    MATRIX,
    VECTOR,
    ArraySpec,
    LayerSpec,
    Transform,
    merged_axes,
)


def _indexed(**arrays: tuple[str, Transform]) -> LayerSpec:
    """Return arrays by name, and by index as in files."""
    named = [ArraySpec(path, (name,), transform) for path, (name, transform) in arrays.items()]
    return (*named, *(replace(spec, path=f"vars/{n}") for n, spec in enumerate(named)))


_BIAS = ("bias", VECTOR)


def _heads(name: str, canonical: str, inputs: int, outputs: int) -> LayerSpec:
    kernel = ArraySpec("kernel", (f"{canonical}_kernel",), merged_axes(inputs, outputs))
    bias = ArraySpec("bias", (f"{canonical}_bias",), merged_axes(0, outputs))
    return tuple(
        replace(spec, path=f"{name}/{path}")
        for n, spec in enumerate((kernel, bias))
        for path in (spec.path, f"vars/{n}")
    )


def _gate_biases(gates: str) -> LayerSpec:
    return (ArraySpec("bias", tuple(f"bias_{g}" for g in gates)),)


def _recurrent(gates: str, biases: LayerSpec) -> LayerSpec:
    """Return the arrays of a cell, in the layer itself or below it, by name or by index."""
    specs = (
        ArraySpec("kernel", tuple(f"input_{g}" for g in gates), MATRIX, 1),
        ArraySpec("recurrent_kernel", tuple(f"hidden_{g}" for g in gates), MATRIX, 1),
        *biases,
    )
    return tuple(
        replace(spec, path=f"{cell}{path}")
        for cell in ("", *(f"{x}_cell/" for x in ("lstm", "gru", "simple_rnn")), "cell/")
        for n, spec in enumerate(specs)
        for path in (spec.path, f"vars/{n}")
    )


# The biases of a GRU for its input and its state are two rows with `reset_after=True`, the default.
# Without it there is one row, and the layer is another function.
_GRU_BIASES = ArraySpec(
    "bias",
    ("bias_z", "bias_r", "bias_n", "bias_z", "bias_r", "hidden_bias_n"),
    VECTOR,
    rows=2,
)

_SPECS: dict[str, LayerSpec] = {
    "dense": _indexed(kernel=("kernel", MATRIX), bias=_BIAS),
    "conv": _indexed(kernel=("kernel", CONV_WINDOW_IN_OUT), bias=_BIAS),
    "conv_transpose": _indexed(kernel=("kernel", CONV_TRANSPOSE_WINDOW_OUT_IN), bias=_BIAS),
    "batch_norm": _indexed(
        gamma=("scale", VECTOR),
        beta=_BIAS,
        moving_mean=("mean", VECTOR),
        moving_variance=("var", VECTOR),
    ),
    "layer_norm": _indexed(gamma=("scale", VECTOR), beta=_BIAS),
    "group_norm": _indexed(gamma=("scale", VECTOR), beta=_BIAS),
    "rms_norm": _indexed(scale=("scale", VECTOR)),
    "embedding": _indexed(embeddings=("table", MATRIX)),
    "lstm": _recurrent("ifgo", _gate_biases("ifgo")),
    "gru": _recurrent("zrn", (_GRU_BIASES,)),
    "rnn": _recurrent("h", _gate_biases("h")),
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
