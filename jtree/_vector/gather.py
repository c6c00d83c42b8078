"""What another tree holds at the places of a layout's parameters."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax
import numpy as np

from .._errors import ModelError, did_you_mean
from .._tree import paths
from .._tree.leaves import (
    check_alive,
    describe,
    equal,
    isabstract,
    isarray,
    isconcrete,
    isnumber,
    isnumeric,
)
from .._tree.ties import Slot
from .._tree.walk import Walk
from .layout import VectorLayout
from .ravel import as_dtype, common_dtype, on_device


def values_at(
    layout: VectorLayout, walked: Walk, absent: bool = False
) -> list[list[tuple[str, Any]]]:
    """Return what a tree holds at the places of each parameter: (path, value) for each object."""
    slots = {slot.path: slot for slot in walked.slots}
    known = set(layout.slots)
    for path, slot in slots.items():
        if path not in known and isnumeric(slot.value):
            raise ModelError(
                f"{paths.show(path)}: expected nothing, found {describe(slot.value)}"
                f"{did_you_mean(path, known)}"
            )
    return [_at(layout, k, slots, absent) for k in range(len(layout.shapes))]


def _at(
    layout: VectorLayout, k: int, slots: dict[str, Slot], absent: bool
) -> list[tuple[str, Any]]:
    """Return what is at the places of parameter k, once for each reference object."""
    shape, found = layout.shapes[k], dict[int, tuple[str, Any]]()
    places = [layout.slots[slot] for slot in layout.places[k]]
    present = [path for path in places if path in slots]
    for path in present:
        value = slots[path].value
        if absent and (value is None or getattr(value, "dtype", None) == jax.dtypes.float0):
            continue
        (check_shape if absent else check_parameter)(path, value, shape)
        found.setdefault(slots[path].tie, (path, value))
    if not present and not (absent and any(_above(path, slots) for path in places)):
        raise ModelError(
            f"{paths.show(places[0])}: expected {layout.dtypes[k]}{list(shape)}, found nothing"
            f"{did_you_mean(places[0], slots)}"
        )
    return list(found.values())


def _above(path: str, slots: dict[str, Slot]) -> bool:
    """Tell whether a whole branch that this path is in was replaced by None."""
    return any(place in slots and slots[place].value is None for place in paths.above(path))


def check_shape(path: str, value: Any, shape: tuple[int, ...]) -> None:
    """Refuse what is no array of numbers of this shape."""
    if not isarray(value) or tuple(value.shape) != shape or not isnumber(value.dtype):
        raise ModelError(
            f"{paths.show(path)}: expected numbers of shape {shape}, found {describe(value)}"
        )
    check_alive(path, value)


def check_parameter(path: str, value: Any, shape: tuple[int, ...]) -> None:
    """Refuse what cannot be a parameter of this shape."""
    check_shape(path, value, shape)
    if not isnumeric(value):
        raise ModelError(
            f"{paths.show(path)}: expected floating or complex numbers, found {describe(value)}"
        )


def one_value(found: list[tuple[str, Any]]) -> Any:
    """Return the value of a parameter, which all its places must hold."""
    (path, value), *others = found
    for other, x in others:
        if x is not value and isconcrete(x) and isconcrete(value) and not equal(x, value):
            raise ModelError(
                f"{paths.show(path)} and {paths.show(other)} are one parameter, but they hold "
                "different numbers; set them equal, or use ties=() in destructure"
            )
    return value


def add(layout: VectorLayout, k: int, found: list[tuple[str, Any]]) -> Any:
    """Return the sum of the gradients at the places of one parameter."""
    if not found:
        return np.zeros(layout.shapes[k], layout.dtypes[k])
    arrays = [value for _, value in found]
    dtype = common_dtype([x.dtype for x in arrays])
    if any(map(isabstract, arrays)):
        return jax.ShapeDtypeStruct(layout.shapes[k], dtype)
    return reduce(operator.add, (as_dtype(on_device(x), dtype) for x in arrays))


def differing_places(expected: Sequence[str], found: Sequence[str]) -> str:
    """Return how the places of two models differ, in words."""
    missing = [path for path in expected if path not in set(found)]
    unknown = [path for path in found if path not in set(expected)]
    if not missing and not unknown:
        return "expected a model with the same places in the same order, found another order"
    lists = paths.shorten(missing) or "none", paths.shorten(unknown) or "none"
    return "expected a model with the same places: missing are {}, unknown are {}".format(*lists)
