"""Files without names: their arrays belong to the leaves of a model, in order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._errors import CheckpointError
from .._tree import paths
from .._tree.lazy import Computed, LazyArray
from .._tree.leaves import isarray
from .._tree.walk import walk

logger = logging.getLogger("jtree")
_SCALARS = (bool, int, float, complex, np.generic)


def assign_by_position(path: str, arrays: Sequence[LazyArray], model: Any) -> Any:
    """Return a model with the arrays of an Equinox file in place of its own, in order.

    Equinox also writes the Python numbers of a model, as 0-d arrays.
    """
    walked = walk(model, ties=())
    slots = [slot for slot in walked.slots if isarray(slot.value) or _isscalar(slot.value)]
    if len(slots) != len(arrays):
        raise CheckpointError(
            f"{path}: expected {len(slots)} arrays, one for each leaf of the model with values, "
            f"found {len(arrays)}; load it into a model of the structure that was saved"
        )
    first, last = (paths.show(slot.path) for slot in slots[:1] + slots[-1:])
    logger.info(
        "%s has no names: its %d arrays were assigned to the model's leaves in order, from %s to "
        "%s",
        *(path, len(slots), first, last),
    )
    by_path = dict(zip((slot.path for slot in slots), arrays, strict=True))
    return walked.rebuild(
        [
            _like(slot.value, by_path[slot.path]) if slot.path in by_path else slot.value
            for slot in walked.slots
        ]
    )


def _like(leaf: Any, x: LazyArray) -> Any:
    """Return an array for a leaf, or the number in it where the leaf is a number."""
    array = _view(x, getattr(leaf, "dtype", None))
    return array.read().item() if _isscalar(leaf) and array.shape == () else array


def _isscalar(x: Any) -> bool:
    return isinstance(x, _SCALARS)


def _view(x: LazyArray, dtype: Any) -> LazyArray:
    """Return an array with the dtype that NumPy lost: bfloat16 is written as two plain bytes."""
    if x.dtype.kind != "V" or not isinstance(dtype, np.dtype) or dtype.itemsize != x.dtype.itemsize:
        return x
    return Computed().add(x.shape, dtype, lambda: x.read().view(dtype))
