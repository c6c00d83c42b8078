"""A state from the JSON in a checkpoint's metadata; see `encoding` for what is where."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ..._errors import CheckpointError, ChecksumError
from .._formats.limits import check_json
from .stored import StoredArray, check_packed, stored_array, stored_dtype

Json: TypeAlias = Any
Ties: TypeAlias = tuple[tuple[str, ...], ...]

KEY = "jtree"  # the key of jtree's part of a checkpoint's metadata
FORMAT = 3
INT_DIGITS = 100_000  # of an integer in hexadecimals, which take linear time


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
