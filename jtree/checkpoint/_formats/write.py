"""Arrays written one after another: how each format stores them."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import jax
import numpy as np

from ..._errors import ModelError
from ..._state.state import state
from ..._tree.lazy import LazyArray
from ..._tree.leaves import describe, isnumber
from ..._tree.paths import show
from ..._tree.walk import walk
from .archive import check_name
from .file import nbytes
from .msgpack import CHUNKED
from .numpy import write_header
from .safetensors import METADATA, NAMES, encode_header

File = IO[bytes]
_NUMPY = {np.dtype(code).newbyteorder("<") for code in "?bhilqBHILQefdFD"}
DTYPES = {"safetensors": set(NAMES), "npz": _NUMPY, "npy": _NUMPY}
_PART = 2**30  # bytes of an array above which flax writes it in parts


def write_safetensors(file: File, arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write arrays by name as safetensors."""
    check("safetensors", arrays)
    header, order = encode_header(arrays, metadata)
    file.write(header)
    for path in order:
        file.write(data(arrays[path]))


def write_npz(file: File, arrays: Mapping[str, Any], _: Any) -> None:
    """Write arrays by name as an archive of NumPy."""
    check("npz", arrays)
    with zipfile.ZipFile(file, "w") as archive:
        for path, x in arrays.items():
            info = zipfile.ZipInfo(f"{path}.npy")
            with archive.open(info, "w", force_zip64=True) as member:
                member.write(write_header(x))
                member.write(data(x))


def write_npy(file: File, arrays: Mapping[str, Any], _: Any) -> None:
    """Write one array as NumPy does."""
    if len(arrays) != 1:
        raise ModelError(f"npy holds one array, found {len(arrays)}; use format='npz'")
    ((path, x),) = arrays.items()
    check_dtype(path, x, _NUMPY, "npy")
    file.write(write_header(x))
    file.write(data(x))


def write_msgpack(file: File, tree: Any) -> None:
    """Write a state as flax.serialization does: sequences become dicts with numbers as keys."""
    walked = walk(state(tree), ties=())
    paths = iter(slot.path for slot in walked.slots)
    pieces = walked.fold(lambda x: [_piece(next(paths), x)], _map)
    for piece in pieces:
        if isinstance(piece, bytes):
            file.write(piece)
        else:
            file.writelines(_array(piece))


def check(format: str, arrays: Mapping[str, Any]) -> None:
    """Refuse numbers and names that a format with names cannot hold, before any are read."""
    for path, x in arrays.items():
        check_dtype(path, x, DTYPES[format], format)
        if format == "safetensors" and path in ("", METADATA):
            raise ModelError(
                f"{show(path)}: safetensors needs another name; rename it, or put it in a dict"
            )
        if format == "npz" and not path:
            raise ModelError(
                "(root): one array alone has no name in npz; rename it, or use format='npy'"
            )
        if format != "npz":
            continue
        try:
            check_name(f"{path}.npy")
        except ValueError as error:
            raise ModelError(f"{show(path)}: {error}; rename it") from error


def check_dtype(path: str, x: Any, known: Any, format: str) -> None:
    """Refuse numbers that a format has no dtype for."""
    if isinstance(x, jax.ShapeDtypeStruct):
        raise ModelError(
            f"{show(path)}: cannot save {describe(x)}: it is abstract, and has no numbers"
        )
    dtype = x.dtype if isinstance(x.dtype, np.dtype) else None
    if dtype is not None and np.dtype(dtype).newbyteorder("<") in known:
        return
    what = "save jax.random.key_data of it" if dtype is None else "cast it, or use format='orbax'"
    if format != "safetensors" and dtype is not None:
        what = "cast it, or use format='safetensors' or 'orbax'"
    raise ModelError(f"{show(path)}: {format} cannot hold {describe(x)}; {what}")


def data(x: Any) -> memoryview:
    """Return the bytes of an array, in C order, little end first; a lazy one is read."""
    host = x.read() if isinstance(x, LazyArray) else np.asarray(x)
    host = np.ascontiguousarray(host)
    if host.dtype.byteorder == ">" or (host.dtype.byteorder == "=" and not _little()):
        host = host.astype(host.dtype.newbyteorder("<"))
    return host.reshape(-1).view(np.uint8).data


def _little() -> bool:
    return bool(np.dtype("<i2").isnative)


def _map(node: Any, names: list[Any], results: list[list[Any]]) -> list[Any]:
    keys = names if isinstance(node, dict) else range(len(results))
    texts = [str(key) for key in keys]
    if len(set(texts)) != len(texts):
        raise ModelError(f"two keys of a dict print alike in msgpack: {sorted(texts)!s:.80}")
    pieces: list[Any] = [_head("map", len(results))]
    for text, below in zip(texts, results, strict=True):
        pieces += [_text(text), *below]
    return pieces


def _piece(path: str, x: Any) -> Any:
    """Return the bytes of a basic leaf; an array as it is, to be written when its turn comes."""
    if isinstance(x, np.generic):
        return b"".join(_extension(3, np.asarray(x)))
    if hasattr(x, "dtype"):
        ours = isinstance(x.dtype, np.dtype) and isnumber(x.dtype)
        check_dtype(path, x, (np.dtype(x.dtype).newbyteorder("<"),) if ours else (), "msgpack")
        return x
    if x is None or isinstance(x, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[x]
    if isinstance(x, int):
        return _integer(path, x)
    if isinstance(x, float):
        return b"\xcb" + struct.pack(">d", x)
    if isinstance(x, complex):
        return b"\xc7\x13\x02\x92" + struct.pack(">BdBd", 0xCB, x.real, 0xCB, x.imag)
    if isinstance(x, bytes):
        return _head("bin", len(x)) + x
    return _text(x)


def _integer(path: str, x: int) -> bytes:
    if 0 <= x < 128:
        return bytes([x])
    for code, form in ((0xD3, ">q"), (0xCF, ">Q")):
        try:
            return bytes([code]) + struct.pack(form, x)
        except struct.error:
            continue
    raise ModelError(f"{show(path)}: msgpack cannot hold the integer {x}; use format='orbax'")


def _array(x: Any) -> Iterator[Any]:
    """Yield the bytes of an array; of a large one in parts, as flax reads them."""
    size = nbytes(x.shape, x.dtype)
    if size <= _PART:
        yield from _extension(1, x)
        return
    host = x.read() if isinstance(x, LazyArray) else np.asarray(x)
    flat, step = host.reshape(-1), max(1, _PART // x.dtype.itemsize)
    starts = range(0, flat.size, step)
    yield _head("map", 3) + _text(CHUNKED) + b"\xc3" + _text("shape")
    yield _head("map", len(x.shape))
    for n, length in enumerate(x.shape):
        yield _text(str(n)) + _integer("", length)
    yield _text("chunks") + _head("map", len(starts))
    for n, start in enumerate(starts):
        yield _text(str(n))
        yield from _extension(1, flat[start : start + step])


def _extension(code: int, x: Any) -> Iterator[Any]:
    """Yield an array or a NumPy scalar: a list of its shape, its dtype's name, and its bytes."""
    shape = b"".join(_integer("", n) for n in x.shape)
    size = nbytes(x.shape, x.dtype)
    head = b"\x93" + _head("list", len(x.shape)) + shape + _text(x.dtype.name) + _head("bin", size)
    yield b"\xc9" + (len(head) + size).to_bytes(4, "big") + bytes([code]) + head
    yield data(x)


def _text(x: str) -> bytes:
    text = x.encode()
    return _head("str", len(text)) + text


_SHORT = {"map": (0x80, 16), "list": (0x90, 16), "str": (0xA0, 32)}
_LONG = {
    "map": ((0xDE, 2), (0xDF, 4)),
    "list": ((0xDC, 2), (0xDD, 4)),
    "str": ((0xD9, 1), (0xDA, 2), (0xDB, 4)),
    "bin": ((0xC4, 1), (0xC5, 2), (0xC6, 4)),
}


def _head(kind: str, length: int) -> bytes:
    """Return what stands before a value of a kind and a length."""
    start, below = _SHORT.get(kind, (0, 0))
    if length < below:
        return bytes([start | length])
    for code, wide in _LONG[kind]:
        if length < 256**wide:
            return bytes([code]) + length.to_bytes(wide, "big")
    raise ModelError(f"msgpack cannot hold {length:,} bytes or values at one place")
