"""How jtree's own layers store their arrays."""

from __future__ import annotations

from typing import Any

from .spec import ArraySpec, FrameworkLayout, LayerSpec, LayerType, conv_settings
from .transforms import CONV, MATRIX

_SPECS: dict[str, LayerSpec] = {
    "dense": (ArraySpec("weight", ("kernel",), MATRIX), ArraySpec("bias", ("bias",))),
    "conv": (ArraySpec("weight", ("kernel",), CONV), ArraySpec("bias", ("bias",))),
    "batch_norm": (
        ArraySpec("gamma", ("scale",)),
        ArraySpec("beta", ("bias",)),
        ArraySpec("mu", ("mean",)),
        ArraySpec("sigma2", ("var",)),
    ),
}


def _dims(node: Any) -> dict[str, Any]:
    return {"dims": len(node.weight.shape) - 2, "groups": node.groups}


def _convolution(node: Any) -> dict[str, Any]:
    size = node.weight.shape[:-2]
    return conv_settings(
        size, stride=node.stride, dilation=node.dilation, padding=node.pad, groups=node.groups
    )


def _batch(node: Any) -> dict[str, Any]:
    return {"epsilon": node.eps, "momentum": 1 - node.momentum}


_TYPES = {
    "Dense": LayerType("dense", _SPECS["dense"]),
    "Conv": LayerType("conv", _SPECS["conv"], _dims, _convolution),
    "BatchNorm": LayerType("batch_norm", _SPECS["batch_norm"], settings=_batch),
}

JTREE = FrameworkLayout(
    name="jtree",
    separator="/",
    specs=_SPECS,
    types={("jtree.layers", name): recipe for name, recipe in _TYPES.items()},
    containers={
        ("jtree.layers", "Chain"): {"layers": ()},
        ("jtree.layers", "Parallel"): {"layers": ()},
        ("jtree.layers", "SkipConnection"): {"layer": ()},
    },
    defaults={"batch_norm": {"epsilon": 1e-5, "momentum": 0.9}},
)
