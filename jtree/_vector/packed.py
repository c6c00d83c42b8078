"""Any values as a pytree that `jit` accepts: arrays and numbers as data, everything else static."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from .._tree.leaves import isabstract, isarray, isdata, isnumber
from .static import Static


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["arrays"],
    meta_fields=["statics", "treedef"],
)
@dataclass(frozen=True, eq=False)
class Packed:
    """A tree whose leaves are data where `jit` can trace them, and static otherwise."""

    arrays: tuple[Any, ...]
    statics: tuple[Static, ...]
    treedef: Any

    def unpack(self) -> Any:
        """Return the tree."""
        arrays = iter(self.arrays)
        leaves = [static.value if static else next(arrays) for static in self.statics]
        return self.treedef.unflatten(leaves)


def pack(tree: Any, *, numbers: bool = True) -> Packed:
    """Return a tree with its arrays as data; Python numbers are data too, if `numbers` is true."""
    leaves, treedef = jax.tree.flatten(tree)
    leaves = [_as_array(x) for x in leaves]
    data = [_isdata(x) or (numbers and _isnumber(x)) for x in leaves]
    statics = tuple(_NOTHING if d else Static(x) for x, d in zip(leaves, data, strict=True))
    return Packed(tuple(x for x, d in zip(leaves, data, strict=True) if d), statics, treedef)


_NOTHING = Static()


def _isdata(x: Any) -> bool:
    if isinstance(x, np.ndarray | np.generic):
        return isnumber(x.dtype)
    return isdata(x) or isabstract(x)


def _isnumber(x: Any) -> bool:
    return isinstance(x, int | float | complex) and not isinstance(x, bool)


def _as_array(x: Any) -> Any:
    """Return the tensor of another library, as data loaders give them, as an array."""
    return np.asarray(x) if hasattr(x, "__dlpack__") and not isarray(x) else x
