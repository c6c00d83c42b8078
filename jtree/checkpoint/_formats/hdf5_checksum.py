"""The checksum of HDF5's metadata: Bob Jenkins's lookup3.

Source: Bob Jenkins, "lookup3.c" (2006), https://burtleburtle.net/bob/c/lookup3.c, which is in the
public domain; HDF5 File Format Specification, version 3.0, "Checksum".
"""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFF
_FINAL = ((2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24))


def checksum(data: bytes) -> int:
    """Return the checksum of bytes.

    >>> hex(checksum(b"Four score and seven years ago"))
    '0x17770551'
    """
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    words = list(struct.iter_unpack("<3I", data + bytes(-len(data) % 12)))
    for x, y, z in words[:-1]:
        a, b, c = _mix(a + x & _MASK, b + y & _MASK, c + z & _MASK)
    if words:
        x, y, z = words[-1]
        return _finish([a + x & _MASK, b + y & _MASK, c + z & _MASK])
    return c


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    """Mix the three words, written out, since a file may have thousands of objects."""
    a = (a - c & _MASK) ^ (c << 4 & _MASK | c >> 28)
    c = c + b & _MASK
    b = (b - a & _MASK) ^ (a << 6 & _MASK | a >> 26)
    a = a + c & _MASK
    c = (c - b & _MASK) ^ (b << 8 & _MASK | b >> 24)
    b = b + a & _MASK
    a = (a - c & _MASK) ^ (c << 16 & _MASK | c >> 16)
    c = c + b & _MASK
    b = (b - a & _MASK) ^ (a << 19 & _MASK | a >> 13)
    a = a + c & _MASK
    c = (c - b & _MASK) ^ (b << 4 & _MASK | b >> 28)
    b = b + a & _MASK
    return a, b, c


def _finish(state: list[int]) -> int:
    for target, other, shift in _FINAL:
        x = state[other]
        state[target] = ((state[target] ^ x) - (x << shift & _MASK | x >> (32 - shift))) & _MASK
    return state[2]
