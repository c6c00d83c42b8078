"""Places, and which of them hold one parameter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from .._errors import ArgumentError, ArgumentTypeError, ModelError, PathError, did_you_mean
from .leaves import check_alive, describe, equal, isconcrete, isnumeric

Ties: TypeAlias = str | Iterable[Iterable[str]]
Groups: TypeAlias = tuple[tuple[str, ...], ...]


class Slot(NamedTuple):
    """A place in a tree that holds a leaf, or None."""

    path: str
    value: Any
    trainable: bool  # numeric, and every ancestor's `trainable` lets it through
    tie: int  # the first slot that is the same parameter


def read(ties: Ties) -> str | Groups:
    """Return what a user says of ties, checked, with iterators read once."""
    if isinstance(ties, str):
        if ties not in ("references", "arrays"):
            raise ArgumentError(
                f"ties: expected 'references', 'arrays' or tuples of paths, found {ties!r}"
            )
        return ties
    if not isinstance(ties, Iterable):
        raise ArgumentTypeError(
            f"ties: expected 'references', 'arrays' or tuples of paths, found {type(ties).__name__}"
        )
    return tuple(map(_group, ties))


def tie(slots: Sequence[Slot], ties: str | Groups) -> list[Slot]:
    """Return slots that are tied by references with these ties added."""
    if ties == "arrays":
        classes = _merge(slots, _same_array(slots))
    elif isinstance(ties, str) or not ties:
        classes = [slot.tie for slot in slots]
    else:
        classes = _merge(slots, _stated(slots, ties))
    trainable = {first for slot, first in zip(slots, classes, strict=True) if slot.trainable}
    return [
        Slot(slot.path, slot.value, first in trainable, first)
        for slot, first in zip(slots, classes, strict=True)
    ]


def _group(paths: Iterable[str]) -> tuple[str, ...]:
    group = tuple(paths) if isinstance(paths, Iterable) and not isinstance(paths, str) else ()
    if len(group) < 2 or not all(isinstance(path, str) for path in group):
        raise ArgumentError(
            f"ties: expected tuples of two paths or more, found {paths!r}; "
            'write ties=[("emb/weight", "head/weight")]'
        )
    return group


def _merge(slots: Sequence[Slot], pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Return the class of every slot, named by its first, with the members of each pair joined."""
    classes = [slot.tie for slot in slots]
    for left, right in pairs:
        low, high = sorted((classes[left], classes[right]))
        if low != high:
            classes = [low if number == high else number for number in classes]
    return classes


def _same_array(slots: Sequence[Slot]) -> Iterator[tuple[int, int]]:
    first: dict[tuple[int, bool], int] = {}  # a frozen place is not tied to a free one
    for number, slot in enumerate(slots):
        if isnumeric(slot.value):
            yield first.setdefault((id(slot.value), slot.trainable), number), number


def _stated(slots: Sequence[Slot], ties: Groups) -> Iterator[tuple[int, int]]:
    numbers = {slot.path: number for number, slot in enumerate(slots)}
    for first, *others in ties:
        for path in (first, *others):
            if path not in numbers:
                near = did_you_mean(path, numbers)
                raise PathError(f"ties: {path!r} is no leaf of the model{near}")
            _check_numeric(slots[numbers[path]])
        for path in others:
            _check_same(slots[numbers[first]], slots[numbers[path]])
            yield numbers[first], numbers[path]


def _check_numeric(slot: Slot) -> None:
    if not isnumeric(slot.value):
        raise ModelError(
            f"ties: {slot.path}: expected an array of floating or complex numbers, "
            f"found {describe(slot.value)}"
        )


def _check_same(left: Slot, right: Slot) -> None:
    """Refuse to tie two leaves that cannot be one parameter: one of them would be lost."""
    a, b = left.value, right.value
    check_alive(left.path, a)
    check_alive(right.path, b)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ModelError(
            f"ties: {left.path} is {describe(a)}, but {right.path} is {describe(b)}; "
            "tied places hold one array"
        )
    if isconcrete(a) and isconcrete(b) and not equal(a, b):
        raise ModelError(
            f"ties: {left.path} and {right.path} hold different numbers, and tying them would "
            "lose one; set them equal first"
        )
