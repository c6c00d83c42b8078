"""Rules about paths: rename, drop, tie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import field

from ..._arguments import check_flag
from ..._errors import ArgumentError
from ..._tree import paths
from ..._tree.leaves import describe
from . import lazy_ops
from .arguments import check_fields, check_globs, check_template, check_text, fill_template
from .base import Edit, LazyArrays, Rule, capture, public_rule, select
from .lazy_arrays import as_blocks, as_lazy


@public_rule
class Rename(Rule):
    r"""Move arrays to other paths.

    Args:
      pattern: a glob over paths. `*` matches within one segment of a path, and `**` any number of
        segments. With `regex`, a regular expression; each of its matches in a path is replaced,
        as by `re.sub`.
      replacement: the new path. Each `*` or `**` stands for what the next wildcard of the pattern
        matches; `{1}` stands for the first wildcard, `{2}` for the second. With `regex`, a
        replacement for `re.sub`, such as `\1`.
      regex: whether the pattern is a regular expression.
      optional: whether the pattern may match nothing.

    Raises:
      RuleError: the pattern matches nothing, or two arrays end up at one path.
      ArgumentError: the pattern is invalid, or the replacement uses wildcards that it lacks.

    Example:
      >>> source = {"h.0.mlp.w": np.zeros(2), "h.0.mlp.b": np.zeros(2)}
      >>> rules = [rename(r"\.", "/", regex=True), rename("h/*/mlp/w", "layers/*/kernel")]
      >>> list(jtree.migrate.apply(rules, source))
      ['layers/0/kernel', 'h/0/mlp/b']
    """

    pattern: str
    replacement: str
    regex: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        check_fields(self, pattern=check_text, replacement=check_text)
        if not check_flag("regex", self.regex):
            check_template(self, self.pattern, self.replacement)
            return
        try:
            re.compile(self.pattern).sub(self.replacement, "")
        except (re.error, IndexError) as error:
            raise ArgumentError(f"{self}: not a valid regular expression: {error}") from error

    def edits(self, arrays: LazyArrays, /) -> Iterator[Edit]:
        """Yield one edit for each path that matches."""
        for old, new in self._renamed(arrays):
            yield Edit((old,), {new: arrays[old]})

    def _renamed(self, arrays: LazyArrays) -> Iterator[tuple[str, str]]:
        if not self.regex:
            for path, captures in capture(self, self.pattern, arrays).items():
                yield path, fill_template(self.replacement, captures)
            return
        matches = [path for path in arrays if re.search(self.pattern, path)]
        if not matches and not self.optional:
            raise self.no_match(self.pattern, arrays, filled=True)
        for path in matches:
            yield path, re.sub(self.pattern, self.replacement, path)


@public_rule
class Drop(Rule):
    """Leave arrays out.

    Args:
      where: a glob over paths, or several.
      optional: whether a glob may match nothing.

    Raises:
      RuleError: a glob matches nothing.

    Example:
      >>> source = {"w": np.zeros(2), "num_batches_tracked": np.zeros((), int)}
      >>> list(jtree.migrate.apply([drop("**/num_batches_tracked")], source))
      ['w']
    """

    where: str | tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self, where=check_globs)

    def edits(self, arrays: LazyArrays, /) -> Iterator[Edit]:
        """Yield one edit for each array that is left out."""
        for path in select(self, self.where, arrays):
            yield Edit((path,), {})


@public_rule
class Tie(Rule):
    """Store one array at two paths.

    An array that is at the second path already must equal the first, which is checked when either
    of them is read.

    Args:
      first: the path of the array, or a glob.
      second: the other path, filled in as by `rename`.
      optional: whether the glob may match nothing.

    Raises:
      RuleError: the glob matches nothing, or the arrays at the two paths differ.

    Example:
      >>> source = {"embed/weight": np.ones(2)}
      >>> arrays = jtree.migrate.apply([tie("embed/weight", "head/weight")], source)
      >>> arrays["head/weight"] is arrays["embed/weight"]
      True
    """

    first: str
    second: str

    def __post_init__(self) -> None:
        check_fields(self, first=check_text, second=check_text)
        check_template(self, self.first, self.second)

    def edits(self, arrays: LazyArrays, /) -> Iterator[Edit]:
        """Yield one edit for each array that is tied to another path."""
        for path, captures in capture(self, self.first, arrays).items():
            other = fill_template(self.second, captures)
            if other in arrays and other != path:
                yield self._tie_both(path, other, arrays)
            else:
                yield Edit((path,), {path: arrays[path], other: arrays[path]})

    def _tie_both(self, path: str, other: str, arrays: LazyArrays) -> Edit:
        x, y = arrays[path], arrays[other]
        advice = f"drop the wrong one first, as by drop({other!r})"
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            raise self.mismatch(other, y, f"{describe(x)}, as at {paths.show(path)}", advice)
        if x is not y:
            both = f"{paths.show(path)} and {paths.show(other)}"
            message = f"{self}: {both}: expected equal values, found different ones; {advice}"
            x = as_lazy(lazy_ops.require_equal(as_blocks(x), as_blocks(y), message))
        return Edit((path, other), {path: x, other: x})


rename = Rename
drop = Drop
tie = Tie
