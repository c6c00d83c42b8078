"""How much is in a model, and what is odd about its numbers: what every printed model says."""

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
    """Some arrays: how many, with how many numbers, in how many bytes."""

    arrays: int = 0
    parameters: int = 0
    bytes: int = 0


class Sizes(NamedTuple):
    """The arrays at some places, those of tied places once."""

    trainable: Size
    rest: Size  # running statistics, counters, PRNG keys
    tied: int  # places whose array is counted at another place


class Fact(NamedTuple):
    """What is odd about the numbers of an array."""

    zero: bool
    nan: bool
    inf: bool


def size(x: Any) -> Size:
    """Return the size of one array, of whatever kind.

    >>> size(jax.ShapeDtypeStruct((3, 2), jnp.float16))
    Size(arrays=1, parameters=6, bytes=12)
    """
    number = math.prod(x.shape)
    return Size(1, number, number * x.dtype.itemsize)


def sizes(slots: Iterable[tuple[int, Slot]]) -> Sizes:
    """Return the sizes of the arrays among numbered slots."""
    arrays = [(number, slot) for number, slot in slots if isarray(slot.value)]
    first = [slot for number, slot in arrays if slot.tie == number]
    trainable = [size(slot.value) for slot in first if slot.trainable]
    rest = [size(slot.value) for slot in first if not slot.trainable]
    return Sizes(_sum(trainable), _sum(rest), len(arrays) - len(first))


def _sum(found: Sequence[Size]) -> Size:
    return Size(*map(sum, zip(*found, strict=True))) if found else Size()


def remark(facts: Sequence[Fact | None]) -> str:
    """Return the remark on some arrays, where there is one.

    >>> remark([Fact(True, False, False)] * 2), remark([Fact(False, True, False), None])
    ('(all zero)', '(some NaN)')
    """
    known = [fact for fact in facts if fact is not None]
    if known and len(known) == len(facts) and all(fact.zero for fact in known):
        return "(all zero)"
    if any(fact.nan for fact in known):
        return "(some NaN)"
    return "(some Inf)" if any(fact.inf for fact in known) else ""


def facts(arrays: Sequence[Any]) -> list[Fact | None]:
    """Return what is odd about arrays; None where there are no numbers that can be read.

    Nothing is copied: an array that is in the host's memory is read there, of any other one only
    three booleans leave its device, and those of all arrays together.
    """
    with jax.debug_nans(False), jax.debug_infs(False):
        found = jax.device_get([_look(x) for x in arrays])
    return [None if fact is None else Fact(*map(bool, fact)) for fact in found]


def _look(x: Any) -> Any:
    if not (isconcrete(x) and isnumeric(x) and x.size) or getattr(x, "is_deleted", bool)():
        return None
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return None  # all processes would have to ask, and most often one prints
    if _here(x):
        return _look_here(np.asarray(x))
    try:
        return _look_there(x)
    except ValueError:  # on other devices than those of the mesh in jax.set_mesh
        return None


def _here(x: Any) -> bool:
    """Tell whether NumPy reads an array without a copy, and fast."""
    if isinstance(x, np.ndarray):
        return True
    fast = x.dtype.itemsize >= 4 or x.size <= 2**16  # NumPy is slow on dtypes that it lacks
    host = str(x.sharding.memory_kind).endswith("host")
    devices = x.devices()
    return len(devices) == 1 and (host or (fast and next(iter(devices)).platform == "cpu"))


def _look_here(x: Any) -> Any:
    with np.errstate(all="ignore"):
        ends = [f(part) for part in _parts(x) for f in (np.min, np.max)]
    return (
        all(end == 0 for end in ends),
        any(end != end for end in ends),
        any(abs(float(end)) == np.inf for end in ends),
    )


@jax.jit
def _look_there(x: Any) -> Any:
    """Return the same of an array on any device, where `min` of a large one may lose a NaN."""
    tests = (lambda part: part != 0), jnp.isnan, jnp.isinf
    some, nan, inf = (jnp.stack([test(p).any() for p in _parts(x)]).any() for test in tests)
    return ~some, nan, inf


def _parts(x: Any) -> list[Any]:
    return [x.real, x.imag] if jnp.issubdtype(x.dtype, jnp.complexfloating) else [x]
