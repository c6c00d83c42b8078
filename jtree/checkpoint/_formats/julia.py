"""Values of Julia that the readers of BSON and JLD2 return, and the nested state they become.

Source: the struct definitions of Flux 0.4 to 0.16, Tracker, Zygote and Optimisers, since a BSON
file stores the fields of a struct by position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._tree import paths
from ..._tree.lazy import LazyArray
from .julia_arrays import unwrap_array
from .julia_fields import field_names
from .julia_values import STATE as STATE
from .julia_values import JuliaDict as JuliaDict
from .julia_values import JuliaFunction as JuliaFunction
from .julia_values import JuliaStruct as JuliaStruct
from .julia_values import last_name as last_name
from .julia_values import type_name as type_name
from .limits import Budget, check_copies

METADATA = {"order": "column-major"}  # how the arrays of these files are stored


class JuliaTree(NamedTuple):
    """A nested state, and the Julia types of its structs and functions by path."""

    tree: Any
    types: dict[str, str]
    ties: tuple[tuple[str, ...], ...]


def julia_tree(
    value: Any,
    fields: Mapping[str, Sequence[str]] | None = None,
    *,
    budget: Budget | None = None,
) -> JuliaTree:
    """Return values of Julia as a nested state in basic containers.

    Named tuples, dictionaries and structs with known fields become dicts, other structs and tuples
    become tuples. Functions, types and code become `()`.

    Args:
      value: what a reader of Julia's files returned.
      fields: the names of the fields of further structs, by type.
      budget: the number of values that the file may have.

    Returns:
      The state, the name of the Julia type of each struct, function and type by path, and the
      paths of each array that is at several.
    """
    builder = _JuliaTreeBuilder(fields or {}, budget or Budget(0))
    tree = builder.visit(value, ())
    return JuliaTree(tree, builder.types, builder.ties())


class _JuliaTreeBuilder:
    """Values of Julia as basic containers, with the types and ties met on the way."""

    def __init__(self, fields: Mapping[str, Sequence[str]], budget: Budget) -> None:
        self.fields = fields
        self.budget = budget
        self.types: dict[str, str] = {}
        self.paths: dict[LazyArray, list[str]] = {}
        self.unwrapped: dict[
            int, tuple[Any, LazyArray | None]
        ] = {}  # arrays in a struct, by its id
        self.derived = 0  # bytes of all arrays in structs
        self.open: set[int] = set()  # the containers around the current value

    def visit(self, x: Any, parts: tuple[str, ...]) -> Any:
        """Return the value at the path of these parts."""
        self.budget.spend(parts)
        if isinstance(x, LazyArray):
            self._add(x, paths.join(parts))
            return x
        if isinstance(x, JuliaFunction):
            self.types[paths.join(parts)] = x.name
            return ()
        if not isinstance(x, JuliaStruct | JuliaDict | dict | list | tuple):
            return x
        if id(x) in self.open:
            raise ValueError(
                f"{paths.show(paths.join(parts))}: contains itself; save a Flux.state of the model"
            )
        self.open.add(id(x))
        tree = self._visit_container(x, parts)
        self.open.discard(id(x))
        return tree

    def _add(self, x: LazyArray, path: str) -> None:
        """Keep the path of an array; the first one is its name in errors."""
        source: Any = x.source
        if x not in self.paths:
            source.names[x.name] = path
        self.paths.setdefault(x, []).append(path)

    def ties(self) -> tuple[tuple[str, ...], ...]:
        """Return the paths of each array that is at several."""
        groups = [sorted(paths) for x, paths in self.paths.items() if x.size]
        return tuple(sorted(tuple(paths) for paths in groups if len(paths) > 1))

    def _visit_container(self, x: Any, parts: tuple[str, ...]) -> Any:
        if isinstance(x, JuliaStruct):
            return self._visit_struct(x, parts)
        if isinstance(x, JuliaDict):
            return self._visit_dict(x, parts)
        if isinstance(x, dict):
            return {key: self.visit(y, (*parts, key)) for key, y in x.items()}
        return type(x)(self.visit(y, (*parts, str(n))) for n, y in enumerate(x))

    def _visit_dict(self, x: JuliaDict, parts: tuple[str, ...]) -> Any:
        """Return a dict with text as keys, or pairs where the keys are not text or numbers."""
        keys = [str(key) for key, _ in x.pairs if isinstance(key, str | int | float | np.generic)]
        if len({*keys}) < len(x.pairs):
            return self.visit([*x.pairs], parts)
        return {
            key: self.visit(y, (*parts, key)) for key, (_, y) in zip(keys, x.pairs, strict=True)
        }

    def _visit_struct(self, x: JuliaStruct, parts: tuple[str, ...]) -> Any:
        if x.type in _INNER:
            return self.visit(_INNER[x.type](x), parts)
        if last_name(x.type) == "Complex" and len(x.values) == 2:
            return complex(*x.values)
        self.types[paths.join(parts)] = x.type
        if last_name(x.type) in _TRACKED:
            return self.visit(_tracked_value(x), parts)
        array = self._array(x)
        if array is not None:
            return self.visit(array, parts)
        if not x.fields:
            return ()
        names = field_names(x.type, x.fields, self.fields)
        values = x.values if names is None else dict(zip(names, x.values, strict=True))
        return self._visit_container(values, parts)

    def _array(self, x: Any) -> LazyArray | None:
        """Return the array that a value is or stands for, one for each struct, or None."""
        if isinstance(x, LazyArray) or not isinstance(x, JuliaStruct):
            return x if isinstance(x, LazyArray) else None
        if last_name(x.type) in _TRACKED:
            return self._array(_tracked_value(x))
        if id(x) not in self.unwrapped:
            self.unwrapped[id(x)] = x, None  # what a struct that contains itself stands for
            self.unwrapped[id(x)] = x, self._unwrap(x)
        return self.unwrapped[id(x)][1]

    def _unwrap(self, x: JuliaStruct) -> LazyArray | None:
        array = unwrap_array(x, self._array)
        if array is not None:
            source: Any = array.source
            self.derived += array.nbytes
            check_copies(self.derived, source.file.size)
        return array


def _tracked_value(x: JuliaStruct) -> Any:
    """Return the value of an array or a number that Tracker records, without its gradient."""
    values = x.values
    if isinstance(x.fields, dict) and "data" in x.fields:
        return x.fields["data"]
    if not values:
        return ()
    if last_name(x.type) == "TrackedReal":
        return values[0]
    if last_name(x.type) == "Tracked":
        return values[3] if len(values) == 5 else ()
    old = len(values) > 3 or isinstance(values[0], np.generic | int)  # a reference and a call
    return values[2 if old else 1] if len(values) > 1 else ()


def _parameters(x: JuliaStruct) -> Any:
    """Return the list of arrays in a set of parameters, in order."""
    order = x.values[0] if x.values else []
    while isinstance(order, JuliaStruct) and order.values:
        order = order.values[0]  # of a buffer or an ordered set
    return order


_TRACKED = {"TrackedArray", "TrackedReal", "Tracked"}
_INNER: dict[str, Callable[[JuliaStruct], Any]] = {  # structs of which one value is of interest
    "Zygote.Params": _parameters,
    "Tracker.Params": _parameters,
    "Flux.Tracker.Params": _parameters,
    "Flux.Zeros": lambda _: False,  # a bias that is switched off
}
