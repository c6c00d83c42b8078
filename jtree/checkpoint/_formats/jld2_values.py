"""Values of Julia in a JLD2 file: what its datasets and committed datatypes mean.

Source: the code and the files of JLD2.jl 0.1 to 0.6, https://github.com/JuliaIO/JLD2.jl. A struct
is a compound whose datatype is committed under `_types`, with its type of Julia as an attribute;
an array of structs holds references; a struct without data takes no bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ..._tree.lazy import LazyArray
from .hdf5_messages import Attribute, Dataset, attributes, header
from .hdf5_objects import Hdf5Objects, Link, links
from .hdf5_types import DATASPACE, DATATYPE, Datatype, Message, datatype, unpack
from .jld2_elements import ElementType, element
from .jld2_types import (
    TYPES,
    Committed,
    JuliaTypeValue,
    julia_type,
    number,
    singleton,
    struct,
    unwritten,
)
from .julia_basic import nest, primitive
from .julia_fields import FIELDS
from .julia_values import JuliaFunction, last_name
from .limits import DEPTH, Budget, array_nbytes

_CODE = {"Tracker.Call", "Flux.Tracker.Call"}  # what computed a tracked array
_TRACKED = "TrackedArray"
_MANY = 1_000  # structs in an array, from which on they are bytes
_READING = object()


class DatasetReader(Protocol):
    """Reads the values of datasets."""

    def read(self, x: Dataset, nbytes: int) -> bytes:
        """Return the bytes of a dataset, which takes this many."""
        ...

    def lazy(
        self, x: Dataset, item: ElementType, shape: tuple[int, ...], address: int
    ) -> LazyArray:
        """Return an array that is read on demand."""
        ...


class Jld2Values:
    """Reads values of Julia in a file; its arrays are read on demand."""

    def __init__(self, objects: Hdf5Objects, datasets: DatasetReader) -> None:
        self.objects = objects
        self.datasets = datasets
        self.budget = Budget(objects.file.size)
        self._values: dict[int, Any] = {}  # by address
        self._committed: dict[int, Any] = {}
        self._depth = 0

    def root(self) -> dict[str, Any]:
        """Return the values that the file has names for."""
        return self._group(self.objects.root, hidden=TYPES)

    def _group(self, address: int, hidden: str | None = None) -> dict[str, Any]:
        names = {x.name: x for x in links(self.objects.messages(address)) if x.name != hidden}
        return {name: self._follow(x, address) for name, x in names.items()}

    def _follow(self, link: Link, group: int) -> Any:
        """Return the value at a link; another path of the file is followed."""
        if link.path is None:
            return self.reference(link.address)
        address = self.objects.root if link.path.startswith("/") else group
        for part in filter(None, link.path.split("/")):
            names = {x.name: x for x in links(self.objects.messages(address))}
            if part not in names or names[part].path is not None:
                raise ValueError(f"{link.name:.80} is a link to {link.path:.80}, which is missing")
            address = names[part].address
        return self.reference(address)

    def reference(self, address: int) -> Any:
        """Return the value at an address, the same object for each; None where it is undefined."""
        if address == 0:
            return None
        if address not in self._values:
            self._values[address] = _READING
            self._values[address] = self._nested(self._object, address)
        if self._values[address] is _READING:
            raise ValueError(
                f"the value at byte {self.objects.base + address:,} contains itself; save a "
                "Flux.state of the model"
            )
        return self._values[address]

    def _nested(self, read: Callable[[int], Any], address: int) -> Any:
        self.budget.spend()
        self._depth += 1
        if self._depth > DEPTH:
            raise ValueError(f"nested more than {DEPTH} levels deep")
        value = read(address)
        self._depth -= 1
        return value

    def _object(self, address: int) -> Any:
        messages = self.objects.messages(address)
        kinds = {x.kind for x in messages}
        if DATATYPE not in kinds:
            return self._group(address)
        if DATASPACE not in kinds:
            return self.committed(address).type
        return self._dataset(messages, address)

    def committed(self, address: int) -> Committed:
        """Return the datatype that is committed at an address."""
        if address not in self._committed:
            self._committed[address] = _READING
            self._committed[address] = self._nested(self._commit, address)
        if self._committed[address] is _READING:
            raise ValueError(f"the type at byte {self.objects.base + address:,} contains itself")
        committed: Committed = self._committed[address]
        return committed

    def _commit(self, address: int) -> Committed:
        messages = self.objects.messages(address)
        stored = [x for x in messages if x.kind == DATATYPE and not x.shared]
        if not stored:
            raise ValueError(f"expected a type at byte {self.objects.base + address:,}")
        values = attributes(messages)
        types = values.get("field_types", values.get("field_datatypes"))
        names = values.get("field_names")
        return Committed(
            datatype(stored[0].data)[0],
            self._attribute_type(values.get("julia_type")) or JuliaTypeValue(""),
            self._attribute_type(values.get("written_type")),
            "empty" in values,
            tuple(map(str, self._sequence(names))) if names else (),
            tuple(n for (n,) in _words(types.data, math.prod(types.shape or ()))) if types else (),
        )

    def _attribute_type(self, x: Attribute | None) -> JuliaTypeValue | None:
        return None if x is None else self._type(x.data, 0)

    def _sequence(self, x: Attribute) -> list[Any]:
        """Return the texts of an attribute."""
        count = math.prod(x.shape or ())
        if not isinstance(x.type, Datatype) or x.type.size * count > len(x.data):
            raise ValueError(f"an attribute {x.name:.80} of {count:,} values")
        return [self.value(x.type, x.data, n * x.type.size) for n in range(count)]

    def _type(self, data: bytes, at: int) -> JuliaTypeValue:
        """Return a type of Julia: its name and its parameters are in the heap."""
        name = self._vlen(_TEXT, data, at)
        if not isinstance(name, str):
            raise ValueError("a type without a name")
        parameters = self._vlen(_REFERENCES, data, at + 16) or []
        return julia_type(name, tuple(parameters))

    def value(self, type: Datatype, data: bytes, at: int) -> Any:
        """Return the value of some bytes."""
        if at + type.size > len(data):
            raise ValueError(f"truncated: expected {type.size:,} bytes of a value")
        if type.address:
            return self._typed(self.committed(type.address), data, at)
        return self._plain(type, data, at, {})

    def _plain(self, type: Datatype, data: bytes, at: int, addresses: dict[str, int]) -> Any:
        """Return numbers, text, bytes, what is referred to, or the fields of a compound by name."""
        if type.dtype is not None:
            return number(np.frombuffer(data, type.dtype, 1, at)[0])
        if type.kind == "compound":
            members = (x.type._replace(address=addresses.get(x.name, 0)) for x in type.members)
            return {
                x.name: self.value(member, data, at + x.offset)
                for x, member in zip(type.members, members, strict=True)
            }
        if type.kind == "reference":
            return self.reference(*unpack("<Q", data, at))
        if type.kind == "vlen":
            return self._vlen(type, data, at)
        stored = data[at : at + type.size]
        return stored.decode(errors="replace") if type.kind == "text" else stored

    def _vlen(self, type: Datatype, data: bytes, at: int) -> Any:
        """Return text or a list in the heap; None where it is undefined."""
        count, address, index = unpack("<IQI", data, at)
        if not address:
            return None
        if type.istext:
            return self.objects.text(address, index, count)
        base = type.base or _REFERENCE
        start, size = self.objects.heap(address, index)
        if count * base.size > size:
            raise ValueError(f"expected {count:,} values in a heap of {size:,} bytes")
        return self._values_of(base, self.objects.read(start, count * base.size), count)

    def _values_of(self, type: Datatype, data: bytes, count: int) -> list[Any]:
        values = []
        for n in range(count):
            self.budget.spend()
            values.append(self.value(type, data, n * type.size))
        return values

    def _typed(self, committed: Committed, data: bytes, at: int) -> Any:
        """Return a value of a committed type."""
        julia, stored = committed.type, committed.datatype
        name = last_name(julia.name)
        if committed.isempty:
            return singleton(julia)
        if name == "DataType":
            return self._type(data, at)
        if julia.name in _CODE:
            return JuliaFunction(julia.name)
        if name == _TRACKED:  # not what computed it
            fields = tuple(x for x in stored.members if x.name == "data")
            stored = stored._replace(members=fields or stored.members)
        if at + stored.size > len(data):
            raise ValueError(f"truncated: expected {stored.size:,} bytes of a {julia.name:.80}")
        plain = self._plain(stored, data, at, committed.member_addresses())
        if committed.written is not None:
            return unwritten(julia, plain)
        if not isinstance(plain, dict) or not julia.name:
            return primitive(name, plain) if stored.kind == "opaque" else plain
        self.budget.left -= committed.width // 16  # work for each of its values
        return struct(committed, plain, self._empty_fields(committed, plain), FIELDS)

    def _empty_fields(self, committed: Committed, present: dict[str, Any]) -> dict[str, Any]:
        """Return the fields that take no bytes, where the file names them."""
        addresses = committed.member_addresses()
        missing = [x for x in committed.names if x not in present and addresses.get(x)]
        return {x: singleton(self.committed(addresses[x]).type) for x in missing}

    def _dataset(self, messages: list[Message], address: int) -> Any:
        x = header(messages)
        committed = self.committed(x.type.address) if x.type.address else None
        sizes = x.attributes.get("dimensions")
        shape = x.shape
        if sizes is not None:
            shape = unpack(f"<{math.prod(sizes.shape or ())}Q", sizes.data)
        if x.shape is None:
            return self._nothing(committed, shape)
        if x.type.kind == "text":
            return self.datasets.read(x, x.layout.size).decode(errors="replace")
        if x.shape == () and sizes is None:
            size = committed.datatype.size if committed else x.type.size
            return self.value(x.type, self.datasets.read(x, size), 0)
        return self._array(x._replace(shape=shape), committed, address)

    def _nothing(self, committed: Committed | None, shape: tuple[int, ...] | None) -> Any:
        """Return a value without bytes, or an array of such values."""
        empty = singleton(committed.type) if committed else []
        if shape is None:
            return empty
        count = array_nbytes(shape, np.uint8)
        if count > self.budget.left:
            raise ValueError(f"too many values without bytes: {count:,}")
        return nest([empty] * count, shape[::-1])

    def _array(self, x: Dataset, committed: Committed | None, address: int) -> Any:
        """Return an array: a lazy one, or nested lists where its elements are other values."""
        stored = committed.datatype if committed else x.type
        shape = x.shape or ()
        count = array_nbytes(shape, np.uint8)
        item = element(stored, committed.type.name if committed else "")
        plain = not any(m.type.kind in ("reference", "vlen") for m in stored.members)
        if item is None and stored.kind == "compound" and plain and count > _MANY:
            item = ElementType(np.dtype(np.uint8), (stored.size,))
        if item is not None:
            return self.datasets.lazy(x, item, shape, address)
        size = array_nbytes(shape, np.dtype((np.void, stored.size)))
        kind = x.type._replace(size=stored.size)
        return nest(self._values_of(kind, self.datasets.read(x, size), count), shape[::-1])


_REFERENCE = Datatype("reference", 8)
_REFERENCES = Datatype("vlen", 16, base=_REFERENCE)
_TEXT = Datatype("vlen", 16, base=Datatype("int", 1), istext=True)


def _words(data: bytes, count: int) -> list[tuple[int, ...]]:
    return [unpack("<Q", data, 8 * n) for n in range(count)]
