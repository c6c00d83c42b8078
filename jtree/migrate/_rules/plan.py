"""What rules will do, without reading an array: what comes from where, in which shape."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ..._text import plural, render, table
from ..._tree import paths
from ..._tree.leaves import describe
from .apply import Migrated, apply
from .base import Rule

_TITLES = ("source", "", "", "destination", "", "")


class PlanRow(NamedTuple):
    """A line of a plan: what is made, what of, and by which rules, counted from 1."""

    path: str
    array: str
    sources: tuple[str, ...]
    found: tuple[str, ...]  # the arrays of the sources
    rules: tuple[int, ...]


class Plan:
    """What rules will do; it prints as a table.

    Attributes:
      rows: one for each array that is made.
      rules: the rules, each with the number of places where it does something.
      dropped: the paths that are left out, with the number of the rule.
      untouched: the paths that no rule touches.
      other: the paths of leaves that are no arrays.
      nbytes: the bytes of all arrays that are made, tied ones counted once.

    Example:
      >>> source = {"w": np.zeros((2, 3)), "b": np.zeros(2), "step": np.zeros(())}
      >>> rules = [jtree.migrate.transpose("w"), jtree.migrate.drop("step")]
      >>> found = plan(rules, source)
      >>> found.untouched, found.dropped
      (('b',), {'step': 2})
      >>> print(found)
      source                    destination
      w       float64[2, 3]  →  w            float64[3, 2]  1
      b       float64[2]     →  b            float64[2]     untouched
      step    float64[]      →  (dropped)                   2
      <BLANKLINE>
      1  transpose('w')  1 place
      2  drop('step')    1 place
      2 arrays, 64 bytes; 1 dropped; 1 untouched
    """

    def __init__(self, found: Migrated) -> None:
        self.rows = [
            PlanRow(
                path, describe(x.array), x.sources, _arrays(found, x.sources), _counted(x.rules)
            )
            for path, x in found.entries.items()
        ]
        self.rules = list(zip(map(repr, found.rules), found.matches, strict=True))
        self.dropped = {path: rule + 1 for path, rule in found.dropped.items()}
        self.untouched = found.untouched
        self.other = tuple(found.other)
        self.nbytes = sum(x.nbytes for x in set(found.values()))
        self._left = {path: describe(found.source[path]) for path in self.dropped}

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON."""
        return {
            "arrays": [
                {
                    "path": row.path,
                    "array": row.array,
                    "sources": dict(zip(row.sources, row.found, strict=True)),
                    "rules": list(row.rules),
                }
                for row in self.rows
            ],
            "rules": [{"rule": rule, "places": places} for rule, places in self.rules],
            "dropped": self.dropped,
            "untouched": list(self.untouched),
            "other": list(self.other),
            "nbytes": self.nbytes,
        }

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in render(self, width=400).splitlines())

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        parts: list[Any] = [table(_TITLES, self._lines(), border=False)]
        if self.rules:
            rules = enumerate(self.rules, 1)
            lines = [(str(n), rule, plural(places, "place")) for n, (rule, places) in rules]
            parts += [Text(""), table((), lines, border=False)]
        return Group(*parts, Text(self._total()))

    def _lines(self) -> Iterable[tuple[str, ...]]:
        for row in self.rows:
            note = ", ".join(map(str, row.rules)) or "untouched"
            source, array = _sources(row)
            yield source, array, "→", paths.show(row.path), row.array, note
        for path, rule in self.dropped.items():
            yield paths.show(path), self._left[path], "→", "(dropped)", "", str(rule)

    def _total(self) -> str:
        counts = {
            "dropped": len(self.dropped),
            "untouched": len(self.untouched),
            "other leaves": len(self.other),
        }
        notes = "".join(f"; {n:,} {what}" for what, n in counts.items() if n)
        arrays = plural(len(self.rows), "array")
        return f"{arrays}, {plural(self.nbytes, 'byte')}{notes}"


def plan(rules: Iterable[Rule], source: Any, /) -> Plan:
    """Return what rules will do to a source, without reading an array.

    Args:
      rules: as in `apply`.
      source: as in `apply`.

    Returns:
      A `Plan`, which prints as a table.

    Raises:
      RuleError: as in `apply`.

    Example:
      >>> plan([jtree.migrate.stack("#/w", "w")], {"0/w": np.ones(3), "1/w": np.ones(3)})
      source                                    destination
      0/w, 1/w  float64[3] and 1 like it  →  w            float64[2, 3]  1
      <BLANKLINE>
      1  stack('#/w', 'w')  1 place
      1 array, 48 bytes
    """
    return Plan(apply(rules, source))


def _arrays(found: Migrated, sources: Iterable[str]) -> tuple[str, ...]:
    return tuple(describe(found.source[path]) for path in sources)


def _counted(rules: Iterable[int]) -> tuple[int, ...]:
    return tuple(n + 1 for n in rules)


def _sources(row: PlanRow) -> tuple[str, str]:
    """Return what an array is made of, in few words."""
    if not row.sources:
        return "(filled)", ""
    more = len(row.found) - 1
    alike = len(set(row.found)) == 1
    note = f" and {more} {'like it' if alike else 'more'}" if more else ""
    return paths.shorten(row.sources, 3), f"{row.found[0]}{note}"
