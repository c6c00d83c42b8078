"""Objects of HDF5 as bytes, laid out as JLD2.jl 0.4 lays them out.

Source: HDF5 File Format Specification, version 3.0, and files that JLD2.jl wrote.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from ..._errors import ModelError
from .hdf5_checksum import checksum
from .hdf5_types import ATTRIBUTE, DATASPACE, DATATYPE, LAYOUT, LINK, LINKS, UNDEFINED

BASE = 512  # bytes before the superblock
SUPERBLOCK = 48
TEXT = bytes.fromhex("39110100 10000000 30000000 01000000 00000800")
REFERENCE = bytes.fromhex("37000000 08000000")
REFERENCES = bytes.fromhex("39000000 10000000") + REFERENCE
SCALAR = bytes.fromhex("02000000")
NOTHING = bytes.fromhex("02000002")
COMPACT = 8192  # bytes of values that no longer are in a header
_HEAP = 4096  # bytes of a heap, unless it grows
SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEADER = b"HDF5-based Julia Data Format, version 0.1.1\0 (jtree 64-bit LE)\0"
_FILL, _GROUP = 0x5, 0xA
_FLOATS = {2: (10, 5, 10, 15), 4: (23, 8, 23, 127), 8: (52, 11, 52, 1023)}
_ROOM = 4  # links of a group for which there is room


def integer_type(size: int, *, signed: bool) -> bytes:
    """Return the datatype of an integer."""
    return struct.pack("<4BI2H", 0x30, 8 if signed else 0, 0, 0, size, 0, 8 * size)


def float_type(size: int) -> bytes:
    """Return the datatype of a floating-point number."""
    exponent_at, exponent, mantissa, bias = _FLOATS[size]
    head = struct.pack("<4BI2H", 0x31, 0x20, 8 * size - 1, 0, size, 0, 8 * size)
    return head + struct.pack("<4BI", exponent_at, exponent, 0, mantissa, bias)


def bool_type() -> bytes:
    """Return the datatype of a Boolean."""
    return struct.pack("<4BI2H", 0x34, 0, 0, 0, 1, 0, 8)


def opaque_type(size: int) -> bytes:
    """Return the datatype of bytes that only Julia understands."""
    return struct.pack("<4BI", 0x35, 0, 0, 0, size)


def text_type(size: int) -> bytes:
    """Return the datatype of text of some bytes."""
    return struct.pack("<4BI", 0x33, 0x11, 0, 0, size)


def type_size(type: bytes) -> int:
    """Return the bytes of a value of a datatype."""
    return int.from_bytes(type[4:8], "little")


def compound_type(fields: Sequence[tuple[str, bytes]]) -> bytes:
    """Return the datatype of named fields, one after another."""
    size = sum(type_size(stored) for _, stored in fields)
    width = 1 if size < 2**8 else 2 if size < 2**16 else 4
    parts = [struct.pack("<B3sI", 0x36, len(fields).to_bytes(3, "little"), size)]
    at = 0
    for name, stored in fields:
        parts += [name.encode() + b"\0", at.to_bytes(width, "little"), stored]
        at += type_size(stored)
    return b"".join(parts)


def simple(shape: Sequence[int]) -> bytes:
    """Return the dataspace of an array; its axes are those of Julia's array reversed."""
    return struct.pack(f"<4B{len(shape)}Q", 2, len(shape), 0, 1, *shape)


def attribute(name: str, type: bytes | int, space: bytes, data: bytes) -> bytes:
    """Return an attribute, whose type may be the address of a committed one."""
    shared = isinstance(type, int)
    stored = struct.pack("<2BQ", 3, 2, type) if isinstance(type, int) else type
    head = struct.pack("<2B3H", 2, shared, len(name) + 1, len(stored), len(space))
    return message(ATTRIBUTE, head + name.encode() + b"\0" + stored + space + data)


def message(kind: int, data: bytes, flags: int = 0) -> bytes:
    """Return a message of a header."""
    if len(data) >= 2**16:
        raise ModelError(
            f"JLD2 holds at most 64 KiB of names and types of one value, and one takes "
            f"{len(data):,} bytes; split it, or use format='orbax'"
        )
    return struct.pack("<BHB", kind, len(data), flags) + data


def type_message(type: bytes | int) -> bytes:
    """Return the type of a dataset: a datatype, or the address of a committed one."""
    if isinstance(type, int):
        return message(DATATYPE, struct.pack("<2BQ", 3, 2, type), 3)
    return message(DATATYPE, type, 1)


def dataset_head(space: bytes, type: bytes | int, attributes: bytes = b"") -> bytes:
    """Return the messages of a dataset before its layout."""
    fill = message(_FILL, b"\3\x09")
    return fill + message(DATASPACE, space) + attributes + type_message(type)


def compact(data: bytes) -> bytes:
    """Return the layout of values in the header."""
    return message(LAYOUT, struct.pack("<2BH", 4, 0, len(data)) + data)


def contiguous(address: int, size: int) -> bytes:
    """Return the layout of values elsewhere in the file."""
    return message(LAYOUT, struct.pack("<2B2Q", 4, 1, address, size))


def group(links: Sequence[tuple[str, int]]) -> bytes:
    """Return the messages of a group of named addresses, with room for a few more."""
    info = struct.pack("<2B2Q", 0, 0, UNDEFINED, UNDEFINED)
    parts = [message(LINKS, info), message(_GROUP, b"\0\0")]
    parts += [message(LINK, _link(name, address)) for name, address in links]
    room = 24 * (_ROOM - len(links)) - 4
    parts += [message(0, bytes(room))] if room > 0 else []
    return b"".join([*parts, message(0, bytes(16))])


def _link(name: str, address: int) -> bytes:
    encoded = name.encode()
    flag, width = (0, 1) if len(encoded) < 2**8 else (1, 2)
    size = len(encoded).to_bytes(width, "little")
    return bytes([1, 0x10 | flag, 1]) + size + encoded + struct.pack("<Q", address)


def object_size(size: int) -> int:
    """Return the bytes of an object whose messages take some bytes."""
    return 6 + _width(size) + size + 4


def object_bytes(messages: bytes) -> bytes:
    """Return an object: its header, with its checksum."""
    width = _width(len(messages))
    flags = (1, 2, 4, 8).index(width)
    head = b"OHDR\2" + bytes([flags]) + len(messages).to_bytes(width, "little")
    return head + messages + checksum(head + messages).to_bytes(4, "little")


def _width(size: int) -> int:
    return 1 if size < 2**8 else 2 if size < 2**16 else 4 if size < 2**32 else 8


def file_head(end: int, root: int) -> bytes:
    """Return what a file begins with: the words of JLD2, and the superblock."""
    block = SIGNATURE + bytes([2, 8, 8, 0])
    block += struct.pack("<4Q", BASE, UNDEFINED, BASE + end, root)
    return _HEADER.ljust(BASE, b"\0") + block + checksum(block).to_bytes(4, "little")


def vlen(count: int, heap: int, index: int) -> bytes:
    """Return what refers to an object in a heap."""
    return struct.pack("<IQI", count, heap, index)


NULL_VLEN = bytes(16)  # of a value that is undefined


def plain_type(name: str) -> bytes | None:
    """Return the datatype of numbers, which are not committed."""
    name = name.removeprefix("Core.")
    if name == "Bool":
        return bool_type()
    kind = name.rstrip("0123456789")
    size = int(name.removeprefix(kind) or 0) // 8
    if kind == "Float":
        return float_type(size)
    return integer_type(size, signed=kind == "Int") if kind in ("Int", "UInt") else None


class Heap:
    """A global heap of values of variable length."""

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.size = self.free = size
        self.count = 0
        self.data = bytearray(b"GCOL\1\0\0\0" + struct.pack("<Q", size) + bytes(size))

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.address + 16 + self.size

    def extend(self, count: int) -> None:
        """Make room for more bytes."""
        self.size += count
        self.free += count
        self.data += bytes(count)
        self.data[8:16] = struct.pack("<Q", self.size)

    def add(self, data: bytes) -> int:
        """Add an object, for which there is room, and return its index."""
        self.count += 1
        at = 16 + self.size - self.free
        taken = heap_size(len(data))
        self.data[at : at + 16] = struct.pack("<2HIQ", self.count, 1, 0, len(data))
        self.data[at + 16 : at + 16 + len(data)] = data
        self.free -= taken
        if self.free >= 16:
            self.data[at + taken : at + taken + 16] = struct.pack("<2Q", 0, self.free - 16)
        return self.count


def heap_size(size: int) -> int:
    """Return the bytes that an object of a heap takes."""
    return 16 + size + -size % 8


class Space:
    """The addresses of a file: what is reserved, and what is written there."""

    def __init__(self) -> None:
        self.end = SUPERBLOCK
        self.parts: dict[int, Callable[[], Any]] = {}  # what is written at which address
        self.heap: Heap | None = None

    def place(self, head: bytes, size: int, encode: Callable[[], bytes]) -> int:
        """Reserve an object and its values before what these refer to is placed."""
        if size < COMPACT:
            address = self.reserve(object_size(len(head) + len(compact(bytes(size)))))
            layout, data = compact(encode()), b""
        else:
            address = self.reserve(object_size(len(head) + len(contiguous(0, 0))))
            start = self.reserve(size, aligned=True)
            layout, data = contiguous(start, size), encode()
            self.parts[start] = lambda: data
        header = object_bytes(head + layout)
        self.parts[address] = lambda: header
        return address

    def place_object(self, messages: bytes) -> int:
        """Place an object without values elsewhere, and return its address."""
        address = self.reserve(object_size(len(messages)))
        header = object_bytes(messages)
        self.parts[address] = lambda: header
        return address

    def reserve(self, size: int, *, aligned: bool = False) -> int:
        """Return the address of this many bytes."""
        address = self.end + (-self.end % 8 if aligned else 0)
        self.end = address + size
        return address

    def encode_text(self, x: str) -> bytes:
        """Put text into a heap, and return what refers to it."""
        encoded = x.encode()
        return vlen(len(encoded), *self.add_to_heap(encoded))

    def add_to_heap(self, data: bytes) -> tuple[int, int]:
        """Put bytes into a heap: the last one, extended where it is at the end, or a new one."""
        taken, heap = heap_size(len(data)), self.heap
        full = heap is None or heap.count >= 2**16 - 1
        if heap is None or full or taken + 16 >= heap.free:
            if heap is not None and not full and heap.end == self.end:
                heap.extend(taken - heap.free + 16)
                self.end = heap.end
            else:
                heap = self._new_heap(max(taken, _HEAP))
        return heap.address, heap.add(data)

    def _new_heap(self, size: int) -> Heap:
        heap = self.heap = Heap(self.reserve(16 + size, aligned=True), size)
        self.parts[heap.address] = lambda: heap.data
        return heap
