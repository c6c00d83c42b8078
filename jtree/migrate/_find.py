"""Finding a layer in a source: under its own name, in a stack, or as the parts of a stack."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from ._layer import Form, Layer, Layout, Steps

RECURRENT = ("lstm", "gru", "rnn")


class Spot(NamedTuple):
    """Where the arrays of a layer are: below a name, and where in a stack, if they are in one."""

    prefix: Steps
    place: int | None = None


def find(
    entries: Container[Steps], names: Sequence[Steps], inner: Sequence[Steps], number: int | None
) -> list[Spot]:
    """Return where a layer is, or as many layers as a stack of them has.

    Args:
      entries: the arrays of the source.
      names: what the layer may be called there.
      inner: its arrays, below it.
      number: how many layers are stacked in the destination, or None.

    Returns:
      A spot for each layer; none where the source has none.

    Example:
      >>> source = {("h", "0", "w"), ("h", "1", "w")}
      >>> find(source, [("h",)], [("w",)], 2)
      [Spot(prefix=('h', '0'), place=None), Spot(prefix=('h', '1'), place=None)]
      >>> find({("h", "w")}, [("h", "1")], [("w",)], None)
      [Spot(prefix=('h',), place=1)]
    """

    def held(prefix: Steps) -> bool:
        return any((*prefix, *x) in entries for x in inner)

    for name in names:
        if held(name):
            return [Spot(name)] if number is None else [Spot(name, n) for n in range(number)]
    for name in names:
        for n in range(len(name) + 1):
            head, tail = name[:n], name[n:]
            if number is not None and held((*head, "0", *tail)):
                return [Spot((*head, str(i), *tail)) for i in range(number)]
            if number is None and head and head[-1].isdigit() and held((*head[:-1], *tail)):
                return [Spot((*head[:-1], *tail), int(head[-1]))]
    return []


def form_in(source: Layout, layer: Layer, own: Layer | None) -> Form:
    """Return how the source stores a layer: as its type there says, or as its layout does."""
    if own is not None:
        return own.form
    if source.name == layer.layout.name:
        return layer.form
    return source.forms.get(layer.kind, ())


def names_in(source: Layout, kind: str, names: Sequence[Steps]) -> list[Steps]:
    """Return what a layer may be called; PyTorch's recurrent layers are numbered in one module."""
    found = list(names)
    if source.name == "torch" and kind in RECURRENT:
        found += [(*name, "0") for name in names]
        found += [(*name[:-1], "0", "reverse") for name in names if name[-1:] == ("reverse",)]
    return found
