"""Trees whose arrays are in files: opened, narrowed to some places, and read."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import jax

from .._tree import paths
from .._tree.lazy import LazyArray, read_all
from .._tree.paths import Where
from .._tree.ties import Ties
from .._tree.walk import Walk, walk


@singledispatch
def opened(x: Any, /) -> Any:
    """Return the tree that something stands for: itself, or what the checkpoint there holds."""
    return x


@singledispatch
def tied(x: Any, /) -> tuple[tuple[str, ...], ...]:
    """Return what is tied in a tree besides references: what a checkpoint says of its own."""
    del x
    return ()


def both_walked(dst: Any, src: Any, ties: Ties) -> tuple[Walk, Walk]:
    """Walk what two models stand for; one text twice that is no path is a leaf."""
    if isinstance(dst, str) and dst == src and not os.path.exists(dst):
        return walk(dst), walk(src)
    stated = tied(dst) if ties == "references" else ()
    return walk(opened(dst), ties=stated or ties), walk(opened(src))


def read_tree(tree: Any, place: Callable[[str, LazyArray], Any] | None = None) -> Any:
    """Return a tree with its lazy arrays read: as NumPy arrays, or each on its sharding."""
    walked = walk(tree, ties=())
    lazy = [slot for slot in walked.slots if isinstance(slot.value, LazyArray)]
    spots = {slot.value: place(slot.path, slot.value) if place else None for slot in lazy}
    found = read_all(spots.items())
    for x, spot in spots.items():
        found[x] = found[x] if spot is None else jax.device_put(found[x], spot)
    return walked.rebuild([found[x] if isinstance(x, LazyArray) else x for x in walked.values])


def narrow(tree: Any, where: Where) -> Any:
    """Return a tree of basic containers with the chosen leaves only.

    What is left of a dict has the keys that lead to them. A sequence keeps its length, with `()`
    in the other places, so that every path stays what it was.
    """
    if where is None:
        return tree
    walked = walk(tree, ties=())
    chosen = paths.select(where, [(slot.path, slot.value) for slot in walked.slots])
    verdicts = iter(chosen)

    def leaf(x: Any) -> Any:
        return x if next(verdicts) else _OUT

    def node(value: Any, names: list[Any], results: list[Any]) -> Any:
        if all(x is _OUT for x in results):
            return _OUT
        if isinstance(value, dict):
            return {k: x for k, x in zip(names, results, strict=True) if x is not _OUT}
        return type(value)(() if x is _OUT else x for x in results)

    return walked.fold(leaf, node)


_OUT = object()
