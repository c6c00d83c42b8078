"""A state as JLD2.jl stores it: named tuples as committed compounds, arrays by reference.

What a value's type in Julia is, is stored too, so that Julia makes the same named tuples of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any, NamedTuple

import numpy as np

from ..._tree.lazy import LazyArray
from .jld2_encoding import (
    COMPACT,
    NOTHING,
    NULL_VLEN,
    REFERENCE,
    REFERENCES,
    SCALAR,
    SUPERBLOCK,
    TEXT,
    Space,
    attribute,
    compact,
    compound_type,
    contiguous,
    dataset_head,
    file_head,
    group,
    integer_type,
    message,
    object_bytes,
    object_size,
    opaque_type,
    plain_type,
    simple,
    text_type,
    type_size,
    vlen,
)
from .jld2_lowering import (
    ANY,
    DATA_TYPE,
    INLINE,
    STRING,
    SYMBOL,
    Parameter,
    Type,
    element_of,
    fields,
    has_data,
    memory,
    tuple_of,
    type_of,
)
from .jld2_types import TYPES

_DATATYPE = 0x3


class FieldType(NamedTuple):
    """The type of a value in the file: a datatype, and its address if committed, or 0."""

    type: bytes
    address: int = 0


class Jld2Writer(Space):
    """Places the values of a file one after another, in the order in which JLD2.jl does."""

    def __init__(self, to_bytes: Callable[[Any], memoryview]) -> None:
        super().__init__()
        self.to_bytes = to_bytes
        self.committed: dict[Type, FieldType] = {}
        self.types: dict[Type, int] = {}  # the addresses of types that are values
        self.links: list[tuple[str, int]] = []  # of committed types

    def write(self, file: IO[bytes], document: dict[str, Any]) -> None:
        """Write values by their names."""
        links = [(name, self.dataset(x)) for name, x in document.items()]
        if self.links:
            links.append((TYPES, self.place_object(group(self.links))))
        root = self.place_object(group(links))
        file.write(file_head(self.end, root))
        at = SUPERBLOCK
        for address in sorted(self.parts):
            file.write(bytes(address - at))
            data = self.parts[address]()
            file.write(data)
            at = address + len(data)
        file.write(bytes(self.end - at))

    def dataset(self, x: Any) -> int:
        """Place a value, and return its address."""
        if isinstance(x, list):
            return self._list(x)
        if isinstance(x, bytes):
            x = np.frombuffer(x, np.uint8)
        if hasattr(x, "dtype") and not isinstance(x, np.generic):
            return self._array(x)
        if isinstance(x, str):
            encoded = x.encode()
            return self._small(text_type(len(encoded)), len(encoded), lambda: encoded)
        julia = type_of(x)
        if not has_data(julia):
            address = self._commit_empty(julia).address
            return self.place_object(dataset_head(NOTHING, address) + compact(b""))
        stored = self._commit(julia)
        return self._small(
            stored.address or stored.type, type_size(stored.type), lambda: self._encode(x, julia)
        )

    def _small(self, type: bytes | int, size: int, encode: Callable[[], bytes]) -> int:
        """Place one value, and then what it refers to."""
        head = dataset_head(SCALAR, type)
        return self.place(head, size, encode)

    def _array(self, x: Any) -> int:
        """Place an array in column-major order; a large one is read when it is written."""
        element = self._commit(element_of(x))
        shape = [int(n) for n in x.shape[::-1]] or [1]
        none = simple([0])
        integer = integer_type(8, signed=True)
        attributes = b"" if x.shape else attribute("dimensions", integer, none, b"")
        head = dataset_head(simple(shape), element.address or element.type, attributes)
        nbytes = int(np.prod(shape, dtype=object)) * type_size(element.type)
        if nbytes < COMPACT:
            return self.place_object(head + compact(bytes(self._column_major(x))))
        address = self.reserve(object_size(len(head) + len(contiguous(0, 0))))
        start = self.reserve(nbytes, aligned=True)
        header = object_bytes(head + contiguous(start, nbytes))
        self.parts[address] = lambda: header
        self.parts[start] = lambda: self._column_major(x)
        return address

    def _list(self, x: list[Any]) -> int:
        """Place a vector of any values, which are references."""
        data = self._type_dataset(ANY).to_bytes(8, "little")
        attributes = attribute("julia_type", REFERENCE, SCALAR, data)
        head = dataset_head(simple([len(x)]), REFERENCE, attributes)
        return self.place(
            head, 8 * len(x), lambda: b"".join(self.dataset(y).to_bytes(8, "little") for y in x)
        )

    def _field_type(self, type: Type) -> FieldType | None:
        """Return what a field of a type is in a compound; None where it takes no bytes."""
        if not has_data(type):
            return None
        if type.name in ("Core.Array", "Core.Any") or memory(type)[0] > INLINE:
            return FieldType(REFERENCE)
        return self._commit(type)

    def _commit(self, type: Type) -> FieldType:
        """Return the datatype of values of a type, which is committed unless it is plain."""
        if type == STRING:
            return FieldType(TEXT)
        plain = plain_type(type.name)
        if plain is not None:
            return FieldType(plain)
        if type not in self.committed:
            self._place_type(type, *self._definition(type))
        return self.committed[type]

    def _definition(self, type: Type) -> tuple[bytes, list[int]]:
        """Return the datatype of a compound, and the addresses of its fields' types."""
        if type == SYMBOL:
            return TEXT, []
        if type.name == "BFloat16s.BFloat16":
            return opaque_type(2), []
        members = [(name, self._field_type(field)) for name, field in fields(type)]
        stored = [(name, x) for name, x in members if x is not None]
        return compound_type([(name, x.type) for name, x in stored]), [x.address for _, x in stored]

    def _commit_empty(self, type: Type) -> FieldType:
        if type not in self.committed:
            integer = integer_type(1, signed=False)
            self._place_type(type, opaque_type(1), [], attribute("empty", integer, SCALAR, b"\1"))
        return self.committed[type]

    def _place_type(
        self, type: Type, datatype: bytes, addresses: list[int], more: bytes = b""
    ) -> None:
        """Commit a datatype: with the type of Julia, and the types of its fields."""
        if any(addresses):
            data = b"".join(n.to_bytes(8, "little") for n in addresses)
            more += attribute("field_datatypes", REFERENCE, simple([len(addresses)]), data)
        if type != DATA_TYPE:
            self._data_type()
        head = message(_DATATYPE, datatype, 0x40)
        address = self.reserve(
            object_size(len(head) + len(attribute("julia_type", 0, SCALAR, bytes(32))) + len(more))
        )
        self.committed[type] = FieldType(datatype, address)
        self.links.append((f"{len(self.links) + 1:08}", address))
        julia_type = attribute("julia_type", self._data_type(), SCALAR, self._encode_type(type))
        header = object_bytes(head + julia_type + more)
        self.parts[address] = lambda: header

    def _data_type(self) -> int:
        """Return the address of the type of types."""
        if DATA_TYPE not in self.committed:
            stored = compound_type([("name", TEXT), ("parameters", REFERENCES)])
            self._place_type(DATA_TYPE, stored, [])
        return self.committed[DATA_TYPE].address

    def _type_dataset(self, type: Type) -> int:
        """Return the address of a type that is a value."""
        if type not in self.types:
            head = dataset_head(SCALAR, self._data_type())
            address = self.reserve(object_size(len(head) + len(compact(bytes(32)))))
            self.types[type] = address
            header = object_bytes(head + compact(self._encode_type(type)))
            self.parts[address] = lambda: header
        return self.types[type]

    def _encode_type(self, type: Type) -> bytes:
        """Return the name of a type and references to its parameters."""
        name, parameters = type
        if name == "Core.Tuple" and len({*parameters}) <= 1:
            name = "NTuple" if len(parameters) > 1 else "Tuple"
            parameters = (len(parameters), parameters[0]) if len(parameters) > 1 else parameters
        encoded = self.encode_text(name)
        if not parameters:
            return encoded + NULL_VLEN
        addresses = [self._parameter(x).to_bytes(8, "little") for x in parameters]
        heap, index = self.add_to_heap(b"".join(addresses))
        return encoded + vlen(len(addresses), heap, index)

    def _parameter(self, x: Parameter) -> int:
        if isinstance(x, int):
            return self.dataset(x)
        if not isinstance(x, Type):
            return self._symbols(x)
        stored = self._field_type(x)
        return stored.address if stored and stored.address else self._type_dataset(x)

    def _symbols(self, names: tuple[str, ...]) -> int:
        """Place a tuple of symbols."""
        if not names:
            return self.dataset(())
        stored = self._commit(tuple_of([SYMBOL] * len(names)))
        return self._small(
            stored.address,
            16 * len(names),
            lambda: b"".join(map(self.encode_text, names)),
        )

    def _encode(self, x: Any, type: Type) -> bytes:
        """Return the bytes of a value in a compound."""
        if isinstance(x, dict | tuple):
            children = x.values() if isinstance(x, dict) else x
            pairs = zip(children, fields(type), strict=True)
            encoded = [self._encode_field(child, field) for child, (_, field) in pairs]
            return b"".join(encoded)
        if isinstance(x, str):
            return self.encode_text(x)
        dtypes: dict[Any, Any] = {bool: np.bool_, int: np.int64, float: np.float64}
        value: Any = x if isinstance(x, np.generic) else dtypes.get(x.__class__, np.complex128)(x)
        return bytes(self.to_bytes(np.asarray(value)))

    def _encode_field(self, x: Any, type: Type) -> bytes:
        stored = self._field_type(type)
        if stored is None:
            return b""
        if stored.type == REFERENCE:
            return self.dataset(x).to_bytes(8, "little")
        return self._encode(x, type)

    def _column_major(self, x: Any) -> memoryview:
        return self.to_bytes((x.read() if isinstance(x, LazyArray) else np.asarray(x)).T)
