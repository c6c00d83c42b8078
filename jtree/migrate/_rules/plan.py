"""Plans: what rules would do to a source, as a table, without reading an array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ..._text import plural, render, table
from ..._tree import paths
from ..._tree.leaves import describe
from .apply import Migrated, apply
from .base import Rule

_TITLES = ("source", "", "", "destination", "", "")


class PlanRow(NamedTuple):
    """A row of a plan: an array, the arrays of the source that it comes from, its rules, from 1."""

    path: str
    array: str
    sources: dict[str, str]
    rules: tuple[int, ...]


class Plan:
    """A preview of what rules do to a source; it prints as a table.

    Attributes:
      rows: one row for each resulting array.
      rules: the rules, each with the number of its edits.
      dropped: the paths that are left out, each with the number of the rule, from 1.
      untouched: the paths that no rule matches.
      others: the paths of the leaves that are not arrays.
      nbytes: the bytes of all resulting arrays, with tied ones counted once.

    Example:
      >>> source = {"w": np.zeros((2, 3)), "b": np.zeros(2), "step": np.zeros(())}
      >>> rules = [jtree.migrate.transpose("w"), jtree.migrate.drop("step")]
      >>> print(plan(rules, source))
      source                    destination
      w       float64[2, 3]  →  w            float64[3, 2]  1
      b       float64[2]     →  b            float64[2]     untouched
      step    float64[]      →  (dropped)                   2
      <BLANKLINE>
      1  transpose('w')  1 edit
      2  drop('step')    1 edit
      2 arrays, 64 bytes; 1 dropped; 1 untouched
    """

    def __init__(self, arrays: Migrated) -> None:
        described = {path: describe(x) for path, x in arrays.source.items()}
        self.rows = [
            PlanRow(
                path,
                describe(entry.array),
                {source: described[source] for source in entry.sources},
                tuple(index + 1 for index in entry.rules),
            )
            for path, entry in arrays.entries.items()
        ]
        self.rules = list(zip(map(repr, arrays.rules), arrays.edit_counts, strict=True))
        self.dropped = {path: index + 1 for path, index in arrays.dropped.items()}
        self.untouched = arrays.untouched
        self.others = tuple(arrays.others)
        self.nbytes = sum(x.nbytes for x in set(arrays.values()))
        self._described = described

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON."""
        return {
            "arrays": [row._asdict() | {"rules": list(row.rules)} for row in self.rows],
            "rules": [{"rule": rule, "edits": edits} for rule, edits in self.rules],
            "dropped": self.dropped,
            "untouched": list(self.untouched),
            "others": list(self.others),
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
            lines = [(str(n), rule, plural(edits, "edit")) for n, (rule, edits) in rules]
            parts += [Text(""), table((), lines, border=False)]
        return Group(*parts, Text(self._totals()))

    def _lines(self) -> Iterator[tuple[str, ...]]:
        for row in self.rows:
            note = ", ".join(map(str, row.rules)) or "untouched"
            yield *_summarise(row.sources), "→", paths.show(row.path), row.array, note
        for path, rule in self.dropped.items():
            yield paths.show(path), self._described[path], "→", "(dropped)", "", str(rule)

    def _totals(self) -> str:
        counts = {
            "dropped": len(self.dropped),
            "untouched": len(self.untouched),
            "other leaves": len(self.others),
        }
        notes = "".join(f"; {count:,} {what}" for what, count in counts.items() if count)
        return f"{plural(len(self.rows), 'array')}, {plural(self.nbytes, 'byte')}{notes}"


def plan(rules: Iterable[Rule], source: Any, /) -> Plan:
    """Return what rules would do to a source, without reading an array.

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
      1  stack('#/w', 'w')  1 edit
      1 array, 48 bytes
    """
    return Plan(apply(rules, source))


def _summarise(sources: dict[str, str]) -> tuple[str, str]:
    """Return the sources of an array and what they are, in few words."""
    if not sources:
        return "(filled)", ""
    first, *more = sources.values()
    same = all(x == first for x in more)
    note = f" and {len(more)} {'like it' if same else 'more'}" if more else ""
    return paths.shorten(list(sources), 3), f"{first}{note}"
