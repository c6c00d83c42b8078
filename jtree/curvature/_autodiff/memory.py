"""How much memory there is, and how much a product takes."""

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
from .protocol import Symmetric

_SHARE = 0.8  # of what is free, that is used without being told
_CACHE = 2**26  # bytes that products at once may write on a CPU; measured, 2**25 to 2**27 are alike
_ENOUGH = 2**31  # bytes beside the matrix that no product needs more of


def left(op: Symmetric, memory: int | None) -> int | None:
    """Return the bytes that the matrix of an operator leaves, rounded down to a power of two.

    Rounded, so that another state of the machine seldom means compiling again.
    """
    matrix = op.size**2 * np.dtype(op.dtype).itemsize
    limit = _free() if memory is None else memory
    if limit is None:
        return None
    if matrix >= limit:
        raise ArgumentError(
            f"the matrix of {op.size} x {op.size} {np.dtype(op.dtype).name} takes "
            f"{format_bytes(matrix)}, and {'there are' if memory is None else 'memory allows'} "
            f"{format_bytes(limit)}; take a part with op.restrict(...) or op.block(...), or ask "
            "for products, diagonal(op) or eigsh(op)"
        )
    return int(min(_ENOUGH, 2 ** math.floor(math.log2(limit - matrix))))


def _free() -> int | None:
    """Return a share of the memory that is free on the default device, where it can be told."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(_SHARE * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((line.split()[1] for line in lines if line.startswith("MemAvailable")), None)
    return int(_SHARE * int(free) * 1024) if free else None


def working_set(traced: Any) -> int:
    """Return the bytes that a traced function writes, which no schedule needs more than."""
    outputs = [var.aval for eqn in traced.jaxpr.eqns for var in eqn.outvars]
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in outputs if _isarray(x))


def at_once(linear: Callable[[Any], Any], given: Any, *, most: int, budget: int | None) -> int:
    """Return how many products at once are fast, and fit into a number of bytes.

    On a CPU they are as many as its caches hold.
    """
    one = max(1, working_set(jax.make_jaxpr(linear)(given)))
    limits = [most, *([_CACHE // one] if jax.default_backend() == "cpu" else [])]
    return max(1, min(limits if budget is None else [*limits, budget // one]))


def _isarray(aval: Any) -> bool:
    return hasattr(aval, "shape") and isinstance(getattr(aval, "dtype", None), np.dtype)


def operations(traced: Any) -> int:
    """Return how many multiplications a traced function's matrix products and convolutions take."""
    found, todo = 0, list(traced.jaxpr.eqns)
    while todo:
        eqn = todo.pop()
        for inner in jaxprs_in_params(eqn.params):
            todo += inner.eqns
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            left = eqn.invars[0].aval.shape
            found += math.prod(eqn.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
        elif eqn.primitive.name == "conv_general_dilated":
            kernel, spec = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec
            each = math.prod(kernel) // max(1, kernel[spec[0]])
            found += math.prod(eqn.outvars[0].aval.shape) * each
    return found
