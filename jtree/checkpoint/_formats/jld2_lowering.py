"""The types that Julia has for the values of a state, and what they are in a file of JLD2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .julia_values import DTYPES, element_type, named

INLINE = 1024  # bytes in Julia's memory of a value that is stored in another one

Parameter: TypeAlias = "Type | int | tuple[str, ...]"


class Type(NamedTuple):
    """A type of Julia: its name, and its parameters."""

    name: str
    parameters: tuple[Parameter, ...] = ()


ANY, STRING, SYMBOL = Type("Core.Any"), Type("Core.String"), Type("Core.Symbol")
DATA_TYPE = Type("Core.DataType")
_NOTHING = Type("Core.Nothing")
_PLAIN = {bool: Type("Core.Bool"), int: Type("Core.Int64"), float: Type("Core.Float64")}
_MODULES = {"BFloat16": "BFloat16s"}


def type_of(x: Any) -> Type:
    """Return the type that Julia has for a value."""
    if isinstance(x, dict):
        names = tuple(named(x))
        return Type("Core.NamedTuple", (names, _types(x.values())))
    if isinstance(x, tuple):
        return _types(x)
    if isinstance(x, list):
        return Type("Core.Array", (ANY, 1))
    if isinstance(x, bytes):
        return Type("Core.Array", (Type("Core.UInt8"), 1))
    if hasattr(x, "dtype"):
        element = element_of(x)
        return element if isinstance(x, np.generic) else Type("Core.Array", (element, x.ndim))
    if isinstance(x, complex):
        return Type("Base.Complex", (_PLAIN[float],))
    if isinstance(x, str):
        return STRING
    return _NOTHING if x is None else _PLAIN[type(x)]


def _types(values: Iterable[Any]) -> Type:
    return tuple_of([type_of(x) for x in values])


def tuple_of(types: list[Type]) -> Type:
    """Return the type of a tuple."""
    return Type("Core.Tuple", tuple(types))


def element_of(x: Any) -> Type:
    """Return the type of an array's elements."""
    name, iscomplex = element_type(x)
    element = Type(f"{_MODULES.get(name, 'Core')}.{name}")
    return Type("Base.Complex", (element,)) if iscomplex else element


def fields(type: Type) -> list[tuple[str, Type]]:
    """Return the names and the types of the fields of a type."""
    if type.name == "Base.Complex":
        return [(name, x) for x in type.parameters for name in ("re", "im") if isinstance(x, Type)]
    parameters = type.parameters
    names: Any = None
    if type.name == "Core.NamedTuple":
        names = parameters[0]
        parameters = parameters[1].parameters if isinstance(parameters[1], Type) else ()
    types = [x for x in parameters if isinstance(x, Type)]
    if not isinstance(names, tuple):
        names = tuple(str(n + 1) for n in range(len(types)))
    return list(zip(names, types, strict=True))


def _iscompound(type: Type) -> bool:
    return type.name in ("Core.Tuple", "Core.NamedTuple", "Base.Complex")


def has_data(type: Type) -> bool:
    """Return whether values of a type take bytes."""
    if not _iscompound(type):
        return type != _NOTHING
    return bool(_stored_fields(type))


def _stored_fields(type: Type) -> list[Type]:
    """Return the types of the fields that take bytes."""
    return [x for _, x in fields(type) if has_data(x)]


def memory(type: Type) -> tuple[int, int]:
    """Return the size and the alignment of values of a type in Julia's memory."""
    if not _iscompound(type):
        plain = DTYPES.get(type.name.removeprefix("Core."))
        size = plain.itemsize if plain else 0 if type == _NOTHING else 8
        return size, max(size, 1)
    end, alignment = 0, 1
    for size, step in _field_memory(type):
        end += -end % step + size
        alignment = max(alignment, step)
    return end + -end % alignment, alignment


def _field_memory(type: Type) -> list[tuple[int, int]]:
    return [memory(x) for _, x in fields(type)]
