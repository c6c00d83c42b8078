"""Datatypes, dataspaces and layouts of HDF5: what the bytes of a dataset are.

Source: HDF5 File Format Specification, version 3.0, "IV.A. Object Header Messages".
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

DATASPACE, LINKS, DATATYPE, EXTERNAL, LINK, LAYOUT = 0x1, 0x2, 0x3, 0x7, 0x6, 0x8
FILTERS, ATTRIBUTE, CONTINUATION, TABLE = 0xB, 0xC, 0x10, 0x11
UNDEFINED = 2**64 - 1  # an address of nothing
_DEPTH, _MAX_RANK = 100, 32  # as in `limits`
_KINDS = (
    *("int", "float", "time", "text", "bits", "opaque", "compound", "reference"),
    *("enum", "vlen", "array"),
)
_FLOATS: dict[tuple[int, ...], Any] = {  # size, position and size of the exponent and the mantissa
    (2, 10, 5, 0, 10): np.dtype("<f2"),
    (2, 7, 8, 0, 7): np.dtype(ml_dtypes.bfloat16),
    (4, 23, 8, 0, 23): np.dtype("<f4"),
    (8, 52, 11, 0, 52): np.dtype("<f8"),
}


class Message(NamedTuple):
    """A part of an object's header: what it is, whether it is shared, its bytes and their start."""

    kind: int
    shared: bool
    data: bytes
    start: int


class Member(NamedTuple):
    """A field of a compound."""

    name: str
    offset: int
    type: Datatype


class Datatype(NamedTuple):
    """The type of one element of a dataset.

    Attributes:
      kind: its class, such as `"compound"`.
      size: its bytes.
      dtype: NumPy's dtype, where NumPy has one.
      members: the fields of a compound.
      base: what a sequence of variable length holds.
      istext: whether such a sequence is text.
      address: of the committed datatype that says what Julia's type is; 0 for none.
    """

    kind: str
    size: int
    dtype: Any = None
    members: tuple[Member, ...] = ()
    base: Datatype | None = None
    istext: bool = False
    address: int = 0


def datatype(data: bytes, at: int = 0, depth: int = 0) -> tuple[Datatype, int]:
    """Return the datatype at an offset, and where it ends."""
    if depth > _DEPTH:
        raise ValueError(f"a datatype nested more than {_DEPTH} levels deep")
    first, bits, _, _, size = unpack("<4BI", data, at)
    version, number = first >> 4, first & 15
    kind = _KINDS[number] if number < len(_KINDS) else ""
    at += 8
    if kind == "int":
        return Datatype("int", size, _integer(size, bits)), at + 4
    if kind == "bits":
        return Datatype("bits", size, np.dtype(bool) if size == 1 else None), at + 4
    if kind == "float":
        offset, precision, *layout, _ = unpack("<HH4BI", data, at)
        dtype = _FLOATS.get((size, *layout)) if offset == 0 and precision == 8 * size else None
        return Datatype("float", size, _ordered(dtype, bits)), at + 12
    if kind in ("text", "opaque", "reference"):
        return Datatype(kind, size), at + (-(-bits // 8) * 8 if kind == "opaque" else 0)
    if kind == "compound":
        return _compound(data, at, size, version, depth)
    if kind == "vlen" and size == 16:
        return _sequence(data, at, bits, depth)
    raise ValueError(f"a datatype that JLD2.jl never writes: class {number}")


def _sequence(data: bytes, at: int, bits: int, depth: int) -> tuple[Datatype, int]:
    base, at = datatype(data, at, depth + 1)
    return Datatype("vlen", 16, base=base, istext=bits & 15 == 1), at


def _integer(size: int, bits: int) -> Any:
    if size not in (1, 2, 4, 8):
        return None
    return _ordered(np.dtype(f"<{'i' if bits & 8 else 'u'}{size}"), bits)


def _ordered(dtype: Any, bits: int) -> Any:
    return dtype.newbyteorder(">") if dtype is not None and bits & 1 else dtype


def _compound(data: bytes, at: int, size: int, version: int, depth: int) -> tuple[Datatype, int]:
    (count,) = unpack("<H", data, at - 7)
    width = 1 if size < 2**8 else 2 if size < 2**16 else 4
    members: list[Member] = []
    for _ in range(count):
        end = data.find(b"\0", at)
        if end < 0:
            raise ValueError("truncated: the names of a compound's fields")
        name = data[at:end].decode()
        if version >= 3:
            offset = int.from_bytes(data[end + 1 : end + 1 + width], "little")
            at = end + 1 + width
        else:
            at += -(-(end + 1 - at) // 8) * 8
            (offset,) = unpack("<I", data, at)
            at += 4 + (28 if version == 1 else 0)
        member, at = datatype(data, at, depth + 1)
        if offset + member.size > size:
            raise ValueError(f"the field {name:.80} leaves its compound of {size:,} bytes")
        members.append(Member(name, offset, member))
    return Datatype("compound", size, members=tuple(members)), at


def dimensions(data: bytes) -> tuple[int, ...] | None:
    """Return the shape of a dataspace, with the axes of Julia's array reversed; None for nothing.

    A dataspace without axes is one value: `()`.
    """
    version, rank, _, kind = unpack("<4B", data)
    if rank > _MAX_RANK:
        raise ValueError(f"an array with {rank} axes")
    if version == 2 and kind == 2:
        return None
    return unpack(f"<{rank}Q", data, 4 if version == 2 else 8)


def unpack(format: str, data: bytes, at: int = 0) -> tuple[int, ...]:
    """Return the numbers at an offset; refuse too few bytes."""
    if at < 0 or at + struct.calcsize(format) > len(data):
        raise ValueError(f"truncated: expected {struct.calcsize(format)} bytes in a message")
    return struct.unpack_from(format, data, at)
