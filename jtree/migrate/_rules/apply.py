"""Rules applied to arrays by their paths: a lazy mapping of what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from typing import Any, NamedTuple

from ..._errors import ArgumentTypeError, RuleError
from ..._state.sources import opened
from ..._tree import paths as _path
from ..._tree.lazy import LazyArray
from ..._tree.paths import Where
from .base import Edit, Rule
from .source import Leaves, leaves


class MigratedArray(NamedTuple):
    """An array on its way: the paths that it is made of, and the rules that it went through."""

    array: LazyArray
    sources: tuple[str, ...]
    rules: tuple[int, ...] = ()


class Migrated(Mapping[str, LazyArray]):
    """What rules make of a source: a mapping from paths to arrays that are computed when read.

    Attributes:
      rules: those that were applied.
      source: the shapes and dtypes of the source, as lazy arrays by path.
      entries: for every path the array, the paths it is made of, and the rules it went through.
      dropped: the paths of the source that are left out, with the number of the rule.
      matches: for every rule how many places it took or gave.
      other: the leaves of the source that are no arrays, by path.

    Example:
      >>> found = apply([jtree.migrate.transpose("w")], {"w": np.zeros((2, 3)), "b": np.zeros(2)})
      >>> found, found.untouched
      ({'w': LazyArray(float64[3, 2]), 'b': LazyArray(float64[2])}, ('b',))
    """

    def __init__(self, rules: tuple[Rule, ...], found: Leaves) -> None:
        self.rules = rules
        self.source = found.arrays
        self.other = found.other
        self.entries = {path: MigratedArray(x, (path,)) for path, x in found.arrays.items()}
        self.dropped: dict[str, int] = {}
        self.matches: list[int] = []
        for number, rule in enumerate(rules):
            self._apply(number, rule)

    @property
    def untouched(self) -> tuple[str, ...]:
        """The paths that no rule touched."""
        return tuple(path for path, entry in self.entries.items() if not entry.rules)

    @property
    def ties(self) -> tuple[tuple[str, ...], ...]:
        """The paths of places that hold one array."""
        groups: dict[LazyArray, list[str]] = {}
        for path, entry in self.entries.items():
            groups.setdefault(entry.array, []).append(path)
        return tuple(tuple(paths) for paths in groups.values() if len(paths) > 1)

    def only(self, where: Where) -> Migrated:
        """Return the same with those paths only that a glob matches, or one of several."""
        chosen = _path.select(where, list(self.items()))
        found = copy(self)
        pairs = zip(self.entries.items(), chosen, strict=True)
        found.entries = {path: entry for (path, entry), keep in pairs if keep}
        leaves = [*self.items(), *self.other.items()]
        kept = zip(self.other, _path.select(where, leaves)[len(self) :], strict=True)
        found.other = {path: self.other[path] for path, keep in kept if keep}
        return found

    def __getitem__(self, path: str) -> LazyArray:
        return self.entries[path].array

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return repr(dict(self))

    def _apply(self, number: int, rule: Rule) -> None:
        edits = list(rule.edits({path: entry.array for path, entry in self.entries.items()}))
        self.matches.append(len(edits))
        for edit in edits:
            if not edit.adds:
                self.dropped |= dict.fromkeys(self._sources(edit), number)
        results = _Results(rule)
        taken = {path for edit in edits for path in edit.removes}
        made = {edit.removes[:1]: edit for edit in edits}
        for path, entry in self.entries.items():  # what is new is where the old was
            if path not in taken:
                results.put(path, entry)
            for new in self._made(number, made.pop((path,), None)):
                results.put(*new)
        for edit in edits:
            for new in self._made(number, edit if not edit.removes else None):
                results.put(*new)
        self.entries = results.entries

    def _made(self, number: int, edit: Edit | None) -> Iterator[tuple[str, MigratedArray]]:
        if edit is not None:
            rules = [self.entries[path].rules for path in edit.removes]
            passed = tuple(sorted({number}.union(*rules)))
            for path, array in edit.adds.items():
                yield path, MigratedArray(array, self._sources(edit), passed)

    def _sources(self, edit: Edit) -> tuple[str, ...]:
        found = (path for taken in edit.removes for path in self.entries[taken].sources)
        return tuple(dict.fromkeys(found))


@opened.register
def _(found: Migrated) -> Any:
    return {**found, **found.other}


class _Results:
    """What a rule leaves, each at a path of its own."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.entries: dict[str, MigratedArray] = {}

    def put(self, path: str, entry: MigratedArray) -> None:
        """Add an array, or refuse it where there is one already."""
        if path in self.entries:
            sides = [_origin(x) for x in (self.entries[path], entry)]
            raise RuleError(
                f"{self.rule}: two results at {_path.show(path)}: {sides[0]}, and {sides[1]}; "
                "rename or drop one of them first"
            )
        self.entries[path] = entry


def _origin(entry: MigratedArray) -> str:
    names = [_path.show(path) for path in entry.sources]
    return f"one from {_path.shorten(names)}" if names else "one that was filled"


def apply(rules: Iterable[Rule], source: Any, /) -> Migrated:
    """Return what rules make of a source: a mapping from paths to arrays, computed when read.

    Rules are applied one after another: each sees the paths that those before it have made.
    Everything is checked here, before any array is read.

    Args:
      rules: rules of this package, or what `rules_from_toml` returns.
      source: a mapping from paths to arrays (lazy, NumPy, JAX, abstract), a model, a state, or an
        opened checkpoint.

    Returns:
      A `Migrated` mapping from paths to lazy arrays. Reading one reads only what it is made of;
      `jtree.loadmodel(model, found)` takes it as it is.

    Raises:
      RuleError: a rule matches nothing, does not fit an array, or makes a second array at a path.

    Example:
      >>> source = {"fc.weight": np.arange(6).reshape(2, 3)}
      >>> rules = [jtree.migrate.rename("fc.weight", "fc/kernel"), jtree.migrate.transpose("fc/*")]
      >>> found = apply(rules, source)
      >>> found["fc/kernel"].shape, found["fc/kernel"].read().tolist()
      ((3, 2), [[0, 3], [1, 4], [2, 5]])
    """
    given = tuple(rules)
    for rule in given:
        if not isinstance(rule, Rule):
            raise ArgumentTypeError(
                f"expected rules such as jtree.migrate.rename('a', 'b'), found {rule!r}"
            )
    return Migrated(given, leaves(source))
