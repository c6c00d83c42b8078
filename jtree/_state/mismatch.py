"""The differences between two models: `Mismatch` and `Diff`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .._arguments import check_integer
from .._text import plural, render, table
from .._tree import paths
from .._tree.leaves import describe

if TYPE_CHECKING:
    from rich.table import Table


class Cause(NamedTuple):
    """A cause that several mismatches share.

    Attributes:
      text: the cause and its remedy, as a sentence.
      paths: the paths whose mismatches it explains.
    """

    text: str
    paths: frozenset[str]


class Mismatch(NamedTuple):
    """A leaf that does not fit.

    Attributes:
      path: the path of the leaf.
      kind: `"missing"`, `"unexpected"`, `"shape"`, `"dtype"`, `"kind"`, `"ties"` or `"values"`; of
        a remark `"conversion"` or `"ties"`.
      expected: what the destination expects: a shape, a dtype or text.
      found: what the source has.
      text: the mismatch as a sentence.
    """

    path: str
    kind: str
    expected: Any
    found: Any
    text: str


def mismatch(path: str, kind: str, expected: Any, found: Any, hint: str = "") -> Mismatch:
    """Return a mismatch with a sentence of its path and what was expected and found."""
    text = f"{paths.show(path)}: expected {expected}, found {found}{hint}"
    return Mismatch(path, kind, expected, found, text)


@dataclass(frozen=True, repr=False)
class Diff:
    """The differences between two models: the result of `jtree.diff`.

    A diff is true if loading the source into the destination would fail or, where values were
    compared, if they differ. It prints as a table.

    Attributes:
      mismatches: every `Mismatch`, sorted by path.
      config: fields without arrays that differ, from path to `(destination's, source's)`. They
        are never an error.
      remarks: dtypes that loading would convert, and ties that only one of two checkpoints
        records. They are never an error.
      causes: what several mismatches have in common, such as a prefix, each with its remedy.

    Example:
      >>> import jax.numpy as jnp
      >>> from jtree import diff
      >>> print(diff({"weight": jnp.ones(2)}, {"weights": jnp.ones(2)}).message())
      2 mismatches
        weight: expected float32[2], found nothing; did you mean weights?
        weights: expected nothing, found float32[2]; did you mean weight?
    """

    mismatches: tuple[Mismatch, ...] = ()
    config: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    remarks: tuple[Mismatch, ...] = ()
    causes: tuple[Cause, ...] = ()

    @property
    def differences(self) -> tuple[Mismatch, ...]:
        """Everything that differs, error or not, sorted by path."""
        fields = (mismatch(path, "config", *map(describe, x)) for path, x in self.config.items())
        return tuple(sorted((*self.mismatches, *self.remarks, *fields), key=lambda x: x[:2]))

    @property
    def missing(self) -> tuple[str, ...]:
        """The paths of arrays that the source lacks."""
        return tuple(x.path for x in self.mismatches if x.kind == "missing")

    @property
    def unexpected(self) -> tuple[str, ...]:
        """The paths of arrays that the destination lacks."""
        return tuple(x.path for x in self.mismatches if x.kind == "unexpected")

    @property
    def shape(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """The shapes that differ, from path to `(expected, found)`."""
        return self._by_path("shape")

    @property
    def dtype(self) -> dict[str, tuple[Any, Any]]:
        """The dtypes that cannot be converted, from path to `(expected, found)`."""
        return self._by_path("dtype")

    @property
    def kind(self) -> dict[str, tuple[str, str]]:
        """Arrays against other objects, from path to `(expected, found)` as text."""
        return self._by_path("kind")

    @property
    def ties(self) -> dict[str, tuple[str, str]]:
        """Tied leaves whose sources differ, from the first path to `(expected, found)` as text."""
        return self._by_path("ties")

    @property
    def values(self) -> dict[str, Any]:
        """The largest differences of values that differ, from path to `(absolute, relative)`."""
        return {x.path: x.found for x in self.mismatches if x.kind == "values"}

    def _by_path(self, kind: str) -> dict[str, tuple[Any, Any]]:
        return {x.path: (x.expected, x.found) for x in self.mismatches if x.kind == kind}

    def message(self, most: int = 10) -> str:
        """Return the number of mismatches, what they have in common, and the first `most` others.

        Each of them is on one line.
        """
        check_integer("most", most, least=0)
        others = self._unexplained()
        if self.causes and not others:
            return f"{self._title()}: {'; and '.join(x.text for x in self.causes)}"
        lines = [f"  {len(x.paths)} paths: {x.text}" for x in self.causes]
        lines += [f"  {x.text}" for x in others[:most]]
        if len(others) > most:
            lines.append(f"  ... and {len(others) - most} more, {self._count(others[most:])}")
        return "\n".join([self._title(), *lines])

    def _unexplained(self) -> list[Mismatch]:
        explained = frozenset().union(*(x.paths for x in self.causes))
        return [x for x in self.mismatches if x.path not in explained]

    def _count(self, mismatches: Sequence[Mismatch]) -> str:
        """Return how many mismatches there are of each kind."""
        counts = Counter(x.kind for x in mismatches).items()
        kinds = "" if len(counts) < 2 else f" ({', '.join(f'{n} {kind}' for kind, n in counts)})"
        return f"all in `.diff`{kinds}"

    def __repr__(self) -> str:
        return f"Diff({self._title()})"

    def __bool__(self) -> bool:
        return bool(self.mismatches)

    def __rich__(self) -> Table:
        errors = [_row(x) for x in self._unexplained()]
        mismatches = set(map(id, self.mismatches))
        others = [_row(x) for x in self.differences if id(x) not in mismatches]
        titles = ("path", "kind", "expected", "found")
        drawn = table(titles, errors, others, dim={1}, title=self._title())
        captions = [f"{len(x.paths)} paths: {x.text}" for x in self.causes]
        if self.config:
            captions.append("config: fields without arrays that differ; not an error")
        drawn.caption = "\n".join(captions) or None
        return drawn

    def __str__(self) -> str:
        explained = self.causes and not self._unexplained()
        if explained and len(self.differences) == len(self.mismatches):
            return self.message()
        return render(self) if self.differences else self._title()

    def _title(self) -> str:
        count = len(self.mismatches)
        return plural(count, "mismatch", "mismatches") if count else "no mismatch"


def _row(x: Mismatch) -> tuple[str, str, str, str]:
    return paths.show(x.path), x.kind, str(x.expected), str(x.found)
