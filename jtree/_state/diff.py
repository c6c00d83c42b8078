"""Two models, place by place: what fits, what does not, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .._text import plural, render, table
from .._tree import paths
from .._tree.leaves import describe

if TYPE_CHECKING:
    from rich.table import Table


class Mismatch(NamedTuple):
    """One place that does not fit: `expected` and `found` as data, `text` as a sentence."""

    path: str
    sort: str
    expected: Any
    found: Any
    text: str


def mismatch(path: str, sort: str, expected: Any, found: Any, hint: str = "") -> Mismatch:
    """Return a mismatch whose sentence names its path, what was expected, and what was found."""
    text = f"{paths.show(path)}: expected {expected}, found {found}{hint}"
    return Mismatch(path, sort, expected, found, text)


@dataclass(frozen=True, repr=False)
class Diff:
    """What keeps one model's numbers from going into another. True where loading would fail.

    Attributes:
      mismatches: all that is wrong, sorted by path.
      config: fields without arrays that differ, from path to (destination's, source's). This is
        information, never an error.

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

    @property
    def missing(self) -> tuple[str, ...]:
        """Paths that the destination has and the source has not."""
        return tuple(x.path for x in self.mismatches if x.sort == "missing")

    @property
    def unexpected(self) -> tuple[str, ...]:
        """Paths that the source has and the destination has not."""
        return tuple(x.path for x in self.mismatches if x.sort == "unexpected")

    @property
    def shape(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Shapes that differ: path to (expected, found)."""
        return self._sorted("shape")

    @property
    def dtype(self) -> dict[str, tuple[Any, Any]]:
        """Dtypes that cannot be converted: path to (expected, found)."""
        return self._sorted("dtype")

    @property
    def kind(self) -> dict[str, tuple[str, str]]:
        """An array against something else: path to (expected, found) in words."""
        return self._sorted("kind")

    @property
    def ties(self) -> dict[str, tuple[str, str]]:
        """Tied places whose sources differ: first path to (expected, found) in words."""
        return self._sorted("ties")

    def message(self, most: int = 10) -> str:
        """Return the number of mismatches and the first ones, a line each."""
        number = len(self.mismatches)
        if not number:
            return "no mismatch"
        lines = [f"  {x.text}" for x in self.mismatches[:most]]
        more = [f"  ... and {number - most} more, all in `.diff`"] if number > most else []
        head = plural(number, "mismatch", "mismatches")
        return "\n".join([head, *lines, *more])

    def __repr__(self) -> str:
        return f"Diff({self._title()})"

    def __bool__(self) -> bool:
        return bool(self.mismatches)

    def __rich__(self) -> Table:
        wrong, config = self.mismatches, self.config.items()
        rows = [(paths.show(x.path), x.sort, str(x.expected), str(x.found)) for x in wrong]
        fields = [(paths.show(path), "config", *map(describe, pair)) for path, pair in config]
        caption = "config: fields without arrays that differ, which is no error"
        titles = ("path", "what", "expected", "found")
        drawn = table(titles, rows, fields, dim={1}, title=self._title())
        drawn.caption = caption if fields else None
        return drawn

    def __str__(self) -> str:
        if not self and not self.config:
            return self._title()
        return render(self)

    def _title(self) -> str:
        return self.message(0).splitlines()[0]

    def _sorted(self, sort: str) -> dict[str, tuple[Any, Any]]:
        return {x.path: (x.expected, x.found) for x in self.mismatches if x.sort == sort}
