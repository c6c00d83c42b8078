"""Haiku's layout: `w` and `b`, and one matrix for the input and the state of an LSTM.

A source is `params | state`, two dicts by the names of modules.

Source: https://dm-haiku.readthedocs.io.
"""

from __future__ import annotations

import numpy as np

from .spec import FrameworkLayout
from .transforms import (
    CONV_WINDOW_IN_OUT,
    MATRIX,
    WINDOW,
    Array,
    ArraySpec,
    LayerOptions,
    LayerSpec,
    Shape,
    Transform,
    flip_window,
)


def _with_bias(spec: ArraySpec) -> LayerSpec:
    return (spec, ArraySpec("b", ("bias",)))


def _read_only(x: Array, _: LayerOptions, __: Shape) -> Array:
    raise NotImplementedError


# Haiku's kernel is (*window, out, in), and lax does not flip it.
_CONV_TRANSPOSE = Transform(lambda x, _: flip_window(x.swapaxes(-1, -2)), _read_only, 2, WINDOW)
_GATES = "igfo"
_INPUT = Transform(lambda x, _: x[: len(x) - x.shape[1]], _read_only, 2)
_HIDDEN = Transform(lambda x, _: x[len(x) - x.shape[1] :], _read_only, 2)
_ONES = Transform(lambda x, _: np.ones_like(x), _read_only, 1)
_FLAT = Transform(lambda x, _: x.reshape(-1), _read_only, 1)
_AFFINE: LayerSpec = (ArraySpec("scale", ("scale",), _FLAT), ArraySpec("offset", ("bias",), _FLAT))


def _heads(name: str, canonical: str) -> LayerSpec:
    return (
        ArraySpec(f"{name}/w", (f"{canonical}_kernel",), MATRIX),
        ArraySpec(f"{name}/b", (f"{canonical}_bias",)),
    )


_SPECS: dict[str, LayerSpec] = {
    "dense": _with_bias(ArraySpec("w", ("kernel",), MATRIX)),
    "conv": _with_bias(ArraySpec("w", ("kernel",), CONV_WINDOW_IN_OUT)),
    "conv_transpose": _with_bias(ArraySpec("w", ("kernel",), _CONV_TRANSPOSE)),
    "batch_norm": (
        *_AFFINE,
        ArraySpec("mean_ema/average", ("mean",), _FLAT),
        ArraySpec("var_ema/average", ("var",), _FLAT),
        *(
            ArraySpec(f"{x}_ema/{name}", ())
            for x in ("mean", "var")
            for name in ("hidden", "counter")
        ),
    ),
    "layer_norm": _AFFINE,
    "group_norm": _AFFINE,
    "rms_norm": _AFFINE[:1],
    "embedding": (ArraySpec("embeddings", ("table",), MATRIX),),
    "lstm": (
        ArraySpec("linear/w", tuple(f"input_{g}" for g in _GATES), _INPUT, 1),
        ArraySpec("linear/w", tuple(f"hidden_{g}" for g in _GATES), _HIDDEN, 1),
        ArraySpec("linear/b", tuple(f"bias_{g}" for g in _GATES)),
        # Haiku adds 1 to the bias of the forget gate when the layer is called.
        ArraySpec("linear/b", ("", "", "bias_f", ""), _ONES),
    ),
    "attention": (
        *_heads("query", "query"),
        *_heads("key", "key"),
        *_heads("value", "value"),
        *_heads("linear", "out"),
    ),
}

HAIKU = FrameworkLayout(
    name="haiku",
    separator="/",
    specs=_SPECS,
    defaults={
        "batch_norm": {"epsilon": 1e-5},
        "layer_norm": {"epsilon": 1e-5},
        "group_norm": {"epsilon": 1e-5},
        "rms_norm": {"epsilon": 1e-5},
    },
)
