"""The application of rules to arrays by path: a mapping whose arrays are computed when read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from typing import Any, NamedTuple

from ..._errors import RuleError
from ..._state.sources import open_tree, resolve
from ..._text import plural
from ..._tree import paths as _paths
from ..._tree.lazy import LazyArray
from ..._tree.paths import Where
from .base import Edit, Rule, check_rules
from .source import SourceLeaves, read_leaves


class MigratedArray(NamedTuple):
    """An array with the paths of the source that it is computed from, and its rules, from 0."""

    array: LazyArray
    sources: tuple[str, ...]
    rules: tuple[int, ...] = ()


class Migrated(Mapping[str, LazyArray]):
    """The arrays of a source after rules: a mapping from paths to arrays, computed when read.

    Attributes:
      rules: the rules, in order.
      source: the arrays of the source by path; none of them has been read.
      entries: each array by path, with the paths and the rules that it comes from.
      dropped: the paths of the source that are left out, each with the index of the rule.
      edit_counts: how many edits each rule makes.
      others: the leaves of the source that are not arrays, by path.

    Example:
      >>> source = {"w": np.zeros((2, 3)), "b": np.zeros(2)}
      >>> arrays = apply([jtree.migrate.transpose("w")], source)
      >>> arrays, arrays.untouched
      ({'w': LazyArray(float64[3, 2]), 'b': LazyArray(float64[2])}, ('b',))
    """

    def __init__(self, rules: tuple[Rule, ...], leaves: SourceLeaves) -> None:
        self.rules = rules
        self.source = leaves.arrays
        self.others = leaves.others
        self.entries = {path: MigratedArray(x, (path,)) for path, x in leaves.arrays.items()}
        self.dropped: dict[str, int] = {}
        self.edit_counts: list[int] = []
        for index, rule in enumerate(rules):
            self._apply(index, rule)

    @property
    def untouched(self) -> tuple[str, ...]:
        """The paths that no rule matches."""
        return tuple(path for path, entry in self.entries.items() if not entry.rules)

    @property
    def unchanged(self) -> dict[str, str]:
        """For each path whose array no rule changes, the path of the array in the source."""
        entries = ((path, x, x.sources[0]) for path, x in self.entries.items() if x.sources)
        return {path: source for path, x, source in entries if x.array is self.source[source]}

    @property
    def ties(self) -> tuple[tuple[str, ...], ...]:
        """The groups of paths that share one array."""
        groups: dict[LazyArray, list[str]] = {}
        for path, entry in self.entries.items():
            groups.setdefault(entry.array, []).append(path)
        return tuple(tuple(paths) for paths in groups.values() if len(paths) > 1)

    def select(self, where: Where) -> Migrated:
        """Return the same mapping with only the paths that `where` selects."""
        selected = copy(self)
        verdicts = zip(self.entries.items(), _paths.select(where, list(self.items())), strict=True)
        selected.entries = {path: entry for (path, entry), keep in verdicts if keep}
        leaves = [*self.items(), *self.others.items()]
        kept = zip(self.others, _paths.select(where, leaves)[len(self) :], strict=True)
        selected.others = {path: self.others[path] for path, keep in kept if keep}
        return selected

    def __getitem__(self, path: str) -> LazyArray:
        if path not in self:
            raise _paths.no_array(path, self.entries)
        return self.entries[path].array

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and path in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return repr(dict(self))

    def _apply(self, index: int, rule: Rule) -> None:
        """Replace the entries by what a rule makes of them, new ones where the old ones were."""
        edits = list(rule.edits(dict(self)))
        self.edit_counts.append(len(edits))
        for edit in edits:
            if not edit.adds:
                self.dropped |= dict.fromkeys(self._sources(edit), index)
        results = _Results(rule)
        removed = {path for edit in edits for path in edit.removes}
        replacing = {edit.removes[0]: edit for edit in edits if edit.removes}
        for path, entry in self.entries.items():
            if path not in removed:
                results.add(path, entry)
            if path in replacing:
                results.add_all(self._added(index, replacing[path]))
        for edit in edits:
            if not edit.removes:
                results.add_all(self._added(index, edit))
        self.entries = results.check()

    def _added(self, index: int, edit: Edit) -> dict[str, MigratedArray]:
        sources = self._sources(edit)
        before = (self.entries[path].rules for path in edit.removes)
        rules = tuple(sorted({index}.union(*before)))
        return {path: MigratedArray(x, sources, rules) for path, x in edit.adds.items()}

    def _sources(self, edit: Edit) -> tuple[str, ...]:
        sources = (source for path in edit.removes for source in self.entries[path].sources)
        return tuple(dict.fromkeys(sources))


@open_tree.register
def _(arrays: Migrated) -> Any:
    return {**arrays, **arrays.others}


class _Results:
    """The arrays after a rule, each at a path of its own."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.entries: dict[str, MigratedArray] = {}
        self.collisions: list[tuple[str, MigratedArray, MigratedArray]] = []

    def add_all(self, entries: Mapping[str, MigratedArray]) -> None:
        """Add arrays by path."""
        for path, entry in entries.items():
            self.add(path, entry)

    def add(self, path: str, entry: MigratedArray) -> None:
        """Add an array, and note where its path is taken."""
        if path in self.entries:
            self.collisions.append((path, self.entries[path], entry))
        self.entries[path] = entry

    def check(self) -> dict[str, MigratedArray]:
        """Return the arrays, or refuse paths that several of them would have."""
        if not self.collisions:
            return self.entries
        path, *pair = self.collisions[0]
        first, second = map(_origin, pair)
        others = {x for x, *_ in self.collisions} - {path}
        more = f" and {plural(len(others), 'other path')}" if others else ""
        raise RuleError(
            f"{self.rule}: two results at {_paths.show(path)}{more}: {first}, and {second}; "
            "rename or drop one of them first"
        )


def _origin(entry: MigratedArray) -> str:
    return f"one from {_paths.shorten(entry.sources)}" if entry.sources else "one that is filled in"


def apply(rules: Iterable[Rule], source: Any, /) -> Migrated:
    """Return the arrays of a source after rules: a mapping from paths to arrays.

    Rules are applied in order, and each sees the paths that the rules before it leave. All of them
    are checked here, before any array is read.

    Args:
      rules: rules such as `jtree.migrate.rename`.
      source: a mapping from paths to arrays (lazy, NumPy's, JAX's or abstract), a model, a state,
        or a checkpoint, opened or as a path.

    Returns:
      A `Migrated` mapping from paths to lazy arrays. An array is computed when it is read, from
      only what it depends on. `jtree.loadmodel` takes the mapping as it is.

    Raises:
      RuleError: a rule matches nothing or does not fit an array, or two arrays end up at one path.

    Example:
      >>> source = {"fc.weight": np.arange(6).reshape(2, 3)}
      >>> rules = [jtree.migrate.rename("fc.weight", "fc/kernel"), jtree.migrate.transpose("fc/*")]
      >>> arrays = apply(rules, source)
      >>> arrays["fc/kernel"].shape, arrays["fc/kernel"].read().tolist()
      ((3, 2), [[0, 3], [1, 4], [2, 5]])
    """
    return Migrated(check_rules(rules), read_leaves(open_tree(resolve(source))))
