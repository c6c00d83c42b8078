"""Arrays in files: what they are is known, and their numbers are read when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np


class Source(Protocol):
    """What holds arrays, and reads several of them at once."""

    def read(self, wanted: Mapping[Hashable, Any], /) -> Mapping[Hashable, Any]:
        """Return arrays by name: on the sharding that is given for each, or as NumPy arrays."""


class LazyArray:
    """An array in a file: `shape`, `dtype` and `nbytes` are known, the numbers are not read yet.

    `numpy.asarray(x)` and `x.read()` read them, and keep nothing.
    """

    __slots__ = ("dtype", "name", "shape", "source")

    def __init__(self, source: Source, name: Hashable, shape: Iterable[int], dtype: Any) -> None:
        self.source = source
        self.name = name
        self.shape = tuple(shape)
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes in memory."""
        return self.size * int(self.dtype.itemsize)

    def read(self, sharding: Any = None) -> Any:
        """Return the array: from NumPy, or from JAX where a sharding is given."""
        return self.source.read({self.name: sharding})[self.name]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is False:
            raise ValueError("an array in a file cannot be had without reading it: copy=False")
        return np.asarray(self.read(), dtype)

    def __repr__(self) -> str:
        return f"LazyArray({self.dtype}{list(self.shape)})"


def read_all(wanted: Iterable[tuple[LazyArray, Any]]) -> dict[LazyArray, Any]:
    """Return what lazy arrays stand for, each source asked once; wanted are (array, sharding)."""
    sources: dict[int, Source] = {}
    names: dict[int, dict[Hashable, Any]] = {}
    pairs = dict(reversed(list(wanted)))
    for x, sharding in pairs.items():
        sources[id(x.source)] = x.source
        names.setdefault(id(x.source), {})[x.name] = sharding
    found = {key: source.read(names[key]) for key, source in sources.items()}
    return {x: found[id(x.source)][x.name] for x in pairs}
