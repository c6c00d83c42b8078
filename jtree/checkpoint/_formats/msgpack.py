"""Files of `flax.serialization`: msgpack, with arrays as extensions.

The package `msgpack` writes them. It cannot read them here: it returns an extension with all of
its bytes, and arrays must stay in the file until they are read.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md, and the documentation of
`flax.serialization` for its three extensions: arrays, complex numbers, NumPy scalars.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, Any

import ml_dtypes
import numpy as np

from ..._errors import ModelError
from ..._tree import paths
from ..._tree.lazy import LazyArray
from ..._tree.leaves import isnumber
from .array_bytes import check_dtype, to_bytes
from .file import Entries, File, FileContents, Path, little_endian
from .limits import MAX_RANK, Budget, array_nbytes

CHUNKED = "__msgpack_chunked_array__"  # marks a large array, which Flax writes in chunks
CHUNK_BYTES = 2**30
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_BUFFER = 2**16
_MAX_DTYPE = 40  # characters of the name of a dtype
_NUMBERS = {0xCA: ">f", 0xCB: ">d"}
_NUMBERS |= {0xCC + n: f">{code}" for n, code in enumerate("BHIQbhiq")}
_KINDS = (  # the first code of each kind, and the bytes of the length that follows each code
    (0xC4, "bin", (1, 2, 4)),
    (0xC7, "ext", (1, 2, 4)),
    (0xD9, "str", (1, 2, 4)),
    (0xDC, "list", (2, 4)),
    (0xDE, "map", (2, 4)),
)
_LENGTHS = {first + n: (kind, x) for first, kind, sizes in _KINDS for n, x in enumerate(sizes)}


def open_msgpack(path: Path, **_: Any) -> FileContents:
    """Return the nested dict that Flax has written."""
    file = File(path)
    parser = _Parser(file)
    tree = parser.value(())
    if parser.at != file.size:
        raise ValueError(f"expected its end at byte {parser.at:,}, found more")
    return FileContents("msgpack", tree, {}, parser.source)


def check_msgpack(state: Any) -> None:
    """Refuse values and keys that msgpack cannot hold."""
    for path, _, x in _items(state):
        if isinstance(x, dict | list | tuple):
            continue
        if hasattr(x, "dtype"):
            isplain = isinstance(x.dtype, np.dtype) and isnumber(x.dtype)
            check_dtype(path, x, (little_endian(x.dtype),) if isplain else (), "msgpack")
        elif isinstance(x, int) and not -(2**63) <= x < 2**64:
            raise ModelError(
                f"{paths.show(path)}: msgpack holds integers of 64 bits, found {x}; use "
                "format='orbax'"
            )


def write_msgpack(file: IO[bytes], state: Any, _: Any) -> None:
    """Write a state as Flax does: sequences become dicts with the indices as keys."""
    import msgpack

    packer = msgpack.Packer()
    for _, key, x in _items(state):
        if key is not None:
            file.write(packer.pack(key))
        if isinstance(x, dict | list | tuple):
            file.write(packer.pack_map_header(len(x)))
        elif isinstance(x, np.generic):
            file.writelines(_extension(packer, _SCALAR, np.asarray(x)))
        elif hasattr(x, "dtype"):
            file.writelines(_array(packer, x))
        elif isinstance(x, complex):
            file.write(packer.pack(msgpack.ExtType(_COMPLEX, packer.pack((x.real, x.imag)))))
        else:
            file.write(packer.pack(x))


def _items(state: Any) -> Iterator[tuple[str, str | None, Any]]:
    """Yield the containers and leaves of a state in order, each with its path and its key."""
    stack: list[tuple[tuple[str, ...], Any]] = [((), state)]
    while stack:
        parts, x = stack.pop()
        yield paths.join(parts), parts[-1] if parts else None, x
        if isinstance(x, dict | list | tuple):
            items = x.items() if isinstance(x, dict) else enumerate(x)
            children = {str(key): child for key, child in items}
            if len(children) != len(x):
                raise ModelError(
                    f"{paths.show(paths.join(parts))}: msgpack has text as keys, and two of these "
                    f"print alike: {sorted(map(str, x))!s:.80}; rename one of them"
                )
            stack += [((*parts, key), child) for key, child in reversed(children.items())]


def _array(packer: Any, x: Any) -> Iterator[Any]:
    """Yield the bytes of an array; of a large one in chunks, as Flax reads them."""
    if array_nbytes(x.shape, x.dtype) <= CHUNK_BYTES:
        yield from _extension(packer, _ARRAY, x)
        return
    host = x.read() if isinstance(x, LazyArray) else np.asarray(x)
    flat, step = host.reshape(-1), max(1, CHUNK_BYTES // x.dtype.itemsize)
    starts = range(0, flat.size, step)
    yield packer.pack_map_header(3) + packer.pack(CHUNKED) + packer.pack(True)
    yield packer.pack("shape") + packer.pack({str(n): size for n, size in enumerate(x.shape)})
    yield packer.pack("chunks") + packer.pack_map_header(len(starts))
    for n, start in enumerate(starts):
        yield packer.pack(str(n))
        yield from _extension(packer, _ARRAY, flat[start : start + step])


def _extension(packer: Any, code: int, x: Any) -> Iterator[Any]:
    """Yield an array or a NumPy scalar: a list of its shape, its dtype's name, and its bytes."""
    size = array_nbytes(x.shape, x.dtype)
    header = packer.pack_array_header(3) + packer.pack(x.shape) + packer.pack(x.dtype.name)
    header += b"\xc6" + size.to_bytes(4, "big")
    yield b"\xc9" + (len(header) + size).to_bytes(4, "big") + bytes([code]) + header
    yield to_bytes(x)


class _Parser:
    """An offset in a file, and the values from there on."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.at = 0
        self.budget = Budget(file.size)
        self.source = Entries(file)
        self.joined: set[LazyArray] = set()  # arrays in chunks, which cannot be chunks again
        self._buffer, self._buffer_start = b"", 0

    def value(self, parts: tuple[str, ...]) -> Any:
        """Return the next value, which is at the path of these parts in the tree."""
        self.budget.spend(parts)
        kind, length = self._header()
        if kind == "value":
            return length
        if kind == "map":
            return self._map(length, parts)
        if kind == "list":
            return [self.value((*parts, str(n))) for n in range(self._check_count(length))]
        if kind == "ext":
            return self._extension(length, parts)
        data = self.take(length)
        return data.decode() if kind == "str" else data

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        start = self.at - self._buffer_start
        if start < 0 or start + count > len(self._buffer):
            self._check_count(count)
            size = min(max(count, _BUFFER), self.file.size - self.at)
            self._buffer, self._buffer_start, start = self.file.read(self.at, size), self.at, 0
        self.at += count
        return self._buffer[start : start + count]

    def skip(self, count: int) -> int:
        """Pass over bytes, and return the offset at which they begin."""
        self._check_count(count)
        self.at += count
        return self.at - count

    def _check_count(self, count: int) -> int:
        """Return a number of bytes or values, if as many can follow."""
        rest = self.file.size - self.at
        if count > rest:
            raise ValueError(
                f"truncated: expected {count:,} bytes or more at offset {self.at:,}, found {rest:,}"
            )
        return count

    def _header(self) -> tuple[str, Any]:
        """Return the kind and length of what follows, or a value that takes no more bytes."""
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
            kind, width = _LENGTHS[code]
            return kind, int.from_bytes(self.take(width), "big")
        if 0xD4 <= code <= 0xD8:
            return "ext", 1 << (code - 0xD4)
        raise ValueError(f"invalid msgpack: byte {code:#x} at offset {self.at - 1:,}")

    def _map(self, length: int, parts: tuple[str, ...]) -> Any:
        items: dict[str, Any] = {}
        for _ in range(self._check_count(2 * length) // 2):
            kind, size = self._header()
            key = self.take(size).decode() if kind in ("str", "bin") else size
            if kind not in ("str", "bin", "value") or type(key) not in (str, int):
                raise ValueError(f"{_show(parts)}: expected str or int keys, found another")
            if str(key) in items:
                raise ValueError(f"{_show(parts)}: duplicate key {key!r:.80}")
            items[str(key)] = self.value((*parts, str(key)))
        return self._join(items, parts) if items.get(CHUNKED) is True else items

    def _extension(self, length: int, parts: tuple[str, ...]) -> Any:
        code = self.take(1)[0]
        end = self.at + self._check_count(length)
        value: Any
        if code == _COMPLEX:
            pair = self.value(parts)
            if not isinstance(pair, list) or [type(x) for x in pair] != [float, float]:
                raise ValueError(f"{_show(parts)}: invalid complex number")
            value = complex(*pair)
        elif code in (_ARRAY, _SCALAR):
            value = self._array(parts, code)
        else:
            raise ValueError(f"{_show(parts)}: extension {code} is not one of Flax")
        if self.at != end:
            raise ValueError(f"{_show(parts)}: an extension does not have the length it declares")
        return value

    def _array(self, parts: tuple[str, ...], code: int) -> Any:
        """Return an array: a list of its shape, its dtype's name, and its bytes, passed over.

        The bytes of a scalar are read at once.
        """
        count, rank = self._expect("list", parts), self._expect("list", parts)
        shape = [self._expect("value", parts) for _ in range(min(rank, MAX_RANK + 1))]
        name = self.take(self._expect("str", parts)).decode()
        length = self._expect("bin", parts)
        dtype = _parse_dtype(name)
        if count != 3 or dtype is None or not isnumber(dtype) or not dtype.isnative:
            raise ValueError(f"{_show(parts)}: arrays of {name:.80} are not supported")
        expected = array_nbytes(shape, dtype)
        if expected != length:
            raise ValueError(
                f"{_show(parts)}: expected {expected:,} bytes for {name}{shape}, found {length:,}"
            )
        if code == _SCALAR and not shape:
            return np.frombuffer(self.take(length), dtype)[0]
        start = self.skip(length)
        reader = lambda: self.file.array(start, shape, dtype)  # noqa: E731
        return self.source.add_named(_show(parts), shape, dtype, reader)

    def _expect(self, expected: str, parts: tuple[str, ...]) -> Any:
        """Return the length, or the value, of what follows, which must be of a kind."""
        kind, length = self._header()
        if kind != expected and {kind, expected} != {"str", "bin"}:
            raise ValueError(f"{_show(parts)}: invalid array")
        return length

    def _join(self, items: dict[str, Any], parts: tuple[str, ...]) -> Any:
        """Return the array that Flax has written in chunks."""
        shape, chunks = items.get("shape"), items.get("chunks")
        if not isinstance(shape, dict) or not isinstance(chunks, dict) or len(items) != 3:
            raise ValueError(f"{_show(parts)}: invalid array in chunks")
        whole = tuple(shape[str(n)] for n in range(len(shape)))
        arrays = [chunks[str(n)] for n in range(len(chunks))]
        total = sum(x.nbytes for x in arrays)
        dtype, *others = {x.dtype for x in arrays} or {None}
        if others or self.joined & {*arrays} or total != array_nbytes(whole, dtype):
            raise ValueError(f"{_show(parts)}: the chunks of an array do not fit together")

        def read() -> np.ndarray[Any, Any]:
            out = np.empty(sum(x.size for x in arrays), dtype)
            at = 0
            for x in arrays:
                out[at : at + x.size] = x.read().reshape(-1)
                at += x.size
            return out.reshape(whole)

        array = self.source.add_named(_show(parts), whole, dtype, read)
        self.joined.add(array)
        return array


def _parse_dtype(name: str) -> np.dtype[Any] | None:
    try:
        return np.dtype(getattr(ml_dtypes, name, name)) if len(name) <= _MAX_DTYPE else None
    except TypeError:
        return None


def _short(code: int) -> tuple[str, int]:
    return ("list", code & 15) if code < 0xA0 else ("str", code & 31)


def _show(parts: tuple[str, ...]) -> str:
    return paths.show(paths.join(parts))
