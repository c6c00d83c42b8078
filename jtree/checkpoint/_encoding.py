"""A state as JSON and a tree of arrays that Orbax can store, and back.

Orbax keeps arrays, but not the containers around them, nor every dtype. So the containers and the
basic leaves go into the checkpoint's metadata as JSON, and what Orbax cannot store goes into it as
bytes. The arrays are where plain Orbax finds them: in nested dicts, by the names of the fields.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from .. import _path
from .._errors import CheckpointError, ChecksumError, ModelError
from .._leaves import check_alive, describe, isconcrete
from .._walk import Walk, walk

Json: TypeAlias = Any

FORMAT = 1
ROOT = "%"  # the name of an array that is the whole state, or of none: Orbax wants one
_NATIVE = {np.dtype(code).name for code in "?bhiqBHIQefdFD"} | {"bfloat16"}
_ESCAPES = str.maketrans({"%": "%25", ".": "%2E", "/": "%2F"})


def encode(state: Any, /) -> tuple[Json, dict[str, Any]]:
    """Return the structure of a state as JSON, and its arrays as nested dicts.

    >>> structure, arrays = encode({"w": np.ones(2), "rates": (0.1, None)})
    >>> arrays
    {'w': array([1., 1.])}
    >>> decode(structure, arrays)
    {'rates': (0.1, None), 'w': array([1., 1.])}
    """
    walked = walk(state, ties=())
    arrays: dict[str, Any] = {}
    leaves = _encode_leaves(walked, arrays)
    tree = walked.fold(lambda _: next(leaves), _encode_node)
    return {"format": FORMAT, "tree": tree, "crc32": _json_crc32(tree)}, arrays or {
        ROOT: np.zeros(1, np.uint8)
    }


def decode(structure: Json, arrays: Mapping[str, Any], /, *, verify: bool = True) -> Any:
    """Return the state that `encode` was given, with NumPy arrays.

    Raises:
      CheckpointError: a newer version of jtree wrote this.
      ChecksumError: arrays are not what was written; the message names them.
    """
    if structure.get("format") != FORMAT:
        raise CheckpointError(
            f"expected jtree's checkpoint format {FORMAT}, found {structure.get('format')!r}; "
            "it may need a newer version of jtree"
        )
    if verify and structure.get("crc32") != _json_crc32(structure.get("tree")):
        raise ChecksumError("the structure that was read is not the one that was written")
    damaged: list[str] = []
    try:
        state = _decode(structure["tree"], arrays, damaged)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the structure cannot be understood: {error!r}") from error
    if damaged and verify:
        raise ChecksumError(
            f"the bytes of {_path.shorten(damaged)} are not those that were written; "
            "use another copy of this checkpoint, or verify=False to see what is left"
        )
    return state


def _encode_leaves(walked: Walk, arrays: dict[str, Any]) -> Iterator[Json]:
    for slot, keys in zip(walked.slots, walked.keys, strict=True):
        if not (isconcrete(slot.value) or isinstance(slot.value, np.generic)):
            yield _encode_basic(slot.path, slot.value)
            continue
        check_alive(slot.path, slot.value)
        entry, stored = _encode_array(slot.path, slot.value)
        parts = [_path.text(key).translate(_ESCAPES) or ROOT for key in keys] or [ROOT]
        _insert(arrays, parts, stored)
        yield {**entry, "array": parts}


def _encode_array(path: str, x: Any) -> tuple[Json, Any]:
    """Return what JSON says of an array, and the array that stands for it in the checkpoint."""
    entry: dict[str, Json] = {}
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        entry["key"] = str(jax.random.key_impl(x))
        x = jax.random.key_data(x)
    if isinstance(x, np.generic):
        entry["scalar"] = True
        x = np.asarray(x)
    host = np.asarray(x)
    if not host.dtype.isnative:
        x = host = host.astype(host.dtype.newbyteorder("="))
    if host.dtype.kind not in "biufcV" or host.dtype.fields is not None:
        raise ModelError(f"{_path.show(path)}: cannot save {describe(host)}; save numbers")
    entry |= {"dtype": host.dtype.name, "shape": list(host.shape), "crc32": _crc32(host)}
    if host.size and host.dtype.name in _NATIVE:
        return entry, x
    return {**entry, "bytes": True}, np.frombuffer(host.tobytes() or b"\0", np.uint8)


def _decode_array(entry: Json, arrays: Mapping[str, Any], damaged: list[str]) -> Any:
    stored: Any = arrays
    for part in entry["array"]:
        stored = stored[part]
    x = np.asarray(stored)
    if entry.get("bytes"):
        size = math.prod(entry["shape"])
        dtype = np.dtype(getattr(ml_dtypes, entry["dtype"], entry["dtype"]))
        x = np.frombuffer(x.tobytes(), dtype, size).reshape(entry["shape"])
    if _crc32(x) != entry["crc32"]:
        damaged.append(_path.join(entry["array"]))
    if "key" in entry:
        return jax.random.wrap_key_data(jnp.asarray(x), impl=entry["key"])
    return x[()] if entry.get("scalar") else x


def _encode_node(node: Any, names: list[Any], children: list[Json]) -> Json:
    if isinstance(node, dict):
        keys = [_encode_basic("a key", key) for key in names]
        return {"dict": [list(pair) for pair in zip(keys, children, strict=True)]}
    return {type(node).__name__: children}


def _decode(entry: Json, arrays: Mapping[str, Any], damaged: list[str]) -> Any:
    if not isinstance(entry, dict):
        return entry
    if "array" in entry:
        return _decode_array(entry, arrays, damaged)
    if "dict" in entry:
        pairs = entry["dict"]
        return {_decode(key, arrays, damaged): _decode(x, arrays, damaged) for key, x in pairs}
    for cls in (list, tuple):
        if cls.__name__ in entry:
            return cls(_decode(x, arrays, damaged) for x in entry[cls.__name__])
    return _decode_basic(entry)


def _encode_basic(path: str, x: Any) -> Json:
    """Return a basic leaf as JSON: as it is, or as {type: text} where JSON has no such thing."""
    if x is None or isinstance(x, bool | str):
        return x
    if isinstance(x, bytes):
        return {"bytes": base64.b64encode(x).decode()}
    for cls in (int, float, complex):
        if isinstance(x, cls):
            return {cls.__name__: cls.__repr__(x)}
    raise ModelError(f"{_path.show(path)}: cannot save {describe(x)}; save arrays and basic values")


def _decode_basic(entry: Json) -> Any:
    ((kind, text),) = entry.items()
    if kind == "bytes":
        return base64.b64decode(text)
    return {"int": int, "float": float, "complex": complex}[kind](text)


def _insert(arrays: dict[str, Any], parts: list[str], x: Any) -> None:
    *above, last = parts
    for part in above:
        arrays = arrays.setdefault(part, {})
    arrays[last] = x


def _json_crc32(tree: Json) -> int:
    return zlib.crc32(json.dumps(tree, sort_keys=True).encode())


def _crc32(x: np.ndarray[Any, Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data) if x.size else 0
