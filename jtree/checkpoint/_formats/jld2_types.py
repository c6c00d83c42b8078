"""Types of Julia in JLD2 files: their names, their parameters, and values that take no bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..._tree.lazy import LazyArray
from .hdf5_types import Datatype
from .julia_values import JuliaDict, JuliaFunction, JuliaStruct, last_name, type_name

TYPES = "_types"  # the group of committed datatypes
_DICTS = {"Dict", "IdDict", "ImmutableDict", "WeakKeyDict"}
_TUPLES = {"Tuple", "NTuple"}
_TYPES = {"UnionAll", "Union", "TypeVar"}
_RENAMED = {"W": "weight", "b": "bias"}  # fields of `Flux.Dense` before Flux 0.12
_SIZED = {"Any", "Array", "BitArray", "Bool", "String", "Symbol", "DataType", "TrackedArray"}
_SIZED |= {f"{kind}{n}" for kind in ("Int", "UInt", "Float") for n in (8, 16, 32, 64, 128)}


Names: TypeAlias = Mapping[str, Sequence[tuple[str, ...]]]  # of fields, by type, in each version


@dataclass(frozen=True, eq=False)
class JuliaTypeValue(JuliaFunction):
    """A type: its name, its parameters, and whether it is the type of a function."""

    parameters: tuple[Any, ...] = ()
    isfunction: bool = False


class Committed(NamedTuple):
    """A datatype that a file commits to a Julia type.

    Attributes:
      datatype: what its values are in the file.
      type: its type in Julia.
      written: the type that stands for it in the file, where that is another one.
      isempty: whether its values take no bytes.
      names: the names of all fields, where the file has them.
      types: the addresses of the types of fields, 0 where they are plain.
    """

    datatype: Datatype
    type: JuliaTypeValue
    written: JuliaTypeValue | None
    isempty: bool
    names: tuple[str, ...] = ()
    types: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """The possible numbers of fields, by its names and its parameters."""
        nested = [x.parameters for x in self.type.parameters if isinstance(x, JuliaTypeValue)]
        return len(self.names) + len(self.type.parameters) + sum(map(len, nested))

    def member_addresses(self) -> dict[str, int]:
        """Return the addresses of the types of fields by name."""
        names = self.names or tuple(x.name for x in self.datatype.members)
        return dict(zip(names, self.types, strict=False))


def julia_type(text: str, parameters: tuple[Any, ...]) -> JuliaTypeValue:
    """Return a type by its name in a file, such as `"Core.Core.Float32"` or `"NNlib.#relu"`."""
    parts = text.split(".") if not text.endswith(".") else [text]
    while len(parts) > 2 and parts[0] == parts[1]:
        del parts[0]  # early versions repeat the module
    return JuliaTypeValue(type_name(parts), parameters, parts[-1].startswith("#"))


def singleton(type: Any) -> Any:
    """Return the only value of a type."""
    if not isinstance(type, JuliaTypeValue):
        return None
    name = last_name(type.name)
    if name == "Nothing":
        return None
    if name == "NamedTuple":
        names, values = names_and_types(type)
        return dict(zip(names, _singletons(values), strict=False))
    if name in ("Tuple", "NTuple"):
        return _singletons(names_and_types(type)[1])
    if type.isfunction:
        return JuliaFunction(type.name)
    inner = [x for x in type.parameters if isinstance(x, JuliaTypeValue)]
    layers = inner[:1] if name in ("Chain", "Parallel", "Maxout") else []
    return JuliaStruct(type.name, _singletons(layers), values_only(type.parameters))


def _singletons(types: Sequence[Any]) -> tuple[Any, ...]:
    """Return one value for each type, the same object where a type is there again."""
    values = {id(x): singleton(x) for x in {id(x): x for x in types}.values()}
    return tuple(values[id(x)] for x in types)


def values_only(parameters: Sequence[Any]) -> tuple[Any, ...]:
    """Return the parameters of a type that are values, and None for types."""
    return tuple(None if isinstance(x, JuliaFunction) else x for x in parameters)


def names_and_types(type: JuliaTypeValue) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Return the names and the types of the fields of a tuple or a named tuple."""
    parameters = type.parameters
    if last_name(type.name) == "NamedTuple" and len(parameters) == 2:
        names, types = parameters
        if isinstance(names, tuple) and isinstance(types, JuliaTypeValue):
            return tuple(map(str, names)), _element_types(types)
    types = _element_types(type)
    return tuple(str(n + 1) for n in range(len(types))), types


def _element_types(type: JuliaTypeValue) -> tuple[Any, ...]:
    """Return the types of the elements of a tuple; of many equal ones, the file has the number."""
    parameters = type.parameters
    if last_name(type.name) == "NTuple" and len(parameters) == 2 and isinstance(parameters[0], int):
        return (parameters[1],) * min(parameters[0], 2**16)
    return parameters


def complete(type: JuliaTypeValue, present: dict[str, Any], known: Names) -> dict[str, Any]:
    """Return the fields of a struct by name, with those that take no bytes.

    Files of JLD2 before 0.4.54 leave out their names; then the parameters of the type and the
    fields that Flux's structs have in some version tell them.
    """
    if last_name(type.name) == "TrackedArray":
        return present
    if type.name == "Flux.Dense" and "W" in present:
        present = {_RENAMED.get(name, name): x for name, x in present.items()}
    versions = [x for x in known.get(type.name, ()) if {*present} <= {*x}]
    names = min(versions, key=len, default=tuple(present))
    missing = [name for name in names if name not in present]
    empty = [x for x in type.parameters if _takes_nothing(x)]
    if len(empty) != len(missing):
        empty = [x for x in empty if x.isfunction]
    if not missing or len(empty) != len(missing):
        return present
    values = present | dict(zip(missing, map(singleton, empty), strict=True))
    return {name: values[name] for name in names}


def _takes_nothing(x: Any) -> bool:
    if not isinstance(x, JuliaTypeValue):
        return False
    return x.isfunction or not (x.parameters or last_name(x.name) in _SIZED)


def number(x: Any) -> Any:
    """Return a number as Python has it, or NumPy's where Python has no such number."""
    return x.item() if x.dtype in (np.bool_, np.int64, np.float64) else x


def struct(
    committed: Committed, present: dict[str, Any], empty: dict[str, Any], known: Names
) -> Any:
    """Return a struct, or what Python has for it.

    Args:
      committed: its type.
      present: its fields that take bytes, by name.
      empty: its fields that take none, where the file names them.
      known: the names of fields in each version, by type.
    """
    julia = committed.type
    name = last_name(julia.name)
    if name == "NamedTuple" or name in _TUPLES:
        fields = _tuple_fields(julia, present)
        return fields if name == "NamedTuple" else tuple(fields.values())
    if name == "Pair":
        return JuliaStruct(julia.name, _tuple_fields(julia, present))
    if name in _TYPES:
        body = present.get("body")
        text = present.get("description") or present.get("name")
        return body if isinstance(body, JuliaTypeValue) else JuliaFunction(str(text or name))
    if name == "InlineUnionEl":
        return present.get("t2" if present.get("mask") else "t1")
    if "keys" in present and "vals" in present and name.endswith("Dict"):
        return _dictionary(present)
    if committed.names:
        fields = {x: present[x] if x in present else empty.get(x) for x in committed.names}
    else:
        fields = complete(julia, present, known)
    return JuliaStruct(julia.name, fields, values_only(julia.parameters))


def _tuple_fields(julia: JuliaTypeValue, present: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a tuple or a named tuple; its type has the ones that take no bytes."""
    if last_name(julia.name) == "NTuple":
        return present
    names, types = names_and_types(julia)
    if last_name(julia.name) == "Pair":
        names = "first", "second"
    if not {*present} <= {*names}:
        return present
    return {
        key: present[key] if key in present else singleton(x)
        for key, x in zip(names, types, strict=False)
    }


def unwritten(type: JuliaTypeValue, plain: Any) -> Any:
    """Return a value of which the file has another one, such as the pairs of a dictionary."""
    name = last_name(type.name)
    if isinstance(plain, dict) and "kvvec" in plain:
        plain = plain["kvvec"]
    if name in _DICTS and isinstance(plain, list | LazyArray):
        return JuliaDict(tuple(tuple(x.values) for x in plain) if isinstance(plain, list) else ())
    if name in (*_TUPLES, "SimpleVector") and isinstance(plain, list | LazyArray):
        return tuple(plain if isinstance(plain, list) else map(number, np.asarray(plain)))
    if name == "Module":
        return JuliaFunction(str(plain))
    return JuliaStruct(type.name, plain) if isinstance(plain, dict) else plain


def _dictionary(fields: dict[str, Any]) -> JuliaDict:
    """Return a dictionary that the file has as the table in which Julia keeps it."""
    keys, values = _as_list(fields["keys"]), _as_list(fields["vals"])
    slots = fields.get("slots")
    filled = [True] * len(keys)
    if isinstance(slots, LazyArray) and slots.size == len(keys) and slots.dtype == np.uint8:
        filled = [bool(x == 1 or x & 0x80) for x in np.asarray(slots)]
    pairs = zip(filled, keys, values, strict=True)
    return JuliaDict(tuple((key, x) for used, key, x in pairs if used and key is not None))


def _as_list(x: Any) -> list[Any]:
    """Return a vector as a list, also where it is an array of the file."""
    return [number(n) for n in np.asarray(x)] if isinstance(x, LazyArray) else list(x or ())
