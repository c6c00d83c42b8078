"""Finding a layer in a source: under its own name, in a stack, or as the parts of a stack."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from itertools import count, takewhile
from typing import NamedTuple

from .._layouts.spec import FrameworkLayout, KeyPath, LayerSpec, TypedLayer

RECURRENT = ("lstm", "gru", "rnn")


class Spot(NamedTuple):
    """Where the arrays of a layer are: below a name, and where in a stack, if they are in one."""

    prefix: KeyPath
    place: int | None = None


def find(
    shapes: Mapping[KeyPath, tuple[int, ...]],
    names: Sequence[KeyPath],
    below: Sequence[KeyPath],
    number: int | None,
    layers: Container[KeyPath] = (),
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

    def held(prefix: KeyPath) -> list[tuple[int, ...] | None]:
        return [shapes.get((*prefix, *x)) for x in below]

    def there(prefix: KeyPath) -> bool:
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


def _numbered(head: KeyPath, tail: KeyPath, layers: Container[KeyPath]) -> int:
    """Return how many layers of the destination are numbered at one step of their name."""
    return sum(1 for _ in takewhile(lambda n: (*head, str(n), *tail) in layers, count()))


def layer_spec_in(source: FrameworkLayout, layer: TypedLayer, own: TypedLayer | None) -> LayerSpec:
    """Return how the source stores a layer: as its type there says, or as its layout does."""
    if own is not None:
        return own.spec
    if source.name == layer.layout.name:
        return layer.spec
    return _with_names(source.specs.get(layer.kind, ()), layer)


def _with_names(layer_spec: LayerSpec, layer: TypedLayer) -> LayerSpec:
    """Add the names that the parts of a layer have in the model, such as `query` and `out`."""
    names = {
        canonical_name: keys[0]
        for spec in layer.spec
        if len(keys := spec.key_path) == 2 and len(spec.canonical) == 1
        for canonical_name in spec.canonical
    }
    known = {spec.path for spec in layer_spec}
    more = []
    for spec in layer_spec:
        alone = len(spec.canonical) == 1 and len(spec.key_path) == 2
        if alone and spec.canonical[0] in names:
            name = f"{names[spec.canonical[0]]}/{spec.key_path[1]}"
            more += [spec._replace(path=name)] if name not in known else []
    return (*layer_spec, *more)


def names_in(source: FrameworkLayout, kind: str, names: Sequence[KeyPath]) -> list[KeyPath]:
    """Return what a layer may be called; PyTorch's recurrent layers are numbered in one module."""
    found = list(names)
    if source.name == "torch" and kind in RECURRENT:
        found += [(*name, "0") for name in names]
        found += [(*name[:-1], "0", "reverse") for name in names if name[-1:] == ("reverse",)]
    return found


def doubled(layer_spec: LayerSpec, held: Collection[KeyPath]) -> list[tuple[str, list[KeyPath]]]:
    """Return what is there twice, and where; biases of a cell may be, since they are added."""
    found: dict[str, list[KeyPath]] = {}
    for spec in layer_spec:
        for canonical_name in spec.canonical if spec.key_path in held else ():
            found.setdefault(canonical_name, []).append(spec.key_path)
    return [
        (canonical_name, places)
        for canonical_name, places in found.items()
        if canonical_name and len(places) > 1 and not canonical_name.startswith("bias_")
    ]
