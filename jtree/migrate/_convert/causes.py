"""Causes that many problems of a conversion share: a wrong layout, or another name throughout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..._errors import JtreeError
from ..._state.mismatch import Cause, Mismatch
from ..._state.renames import Renamed, Renaming, describe_renamings, find_renamings
from .._layouts.registry import LAYOUTS
from .._rules.base import Rule
from .._rules.naming import rename
from .names import Rename


class Attempt(NamedTuple):
    """A conversion that was tried.

    Attributes:
      problems: its problems.
      missing: the names that the source lacks, with the lengths of the axes of each array.
      unused: the same of the names of the source that the model does not take.
      size: the number of arrays in the model.
    """

    problems: Sequence[Mismatch]
    missing: Mapping[str, tuple[int, ...]]
    unused: Mapping[str, tuple[int, ...]]
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
    sides = attempt.missing, attempt.unused
    renamings = find_renamings(*sides) or find_renamings(*(dict.fromkeys(x, ()) for x in sides))
    if not renamings:
        return
    text, prefixes, rules = _arguments(renamings, renames)
    try:
        tried = retry(name, prefixes, rules)
    except JtreeError:
        return
    cause = describe_renamings(renamings)
    yield (f"{other}, and {text}" if name != layout else f"{cause}; pass {text}"), tried


def _arguments(
    renamings: list[Renamed], renames: Rename
) -> tuple[str, Mapping[str, str], Sequence[Rule]]:
    """Return renamings as an argument of `convert`: its text, and `rename=` or `rules=`."""
    each = [x.renaming for x in renamings]
    prefixes = {x.old.strip("./"): x.new.strip("./") for x in each}
    if renames is None and all(x.where == "start" and x.old for x in each):
        return f"rename={prefixes}", prefixes, ()
    return f"rules=[{', '.join(x.rule for x in each)}]", {}, tuple(map(_rule, each))


def _rule(renaming: Renaming) -> Rule:
    if renaming.glob is not None:
        return rename(*renaming.glob)
    return rename(renaming.pattern, renaming.replacement, regex=True)
