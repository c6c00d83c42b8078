"""Causes that many problems of a conversion share: a wrong layout, or another name throughout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..._errors import JtreeError
from ..._state.mismatch import Cause, Mismatch
from ..._state.renames import Renaming, find_renaming
from .._layouts.registry import LAYOUTS
from .._rules.base import Rule
from .._rules.naming import rename
from .names import Rename


class Attempt(NamedTuple):
    """A conversion that was tried.

    Attributes:
      problems: its problems.
      missing: the names that the source lacks.
      unused: the names of the source that the model does not take.
      size: the number of arrays in the model.
    """

    problems: Sequence[Mismatch]
    missing: Sequence[str]
    unused: Sequence[str]
    size: int


# A function of a layout, of what is added to `rename`, and of rules that are added.
Try = Callable[[str, Mapping[str, str], Sequence[Rule]], Attempt]


def find_conversion_causes(
    attempt: Attempt, layout: str, renames: Rename, retry: Try
) -> tuple[Cause, ...]:
    """Return the cause that most problems of a conversion share, if a remedy for it works.

    Each remedy is tried, and named only if it leaves less than half of the problems.

    Args:
      attempt: the conversion that was refused.
      layout: the name of its layout.
      renames: its argument `rename`.
      retry: tries the conversion again, and raises errors of jtree.
    """
    wrong = 2 * len(attempt.missing) >= attempt.size
    layouts = [layout, *(x for x in LAYOUTS if x != layout)] if wrong else [layout]
    for name in layouts:
        for text, tried in _remedies(attempt, layout, name, renames, retry):
            rest = {x.path for x in tried.problems}
            explained = frozenset(x.path for x in attempt.problems) - rest
            if 2 * len(tried.problems) < len(attempt.problems):
                return (Cause(text, explained),)
    return ()


def _remedies(
    attempt: Attempt, layout: str, name: str, renames: Rename, retry: Try
) -> Iterator[tuple[str, Attempt]]:
    """Yield each remedy with a layout that may work, as text, and the conversion with it."""
    other = f"the source has the names of {name!r}, not of {layout!r}; pass layout={name!r}"
    if name != layout:
        try:
            attempt = retry(name, {}, ())
        except JtreeError:
            return
        yield other, attempt
    shapes = (dict.fromkeys(x, 0) for x in (attempt.missing, attempt.unused))
    match = find_renaming(*shapes)
    if match is None:
        return
    text, prefix, rules = _renaming(match[0], renames)
    try:
        tried = retry(name, prefix, rules)
    except JtreeError:
        return
    yield (f"{other}, and {text}" if name != layout else f"{match[0].text}; pass {text}"), tried


def _renaming(renaming: Renaming, renames: Rename) -> tuple[str, Mapping[str, str], Sequence[Rule]]:
    """Return a renaming as an argument of `convert`: its text, and `rename=` or `rules=`."""
    old, new = renaming.old.strip("./"), renaming.new.strip("./")
    if renaming.where == "start" and old and renames is None:
        return f"rename={ {old: new} }", {old: new}, ()
    rule: Any = rename(renaming.pattern, renaming.replacement, regex=True)
    if renaming.glob is not None:
        rule = rename(*renaming.glob)
    return f"rules=[{renaming.rule}]", {}, (rule,)
