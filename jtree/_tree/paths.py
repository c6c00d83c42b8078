"""Writing and matching paths: where a place is in a tree, as text such as `layers/0/weight`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, TypeAlias

from jax.tree_util import KeyEntry, keystr

from .._errors import ArgumentError, ArgumentTypeError, PathError, did_you_mean

Where: TypeAlias = "str | Iterable[str] | Callable[[str, Any], bool] | None"

SEPARATOR = "/"


def text(key: KeyEntry) -> str:
    """Return one step of a path as text: a field's name, a key, or an index."""
    return keystr((key,), simple=True, separator=SEPARATOR)


def join(parts: Sequence[str]) -> str:
    """Return the path made of these steps.

    >>> join(("layers", "0", "weight"))
    'layers/0/weight'
    """
    return SEPARATOR.join(parts)


def above(path: str) -> list[str]:
    """Return the paths of the branches that a place is in, the root first.

    >>> above("layers/0/weight")
    ['', 'layers', 'layers/0']
    """
    steps = path.split(SEPARATOR)
    return [join(steps[:n]) for n in range(len(steps))]


def show(path: str) -> str:
    """Return a path as it is shown in a message, where the root has a name too."""
    return path or "(root)"


def matches(glob: str, path: str) -> bool:
    """Tell whether a path is this glob, or is matched by it.

    `*` and `?` stay within one step, `[ab]` is one of some characters, and `**` as a whole step
    stands for any number of steps, none included.

    >>> matches("layers/*/weight", "layers/0/weight"), matches("**/weight", "weight")
    (True, True)
    >>> matches("layers/*", "layers/0/weight"), matches("layers/**", "layers/0/weight")
    (False, True)
    """
    return glob == path or _compile(glob).fullmatch(path) is not None


def captures(glob: str, path: str, *, numbers: bool = False) -> tuple[str, ...] | None:
    """Return what each wildcard of a glob stands for in a path, or None where it does not match.

    With `numbers`, `#` is a wildcard for a number.

    >>> captures("layers/*/**", "layers/0/attention/weight"), captures("a/*", "b")
    (('0', 'attention/weight'), None)
    """
    found = _compile(glob, numbers=numbers).fullmatch(path)
    if found is None:
        return () if glob == path else None
    return tuple(x.strip(SEPARATOR) for x in found.groups())


def wildcards(glob: str) -> int:
    """Return how many wildcards a glob has, and check that it is one.

    >>> wildcards("layers/*/**")
    2
    """
    return _compile(glob).groups


def select(where: Where, places: Sequence[tuple[str, Any]]) -> list[bool]:
    """Tell of each (path, leaf) whether `where` selects it; a glob must select some."""
    if where is None:
        return [True] * len(places)
    if callable(where):
        chosen = [bool(where(path, leaf)) for path, leaf in places]
        if not any(chosen):
            raise PathError("where: the function selects no parameter")
        return chosen
    globs = _globs(where)
    paths = [path for path, _ in places]
    for glob in globs:
        if not any(matches(glob, path) for path in paths):
            raise PathError(nothing_matches(glob, paths))
    return [any(matches(glob, path) for glob in globs) for path in paths]


def nothing_matches(glob: str, paths: Sequence[str]) -> str:
    """Return the message for a glob that matches none of these paths."""
    if not paths:
        return f"{glob!r} matches no parameter: the model has none"
    wider = [f"{glob.removesuffix('/').removesuffix('/*')}/**"]
    found = [pattern for pattern in wider if any(matches(pattern, path) for path in paths)]
    near = f"; did you mean {found[0]!r}?" if found else did_you_mean(glob, paths)
    near = near or f"; the paths are {shorten(paths)}"
    return f"{glob!r} matches no parameter{near}"


def shorten(paths: Sequence[str], most: int = 5) -> str:
    """Return a list of paths as text, its middle left out when it is long.

    >>> shorten(["a", "b", "c", "d"], most=3)
    'a, b, ... (4 in all)'
    """
    if len(paths) <= most:
        return ", ".join(show(path) for path in paths)
    return ", ".join(show(path) for path in paths[: most - 1]) + f", ... ({len(paths)} in all)"


def _globs(where: object) -> list[str]:
    found = [where] if isinstance(where, str) else where
    if not isinstance(found, Iterable):
        raise ArgumentTypeError(
            "where: expected a glob such as 'layers/0/**', several globs, or a function of "
            f"(path, leaf), found {type(where).__name__}"
        )
    globs = list(found)
    if not globs:
        raise PathError("where: expected a glob or more, found none; None selects every parameter")
    for glob in globs:
        if not isinstance(glob, str):
            raise ArgumentTypeError(
                f"where: expected globs as text, found {type(glob).__name__} among them"
            )
    return globs


@cache
def _compile(glob: str, *, numbers: bool = False) -> re.Pattern[str]:
    """Translate a glob, step by step: each step brings the separator that stands before it.

    Each wildcard is a group of the regular expression.
    """
    given = glob.split(SEPARATOR)
    steps = [step for i, step in enumerate(given) if (step, *given[:i][-1:]) != ("**", "**")]
    out, separator = "", ""
    for i, step in enumerate(steps):
        if step == "**" and not out:
            out = "((?s:.*))" if len(steps) == 1 else "((?:[^/]*/)*)"
        elif step == "**":
            out += "((?:/[^/]*)*)"
        else:
            out += separator + _step(step, glob, numbers)
        separator = "" if step == "**" and i == 0 else SEPARATOR
    try:
        return re.compile(out)
    except re.error as error:
        raise ArgumentError(f"{glob!r} is no glob: {error}") from error


def _step(step: str, glob: str, numbers: bool) -> str:
    """Translate one step of a glob into a regular expression."""
    marks = {"*": "([^/]*)", "?": "([^/])"} | ({"#": "([0-9]+)"} if numbers else {})
    out, rest = "", step
    while rest:
        char, rest = rest[0], rest[1:]
        if char == "[":
            inside, bracket, rest = rest.partition("]")
            if not bracket or not inside.strip("!"):
                raise ArgumentError(f"{glob!r} is no glob: '[' without its ']'")
            chars = re.escape(inside.removeprefix("!")).replace(r"\-", "-")
            out += f"([{'^' if inside.startswith('!') else ''}{chars}])"
        else:
            out += marks.get(char) or re.escape(char)
    return out
