"""Files of BSON.jl, byte by byte: an encoder that has nothing in common with jtree's."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np


def document(items: dict[str, Any]) -> bytes:
    body = b"".join(element(key, x) for key, x in items.items())
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def element(key: str, x: Any) -> bytes:
    kind, data = 0, b""
    if x is None:
        kind = 10
    elif isinstance(x, bool):
        kind, data = 8, struct.pack("<?", x)
    elif isinstance(x, np.int32):
        kind, data = 16, struct.pack("<i", x)
    elif isinstance(x, int):
        kind, data = 18, struct.pack("<q", x)
    elif isinstance(x, float):
        kind, data = 1, struct.pack("<d", x)
    elif isinstance(x, str):
        kind, data = 2, struct.pack("<i", len(x.encode()) + 1) + x.encode() + b"\0"
    elif isinstance(x, bytes):
        kind, data = 5, struct.pack("<ib", len(x), 0) + x
    elif isinstance(x, dict):
        kind, data = 3, document(x)
    elif isinstance(x, list):
        kind, data = 4, document({str(n): child for n, child in enumerate(x)})
    return bytes([kind]) + key.encode() + b"\0" + data


def datatype(name: str, *parameters: Any) -> dict[str, Any]:
    return {"tag": "datatype", "params": [*parameters], "name": name.split(".")}


def array(x: Any, name: str, **changes: Any) -> dict[str, Any]:
    """Return an array, column-major, with elements of a type."""
    x = np.asarray(x)
    fields = {"tag": "array", "type": datatype(name), "size": [*x.shape]}
    return fields | {"data": x.tobytes("F")} | changes


def floats(x: Any) -> dict[str, Any]:
    return array(np.asarray(x, np.float32), "Core.Float32")


def a_struct(name: str, *fields: Any, parameters: tuple[Any, ...] = ()) -> dict[str, Any]:
    return {"tag": "struct", "type": datatype(name, *parameters), "data": [*fields]}


def a_tuple(*values: Any) -> dict[str, Any]:
    return {"tag": "tuple", "data": [*values]}


def symbol(name: str) -> dict[str, Any]:
    return {"tag": "symbol", "name": name}


def backref(number: Any) -> dict[str, Any]:
    return {"tag": "backref", "ref": number}


def named_tuple(**fields: Any) -> dict[str, Any]:
    types = [datatype("Core.Any")] * len(fields)
    names = a_tuple(*map(symbol, fields))
    parameters = names, datatype("Core.Tuple", *types)
    return a_struct("Core.NamedTuple", *fields.values(), parameters=parameters)


def dense(weight: Any, bias: Any, name: str = "NNlib.#relu") -> dict[str, Any]:
    return a_struct("Flux.Dense", weight, bias, a_struct(name))


def chain(*layers: Any) -> dict[str, Any]:
    return a_struct("Flux.Chain", a_tuple(*layers))


WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.array([1, -1], np.float32)
MODEL = {"model": chain(dense(floats(WEIGHT), floats(BIAS)), a_struct("NNlib.#softmax"))}
EVERYTHING = {
    "model": MODEL["model"],
    "tied": [backref(1), backref(1)],
    "state": named_tuple(weight=floats(WEIGHT), bias=False, activation=a_tuple()),
    "symbol": symbol("relu"),
    "number": 3,
    "rate": 0.5,
    "dict": {"tag": "struct", "type": datatype("Main.Base.Dict"), "data": [["a"], [None]]},
    "_backrefs": [floats(BIAS)],
}
