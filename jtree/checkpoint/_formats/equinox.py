"""Equinox files have no names: their arrays are those of a model's leaves, in order."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from ..._errors import CheckpointError
from ..._tree import paths
from ..._tree.lazy import LazyArray
from ..._tree.leaves import isarray
from ..._tree.walk import walk
from .._checkpoint import Checkpoint

logger = logging.getLogger("jtree")
_SCALARS = (bool, int, float, complex, np.generic)


def by_position(found: Checkpoint, model: Any) -> Any:
    """Return a model with the arrays of an Equinox file in the places of its own, by their order.

    Equinox writes numbers that are no arrays too. They take their turn here, and the model keeps
    its own, as `loadmodel` has it.
    """
    walked = walk(model, ties=())
    held = [slot for slot in walked.slots if isarray(slot.value) or _isscalar(slot.value)]
    if len(held) != len(found):
        raise CheckpointError(
            f"{found.path}: expected {len(held)} arrays, one for each leaf of the model with "
            f"numbers, found {len(found)}; it was written from a model of another structure"
        )
    lazy = {slot.path: x for slot, x in zip(held, found.tree["leaf"], strict=True)}
    logger.info(
        "%s has no names: its %d arrays were taken in the order of the model's leaves, from %s to "
        "%s",
        *(found.path, len(held)),
        *(paths.show(slot.path) for slot in (held[:1] + held[-1:])),
    )
    return walked.rebuild(
        [
            _as_dtype(lazy[slot.path], slot.value) if isarray(slot.value) else slot.value
            for slot in walked.slots
        ]
    )


def _isscalar(x: Any) -> bool:
    return isinstance(x, _SCALARS)


def _as_dtype(x: LazyArray, target: Any) -> LazyArray:
    """Return an array with the dtype that NumPy forgot: bfloat16 is written as two bytes."""
    dtype = np.dtype(target.dtype) if isinstance(target.dtype, np.dtype) else None
    if x.dtype.kind == "V" and dtype is not None and dtype.itemsize == x.dtype.itemsize:
        return x.source.add(x.name, x.shape, dtype, lambda: x.read().view(dtype))  # type: ignore[attr-defined, no-any-return]
    return x
