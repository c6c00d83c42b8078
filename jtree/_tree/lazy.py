"""Arrays in files: their shapes and dtypes are known, their values are read on demand."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np

BATCH_BYTES = 2**28  # bytes of arrays that are read together where memory is not short


class Source(Protocol):
    """A store of arrays that can read several of them at once.

    Attributes:
      verified: whether each array is compared with a checksum when it is read.
      packed: whether small arrays share one stored array.
      batch_bytes: how many bytes to read at a time where memory is short. It is larger for a
        store that takes long to begin a read.
    """

    verified: bool = False
    packed: bool = False
    batch_bytes: int = 2**24

    def read(self, shardings: Mapping[Hashable, Any], /) -> Mapping[Hashable, Any]:
        """Return the named arrays: on their shardings, or as NumPy arrays where that is None."""
        ...

    def cost(self, array: LazyArray, /) -> int:
        """Return the bytes of memory that reading an array takes in addition to others."""
        return array.nbytes


class LazyArray:
    """An array in a file: `shape`, `dtype` and `nbytes` are known, the values are not read yet.

    `numpy.asarray(x)` and `x.read()` read the values and keep nothing.
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
        """Return the array: NumPy's, or JAX's where a sharding is given."""
        return self.source.read({self.name: sharding})[self.name]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is False:
            raise ValueError("copy=False: an array on disk has no view; use copy=None or .read()")
        return np.asarray(self.read(), dtype)

    def __repr__(self) -> str:
        return f"LazyArray({self.dtype}{list(self.shape)})"


class Computed(Source):
    """A source of arrays that functions return: one function for each array."""

    def __init__(self) -> None:
        self._readers: list[Callable[[], Any]] = []

    def add(self, shape: Iterable[int], dtype: Any, reader: Callable[[], Any]) -> LazyArray:
        """Return a lazy array whose values are what the function returns."""
        self._readers.append(reader)
        return LazyArray(self, len(self._readers) - 1, shape, dtype)

    def read(self, shardings: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        """Return the named arrays, computed one after another."""
        return {name: self._read(name, sharding) for name, sharding in shardings.items()}

    def _read(self, name: Any, sharding: Any) -> Any:
        array = self._readers[name]()
        return array if sharding is None else jax.device_put(array, sharding)


def read_all(pairs: Iterable[tuple[LazyArray, Any]]) -> dict[LazyArray, Any]:
    """Return the values of lazy arrays, with one read per source.

    Args:
      pairs: lazy arrays, each with the sharding to read it onto, or None for NumPy's.
    """
    shardings = dict(reversed(list(pairs)))
    by_source: dict[int, dict[Hashable, Any]] = {}
    for x, sharding in shardings.items():
        by_source.setdefault(id(x.source), {})[x.name] = sharding
    sources = {id(x.source): x.source for x in shardings}
    values = {key: sources[key].read(names) for key, names in by_source.items()}
    return {x: values[id(x.source)][x.name] for x in shardings}


def batches(arrays: Iterable[LazyArray], limit: int = BATCH_BYTES) -> Iterator[list[LazyArray]]:
    """Yield arrays in batches of at most `limit` bytes, or of one array that is larger.

    Arrays that cost nothing to read beside others come first: one read brings them all.
    """
    batch: list[LazyArray] = []
    size = 0
    for x in sorted(arrays, key=lambda x: bool(x.source.cost(x))):
        cost = x.source.cost(x)
        if batch and size + cost > limit:
            yield batch
            batch, size = [], 0
        batch.append(x)
        size += cost
    if batch:
        yield batch


def read_batch_bytes(arrays: Iterable[LazyArray]) -> int:
    """Return how many bytes of these arrays to read at a time where memory is short."""
    return max((x.source.batch_bytes for x in arrays), default=Source.batch_bytes)
