"""Which parts of a vector a picture names, and how."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from .._vector.restructure import Restructure

WIDEST = 28  # characters of a label


class Block(NamedTuple):
    """Neighbours in a vector under one name: one parameter, or several with a common start."""

    label: str
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    @property
    def middle(self) -> float:
        """Where the label goes, in a picture whose number k is drawn around k."""
        return (self.start + self.stop - 1) / 2


def blocks(re: Restructure, most: int, /) -> list[Block]:
    """Return the parameters of a layout as blocks, no more than `most` of them.

    One block per parameter where that is few enough. Otherwise those under one node are one block,
    of the deepest nodes that make few enough; and where even the children of the root are too
    many, neighbours are put together.
    """
    single = [
        Block(path or "(root)", part.start, part.stop)
        for path, part in re.slices.items()
        if part.start < part.stop
    ]
    if len(single) <= most:
        return [_short(_mark(block, re)) for block in single]
    deepest = max(block.label.count("/") for block in single)
    for depth in range(deepest, 0, -1):
        grouped = list(_under(single, depth))
        if len(grouped) <= most:
            return list(map(_short, grouped))
    return list(map(_short, _neighbours(list(_under(single, 1)), most)))


def _mark(block: Block, re: Restructure) -> Block:
    """Say of a parameter that it has more places than the one that names it."""
    tied = any(block.label == places[0] for places in re.ties)
    return block._replace(label=f"{block.label} (tied)") if tied else block


def _under(single: Sequence[Block], depth: int) -> Iterator[Block]:
    """Put neighbours together whose paths have their first steps in common."""
    for start, group in groupby(single, lambda block: block.label.split("/")[:depth]):
        first, *rest = group
        label = f"{'/'.join(start)}/**" if rest else first.label
        yield Block(label, first.start, (rest or [first])[-1].stop)


def _neighbours(single: Sequence[Block], most: int) -> Iterator[Block]:
    each = -(-len(single) // most)
    for k in range(0, len(single), each):
        first, *rest = single[k : k + each]
        last = (rest or [first])[-1]
        names = (_cut(block.label.removesuffix("/**"), 12) for block in (first, last))
        yield Block(" to ".join(names) if rest else first.label, first.start, last.stop)


def _short(block: Block) -> Block:
    return block._replace(label=_cut(block.label, WIDEST))


def _cut(label: str, widest: int) -> str:
    """Cut the middle out of a long label: paths differ at their ends."""
    if len(label) <= widest:
        return label
    start = widest // 3
    return f"{label[:start]}…{label[start + 1 - widest :]}"
