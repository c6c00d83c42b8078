"""The arrays of a checkpoint that Orbax wrote by itself."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import numpy as np

from ..._errors import CheckpointError
from ..._tree.lazy import Computed, LazyArray, Source
from .._storage import atomic
from . import api

logger = logging.getLogger("jtree")


class PlainArrays(Source):
    """The arrays of a checkpoint that Orbax wrote by itself, by (item, number of the leaf)."""

    batch_bytes = 2**25  # Orbax takes long to begin

    def __init__(self, path: atomic.Path, items: dict[str | None, Any]) -> None:
        self.path = path
        self.flat = {name: jax.tree.flatten(tree, is_leaf=_isarray) for name, tree in items.items()}

    def tree(self) -> Any:
        """Return the state, with lazy arrays, and every other leaf as it was saved."""
        found: dict[str | None, Any] = {}
        for name in self.flat:
            try:
                found[name] = self._tree(name)
            except CheckpointError as error:
                if len(self.flat) == 1:
                    raise
                logger.warning("%s: left out, since Orbax cannot read it: %s", name, error)
        return next(iter(found.values())) if len(self.flat) == 1 else found

    def read(self, wanted: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        """Return arrays by name."""
        found: dict[Hashable, Any] = {}
        for item, (leaves, _) in self.flat.items():
            chosen = {n: wanted[item, n] for n in range(len(leaves)) if (item, n) in wanted}
            if chosen:
                targets = [
                    api.target(x.shape, x.dtype, chosen[n]) if n in chosen else api.skip()
                    for n, x in enumerate(leaves)
                ]
                arrays = self._leaves(item, targets)
                found |= {(item, n): arrays[n] for n in chosen}
        return found

    def _tree(self, item: str | None) -> Any:
        leaves, treedef = self.flat[item]
        if all(map(_isarray, leaves)) and leaves:
            values: list[Any] = [None] * len(leaves)
        elif any(map(_isarray, leaves)):
            targets = [api.skip() if _isarray(x) else type(x) for x in leaves]
            values = self._leaves(item, targets)
        else:
            return self._unknown(item)
        lazy = [
            LazyArray(self, (item, n), x.shape, np.dtype(x.dtype)) if _isarray(x) else values[n]
            for n, x in enumerate(leaves)
        ]
        return jax.tree.unflatten(treedef, lazy)

    def _unknown(self, item: str | None) -> Any:
        """Return a tree of which Orbax does not say what is in it, as where there are booleans.

        So it is read: once to know the places, once more for arrays without loss of precision.
        """
        leaves, treedef = jax.tree.flatten(api.read_item(self.path, item, None))
        if any(map(_isarray, leaves)):
            kinds = [np.ndarray if _isarray(x) else type(x) for x in leaves]
            tree = api.read_item(self.path, item, jax.tree.unflatten(treedef, kinds))
            source = Computed()
            leaves = [
                source.add(x.shape, x.dtype, x.copy) if _isarray(x) else x
                for x in jax.tree.leaves(tree)
            ]
        return jax.tree.unflatten(treedef, leaves)

    def _leaves(self, item: str | None, targets: list[Any]) -> list[Any]:
        tree = jax.tree.unflatten(self.flat[item][1], targets)
        return jax.tree.leaves(api.read_item(self.path, item, tree))


def _isarray(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "dtype")
