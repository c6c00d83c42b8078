"""How jtree's own layers store their arrays."""

from __future__ import annotations

from typing import Any

from .spec import Form, Layout, Part, Recipe, window
from .transforms import CONV, MATRIX

_FORMS: dict[str, Form] = {
    "dense": (Part("weight", ("kernel",), MATRIX), Part("bias", ("bias",))),
    "conv": (Part("weight", ("kernel",), CONV), Part("bias", ("bias",))),
    "batch_norm": (
        Part("gamma", ("scale",)),
        Part("beta", ("bias",)),
        Part("mu", ("mean",)),
        Part("sigma2", ("var",)),
    ),
}


def _dims(node: Any) -> dict[str, Any]:
    return {"dims": len(node.weight.shape) - 2, "groups": node.groups}


def _convolution(node: Any) -> dict[str, Any]:
    size = node.weight.shape[:-2]
    return window(
        size, stride=node.stride, dilation=node.dilation, padding=node.pad, groups=node.groups
    )


def _batch(node: Any) -> dict[str, Any]:
    return {"epsilon": node.eps, "momentum": 1 - node.momentum}


_TYPES = {
    "Dense": Recipe("dense", _FORMS["dense"]),
    "Conv": Recipe("conv", _FORMS["conv"], _dims, _convolution),
    "BatchNorm": Recipe("batch_norm", _FORMS["batch_norm"], settings=_batch),
}

JTREE = Layout(
    name="jtree",
    separator="/",
    forms=_FORMS,
    types={("jtree.layers", name): recipe for name, recipe in _TYPES.items()},
    containers={
        ("jtree.layers", "Chain"): {"layers": ()},
        ("jtree.layers", "Parallel"): {"layers": ()},
        ("jtree.layers", "SkipConnection"): {"layer": ()},
    },
    defaults={"batch_norm": {"epsilon": 1e-5, "momentum": 0.9}},
)
