"""The layout of a model in its vector: the static half of a `Restructure`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

import jax
import numpy as np

from .._errors import VectorError, VectorTypeError
from .._tree.leaves import check_alive, describe, isarray, isnumber
from .._tree.paths import Where, select

V = TypeVar("V")


@dataclass(frozen=True)
class VectorLayout:
    """The layout of a model in its vector. It is hashable and holds no arrays.

    Attributes:
      name: the name of the model's type.
      slots: the path of every slot of the model.
      sources: for every slot, `k >= 0` for parameter k, or `~k` for entry k of the other leaves.
      shapes: the shape of every parameter.
      dtypes: the dtype of every parameter in the model.
      dtype: the dtype of the vector.
    """

    name: str
    slots: tuple[str, ...]
    sources: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype[Any], ...]
    dtype: np.dtype[Any]

    @cached_property
    def parameter_slots(self) -> tuple[tuple[int, ...], ...]:
        """The slots of each parameter: several where it is tied."""
        slots: list[list[int]] = [[] for _ in self.shapes]
        for slot, source in enumerate(self.sources):
            if source >= 0:
                slots[source].append(slot)
        return tuple(map(tuple, slots))

    @cached_property
    def first_slots(self) -> tuple[int, ...]:
        """The slot that each parameter is read from."""
        return tuple(slots[0] for slots in self.parameter_slots)

    @cached_property
    def other_slots(self) -> tuple[int, ...]:
        """The slots that do not hold parameters."""
        return tuple(slot for slot, source in enumerate(self.sources) if source < 0)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        return tuple(self.slots[first] for first in self.first_slots)

    @cached_property
    def ties(self) -> tuple[tuple[str, ...], ...]:
        tied = (slots for slots in self.parameter_slots if len(slots) > 1)
        return tuple(tuple(self.slots[slot] for slot in slots) for slots in tied)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(math.prod, self.shapes))

    @cached_property
    def size(self) -> int:
        return sum(self.sizes)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        ends = np.cumsum(self.sizes, dtype=int).tolist()
        return tuple(slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True))

    @cached_property
    def by_path(self) -> dict[str, int]:
        """The index of the parameter at every path, including the paths of tied leaves."""
        return {self.slots[slot]: source for slot, source in enumerate(self.sources) if source >= 0}

    @cached_property
    def shapes_by_path(self) -> Mapping[str, tuple[int, ...]]:
        return self._mapping(self.shapes)

    @cached_property
    def dtypes_by_path(self) -> Mapping[str, np.dtype[Any]]:
        return self._mapping(self.dtypes)

    @cached_property
    def slices_by_path(self) -> Mapping[str, slice]:
        return self._mapping(self.slices)

    def select(self, where: Where) -> tuple[int, ...]:
        """Return the indices of the parameters that `where` selects by any of their paths."""
        leaves = [
            (path, jax.ShapeDtypeStruct(self.shapes[k], self.dtypes[k]))
            for path, k in self.by_path.items()
        ]
        selected = zip(self.by_path.values(), select(where, leaves), strict=True)
        return tuple(sorted({k for k, flag in selected if flag}))

    def _mapping(self, values: Iterable[V]) -> Mapping[str, V]:
        return MappingProxyType(dict(zip(self.paths, values, strict=True)))

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.slots, self.sources, self.shapes, self.dtype))

    def __hash__(self) -> int:
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in self.__dataclass_fields__}


def check_vector(flat: Any, layout: VectorLayout) -> None:
    """Raise an error unless `flat` is a vector with the length of this layout."""
    expected = f"expected a vector of {layout.size} elements"
    if not isarray(flat):
        raise VectorTypeError(
            f"{expected}, found {describe(flat)}; make it an array with jnp.asarray"
        )
    if not isnumber(flat.dtype):
        raise VectorTypeError(f"{expected}, found an array of {flat.dtype}")
    if flat.ndim != 1:
        raise VectorError(
            f"{expected}, found an array of rank {flat.ndim} and shape {flat.shape}; "
            "for a batch of vectors use jax.vmap(re)"
        )
    if flat.shape[0] != layout.size:
        raise VectorError(f"{expected}, found one of {flat.shape[0]}")
    check_alive("the vector", flat)
