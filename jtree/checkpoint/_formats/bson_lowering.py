"""A state as a BSON document, in the bytes that BSON.jl would write.

BSON.jl writes what it met before as a reference into `_backrefs`. Each meeting adds the value once
more to that list, and all references lead to the last of them: so do these, so that the bytes are
the same.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ..._tree.lazy import LazyArray
from .bson_document import ARRAY, BINARY, BOOLEAN, DOCUMENT, DOUBLE, INT32, INT64, NULL, STRING
from .julia_values import element_type, named

_MODULES = {"BFloat16": ("BFloat16s",), "Complex": ("Main", "Base"), "Missing": ("Main", "Base")}
MISSING = "Base.Missing"  # the type of what older versions of Flux saved in place of a function


class BsonArray(NamedTuple):
    """The values of an array, which are written in column-major order."""

    array: Any

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        return int(self.array.nbytes)

    def values(self) -> Any:
        """Return the values, which are read now from an array on disk."""
        x = self.array
        return (x.read() if isinstance(x, LazyArray) else np.asarray(x)).T


class _Reference:
    """A value that may be met again: it is written in place, or as a reference."""

    def __init__(self) -> None:
        self.node: Any = None
        self.number = 0  # in the list of references; 0 where it was met once only


class Lowering:
    """Values as documents, lists and plain values of BSON, with what was met before."""

    def __init__(self, types: Mapping[str, str] = MappingProxyType({})) -> None:
        self.missing = {path for path, name in types.items() if name == MISSING}
        self.met: dict[Hashable, _Reference] = {}
        self.again: list[_Reference] = []

    def document(self, state: dict[Any, Any]) -> dict[str, Any]:
        """Return the document that holds values by their names."""
        document = {name: self.value(x, name) for name, x in named(state).items()}
        for number, reference in enumerate(self.again, 1):
            reference.number = number
        if self.again:
            document["_backrefs"] = [reference.node for reference in self.again]
        return document

    def value(self, x: Any, path: str) -> Any:
        """Return the value at a path as a document, a list or a plain value."""
        if isinstance(x, dict):
            return self._struct(self._type(x, path), self._children(named(x).items(), path))
        if isinstance(x, tuple):
            if path in self.missing and not x:
                return self._struct(self._type(x, path), [])
            return {"tag": "tuple", "data": self._children(enumerate(x), path)}
        if isinstance(x, list):
            return self._children(enumerate(x), path)
        if hasattr(x, "dtype"):
            return self._number(x) if isinstance(x, np.generic) else self._array(x)
        if isinstance(x, complex):
            return self._struct(self._type(x, path), [x.real, x.imag])
        return x

    def _children(self, items: Any, path: str) -> list[Any]:
        return [self.value(child, f"{path}/{key}") for key, child in items]

    def _struct(self, julia_type: Any, data: Any) -> dict[str, Any]:
        return {"tag": "struct", "type": julia_type, "data": data}

    def _number(self, x: np.generic) -> Any:
        if isinstance(x, np.complexfloating):
            return self._struct(self._element(x), [self._number(x.real), self._number(x.imag)])
        if isinstance(x, np.float64 | np.int64 | np.bool_):
            return x.item()
        if isinstance(x, np.int32):
            return x
        return self._struct(self._element(x), np.asarray(x).tobytes())

    def _array(self, x: Any) -> Any:
        if not isinstance(x, LazyArray):
            return self._stored(x)
        return self._refer(x, lambda: self._stored(x))

    def _stored(self, x: Any) -> Any:
        if x.dtype == np.uint8 and x.ndim == 1:
            return BsonArray(x)
        size = [int(n) for n in x.shape]
        element = self._element(x)
        return {"tag": "array", "type": element, "size": size, "data": BsonArray(x)}

    def _refer(self, key: Hashable, lower: Callable[[], Any]) -> _Reference:
        """Return what stands for a value, which is a reference from its second time on."""
        reference = self.met.get(key)
        if reference is None:
            reference = self.met[key] = _Reference()
            reference.node = lower()
        else:
            self.again.append(reference)
        return reference

    def _type(self, x: Any, path: str) -> Any:
        """Return the type of the value at a path."""
        if isinstance(x, dict):
            symbols = [{"tag": "symbol", "name": name} for name in named(x)]
            types = _datatype("Tuple", self._types(named(x).items(), path))
            return _datatype("NamedTuple", [{"tag": "tuple", "data": symbols}, types])
        if isinstance(x, tuple):
            if path in self.missing and not x:
                return _datatype("Missing")
            return _datatype("Tuple", self._types(enumerate(x), path))
        if isinstance(x, list):
            return self._refer(("Array", "Any", 1), lambda: _vector("Any"))
        if isinstance(x, bytes):
            return self._refer(("Array", "UInt8", 1), lambda: _vector("UInt8"))
        if hasattr(x, "dtype"):
            if isinstance(x, np.generic):
                return self._element(x)
            key = "Array", element_type(x), x.ndim
            return self._refer(key, lambda: _datatype("Array", [self._element(x), x.ndim]))
        if isinstance(x, complex):
            return _datatype("Complex", [_datatype("Float64")])
        return _datatype(_PLAIN[type(x)])

    def _types(self, items: Any, path: str) -> list[Any]:
        return [self._type(child, f"{path}/{key}") for key, child in items]

    def _element(self, x: Any) -> Any:
        name, iscomplex = element_type(x)
        return _datatype("Complex", [_datatype(name)]) if iscomplex else _datatype(name)


_PLAIN: dict[type, str] = {
    bool: "Bool",
    float: "Float64",
    int: "Int64",
    str: "String",
    type(None): "Nothing",
}


def _datatype(name: str, parameters: list[Any] | None = None) -> dict[str, Any]:
    path = [*_MODULES.get(name, ("Core",)), name]
    return {"tag": "datatype", "params": parameters or [], "name": path}


def _vector(element: str) -> dict[str, Any]:
    return _datatype("Array", [_datatype(element), 1])


def encode(document: dict[str, Any]) -> list[bytes | BsonArray]:
    """Return the bytes of a document, with arrays where their bytes are."""
    return _Encoder().items(document.items())


class _Encoder:
    """Nodes as their bytes."""

    def items(self, items: Any) -> list[bytes | BsonArray]:
        parts: list[bytes | BsonArray] = []
        for key, node in items:
            kind, encoded = self._node(node)
            parts += [bytes([kind]) + str(key).encode() + b"\0", *encoded]
        size = 5 + sum(x.nbytes if isinstance(x, BsonArray) else len(x) for x in parts)
        return [_int32(size), *parts, b"\0"]

    def _node(self, x: Any) -> tuple[int, list[bytes | BsonArray]]:
        """Return the kind of a node, and its bytes."""
        if isinstance(x, _Reference):
            return self._node({"tag": "backref", "ref": x.number} if x.number else x.node)
        if isinstance(x, dict):
            return DOCUMENT, self.items(x.items())
        if isinstance(x, list):
            return ARRAY, self.items(zip(itertools.count(), x, strict=False))
        if isinstance(x, BsonArray):
            return BINARY, [_int32(x.nbytes) + b"\0", x]
        if isinstance(x, bytes):
            return BINARY, [_int32(len(x)) + b"\0" + x]
        if isinstance(x, str):
            text = x.encode()
            return STRING, [_int32(len(text) + 1) + text + b"\0"]
        if isinstance(x, np.int32):
            return INT32, [_int32(int(x))]
        if x is None or isinstance(x, bool):
            return (NULL, []) if x is None else (BOOLEAN, [bytes([x])])
        return (
            (DOUBLE, [struct.pack("<d", x)])
            if isinstance(x, float)
            else (
                INT64,
                [struct.pack("<q", x)],
            )
        )


def _int32(number: int) -> bytes:
    return (number % 2**32).to_bytes(4, "little")
