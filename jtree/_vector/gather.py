"""The leaves of another tree at the paths of a layout's parameters."""

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
from .dtypes import as_dtype, as_jax, common_dtype
from .layout import VectorLayout

Leaves = list[tuple[str, Any]]  # (path, value), one for each reference object


def gather(layout: VectorLayout, slots: Sequence[Slot], *, gradient: bool = False) -> list[Leaves]:
    """Return the leaves of each parameter in the slots of a tree.

    Args:
      layout: the layout that names the parameters.
      slots: the slots of any tree.
      gradient: whether leaves may be absent: None, float0, or below a branch that is None.

    Raises:
      ModelError: a parameter is missing, has another shape, or is unknown to the layout.
    """
    by_path = {slot.path: slot for slot in slots}
    known = set(layout.slots)
    for path, slot in by_path.items():
        if path not in known and isnumeric(slot.value):
            raise ModelError(
                f"{paths.show(path)}: expected nothing, found {describe(slot.value)}"
                f"{did_you_mean(path, known)}"
            )
    return [_leaves(layout, k, by_path, gradient) for k in range(len(layout.shapes))]


def _leaves(layout: VectorLayout, k: int, slots: dict[str, Slot], gradient: bool) -> Leaves:
    shape, leaves = layout.shapes[k], dict[int, tuple[str, Any]]()
    expected = [layout.slots[slot] for slot in layout.parameter_slots[k]]
    present = [path for path in expected if path in slots]
    for path in present:
        value = slots[path].value
        if gradient and (value is None or getattr(value, "dtype", None) == jax.dtypes.float0):
            continue
        (check_shape if gradient else check_parameter)(path, value, shape)
        leaves.setdefault(slots[path].tie, (path, value))
    if not present and not (gradient and any(_below_none(path, slots) for path in expected)):
        raise ModelError(
            f"{paths.show(expected[0])}: expected {layout.dtypes[k]}{list(shape)}, found nothing"
            f"{did_you_mean(expected[0], slots)}"
        )
    return list(leaves.values())


def _below_none(path: str, slots: dict[str, Slot]) -> bool:
    """Return whether a whole branch that contains this path was replaced by None."""
    return any(x in slots and slots[x].value is None for x in paths.ancestors(path))


def check_shape(path: str, value: Any, shape: tuple[int, ...]) -> None:
    """Raise an error unless a value is an array of this shape with a numeric dtype."""
    if not isarray(value) or tuple(value.shape) != shape or not isnumber(value.dtype):
        raise ModelError(
            f"{paths.show(path)}: expected an array of shape {shape}, found {describe(value)}"
        )
    check_alive(path, value)


def check_parameter(path: str, value: Any, shape: tuple[int, ...]) -> None:
    """Raise an error unless a value can be a parameter of this shape."""
    check_shape(path, value, shape)
    if not isnumeric(value):
        raise ModelError(
            f"{paths.show(path)}: expected a floating-point or complex array, "
            f"found {describe(value)}"
        )


def shared_value(leaves: Leaves) -> Any:
    """Return the value of a parameter, which must be the same in all of its leaves."""
    (path, value), *others = leaves
    for other, x in others:
        if x is not value and isconcrete(x) and isconcrete(value) and not equal(x, value):
            raise ModelError(
                f"{paths.show(path)} and {paths.show(other)} are one parameter, but their values "
                "differ; make them equal, or use ties=() in destructure"
            )
    return value


def sum_gradients(layout: VectorLayout, k: int, leaves: Leaves) -> Any:
    """Return the sum of the gradients of parameter k, which is zero where there are none."""
    if not leaves:
        return np.zeros(layout.shapes[k], layout.dtypes[k])
    arrays = [value for _, value in leaves]
    dtype = common_dtype([x.dtype for x in arrays])
    if any(map(isabstract, arrays)):
        return jax.ShapeDtypeStruct(layout.shapes[k], dtype)
    return reduce(operator.add, (as_dtype(as_jax(x), dtype) for x in arrays))


def compare_paths(expected: Sequence[str], found: Sequence[str]) -> str:
    """Return the message for a model whose paths are not the expected ones."""
    missing = [path for path in expected if path not in set(found)]
    unknown = [path for path in found if path not in set(expected)]
    if not missing and not unknown:
        return "expected a model with the same paths in the same order, found another order"
    lists = paths.shorten(missing) or "none", paths.shorten(unknown) or "none"
    return "expected a model with the same paths; missing: {}; unknown: {}".format(*lists)
