"""What rules are applied to: any tree or mapping of arrays, as lazy arrays by their paths."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ..._errors import ArgumentTypeError, ModelError
from ..._state.sources import opened
from ..._tree import paths
from ..._tree.lazy import LazyArray, Source
from ..._tree.leaves import canonical, check_alive, describe, isabstract, isarray
from ..._tree.walk import walk


class Leaves(NamedTuple):
    """The arrays of a source by their paths, and the leaves that are none."""

    arrays: dict[str, LazyArray]
    other: dict[str, Any]


def leaves(source: Any) -> Leaves:
    """Return what is in a mapping, a model, a state or an opened checkpoint, without reading it."""
    tree = opened(source)
    if isinstance(tree, Mapping) and all(isarray(x) for x in tree.values()):
        places = {str(path): x for path, x in tree.items()}
        if len(places) != len(tree):
            raise ArgumentTypeError("expected a mapping with paths as its keys, found two alike")
    else:
        tree = dict(tree) if isinstance(tree, Mapping) else tree
        places = {slot.path: slot.value for slot in walk(tree, ties=()).slots}
    made: dict[int, LazyArray] = {}
    arrays = {
        path: made.setdefault(id(x), _lazy(path, x)) for path, x in places.items() if isarray(x)
    }
    if not arrays:
        raise ArgumentTypeError(
            "expected arrays to migrate: a mapping from paths to arrays, a model, a state or a "
            f"checkpoint; found none in {describe(source)}"
        )
    return Leaves(arrays, {path: x for path, x in places.items() if not isarray(x)})


class InMemory(Source):
    """The source of an array that is in memory already, or of one that is abstract."""

    def __init__(self, path: str, array: Any) -> None:
        self.path = path
        self.array = array

    def read(self, wanted: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        """Return the array: a view that cannot be written to, or one on devices."""
        check_alive(self.path, self.array)
        if isabstract(self.array):
            raise ModelError(
                f"{paths.show(self.path)}: {describe(self.array)} is abstract: it can be planned "
                "with, and has no numbers to read"
            )
        return {name: self._one(sharding) for name, sharding in wanted.items()}

    def _one(self, sharding: Any) -> Any:
        x = self.array
        if jax.numpy.issubdtype(x.dtype, jax.dtypes.extended):
            return x if sharding is None else jax.device_put(x, sharding)
        if sharding is not None and canonical(x.dtype) == x.dtype:
            return jax.device_put(x, sharding)
        view = np.asarray(x).view()
        view.setflags(write=False)
        return view


def _lazy(path: str, x: Any) -> LazyArray:
    if isinstance(x, LazyArray):
        return x
    check_alive(path, x)
    return LazyArray(InMemory(path, x), path, x.shape, x.dtype)
