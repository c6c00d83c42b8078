"""What is in a checkpoint, printed: the tree, with shapes, dtypes, bytes and ties."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .._text import plural, render
from .._tree import paths
from .._tree.lazy import LazyArray
from .._tree.leaves import describe
from .._tree.paths import Where
from .._tree.walk import walk

_MANY = 100  # places of one array that are shown by name at the most


class Line(NamedTuple):
    """One line of the tree: a branch, an array, or another leaf."""

    path: str
    level: int
    name: str
    what: str = ""
    nbytes: int | None = None


def as_text(found: Any) -> str:
    """Return a checkpoint as text, 100 columns wide."""
    return render(as_tree(found))


def as_tree(
    found: Any, where: Where = None, depth: int | None = None, everything: bool = False
) -> Any:
    """Return a checkpoint as rich prints it: a head, the tree of its arrays, and the totals.

    Other leaves are counted, or shown with `everything`.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    slots = _chosen(found, where)
    tied = {path: group for group in found.ties for path in group}
    table = Table("name", "array", "bytes", box=None, pad_edge=False, header_style="bold")
    table.columns[2].justify = "right"
    shown = {p: x for p, x in slots.items() if everything or isinstance(x, LazyArray)}
    for line in _lines(shown, depth):
        note = _tied(line.path, tied.get(line.path, ()))
        size = "" if line.nbytes is None else f"{line.nbytes:,}"
        name = Text("  " * line.level + line.name, no_wrap=True)
        table.add_row(name, Text(line.what + note), size)
    return Group(
        Text(_head(found), style="bold"),
        *_notes(found),
        table,
        Text(_total(slots, len(slots) - len(shown))),
    )


def as_json(found: Any, where: Where = None) -> dict[str, Any]:
    """Return the same as JSON."""
    slots = _chosen(found, where)
    return {
        "path": found.path,
        "format": found.format,
        "checksums": found.checksums,
        "packed": found.packed,
        "metadata": found.metadata,
        "ties": [list(group) for group in found.ties],
        "nbytes": _nbytes(slots),
        "arrays": {
            path: {"shape": list(x.shape), "dtype": str(x.dtype), "nbytes": x.nbytes}
            for path, x in slots.items()
            if isinstance(x, LazyArray)
        },
        "other": {path: describe(x) for path, x in slots.items() if not isinstance(x, LazyArray)},
    }


def _chosen(found: Any, where: Where) -> dict[str, Any]:
    slots = [(slot.path, slot.value) for slot in walk(found.tree, ties=()).slots]
    chosen = paths.select(where, slots)
    return {path: x for (path, x), keep in zip(slots, chosen, strict=True) if keep}


def _lines(slots: Mapping[str, Any], depth: int | None) -> Iterator[Line]:
    """Yield the tree of some places, each branch once; what is deeper is counted."""
    shown: list[str] = []
    groups: dict[str, list[Any]] = {}
    for path, x in slots.items():
        steps = path.split(paths.SEPARATOR)
        cut = steps[: depth or len(steps)]
        groups.setdefault(paths.join(cut), []).append((len(cut) == len(steps), x))
    for path, group in groups.items():
        steps = path.split(paths.SEPARATOR)
        for level, step in enumerate(steps[:-1]):
            if shown[: level + 1] != steps[: level + 1]:
                shown = steps[: level + 1]
                yield Line(paths.join(shown), level, step)
        shown = steps[:-1]
        yield _leaf(path, steps, group)


def _tied(path: str, group: Sequence[str]) -> str:
    """Return what is said of an array that is at several places; of many, only how many."""
    others = [x for x in group if x != path] if len(group) < _MANY else []
    return f"  tied to {', '.join(others) or f'{len(group) - 1:,} others'}" if group else ""


def _leaf(path: str, steps: list[str], group: list[Any]) -> Line:
    whole, x = group[0]
    arrays = {id(y): y for _, y in group if isinstance(y, LazyArray)}
    nbytes = sum(y.nbytes for y in arrays.values()) if arrays else None
    what = describe(x) if whole and len(group) == 1 else plural(len(arrays), "array")
    return Line(path, len(steps) - 1, paths.show(steps[-1]), what, nbytes)


def _head(found: Any) -> str:
    checked = "with checksums" if found.checksums else "without checksums: damage goes unnoticed"
    packed = ", small arrays packed" if found.packed else ""
    return f"{found.path}\n{found.format}, {checked}{packed}"


def _notes(found: Any) -> Iterator[Any]:
    from rich.text import Text

    if found.metadata:
        text = str(found.metadata)
        yield Text(f"metadata: {text if len(text) <= 1000 else text[:997] + '...'}")


def _total(slots: Mapping[str, Any], hidden: int) -> str:
    arrays = {id(x): x for x in slots.values() if isinstance(x, LazyArray)}.values()
    numbers = sum(x.size for x in arrays)
    others = f"; {plural(hidden, 'other leaf', 'other leaves')}" if hidden else ""
    return ", ".join(
        (
            plural(len(arrays), "array"),
            plural(numbers, "number"),
            f"{plural(_nbytes(slots), 'byte')}{others}",
        )
    )


def _nbytes(slots: Mapping[str, Any]) -> int:
    arrays = {id(x): x for x in slots.values() if isinstance(x, LazyArray)}
    return sum(x.nbytes for x in arrays.values())
