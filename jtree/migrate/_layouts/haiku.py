"""How Haiku stores layers: `w` and `b`, and one matrix for the input and the state of an LSTM.

Give `params | state`, both dicts by the names of modules.

Source: the documentation of Haiku, https://dm-haiku.readthedocs.io.
"""

from __future__ import annotations

import numpy as np

from .spec import ArraySpec, FrameworkLayout, LayerSpec
from .transforms import CONV, MATRIX, Array, Options, Shape, Transform, identity


def _bias(spec: ArraySpec) -> LayerSpec:
    return (spec, ArraySpec("b", ("bias",)))


def _no_write(x: Array, _: Options, __: Shape) -> Array:
    raise NotImplementedError


# Haiku's kernel is (*window, out, in), and lax does not flip it.
_TRANSPOSED = Transform(
    lambda x, _: np.flip(x.swapaxes(-1, -2), tuple(range(x.ndim - 2))),
    _no_write,
    lambda options: options["dims"] + 2,
)
_GATES = "igfo"
_INPUT = Transform(lambda x, _: x[: len(x) - x.shape[1]], _no_write, lambda _: 2)
_HIDDEN = Transform(lambda x, _: x[len(x) - x.shape[1] :], _no_write, lambda _: 2)
_ONE = Transform(lambda x, _: np.ones_like(x), _no_write, lambda _: 1)
_FLAT = Transform(lambda x, _: x.reshape(-1), _no_write, lambda _: 1)
_AFFINE: LayerSpec = (ArraySpec("scale", ("scale",), _FLAT), ArraySpec("offset", ("bias",), _FLAT))


def _heads(name: str, role: str) -> LayerSpec:
    return (
        ArraySpec(f"{name}/w", (f"{role}_kernel",), MATRIX),
        ArraySpec(f"{name}/b", (f"{role}_bias",)),
    )


_SPECS: dict[str, LayerSpec] = {
    "dense": _bias(ArraySpec("w", ("kernel",), MATRIX)),
    "conv": _bias(ArraySpec("w", ("kernel",), CONV)),
    "conv_transpose": _bias(ArraySpec("w", ("kernel",), _TRANSPOSED)),
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
    "embedding": (ArraySpec("embeddings", ("table",), identity(2)),),
    "lstm": (
        ArraySpec("linear/w", tuple(f"input_{g}" for g in _GATES), _INPUT, 1),
        ArraySpec("linear/w", tuple(f"hidden_{g}" for g in _GATES), _HIDDEN, 1),
        ArraySpec("linear/b", tuple(f"bias_{g}" for g in _GATES)),
        ArraySpec(
            "linear/b", ("", "", "bias_f", ""), _ONE
        ),  # what Haiku adds to it when it is called
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
