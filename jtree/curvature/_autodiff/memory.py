"""The memory of a device, and the memory and operations that products take."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend.core import jaxprs_in_params

from ..._errors import ArgumentError
from ..._text import format_bytes
from .protocol import Linearizable

_USABLE = 0.8  # share of the free memory that is used by default
_CACHE = 2**26  # bytes that batched products may write on a CPU; 2**25 to 2**27 are as fast
_MAX_BUDGET = 2**31  # bytes beside the matrix; more makes no product faster


def budget(op: Linearizable, memory: float | None) -> int | None:
    """Return the bytes that remain beside an operator's matrix, as a power of two.

    A power of two, so that a little more or less free memory does not mean compiling again.
    """
    (rows, cols), dtype = op.shape, np.dtype(op.dtype)
    remedy = "use products"
    if hasattr(op, "restrict"):
        remedy += ", diagonal(op) or eigsh(op), or a part: op.restrict(...), op.block(...)"
    subject = f"the matrix of {rows} x {cols} {dtype.name} takes"
    beside = require_memory(rows * cols * dtype.itemsize, memory, subject, remedy)
    return None if beside is None else int(2 ** math.floor(math.log2(min(_MAX_BUDGET, beside))))


def require_memory(nbytes: int, memory: float | None, subject: str, remedy: str) -> float | None:
    """Return the bytes that remain beside an array, or raise where it does not fit.

    Args:
      nbytes: the bytes of the array.
      memory: the bytes that are allowed; None for those that are free.
      subject: what takes the bytes, for the message.
      remedy: what to do, for the message.
    """
    limit = _free_bytes() if memory is None else memory
    if limit is None:
        return None
    if nbytes >= limit:
        raise ArgumentError(
            f"{subject} {format_bytes(nbytes)}, but "
            f"{'only' if memory is None else 'memory= allows'} {format_bytes(int(limit))}"
            f"{' are free' if memory is None else ''}; {remedy}"
        )
    return limit - nbytes


def _free_bytes() -> int | None:
    """Return the usable share of the free memory of the default device, where that is known."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(_USABLE * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((line.split()[1] for line in lines if line.startswith("MemAvailable")), None)
    return int(_USABLE * int(free) * 1024) if free else None


def batch_size(linear: Callable[[Any], Any], inputs: Any, *, most: int, budget: int | None) -> int:
    """Return how many products to batch: no more than fit into a budget of bytes.

    On a CPU it is also no more than fit into its caches, beyond which batching is slower.
    """
    one = max(1, _bytes_written(jax.make_jaxpr(linear)(inputs)))
    limits = [most, *([_CACHE // one] if jax.default_backend() == "cpu" else [])]
    return max(1, min(limits if budget is None else [*limits, budget // one]))


def _bytes_written(jaxpr: Any) -> int:
    """Return the bytes of all results within a jaxpr: an upper bound of what it needs."""
    results = [var.aval for eqn in jaxpr.jaxpr.eqns for var in eqn.outvars]
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in results if _has_shape(x))


def _has_shape(aval: Any) -> bool:
    return hasattr(aval, "shape") and isinstance(getattr(aval, "dtype", None), np.dtype)


def multiplications(jaxpr: Any) -> int:
    """Return how many multiplications the matrix products and convolutions of a jaxpr take."""
    total, equations = 0, list(jaxpr.jaxpr.eqns)
    while equations:
        eqn = equations.pop()
        for inner in jaxprs_in_params(eqn.params):
            equations += inner.eqns
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            left = eqn.invars[0].aval.shape
            total += math.prod(eqn.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
        elif eqn.primitive.name == "conv_general_dilated":
            kernel, spec = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec
            window = math.prod(kernel) // max(1, kernel[spec[0]])
            total += math.prod(eqn.outvars[0].aval.shape) * window
    return total
