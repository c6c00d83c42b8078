"""Files of JLD2 made by hand: with structs, dictionaries and arrays as Julia stores them."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from jtree.checkpoint._formats import jld2_encoding as encoding
from jtree.checkpoint._formats.array_bytes import to_bytes
from jtree.checkpoint._formats.hdf5_checksum import checksum
from jtree.checkpoint._formats.jld2_lowering import Type, type_of
from jtree.checkpoint._formats.jld2_writer import Jld2Writer

RELU = Type("NNlib.#relu")
MATRIX = Type("Core.Array", (Type("Core.Float32"), 2))
VECTOR = Type("Core.Array", (Type("Core.Float32"), 1))
WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.array([7, 8], np.float32)
STATE = {"layers": ({"weight": WEIGHT, "bias": BIAS, "σ": ()}, {"weight": WEIGHT, "bias": False})}


class Placed:
    """A value that a function places, once: what refers to it shares its address."""

    def __init__(self, place: Callable[[Writer], int]) -> None:
        self.place = place


class Writer(Jld2Writer):
    """A writer that also places values by functions."""

    def __init__(self) -> None:
        super().__init__(to_bytes)
        self.placed: dict[int, int] = {}

    def dataset(self, x: Any) -> int:
        if not isinstance(x, Placed):
            return super().dataset(x)
        if id(x) not in self.placed:
            self.placed[id(x)] = x.place(self)
        return self.placed[id(x)]

    def commit(
        self, julia: Type, stored: bytes, addresses: tuple[int, ...] = (), more: bytes = b""
    ) -> int:
        """Return the address of a datatype, which is committed."""
        if julia not in self.committed:
            self._place_type(julia, stored, list(addresses), more)
        return self.committed[julia].address

    def references(self, *values: Any) -> bytes:
        return b"".join(self.dataset(x).to_bytes(8, "little") for x in values)

    def heap_texts(self, *texts: str) -> bytes:
        return b"".join(map(self.encode_text, texts))

    def array_of(self, julia: int | bytes, shape: tuple[int, ...], data: bytes) -> int:
        """Place an array of values that are bytes already."""
        head = encoding.dataset_head(encoding.simple(shape), julia)
        return self.place_object(head + encoding.compact(data))


def document(values: dict[str, Any]) -> bytes:
    """Return a file of values by their names."""
    file = io.BytesIO()
    Writer().write(file, values)
    return file.getvalue()


def julia_struct(name: str, values: dict[str, Any], parameters: Any = ()) -> Placed:
    """Return a struct, all of whose fields are references."""

    def place(writer: Writer) -> int:
        stored = encoding.compound_type([(x, encoding.REFERENCE) for x in values])
        address = writer.commit(Type(name, tuple(parameters)), stored)
        return writer.place(
            encoding.dataset_head(encoding.SCALAR, address),
            8 * len(values),
            lambda: writer.references(*values.values()),
        )

    return Placed(place)


def singleton(name: str, parameters: Any = ()) -> Placed:
    """Return the only value of a type, such as a function."""

    def place(writer: Writer) -> int:
        address = writer._commit_empty(Type(name, tuple(parameters))).address
        return writer.place_object(
            encoding.dataset_head(encoding.NOTHING, address) + encoding.compact(b"")
        )

    return Placed(place)


def written_as(julia: Type, written: Type, values: dict[str, Any]) -> Placed:
    """Return a value of which the file has another struct."""

    def place(writer: Writer) -> int:
        stored = encoding.compound_type([(x, encoding.REFERENCE) for x in values])
        data = writer._encode_type(written)
        more = encoding.attribute("written_type", writer._data_type(), encoding.SCALAR, data)
        address = writer.commit(julia, stored, (), more)
        head = encoding.dataset_head(encoding.SCALAR, address)
        return writer.place(head, 8 * len(values), lambda: writer.references(*values.values()))

    return Placed(place)


def pairs(values: dict[str, int]) -> Placed:
    """Return a vector of pairs of text and integers."""

    def place(writer: Writer) -> int:
        integer = encoding.integer_type(8, signed=True)
        stored = encoding.compound_type([("first", encoding.TEXT), ("second", integer)])
        julia = Type("Base.Pair", (Type("Core.String"), Type("Core.Int64")))
        address = writer.commit(julia, stored)
        data = [writer.encode_text(key) + struct.pack("<q", n) for key, n in values.items()]
        return writer.array_of(address, (len(values),), b"".join(data))

    return Placed(place)


def dictionary(values: dict[str, int]) -> Placed:
    """Return a dictionary as JLD2.jl has it since 0.4: a struct that holds its pairs."""
    julia = Type("Base.Dict", (Type("Core.String"), Type("Core.Int64")))
    return written_as(julia, Type("JLD2.SerializedDict"), {"kvvec": pairs(values)})


def named_fields(name: str, values: dict[str, Any], empty: dict[str, str]) -> Placed:
    """Return a struct with the names of all fields, as JLD2.jl since 0.4.54 writes them."""

    def place(writer: Writer) -> int:
        stored = encoding.compound_type([(x, encoding.REFERENCE) for x in values])
        types = [writer._commit_empty(Type(x)).address for x in empty.values()]
        addresses = struct.pack(f"<{len(values) + len(types)}Q", *(0 for _ in values), *types)
        names = writer.heap_texts(*values, *empty)
        space = encoding.simple([len(values) + len(empty)])
        more = encoding.attribute("field_names", encoding.TEXT, space, names)
        more += encoding.attribute("field_types", encoding.REFERENCE, space, addresses)
        address = writer.commit(Type(name), stored, (), more)
        head = encoding.dataset_head(encoding.SCALAR, address)
        return writer.place(head, 8 * len(values), lambda: writer.references(*values.values()))

    return Placed(place)


def texts(*values: str) -> Placed:
    """Return a vector of text."""
    return Placed(
        lambda writer: writer.array_of(encoding.TEXT, (len(values),), writer.heap_texts(*values))
    )


def chunked(x: Any, pipeline: bytes, data: bytes, mask: int = 0) -> Placed:
    """Return an array in one chunk, behind filters."""

    def place(writer: Writer) -> int:
        stored = writer._commit(type_of(x).parameters[0])  # type: ignore[arg-type]
        shape = x.shape[::-1]
        head = encoding.dataset_head(encoding.simple(shape), stored.type)
        layout = struct.pack("<5B", 4, 2, 2, len(shape) + 1, 8)
        layout += struct.pack(f"<{len(shape) + 1}Q", *shape, x.dtype.itemsize) + b"\1"
        size = len(head) + 4 + len(pipeline) + 4 + len(layout) + 20
        address = writer.reserve(encoding.object_size(size))
        start = writer.reserve(len(data), aligned=True)
        layout += struct.pack("<QIQ", len(data), mask, start)
        messages = head + encoding.message(0xB, pipeline) + encoding.message(0x8, layout)
        header = encoding.object_bytes(messages)
        writer.parts[address] = lambda: header
        writer.parts[start] = lambda: data
        return address

    return Placed(place)


def filters(*numbers: int, value: int = 4) -> bytes:
    """Return a pipeline of filters, each with one parameter."""
    parts = []
    for n in numbers:
        name = struct.pack("<H", 0) if n >= 256 else b""
        parts.append(struct.pack("<H", n) + name + struct.pack("<2HI", 0, 1, value))
    return bytes([2, len(numbers)]) + b"".join(parts)


DENSE = julia_struct("Flux.Dense", {"W": WEIGHT, "b": BIAS}, (RELU, MATRIX, VECTOR))
EVERYTHING: dict[str, Any] = {
    "model_state": STATE,
    "dense": DENSE,
    "again": DENSE,
    "dict": dictionary({"a": 1, "b": 2}),
    "texts": texts("x", "yy"),
    "list": [1, 2.5, None, "text", WEIGHT, {"a": (True, ())}],
}


def with_checksums(data: bytes) -> bytes:
    """Return a file with the checksums that its objects have, so that what is in them is read."""
    made = bytearray(data)
    at = made.find(b"OHDR\2")
    while at >= 0:
        width = 1 << (made[at + 5 : at + 6] or b"\0")[0] % 4
        size = int.from_bytes(made[at + 6 : at + 6 + width], "little")
        end = at + 6 + width + size
        if end + 4 <= len(made) and size < 2**12:
            made[end : end + 4] = struct.pack("<I", checksum(bytes(made[at:end])))
        at = made.find(b"OHDR\2", at + 5)
    if len(made) >= 560:
        made[556:560] = struct.pack("<I", checksum(bytes(made[512:556])))
    return bytes(made)
