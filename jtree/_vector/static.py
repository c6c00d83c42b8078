"""Leaves that `jit` cannot take, wrapped so that they can be hashed and compared."""

from __future__ import annotations

from typing import Any

import numpy as np


class Static:
    """A leaf that is not a JAX array, as part of a static structure under `jit`.

    Two leaves are equal if they are the same object, or have the same type and the same bits. A
    NumPy array is copied, because `jit` keeps the value it has seen. `Static()` has no leaf and is
    false.
    """

    __slots__ = ("_leaf",)

    def __init__(self, *leaf: Any) -> None:
        self._leaf = tuple(map(_frozen, leaf))

    @property
    def value(self) -> Any:
        return self._leaf[0]

    def __bool__(self) -> bool:
        return bool(self._leaf)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Static) or len(self._leaf) != len(other._leaf):
            return False
        return all(map(alike, self._leaf, other._leaf))

    def __hash__(self) -> int:
        try:
            return hash(tuple(map(_identity, self._leaf)))
        except TypeError:
            return hash(tuple(map(type, self._leaf)))


def alike(a: Any, b: Any) -> bool:
    """Return whether two leaves that are not JAX arrays have the same type and the same bits."""
    if a is b:
        return True
    try:
        return bool(_identity(a) == _identity(b))
    except Exception:  # from the user's own __eq__
        return False


def _identity(x: Any) -> Any:
    """Return a key to compare leaves by: the bits of a float, so that NaN equals NaN."""
    if isinstance(x, np.ndarray | np.generic) and not x.dtype.hasobject:
        return type(x), x.dtype, x.shape, x.tobytes()
    if isinstance(x, float | complex):
        return type(x), repr(x)
    return type(x), x


def _frozen(x: Any) -> Any:
    if not isinstance(x, np.ndarray):
        return x
    copy = x.copy()
    copy.setflags(write=False)
    return copy
