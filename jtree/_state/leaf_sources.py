"""The sources of leaves, and one source for the leaves that are tied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from .._tree import paths as _path
from .._tree.lazy import LazyArray
from .._tree.leaves import equal, isconcrete, isscalar
from .._tree.ties import Slot
from .dtypes import isreadable
from .mismatch import Mismatch, mismatch


class _Marker(NamedTuple):
    name: str


ZERO: Final = _Marker("zero")  # the source has no such parameter, so the destination becomes zero
KEEP: Final = _Marker("keep")  # the destination keeps its values


def resolve_ties(
    slots: Sequence[Slot], indices: Mapping[str, int], sources: dict[int, Any]
) -> tuple[list[Mismatch], dict[int, Any]]:
    """Return the tied leaves whose sources differ, and one source for each group of tied slots.

    Args:
      slots: all slots of the destination.
      indices: the indices of those that are compared, by path.
      sources: the source of each slot that has one, by index.
    """
    conflicts, resolved = [], {}
    paths = {index: path for path, index in indices.items()}
    groups: dict[int, list[int]] = {}
    for index in sources:
        groups.setdefault(slots[index].tie, []).append(index)
    for first, group in groups.items():
        values = [sources[index] for index in group]
        if all(_same_source(slots[first].value, values[0], x) for x in values[1:]):
            resolved[first] = values[0]
        else:
            names = " and ".join(_path.show(paths[index]) for index in group)
            known = all(isreadable(x) or isinstance(x, _Marker) or isscalar(x) for x in values)
            text = "different values" if known else "values that cannot be compared yet"
            path = paths[group[0]]
            conflicts.append(mismatch(path, "ties", "one parameter", f"{text} at {names}"))
    return conflicts, resolved


def _same_source(target: Any, a: Any, b: Any) -> bool:
    """Return whether two sources are known to give a leaf the same values."""
    if a is b or (isscalar(target) and type(a) is type(b) and bool(a == b)):
        return True
    x, y = (_source_values(target, source) for source in (a, b))
    return x is y or (isconcrete(x) and isconcrete(y) and equal(x, y))


def _source_values(target: Any, source: Any) -> Any:
    if source is KEEP:
        source = target
    if isinstance(source, LazyArray):
        return source.read()
    if source is ZERO:
        return np.zeros(target.shape, target.dtype)
    return np.asarray(source) if isinstance(source, np.generic) else source
