"""Rules about places: rename, drop, tie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import field

from ..._errors import ArgumentError
from ..._tree import paths
from ..._tree.leaves import describe
from .base import (
    Arrays,
    Edit,
    Rule,
    captured,
    check_template,
    chosen,
    fill_in,
    normalise,
    public_rule,
    text,
    texts,
)
from .lazy_arrays import lazy, node
from .lazy_ops import agreed


@public_rule
class Rename(Rule):
    r"""Give arrays other paths.

    Args:
      pattern: a glob over paths: `*` within a step, `**` for any number of steps. With `regex` a
        regular expression, and all that it finds in a path is replaced, as by `re.sub`.
      replacement: the new path, where each `*` or `**` takes what the next wildcard of the pattern
        stands for, or `{1}` what the first does, `{2}` the second. With `regex` as `re.sub` has
        it: `\1`.
      regex: whether the pattern is a regular expression.
      optional: whether it may match nothing.

    Raises:
      RuleError: nothing matches, or something is at a new path already.
      ArgumentError: the pattern is none, or the replacement asks for more than it captures.

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
        normalise(self, pattern=text, replacement=text)
        if not self.regex:
            check_template(self, self.pattern, self.replacement)
            return
        try:
            re.compile(self.pattern).sub(self.replacement, "")
        except (re.error, IndexError) as error:
            raise ArgumentError(f"{self}: no regular expression: {error}") from error

    def edits(self, arrays: Arrays, /) -> Iterator[Edit]:
        """Yield one step for each path that matches."""
        for old, new in self._pairs(arrays):
            yield Edit((old,), {new: arrays[old]})

    def _pairs(self, arrays: Arrays) -> Iterator[tuple[str, str]]:
        if not self.regex:
            for path, groups in captured(self, self.pattern, arrays).items():
                yield path, fill_in(self.replacement, groups)
            return
        found = [path for path in arrays if re.search(self.pattern, path)]
        if not found and not self.optional:
            raise self.nothing(self.pattern, arrays)
        for path in found:
            yield path, re.sub(self.pattern, self.replacement, path)


@public_rule
class Drop(Rule):
    """Leave arrays out.

    Args:
      where: a glob over paths, or several.
      optional: whether it may match nothing.

    Raises:
      RuleError: nothing matches.

    Example:
      >>> source = {"w": np.zeros(2), "num_batches_tracked": np.zeros((), int)}
      >>> list(jtree.migrate.apply([drop("**/num_batches_tracked")], source))
      ['w']
    """

    where: str | tuple[str, ...]

    def __post_init__(self) -> None:
        normalise(self, where=texts)

    def edits(self, arrays: Arrays, /) -> Iterator[Edit]:
        """Yield one step for each array that is left out."""
        globs = (self.where,) if isinstance(self.where, str) else self.where
        for path in chosen(self, globs, arrays):
            yield Edit((path,), {})


@public_rule
class Tie(Rule):
    """Put one array at two places.

    Where an array is at the second place already, it must be equal to the first, which is checked
    when either is read.

    Args:
      first: the path of the array, or a glob.
      second: the other path, filled in as by `rename`.
      optional: whether the first may match nothing.

    Raises:
      RuleError: nothing matches, or what is at the second place is not equal.

    Example:
      >>> source = {"embed/weight": np.ones(2)}
      >>> found = jtree.migrate.apply([tie("embed/weight", "head/weight")], source)
      >>> found["head/weight"] is found["embed/weight"]
      True
    """

    first: str
    second: str

    def __post_init__(self) -> None:
        normalise(self, first=text, second=text)
        check_template(self, self.first, self.second)

    def edits(self, arrays: Arrays, /) -> Iterator[Edit]:
        """Yield one step for each array that is tied to another place."""
        for path, groups in captured(self, self.first, arrays).items():
            other = fill_in(self.second, groups)
            if other in arrays and other != path:
                yield self._both(path, other, arrays)
            else:
                yield Edit((path,), {path: arrays[path], other: arrays[path]})

    def _both(self, path: str, other: str, arrays: Arrays) -> Edit:
        a, b = arrays[path], arrays[other]
        names = f"{paths.show(path)} and {paths.show(other)}"
        advice = f"leave out the wrong one first, with drop({other!r})"
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise self.wrong(other, b, f"{describe(a)}, as at {paths.show(path)}", advice)
        if a is not b:
            message = f"{self}: {names}: expected equal numbers, found different ones; {advice}"
            a = lazy(agreed(node(a), node(b), message))
        return Edit((path, other), {path: a, other: a})


rename = Rename
drop = Drop
tie = Tie
