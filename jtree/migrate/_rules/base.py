"""What every rule is: plain data, and the steps that it takes on arrays by their paths."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from itertools import count
from typing import Any, NamedTuple, TypeAlias, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from ..._errors import ArgumentError, ArgumentTypeError, RuleError, did_you_mean
from ..._text import plural
from ..._tree import paths as _path
from ..._tree.lazy import LazyArray
from ..._tree.leaves import describe
from .lazy_arrays import lazy, node
from .lazy_ops import Node

Arrays: TypeAlias = Mapping[str, LazyArray]


Class = TypeVar("Class", bound=type)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def public_rule(cls: Class) -> Class:
    """Make a class a frozen dataclass that has its public name, such as `jtree.migrate.rename`."""
    rule: Any = dataclass(frozen=True, repr=False)(cls)
    rule.__name__ = rule.__qualname__ = cls.__name__.lower()
    rule.__module__ = "jtree.migrate"
    named: Class = rule
    return named


class Edit(NamedTuple):
    """Part of what a rule does: the places that it takes away, and those that it gives."""

    removes: tuple[str, ...]
    adds: dict[str, LazyArray]
    note: str = ""


@dataclass(frozen=True, repr=False)
class Rule(ABC):
    """A rule of a migration.

    Attributes:
      optional: whether it may match nothing.
    """

    optional: bool = field(default=False, kw_only=True)

    @abstractmethod
    def edits(self, arrays: Arrays, /) -> Iterator[Edit]:
        """Yield what the rule does to these arrays; raise RuleError where it does not fit."""

    def nothing(self, glob: str, paths: Iterable[str]) -> RuleError:
        """Return the error for a pattern that matches nothing."""
        known = list(paths)
        near = did_you_mean(glob, known) or f"; the paths are {_path.shorten(known) or 'none'}"
        return RuleError(f"{self}: {glob!r} matches nothing, and optional=True is not said{near}")

    def wrong(self, path: str, x: Any, expected: str, advice: str) -> RuleError:
        """Return the error for an array that the rule does not fit."""
        return RuleError(
            f"{self}: {_path.show(path)}: expected {expected}, found {describe(x)}; {advice}"
        )

    def __repr__(self) -> str:
        found = sorted(fields(self), key=lambda f: f.name == "optional")
        given = [repr(getattr(self, f.name)) for f in found if f.default is MISSING]
        options = [(f.name, getattr(self, f.name), f.default) for f in found]
        given += [f"{name}={x!r}" for name, x, usual in options if usual not in (MISSING, x)]
        return f"{type(self).__name__}({', '.join(given)})"


@dataclass(frozen=True, repr=False)
class EachRule(Rule):
    """A rule that changes arrays where they are, one by one."""

    where: str | tuple[str, ...]

    def __post_init__(self) -> None:
        _set(self, "where", texts(self, "where", self.where))

    @abstractmethod
    def change(self, path: str, x: Node, /) -> Node | None:
        """Return the new array, or None where it stays as it is."""

    def edits(self, arrays: Arrays, /) -> Iterator[Edit]:
        """Yield one step for each array that is chosen."""
        globs = (self.where,) if isinstance(self.where, str) else self.where
        for path in chosen(self, globs, arrays):
            check_numbers(self, path, arrays[path])
            new = self.change(path, node(arrays[path]))
            yield Edit((path,), {path: arrays[path] if new is None else lazy(new)})


def chosen(rule: Rule, globs: Iterable[str], arrays: Arrays) -> list[str]:
    """Return the paths that some globs match; each must match one, unless the rule is optional."""
    found: dict[str, None] = {}
    for glob in globs:
        matched = [path for path in arrays if _path.matches(glob, path)]
        if not matched and not rule.optional:
            raise rule.nothing(glob, arrays)
        found |= dict.fromkeys(matched)
    return list(found)


def captured(rule: Rule, glob: str, arrays: Arrays) -> dict[str, tuple[str, ...]]:
    """Return what the wildcards of a glob stand for in each path that it matches."""
    matched = ((path, _path.captures(glob, path)) for path in arrays)
    found = {path: groups for path, groups in matched if groups is not None}
    if not found and not rule.optional:
        raise rule.nothing(glob, arrays)
    return found


_WILDCARD = re.compile(r"\*\*|\*|\{(\d+)\}")


def fill_in(template: str, groups: Sequence[str]) -> str:
    """Return a path with captured text in it: `*` takes the next one, `{2}` the second.

    >>> fill_in("layers/*/**", ("0", "attention/weight")), fill_in("{2}/{1}", ("a", "b"))
    ('layers/0/attention/weight', 'b/a')
    """
    following = count()

    def text(found: re.Match[str]) -> str:
        return groups[int(found[1]) - 1 if found[1] else next(following)]

    steps = [(step, _WILDCARD.sub(text, step)) for step in template.split(_path.SEPARATOR)]
    return _path.join([new for step, new in steps if new or not _WILDCARD.fullmatch(step)])


def check_template(rule: Rule, glob: str, template: str) -> None:
    """Refuse a path to fill in that asks for more than a glob captures."""
    has, marks = _path.wildcards(glob), _WILDCARD.findall(template)
    numbers = [int(n) for n in marks if n]
    if numbers and len(numbers) != len(marks):
        raise ArgumentError(f"{rule}: use either '*' or numbers such as '{{1}}' in {template!r}")
    asked = max(numbers, default=len(marks))
    if asked > has or 0 in numbers:
        raise ArgumentError(
            f"{rule}: {glob!r} has {plural(has, 'wildcard')}, which cannot fill "
            f"{template!r}; each '*' takes the next one, {{1}} the first"
        )


def check_numbers(rule: Rule, path: str, x: LazyArray) -> None:
    """Refuse arrays that have no numbers, such as PRNG keys."""
    if jnp.issubdtype(x.dtype, jax.dtypes.extended):
        raise rule.wrong(path, x, "numbers", "PRNG keys can be renamed, dropped and tied only")


def check_alike(rule: Rule, paths: list[str], arrays: Arrays, axis: int | None = None) -> None:
    """Refuse arrays that differ in dtype, or in shape, which along an axis they may."""
    first = arrays[paths[0]]
    for path in paths:
        x = arrays[path]
        check_numbers(rule, path, x)
        same = len(x.shape) == len(first.shape) and all(
            a == b or n == axis for n, (a, b) in enumerate(zip(x.shape, first.shape, strict=True))
        )
        if not same or x.dtype != first.dtype:
            but = "" if axis is None else f" but for axis {axis}"
            expected = f"{describe(first)}{but}, as at {_path.show(paths[0])}"
            raise rule.wrong(path, x, expected, "reshape or cast it first, or choose fewer arrays")


def axis_of(rule: Rule, path: str, x: Node, axis: int, ndim: int | None = None) -> int:
    """Return an axis counted from the front, and refuse one that is not there."""
    axes = len(x.shape) if ndim is None else ndim
    if not -axes <= axis < axes:
        raise rule.wrong(path, x, f"an axis {axis}", f"its axes are {_range(axes)}")
    return axis % axes


def _range(axes: int) -> str:
    return f"0 to {axes - 1}" if axes > 1 else "0 only" if axes else "none"


def _set(rule: Rule, name: str, value: Any) -> None:
    object.__setattr__(rule, name, value)


def text(rule: Rule, name: str, x: Any) -> str:
    """Return an option that is text, or refuse it."""
    if not isinstance(x, str):
        raise _expected(rule, name, "text", x)
    return x


def texts(rule: Rule, name: str, x: Any) -> str | tuple[str, ...]:
    """Return an option that is text or several, or refuse it; the globs in it are checked."""
    found = (x,) if isinstance(x, str) else tuple(x) if isinstance(x, list | tuple) else ()
    if not found or not all(isinstance(item, str) for item in found):
        raise _expected(rule, name, "a glob or several", x)
    for glob in found:
        _path.wildcards(glob)
    return x if isinstance(x, str) else found


def integer(rule: Rule, name: str, x: Any) -> int:
    """Return an option that is an integer, or refuse it."""
    if isinstance(x, bool) or not isinstance(x, int):
        raise _expected(rule, name, "an integer", x)
    return x


def integers(rule: Rule, name: str, x: Any) -> tuple[int, ...]:
    """Return an option that is a sequence of integers, or refuse it."""
    if not isinstance(x, list | tuple) or any(type(n) is not int for n in x):
        raise _expected(rule, name, "integers", x)
    return tuple(x)


def _expected(rule: Rule, name: str, what: str, x: Any) -> ArgumentTypeError:
    kind = type(rule).__name__
    return ArgumentTypeError(f"{kind}: {name}: expected {what}, found {x!r}")


def normalise(rule: Rule, **checks: Callable[[Rule, str, Any], Any]) -> None:
    """Check the fields of a new rule, and keep them in one form: tuples for lists."""
    for name, check in checks.items():
        _set(rule, name, check(rule, name, getattr(rule, name)))
