"""The checksum of HDF5's metadata: Bob Jenkins's lookup3.

Source: Bob Jenkins, "lookup3.c" (2006), https://burtleburtle.net/bob/c/lookup3.c, which is in the
public domain; HDF5 File Format Specification, version 3.0, "Checksum".
"""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFF
_MIX = ((0, 2, 4), (1, 0, 6), (2, 1, 8), (0, 2, 16), (1, 0, 19), (2, 1, 4))
_FINAL = ((2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24))


def checksum(data: bytes) -> int:
    """Return the checksum of bytes.

    >>> hex(checksum(b"Four score and seven years ago"))
    '0x17770551'
    """
    state = [(0xDEADBEEF + len(data)) & _MASK] * 3
    padded = data + bytes(-len(data) % 12)
    words = list(struct.iter_unpack("<3I", padded))
    for block in words[:-1]:
        _add(state, block)
        _mix(state)
    if words:
        _add(state, words[-1])
        _finish(state)
    return state[2]


def _add(state: list[int], block: tuple[int, ...]) -> None:
    state[:] = [(x + y) & _MASK for x, y in zip(state, block, strict=True)]


def _mix(state: list[int]) -> None:
    for target, other, shift in _MIX:
        x, third = state[other], 3 - target - other
        state[target] = ((state[target] - x) & _MASK) ^ (x << shift & _MASK | x >> (32 - shift))
        state[other] = (x + state[third]) & _MASK


def _finish(state: list[int]) -> None:
    for target, other, shift in _FINAL:
        x = state[other]
        state[target] = ((state[target] ^ x) - (x << shift & _MASK | x >> (32 - shift))) & _MASK
