"""Names of layers and arrays, step by step: `layers.0.weight` and `layers_0/kernel` alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeAlias

from ..._errors import ArgumentError, ArgumentTypeError, PathError, did_you_mean
from .._layouts.spec import FrameworkLayout, KeyPath

Rename: TypeAlias = Mapping[str, str] | Callable[[str], str] | None

_NUMBERED = re.compile(r"(.*?[A-Za-z0-9])((?:_(?:\d+|\*))+)")


def key_path(name: str, layout: FrameworkLayout) -> KeyPath:
    """Return a name as steps: numbers at the end of a name are steps, as positions in a list are.

    >>> from jtree.migrate._layouts.registry import TORCH, LINEN
    >>> key_path("blocks.10.fc.weight", TORCH), key_path("blocks_10/fc", LINEN)
    (('blocks', '10', 'fc', 'weight'), ('blocks', '10', 'fc'))
    """
    text = name.replace(layout.separator, "/")
    given = tuple(step for step in text.split("/") if step not in ("", "~"))
    return tuple(found for step in layout.split(given) for found in _unnumbered(step))


def _unnumbered(step: str) -> KeyPath:
    found = _NUMBERED.fullmatch(step)
    return (found[1], *found[2][1:].split("_")) if found else (step,)


def renamed(names: Iterable[str], layout: FrameworkLayout, rename: Rename) -> dict[str, KeyPath]:
    """Return each name of a source as steps, by the names that the destination has for layers."""
    known = list(names)
    if rename is None:
        return {name: key_path(name, layout) for name in known}
    if not isinstance(rename, Mapping):
        return {name: key_path(_call(rename, name), layout) for name in known}
    given = {name: key_path(name, layout) for name in known}
    changes = {
        old: (_known(old, layout, given.values()), key_path(new.replace(".", "/"), layout))
        for old, new in rename.items()
    }
    ordered = sorted(changes, key=lambda old: -len(changes[old][0]))
    out = {}
    for name, found in given.items():
        hit = next((old for old in ordered if _begins(found, changes[old][0])), None)
        out[name] = found if hit is None else _replace(found, *changes[hit])
    began = {old: (x for x in given.values() if _begins(x, changes[old][0])) for old in rename}
    unused = [old for old in rename if next(began[old], None) is None]
    if unused:
        layers = [name.rpartition(layout.separator)[0] for name in known]
        near = did_you_mean(unused[0], dict.fromkeys([*known, *layers]))
        raise PathError(f"rename: {unused[0]!r} matches nothing in the source{near}")
    return out


def _known(old: str, layout: FrameworkLayout, given: Collection[KeyPath]) -> KeyPath:
    """Return a name in the source as steps; dots between them are right in every layout."""
    exact = key_path(old, layout)
    if any(_begins(found, exact) for found in given):
        return exact
    return key_path(old.replace(".", "/"), layout)


def _call(rename: object, name: str) -> str:
    if not callable(rename):
        raise ArgumentTypeError(
            "rename: expected a dict from names in the source to names in the model, or a function "
            f"of a name, found {type(rename).__name__}"
        )
    new = rename(name)
    if not isinstance(new, str):
        raise ArgumentTypeError(
            f"rename: expected the function to return text for {name!r}, found {new!r}; to leave "
            "an array out use rules=[migrate.drop(...)]"
        )
    return new


def _begins(found: KeyPath, pattern: KeyPath) -> bool:
    if len(found) < len(pattern):
        return False
    return all(fnmatchcase(x, glob) for x, glob in zip(found, pattern, strict=False))


def _replace(found: KeyPath, old: KeyPath, new: KeyPath) -> KeyPath:
    captured = [x for x, glob in zip(found, old, strict=False) if "*" in glob]
    marks = [x for x in new if x == "*"]
    if len(marks) > len(captured) or "**" in (*old, *new):
        raise ArgumentError(
            f"rename: {'/'.join(new)!r} has {len(marks)} wildcards to fill, and {'/'.join(old)!r} "
            f"has {len(captured)}; '*' is one step, and '**' is not known here"
        )
    rest = iter(captured)
    return (*(next(rest) if x == "*" else x for x in new), *found[len(old) :])
