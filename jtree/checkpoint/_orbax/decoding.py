"""The state and the arrays that a checkpoint's metadata describe; see `encoding` for what is where.

Everything is checked before an array is read.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np

from ..._errors import CheckpointError, ChecksumError
from ..._tree.leaves import isnumber
from .._formats.limits import array_nbytes, check_json
from .checksum import Checksum

Json: TypeAlias = Any
Ties: TypeAlias = tuple[tuple[str, ...], ...]

KEY = "jtree"  # the key of jtree's part of a checkpoint's metadata
FORMAT = 3
INT_DIGITS = 100_000  # of an integer in hexadecimals, which take linear time
PACK = "%packed"  # the name of the array that holds the bytes of all small ones
_ALIGNMENT = 64  # bytes: what JAX needs to take an array without a copy


class StoredArray(NamedTuple):
    """An array in a checkpoint: its shape and dtype, and how it is stored."""

    parts: tuple[str, ...]  # the path in the nested dicts that Orbax stores
    dtype: Any
    shape: tuple[int, ...]
    crc32: Checksum
    bytes: bool = False  # stored as bytes, from the offset `at` on
    at: int = 0
    key: str | None = None  # the implementation of the PRNG keys that these are the data of

    @property
    def packed(self) -> bool:
        """Whether the array is stored together with others."""
        return self.parts == (PACK,)

    @property
    def nbytes(self) -> int:
        """The number of bytes in memory."""
        return math.prod(self.shape) * int(self.dtype.itemsize)

    @property
    def description(self) -> str:
        """The part of the description that the checksum covers besides the values."""
        return description(self.dtype.name, self.shape, self.key)

    def decode(self, x: Any) -> Any:
        """Return the array from the one that Orbax stores for it."""
        if not self.bytes:
            if tuple(x.shape) != self.shape:
                raise CheckpointError(f"expected shape {list(self.shape)}, found {list(x.shape)}")
            return x
        data = np.asarray(x)[self.at : self.at + self.nbytes]
        if len(data) != self.nbytes:
            raise CheckpointError(f"expected {self.nbytes:,} bytes, found {len(data):,}")
        # Bytes whose file is gone come as one value that is repeated, which has no view.
        return np.ascontiguousarray(data).view(self.dtype).reshape(self.shape)


def description(dtype: str, shape: Iterable[int], key: str | None) -> str:
    """Return the dtype, shape and kind of key of an array, as text that a checksum covers."""
    return f"{dtype}{list(shape)}{key or ''}"


def aligned(nbytes: int) -> int:
    """Return the bytes that a packed array takes, up to the beginning of the next one."""
    return -(-max(nbytes, 1) // _ALIGNMENT) * _ALIGNMENT


def stored_array(entry: Json) -> StoredArray:
    """Return the array that an entry describes.

    Raises:
      ValueError: no array can be stored so.
    """
    shape, dtype = tuple(entry["shape"]), stored_dtype(entry["dtype"])
    array_nbytes(shape, dtype)
    stored = StoredArray(
        parts=_parts(entry["array"]),
        dtype=dtype,
        shape=shape,
        crc32=_crc32(entry["crc32"], shape),
        bytes=entry.get("bytes", False),
        at=entry.get("at", 0),
        key=entry.get("key"),
    )
    offset_allowed = stored.packed and stored.at >= 0 and stored.at % _ALIGNMENT == 0
    if type(stored.bytes) is not bool or type(stored.at) is not int:
        raise ValueError("invalid storage of an array")
    if not (offset_allowed or stored.at == 0) or stored.packed > stored.bytes:
        raise ValueError(f"invalid offset {stored.at} of an array")
    return stored


@cache
def stored_dtype(name: str) -> np.dtype[Any]:
    """Return the numeric dtype of a name."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    if dtype.name != name or not isnumber(dtype):
        raise ValueError(f"invalid dtype {name!r:.80}")
    return dtype


def check_packed(arrays: Iterable[StoredArray]) -> None:
    """Refuse packed arrays that do not follow one another: overlaps would be read repeatedly."""
    end = 0
    for x in sorted((x for x in arrays if x.packed), key=lambda x: x.at):
        if x.at != end:
            raise ValueError("packed arrays that overlap or leave gaps")
        end = x.at + aligned(x.nbytes)
    array_nbytes((end,), np.uint8)


def _parts(names: Json) -> tuple[str, ...]:
    """Return the path of an array, which cannot leave the checkpoint."""
    parts = tuple(names)
    if not parts or not all(isinstance(x, str) and x and not {"/", "."} & set(x) for x in parts):
        raise ValueError(f"invalid name {parts!s:.80} of an array")
    return parts


def _crc32(entry: Json, shape: tuple[int, ...]) -> Checksum:
    """Return the checksum of an array, whose shards cannot be more than the array has."""
    if type(entry) is int:
        return entry
    size = 0
    for starts, stops, crc32 in entry:
        bounds = list(zip(starts, stops, shape, strict=True))
        ordered = all(
            type(low) is type(high) is int and 0 <= low <= high <= n for low, high, n in bounds
        )
        if not ordered or type(crc32) is not int:
            raise ValueError("invalid checksums of an array")
        size += math.prod(high - low for low, high, _ in bounds)
    if size != math.prod(shape):
        raise ValueError("checksums of another shape")
    checksums: Checksum = entry
    return checksums


def decode(structure: Json, make: Callable[[StoredArray], Any], /) -> tuple[Any, Ties]:
    """Return the state that `encode` was given, with `make(stored)` for arrays, and its ties.

    Raises:
      CheckpointError: another version of jtree wrote this, or it is malformed.
      ChecksumError: the structure is not what was written.
    """
    version = structure.get("format") if isinstance(structure, dict) else structure
    if version != FORMAT:
        raise CheckpointError(
            f"expected jtree's checkpoint format {FORMAT}, found {version!r:.80}; use the version "
            "of jtree that wrote it"
        )
    arrays: dict[Any, tuple[StoredArray, Any]] = {}

    def make_cached(stored: StoredArray) -> Any:
        name = stored.parts, stored.at
        if name not in arrays:
            arrays[name] = stored, make(stored)
        if arrays[name][0] != stored:
            raise ValueError(f"two descriptions of the array {'/'.join(stored.parts)}")
        return arrays[name][1]

    try:
        if structure.get("crc32") != structure_crc32(structure):
            raise ChecksumError(
                "checksum mismatch in the structure of the state; use another copy of this "
                "checkpoint"
            )
        text = structure["structure"].encode(errors="surrogatepass")
        check_json(text)
        if not isinstance(structure["metadata"], dict):
            raise ValueError("expected a dict of metadata")
        content = json.loads(text)
        tree = _decode(content["tree"], make_cached)
        check_packed(stored for stored, _ in arrays.values())
        return tree, tuple(map(_tied_paths, content["ties"]))
    except CheckpointError:
        raise
    except Exception as error:  # parsers of JSON and of dtypes raise nearly everything
        raise CheckpointError(f"malformed structure of the state: {error!r:.300}") from error


def structure_crc32(structure: Json) -> int:
    """Return the checksum of what the metadata says of a state."""
    text = str(structure.get("structure")) + json.dumps(structure.get("metadata"), sort_keys=True)
    return zlib.crc32(text.encode(errors="surrogatepass"))


def _decode(entry: Json, make: Callable[[StoredArray], Any]) -> Any:
    if not isinstance(entry, dict):
        return entry
    if "array" in entry:
        return make(stored_array(entry))
    if "dict" in entry:
        node = {_decode(key, make): _decode(x, make) for key, x in entry["dict"]}
        if len(node) != len(entry["dict"]):
            raise ValueError("a dict with one key twice")
        return node
    for cls in (list, tuple):
        if cls.__name__ in entry:
            return cls(_decode(x, make) for x in entry[cls.__name__])
    return _decode_basic(entry)


def _tied_paths(group: Json) -> tuple[str, ...]:
    if not (isinstance(group, list) and group and all(isinstance(path, str) for path in group)):
        raise ValueError("ties that are not paths")
    return tuple(group)


def _decode_basic(entry: Json) -> Any:
    ((kind, text),) = entry.items()
    if kind == "bytes":
        return base64.b64decode(text)
    if kind == "scalar":
        dtype, data = text
        (number,) = np.frombuffer(base64.b64decode(data), stored_dtype(dtype))
        return number
    if kind == "str":
        return base64.b64decode(text).decode("utf-8", "surrogatepass")
    if kind == "int":
        if len(text) > INT_DIGITS:
            raise ValueError(f"an integer of {len(text):,} digits")
        return int(text, 0)
    return {"float": float, "complex": complex}[kind](text)
