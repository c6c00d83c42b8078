"""Read the lazy arrays of a tree, all or some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from .._tree import paths
from .._tree.lazy import LazyArray, read_all
from .._tree.paths import Where
from .._tree.walk import walk


def read_tree(tree: Any, sharding: Callable[[str, LazyArray], Any] | None = None) -> Any:
    """Return a tree with the values of its lazy arrays.

    Args:
      tree: any pytree.
      sharding: a function of the path and the lazy array that returns a sharding, or None for a
        NumPy array. By default all are NumPy arrays.
    """
    walked = walk(tree, ties=())
    lazy = [slot for slot in walked.slots if isinstance(slot.value, LazyArray)]
    shardings = {x.value: sharding(x.path, x.value) if sharding else None for x in lazy}
    arrays = read_all(shardings.items())
    for x, target in shardings.items():
        arrays[x] = arrays[x] if target is None else jax.device_put(arrays[x], target)
    return walked.rebuild([arrays[x] if isinstance(x, LazyArray) else x for x in walked.values])


def select_leaves(tree: Any, where: Where) -> Any:
    """Return a tree of basic containers with the selected leaves only.

    A dict loses the keys that lead to no selected leaf. A sequence keeps its length, with `()` at
    the other indices, so that every path stays the same.
    """
    if where is None:
        return tree
    walked = walk(tree, ties=())
    flags = iter(paths.select(where, [(slot.path, slot.value) for slot in walked.slots]))

    def leaf(x: Any) -> Any:
        return x if next(flags) else _DROPPED

    def node(value: Any, names: list[Any], results: list[Any]) -> Any:
        if all(x is _DROPPED for x in results):
            return _DROPPED
        if isinstance(value, dict):
            return {k: x for k, x in zip(names, results, strict=True) if x is not _DROPPED}
        return type(value)(() if x is _DROPPED else x for x in results)

    return walked.fold(leaf, node)


_DROPPED = object()
