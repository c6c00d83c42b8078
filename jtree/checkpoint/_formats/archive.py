"""Zip archives, read strictly: whatever two programs could understand differently is refused.

`zipfile` of the standard library writes archives here, but does not read them. It accepts other
bytes before an archive, two entries of one name, names that lead out of the archive, headers that
contradict each other, and many more entries than the archive states.

Source: APPNOTE.TXT of PKWARE, version 6.3.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from .file import CHUNK, DamageError, File, Path
from .limits import Budget, check_growth

STORED, DEFLATED = 0, 8
_ENCRYPTED = 0x2041  # flags
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


class Entry(NamedTuple):
    """A file in an archive, and the offset of its header."""

    name: str
    method: int
    crc32: int
    compressed: int
    size: int
    header: int


class Archive:
    """A zip archive: its entries by name, none of them read."""

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        self.file = File(path)
        self.verify = verify
        self.entries: dict[str, Entry] = {}
        start, count, size = _directory(self.file)
        for entry in _entries(self.file.read(start, size), count):
            if entry.name in self.entries:
                raise ValueError(f"two entries are named {entry.name!r}")
            self.entries[entry.name] = entry
        self._ends = _ends(self.entries, start)
        check_growth(sum(x.size for x in self.entries.values()), self.file.size)

    def start(self, name: str) -> int:
        """Return the offset of the bytes of an entry, whose two headers must agree."""
        entry = self.entries[name]
        header = _LOCAL.unpack(self.file.read(entry.header, _LOCAL.size))
        sizes = zip(header[6:9], (entry.crc32, entry.compressed, entry.size), strict=True)
        if (
            header[0] != b"PK\x03\x04"
            or header[3] != entry.method
            or header[2] & _ENCRYPTED
            or (not header[2] & 8 and any(x not in (y, 0xFFFFFFFF) for x, y in sizes))
        ):
            raise ValueError(f"{name}: its two headers differ")
        local_name = self.file.read(entry.header + _LOCAL.size, header[9])
        if _decode(local_name, header[2]) != name:
            raise ValueError(f"{name}: its own header has another name")
        start: int = entry.header + _LOCAL.size + header[9] + header[10]
        if start + entry.compressed > self._ends[name]:
            raise ValueError(f"{name} overlaps another entry")
        return start

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of an entry that may be as large as a limit."""
        size = self.entries[name].size
        if size > limit:
            raise ValueError(f"{name}: expected at most {limit:,} bytes, found {size:,}")
        return self.array(name).tobytes()

    def array(self, name: str) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """Return the bytes of an entry as an array, compared with their checksum."""
        entry, start = self.entries[name], self.start(name)
        self.file.read(start + entry.compressed, 0)
        if entry.method == STORED:
            data = self.file.array(start, (entry.size,), np.uint8)
        else:
            data = np.empty(entry.size, np.uint8)
            _inflate(self.file.chunks(start, entry.compressed), data.data)
        if self.verify and zlib.crc32(data.data) != entry.crc32:
            raise _damaged(name)
        return data

    def checker(self, name: str) -> Callable[[], None]:
        """Return a function that compares a stored entry with its checksum, the first time."""
        checked = not self.verify

        def check() -> None:
            nonlocal checked
            if not checked:
                crc32 = 0
                for chunk in self.file.chunks(self.start(name), self.entries[name].size):
                    crc32 = zlib.crc32(chunk, crc32)
                if crc32 != self.entries[name].crc32:
                    raise _damaged(name)
                checked = True

        return check


def check_name(name: str) -> None:
    """Refuse the name of an entry that leads out of the archive, or means two things."""
    parts = name.removesuffix("/").split("/")
    if {"", ".", ".."} & set(parts) or set(name) & set("\\\0") or ":" in parts[0]:
        raise ValueError(f"{name!r:.80} may lead out of the archive, so it cannot name an entry")


def _damaged(name: str) -> DamageError:
    return DamageError(f"checksum mismatch in {name}")


_MALFORMED = "the directory of the zip archive is malformed"


def _directory(file: File) -> tuple[int, int, int]:
    """Return the offset of the directory, its number of entries, and its bytes."""
    count = min(file.size, _END.size + 2**16)
    tail = file.read(file.size - count, count)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise ValueError("truncated: the directory of the zip archive is missing")
    _, disk, first, here, count, size, start, comment = _END.unpack_from(tail, at)
    if disk or first or here != count or at + _END.size + comment != len(tail):
        raise ValueError(_MALFORMED)
    end = file.size - len(tail) + at
    if count == 0xFFFF or 0xFFFFFFFF in (size, start):
        end, count, size, start = _directory64(file, end)
    if start + size != end and not _has_end64(file, start + size, end):
        raise ValueError("there are other bytes before or after the directory of the zip archive")
    if count > Budget(file.size).left or count * _CENTRAL.size > size:
        raise ValueError(f"{count:,} entries are too many for a zip archive of this size")
    return start, count, size


def _directory64(file: File, end: int) -> tuple[int, int, int, int]:
    """Return the offset of the directory's end record in 64 bits, and what it says."""
    magic, disk, at, disks = _LOCATOR.unpack(file.read(end - _LOCATOR.size, _LOCATOR.size))
    if magic != b"PK\x06\x07" or disk or disks > 1:
        raise ValueError(_MALFORMED)
    record = _END64.unpack(file.read(at, _END64.size))
    if record[0] != b"PK\x06\x06" or record[6] != record[7]:
        raise ValueError(_MALFORMED)
    return at, record[7], record[8], record[9]


def _has_end64(file: File, start: int, end: int) -> bool:
    """Return whether an end record in 64 bits, and nothing else, is between two offsets."""
    size = _END64.size + _LOCATOR.size
    return end - start == size and file.read(start, 4) == b"PK\x06\x06"


def _entries(directory: bytes, count: int) -> Iterator[Entry]:
    at = 0
    for _ in range(count):
        header = _CENTRAL.unpack_from(directory, at)
        flags, method, crc32 = header[3], header[4], header[7]
        name_size, extra_size, comment_size = header[10:13]
        at += _CENTRAL.size
        name = _decode(directory[at : at + name_size], flags)
        extra = directory[at + name_size : at + name_size + extra_size]
        compressed, size, offset = _sizes64(extra, header[8], header[9], header[16])
        at += name_size + extra_size + comment_size
        if header[0] != b"PK\x01\x02" or at > len(directory) or header[13]:
            raise ValueError(_MALFORMED)
        _check_method(name, flags, method, compressed, size)
        _check_kind(name, size, header[15])
        yield Entry(name, method, crc32, compressed, size, offset)
    if at != len(directory):
        raise ValueError(_MALFORMED)


def _sizes64(extra: bytes, compressed: int, size: int, offset: int) -> tuple[int, int, int]:
    """Return sizes and offset in 64 bits, where those in 32 do not suffice."""
    at, values = 0, [size, compressed, offset]
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        large = [i for i, x in enumerate(values) if x == 0xFFFFFFFF]
        if kind == 1 and large:
            if length < 8 * len(large):
                raise ValueError(_MALFORMED)
            wide = struct.unpack_from(f"<{len(large)}Q", extra, at + 4)
            for i, x in zip(large, wide, strict=True):
                values[i] = x
        at += 4 + length
    return values[1], values[0], values[2]


def _check_method(name: str, flags: int, method: int, compressed: int, size: int) -> None:
    """Refuse names that lead elsewhere, encryption, and other methods of compression."""
    check_name(name)
    if flags & _ENCRYPTED:
        raise ValueError(f"{name} is encrypted; decrypt the archive first")
    if method not in (STORED, DEFLATED) or (method == STORED and compressed != size):
        raise ValueError(
            f"{name}: compression method {method} is not supported; store or deflate it"
        )


def _check_kind(name: str, size: int, attributes: int) -> None:
    """Refuse bytes in a directory or a link: some programs do not read them."""
    mode = attributes >> 16  # as Unix has it; the lowest bits are those of DOS
    if size and (attributes & 0x10 or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        raise ValueError(f"{name} is marked as a directory or a link, and has {size:,} bytes")


def _ends(entries: dict[str, Entry], end: int) -> dict[str, int]:
    """Return the offset at which each entry must have ended, so that no two share bytes."""
    ends: dict[str, int] = {}
    for entry in sorted(entries.values(), key=lambda x: x.header, reverse=True):
        if entry.header + _LOCAL.size + entry.compressed > end:
            raise ValueError(f"{entry.name} overlaps another entry")
        ends[entry.name] = end
        end = entry.header
    return ends


def _decode(name: bytes, flags: int) -> str:
    return name.decode("utf-8" if flags & 0x800 else "cp437")


def _inflate(chunks: Iterable[bytes], out: memoryview) -> None:
    """Decompress into a buffer that must be filled exactly."""
    decompressor, end = zlib.decompressobj(-zlib.MAX_WBITS), 0
    for chunk in chunks:
        while chunk:
            data = decompressor.decompress(chunk, CHUNK)
            if end + len(data) > len(out):
                raise ValueError(f"decompresses to more than the {len(out):,} bytes it declares")
            out[end : end + len(data)] = data
            end += len(data)
            chunk = decompressor.unconsumed_tail
    rest = decompressor.flush()
    if rest or end != len(out) or not decompressor.eof:
        raise ValueError(f"decompresses to {end + len(rest):,} bytes, and declares {len(out):,}")
