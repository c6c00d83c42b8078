"""The arrays that rules are applied to: those of any tree or mapping, lazy and by path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ..._errors import ArgumentTypeError, ModelError
from ..._tree import paths
from ..._tree.lazy import LazyArray, Source
from ..._tree.leaves import canonical, check_alive, describe, isabstract, isarray
from ..._tree.walk import walk


class SourceLeaves(NamedTuple):
    """The leaves of a source by path: arrays, and others."""

    arrays: dict[str, LazyArray]
    others: dict[str, Any]


def read_leaves(tree: Any) -> SourceLeaves:
    """Return the leaves of a tree, or of a mapping from paths to arrays; no values are read."""
    leaves = _by_path(tree)
    lazy: dict[int, LazyArray] = {}  # an array at several paths stays one array
    arrays = {
        path: lazy.setdefault(id(x), _as_lazy(path, x)) for path, x in leaves.items() if isarray(x)
    }
    if not arrays:
        raise ArgumentTypeError(
            "expected a mapping from paths to arrays, a model, a state or a checkpoint, "
            f"found no arrays in {describe(tree)}"
        )
    return SourceLeaves(arrays, {path: x for path, x in leaves.items() if not isarray(x)})


def _by_path(tree: Any) -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {slot.path: slot.value for slot in walk(tree, ties=()).slots}
    if not all(isarray(x) for x in tree.values()):
        return {slot.path: slot.value for slot in walk(dict(tree), ties=()).slots}
    twice = [path for path, n in Counter(map(str, tree)).items() if n > 1]
    if twice:
        raise ArgumentTypeError(
            f"expected a mapping with distinct paths as keys, found {twice[0]!r} twice"
        )
    return {str(path): x for path, x in tree.items()}


class ArrayInMemory(Source):
    """The source of one array that is in memory, or abstract."""

    def __init__(self, path: str, array: Any) -> None:
        self.path = path
        self.array = array

    def read(self, shardings: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        """Return the array: a read-only view, or on its sharding."""
        check_alive(self.path, self.array)
        if isabstract(self.array):
            raise ModelError(
                f"{paths.show(self.path)}: {describe(self.array)} is abstract and has no values to "
                "read; it can only be planned with, as by jtree.migrate.plan"
            )
        return {name: self._put(sharding) for name, sharding in shardings.items()}

    def _put(self, sharding: Any) -> Any:
        x = self.array
        if jax.numpy.issubdtype(x.dtype, jax.dtypes.extended):
            return x if sharding is None else jax.device_put(x, sharding)
        if sharding is not None and canonical(x.dtype) == x.dtype:
            return jax.device_put(x, sharding)
        view = np.asarray(x).view()
        view.setflags(write=False)
        return view


def _as_lazy(path: str, x: Any) -> LazyArray:
    if isinstance(x, LazyArray):
        return x
    check_alive(path, x)
    return LazyArray(ArrayInMemory(path, x), path, x.shape, x.dtype)
