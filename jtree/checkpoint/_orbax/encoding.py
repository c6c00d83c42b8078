"""A state as JSON and a tree of arrays that Orbax can store.

Orbax keeps arrays, but not the containers around them, nor every dtype. So the containers and the
basic leaves go into the checkpoint's metadata as JSON, and arrays that Orbax cannot store are
stored as bytes. Plain Orbax finds the arrays in nested dicts, by the names of the fields.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import ModelError
from ..._text import plural
from ..._tree import paths
from ..._tree.leaves import check_alive, describe, isabstract, isconcrete, isnumber, istracer
from ..._tree.walk import Walk, walk
from .._formats.limits import check_json
from .checksum import bind, checksum, map_in_threads
from .decoding import FORMAT, INT_DIGITS, PACK, Json, Ties, aligned, description, structure_crc32

PACKED_BYTES = 2**20  # the largest array that is packed
MOST_SEPARATE = 5_000  # small arrays that are not packed unless asked for
_ROOT = "%"  # the name of an array that is the whole state, or of none: Orbax needs one
_NATIVE = {np.dtype(code).name for code in "?bhiqBHIQefdFD"} | {"bfloat16"}
_ESCAPES = str.maketrans({"%": "%25", ".": "%2E", "/": "%2F"})
_SURROGATE = re.compile("[\ud800-\udfff]")  # has no UTF-8


def encode(
    state: Any,
    /,
    *,
    ties: Ties = (),
    packed: bool | None = False,
    metadata: Json = None,
    checksums: Mapping[str, int] = MappingProxyType({}),
) -> tuple[Json, dict[str, Any]]:
    """Return the structure of a state as JSON, and its arrays as nested dicts.

    The large part of the JSON is text, so that Orbax need not parse it with the metadata.

    Args:
      state: nested dicts, lists and tuples.
      ties: the paths of each array that is at several; it is stored once.
      packed: True stores all arrays of up to a mebibyte as one; None does if they are many.
      metadata: JSON of the user.
      checksums: checksums that are known already, by path.

    >>> structure, arrays = encode({"w": np.ones(2), "rates": (0.1, None)})
    >>> arrays
    {'w': array([1., 1.])}
    >>> from jtree.checkpoint._orbax.decoding import decode
    >>> tree, ties = decode(structure, lambda stored: f"at {stored.parts}")
    >>> tree
    {'rates': (0.1, None), 'w': "at ('w',)"}
    """
    walked = walk(state, ties=())
    _check_keys(walked)
    pack = _are_many(walked.values) if packed is None else packed
    entries, arrays = _encode_leaves(walked, ties, pack, checksums)
    leaves = iter(entries)
    tree = walked.fold(lambda _: next(leaves), _encode_node)
    text = json.dumps({"tree": tree, "ties": ties}, separators=(",", ":"))
    _check_size(text, len(entries))
    structure = {"format": FORMAT, "structure": text, "metadata": metadata or {}}
    structure["crc32"] = structure_crc32(structure)
    return structure, arrays or {_ROOT: np.zeros(1, np.uint8)}


def _are_many(values: Iterable[Any]) -> bool:
    """Return whether small arrays are many; Orbax takes about a millisecond for each."""
    arrays = (x for x in values if isconcrete(x) and _nbytes(x) <= PACKED_BYTES)
    small = [getattr(x, "is_fully_addressable", True) for x in arrays]
    return len(small) > MOST_SEPARATE and all(small)


def _check_size(text: str, leaves: int) -> None:
    """Refuse a structure that `open` would refuse, before anything is written."""
    try:
        check_json(text.encode(errors="surrogatepass"))
    except ValueError as error:
        raise ModelError(
            f"cannot save a state of {plural(leaves, 'leaf', 'leaves')}: {error}; store long lists "
            "as arrays, or save the state in parts"
        ) from error


class _NamedArray(NamedTuple):
    """An array that is to be stored, and its path in the nested dicts."""

    parts: list[str]
    array: Any
    packed: bool


def _check_keys(walked: Walk) -> None:
    """Refuse keys that JSON cannot hold, with the path of their dict."""
    for path, node in walked.nodes:
        for key in node if isinstance(node, dict) else ():
            if type(key) is not str:
                try:
                    _encode_basic(path, key)
                except ModelError as error:
                    raise ModelError(
                        f"{paths.show(path)}: cannot save the key {key!r}; use keys that are text, "
                        "numbers, bools or None"
                    ) from error


def _encode_leaves(
    walked: Walk, ties: Ties, packed: bool, checksums: Mapping[str, int]
) -> tuple[list[Json], dict[str, Any]]:
    """Return the JSON of every leaf, and the arrays as nested dicts."""
    first = {path: group[0] for group in ties for path in group}
    entries: dict[str, Json] = {}
    named: dict[str, _NamedArray] = {}
    for slot, keys in zip(walked.slots, walked.keys, strict=True):
        if not isconcrete(slot.value):
            entries[slot.path] = _encode_basic(slot.path, slot.value)
        elif first.get(slot.path, slot.path) == slot.path:
            parts = [_escape(paths.segment(key)) for key in keys] or [_ROOT]
            entries[slot.path], x = _encode_array(slot.path, slot.value)
            is_packed = packed and _nbytes(x) <= PACKED_BYTES
            named[slot.path] = _NamedArray(parts, np.asarray(x) if is_packed else x, is_packed)
    unknown = [path for path in named if path not in checksums]
    computed = map_in_threads(checksum, [named[path].array for path in unknown])
    known = {**checksums, **dict(zip(unknown, computed, strict=True))}
    for path, x in named.items():
        entry = entries[path]
        described = description(entry["dtype"], entry["shape"], entry.get("key"))
        entry |= {"crc32": bind(known[path], described), "array": x.parts}
    arrays = _nest(entries, named)
    return [entries[first.get(slot.path, slot.path)] for slot in walked.slots], arrays


def _escape(name: str) -> str:
    """Return a name in a form that Orbax accepts."""
    return _SURROGATE.sub(lambda x: f"%u{ord(x[0]):X}", name.translate(_ESCAPES)) or _ROOT


def _nest(entries: dict[str, Json], named: dict[str, _NamedArray]) -> dict[str, Any]:
    """Return arrays as nested dicts; packed ones and those that Orbax cannot store, as bytes."""
    arrays: dict[str, Any] = {}
    pack, end = [], 0
    for path, (parts, x, packed) in named.items():
        if packed:
            entries[path] |= {"array": [PACK], "bytes": True, "at": end}
            pack.append((end, x))
            end += aligned(_nbytes(x))
        elif _nbytes(x) and _dtype_name(x.dtype) in _NATIVE:
            _insert(arrays, parts, x)
        else:
            entries[path]["bytes"] = True
            data = _to_bytes(np.asarray(x)) if _nbytes(x) else np.zeros(1, np.uint8)
            _insert(arrays, parts, data)
    if pack:
        arrays[PACK] = np.zeros(max(end, 1), np.uint8)
        for at, host in pack:
            arrays[PACK][at : at + host.nbytes] = _to_bytes(host)
    return arrays


def _insert(arrays: dict[str, Any], parts: list[str], x: Any) -> None:
    *above, last = parts
    for part in above:
        arrays = arrays.setdefault(part, {})
    arrays[last] = x


def _encode_array(path: str, x: Any) -> tuple[Json, Any]:
    """Return the JSON of an array, and the numeric array that is stored for it."""
    check_alive(path, x)
    entry: dict[str, Json] = {}
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        entry["key"] = str(jax.random.key_impl(x))
        x = jax.random.key_data(x)
    if not isnumber(x.dtype):
        raise ModelError(
            f"{paths.show(path)}: cannot save {describe(x)}; save an array of a numeric dtype"
        )
    if isinstance(x, np.ndarray) and not x.dtype.isnative:
        x = x.astype(x.dtype.newbyteorder("="))
    return {**entry, "dtype": _dtype_name(x.dtype), "shape": list(x.shape)}, x


def _nbytes(x: Any) -> int:
    """Return the bytes of an array; `x.nbytes` takes JAX longer."""
    nbytes: int = math.prod(x.shape) * x.dtype.itemsize
    return nbytes


def _to_bytes(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8)


@cache
def _dtype_name(dtype: np.dtype[Any]) -> str:
    return dtype.name


def _encode_node(node: Any, names: list[Any], children: list[Json]) -> Json:
    if isinstance(node, dict):
        keys = [_encode_basic("a key", key) for key in names]
        return {"dict": [list(pair) for pair in zip(keys, children, strict=True)]}
    return {type(node).__name__: children}


def _encode_basic(path: str, x: Any) -> Json:
    """Return a basic leaf as JSON: as it is, or as {type: text} where JSON lacks the type."""
    if isinstance(x, str) and _SURROGATE.search(x):  # JSON would join two of them
        return {"str": base64.b64encode(x.encode("utf-8", "surrogatepass")).decode()}
    if x is None or type(x) in (bool, str):
        return x
    if type(x) is int and abs(x) >= 2**64:  # Python refuses to write long ones in decimals
        if len(text := hex(x)) > INT_DIGITS:
            raise ModelError(
                f"{paths.show(path)}: cannot save {describe(x)}: expected at most "
                f"{INT_DIGITS:,} hexadecimal digits; save it as bytes"
            )
        return {"int": text}
    if isinstance(x, np.generic) and isnumber(x.dtype):
        number = np.asarray(x, x.dtype.newbyteorder("="))
        return {"scalar": [number.dtype.name, base64.b64encode(number.tobytes()).decode()]}
    if isinstance(x, bytes):
        return {"bytes": base64.b64encode(x).decode()}
    if type(x) in (int, float, complex):
        return {type(x).__name__: repr(x)}
    remedy = "save arrays and basic values"
    if istracer(x):
        remedy = "it is traced; save outside of jit"
    elif isabstract(x):
        remedy = "it is abstract; save a model with values"
    raise ModelError(f"{paths.show(path)}: cannot save {describe(x)}; {remedy}")
