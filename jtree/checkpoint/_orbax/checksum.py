"""A checksum for every array: CRC-32 of its bytes, of each part where it is on several devices."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import jax
import numpy as np

# Of a whole array a number; of one on several devices [starts, stops, number] for each part.
Checksum: TypeAlias = int | list[list[Any]]
Index: TypeAlias = tuple[slice, ...]
T = TypeVar("T")


def checksum(x: Any) -> Checksum:
    """Return the checksum of an array's numbers, in C order, each part read where it lies."""
    parts = list(_parts(x))
    if len(parts) == 1:
        return _crc32(parts[0][1])
    return [
        [[s.start for s in index], [s.stop for s in index], _crc32(part)] for index, part in parts
    ]


def is_damaged(x: Any, expected: Checksum) -> bool:
    """Tell whether an array, on whatever devices, has other numbers than those expected."""
    if isinstance(expected, int):
        expected = [[[0] * x.ndim, list(x.shape), expected]]
    held = list(_parts(x))
    for starts, stops, crc in expected:
        index = tuple(map(slice, starts, stops))
        if _crc32(_assemble(held, index, x.dtype)) != crc:
            return True
    return False


def in_threads(function: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
    """Return what a function gives for each item; checksums are computed outside of the lock."""
    given = list(items)
    number = min(8, os.cpu_count() or 1)
    found: list[T] = [None] * len(given)  # type: ignore[list-item]

    def work(start: int) -> None:
        found[start::number] = map(function, given[start::number])

    with ThreadPoolExecutor(number) as pool:
        list(pool.map(work, range(number)))
    return found


def _parts(x: Any) -> Iterator[tuple[Index, np.ndarray[Any, Any]]]:
    """Yield the parts of an array with where they are in it, each once."""
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
    parts: Sequence[tuple[Index, np.ndarray[Any, Any]]], index: Index, dtype: Any
) -> np.ndarray[Any, Any]:
    """Return what is at an index of an array that is held in parts."""
    if len(parts) == 1:
        return parts[0][1][index]
    out = np.zeros([s.stop - s.start for s in index], dtype)
    for place, part in parts:
        both = [
            (max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(place, index, strict=True)
        ]
        if all(low < high for low, high in both):
            out[_from(index, both)] = part[_from(place, both)]
    return out


def _from(origin: Index, bounds: Sequence[tuple[int, int]]) -> Index:
    """Return bounds as an index that counts from where another index starts."""
    pairs = zip(origin, bounds, strict=True)
    return tuple(slice(low - s.start, high - s.start) for s, (low, high) in pairs)


def _crc32(x: np.ndarray[Any, Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data) if x.size else 0
