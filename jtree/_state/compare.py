"""Two models, place by place: a source for every array, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from .._errors import ArgumentError, did_you_mean
from .._tree import paths as _path
from .._tree.lazy import LazyArray
from .._tree.leaves import canonical, check_alive, describe, equal, isarray, isconcrete
from .._tree.nodes import static_fields
from .._tree.paths import Where
from .._tree.walk import Labels, Walk
from .._vector.static import alike
from .diff import Diff, Mismatch, mismatch
from .dtypes import family, no_conversion, readable


class _Marker(NamedTuple):
    name: str


ZERO: Final = _Marker("zero")  # the source has no such parameter: the destination becomes zero
KEEP: Final = _Marker("keep")  # the destination stays as it is


class Comparison(NamedTuple):
    """A `Diff`, and for every slot of the destination that gets new numbers, where from."""

    diff: Diff
    sources: dict[int, Any]  # an array, ZERO or KEEP
    slots: dict[str, int]  # the destination's slots by path
    classes: dict[int, int]  # the slot that stands for each of them, where they are tied


def compare(
    dst: Walk,
    src: Walk,
    *,
    keep: Callable[[Any], Any] | None = None,
    none: str = "error",
    where: Where = None,
) -> Comparison:
    """Compare the places of two walked models, and find a source for every array."""
    if none not in ("error", "zero", "keep"):
        raise ArgumentError(f"none: expected 'error', 'zero' or 'keep', found {none!r}")
    ours, theirs = _narrow(where, (dst, dst.labels(keep)), (src, src.labels(keep)))
    found = {path: src.slots[slot].value for path, slot in theirs.slots.items()}
    side = _Side(found, {path: dst.slots[slot].value for path, slot in ours.slots.items()}, none)
    verdicts = {path: side.verdict(path) for path in sorted(ours.slots)}
    _forgive_tied(dst, ours.slots, verdicts)
    mismatches = [x for x in verdicts.values() if isinstance(x, Mismatch)]
    mismatches += side.unexpected()
    mismatches = _with_near_names(mismatches)
    sources = {
        ours.slots[path]: x
        for path, x in verdicts.items()
        if x is not None and not isinstance(x, Mismatch)
    }
    wrong, chosen = _resolve_ties(dst, sources, {n: p for p, n in ours.slots.items()})
    mismatches += wrong
    config = _config(ours.nodes, side.expected, theirs.nodes, found)
    return Comparison(
        diff=Diff(tuple(sorted(mismatches, key=_place)), config),
        sources=chosen,
        slots=ours.slots,
        classes={slot: dst.slots[slot].tie for slot in ours.slots.values()},
    )


def _narrow(where: Where, *sides: tuple[Walk, Labels]) -> Iterator[Labels]:
    """Yield the labels with those slots only that `where` chooses on either side."""
    places: dict[str, Any] = {}
    for walked, labels in reversed(sides):
        places |= {path: walked.slots[slot].value for path, slot in labels.slots.items()}
    chosen = dict(zip(places, _path.select(where, list(places.items())), strict=True))
    for _, labels in sides:
        yield labels._replace(slots={path: n for path, n in labels.slots.items() if chosen[path]})


class _Side(NamedTuple):
    """What the source holds and what the destination expects, by path."""

    found: dict[str, Any]
    expected: dict[str, Any]
    none: str

    def verdict(self, path: str) -> Any:
        """Return a source for one place, a mismatch, or None where there is nothing to load."""
        expected = self.expected[path]
        if not isarray(expected):
            return self._into_other(path, expected)
        if path not in self.found:
            return self._missing(path, expected)
        found = self.found[path]
        if found is False or found is None:
            return self._absent(path, path, expected)
        if not _holds_numbers(found):
            return mismatch(path, "kind", describe(expected), describe(found), _kind_hint(found))
        return _array_into_array(path, expected, found)

    def _missing(self, path: str, expected: Any) -> Any:
        for branch in _path.ancestors(path):
            found = self.found.get(branch, ())
            if found is None or found is False:
                return self._absent(path, branch, expected)
        return mismatch(path, "missing", describe(expected), "nothing")

    def _absent(self, path: str, where: str, expected: Any) -> Any:
        """Return what False or None in the source means for an array, at its place or above it."""
        found = self.found[where]
        if found is None and self.none == "keep":
            return KEEP
        zeroes = found is None and self.none == "zero"
        hint = '; if there is no such parameter use none="zero", if it is elsewhere none="keep"'
        if found is False:
            zeroes = where == path
            hint = "; False stands for one absent parameter"
        if family(expected.dtype) == "other":
            zeroes, hint = False, f"; an array of {expected.dtype} cannot be zeroed"
        if zeroes:
            return ZERO
        place = f"{found}" if where == path else f"{found} at {_path.show(where)}"
        return mismatch(path, "kind", describe(expected), place, hint)

    def _into_other(self, path: str, expected: Any) -> Mismatch | None:
        found = self.found.get(path)
        if not _holds_numbers(found) or isinstance(expected, np.generic):
            return None
        if expected is not None and expected is not False:
            return mismatch(path, "kind", describe(expected), describe(found))
        if _iszero(path, found):
            return None
        text = f"{describe(expected)}, an absent parameter"
        number = "zero or not, which cannot be read" if not readable(found) else "not all zero"
        hint = "; give the destination this parameter, or put False in its place in the source"
        return mismatch(path, "kind", text, f"{describe(found)}, {number}", hint)

    def unexpected(self) -> list[Mismatch]:
        return [
            mismatch(path, "unexpected", "nothing", describe(x))
            for path, x in self.found.items()
            if path not in self.expected and _holds_numbers(x)
        ]


def _forgive_tied(dst: Walk, slots: dict[str, int], verdicts: dict[str, Any]) -> None:
    """Take what is missing at one of several tied places from the others."""
    groups: dict[int, list[str]] = {}
    for path, slot in slots.items():
        groups.setdefault(dst.slots[slot].tie, []).append(path)
    for paths in groups.values():
        missing = [path for path in paths if getattr(verdicts[path], "sort", None) == "missing"]
        if len(missing) < len(paths):
            verdicts |= dict.fromkeys(missing)


def _with_near_names(mismatches: list[Mismatch], most: int = 20) -> list[Mismatch]:
    """Say of missing places which unexpected arrays like them are near, and the reverse."""
    other = {"missing": "unexpected", "unexpected": "missing"}
    alike: dict[tuple[str, str], list[str]] = {}
    for x in mismatches:
        if x.sort in other:
            alike.setdefault((other[x.sort], _array_of(x)), []).append(x.path)
    asked = [x for x in sorted(mismatches, key=_place) if x.sort in other][:most]
    near = {x: did_you_mean(x.path, alike.get((x.sort, _array_of(x)), [])) for x in asked}
    return [x._replace(text=x.text + near.get(x, "")) for x in mismatches]


def _array_of(x: Mismatch) -> str:
    """Return the shape and dtype that one side of a mismatch has and the other has not."""
    return str(x.expected if x.sort == "missing" else x.found)


def _place(x: Mismatch) -> tuple[str, str]:
    return x.path, x.sort


def _kind_hint(found: Any) -> str:
    if found is True:
        return "; only False, for an absent parameter, can stand for an array"
    if isinstance(found, int | float | complex):
        return "; make it an array with numpy.asarray"
    return ""


def _array_into_array(path: str, expected: Any, found: Any) -> Any:
    """Return the source if its shape fits and its dtype can be converted, else a mismatch."""
    ours, theirs = describe(expected), describe(found)
    if tuple(expected.shape) != tuple(found.shape):
        hint = ""
        if len(found.shape) == 2 and tuple(found.shape[::-1]) == tuple(expected.shape):
            hint = "; the source looks transposed"
        wrong = mismatch(path, "shape", ours, theirs, hint)
        return wrong._replace(expected=tuple(expected.shape), found=tuple(found.shape))
    check_alive(path, found)
    exact = isinstance(expected, np.ndarray | LazyArray)
    dtype = expected.dtype if exact else canonical(expected.dtype)
    reason = no_conversion(dtype, found)
    if reason is None:
        return found
    wrong = mismatch(path, "dtype", ours, theirs, f"; {reason}")
    return wrong._replace(expected=expected.dtype, found=found.dtype)


def _holds_numbers(x: Any) -> bool:
    return isarray(x) or isinstance(x, np.generic)


def _iszero(path: str, x: Any) -> bool:
    if not readable(x) or family(x.dtype) == "other":
        return False
    check_alive(path, x)
    return not np.asarray(x).any()


def _resolve_ties(
    dst: Walk, sources: dict[int, Any], paths: dict[int, str]
) -> tuple[list[Mismatch], dict[int, Any]]:
    """Return the tied places whose sources differ, and one source for each class of tied slots."""
    wrong, chosen = [], {}
    groups: dict[int, list[int]] = {}
    for slot in sources:
        groups.setdefault(dst.slots[slot].tie, []).append(slot)
    for first, slots in groups.items():
        values = [sources[slot] for slot in slots]
        if all(_agree(dst.slots[first].value, values[0], x) for x in values[1:]):
            chosen[first] = values[0]
        else:
            names = " and ".join(_path.show(paths[slot]) for slot in slots)
            known = all(readable(x) or isinstance(x, _Marker) for x in values)
            what = "different numbers" if known else "numbers that cannot be compared yet"
            wrong.append(mismatch(paths[slots[0]], "ties", "one parameter", f"{what} at {names}"))
    return wrong, chosen


def _agree(target: Any, a: Any, b: Any) -> bool:
    """Tell whether two sources give a destination the same numbers; unknown ones do not."""
    if a is b:
        return True
    x, y = (_numbers(target, source) for source in (a, b))
    return x is y or (isconcrete(x) and isconcrete(y) and equal(x, y))


def _numbers(target: Any, source: Any) -> Any:
    if source is KEEP:
        source = target
    if isinstance(source, LazyArray):
        return source.read()
    if source is ZERO:
        return np.zeros(target.shape, target.dtype)
    return np.asarray(source) if isinstance(source, np.generic) else source


def _config(
    our_nodes: dict[str, Any],
    ours: dict[str, Any],
    their_nodes: dict[str, Any],
    theirs: dict[str, Any],
) -> dict[str, tuple[Any, Any]]:
    """Return the fields without arrays that both sides have, and that differ."""
    left, right = dict(_fields(our_nodes, ours)), dict(_fields(their_nodes, theirs))
    both = sorted(left.keys() & right.keys())
    return {path: (left[path], right[path]) for path in both if not alike(left[path], right[path])}


def _fields(nodes: dict[str, Any], leaves: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for path, node in nodes.items():
        for field, value in static_fields(node).items():
            yield (f"{path}{_path.SEPARATOR}{field}" if path else field), value
    for path, value in leaves.items():
        if not isarray(value):
            yield path, value
