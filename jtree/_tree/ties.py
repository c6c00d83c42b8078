"""Slots, and the ties between slots that hold one parameter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from .._errors import ArgumentError, ArgumentTypeError, ModelError, PathError, did_you_mean
from .leaves import check_alive, describe, equal, isconcrete, isnumeric

Ties: TypeAlias = str | Iterable[Iterable[str]]
Groups: TypeAlias = tuple[tuple[str, ...], ...]


class Slot(NamedTuple):
    """One leaf of a tree, or None.

    Attributes:
      path: its path, such as `layers/0/weight`.
      value: the leaf.
      trainable: whether it is a parameter: numeric, and not excluded by `jtree.trainable`.
      tie: the index of the first slot that holds the same parameter, often its own index.

    Example:
      >>> jtree.walk({"rate": 0.1}).slots
      [Slot(path='rate', value=0.1, trainable=False, tie=0)]
    """

    path: str
    value: Any
    trainable: bool
    tie: int


def check_ties(ties: Ties) -> str | Groups:
    """Return the `ties` of a user as a string or as tuples of paths."""
    if isinstance(ties, str):
        if ties not in ("references", "arrays"):
            raise ArgumentError(
                f"ties: expected 'references', 'arrays' or tuples of paths, found {ties!r}"
            )
        return ties
    if not isinstance(ties, Iterable) or hasattr(ties, "dtype"):
        raise ArgumentTypeError(
            f"ties: expected 'references', 'arrays' or tuples of paths, found {type(ties).__name__}"
        )
    return tuple(map(_check_group, ties))


def _check_group(paths: Iterable[str]) -> tuple[str, ...]:
    group = tuple(paths) if isinstance(paths, Iterable) and not isinstance(paths, str) else ()
    if len(group) < 2 or not all(isinstance(path, str) for path in group):
        raise ArgumentError(
            f"ties: expected tuples of two paths or more, found {paths!r}; "
            'write ties=[("emb/weight", "head/weight")]'
        )
    return group


def tie_slots(slots: Sequence[Slot], ties: str | Groups) -> list[Slot]:
    """Return slots, tied by references so far, with these ties added."""
    if ties == "arrays":
        indices = _join(slots, _same_arrays(slots))
    elif isinstance(ties, str) or not ties:
        indices = [slot.tie for slot in slots]
    else:
        indices = _join(slots, _stated(slots, ties))
    trainable = {tie for slot, tie in zip(slots, indices, strict=True) if slot.trainable}
    return [
        Slot(slot.path, slot.value, tie in trainable, tie)
        for slot, tie in zip(slots, indices, strict=True)
    ]


def _join(slots: Sequence[Slot], pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Join the groups of each pair, and return the first slot of every slot's group."""
    indices = [slot.tie for slot in slots]
    for i, j in pairs:
        low, high = sorted((indices[i], indices[j]))
        if low != high:
            indices = [low if index == high else index for index in indices]
    return indices


def _same_arrays(slots: Sequence[Slot]) -> Iterator[tuple[int, int]]:
    first: dict[tuple[int, bool], int] = {}  # a frozen leaf is not tied to a trainable one
    for index, slot in enumerate(slots):
        if isnumeric(slot.value):
            yield first.setdefault((id(slot.value), slot.trainable), index), index


def _stated(slots: Sequence[Slot], ties: Groups) -> Iterator[tuple[int, int]]:
    indices = {slot.path: index for index, slot in enumerate(slots)}
    for first, *others in ties:
        for path in (first, *others):
            if path not in indices:
                near = did_you_mean(path, indices)
                raise PathError(f"ties: {path!r} is not a leaf of the model{near}")
            _check_numeric(slots[indices[path]])
        for path in others:
            _check_same(slots[indices[first]], slots[indices[path]])
            yield indices[first], indices[path]


def _check_numeric(slot: Slot) -> None:
    if not isnumeric(slot.value):
        raise ModelError(
            f"ties: {slot.path}: expected a floating-point or complex array, "
            f"found {describe(slot.value)}"
        )


def _check_same(first: Slot, other: Slot) -> None:
    """Raise an error if two leaves cannot be one parameter, since one of them would be lost."""
    a, b = first.value, other.value
    check_alive(first.path, a)
    check_alive(other.path, b)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ModelError(
            f"ties: {first.path} is {describe(a)}, but {other.path} is {describe(b)}; "
            "tied leaves must have one shape and dtype"
        )
    if isconcrete(a) and isconcrete(b) and not equal(a, b):
        raise ModelError(
            f"ties: {first.path} and {other.path} have different values, and tying them would "
            "lose one of them; make them equal first"
        )
