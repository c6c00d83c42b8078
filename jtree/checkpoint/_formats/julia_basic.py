"""Numbers, characters, dictionaries and lists of Julia as Python has them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..._tree.lazy import LazyArray
from .julia_values import DTYPES, JuliaDict
from .limits import Budget, array_nbytes

_PAIRS: dict[
    Any, Any
] = {  # dtypes of the parts of other complex numbers, and what holds such numbers
    np.dtype("<f2"): np.dtype("<c8"),
    np.dtype("<i4"): np.dtype("<c16"),
    np.dtype("<i8"): np.dtype("<c16"),
}


def join_complex(pairs: LazyArray) -> LazyArray:
    """Return complex numbers, of pairs whose dtype NumPy has no complex dtype for."""
    dtype = _PAIRS.get(pairs.dtype)
    if dtype is None:
        return pairs

    def read() -> np.ndarray[Any, Any]:
        array: np.ndarray[Any, Any] = np.empty(pairs.shape[1:], dtype)
        array.real, array.imag = pairs.read()
        return array

    source: Any = pairs.source
    joined: LazyArray = source.add_named(source.names[pairs.name], pairs.shape[1:], dtype, read)
    return joined


def primitive(name: str, data: bytes) -> Any:
    """Return a number or a character that is stored as bytes."""
    if name in DTYPES and len(data) == DTYPES[name].itemsize:
        return np.frombuffer(data, DTYPES[name])[0]
    if name == "Char" and len(data) == 4:
        return data[::-1].rstrip(b"\0").decode(errors="backslashreplace")
    if name in ("Int128", "UInt128"):
        return int.from_bytes(data, "little", signed=name == "Int128")
    return data


def dictionary(keys: Any, values: Any) -> JuliaDict:
    """Return a dictionary of vectors of keys and values."""
    keys, values = _as_list(keys), _as_list(values)
    if len(keys) != len(values):
        raise ValueError(f"a dictionary of {len(keys):,} keys and {len(values):,} values")
    return JuliaDict(tuple(zip(keys, values, strict=True)))


def _as_list(x: Any) -> list[Any]:
    """Return a vector as a list, also where it is an array of the file."""
    if isinstance(x, LazyArray):
        source: Any = x.source
        Budget(source.file.size).check(x.size)
        array = x.read().reshape(-1)
        plain = array.dtype in (np.int64, np.float64, np.bool_)
        return array.tolist() if plain else list(array)
    if not isinstance(x, list | tuple):
        raise ValueError("expected the keys and the values of a dictionary")
    return list(x)


def nest(values: list[Any], shape: tuple[Any, ...]) -> Any:
    """Return values in column-major order as nested lists in the order of Julia's indices."""
    if array_nbytes(shape, np.uint8) != len(values):
        raise ValueError(f"expected {math.prod(shape):,} values of an array, found {len(values):,}")
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape, order="F").tolist()
