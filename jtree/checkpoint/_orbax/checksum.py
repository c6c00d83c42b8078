"""Checksums of arrays: CRC-32 of the bytes, of each shard where an array is on several devices.

What a checkpoint holds is the CRC-32 of the bytes with the shape and dtype after them, so that
another shape does not pass for the one that was saved.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import jax
import numpy as np

# An int for a whole array; [starts, stops, int] for each shard of one on several devices.
Checksum: TypeAlias = int | list[list[Any]]
Index: TypeAlias = tuple[slice, ...]
T = TypeVar("T")


def checksum(x: Any) -> Checksum:
    """Return the checksum of an array's values in C order, each shard read where it is."""
    shards = list(_shards(x))
    if len(shards) == 1:
        return _crc32(shards[0][1])
    return [
        [[s.start for s in index], [s.stop for s in index], _crc32(shard)]
        for index, shard in shards
    ]


def bind(checksum: Checksum, description: str) -> Checksum:
    """Return a checksum of values together with a description of their shape and dtype."""
    text = description.encode()
    if isinstance(checksum, int):
        return zlib.crc32(text, checksum)
    return [[starts, stops, zlib.crc32(text, crc32)] for starts, stops, crc32 in checksum]


def is_damaged(x: Any, expected: Checksum, description: str) -> bool:
    """Return whether an array, on whatever devices, has other values than those expected."""
    if isinstance(expected, int):
        expected = [[[0] * x.ndim, list(x.shape), expected]]
    shards = list(_shards(x))
    for starts, stops, crc32 in expected:
        index = tuple(map(slice, starts, stops))
        if bind(_crc32(_assemble(shards, index, x.dtype)), description) != crc32:
            return True
    return False


def map_in_threads(function: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
    """Return the results of a function; checksums are computed outside of Python's lock."""
    inputs = list(items)
    count = min(8, os.cpu_count() or 1)
    results: list[T] = [None] * len(inputs)  # type: ignore[list-item]

    def work(start: int) -> None:
        results[start::count] = map(function, inputs[start::count])

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))
    return results


def _shards(x: Any) -> Iterator[tuple[Index, np.ndarray[Any, Any]]]:
    """Yield the shards of an array with their indices, each once."""
    if not isinstance(x, jax.Array):
        yield tuple(slice(0, n) for n in x.shape), np.asarray(x)
        return
    seen = set()
    for shard in x.addressable_shards:
        bounds = [s.indices(n)[:2] for s, n in zip(shard.index, x.shape, strict=True)]
        if tuple(bounds) not in seen:
            seen.add(tuple(bounds))
            yield tuple(slice(*b) for b in bounds), np.asarray(shard.data)


def _assemble(
    shards: Sequence[tuple[Index, np.ndarray[Any, Any]]], index: Index, dtype: Any
) -> np.ndarray[Any, Any]:
    """Return the part of a sharded array that an index selects."""
    if len(shards) == 1:
        return shards[0][1][index]
    part = np.zeros([s.stop - s.start for s in index], dtype)
    for origin, shard in shards:
        bounds = [
            (max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(origin, index, strict=True)
        ]
        if all(low < high for low, high in bounds):
            part[_relative(index, bounds)] = shard[_relative(origin, bounds)]
    return part


def _relative(origin: Index, bounds: Sequence[tuple[int, int]]) -> Index:
    """Return bounds as an index that counts from the start of another."""
    pairs = zip(origin, bounds, strict=True)
    return tuple(slice(low - s.start, high - s.start) for s, (low, high) in pairs)


def _crc32(x: np.ndarray[Any, Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data) if x.size else 0
