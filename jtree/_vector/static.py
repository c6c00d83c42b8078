"""Leaves that `jit` cannot take, made hashable and comparable."""

from __future__ import annotations

from typing import Any

import numpy as np


class Static:
    """A leaf that is no array of JAX, made hashable and comparable, so that `jit` can take it.

    Equal are leaves of one type that are alike to the bit, and whatever is the same object. A
    NumPy array is copied, since `jit` keeps what it was. A `Static` of nothing is false.
    """

    __slots__ = ("_held",)

    def __init__(self, *held: Any) -> None:
        self._held = tuple(map(_kept, held))

    @property
    def value(self) -> Any:
        return self._held[0]

    def __bool__(self) -> bool:
        return bool(self._held)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Static) or len(self._held) != len(other._held):
            return False
        return all(map(alike, self._held, other._held))

    def __hash__(self) -> int:
        try:
            return hash(tuple(map(_key, self._held)))
        except TypeError:
            return hash(tuple(map(type, self._held)))


def alike(a: Any, b: Any) -> bool:
    """Tell whether two leaves that are no arrays of JAX are the same, in type and to the bit."""
    if a is b:
        return True
    try:
        return bool(_key(a) == _key(b))
    except Exception:  # an object's own comparison may do anything
        return False


def _key(x: Any) -> Any:
    """Return what tells a leaf apart: for numbers their bits, so that NaN is NaN."""
    if isinstance(x, np.ndarray | np.generic) and not x.dtype.hasobject:
        return type(x), x.dtype, x.shape, x.tobytes()
    if isinstance(x, float | complex):
        return type(x), repr(x)
    return type(x), x


def _kept(x: Any) -> Any:
    if not isinstance(x, np.ndarray):
        return x
    copy = x.copy()
    copy.setflags(write=False)
    return copy
