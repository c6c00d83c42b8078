"""Parameter counts, bytes, and notes on NaN, Inf and zeros."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import _text
from .._tree.leaves import isarray, isconcrete, isnumeric
from .._tree.ties import Slot

plural = partial(_text.plural, separator="_")


class Size(NamedTuple):
    """The size of some arrays.

    Attributes:
      arrays: the number of arrays.
      parameters: the number of their elements.
      bytes: the bytes that they take.
    """

    arrays: int = 0
    parameters: int = 0
    bytes: int = 0


class Sizes(NamedTuple):
    """The sizes of the arrays in some slots, counting tied arrays once.

    Attributes:
      trainable: the size of the parameters.
      rest: the size of other arrays, such as running statistics, counters and PRNG keys.
      tied: the number of slots whose array is counted at another slot.
    """

    trainable: Size
    rest: Size
    tied: int


class ValueNotes(NamedTuple):
    """Notes on the values of an array: all zero, some NaN, some infinite."""

    zero: bool
    nan: bool
    inf: bool


def size(x: Any) -> Size:
    """Return the size of one array of any kind.

    >>> size(jax.ShapeDtypeStruct((3, 2), jnp.float16))
    Size(arrays=1, parameters=6, bytes=12)
    """
    elements = math.prod(x.shape)
    return Size(1, elements, elements * x.dtype.itemsize)


def sizes(slots: Iterable[tuple[int, Slot]]) -> Sizes:
    """Return the sizes of the arrays in slots, which are given with their indices."""
    arrays = [(index, slot) for index, slot in slots if isarray(slot.value)]
    first = [slot for index, slot in arrays if slot.tie == index]
    trainable = [size(slot.value) for slot in first if slot.trainable]
    rest = [size(slot.value) for slot in first if not slot.trainable]
    return Sizes(_sum(trainable), _sum(rest), len(arrays) - len(first))


def _sum(parts: Sequence[Size]) -> Size:
    return Size(*map(sum, zip(*parts, strict=True))) if parts else Size()


def end_of_total(tied: int) -> str:
    """Return the end of a sentence with a total: a note on tied leaves, or a dot.

    >>> end_of_total(2), end_of_total(0)
    ('; 2 tied leaves not counted again.', '.')
    """
    leaves = plural(tied, "tied leaf", "tied leaves")
    return f"; {leaves} not counted again." if tied else "."


def remark(notes: Sequence[ValueNotes | None]) -> str:
    """Return a remark on the values of some arrays, or an empty string.

    >>> remark([ValueNotes(True, False, False)] * 2), remark([ValueNotes(False, True, False), None])
    ('(all zero)', '(some NaN)')
    """
    known = [note for note in notes if note is not None]
    if known and len(known) == len(notes) and all(note.zero for note in known):
        return "(all zero)"
    if any(note.nan for note in known):
        return "(some NaN)"
    return "(some Inf)" if any(note.inf for note in known) else ""


def value_notes(arrays: Sequence[Any]) -> list[ValueNotes | None]:
    """Return notes on the values of arrays, or None for an array that cannot be read.

    Nothing is copied. An array in the memory of the host is read there. From any other device only
    three booleans per array are transferred, those of all arrays at once.
    """
    with jax.debug_nans(False), jax.debug_infs(False):
        notes = jax.device_get([_inspect(x) for x in arrays])
    return [None if note is None else ValueNotes(*map(bool, note)) for note in notes]


def _inspect(x: Any) -> Any:
    if not (isconcrete(x) and isnumeric(x) and x.size) or getattr(x, "is_deleted", bool)():
        return None
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return None  # every process would have to take part, but most often only one of them prints
    if _fast_on_host(x):
        return _inspect_host(np.asarray(x))
    try:
        return _inspect_device(x)
    except ValueError:  # the devices are not those of the mesh in jax.set_mesh
        return None


def _fast_on_host(x: Any) -> bool:
    """Return whether NumPy can read an array fast and without a copy."""
    if isinstance(x, np.ndarray):
        return True
    fast = x.dtype.itemsize >= 4 or x.size <= 2**16  # NumPy is slow for dtypes of ml_dtypes
    host = str(x.sharding.memory_kind).endswith("host")
    devices = x.devices()
    return len(devices) == 1 and (host or (fast and next(iter(devices)).platform == "cpu"))


def _inspect_host(x: Any) -> Any:
    with np.errstate(all="ignore"):
        extremes = [f(part) for part in _real_parts(x) for f in (np.min, np.max)]
    return (
        all(value == 0 for value in extremes),
        any(value != value for value in extremes),
        any(abs(float(value)) == np.inf for value in extremes),
    )


@jax.jit
def _inspect_device(x: Any) -> Any:
    """Return the same for an array on any device, where `min` of a large one may miss a NaN."""
    tests = (lambda part: part != 0), jnp.isnan, jnp.isinf
    parts = _real_parts(x)
    nonzero, nan, inf = (jnp.stack([test(part).any() for part in parts]).any() for test in tests)
    return ~nonzero, nan, inf


def _real_parts(x: Any) -> list[Any]:
    return [x.real, x.imag] if jnp.issubdtype(x.dtype, jnp.complexfloating) else [x]
