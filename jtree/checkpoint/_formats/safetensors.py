"""Files of safetensors: a header in JSON, then the values of every array.

Source: https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import ml_dtypes
import numpy as np

from ..._errors import ModelError
from ..._tree.lazy import LazyArray
from ..._tree.paths import show
from .array_bytes import check_dtype, to_bytes
from .file import Entries, File, FileContents, Path, little_endian
from .limits import array_nbytes, parse_json

MAX_HEADER = 100_000_000  # bytes, by the specification
METADATA = "__metadata__"

DTYPES = {
    **{f"F{8 * n}": f"<f{n}" for n in (2, 4, 8)},
    **{f"I{8 * n}": f"<i{n}" for n in (1, 2, 4, 8)},
    **{f"U{8 * n}": f"<u{n}" for n in (1, 2, 4, 8)},
    "BOOL": "?",
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "C64": "<c8",
}
_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
_PACKED = {  # the bits and the dtype of values that share bytes
    "F4": (4, ml_dtypes.float4_e2m1fn),
    "F6_E2M3": (6, ml_dtypes.float6_e2m3fn),
    "F6_E3M2": (6, ml_dtypes.float6_e3m2fn),
}


def open_safetensors(path: Path, **_: Any) -> FileContents:
    """Return the arrays of one file, and its metadata."""
    file = File(path)
    source = Entries(file)
    header, start = _read_header(file)
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for x in metadata.values()):
        raise ValueError(f"{METADATA}: expected a dict from str to str")
    tree = dict(_arrays(source, header, start))
    return FileContents("safetensors", tree, metadata, source)


def check_safetensors(arrays: Mapping[str, Any]) -> None:
    """Refuse dtypes and names that safetensors cannot hold."""
    for path, x in arrays.items():
        check_dtype(path, x, _NAMES, "safetensors")
        if path in ("", METADATA):
            raise ModelError(
                f"{show(path)}: safetensors needs another name; rename it, or put it in a dict"
            )


def write_safetensors(
    file: IO[bytes], arrays: Mapping[str, Any], metadata: Mapping[str, str]
) -> None:
    """Write arrays by name."""
    header, order = _encode_header(arrays, metadata)
    file.write(header)
    for path in order:
        file.write(to_bytes(arrays[path]))


def _read_header(file: File) -> tuple[dict[str, Any], int]:
    """Return the header, and the offset at which the values begin."""
    size = int.from_bytes(file.read(0, 8), "little")
    if size > min(MAX_HEADER, file.size - 8):
        raise ValueError(f"truncated: its header takes {size:,} bytes, the file {file.size:,}")
    header = parse_json(file.read(8, size), file.size)
    if not isinstance(header, dict):
        raise ValueError("its header is not a dict")
    return header, 8 + size


def _encode_header(
    arrays: Mapping[str, Any], metadata: Mapping[str, str]
) -> tuple[bytes, list[str]]:
    """Return the header of a file, and the names in the order in which values follow.

    Wide dtypes come first, so that every array is aligned to its own.
    """
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    entries: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        x = arrays[name]
        begin, end = end, end + array_nbytes(x.shape, x.dtype)
        dtype = _NAMES[little_endian(x.dtype)]
        entries[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ModelError(
            f"safetensors holds a header of {MAX_HEADER:,} bytes, and {len(order):,} arrays take "
            f"{len(text):,}; use format='orbax'"
        )
    return len(text).to_bytes(8, "little") + text, order


def _arrays(source: Entries, header: dict[str, Any], start: int) -> Iterator[tuple[str, LazyArray]]:
    """Yield lazy arrays by name; their ranges must cover the file, once."""
    end = 0
    ranges = {name: _range(name, entry) for name, entry in header.items()}
    for name in sorted(ranges, key=lambda name: ranges[name]):
        begin, stop = ranges[name]
        if begin != end:
            fault = "overlaps another array" if begin < end else f"leaves a gap at {end:,}"
            raise ValueError(f"{name:.80}: the range from {begin:,} to {stop:,} {fault}")
        end = stop
    if start + end != source.file.size:
        raise ValueError(
            f"its arrays end at byte {start + end:,}, the file at {source.file.size:,}"
        )
    for name, entry in header.items():
        yield name, _array(source, name, entry, start + ranges[name][0])


def _range(name: str, entry: Any) -> tuple[int, int]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name:.80}: expected exactly dtype, shape and data_offsets")
    offsets = entry["data_offsets"]
    ints = isinstance(offsets, list) and all(type(x) is int and x >= 0 for x in offsets)
    if not ints or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{name:.80}: invalid data_offsets {offsets!r:.80}")
    return offsets[0], offsets[1]


def _array(source: Entries, name: str, entry: dict[str, Any], start: int) -> LazyArray:
    kind, shape = entry["dtype"], entry["shape"]
    begin, stop = entry["data_offsets"]
    if not isinstance(shape, list):
        raise ValueError(f"{name:.80}: invalid shape {shape!r:.80}")
    reader: Callable[[], Any]
    if isinstance(kind, str) and kind in _PACKED:
        bits, packed_dtype = _PACKED[kind]
        expected = (array_nbytes(shape, np.uint8) * bits + 7) // 8
        dtype, reader = np.dtype(packed_dtype), _PackedReader(kind)
    elif isinstance(kind, str) and kind in DTYPES:
        dtype = np.dtype(DTYPES[kind])
        expected = array_nbytes(shape, dtype)
        reader = _ArrayReader(source.file, start, tuple(shape), dtype)
    else:
        raise ValueError(f"{name:.80}: unknown dtype {kind!r:.80}")
    if stop - begin != expected:
        raise ValueError(
            f"{name:.80}: expected {expected:,} bytes for {kind}{shape}, found {stop - begin:,}"
        )
    return source.add_named(name, shape, dtype.newbyteorder("="), reader)


class _ArrayReader:
    """A function that reads an array; many thousands of them take little memory."""

    __slots__ = ("dtype", "file", "shape", "start")

    def __init__(self, file: File, start: int, shape: tuple[int, ...], dtype: Any) -> None:
        self.file, self.start, self.shape, self.dtype = file, start, shape, dtype

    def __call__(self) -> np.ndarray[Any, Any]:
        return self.file.array(self.start, self.shape, self.dtype)


class _PackedReader:
    """A function that refuses to read values that share bytes."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self) -> np.ndarray[Any, Any]:
        raise ValueError(
            f"values of {self.kind} share bytes, in an order that the specification leaves open; "
            "convert them with the library that wrote them"
        )
