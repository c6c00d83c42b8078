"""safetensors: a header in JSON, then the numbers of every array.

Source: https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from ..._tree.lazy import LazyArray
from .._storage.atomic import Path
from .file import Entries, File, Opened, nbytes, parse_json

FORMAT = "safetensors"
MOST_HEADER = 100_000_000  # bytes, of the specification
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
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
PACKED = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}  # bits of numbers that share bytes


def open_safetensors(path: Path, **_: Any) -> Opened:
    """Return what is in one file of safetensors."""
    file = File(path)
    source = Entries(file, FORMAT)
    header, start = read_header(file)
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for x in metadata.values()):
        raise ValueError(f"{METADATA} is no dict of text")
    tree = dict(_arrays(source, header, start))
    return Opened(FORMAT, tree, metadata, source)


def read_header(file: File) -> tuple[dict[str, Any], int]:
    """Return the header, and where the numbers begin."""
    size = int.from_bytes(file.read(0, 8), "little")
    if size > min(MOST_HEADER, file.size - 8):
        raise ValueError(f"its header would take {size:,} bytes, and the file has {file.size:,}")
    header = parse_json(file.read(8, size), file.size)
    if not isinstance(header, dict):
        raise ValueError("its header is no dict")
    return header, 8 + size


def encode_header(
    arrays: Mapping[str, Any], metadata: Mapping[str, str]
) -> tuple[bytes, list[str]]:
    """Return the header of a file, and the names in the order in which numbers follow.

    Wide dtypes come first, so that every array is aligned to its own.
    """
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    entries: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        x = arrays[name]
        begin, end = end, end + nbytes(x.shape, x.dtype)
        dtype = NAMES[np.dtype(x.dtype).newbyteorder("<")]
        entries[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MOST_HEADER:
        raise ValueError(f"{len(order):,} arrays are too many for one file of safetensors")
    return len(text).to_bytes(8, "little") + text, order


def _arrays(source: Entries, header: dict[str, Any], start: int) -> Iterator[tuple[str, LazyArray]]:
    """Yield lazy arrays by name; their ranges must cover the file, once."""
    end = 0
    ranges = {name: _range(name, entry) for name, entry in header.items()}
    for name in sorted(ranges, key=lambda name: ranges[name]):
        begin, stop = ranges[name]
        if begin != end:
            what = "overlaps another array" if begin < end else f"leaves a hole at {end:,}"
            raise ValueError(f"{name}: the range {begin:,} to {stop:,} {what}")
        end = stop
    if start + end != source.file.size:
        raise ValueError(
            f"its arrays end at byte {start + end:,}, and the file has {source.file.size:,}"
        )
    for name, entry in header.items():
        yield name, _array(source, name, entry, start + ranges[name][0])


def _range(name: str, entry: Any) -> tuple[int, int]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name:.80}: expected a dtype, a shape and data_offsets")
    offsets = entry["data_offsets"]
    ints = isinstance(offsets, list) and all(type(x) is int and x >= 0 for x in offsets)
    if not ints or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{name:.80}: {offsets!r:.80} is no range of bytes")
    return offsets[0], offsets[1]


def _array(source: Entries, name: str, entry: dict[str, Any], start: int) -> LazyArray:
    kind, shape = entry["dtype"], entry["shape"]
    begin, stop = entry["data_offsets"]
    if not isinstance(shape, list):
        raise ValueError(f"{name:.80}: {shape!r:.80} is no shape")
    if isinstance(kind, str) and kind in PACKED:
        expected = (nbytes(shape, np.uint8) * PACKED[kind] + 7) // 8
        dtype, read = getattr(ml_dtypes, _PACKED_DTYPES[kind]), _refuse(kind)
    elif isinstance(kind, str) and kind in DTYPES:
        dtype = np.dtype(DTYPES[kind])
        expected = nbytes(shape, dtype)
        read = _Read(source.file, start, tuple(shape), dtype)
    else:
        raise ValueError(f"{name:.80}: {kind!r:.80} is no dtype of safetensors that is known here")
    if stop - begin != expected:
        raise ValueError(
            f"{name:.80}: {kind}{shape} takes {expected:,} bytes, and its range has "
            f"{stop - begin:,}"
        )
    return source.add_named(name, shape, np.dtype(dtype).newbyteorder("="), read)


_PACKED_DTYPES = {
    "F4": "float4_e2m1fn",
    "F6_E2M3": "float6_e2m3fn",
    "F6_E3M2": "float6_e3m2fn",
}


class _Read:
    """How an array is read."""

    __slots__ = ("dtype", "file", "shape", "start")

    def __init__(self, file: File, start: int, shape: tuple[int, ...], dtype: Any) -> None:
        self.file, self.start, self.shape, self.dtype = file, start, shape, dtype

    def __call__(self) -> np.ndarray[Any, Any]:
        return self.file.array(self.start, self.shape, self.dtype)


def _refuse(kind: str) -> Any:
    def read() -> np.ndarray[Any, Any]:
        raise ValueError(
            f"numbers of {kind} share bytes, in an order that the specification leaves open; "
            "convert them with the library that wrote them"
        )

    return read
