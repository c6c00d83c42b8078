"""A state from the JSON in a checkpoint's metadata; see `encoding` for what is where."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np

from ..._errors import CheckpointError, ChecksumError
from .checksum import Checksum

Json: TypeAlias = Any
Ties: TypeAlias = tuple[tuple[str, ...], ...]

KEY = "jtree"  # the key of jtree's part of a checkpoint's metadata
FORMAT = 2
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

    def decode(self, x: Any) -> Any:
        """Return the array from the one that Orbax stores for it."""
        if not self.bytes:
            return x
        data = np.asarray(x)[self.at : self.at + self.nbytes]
        # Bytes whose file is gone come as one value that is repeated, which has no view.
        return np.ascontiguousarray(data).view(self.dtype).reshape(self.shape)


def decode(structure: Json, make: Callable[[StoredArray], Any], /) -> tuple[Any, Ties]:
    """Return the state that `encode` was given, with `make(stored)` for arrays, and its ties.

    Raises:
      CheckpointError: another version of jtree wrote this, or it is malformed.
      ChecksumError: the structure is not what was written.
    """
    version = structure.get("format") if isinstance(structure, dict) else structure
    if version != FORMAT:
        raise CheckpointError(
            f"expected jtree's checkpoint format {FORMAT}, found {version!r}; use the version of "
            "jtree that wrote it"
        )
    if structure.get("crc32") != structure_crc32(structure):
        raise ChecksumError(
            "checksum mismatch in the structure of the state; use another copy of this checkpoint"
        )
    arrays: dict[Any, Any] = {}

    def make_cached(stored: StoredArray) -> Any:
        name = stored.parts, stored.at
        if name not in arrays:
            arrays[name] = make(stored)
        return arrays[name]

    try:
        content = json.loads(structure["structure"])
        return _decode(content["tree"], make_cached), tuple(map(tuple, content["ties"]))
    except Exception as error:  # parsers of JSON and of dtypes raise nearly everything
        raise CheckpointError(f"malformed structure of the state: {error!r}") from error


def aligned(nbytes: int) -> int:
    """Return the bytes that a packed array takes, up to the beginning of the next one."""
    return -(-max(nbytes, 1) // _ALIGNMENT) * _ALIGNMENT


def structure_crc32(structure: Json) -> int:
    """Return the checksum of what the metadata says of a state."""
    text = str(structure.get("structure")) + json.dumps(structure.get("metadata"), sort_keys=True)
    return zlib.crc32(text.encode(errors="surrogatepass"))


def _decode(entry: Json, make: Callable[[StoredArray], Any]) -> Any:
    if not isinstance(entry, dict):
        return entry
    if "array" in entry:
        return make(_stored_array(entry))
    if "dict" in entry:
        return {_decode(key, make): _decode(x, make) for key, x in entry["dict"]}
    for cls in (list, tuple):
        if cls.__name__ in entry:
            return cls(_decode(x, make) for x in entry[cls.__name__])
    return _decode_basic(entry)


def _stored_array(entry: Json) -> StoredArray:
    return StoredArray(
        parts=tuple(entry["array"]),
        dtype=_dtype(entry["dtype"]),
        shape=tuple(entry["shape"]),
        crc32=entry["crc32"],
        bytes=entry.get("bytes", False),
        at=entry.get("at", 0),
        key=entry.get("key"),
    )


@cache
def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def _decode_basic(entry: Json) -> Any:
    ((kind, text),) = entry.items()
    if kind == "bytes":
        return base64.b64decode(text)
    if kind == "scalar":
        dtype, data = text
        return np.frombuffer(base64.b64decode(data), _dtype(dtype))[0]
    if kind == "str":
        return base64.b64decode(text).decode("utf-8", "surrogatepass")
    if kind == "int":
        return int(text, 0)
    return {"float": float, "complex": complex}[kind](text)
