"""Files of flax.serialization: msgpack, with arrays as extensions that are skipped until read.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md, and the documentation of
`flax.serialization` for its three extensions: arrays, complex numbers, NumPy scalars.
"""

from __future__ import annotations

import struct
from typing import Any

import ml_dtypes
import numpy as np

from ..._tree import paths
from ..._tree.lazy import LazyArray
from ..._tree.leaves import isnumber
from .._storage.atomic import Path
from .file import Budget, Entries, File, Opened, nbytes

FORMAT = "msgpack"
CHUNKED = "__msgpack_chunked_array__"  # flax writes an array above 2**30 bytes in parts
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_BUFFER = 2**16
_RANK = 32  # axes of an array
_LONGEST = 40  # letters of the name of a dtype
_NUMBERS = {0xCA: ">f", 0xCB: ">d"}
_NUMBERS |= {0xCC + n: f">{code}" for n, code in enumerate("BHIQbhiq")}
_LENGTHS = {
    0xC4: ("bin", 1),
    0xC5: ("bin", 2),
    0xC6: ("bin", 4),
    0xC7: ("ext", 1),
    0xC8: ("ext", 2),
    0xC9: ("ext", 4),
    0xD9: ("str", 1),
    0xDA: ("str", 2),
    0xDB: ("str", 4),
    0xDC: ("list", 2),
    0xDD: ("list", 4),
    0xDE: ("map", 2),
    0xDF: ("map", 4),
}


def open_msgpack(path: Path, **_: Any) -> Opened:
    """Return the nested dict that flax has written."""
    file = File(path)
    parser = _Parser(file, 0, file.size)
    found = parser.value(())
    if parser.at != file.size:
        raise ValueError(f"something follows its end, at byte {parser.at:,}")
    return Opened(FORMAT, found, {}, parser.source)


class _Parser:
    """A place in a file, and the values from there on."""

    def __init__(self, file: File, at: int, end: int) -> None:
        self.file = file
        self.at = at
        self.end = end
        self.budget = Budget(file.size)
        self.source = Entries(file, FORMAT)
        self.joined: set[LazyArray] = set()  # are no parts: each more takes its memory again
        self._text, self._from = b"", 0

    def value(self, parts: tuple[str, ...]) -> Any:
        """Return the value that follows; `parts` is its place in the tree."""
        self.budget.spend(parts)
        kind, length = self._head()
        if kind == "value":
            return length
        if kind == "map":
            return self._map(length, parts)
        if kind == "list":
            return [self.value((*parts, str(n))) for n in range(self._checked(length))]
        if kind == "ext":
            return self._extension(length, parts)
        text = self.take(length)
        return text.decode() if kind == "str" else text

    def take(self, count: int) -> bytes:
        """Return the bytes that follow."""
        start = self.at - self._from
        if start < 0 or start + count > len(self._text):
            if self.at + count > self.end:
                raise ValueError("it ends too early")
            size = min(max(count, _BUFFER), self.end - self.at)
            self._text, self._from, start = self.file.read(self.at, size), self.at, 0
        self.at += count
        return self._text[start : start + count]

    def skip(self, count: int) -> int:
        """Pass over bytes, and return where they begin."""
        if self.at + count > self.end:
            raise ValueError("it ends too early")
        self.at += count
        return self.at - count

    def _head(self) -> tuple[str, Any]:
        """Return what follows: its kind and length, or a value that takes no more bytes."""
        code = self.take(1)[0]
        if code < 0x80 or code >= 0xE0:
            return "value", code if code < 0x80 else code - 256
        if code < 0xC0:
            return ("map", code & 15) if code < 0x90 else _short(code)
        if code in (0xC0, 0xC2, 0xC3):
            return "value", {0xC0: None, 0xC2: False, 0xC3: True}[code]
        if code in _NUMBERS:
            form = struct.Struct(_NUMBERS[code])
            return "value", form.unpack(self.take(form.size))[0]
        if code in _LENGTHS:
            kind, wide = _LENGTHS[code]
            return kind, int.from_bytes(self.take(wide), "big")
        if 0xD4 <= code <= 0xD8:
            return "ext", 1 << (code - 0xD4)
        raise ValueError(f"byte {self.at - 1:,} is {code:#x}, which msgpack does not have")

    def _map(self, length: int, parts: tuple[str, ...]) -> Any:
        found: dict[str, Any] = {}
        for _ in range(self._checked(2 * length) // 2):
            kind, size = self._head()
            name = self.take(size).decode() if kind in ("str", "bin") else size
            if kind not in ("str", "bin", "value") or type(name) not in (str, int):
                raise ValueError(f"{paths.show(paths.join(parts))}: a key of this dict is no text")
            if str(name) in found:
                raise ValueError(f"{paths.join(parts)}: two keys of this dict are {name!r:.80}")
            found[str(name)] = self.value((*parts, str(name)))
        return self._joined(found, parts) if found.get(CHUNKED) is True else found

    def _checked(self, count: int) -> int:
        """Return a number of values, if as many can follow."""
        if count > self.end - self.at:
            raise ValueError("it ends too early")
        return count

    def _extension(self, length: int, parts: tuple[str, ...]) -> Any:
        code = self.take(1)[0]
        end = self.at + length
        if code not in (_ARRAY, _COMPLEX, _SCALAR):
            raise ValueError(f"{paths.join(parts)}: flax has no extension {code}")
        if end > self.end:
            raise ValueError("it ends too early")
        if code == _COMPLEX:
            pair = self.value(parts)
            if not isinstance(pair, list) or [type(x) for x in pair] != [float, float]:
                raise ValueError(f"{paths.join(parts)}: this is no complex number")
            found: Any = complex(*pair)
        else:
            found = self._array(parts, code)
        if self.at != end:
            raise ValueError(f"{paths.join(parts)}: an extension is not as long as it says")
        return found

    def _array(self, parts: tuple[str, ...], code: int) -> Any:
        """Return an array: a list of its shape, its dtype's name, and its bytes, passed over.

        Of a scalar, the bytes are read at once.
        """
        count, rank = self._expect("list", parts), self._expect("list", parts)
        shape = [self._expect("value", parts) for _ in range(min(rank, _RANK + 1))]
        name = self.take(self._expect("str", parts)).decode()
        length = self._expect("bin", parts)
        dtype = np.dtype(getattr(ml_dtypes, name, name) if len(name) <= _LONGEST else object)
        if count != 3 or not isnumber(dtype) or not dtype.isnative:
            raise ValueError(f"{paths.join(parts)}: arrays of {name:.80} are not read")
        if nbytes(shape, dtype) != length:
            raise ValueError(f"{paths.join(parts)}: {name}{shape} does not take {length:,} bytes")
        if code == _SCALAR and not shape:
            return np.frombuffer(self.take(length), dtype)[0]
        start = self.skip(length)
        path = paths.show(paths.join(parts))
        return self.source.add_named(
            path, shape, dtype, lambda: self.file.array(start, shape, dtype)
        )

    def _expect(self, wanted: str, parts: tuple[str, ...]) -> Any:
        """Return the length, or the value, of what follows, which must be of a kind."""
        kind, length = self._head()
        if kind != wanted and {kind, wanted} != {"str", "bin"}:
            raise ValueError(f"{paths.join(parts)}: this is no array of flax")
        return length

    def _joined(self, found: dict[str, Any], parts: tuple[str, ...]) -> Any:
        """Return the array that flax has written in parts."""
        shape, chunks = found.get("shape"), found.get("chunks")
        if not isinstance(shape, dict) or not isinstance(chunks, dict) or len(found) != 3:
            raise ValueError(f"{paths.join(parts)}: this is no array of flax in parts")
        whole = tuple(shape[str(n)] for n in range(len(shape)))
        held = [chunks[str(n)] for n in range(len(chunks))]
        dtypes = {x.dtype for x in held}
        total = sum(x.nbytes for x in held)
        if len(dtypes) != 1 or self.joined & {*held} or total != nbytes(whole, held[0].dtype):
            raise ValueError(f"{paths.join(parts)}: the parts of an array do not fit together")

        def read() -> np.ndarray[Any, Any]:
            out = np.empty(sum(x.size for x in held), held[0].dtype)
            at = 0
            for x in held:
                out[at : at + x.size] = x.read().reshape(-1)
                at += x.size
            return out.reshape(whole)

        joined = self.source.add_named(paths.join(parts), whole, held[0].dtype, read)
        self.joined.add(joined)
        return joined


def _short(code: int) -> tuple[str, int]:
    return ("list", code & 15) if code < 0xA0 else ("str", code & 31)
