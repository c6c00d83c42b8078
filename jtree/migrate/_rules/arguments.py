"""Checks of the arguments of rules, and paths with wildcards to fill in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from ..._errors import ArgumentError, ArgumentTypeError
from ..._text import plural
from ..._tree import paths

_WILDCARD = re.compile(r"\*\*|\*|\{(\d+)\}")


def check_fields(rule: object, **checks: Callable[[object, str, Any], Any]) -> None:
    """Check the fields of a new rule, and store what the checks return: tuples for lists."""
    for name, check in checks.items():
        object.__setattr__(rule, name, check(rule, name, getattr(rule, name)))


def check_text(rule: object, name: str, x: Any) -> str:
    """Return an argument that is text, or refuse it."""
    if not isinstance(x, str):
        raise _unexpected(rule, name, "a str", x)
    return x


def check_globs(rule: object, name: str, x: Any) -> str | tuple[str, ...]:
    """Return an argument that is a glob or several, or refuse it."""
    globs = (x,) if isinstance(x, str) else tuple(x) if isinstance(x, list | tuple) else ()
    if not globs or not all(isinstance(glob, str) for glob in globs):
        raise _unexpected(rule, name, "a glob or a non-empty sequence of globs", x)
    for glob in globs:
        paths.count_wildcards(glob)
    return x if isinstance(x, str) else globs


def check_paths(rule: object, name: str, x: Any) -> tuple[str, ...]:
    """Return an argument that is a path or several, as a tuple, or refuse it."""
    globs = check_globs(rule, name, x)
    return (globs,) if isinstance(globs, str) else globs


def check_integer(rule: object, name: str, x: Any) -> int:
    """Return an argument that is an integer, or refuse it."""
    if isinstance(x, bool) or not isinstance(x, int):
        raise _unexpected(rule, name, "an integer", x)
    return x


def check_integers(rule: object, name: str, x: Any) -> tuple[int, ...]:
    """Return an argument that is a sequence of integers, or refuse it."""
    if not isinstance(x, list | tuple) or any(type(n) is not int for n in x):
        raise _unexpected(rule, name, "integers", x)
    return tuple(x)


def check_number(rule: object, name: str, x: Any) -> float:
    """Return an argument that is a real number, or refuse it."""
    if isinstance(x, bool) or not isinstance(x, int | float):
        raise _unexpected(rule, name, "a number", x)
    return x


def check_template(rule: object, glob: str, template: str) -> None:
    """Refuse a path to fill in that uses wildcards which a glob lacks."""
    available, marks = paths.count_wildcards(glob), _WILDCARD.findall(template)
    indices = [int(index) for index in marks if index]
    if indices and len(indices) != len(marks):
        raise ArgumentError(
            f"{rule}: use either '*' or indices such as '{{1}}' in {template!r}, not both"
        )
    used = max(indices, default=len(marks))
    if used > available or 0 in indices:
        raise ArgumentError(
            f"{rule}: {glob!r} has {plural(available, 'wildcard')}, which cannot fill "
            f"{template!r}; each '*' takes the next one, and {{1}} takes the first"
        )


def fill_template(template: str, captures: Sequence[str]) -> str:
    """Return a path with captured text filled in: `*` takes the next one, `{2}` the second.

    >>> fill_template("layers/*/**", ("0", "attention/weight"))
    'layers/0/attention/weight'
    >>> fill_template("{2}/{1}", ("a", "b"))
    'b/a'
    """
    following = count()

    def text(match: re.Match[str]) -> str:
        return captures[int(match[1]) - 1 if match[1] else next(following)]

    keys = [(key, _WILDCARD.sub(text, key)) for key in template.split(paths.SEPARATOR)]
    return paths.join([new for key, new in keys if new or not _WILDCARD.fullmatch(key)])


def _unexpected(rule: object, name: str, expected: str, x: Any) -> ArgumentTypeError:
    return ArgumentTypeError(f"{type(rule).__name__}: {name}: expected {expected}, found {x!r}")
