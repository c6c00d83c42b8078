"""The blocks of a vector that plots label, and their labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from .._vector.restructure import Restructure

MAX_LABEL = 28  # characters


class LabeledBlock(NamedTuple):
    """A slice of a vector with a label: one parameter, or adjacent ones below a common path."""

    label: str
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    @property
    def middle(self) -> float:
        """The position of the label, where element k is drawn around k."""
        return (self.start + self.stop - 1) / 2


def label_blocks(re: Restructure, most: int, /) -> list[LabeledBlock]:
    """Return the parameters of a `Restructure` as labeled blocks, at most `most` of them.

    Each parameter is a block if there are few enough. Otherwise the parameters below one node are
    a block, for the deepest nodes that give few enough blocks. If even the root has too many
    children, adjacent ones are merged.
    """
    single = [
        LabeledBlock(path or "(root)", part.start, part.stop)
        for path, part in re.slices.items()
        if part.start < part.stop
    ]
    if len(single) <= most:
        return [_with_short_label(_mark_tied(block, re)) for block in single]
    deepest = max(block.label.count("/") for block in single)
    for depth in range(deepest, 0, -1):
        grouped = list(_group_by_prefix(single, depth))
        if len(grouped) <= most:
            return list(map(_with_short_label, grouped))
    return list(map(_with_short_label, _merge_neighbors(list(_group_by_prefix(single, 1)), most)))


def _mark_tied(block: LabeledBlock, re: Restructure) -> LabeledBlock:
    """Return a block whose label says so if the parameter is tied."""
    tied = any(block.label == paths[0] for paths in re.ties)
    return block._replace(label=f"{block.label} (tied)") if tied else block


def _group_by_prefix(blocks: Sequence[LabeledBlock], depth: int) -> Iterator[LabeledBlock]:
    """Yield adjacent blocks whose paths begin with the same keys as one block."""
    for keys, group in groupby(blocks, lambda block: block.label.split("/")[:depth]):
        first, *rest = group
        label = f"{'/'.join(keys)}/**" if rest else first.label
        yield LabeledBlock(label, first.start, (rest or [first])[-1].stop)


def _merge_neighbors(blocks: Sequence[LabeledBlock], most: int) -> Iterator[LabeledBlock]:
    """Yield blocks merged with their neighbors, at most `most` of them."""
    each = -(-len(blocks) // most)
    for k in range(0, len(blocks), each):
        first, *rest = blocks[k : k + each]
        last = (rest or [first])[-1]
        names = (_shorten(block.label.removesuffix("/**"), 12) for block in (first, last))
        yield LabeledBlock(" to ".join(names) if rest else first.label, first.start, last.stop)


def _with_short_label(block: LabeledBlock) -> LabeledBlock:
    return block._replace(label=shorten_label(block.label))


def shorten_label(label: str) -> str:
    """Return a label of at most the length that fits beside a plot."""
    return _shorten(label, MAX_LABEL)


def _shorten(label: str, most: int) -> str:
    """Return a label of at most `most` characters, without its middle: paths differ at the ends."""
    if len(label) <= most:
        return label
    start = most // 3
    return f"{label[:start]}…{label[start + 1 - most :]}"
