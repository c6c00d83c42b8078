"""Documents of BSON: elements of a file by their offsets, read when they are asked for.

Source: https://bsonspec.org/spec.html, of which BSON.jl writes nine kinds of elements.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np

DOUBLE, STRING, DOCUMENT, ARRAY, BINARY, BOOLEAN, NULL, INT32, INT64 = 1, 2, 3, 4, 5, 8, 10, 16, 18
_SIZES = {DOUBLE: 8, BOOLEAN: 1, NULL: 0, INT32: 4, INT64: 8}
_LENGTHS = {STRING: (4, 1), DOCUMENT: (0, 5), ARRAY: (0, 5), BINARY: (5, 0)}  # added, at least
KINDS = {*_SIZES, *_LENGTHS}
_OTHERS = {  # of MongoDB
    6: "undefined",
    7: "ObjectId",
    9: "date",
    11: "regular expression",
    12: "pointer",
    13: "JavaScript",
    14: "symbol",
    15: "JavaScript",
    17: "timestamp",
    19: "decimal",
    127: "MaxKey",
    255: "MinKey",
}
_DATATYPE = re.compile(rb"tag[\0\t ]*datatype")  # what a file of Julia has nearly at once
_PAGE = 2**16
_PAGES = 128  # that are kept
_ELEMENTS = 1_000_000  # that are looked at
_MAX_KEY = 4096
_MAX_TEXT = 2**24


class ReadableFile(Protocol):
    """A file that is read in parts."""

    size: int

    def read(self, start: int, count: int) -> bytes:
        """Return exactly `count` bytes."""
        ...

    def array(self, start: int, shape: Iterable[int], dtype: Any) -> np.ndarray[Any, Any]:
        """Return an array whose values are stored one after another."""
        ...


class Element(NamedTuple):
    """A value in a document: its kind, and where its bytes begin and end."""

    kind: int
    start: int
    end: int


class Document:
    """A BSON file, of which the children of any element can be listed."""

    def __init__(self, file: ReadableFile) -> None:
        self.file = file
        self.most = 80_000 + file.size // 512  # children of one element
        self.left = _ELEMENTS
        self._pages: dict[int, bytes] = {}

    def root(self) -> Element:
        """Return the whole document."""
        size = _int32(self.take(0, 4))
        if size != self.file.size:
            state = "truncated" if size > self.file.size else "damaged"
            raise ValueError(
                f"{state}: expected {size:,} bytes, found {self.file.size:,}{self._text_damage()}"
            )
        return Element(DOCUMENT, 0, size)

    def _text_damage(self) -> str:
        """Return what a transfer as text has done to the file, as far as its beginning shows."""
        start = self.take(0, min(self.file.size, _PAGE))
        damage = text_damage(start)
        return (
            f", after a transfer as text, which {damage}; get it again, as binary" if damage else ""
        )

    def items(self, element: Element) -> dict[str, Element]:
        """Return the elements of a document by their keys."""
        items: dict[str, Element] = {}
        for key, child in self._scan(element):
            name = _decode(key, child.start)
            if name in items:
                raise ValueError(f"duplicate key {name!r:.80} at byte {child.start:,}")
            items[name] = child
        return items

    def elements(self, element: Element) -> list[Element]:
        """Return the elements of an array in order; their keys say nothing."""
        return [child for _, child in self._scan(element)]

    def scalar(self, element: Element) -> Any:
        """Return a number, a Boolean, text or None."""
        kind, start, end = element
        if kind == STRING:
            if end - start > _MAX_TEXT:
                raise ValueError(f"text of {end - start:,} bytes at byte {start:,}")
            return self.take(start + 4, end - start - 5).decode(errors="backslashreplace")
        data = self.take(start, end - start)
        if kind == DOUBLE:
            return struct.unpack("<d", data)[0]
        if kind == BOOLEAN:
            return data != b"\0"
        return None if kind == NULL else int.from_bytes(data, "little", signed=True)

    def array(self, start: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        """Return an array that is stored in column-major order."""
        return self.file.array(start, shape[::-1], dtype).T

    def take(self, start: int, count: int) -> bytes:
        """Return bytes of the file, by pages that are kept."""
        first, last = start // _PAGE, max(start, start + count - 1) // _PAGE
        if last - first > 4 or start + count > self.file.size:
            return self.file.read(start, count)
        data = b"".join(map(self._page, range(first, last + 1)))
        return data[start - first * _PAGE : start - first * _PAGE + count]

    def _page(self, number: int) -> bytes:
        page = self._pages.get(number)
        if page is None:
            start = number * _PAGE
            page = self.file.read(start, min(_PAGE, self.file.size - start))
            if len(self._pages) >= _PAGES:
                del self._pages[next(iter(self._pages))]
            self._pages[number] = page
        return page

    def _scan(self, element: Element) -> list[tuple[bytes, Element]]:
        """Return the keys and values of a document, which must fill it."""
        children: list[tuple[bytes, Element]] = []
        at, last = element.start + 4, element.end - 1
        data, base = b"", at  # bytes of the file, and where they begin
        while at < last:
            stop = data.find(b"\0", at - base + 1)
            if stop < 0:
                data, base = self._window(at, element.end), at
                stop = data.find(b"\0", 1)
            if stop < 0:
                raise ValueError(f"damaged: a key without an end at byte {at + 1:,}")
            kind, key, start = data[at - base], data[at - base + 1 : stop], base + stop + 1
            size = _SIZES.get(kind)
            if size is None:
                length = data[stop + 1 : stop + 5]
                size = self._size(kind, start, length if len(length) == 4 else self.take(start, 4))
            at = start + size
            if at > last:
                raise ValueError(
                    f"truncated: expected {size:,} bytes at offset {start:,}, found "
                    f"{max(last - start, 0):,}"
                )
            children.append((key, Element(kind, start, at)))
            if len(children) > self.most:
                raise self._too_many()
        if self.take(last, 1) != b"\0":
            raise ValueError(f"damaged: a document without an end at byte {last:,}")
        self.left -= len(children)
        if self.left < 0:
            raise self._too_many()
        return children

    def _window(self, at: int, end: int) -> bytes:
        """Return bytes from an offset on: a key and more, up to the end of a page."""
        rest = _PAGE - at % _PAGE
        return self.take(at, min(end - at, rest if rest > _MAX_KEY else _MAX_KEY))

    def _size(self, kind: int, start: int, length: bytes) -> int:
        """Return the bytes of a value that begins with its length."""
        if kind not in _LENGTHS:
            name = _OTHERS.get(kind, "unknown")
            raise ValueError(
                f"an element of type {kind} ({name}) at byte {start:,}, which BSON.jl never writes"
            )
        added, least = _LENGTHS[kind]
        size = _int32(length)
        if size < least:
            raise ValueError(f"damaged: a length of {size:,} at byte {start:,}")
        return size + added

    def _too_many(self) -> ValueError:
        return ValueError(
            f"too many values for its size: more than {min(self.most, _ELEMENTS):,}; store long "
            "lists as arrays"
        )


def _decode(key: bytes, at: int) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"damaged: a key that is not UTF-8 before byte {at:,}") from error


def _int32(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def is_damaged_bson(start: bytes) -> bool:
    """Return whether a file begins as one of Julia, but for bytes that a transfer has changed."""
    return not starts_as_bson(start) and bool(_DATATYPE.search(start))


def text_damage(start: bytes) -> str:
    """Return what a transfer as text has done to a file, or nothing where it does not show."""
    if b"tag" in start and b"tag\0" not in start:
        return "replaced its NUL bytes"
    if b"\xef\xbf\xbd" in start:
        return "replaced bytes that are not UTF-8"
    if b"\r\n" in start and start.count(b"\n") == start.count(b"\r\n"):
        return "turned LF into CRLF"
    if not start.isascii() and _is_utf8(start):
        return "encoded its bytes as UTF-8"
    return ""


def _is_utf8(start: bytes) -> bool:
    """Return whether bytes are UTF-8, but for a character that is cut off at the end."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return True


def starts_as_bson(start: bytes) -> bool:
    """Return whether a file begins as a document does: a length, and an element with a key."""
    if start == b"\5\0\0\0\0":
        return True
    stop = start.find(b"\0", 5)
    if stop < 0 or _int32(start[:4]) < 5 or start[4] not in KINDS:
        return False
    try:
        return start[5:stop].decode().isprintable()
    except UnicodeDecodeError:
        return False
