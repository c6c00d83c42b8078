"""Paths such as `layers/0/weight`: print, match and select them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from typing import Any, TypeAlias

from jax.tree_util import KeyEntry, keystr

from .._errors import ArgumentError, ArgumentTypeError, PathError, did_you_mean
from .._text import printable

Where: TypeAlias = "str | Iterable[str] | Callable[[str, Any], bool] | None"

SEPARATOR = "/"


def segment(key: KeyEntry) -> str:
    """Return one key of a path as text: the name of a field, a dict key or an index."""
    return keystr((key,), simple=True, separator=SEPARATOR)


def join(segments: Sequence[str]) -> str:
    """Return the path with these segments.

    >>> join(("layers", "0", "weight"))
    'layers/0/weight'
    """
    return SEPARATOR.join(segments)


def ancestors(path: str) -> list[str]:
    """Return the paths of the nodes that contain a path, the root first.

    >>> ancestors("layers/0/weight")
    ['', 'layers', 'layers/0']
    """
    segments = path.split(SEPARATOR)
    return [join(segments[:n]) for n in range(len(segments))]


def show(path: str) -> str:
    r"""Return a path for use in a message, where the root needs a name.

    >>> show(""), show("\x1b[31mred")
    ('(root)', '\\x1b[31mred')
    """
    return printable(path) or "(root)"


def shorten(paths: Sequence[str], most: int = 5) -> str:
    """Return paths as text, leaving out all but the first ones of a long list.

    >>> shorten(["a", "b", "c", "d"], most=3)
    'a, b, ... (4 in all)'
    """
    if len(paths) <= most:
        return ", ".join(show(path) for path in paths)
    return ", ".join(show(path) for path in paths[: most - 1]) + f", ... ({len(paths)} in all)"


def matches(glob: str, path: str) -> bool:
    """Return whether a glob matches a path, or is equal to it.

    `*` and `?` match within one segment, `[ab]` matches one of several characters, and `**` as a
    whole segment matches any number of segments, including none.

    >>> matches("layers/*/weight", "layers/0/weight"), matches("**/weight", "weight")
    (True, True)
    >>> matches("layers/*", "layers/0/weight"), matches("layers/**", "layers/0/weight")
    (False, True)
    """
    return glob == path or _compile(glob).fullmatch(path) is not None


def captures(glob: str, path: str, *, numbers: bool = False) -> tuple[str, ...] | None:
    """Return the text that each wildcard of a glob matches, or None if the glob does not match.

    With `numbers`, `#` is a wildcard for a number.

    >>> captures("layers/*/**", "layers/0/attention/weight"), captures("a/*", "b")
    (('0', 'attention/weight'), None)
    """
    match = _compile(glob, numbers=numbers).fullmatch(path)
    if match is None:
        return () if glob == path else None
    return tuple(x.strip(SEPARATOR) for x in match.groups())


def count_wildcards(glob: str) -> int:
    """Return the number of wildcards in a glob; raise an error if it is not valid.

    >>> count_wildcards("layers/*/**")
    2
    """
    return _compile(glob).groups


def select(where: Where, leaves: Sequence[tuple[str, Any]]) -> list[bool]:
    """Return whether `where` selects each (path, leaf) pair; a glob must select at least one."""
    if where is None:
        return [True] * len(leaves)
    if callable(where):
        flags = [bool(where(path, leaf)) for path, leaf in leaves]
        if not any(flags):
            raise PathError("where: the function selects no parameter")
        return flags
    globs = _check_globs(where)
    paths = [path for path, _ in leaves]
    for glob in globs:
        if not any(matches(glob, path) for path in paths):
            raise PathError(no_match(glob, paths))
    return [any(matches(glob, path) for glob in globs) for path in paths]


def no_match(glob: str, paths: Sequence[str]) -> str:
    """Return the message for a glob that matches none of these paths."""
    if not paths:
        return f"{glob!r} matches no parameter: the model has none"
    near = near_glob(glob, paths)
    if near is not None:
        return f"{glob!r} matches no parameter; did you mean {near!r}?"
    remedy = did_you_mean(glob, paths) or f"; the paths are {shorten(paths)}"
    return f"{glob!r} matches no parameter{remedy}"


def no_array(path: object, paths: Collection[str]) -> PathError:
    """Return the error for a path at which a mapping has no array."""
    near = did_you_mean(path, paths) if isinstance(path, str) else ""
    return PathError(f"{path!r} is not the path of an array{near}")


def near_glob(glob: str, paths: Collection[str]) -> str | None:
    """Return a glob that matches some paths and differs by a usual mistake, or None.

    >>> near_glob("encoder/**", ["encoder.0.weight"]), near_glob("weight", ["net/weight"])
    ('encoder.*', '**/weight')
    """
    if (
        re.search(r"[\[\\^$(|+]", glob) or not glob
    ):  # a class of characters, or a regular expression
        return None
    dotted = glob.replace("**", "*").replace(SEPARATOR, ".")
    slashed = re.sub(r"(?<![*])[*]$", "**", glob.replace(".", SEPARATOR))
    node = slashed.removesuffix(SEPARATOR).removesuffix("/**")
    near = (f"{node}/**", slashed, dotted, f"{dotted}.*", f"**/{slashed}", f"*.{dotted}")
    return next((x for x in near if any(matches(x, path) for path in paths)), None)


def _check_globs(where: object) -> list[str]:
    """Return the globs of `where` as a list."""
    if isinstance(where, str):
        return [where]
    if not isinstance(where, Iterable) or getattr(where, "ndim", 1) == 0:
        raise ArgumentTypeError(
            "where: expected a glob such as 'layers/0/**', several globs, or a function of "
            f"(path, leaf), found {'an array' if hasattr(where, 'ndim') else type(where).__name__}"
        )
    globs = list(where)
    if not globs:
        raise PathError("where: expected at least one glob, found none; None selects everything")
    for glob in globs:
        if not isinstance(glob, str):
            raise ArgumentTypeError(f"where: expected globs as str, found {type(glob).__name__}")
    return globs


@cache
def _compile(glob: str, *, numbers: bool = False) -> re.Pattern[str]:
    """Return a regular expression in which each wildcard of the glob is a group."""
    segments = glob.split(SEPARATOR)
    segments = [x for i, x in enumerate(segments) if (x, *segments[:i][-1:]) != ("**", "**")]
    pattern, separator = "", ""
    for i, part in enumerate(segments):
        if part == "**" and not pattern:
            pattern = "((?s:.*))" if len(segments) == 1 else "((?:[^/]*/)*)"
        elif part == "**":
            pattern += "((?:/[^/]*)*)"
        else:
            pattern += separator + _translate(part, glob, numbers)
        separator = "" if part == "**" and i == 0 else SEPARATOR
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ArgumentError(f"{glob!r} is not a glob: {error}") from error


def _translate(part: str, glob: str, numbers: bool) -> str:
    """Return one segment of a glob as a regular expression."""
    wildcards = {"*": "([^/]*)", "?": "([^/])"} | ({"#": "([0-9]+)"} if numbers else {})
    pattern, rest = "", part
    while rest:
        char, rest = rest[0], rest[1:]
        if char == "[":
            inside, bracket, rest = rest.partition("]")
            if not bracket or not inside.strip("!"):
                raise ArgumentError(f"{glob!r} is not a glob: '[' without ']'")
            chars = re.escape(inside.removeprefix("!")).replace(r"\-", "-")
            pattern += f"([{'^' if inside.startswith('!') else ''}{chars}])"
        else:
            pattern += wildcards.get(char) or re.escape(char)
    return pattern
