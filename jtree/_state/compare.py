"""Compare two trees leaf by leaf: find a source for every array, or the reason why not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arguments import check_choice
from .._errors import did_you_mean
from .._tree import paths as _path
from .._tree.leaves import check_alive, describe, isarray, isconcrete, isscalar
from .._tree.nodes import static_fields
from .._tree.paths import Where
from .._tree.ties import Slot
from .._vector.static import alike
from .casts import cast_problem, target_dtype
from .causes import find_causes
from .dtypes import conversion_problem, dtype_kind, isreadable, key_hint
from .leaf_sources import KEEP, ZERO, resolve_ties
from .mismatch import Diff, Mismatch, mismatch
from .scalars import as_array, compare_scalar
from .sources import Scalars


class Side(NamedTuple):
    """One of the two trees of a comparison.

    Attributes:
      slots: all of its slots.
      indices: the indices of the slots to compare, by path.
      nodes: its inner nodes by path.
    """

    slots: Sequence[Slot]
    indices: Mapping[str, int]
    nodes: Mapping[str, Any]

    def leaves(self) -> dict[str, Any]:
        return {path: self.slots[index].value for path, index in self.indices.items()}


class Comparison(NamedTuple):
    """The result of a comparison.

    Attributes:
      diff: the mismatches.
      sources: an array, `ZERO` or `KEEP` for every slot of the destination that gets a value, by
        index. Of tied slots only the first is among them.
      pairs: the arrays that fit, expected and found, by path.
    """

    diff: Diff
    sources: dict[int, Any]
    pairs: dict[str, tuple[Any, Any]]


def compare(
    dst: Side,
    src: Side,
    *,
    none: str = "error",
    where: Where = None,
    scalars: Scalars = Scalars.KEPT,
) -> Comparison:
    """Compare two trees by path.

    Args:
      dst: the tree that values are loaded into.
      src: the tree that they come from.
      none: the meaning of None in the source: `"error"`, `"zero"` or `"keep"`.
      where: the leaves to compare, of either tree.
      scalars: whether numbers, bools, text and bytes are loaded as arrays are.
    """
    check_choice("none", none, ("error", "zero", "keep"))
    dst, src = _select(where, dst, src)
    leaves = _Leaves(dst.leaves(), src.leaves(), none, scalars)
    outcomes = {path: leaves.compare(path) for path in sorted(dst.indices)}
    _skip_tied(dst, outcomes)
    mismatches = [x for x in outcomes.values() if isinstance(x, Mismatch)]
    mismatches = [*mismatches, *leaves.unexpected()]
    causes = find_causes(leaves.expected, leaves.found) if mismatches else ()
    mismatches = _suggest_paths(mismatches, frozenset().union(*(x.paths for x in causes)))
    sources = {
        dst.indices[path]: x
        for path, x in outcomes.items()
        if x is not None and not isinstance(x, Mismatch)
    }
    conflicts, sources = resolve_ties(dst.slots, dst.indices, sources)
    mismatches = sorted([*mismatches, *conflicts], key=_order)
    pairs = {
        path: (leaves.expected[path], x)
        for path, x in outcomes.items()
        if isarray(x) and isarray(leaves.expected[path])
    }
    diff = Diff(tuple(mismatches), _compare_config(dst, src), causes=causes)
    return Comparison(diff, sources, pairs)


def _select(where: Where, dst: Side, src: Side) -> Iterator[Side]:
    """Yield both sides with the slots that `where` selects on either of them."""
    leaves = src.leaves() | dst.leaves()
    flags = dict(zip(leaves, _path.select(where, list(leaves.items())), strict=True))
    for side in (dst, src):
        yield side._replace(indices={path: i for path, i in side.indices.items() if flags[path]})


class _Leaves(NamedTuple):
    """The leaves that are expected and those that were found, by path."""

    expected: dict[str, Any]
    found: dict[str, Any]
    none: str
    scalars: Scalars

    def compare(self, path: str) -> Any:
        """Return a source for one leaf, a `Mismatch`, or None if there is nothing to load."""
        expected = self.expected[path]
        if not isarray(expected):
            loads = self.scalars is not Scalars.KEPT
            outcome = self._into_scalar(path, expected) if loads else None
            return self._into_other(path, expected) if outcome is None else outcome
        if path not in self.found:
            return self._missing(path, expected)
        found = self.found[path]
        number = None if self.scalars is Scalars.KEPT else as_array(path, expected, found)
        if number is not None:
            return (
                number if isinstance(number, Mismatch) else _compare_arrays(path, expected, number)
            )
        if found is False or found is None:
            return self._absent(path, path, expected)
        if not _is_array_or_scalar(found):
            return mismatch(path, "kind", describe(expected), describe(found), _hint(found))
        return _compare_arrays(path, expected, found)

    def _missing(self, path: str, expected: Any) -> Any:
        for ancestor in _path.ancestors(path):
            found = self.found.get(ancestor, ())
            if found is None or found is False:
                return self._absent(path, ancestor, expected)
        return mismatch(path, "missing", describe(expected), "nothing")

    def _absent(self, path: str, absent: str, expected: Any) -> Any:
        """Return the meaning of False or None for an array, at its own path or above it."""
        found = self.found[absent]
        if found is None and self.none == "keep":
            return KEEP
        zero = found is None and self.none == "zero"
        hint = '; if there is no such parameter use none="zero", if it is elsewhere none="keep"'
        if found is False:
            zero = absent == path
            hint = "; False stands for a single absent parameter"
        if dtype_kind(expected.dtype) == "other":
            zero, hint = False, f"; an array of {expected.dtype} cannot be set to zero"
        if zero:
            return ZERO
        text = f"{found}" if absent == path else f"{found} at {_path.show(absent)}"
        return mismatch(path, "kind", describe(expected), text, hint)

    def _into_scalar(self, path: str, expected: Any) -> Any:
        """Return a source or a mismatch for a leaf that is not an array; None for neither."""
        if not (expected is None or isscalar(expected)):
            return None  # a function or a type, which is configuration
        found, absent = self.found.get(path), expected is None or expected is False
        if found is None:
            return None if absent else self._no_scalar(path, expected)
        if isarray(found):
            marks = absent and (found.shape != () or dtype_kind(found.dtype) != "bool")
            return None if marks else compare_scalar(path, expected, found)
        if expected is None and (found is False or not isscalar(found)):
            return None
        return compare_scalar(path, expected, found)

    def _no_scalar(self, path: str, expected: Any) -> Any:
        if path not in self.found:
            required = self.scalars is Scalars.REQUIRED
            return mismatch(path, "missing", describe(expected), "nothing") if required else None
        if self.none == "keep":
            return KEEP
        return mismatch(path, "kind", describe(expected), "None", '; to keep it use none="keep"')

    def _into_other(self, path: str, expected: Any) -> Mismatch | None:
        """Return a mismatch for an array that is found where none is expected."""
        found = self.found.get(path)
        if not _is_array_or_scalar(found) or isinstance(expected, np.generic):
            return None
        if expected is not None and expected is not False:
            return mismatch(path, "kind", describe(expected), describe(found))
        if _iszero(path, found):
            return None
        why = "which is not all zero" if isreadable(found) else "whose values cannot be read"
        return mismatch(
            path,
            "kind",
            f"{describe(expected)}, an absent parameter",
            f"{describe(found)}, {why}",
            "; add the parameter to the destination, or put False there in the source",
        )

    def unexpected(self) -> list[Mismatch]:
        return [
            mismatch(path, "unexpected", "nothing", describe(x))
            for path, x in self.found.items()
            if path not in self.expected and _is_array_or_scalar(x)
        ]


def _compare_arrays(path: str, expected: Any, found: Any) -> Any:
    """Return the source if its shape fits and its dtype can be converted, or a mismatch."""
    shapes = tuple(expected.shape), tuple(found.shape)
    texts = describe(expected), describe(found)
    if shapes[0] != shapes[1]:
        transposed = len(shapes[0]) == 2 and shapes[0] == shapes[1][::-1]
        hint = "; the source looks transposed" if transposed else key_hint(expected, found)
        wrong = mismatch(path, "shape", *texts, hint)
        return wrong._replace(expected=shapes[0], found=shapes[1])
    check_alive(path, found)
    dtype = target_dtype(expected)
    problem = conversion_problem(dtype, found)
    if problem is None and isconcrete(found):
        problem = cast_problem(path, dtype, found)
    if problem is None:
        return found
    wrong = mismatch(path, "dtype", *texts, f"; {problem}")
    return wrong._replace(expected=expected.dtype, found=found.dtype)


def _hint(x: Any) -> str:
    if x is True:
        return "; only False, for an absent parameter, can stand for an array"
    if isinstance(x, int | float | complex):
        return "; make it an array with numpy.asarray"
    return ""


def _is_array_or_scalar(x: Any) -> bool:
    return isarray(x) or isinstance(x, np.generic)


def _iszero(path: str, x: Any) -> bool:
    if not isreadable(x) or dtype_kind(x.dtype) == "other":
        return False
    check_alive(path, x)
    return not np.asarray(x).any()


def _skip_tied(dst: Side, outcomes: dict[str, Any]) -> None:
    """Drop what is missing for one of several tied leaves, if the source has another one."""
    groups: dict[int, list[str]] = {}
    for path, index in dst.indices.items():
        groups.setdefault(dst.slots[index].tie, []).append(path)
    for group in groups.values():
        missing = [path for path in group if getattr(outcomes[path], "kind", None) == "missing"]
        if len(missing) < len(group):
            outcomes |= dict.fromkeys(missing)


def _suggest_paths(
    mismatches: list[Mismatch], explained: Collection[str], most: int = 20
) -> list[Mismatch]:
    """Add near paths with the same array: unexpected ones to missing ones, and vice versa."""
    opposite = {"missing": "unexpected", "unexpected": "missing"}
    candidates: dict[tuple[str, str], list[str]] = {}
    for x in mismatches:
        if x.kind in opposite:
            candidates.setdefault((opposite[x.kind], _array_of(x)), []).append(x.path)
    single = [x for x in mismatches if x.kind in opposite and x.path not in explained]
    first = sorted(single, key=_order)[:most]
    near = {x: did_you_mean(x.path, candidates.get((x.kind, _array_of(x)), [])) for x in first}
    return [x._replace(text=x.text + near.get(x, "")) for x in mismatches]


def _array_of(x: Mismatch) -> str:
    """Return the description of the array that only one side has."""
    return str(x.expected if x.kind == "missing" else x.found)


def _order(x: Mismatch) -> tuple[str, str]:
    return x.path, x.kind


def _compare_config(dst: Side, src: Side) -> dict[str, tuple[Any, Any]]:
    """Return the fields without arrays that both sides have, and that differ."""
    expected, found = dict(_config(dst)), dict(_config(src))
    pairs = {path: (expected[path], found[path]) for path in sorted(expected.keys() & found.keys())}
    return {path: pair for path, pair in pairs.items() if not alike(*pair)}


def _config(side: Side) -> Iterator[tuple[str, Any]]:
    for path, node in side.nodes.items():
        for field, value in static_fields(node).items():
            yield (f"{path}{_path.SEPARATOR}{field}" if path else field), value
    for path, value in side.leaves().items():
        if not isarray(value):
            yield path, value
