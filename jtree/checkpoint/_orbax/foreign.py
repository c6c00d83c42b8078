"""The arrays of a checkpoint that Orbax wrote alone."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import numpy as np

from ..._errors import CheckpointError
from ..._tree.lazy import Computed, LazyArray, Source
from .._formats.limits import array_nbytes
from .._storage.memory import check_memory
from .._storage.paths import Path
from . import api

logger = logging.getLogger("jtree")


class ForeignArrays(Source):
    """The arrays of a checkpoint that Orbax wrote alone, by (item, index of the leaf)."""

    batch_bytes = 2**25  # Orbax takes long to begin

    def __init__(self, path: Path, items: dict[str | None, Any]) -> None:
        self.path = path
        self.flat = {
            name: jax.tree.flatten(tree, is_leaf=_is_array) for name, tree in items.items()
        }

    def tree(self) -> Any:
        """Return the state, with lazy arrays, and every other leaf as it was saved."""
        trees: dict[str | None, Any] = {}
        for name in self.flat:
            try:
                trees[name] = self._tree(name)
            except CheckpointError as error:
                if len(self.flat) == 1:
                    raise
                logger.warning("%s: left out, since Orbax cannot read it: %s", name, error)
        return next(iter(trees.values())) if len(self.flat) == 1 else trees

    def read(self, shardings: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        """Return arrays by name."""
        arrays: dict[Hashable, Any] = {}
        for item, (leaves, _) in self.flat.items():
            requested = {
                n: shardings[item, n] for n in range(len(leaves)) if (item, n) in shardings
            }
            if requested:
                on_host = [leaves[n] for n, sharding in requested.items() if sharding is None]
                check_memory(sum(array_nbytes(x.shape, x.dtype) for x in on_host), self.path)
                targets = [
                    api.read_target(x.shape, x.dtype, requested[n])
                    if n in requested
                    else api.skip()
                    for n, x in enumerate(leaves)
                ]
                values = self._leaves(item, targets)
                arrays |= {(item, n): values[n] for n in requested}
        return arrays

    def _tree(self, item: str | None) -> Any:
        leaves, treedef = self.flat[item]
        if not any(map(_is_array, leaves)):
            return self._read_tree(item)
        values: list[Any] = leaves
        if not all(map(_is_array, leaves)):
            targets = [api.skip() if _is_array(x) else type(x) for x in leaves]
            values = self._leaves(item, targets)
        lazy = [
            self._lazy((item, n), x) if _is_array(x) else values[n] for n, x in enumerate(leaves)
        ]
        return jax.tree.unflatten(treedef, lazy)

    def _lazy(self, name: Hashable, x: Any) -> LazyArray:
        array_nbytes(x.shape, x.dtype)  # raises where no array can be so
        return LazyArray(self, name, x.shape, np.dtype(x.dtype))

    def _read_tree(self, item: str | None) -> Any:
        """Return a tree whose leaves Orbax does not list, as where there are booleans.

        It is read twice: once for the paths, and again for arrays without loss of precision.
        """
        leaves, treedef = jax.tree.flatten(api.read_item(self.path, item, None))
        if any(map(_is_array, leaves)):
            kinds = [np.ndarray if _is_array(x) else type(x) for x in leaves]
            tree = api.read_item(self.path, item, jax.tree.unflatten(treedef, kinds))
            source = Computed()
            leaves = [
                source.add(x.shape, x.dtype, x.copy) if _is_array(x) else x
                for x in jax.tree.leaves(tree)
            ]
        return jax.tree.unflatten(treedef, leaves)

    def _leaves(self, item: str | None, targets: list[Any]) -> list[Any]:
        tree = jax.tree.unflatten(self.flat[item][1], targets)
        return jax.tree.leaves(api.read_item(self.path, item, tree))


def _is_array(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "dtype")
