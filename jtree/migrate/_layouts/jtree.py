"""The layout of jtree's own layers."""

from __future__ import annotations

from typing import Any

from .convolution import conv_settings
from .spec import ArraySpec, FrameworkLayout, LayerSpec, LayerType
from .transforms import CONV_WINDOW_IN_OUT, MATRIX

_SPECS: dict[str, LayerSpec] = {
    "dense": (ArraySpec("weight", ("kernel",), MATRIX), ArraySpec("bias", ("bias",))),
    "conv": (ArraySpec("weight", ("kernel",), CONV_WINDOW_IN_OUT), ArraySpec("bias", ("bias",))),
    "batch_norm": (
        ArraySpec("gamma", ("scale",)),
        ArraySpec("beta", ("bias",)),
        ArraySpec("mu", ("mean",)),
        ArraySpec("sigma2", ("var",)),
    ),
}


def _conv_options(node: Any) -> dict[str, Any]:
    return {"dims": len(node.weight.shape) - 2, "groups": node.groups}


def _conv(node: Any) -> dict[str, Any]:
    return conv_settings(
        node.weight.shape[:-2],
        stride=node.stride,
        dilation=node.dilation,
        padding=node.pad,
        groups=node.groups,
    )


def _batch_norm(node: Any) -> dict[str, Any]:
    return {"epsilon": node.eps, "momentum": 1 - node.momentum}


_TYPES = {
    "Dense": LayerType("dense", _SPECS["dense"]),
    "Conv": LayerType("conv", _SPECS["conv"], _conv_options, _conv),
    "BatchNorm": LayerType("batch_norm", _SPECS["batch_norm"], settings=_batch_norm),
}

JTREE = FrameworkLayout(
    name="jtree",
    separator="/",
    specs=_SPECS,
    types={("jtree.layers", name): layer_type for name, layer_type in _TYPES.items()},
    containers={
        ("jtree.layers", "Chain"): {"layers": ()},
        ("jtree.layers", "Parallel"): {"layers": ()},
        ("jtree.layers", "SkipConnection"): {"layer": ()},
    },
    defaults={"batch_norm": {"epsilon": 1e-5, "momentum": 0.9}},
)
