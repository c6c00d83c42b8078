"""Objects of HDF5 as JLD2.jl writes them: headers, links, attributes and heaps, bounds-checked.

The HDF5 library can crash on a damaged file and on types of Julia, so it never sees one.
Source: HDF5 File Format Specification, version 3.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, Protocol

from .hdf5_checksum import checksum
from .hdf5_types import (
    CONTINUATION,
    LINK,
    LINKS,
    TABLE,
    UNDEFINED,
    Message,
    unpack,
)
from .limits import DamageError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
BASES = (512, 0, 1024, 2048, 4096)  # where a superblock may be
_PAGE, _PAGES = 2**14, 64
_MAX_MESSAGES = 2**16  # of an object
_CHECKED = 2**11  # bytes of a header whose checksum is compared before its values are read
_SOFT = 1


class FileBytes(Protocol):
    """A file that is read in parts."""

    size: int

    def read(self, start: int, count: int) -> bytes:
        """Return exactly `count` bytes."""
        ...


class Link(NamedTuple):
    """A name in a group: the address of an object, or another path in the file."""

    name: str
    address: int
    path: str | None = None


class Hdf5Objects:
    """The objects of a file, by their addresses."""

    def __init__(self, file: FileBytes, *, verify: bool) -> None:
        self.file = file
        self.verify = verify
        self._page = lru_cache(_PAGES)(self._read_page)
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        self._texts: dict[tuple[int, int], str] = {}
        self.base = next((x for x in BASES if self.read(x, 8, short=True) == SIGNATURE), -1)
        if self.base < 0:
            raise ValueError("the superblock of HDF5 is missing")
        self.root = self._superblock()

    def read(self, start: int, count: int, *, short: bool = False) -> bytes:
        """Return bytes of the file; `short` allows fewer at its end."""
        if short:
            count = max(0, min(count, self.file.size - start))
        if not count:
            return b""
        first, last = start // _PAGE, (start + count - 1) // _PAGE
        if start < 0 or start + count > self.file.size or last - first > 1:
            return self.file.read(start, count)
        pages = b"".join(self._page(n) for n in range(first, last + 1))
        return pages[start - first * _PAGE :][:count]

    def _read_page(self, n: int) -> bytes:
        return self.file.read(n * _PAGE, min(_PAGE, self.file.size - n * _PAGE))

    def _superblock(self) -> int:
        """Return the address of the root group."""
        block = self.read(self.base, 48)
        version, offsets, lengths = block[8:11]
        if version not in (2, 3) or (offsets, lengths) != (8, 8):
            raise ValueError(
                f"its superblock has version {version}, which JLD.jl and the HDF5 library write "
                "and JLD2.jl does not; load it in Julia, and save it by JLD2.jldsave"
            )
        base, _, end, root = struct.unpack("<4Q", block[12:44])
        self._check(block[:44], block[44:], "the superblock")
        if base != self.base or end > self.file.size:
            raise ValueError(f"truncated: expected {end:,} bytes, found {self.file.size:,}")
        return int(root)

    def messages(self, address: int) -> list[Message]:
        """Return the messages in the header of an object."""
        start = self.base + address
        head = self.read(start, 6)
        if head[:5] != b"OHDR\2":
            raise ValueError(f"expected an object at byte {start:,}")
        flags = head[5]
        width = 1 << (flags & 3)
        skipped = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        size = int.from_bytes(self.read(start + skipped, width), "little")
        chunks = [(start, skipped + width, size)]
        messages: list[Message] = []
        for first, begin, count in chunks:  # which grows
            for x in self._chunk(first, begin, count, flags):
                messages.append(x)
                if len(messages) > _MAX_MESSAGES:
                    raise ValueError(f"more than {_MAX_MESSAGES:,} messages at byte {start:,}")
                if x.kind == CONTINUATION:
                    target, length = unpack("<2Q", x.data)
                    chunks.append(self._continuation(target, length))
        return messages

    def _continuation(self, address: int, length: int) -> tuple[int, int, int]:
        start = self.base + address
        if length < 8 or self.read(start, 4) != b"OCHK":
            raise ValueError(f"expected more of an object at byte {start:,}")
        return start, 4, length - 8

    def _chunk(self, start: int, begin: int, count: int, flags: int) -> Iterator[Message]:
        block = self.read(start, begin + count + 4)
        data, stored = block[:-4], block[-4:]
        if len(data) <= _CHECKED:
            self._check(data, stored, f"the object at byte {start:,}")
        at, head = begin, 6 if flags & 4 else 4
        while at + head <= len(data):
            kind, size, bits = struct.unpack_from("<BHB", data, at)
            at += head
            if at + size > len(data):
                raise ValueError(f"truncated: a message at byte {start + at:,}")
            if kind:
                yield Message(kind, bool(bits & 2), data[at : at + size], start + at)
            at += size

    def check_large(self, address: int) -> None:
        """Compare the checksum of an object whose header holds an array."""
        start = self.base + address
        width = 1 << (self.read(start, 6)[5] & 3)
        size = 6 + width + int.from_bytes(self.read(start + 6, width), "little")
        if size > _CHECKED:
            block = self.read(start, size + 4)
            self._check(block[:-4], block[-4:], f"the object at byte {start:,}")

    def _check(self, data: bytes, stored: bytes, name: str) -> None:
        if self.verify and checksum(data) != int.from_bytes(stored, "little"):
            raise DamageError(f"{name} differs from its checksum")

    def heap(self, address: int, index: int) -> tuple[int, int]:
        """Return the start and the size of an object in a global heap."""
        if address not in self._heaps:
            self._heaps[address] = dict(self._heap(self.base + address))
        if index not in self._heaps[address]:
            raise ValueError(f"no object {index:,} in the heap at byte {self.base + address:,}")
        return self._heaps[address][index]

    def _heap(self, start: int) -> Iterator[tuple[int, tuple[int, int]]]:
        head = self.read(start, 16)
        if head[:5] != b"GCOL\1":
            raise ValueError(f"expected a heap at byte {start:,}")
        end = min(start + 16 + int.from_bytes(head[8:], "little"), self.file.size)
        at, last = start + 16, 0
        while at + 16 <= end:
            index, _, _, size = struct.unpack("<HHIQ", self.read(at, 16))
            if index <= last:  # free space, at the end
                return
            if at + 16 + size > self.file.size:
                raise ValueError(f"truncated: an object of a heap at byte {at:,}")
            yield index, (at + 16, size)
            last, at = index, at + 16 + size + -size % 8

    def text(self, address: int, index: int, count: int) -> str:
        """Return text in a global heap, one object for each."""
        key = address, index
        if key not in self._texts:
            start, size = self.heap(address, index)
            self._texts[key] = self.read(start, min(size, count)).decode(errors="replace")
        return self._texts[key]


def links(messages: list[Message]) -> Iterator[Link]:
    """Yield the names in a group; refuse those of other files."""
    for x in messages:
        if x.kind == LINK:
            yield _link(x)
        elif x.kind == TABLE or (x.kind == LINKS and not x.data[2:].startswith(_NOWHERE, _at(x))):
            raise ValueError(
                f"a group at byte {x.start:,} that the HDF5 library wrote; save it again by JLD2.jl"
            )


_NOWHERE = UNDEFINED.to_bytes(8, "little")


def _at(x: Message) -> int:
    """Return where in the information on links, after its flags, the address of their heap is."""
    return 8 if x.data[1] & 1 else 0


def _link(x: Message) -> Link:
    flags = x.data[1]
    at = 2
    kind = x.data[at] if flags & 8 else 0
    at += bool(flags & 8) + (8 if flags & 4 else 0) + bool(flags & 16)
    width = 1 << (flags & 3)
    size = int.from_bytes(x.data[at : at + width], "little")
    at += width
    name = x.data[at : at + size].decode()
    rest = x.data[at + size :]
    if kind == 0:
        return Link(name, unpack("<Q", rest)[0])
    if kind != _SOFT:
        raise ValueError(f"{name:.80} is a link to another file; such links are not followed")
    return Link(name, UNDEFINED, rest[2:].decode())
