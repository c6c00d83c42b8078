"""The names of the fields of Flux's structs, in every version that has other ones.

A BSON file stores fields by position only. Names that changed while the meaning stayed have the
newest name: `W` and `b` of `Dense` are `weight` and `bias`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .julia_values import JuliaFunction
from .julia_values import last_name as last_name

_NORM = "λ β γ μ σ² ϵ momentum"
_NEW_NORM = f"{_NORM} affine track_stats active chs"
_CONV = "σ weight bias stride pad dilation"
_LAYERS = "layers"
_LAYER_FIELDS = {
    "AdaptiveMaxPool": ("out",),
    "AdaptiveMeanPool": ("out",),
    "AlphaDropout": ("p active rng", "p active", "p"),
    "BatchNorm": (_NEW_NORM, f"{_NORM} active", _NORM),
    "Bilinear": ("weight bias σ",),
    "Chain": (_LAYERS,),
    "Conv": (f"{_CONV} groups", _CONV, "σ weight bias stride pad"),
    "Conv2D": ("σ weight stride pad",),
    "ConvTranspose": ("σ weight bias stride pad outpad dilation groups", f"{_CONV} groups", _CONV),
    "CrossCor": (_CONV,),
    "Dense": ("weight bias σ", "σ weight bias"),
    "DepthwiseConv": (_CONV, "σ weight bias stride pad"),
    "Diagonal": ("α β",),
    "Dropout": ("p dims active rng", "p dims active", "p active"),
    "Embedding": ("weight padding_idx", "weight"),
    "EmbeddingBag": ("weight reduction",),
    "GRU": ("cell",),
    "GRUCell": ("Wi Wh b state0", "Wi Wh b"),
    "GRUv3": ("cell",),
    "GRUv3Cell": ("Wi Wh b Wh_h̃ state0", "Wi Wh b Wh_h̃"),
    "GroupNorm": (f"G {_NEW_NORM}", f"G {_NORM} active", f"G {_NORM}"),
    "InstanceNorm": (_NEW_NORM, f"{_NORM} active", _NORM),
    "LSTM": ("cell",),
    "LSTMCell": ("Wi Wh b h c", "Wi Wh b state0", "Wi Wh bias"),
    "LayerNorm": ("λ diag ϵ size affine", "diag"),
    "MaxPool": ("k pad stride",),
    "Maxout": (_LAYERS,),
    "MeanPool": ("k pad stride",),
    "MultiHeadAttention": ("nheads q_proj k_proj v_proj attn_drop out_proj",),
    "PairwiseFusion": ("connection layers",),
    "Parallel": ("connection layers",),
    "PixelShuffle": ("r",),
    "RNN": ("cell",),
    "RNNCell": ("σ Wi Wh b state0", "σ Wi Wh bias"),
    "Recur": ("cell init state", "cell state"),
    "Recurrence": ("cell",),
    "Scale": ("scale bias σ",),
    "SkipConnection": ("layers connection",),
    "Upsample": ("scale size",),
    "WeightNorm": ("layer g which dims",),
}
_OPTIMISER_FIELDS = {
    "AdaBelief": ("eta beta epsilon state", "eta beta state"),
    "AdaDelta": ("rho epsilon state", "rho state"),
    "AdaGrad": ("eta epsilon acc", "eta acc"),
    "AdaMax": ("eta beta epsilon state", "eta beta state"),
    "Adam": ("eta beta epsilon state", "eta beta state"),
    "AMSGrad": ("eta beta epsilon state", "eta beta state"),
    "ClipNorm": ("thresh",),
    "ClipValue": ("thresh",),
    "Descent": ("eta",),
    "ExpDecay": ("eta decay step clip start current", "eta decay step clip current"),
    "InvDecay": ("gamma state",),
    "Momentum": ("eta rho velocity",),
    "NAdam": ("eta beta epsilon state", "eta beta state"),
    "Nesterov": ("eta rho velocity",),
    "OAdam": ("eta beta epsilon state", "eta beta state"),
    "Optimiser": ("os",),
    "RAdam": ("eta beta epsilon state", "eta beta state"),
    "RMSProp": ("eta rho epsilon acc", "eta rho acc"),
    "WeightDecay": ("wd",),
}
_OTHER_FIELDS = {
    "Optimisers.Leaf": ("rule state frozen", "rule state"),
    "Optimisers.Descent": ("eta",),
    "Optimisers.Momentum": ("eta rho",),
    "Optimisers.Nesterov": ("eta rho",),
    "Optimisers.Adam": ("eta beta epsilon",),
    "Optimisers.AdamW": ("eta beta lambda epsilon couple",),
    "Optimisers.RMSProp": ("eta rho epsilon centred",),
    "Optimisers.WeightDecay": ("lambda",),
    "Optimisers.OptimiserChain": ("opts",),
    "Flux.OneHotArray": ("indices",),
    "Flux.OneHotMatrix": ("height data",),
    "OneHotArrays.OneHotArray": ("indices nlabels", "indices"),
    "Base.ComposedFunction": ("outer inner",),
    "Base.Fix1": ("f x",),
    "Base.Fix2": ("f x",),
}


def _table() -> dict[str, tuple[tuple[str, ...], ...]]:
    """Return the names of the fields by type: one tuple of names for each version."""
    optimisers = {
        f"Flux.{module}{spelled}": versions
        for name, versions in _OPTIMISER_FIELDS.items()
        for module in ("", "Optimise.")
        for spelled in {name, name.upper(), name.replace("Ada", "ADA").replace("Adam", "ADAM")}
    }
    layers = {f"Flux.{name}": versions for name, versions in _LAYER_FIELDS.items()}
    table = optimisers | layers | _OTHER_FIELDS
    return {name: tuple(tuple(x.split()) for x in versions) for name, versions in table.items()}


FIELDS = _table()


def field_names(
    type: str, values: Any, fields: Mapping[str, Sequence[str]]
) -> tuple[str, ...] | None:
    """Return the names of a struct's fields, or None where they are unknown.

    Args:
      type: the name of the struct's type.
      values: its fields, by position or by name.
      fields: further names, by type with or without its modules.
    """
    given = fields.get(type, fields.get(last_name(type)))
    if given is not None:
        if len(given) != len(values):
            raise ValueError(
                f"fields: {type} has {len(values)} fields in this file, found {len(given)} names: "
                f"{', '.join(given):.200}"
            )
        return tuple(given)
    if isinstance(values, dict):
        return tuple(values)
    versions = [names for names in FIELDS.get(type, ()) if len(names) == len(values)]
    fitting = (names for names in versions if _fits(names, values))
    return next(fitting, versions[0] if versions else None)


def _fits(names: Sequence[str], values: Sequence[Any]) -> bool:
    """Return whether the weight among these fields is an array and not a function."""
    return "weight" not in names or not isinstance(values[names.index("weight")], JuliaFunction)
