"""A state as JSON and a tree of arrays that Orbax can store, and back.

Orbax keeps arrays, but not the containers around them, nor every dtype. So the containers and the
basic leaves go into the checkpoint's metadata as JSON, and what Orbax cannot store goes into it as
bytes. The arrays are where plain Orbax finds them: in nested dicts, by the names of the fields.
"""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from ..._errors import CheckpointError, ChecksumError, ModelError
from ..._tree import paths
from ..._tree.leaves import check_alive, describe, isabstract, isconcrete, isnumber, istracer
from ..._tree.walk import Walk, walk
from .checksum import Checksum, checksum, in_threads

Json: TypeAlias = Any
Ties: TypeAlias = tuple[tuple[str, ...], ...]

FORMAT = 2
ROOT = "%"  # the name of an array that is the whole state, or of none: Orbax wants one
PACK = "%packed"  # the name of the array that holds the bytes of all small ones
SMALL = 2**20  # bytes of an array that is packed at the most
_ALIGN = 64  # bytes: what JAX needs to take an array as it is
_NATIVE = {np.dtype(code).name for code in "?bhiqBHIQefdFD"} | {"bfloat16"}
_ESCAPES = str.maketrans({"%": "%25", ".": "%2E", "/": "%2F"})
_SURROGATE = re.compile("[\ud800-\udfff]")  # has no UTF-8


class Stored(NamedTuple):
    """An array in a checkpoint: what it is, and how it is stored."""

    parts: tuple[str, ...]  # where it is in the nested dicts
    dtype: Any
    shape: tuple[int, ...]
    crc32: Checksum
    bytes: bool = False  # as bytes, from `at` on
    at: int = 0
    key: str | None = None  # the kind of PRNG keys that these are the data of

    def decode(self, x: Any) -> Any:
        """Return the numbers that were encoded, from the array that stands for them."""
        if not self.bytes:
            return x
        data = np.asarray(x)[self.at : self.at + self.nbytes]
        # Bytes whose file is gone come as one value at all places, which has no view.
        return np.ascontiguousarray(data).view(self.dtype).reshape(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes that it takes in memory."""
        return math.prod(self.shape) * int(self.dtype.itemsize)


def encode(
    state: Any,
    /,
    *,
    ties: Ties = (),
    packed: bool = False,
    metadata: Json = None,
    checksums: Mapping[str, int] = MappingProxyType({}),
) -> tuple[Json, dict[str, Any]]:
    """Return the structure of a state as JSON, and its arrays as nested dicts.

    What is large in it is text, which Orbax need not parse each time it looks at the metadata.

    Args:
      state: nested dicts, lists and tuples.
      ties: paths of places that hold one array, which is stored once.
      packed: True stores all arrays of up to a mebibyte as one.
      metadata: JSON of the user's.
      checksums: those that are known already, by path.

    >>> structure, arrays = encode({"w": np.ones(2), "rates": (0.1, None)})
    >>> arrays
    {'w': array([1., 1.])}
    >>> tree, ties = decode(structure, lambda stored: f"at {stored.parts}")
    >>> tree
    {'rates': (0.1, None), 'w': "at ('w',)"}
    """
    walked = walk(state, ties=())
    _check_keys(walked)
    arrays: dict[str, Any] = {}
    leaves = iter(_encode_leaves(walked, arrays, ties, packed, checksums))
    tree = walked.fold(lambda _: next(leaves), _encode_node)
    text = json.dumps({"tree": tree, "ties": ties}, separators=(",", ":"))
    structure = {"format": FORMAT, "structure": text, "metadata": metadata or {}}
    structure["crc32"] = _text_crc32(structure)
    return structure, arrays or {ROOT: np.zeros(1, np.uint8)}


def decode(structure: Json, make: Callable[[Stored], Any], /) -> tuple[Any, Ties]:
    """Return the state that `encode` was given, with `make(stored)` for arrays, and its ties.

    Raises:
      CheckpointError: another version of jtree wrote this, or it cannot be understood.
      ChecksumError: the structure is not what was written.
    """
    written = structure.get("format") if isinstance(structure, dict) else structure
    if written != FORMAT:
        raise CheckpointError(
            f"expected jtree's checkpoint format {FORMAT}, found {written!r}; "
            "use the version of jtree that wrote it"
        )
    if structure.get("crc32") != _text_crc32(structure):
        raise ChecksumError("the structure that was read is not the one that was written")
    made: dict[Any, Any] = {}

    def once(stored: Stored) -> Any:
        place = stored.parts, stored.at
        if place not in made:
            made[place] = make(stored)
        return made[place]

    try:
        found = json.loads(structure["structure"])
        return _decode(found["tree"], once), tuple(map(tuple, found["ties"]))
    except Exception as error:  # parsers of JSON and of dtypes raise nearly everything
        raise CheckpointError(f"the structure cannot be understood: {error!r}") from error


def aligned(nbytes: int) -> int:
    """Return the bytes that a packed array takes, up to where the next one begins."""
    return -(-max(nbytes, 1) // _ALIGN) * _ALIGN


def _check_keys(walked: Walk) -> None:
    """Refuse keys that JSON cannot hold, with the path of their dict."""
    for path, node in walked.nodes:
        for key in node if isinstance(node, dict) else ():
            if type(key) is not str:
                _encode_basic(f"{paths.show(path)}: the key {key!r}", key)


def _encode_leaves(
    walked: Walk, arrays: dict[str, Any], ties: Ties, packed: bool, checksums: Mapping[str, int]
) -> Iterable[Json]:
    """Return what JSON says of every leaf, and put the arrays where they are stored."""
    first = {path: group[0] for group in ties for path in group}
    entries: dict[str, Json] = {}
    held: dict[str, tuple[list[str], Any]] = {}
    for slot, keys in zip(walked.slots, walked.keys, strict=True):
        if not isconcrete(slot.value):
            entries[slot.path] = _encode_basic(slot.path, slot.value)
        elif first.get(slot.path, slot.path) == slot.path:
            parts = [_part(paths.segment(key)) for key in keys] or [ROOT]
            entries[slot.path], x = _encode_array(slot.path, slot.value)
            held[slot.path] = parts, np.asarray(x) if packed and _size(x) <= SMALL else x
    unknown = [path for path in held if path not in checksums]
    sums = in_threads(checksum, [held[path][1] for path in unknown])
    known = {**checksums, **dict(zip(unknown, sums, strict=True))}
    for path, (parts, _) in held.items():
        entries[path] |= {"crc32": known[path], "array": parts}
    _store(entries, held, arrays, packed)
    return [entries[first.get(slot.path, slot.path)] for slot in walked.slots]


def _part(name: str) -> str:
    """Return the name of an array, or of what it is in, as Orbax takes it."""
    return _SURROGATE.sub(lambda x: f"%u{ord(x[0]):X}", name.translate(_ESCAPES)) or ROOT


def _store(
    entries: dict[str, Json],
    held: dict[str, tuple[list[str], Any]],
    arrays: dict[str, Any],
    packed: bool,
) -> None:
    """Put arrays into nested dicts, those that Orbax does not take and packed ones as bytes."""
    pack, end = [], 0
    for path, (parts, x) in held.items():
        if packed and _size(x) <= SMALL:
            entries[path] |= {"array": [PACK], "bytes": True, "at": end}
            pack.append((end, x))
            end += aligned(_size(x))
        elif _size(x) and _name(x.dtype) in _NATIVE:
            _insert(arrays, parts, x)
        else:
            entries[path]["bytes"] = True
            _insert(arrays, parts, _bytes(np.asarray(x)) if _size(x) else np.zeros(1, np.uint8))
    if pack:
        arrays[PACK] = np.zeros(max(end, 1), np.uint8)
        for at, host in pack:
            arrays[PACK][at : at + host.nbytes] = _bytes(host)


def _encode_array(path: str, x: Any) -> tuple[Json, Any]:
    """Return what JSON says of an array, and the array of numbers that it is."""
    check_alive(path, x)
    entry: dict[str, Json] = {}
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        entry["key"] = str(jax.random.key_impl(x))
        x = jax.random.key_data(x)
    if not isnumber(x.dtype):
        raise ModelError(f"{paths.show(path)}: cannot save {describe(x)}; save numbers")
    if isinstance(x, np.ndarray) and not x.dtype.isnative:
        x = x.astype(x.dtype.newbyteorder("="))
    return {**entry, "dtype": _name(x.dtype), "shape": list(x.shape)}, x


def _size(x: Any) -> int:
    """Return the bytes of an array; `x.nbytes` takes JAX longer."""
    size: int = math.prod(x.shape) * x.dtype.itemsize
    return size


def _bytes(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8)


def _stored(entry: Json) -> Stored:
    return Stored(
        parts=tuple(entry["array"]),
        dtype=_dtype(entry["dtype"]),
        shape=tuple(entry["shape"]),
        crc32=entry["crc32"],
        bytes=entry.get("bytes", False),
        at=entry.get("at", 0),
        key=entry.get("key"),
    )


@cache
def _name(dtype: np.dtype[Any]) -> str:
    return dtype.name


@cache
def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def _encode_node(node: Any, names: list[Any], children: list[Json]) -> Json:
    if isinstance(node, dict):
        keys = [_encode_basic("a key", key) for key in names]
        return {"dict": [list(pair) for pair in zip(keys, children, strict=True)]}
    return {type(node).__name__: children}


def _decode(entry: Json, make: Callable[[Stored], Any]) -> Any:
    if not isinstance(entry, dict):
        return entry
    if "array" in entry:
        return make(_stored(entry))
    if "dict" in entry:
        return {_decode(key, make): _decode(x, make) for key, x in entry["dict"]}
    for cls in (list, tuple):
        if cls.__name__ in entry:
            return cls(_decode(x, make) for x in entry[cls.__name__])
    return _decode_basic(entry)


def _encode_basic(path: str, x: Any) -> Json:
    """Return a basic leaf as JSON: as it is, or as {type: text} where JSON has no such thing."""
    if isinstance(x, str) and _SURROGATE.search(x):  # JSON would join two of them
        return {"str": base64.b64encode(x.encode("utf-8", "surrogatepass")).decode()}
    if x is None or type(x) in (bool, str):
        return x
    if isinstance(x, int) and abs(x) >= 2**64:  # Python refuses to write long ones in decimals
        return {"int": hex(x)}
    if isinstance(x, np.generic) and isnumber(x.dtype):
        number = np.asarray(x, x.dtype.newbyteorder("="))
        return {"scalar": [number.dtype.name, base64.b64encode(number.tobytes()).decode()]}
    if isinstance(x, bytes):
        return {"bytes": base64.b64encode(x).decode()}
    for cls in (str, int, float, complex):
        if isinstance(x, cls) and not isinstance(x, np.generic):
            return {cls.__name__: cls.__repr__(x)} if cls is not str else cls.__str__(x)
    what = "save arrays and basic values"
    if isabstract(x) or istracer(x):
        what = "it has no numbers" + (" yet; save outside of jit" if istracer(x) else "")
    raise ModelError(f"{paths.show(path)}: cannot save {describe(x)}; {what}")


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


def _insert(arrays: dict[str, Any], parts: list[str], x: Any) -> None:
    *above, last = parts
    for part in above:
        arrays = arrays.setdefault(part, {})
    arrays[last] = x


def _text_crc32(structure: Json) -> int:
    text = str(structure.get("structure")) + json.dumps(structure.get("metadata"), sort_keys=True)
    return zlib.crc32(text.encode(errors="surrogatepass"))
