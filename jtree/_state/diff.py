"""The difference between two models: `Diff`."""

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
    """A leaf that does not fit.

    Attributes:
      path: the path of the leaf.
      kind: `"missing"`, `"unexpected"`, `"shape"`, `"dtype"`, `"kind"` or `"ties"`.
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
    """Return a mismatch with the sentence that says where, expected and found."""
    text = f"{paths.show(path)}: expected {expected}, found {found}{hint}"
    return Mismatch(path, kind, expected, found, text)


@dataclass(frozen=True, repr=False)
class Diff:
    """The mismatches between two models: the result of `jtree.diff`.

    A diff is true if loading the source into the destination would fail, and prints as a table.

    Attributes:
      mismatches: every `Mismatch`, sorted by path.
      config: fields without arrays that differ, from path to `(destination's, source's)`. They
        are never an error.

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

    def _by_path(self, kind: str) -> dict[str, tuple[Any, Any]]:
        return {x.path: (x.expected, x.found) for x in self.mismatches if x.kind == kind}

    def message(self, most: int = 10) -> str:
        """Return the number of mismatches, and the first `most` of them, one per line."""
        total = len(self.mismatches)
        if not total:
            return "no mismatch"
        lines = [f"  {x.text}" for x in self.mismatches[:most]]
        more = [f"  ... and {total - most} more, all in `.diff`"] if total > most else []
        return "\n".join([plural(total, "mismatch", "mismatches"), *lines, *more])

    def __repr__(self) -> str:
        return f"Diff({self._title()})"

    def __bool__(self) -> bool:
        return bool(self.mismatches)

    def __rich__(self) -> Table:
        wrong, config = self.mismatches, self.config.items()
        rows = [(paths.show(x.path), x.kind, str(x.expected), str(x.found)) for x in wrong]
        fields = [(paths.show(path), "config", *map(describe, pair)) for path, pair in config]
        titles = ("path", "kind", "expected", "found")
        drawn = table(titles, rows, fields, dim={1}, title=self._title())
        if fields:
            drawn.caption = "config: fields without arrays that differ; not an error"
        return drawn

    def __str__(self) -> str:
        return render(self) if self or self.config else self._title()

    def _title(self) -> str:
        return self.message(0).splitlines()[0]
