"""What stands for a tree: register a type, such as that of an open checkpoint, to load from it."""

from __future__ import annotations

from functools import singledispatch
from typing import Any


@singledispatch
def resolve(x: Any, /) -> Any:
    """Return the opened checkpoint that a path stands for, and any other object as it is."""
    return x


@singledispatch
def open_tree(x: Any, /) -> Any:
    """Return the tree that an object stands for: itself, or the contents of a checkpoint."""
    return x


@singledispatch
def recorded_ties(x: Any, /) -> tuple[tuple[str, ...], ...] | None:
    """Return the ties that a checkpoint records, as groups of paths; None for other objects."""
    del x
    return None
