"""An opened checkpoint as text and as JSON: its tree, with shapes, dtypes, bytes and ties."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .._text import align, plural, printable, table
from .._tree import paths
from .._tree.lazy import LazyArray
from .._tree.leaves import describe
from .._tree.paths import Where

_TITLES = "name", "array", "bytes"
_MAX_ROWS = 500  # of a table of rich
_MAX_TIED = 100  # paths of one array that are listed


class TreeLine(NamedTuple):
    """One line of the tree: a branch, an array, or another leaf."""

    path: str
    level: int
    name: str
    description: str = ""
    nbytes: int | None = None


def as_tree(
    checkpoint: Any,
    where: Where = None,
    depth: int | None = None,
    everything: bool = False,
    height: int | None = None,
) -> Any:
    """Return what rich prints: a title, the tree of the arrays, and the totals.

    Other leaves are counted, or shown with `everything`. Only `height` lines of the tree are shown,
    where it is given, and the rest is counted.
    """
    from rich.console import Group
    from rich.text import Text

    leaves = _select(checkpoint, where)
    shown = {p: x for p, x in leaves.items() if everything or isinstance(x, LazyArray)}
    types = _select_types(checkpoint, leaves, where)
    return Group(
        Text(_title(checkpoint), style="bold"),
        *(Text(line) for line in _metadata(checkpoint)),
        _table(checkpoint, list(_lines(_with_functions(shown, types), depth, types)), height),
        Text(_totals(leaves, len(leaves) - len(shown))),
    )


def _table(checkpoint: Any, lines: list[TreeLine], height: int | None) -> Any:
    """Return lines as a table; many of them without rich's, which takes a millisecond for each."""
    tied = {path: group for group in checkpoint.ties for path in group}
    kept = lines if height is None or len(lines) <= height else lines[: max(height - 1, 1)]
    rows = [
        (
            "  " * line.level + printable(line.name),
            printable(line.description) + _describe_ties(line.path, tied.get(line.path, ())),
            "" if line.nbytes is None else f"{line.nbytes:,}",
        )
        for line in kept
    ]
    if rest := len(lines) - len(kept):
        rows.append((f"... {plural(rest, 'more line')}; show all with --lines 0", "", ""))
    if len(rows) > _MAX_ROWS:
        return _PlainLines(align([_TITLES, *rows], right={2}))
    return table(_TITLES, rows, right={"bytes"}, border=False)


class _PlainLines:
    """Lines of text that rich prints as they are, folded where they are too long."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(lines)

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.cells import cell_len, chop_cells
        from rich.segment import Segment

        for line in self.lines:
            fits = cell_len(line) <= options.max_width
            for part in [line] if fits else chop_cells(line, options.max_width):
                yield Segment(part + "\n")


def as_json(checkpoint: Any, where: Where = None) -> dict[str, Any]:
    """Return the same as JSON."""
    leaves = _select(checkpoint, where)
    return {
        "path": checkpoint.path,
        "format": checkpoint.format,
        "checksums": checkpoint.checksums,
        "packed": checkpoint.packed,
        "metadata": checkpoint.metadata,
        "ties": [list(group) for group in checkpoint.ties],
        "types": _select_types(checkpoint, leaves, where),
        "nbytes": sum(x.nbytes for x in _arrays(leaves.values())),
        "arrays": {
            path: {"shape": list(x.shape), "dtype": str(x.dtype), "nbytes": x.nbytes}
            for path, x in leaves.items()
            if isinstance(x, LazyArray)
        },
        "other": {path: describe(x) for path, x in leaves.items() if not isinstance(x, LazyArray)},
    }


def _select(checkpoint: Any, where: Where) -> dict[str, Any]:
    items = list(checkpoint.leaves.items())
    selected = paths.select(where, items)
    return {path: x for (path, x), keep in zip(items, selected, strict=True) if keep}


def _select_types(checkpoint: Any, leaves: Mapping[str, Any], where: Where) -> dict[str, str]:
    """Return the types of the leaves and of what contains them; without `where`, all."""
    if where is None or not checkpoint.types:
        return dict(checkpoint.types)
    kept = {*leaves, *(above for path in leaves for above in paths.ancestors(path))}
    return {path: name for path, name in checkpoint.types.items() if path in kept}


def _with_functions(leaves: dict[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    """Return leaves, and `()` for each function, after the leaves that lie beside it."""
    if not types:
        return leaves
    nested: dict[str, Any] = {}
    for path in (*leaves, *types):
        node = nested
        for part in path.split(paths.SEPARATOR):
            node = node.setdefault(part, {})
    return {path: leaves.get(path, ()) for path in _ends(nested) if path}


def _ends(nested: dict[str, Any]) -> Iterator[str]:
    """Yield the paths of what contains nothing, depth first."""
    stack = list(reversed(nested.items()))
    while stack:
        path, node = stack.pop()
        if not node:
            yield path
        names = sorted(node, key=int) if all(map(str.isdecimal, node)) else list(node)
        stack += [(paths.join((path, x)), node[x]) for x in reversed(names)]


def _lines(
    leaves: Mapping[str, Any], depth: int | None, types: Mapping[str, str]
) -> Iterator[TreeLine]:
    """Yield the lines of the tree, each branch once; deeper leaves are counted."""
    shown: list[str] = []
    groups: dict[str, list[Any]] = {}
    for path, x in leaves.items():
        parts = path.split(paths.SEPARATOR)
        top = parts[: depth or len(parts)]
        groups.setdefault(paths.join(top), []).append((len(top) == len(parts), x))
    for path, group in groups.items():
        parts = path.split(paths.SEPARATOR)
        for level, part in enumerate(parts[:-1]):
            if shown[: level + 1] != parts[: level + 1]:
                shown = parts[: level + 1]
                path_shown = paths.join(shown)
                yield TreeLine(path_shown, level, part, types.get(path_shown, ""))
        shown = parts[:-1]
        yield _leaf(path, parts, group, types.get(path, ""))


def _leaf(path: str, parts: list[str], group: list[Any], type: str) -> TreeLine:
    whole, x = group[0]
    arrays = _arrays(x for _, x in group)
    nbytes = sum(x.nbytes for x in arrays) if arrays else None
    isfunction = whole and isinstance(x, tuple)
    description = describe(x) if whole and len(group) == 1 else plural(len(arrays), "array")
    description = type if isfunction else "  ".join(filter(None, (description, type)))
    return TreeLine(path, len(parts) - 1, paths.show(parts[-1]), description, nbytes)


def _describe_ties(path: str, group: Sequence[str]) -> str:
    """Return the other paths of an array; of many, only their number."""
    others = [x for x in group if x != path] if len(group) < _MAX_TIED else []
    return (
        f"  tied to {', '.join(map(printable, others)) or f'{len(group) - 1:,} others'}"
        if group
        else ""
    )


def _title(checkpoint: Any) -> str:
    checksums = "with checksums" if checkpoint.checksums else "without checksums"
    packed = ", small arrays packed" if checkpoint.packed else ""
    return f"{printable(checkpoint.path)}\n{checkpoint.format}, {checksums}{packed}"


def _metadata(checkpoint: Any) -> Iterator[str]:
    if checkpoint.metadata:
        text = printable(str(checkpoint.metadata))
        yield f"metadata: {text if len(text) <= 1000 else text[:997] + '...'}"


def _totals(leaves: Mapping[str, Any], hidden: int) -> str:
    arrays = _arrays(leaves.values())
    counts = (
        plural(len(arrays), "array"),
        plural(sum(x.size for x in arrays), "element"),
        plural(sum(x.nbytes for x in arrays), "byte"),
    )
    others = f"; {plural(hidden, 'other leaf', 'other leaves')}" if hidden else ""
    return ", ".join(counts) + others


def _arrays(leaves: Iterable[Any]) -> list[LazyArray]:
    """Return the arrays among some leaves, tied ones once."""
    return list(dict.fromkeys(x for x in leaves if isinstance(x, LazyArray)))
