"""Generic functions for objects that stand for a tree, such as paths and open checkpoints."""

from __future__ import annotations

from enum import Enum
from functools import singledispatch
from typing import Any


class Scalars(Enum):
    """The treatment of numbers, bools, text and bytes, which are not arrays, in a comparison."""

    KEPT = "those of the destination are kept"
    LOADED = "those of the source are loaded"
    REQUIRED = "those of the source are loaded, and each must be there"


@singledispatch
def resolve(x: Any, /) -> Any:
    """Return the opened checkpoint that a path stands for, and any other object unchanged."""
    return x


@singledispatch
def open_tree(x: Any, /) -> Any:
    """Return the tree that an object stands for: itself, or the contents of a checkpoint."""
    return x


@singledispatch
def open_for(x: Any, dst: Any, /) -> Any:
    """Return the tree that a source stands for; without names, it is laid out like `dst`."""
    del dst
    return open_tree(x)


@singledispatch
def recorded_ties(x: Any, /) -> tuple[tuple[str, ...], ...] | None:
    """Return the ties that a checkpoint records, as groups of paths; None for other objects."""
    del x
    return None


@singledispatch
def scalars_of(x: Any, /) -> Scalars:
    """Return what loading from an object does with the leaves that are not arrays."""
    del x
    return Scalars.KEPT
