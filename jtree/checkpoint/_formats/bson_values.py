"""Values of Julia in a BSON document: what its tags mean.

Source: the code and the files of BSON.jl 0.1 to 0.3, https://github.com/JuliaIO/BSON.jl. A
document with a tag stands for a value; a struct names its type and has its fields by position.
What a struct or an array is at several places is stored once, in `_backrefs` of the document.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..._tree.lazy import LazyArray
from .bson_document import ARRAY, BINARY, DOCUMENT, STRING, Document, Element
from .file import Entries
from .julia_basic import dictionary, join_complex, nest, primitive
from .julia_values import COMPLEX, DTYPES, JuliaFunction, JuliaStruct, last_name, type_name
from .limits import DEPTH, Budget, array_nbytes, check_copies

_CODE = {"TypeName", "Method", "CodeInfo", "MethodInstance", "MethodTable"}
_CODE |= {"Tracker.Call", "Flux.Tracker.Call"}  # what computed a tracked array
_TYPE_BYTES = 2000  # of a type that is compared with others
_MAX_PARAMETERS = 64  # that are looked at
_MAX_TAG = 32
_DICTS = {"Dict", "IdDict"}


class JuliaType(NamedTuple):
    """A type: its name, whether functions have it, and its parameters in the file."""

    name: str
    isfunction: bool = False
    parameters: tuple[Element, ...] = ()


class BsonValues:
    """Reads values of Julia in a document; its arrays are read on demand."""

    def __init__(self, document: Document, source: Entries) -> None:
        self.document = document
        self.source = source
        items = document.items(document.root())
        references = items.pop("_backrefs", None)
        self.items = items
        self.references = self._list(references) if references is not None else []
        self._values: dict[int, Any] = {}  # of references; None while one is being read
        self._types: dict[bytes | int, JuliaType] = {}  # by their bytes, long ones by their start
        self._parameters: dict[int, tuple[Any, ...]] = {}  # of types, by their id
        self._total = 0  # bytes of all arrays
        self._arrays = Budget(document.file.size)
        self._read = Budget(document.file.size, times=2)  # the names in types are values, too
        self._depth = 0

    def root(self) -> dict[str, Any]:
        """Return the values that the file has names for."""
        return {key: self.value(x) for key, x in self.items.items()}

    def value(self, x: Element) -> Any:
        """Return the value of an element."""
        self._read.spend()
        if x.kind not in (DOCUMENT, ARRAY):
            return self._bytes(x) if x.kind == BINARY else self.document.scalar(x)
        self._depth += 1
        if self._depth > DEPTH:
            raise ValueError(f"nested more than {DEPTH} levels deep at byte {x.start:,}")
        value = self._values_of(x) if x.kind == ARRAY else self._document(x)
        self._depth -= 1
        return value

    def sequence(self, x: Element) -> tuple[Any, ...]:
        """Return the values of a list as a tuple."""
        return tuple(self._values_of(x))

    def _values_of(self, x: Element) -> list[Any]:
        return [self.value(child) for child in self._list(x)]

    def _document(self, x: Element) -> Any:
        """Return the value that a tag stands for, or a dict where there is none."""
        items = self.document.items(x)
        tag = self._tag(items)
        needs, read = _TAGS.get(tag, ((), _read_dict))
        return (read if items.keys() >= {*needs} else _read_dict)(self, items)

    def _tag(self, items: dict[str, Element]) -> str:
        tag = items.get("tag")
        if tag is None or tag.kind != STRING or tag.end - tag.start > _MAX_TAG:
            return ""
        return str(self.document.scalar(tag))

    def _list(self, x: Element) -> list[Element]:
        """Return the elements of an array, which may be a reference."""
        x, _ = self._follow(x)
        if x.kind != ARRAY:
            raise ValueError(f"expected a list at byte {x.start:,}")
        return self.document.elements(x)

    def _follow(self, x: Element) -> tuple[Element, dict[str, Element]]:
        """Return what an element is or refers to, and its items where it is a document."""
        for _ in range(DEPTH):
            items = self.document.items(x) if x.kind == DOCUMENT else {}
            if self._tag(items) != "backref" or "ref" not in items:
                return x, items
            x = self.references[self._index(items["ref"])]
        raise ValueError(f"a reference to itself at byte {x.start:,}")

    def _index(self, x: Element) -> int:
        """Return the index of a reference, which Julia counts from 1 on."""
        number = self._number(x)
        if type(number) is not int or not 1 <= number <= len(self.references):
            raise ValueError(
                f"a reference to {number!s:.20} at byte {x.start:,}, and the file has "
                f"{len(self.references):,}"
            )
        return number - 1

    def _number(self, x: Element) -> Any:
        return self.document.scalar(x) if x.kind not in (DOCUMENT, ARRAY, BINARY) else None

    def reference(self, items: dict[str, Element]) -> Any:
        """Return the value of a reference, the same object for each."""
        index = self._index(items["ref"])
        if index not in self._values:
            self._values[index] = _READING
            self._values[index] = self.value(self.references[index])
        if self._values[index] is _READING:
            start = self.references[index].start
            raise ValueError(
                f"the value at byte {start:,} contains itself; save a Flux.state of the model"
            )
        return self._values[index]

    def type(self, x: Element) -> JuliaType:
        """Return the type that an element stands for; equal bytes are read once."""
        short = x.end - x.start < _TYPE_BYTES
        key = self.document.take(x.start, x.end - x.start) if short else x.start
        if key not in self._types:
            self._types[key] = self._read_type(x)
        return self._types[key]

    def _read_type(self, x: Element) -> JuliaType:
        x, items = self._follow(x)
        for _ in range(DEPTH):
            tag = self._tag(items)
            if tag != "unionall" or "body" not in items:
                break
            x, items = self._follow(items["body"])
        if tag == "datatype" and items.keys() >= {"name", "params"}:
            parts = self.texts(items["name"])
            isfunction = parts[-1].startswith("#")
            return JuliaType(type_name(parts), isfunction, tuple(self._list(items["params"])))
        if tag == "jl_anonymous" and "typename" in items:
            return JuliaType(self._anonymous(items["typename"]), isfunction=True)
        if tag == "ref" and "path" in items:
            return JuliaType(type_name(self.texts(items["path"])))
        if tag == "jl_bottom_type":
            return JuliaType("Union{}")
        if tag == "struct" and "type" in items:  # a type variable or a union
            return JuliaType(self.type(items["type"]).name)
        raise ValueError(f"expected a type at byte {x.start:,}")

    def anonymous(self, items: dict[str, Element]) -> JuliaFunction:
        """Return a function whose code is in the file, and stays there."""
        return JuliaFunction(self._anonymous(items["typename"]))

    def _anonymous(self, x: Element) -> str:
        """Return the name of a function whose code is in the file."""
        _, items = self._follow(x)
        fields = self._list(items["data"]) if "data" in items else []
        name = self.value(fields[1]) if len(fields) > 1 else ""
        return name if isinstance(name, str) else "anonymous"

    def texts(self, x: Element) -> list[str]:
        """Return a list of text, such as the path of a type."""
        texts = [self.document.scalar(part) for part in self._list(x) if part.kind == STRING]
        if not texts:
            raise ValueError(f"expected names at byte {x.start:,}")
        return texts

    def struct(self, items: dict[str, Element]) -> Any:
        """Return a struct, or what Python has for it."""
        julia_type = self.type(items["type"])
        name = last_name(julia_type.name)
        data, _ = self._follow(items["data"])
        if data.kind == BINARY:
            return primitive(name, self.document.take(data.start + 5, data.end - data.start - 5))
        if julia_type.name in _CODE:
            return JuliaFunction(julia_type.name)
        fields = tuple(self.value(x) for x in self._list(data))
        if julia_type.isfunction and not fields:
            return JuliaFunction(julia_type.name)
        if name == "NamedTuple":
            return self._named(julia_type, fields)
        if name in _DICTS and len(fields) == 2:
            return dictionary(*fields)
        if name == "OrderedDict" and len(fields) == 5:
            return dictionary(*fields[1:3])
        return JuliaStruct(julia_type.name, fields, self._values_in(julia_type))

    def _named(self, type: JuliaType, fields: tuple[Any, ...]) -> dict[str, Any]:
        """Return a named tuple, whose names are in its type."""
        names = self.value(type.parameters[0]) if type.parameters else ()
        if not isinstance(names, tuple) or len({*names}) != len(fields):
            raise ValueError(f"expected {len(fields)} names of a named tuple, found {names!s:.80}")
        return {str(name): x for name, x in zip(names, fields, strict=True)}

    def _values_in(self, type: JuliaType) -> tuple[Any, ...]:
        """Return the parameters of a type that are values, and None for types."""
        if id(type) not in self._parameters:
            parameters = type.parameters[:_MAX_PARAMETERS]
            self._parameters[id(type)] = tuple(map(self._parameter, parameters))
        return self._parameters[id(type)]

    def _parameter(self, x: Element) -> Any:
        tag = self._tag(self.document.items(x)) if x.kind == DOCUMENT else "tuple"
        istype = tag not in ("tuple", "symbol")
        return None if istype else self.value(x)

    def array(self, items: dict[str, Element]) -> Any:
        """Return an array: a lazy one of plain bits, else nested lists in Julia's index order."""
        shape = tuple(self._number(x) for x in self._list(items["size"]))
        data, _ = self._follow(items["data"])
        if data.kind == ARRAY:
            return nest(self._values_of(data), shape)
        if data.kind != BINARY:
            raise ValueError(f"expected the values of an array at byte {data.start:,}")
        count, length = array_nbytes(shape, np.uint8), data.end - data.start - 5
        inner, dtype = self._element_type(items["type"], length // max(count, 1))
        expected = array_nbytes((*inner, *shape), dtype)
        if expected != length:
            raise ValueError(
                f"expected {expected:,} bytes for an array of shape {list(shape)} at byte "
                f"{data.start:,}, found {length:,}"
            )
        array = self._lazy(data.start + 5, (*inner, *shape), dtype)
        iscomplex = inner == (2,) and last_name(self.type(items["type"]).name) == "Complex"
        return join_complex(array) if iscomplex else array

    def _element_type(self, x: Element, size: int) -> tuple[tuple[int, ...], Any]:
        """Return the axes that an element of some bytes has itself, and the dtype of its values."""
        element = self.type(x)
        name = last_name(element.name)
        if name in DTYPES:
            return (), DTYPES[name]
        parameters = element.parameters if len(element.parameters) <= _MAX_PARAMETERS else ()
        parts = {last_name(self.type(x).name) for x in parameters if x.kind == DOCUMENT}
        part = parts.pop() if len(parts) == 1 else ""
        if name == "Complex" and part in COMPLEX:
            return (), COMPLEX[part]
        if name in ("Complex", "Tuple") and part in DTYPES:
            return (2 if name == "Complex" else len(element.parameters),), DTYPES[part]
        return (size,), np.dtype(np.uint8)  # bits of another type

    def _bytes(self, x: Element) -> LazyArray:
        return self._lazy(x.start + 5, (x.end - x.start - 5,), np.dtype(np.uint8))

    def _lazy(self, start: int, shape: tuple[int, ...], dtype: Any) -> LazyArray:
        self._arrays.spend()
        self._total += array_nbytes(shape, dtype)
        check_copies(self._total, self.document.file.size)
        reader = lambda: self.document.array(start, shape, dtype)  # noqa: E731
        return self.source.add_named(f"the array at byte {start:,}", shape, dtype, reader)


_READING = object()


def _read_dict(values: BsonValues, items: dict[str, Element]) -> Any:
    return {key: values.value(x) for key, x in items.items()}


_TAGS: dict[str, tuple[tuple[str, ...], Callable[[BsonValues, dict[str, Element]], Any]]] = {
    "array": (("type", "size", "data"), BsonValues.array),
    "backref": (("ref",), BsonValues.reference),
    "datatype": (
        ("name", "params"),
        lambda values, items: JuliaFunction(type_name(values.texts(items["name"]))),
    ),
    "jl_anonymous": (("typename",), BsonValues.anonymous),
    "jl_bottom_type": ((), lambda *_: JuliaFunction("Union{}")),
    "ref": (("path",), lambda values, items: JuliaFunction(".".join(values.texts(items["path"])))),
    "struct": (("type", "data"), BsonValues.struct),
    "svec": (("data",), lambda values, items: values.sequence(items["data"])),
    "symbol": (("name",), lambda values, items: values.value(items["name"])),
    "tuple": (("data",), lambda values, items: values.sequence(items["data"])),
    "unionall": (("body",), lambda values, items: JuliaFunction(values.type(items["body"]).name)),
}
