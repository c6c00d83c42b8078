"""Scales that belong to quantised weights, whose values are lost without them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp

from ..._state.mismatch import Mismatch, mismatch
from ..._tree.leaves import describe

# What bitsandbytes, GPTQ, AWQ, compressed-tensors and fp8 checkpoints call the scales of a weight.
_SCALE = re.compile(r"scale|zero_?point|qzeros|absmax|amax|scb|quant_(map|state)", re.IGNORECASE)


def find_dropped_scales(
    before: Mapping[str, Any], dropped: Iterable[str], after: Iterable[str]
) -> Iterator[Mismatch]:
    """Yield a problem for each scale of a quantised weight that rules drop, but not its weight.

    Args:
      before: the arrays of the source before rules.
      dropped: the names that rules drop.
      after: the names that they keep.
    """
    kept = set(after)
    for name in dropped:
        weight = scaled_weight(name, before)
        if weight is not None and weight in kept:
            text = f"rules that drop this scale of {describe(before[weight])} in {weight}"
            advice = f"; {dequantise(weight)}"
            yield mismatch(name, "unexpected", "the values of a weight", text, advice)


def scaled_weight(name: str, arrays: Mapping[str, Any]) -> str | None:
    """Return the name of the quantised array that an array scales, or None if it scales none.

    >>> arrays = {"a.weight": np.ones((2, 2), np.int8), "a.weight_scale_inv": np.ones(1)}
    >>> scaled_weight("a.weight_scale_inv", arrays), scaled_weight("a.weight", arrays)
    ('a.weight', None)
    """
    key = re.split(r"[./]", name)[-1]
    if not _SCALE.search(key):
        return None
    prefix = name.removesuffix(key)
    beside = (x for x in arrays if x == prefix[:-1] or x.startswith(prefix))
    quantised = (x for x in beside if x != name and _is_quantised(x, arrays[x]))
    return next(quantised, None)


def dequantise(weight: str) -> str:
    """Return the advice for the scale of a quantised weight."""
    return f"dequantise {weight} before the conversion, and pass its values without the scale"


def _is_quantised(name: str, x: Any) -> bool:
    """Return whether an array may hold quantised values: integers, or floats of 8 bits or less."""
    integral = jnp.issubdtype(x.dtype, jnp.integer)
    return not _SCALE.search(name) and len(x.shape) > 1 and (integral or x.dtype.itemsize == 1)
