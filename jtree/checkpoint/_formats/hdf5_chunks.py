"""Values of HDF5 that are stored in chunks, through filters that compress them.

Source: HDF5 File Format Specification, version 3.0, and "Registered Filter Plugins".
"""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from .hdf5_types import UNDEFINED, unpack

_NAMES = {
    4: "SZIP",
    5: "N-bit",
    6: "scale-offset",
    305: "LZO",
    32000: "LZF",
    32001: "Blosc",
    32004: "LZ4",
    32008: "bitshuffle",
    32013: "ZFP",
    32015: "Zstandard",
    32026: "Blosc2",
}
_DEFLATE, _SHUFFLE, _FLETCHER32, _BZIP2 = 1, 2, 3, 307
_MAX_CHUNKS = 10_000

Pipeline: TypeAlias = Sequence[tuple[int, tuple[int, ...]]]  # filters by number, with parameters


class AddressedBytes(Protocol):
    """A file that is read in parts; the addresses in it count from its base."""

    base: int

    def read(self, start: int, count: int, /) -> bytes:
        """Return exactly `count` bytes."""
        ...


class Chunk(NamedTuple):
    """A chunk: its start in the array, and where its bytes are."""

    offset: tuple[int, ...]
    address: int
    size: int
    mask: int


def read_chunks(
    objects: AddressedBytes,
    stored: Any,
    pipeline: Pipeline,
    shape: tuple[int, ...],
    itemsize: int,
) -> bytes:
    """Return the bytes of all values of an array, row by row.

    Args:
      objects: the file.
      stored: the layout of the array.
      pipeline: the filters that its chunks went through.
      shape: its shape.
      itemsize: the bytes of an element.
    """
    sides = stored.chunk[:-1]
    if len(sides) != len(shape) or 0 in sides:
        raise ValueError(f"chunks of shape {list(sides)} in an array of shape {list(shape)}")
    item = np.dtype((np.void, itemsize))
    array = np.zeros(shape, item)
    nbytes = math.prod(sides) * itemsize
    if nbytes > 2 * array.nbytes + 2**16:
        raise ValueError(f"a chunk of {nbytes:,} bytes in an array of {array.nbytes:,}")
    for chunk in _chunks(objects, stored):
        size = nbytes if chunk.size < 0 else chunk.size
        data = objects.read(objects.base + chunk.address, size)
        data = _decode(data, pipeline, chunk.mask, nbytes)
        block = np.frombuffer(data, item).reshape(sides)
        starts = tuple(slice(a, a + n) for a, n in zip(chunk.offset, sides, strict=True))
        part = array[starts]
        part[...] = block[tuple(slice(n) for n in part.shape)]
    return array.tobytes()


def _chunks(objects: AddressedBytes, stored: Any) -> Iterator[Chunk]:
    rank = len(stored.chunk) - 1
    if stored.start == UNDEFINED:
        return
    if not stored.istree:
        yield Chunk((0,) * rank, stored.start, stored.size, stored.mask)
        return
    nodes, left = [stored.start], _MAX_CHUNKS
    for address in nodes:  # which grows
        head = objects.read(objects.base + address, 24)
        kind, level, count = unpack("<2BH", head, 4)
        left -= 1 + count
        if head[:4] != b"TREE" or kind != 1 or left < 0:
            raise ValueError("damaged: the tree of an array's chunks")
        width = 8 + 8 * (rank + 1)
        data = objects.read(objects.base + address + 24, count * (width + 8))
        for at in range(0, len(data), width + 8):
            size, mask = unpack("<2I", data, at)
            offset = unpack(f"<{rank}Q", data, at + 8)
            (target,) = unpack("<Q", data, at + width)
            if level:
                nodes.append(target)
            else:
                yield Chunk(offset, target, size, mask)


def _decode(data: bytes, pipeline: Pipeline, mask: int, nbytes: int) -> bytes:
    """Undo the filters of a chunk, the last one first."""
    for n, (number, values) in reversed(list(enumerate(pipeline))):
        if mask >> n & 1:
            continue
        if number not in _DECODERS:
            name = f"{_NAMES[number]} (filter {number})" if number in _NAMES else f"filter {number}"
            raise ValueError(
                f"its values are compressed by {name}, which needs a plugin of HDF5 and is not "
                "supported; save it again in Julia without it, by jldsave(path; model_state)"
            )
        data = _DECODERS[number](data, values, nbytes)
    if len(data) != nbytes:
        raise ValueError(f"expected {nbytes:,} bytes in a chunk, found {len(data):,}")
    return data


def _inflate(data: bytes, _: tuple[int, ...], nbytes: int) -> bytes:
    return zlib.decompressobj().decompress(data, nbytes + 4)


def _unshuffle(data: bytes, values: tuple[int, ...], _: int) -> bytes:
    size = values[0] if values else 1
    if not size or len(data) % size:
        return data
    return np.frombuffer(data, np.uint8).reshape(size, -1).T.tobytes()


_DECODERS: dict[int, Callable[[bytes, tuple[int, ...], int], bytes]] = {
    _DEFLATE: _inflate,
    _SHUFFLE: _unshuffle,
    _FLETCHER32: lambda data, _, __: data[:-4],
    _BZIP2: lambda data, _, nbytes: bz2.BZ2Decompressor().decompress(data, nbytes + 4),
}
