"""Zip archives, read strictly: what two programs could understand differently is refused.

Source: APPNOTE.TXT of PKWARE, version 6.3.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from .._storage.atomic import Path
from .file import Budget, DamageError, File, check_growth, inflate

STORED, DEFLATED = 0, 8
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


class Entry(NamedTuple):
    """A file in an archive, and where its bytes are."""

    name: str
    method: int
    crc32: int
    packed: int
    size: int
    header: int


class Archive:
    """A zip archive: its entries by name, none of them unpacked."""

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        self.file = File(path)
        self.verify = verify
        self.entries: dict[str, Entry] = {}
        start, count, size = _directory(self.file)
        for entry in _entries(self.file.read(start, size), count):
            if entry.name in self.entries:
                raise ValueError(f"two of its entries are {entry.name!r}")
            self.entries[entry.name] = entry
        self.ends = _ends(self.entries, start)
        check_growth(sum(x.size for x in self.entries.values()), self.file.size)

    def start(self, name: str) -> int:
        """Return where the bytes of an entry begin; its two headers must agree."""
        entry = self.entries[name]
        head = _LOCAL.unpack(self.file.read(entry.header, _LOCAL.size))
        if head[0] != b"PK\x03\x04" or head[3] != entry.method or head[2] & 0x2041:
            raise ValueError(f"{name}: the two headers of this entry differ")
        pairs = zip(head[6:9], (entry.crc32, entry.packed, entry.size), strict=True)
        if not head[2] & 8 and any(x not in (y, 0xFFFFFFFF) for x, y in pairs):
            raise ValueError(f"{name}: the two headers of this entry differ")
        written = self.file.read(entry.header + _LOCAL.size, head[9])
        if _text(written, head[2]) != name:
            raise ValueError(f"{name}: this entry has another name in its own header")
        start: int = entry.header + _LOCAL.size + head[9] + head[10]
        if start + entry.packed > self.ends[name]:
            raise ValueError(f"{name} overlaps another entry")
        return start

    def read(self, name: str, most: int) -> bytes:
        """Return the bytes of an entry that is not large."""
        if self.entries[name].size > most:
            raise ValueError(f"{name} has {self.entries[name].size:,} bytes, which is too many")
        return self.array(name).tobytes()

    def array(self, name: str) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """Return the bytes of an entry as an array, checked."""
        entry, start = self.entries[name], self.start(name)
        self.file.read(start + entry.packed, 0)
        if entry.method == STORED:
            out = self.file.array(start, (entry.size,), np.uint8)
        else:
            out = np.empty(entry.size, np.uint8)
            inflate(self.file.chunks(start, entry.packed), out.data)
        if self.verify and zlib.crc32(out.data) != entry.crc32:
            raise DamageError(f"{name}: the bytes are not those that were written")
        return out

    def checked(self, name: str) -> Callable[[], None]:
        """Return a function that checks the bytes of a stored entry, once."""
        done = not self.verify

        def check() -> None:
            nonlocal done
            if not done:
                crc = 0
                for chunk in self.file.chunks(self.start(name), self.entries[name].size):
                    crc = zlib.crc32(chunk, crc)
                if crc != self.entries[name].crc32:
                    raise DamageError(f"{name}: the bytes are not those that were written")
                done = True

        return check


def _directory(file: File) -> tuple[int, int, int]:
    """Return where the directory is: start, number of entries, and bytes."""
    tail = min(file.size, _END.size + 2**16)
    text = file.read(file.size - tail, tail)
    at = text.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(text):
        raise ValueError("the directory of the zip archive is missing: it ends too early")
    _, disk, first, here, count, size, start, comment = _END.unpack_from(text, at)
    if disk or first or here != count or at + _END.size + comment != len(text):
        raise ValueError("the directory of the zip archive is malformed")
    end = file.size - tail + at
    if 0xFFFF in (count,) or 0xFFFFFFFF in (size, start):
        end, count, size, start = _directory64(file, end)
    if start + size != end and not _has64(file, end, start + size):
        raise ValueError("there is something before or after the directory of the zip archive")
    if count > Budget(file.size).left or count * _CENTRAL.size > size:
        raise ValueError(f"a directory of {count:,} entries is refused for a file of this size")
    return start, count, size


def _directory64(file: File, end: int) -> tuple[int, int, int, int]:
    """Return what the directory's end in 64 bits says, and where it is."""
    magic, disk, at, disks = _LOCATOR.unpack(file.read(end - _LOCATOR.size, _LOCATOR.size))
    if magic != b"PK\x06\x07" or disk or disks > 1:
        raise ValueError("the end of the zip archive is malformed")
    found = _END64.unpack(file.read(at, _END64.size))
    if found[0] != b"PK\x06\x06" or found[6] != found[7]:
        raise ValueError("the directory of the zip archive is malformed")
    return at, found[7], found[8], found[9]


def _has64(file: File, end: int, at: int) -> bool:
    """Tell whether between the directory and its end is the end in 64 bits, and nothing else."""
    return end - at == _END64.size + _LOCATOR.size and file.read(at, 4) == b"PK\x06\x06"


def _entries(text: bytes, count: int) -> Iterator[Entry]:
    at = 0
    for _ in range(count):
        head = _CENTRAL.unpack_from(text, at)
        flags, method, crc32 = head[3], head[4], head[7]
        names, extras, comments = head[10:13]
        at += _CENTRAL.size
        name = _text(text[at : at + names], flags)
        extra = text[at + names : at + names + extras]
        packed, size, header = _wide(extra, head[8], head[9], head[16])
        at += names + extras + comments
        if head[0] != b"PK\x01\x02" or at > len(text) or head[13]:
            raise ValueError("the directory of the zip archive is malformed")
        _check(name, flags, method, packed, size)
        _check_kind(name, size, head[15])
        yield Entry(name, method, crc32, packed, size, header)
    if at != len(text):
        raise ValueError("the directory of the zip archive is malformed")


def _wide(extra: bytes, packed: int, size: int, header: int) -> tuple[int, int, int]:
    """Return sizes in 64 bits, where those in 32 do not suffice."""
    at, found = 0, [size, packed, header]
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        wanted = [n for n, x in enumerate(found) if x == 0xFFFFFFFF]
        if kind == 1 and wanted:
            if length < 8 * len(wanted):
                raise ValueError("the directory of the zip archive is malformed")
            values = struct.unpack_from(f"<{len(wanted)}Q", extra, at + 4)
            for n, x in zip(wanted, values, strict=True):
                found[n] = x
        at += 4 + length
    return found[1], found[0], found[2]


def _check(name: str, flags: int, method: int, packed: int, size: int) -> None:
    """Refuse names that lead elsewhere, and what is encrypted or packed in other ways."""
    check_name(name)
    if flags & 0x2041:
        raise ValueError(f"{name} is encrypted")
    if method not in (STORED, DEFLATED) or (method == STORED and packed != size):
        raise ValueError(f"{name} is packed in a way that is not read here")


def _check_kind(name: str, size: int, attributes: int) -> None:
    """Refuse bytes of what is said to be a directory or a link: some programs do not read them."""
    mode = attributes >> 16  # as Unix has it; the lowest bits are those of DOS
    if size and (attributes & 0x10 or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        raise ValueError(f"{name} has {size:,} bytes, and is said to be a directory or a link")


def check_name(name: str) -> None:
    """Refuse the name of an entry that leads out of the archive, or means two things."""
    steps = name.removesuffix("/").split("/")
    if {"", ".", ".."} & set(steps) or set(name) & set("\\\0") or ":" in steps[0]:
        raise ValueError(f"{name!r:.80} cannot be the name of an entry: it may lead elsewhere")


def _ends(entries: dict[str, Entry], end: int) -> dict[str, int]:
    """Return where each entry must have ended; those that share bytes, as in a bomb, do not."""
    found: dict[str, int] = {}
    for entry in sorted(entries.values(), key=lambda x: x.header, reverse=True):
        if entry.header + _LOCAL.size + entry.packed > end:
            raise ValueError(f"{entry.name} overlaps another entry")
        found[entry.name] = end
        end = entry.header
    return found


def _text(name: bytes, flags: int) -> str:
    return name.decode("utf-8" if flags & 0x800 else "cp437")
