"""Finding a layer in a source: under its own name, in a stack, or as the parts of a stack."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from itertools import count, takewhile
from typing import NamedTuple

from .._layouts.canonical import inner
from .._layouts.spec import Form, Layer, Layout, Steps

RECURRENT = ("lstm", "gru", "rnn")


class Spot(NamedTuple):
    """Where the arrays of a layer are: below a name, and where in a stack, if they are in one."""

    prefix: Steps
    place: int | None = None


def find(
    shapes: Mapping[Steps, tuple[int, ...]],
    names: Sequence[Steps],
    below: Sequence[Steps],
    number: int | None,
    layers: Container[Steps] = (),
) -> list[list[Spot]]:
    """Return where a layer is, or as many layers as a stack of them has.

    A stack's layers are numbered in the source at one of the steps of its name, and where two
    numbers follow each other it is their counts and shapes that tell which one it is.

    Args:
      shapes: of the arrays of the source.
      names: what the layer may be called there.
      below: its arrays, below it.
      number: how many layers are stacked in the destination, or None.
      layers: the names of all layers of the destination.

    Returns:
      A spot for each layer. None at all where the source has none, and several ways where nothing
      tells which one is meant.

    Example:
      >>> source = {("h", "0", "w"): (2,), ("h", "1", "w"): (2,)}
      >>> find(source, [("h",)], [("w",)], 2)
      [[Spot(prefix=('h', '0'), place=None), Spot(prefix=('h', '1'), place=None)]]
      >>> find({("h", "w"): (2, 2)}, [("h", "1")], [("w",)], None)
      [[Spot(prefix=('h',), place=1)]]
    """

    def held(prefix: Steps) -> list[tuple[int, ...] | None]:
        return [shapes.get((*prefix, *x)) for x in below]

    def there(prefix: Steps) -> bool:
        return any(shape is not None for shape in held(prefix))

    for name in names:
        if there(name):
            return [[Spot(name)] if number is None else [Spot(name, n) for n in range(number)]]
    for name in names:
        ways, exact = [], []
        for head, tail in ((name[:n], name[n:]) for n in range(len(name) + 1)):
            if number is not None and there((*head, "0", *tail)):
                spots = [Spot((*head, str(i), *tail)) for i in range(number)]
                alike = all(held(spot.prefix) == held(spots[0].prefix) for spot in spots)
                fits = alike and not there((*head, str(number), *tail))
            elif number is None and head[-1:] and head[-1].isdigit() and there((*head[:-1], *tail)):
                spots = [Spot((*head[:-1], *tail), int(head[-1]))]
                length = _numbered(head[:-1], tail, layers)
                fits = all(shape[:1] == (length,) for shape in held(spots[0].prefix) if shape)
            else:
                continue
            if spots not in ways:
                ways.append(spots)
                exact += [spots] if fits else []
        if ways:
            return exact or ways[:1]
    return []


def _numbered(head: Steps, tail: Steps, layers: Container[Steps]) -> int:
    """Return how many layers of the destination are numbered at one step of their name."""
    return sum(1 for _ in takewhile(lambda n: (*head, str(n), *tail) in layers, count()))


def form_in(source: Layout, layer: Layer, own: Layer | None) -> Form:
    """Return how the source stores a layer: as its type there says, or as its layout does."""
    if own is not None:
        return own.form
    if source.name == layer.layout.name:
        return layer.form
    return _with_names(source.forms.get(layer.kind, ()), layer)


def _with_names(form: Form, layer: Layer) -> Form:
    """Add the names that the parts of a layer have in the model, such as `query` and `out`."""
    names = {
        role: steps[0]
        for part in layer.form
        if len(steps := inner(part)) == 2 and len(part.roles) == 1
        for role in part.roles
    }
    known = {part.name for part in form}
    more = []
    for part in form:
        alone = len(part.roles) == 1 and len(inner(part)) == 2
        if alone and part.roles[0] in names:
            name = f"{names[part.roles[0]]}/{inner(part)[1]}"
            more += [part._replace(name=name)] if name not in known else []
    return (*form, *more)


def names_in(source: Layout, kind: str, names: Sequence[Steps]) -> list[Steps]:
    """Return what a layer may be called; PyTorch's recurrent layers are numbered in one module."""
    found = list(names)
    if source.name == "torch" and kind in RECURRENT:
        found += [(*name, "0") for name in names]
        found += [(*name[:-1], "0", "reverse") for name in names if name[-1:] == ("reverse",)]
    return found


def doubled(form: Form, held: Collection[Steps]) -> list[tuple[str, list[Steps]]]:
    """Return what is there twice, and where; biases of a cell may be, since they are added."""
    found: dict[str, list[Steps]] = {}
    for part in form:
        for role in part.roles if inner(part) in held else ():
            found.setdefault(role, []).append(inner(part))
    return [
        (role, places)
        for role, places in found.items()
        if role and len(places) > 1 and not role.startswith("bias_")
    ]
