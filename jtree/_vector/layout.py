"""Where everything goes: the static half of a `Restructure`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from .._errors import VectorError, VectorTypeError
from .._tree.leaves import check_alive, describe, isarray, isnumber


@dataclass(frozen=True)
class VectorLayout:
    """The layout of a model and its vector, hashable and without arrays.

    Every slot of the model has a source: `k`, not negative, for parameter k, and `~k` for what
    rides along as number k.
    """

    name: str
    slots: tuple[str, ...]
    sources: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype[Any], ...]
    dtype: np.dtype[Any]

    @cached_property
    def first_slots(self) -> tuple[int, ...]:
        """The slot that each parameter is read from."""
        return tuple(self.places[k][0] for k in range(len(self.shapes)))

    @cached_property
    def places(self) -> tuple[tuple[int, ...], ...]:
        """The slots of each parameter, more than one where it is tied."""
        found: list[list[int]] = [[] for _ in self.shapes]
        for slot, source in enumerate(self.sources):
            if source >= 0:
                found[source].append(slot)
        return tuple(map(tuple, found))

    @cached_property
    def firsts(self) -> tuple[tuple[str, int], ...]:
        """The path and the slot that each parameter is read from."""
        return tuple(zip(self.paths, self.first_slots, strict=True))

    @cached_property
    def riding(self) -> tuple[int, ...]:
        """The slots of what rides along."""
        return tuple(slot for slot, source in enumerate(self.sources) if source < 0)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(math.prod, self.shapes))

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        ends = np.cumsum(self.sizes, dtype=int).tolist()
        return tuple(slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True))

    @cached_property
    def size(self) -> int:
        return sum(self.sizes)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        return tuple(self.slots[first] for first in self.first_slots)

    @cached_property
    def ties(self) -> tuple[tuple[str, ...], ...]:
        return tuple(
            tuple(self.slots[slot] for slot in places) for places in self.places if len(places) > 1
        )

    @cached_property
    def shapes_by_path(self) -> Mapping[str, tuple[int, ...]]:
        return MappingProxyType(dict(zip(self.paths, self.shapes, strict=True)))

    @cached_property
    def dtypes_by_path(self) -> Mapping[str, np.dtype[Any]]:
        return MappingProxyType(dict(zip(self.paths, self.dtypes, strict=True)))

    @cached_property
    def slices_by_path(self) -> Mapping[str, slice]:
        return MappingProxyType(dict(zip(self.paths, self.slices, strict=True)))

    @cached_property
    def by_path(self) -> dict[str, int]:
        """The number of the parameter at every path, tied places included."""
        return {self.slots[slot]: source for slot, source in enumerate(self.sources) if source >= 0}

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.slots, self.sources, self.shapes, self.dtype))

    def __hash__(self) -> int:
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in self.__dataclass_fields__}


def check_vector(flat: Any, layout: VectorLayout) -> None:
    """Refuse what is no vector of this layout's length."""
    if not isarray(flat):
        raise VectorTypeError(
            f"expected a vector of {layout.size} numbers, found {describe(flat)}; "
            "make it an array with jnp.asarray"
        )
    if not isnumber(flat.dtype):
        raise VectorTypeError(
            f"expected a vector of {layout.size} numbers, found an array of {flat.dtype}"
        )
    if flat.ndim != 1:
        raise VectorError(
            f"expected a vector of {layout.size} numbers, found an array of rank {flat.ndim} and "
            f"shape {flat.shape}; for a batch of vectors use jax.vmap(re)"
        )
    if flat.shape[0] != layout.size:
        raise VectorError(
            f"expected a vector of {layout.size} numbers, found one of {flat.shape[0]}"
        )
    check_alive("the vector", flat)
