"""Find renamings that turn the paths of a source into those of a destination."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

_SAMPLES = 8  # missing paths for which counterparts are looked for
_COUNTERPARTS = 256  # unexpected paths that are compared with each of them
_CANDIDATES = 16  # renamings that are tried on all paths
_RENAMINGS = 4  # that are combined

# What frameworks call one array, stored in different orders of axes: never a mere renaming.
_LEAF_NAMES = frozenset({"weight", "kernel", "scale", "embedding", "embeddings", "gamma", "w"})


class Renaming(NamedTuple):
    """A renaming of paths, as the pattern and the replacement of `re.sub`.

    Attributes:
      pattern: the regular expression.
      replacement: what replaces each match.
      glob: the same as the two arguments of `jtree.migrate.rename`, where globs can say it.
      text: what distinguishes the source from the destination.
      old: the text that is removed from the source's paths.
      new: the text that replaces it.
      where: `"start"`, `"end"` or `"middle"`.
    """

    pattern: str
    replacement: str
    glob: tuple[str, str] | None
    text: str
    old: str
    new: str
    where: str

    def __call__(self, path: str) -> str:
        """Return the new path."""
        return re.sub(self.pattern, self.replacement, path)

    @property
    def rule(self) -> str:
        """The call of `jtree.migrate.rename` that applies the renaming."""
        if self.glob is not None:
            return "jtree.migrate.rename({!r}, {!r})".format(*self.glob)
        return f"jtree.migrate.rename({self.pattern!r}, {self.replacement!r}, regex=True)"


class Renamed(NamedTuple):
    """A renaming, and the paths that it makes match: from those of the source to the new ones."""

    renaming: Renaming
    pairs: dict[str, str]


def find_renamings(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[Renamed]:
    """Return the renamings that, one after another, make most of the missing paths match.

    Each has to match at least two missing paths and to lose no path that matches already; together
    they have to match half of the missing paths.

    Args:
      expected: the destination's paths, each with anything that equals its counterpart's, such as
        a shape.
      found: the same of the source.

    Example:
      >>> (first,) = find_renamings({"w": 1, "b": 2}, {"net/w": 1, "net/b": 2})
      >>> first.renaming.rule, first.pairs
      ("jtree.migrate.rename('net/**', '**')", {'net/b': 'b', 'net/w': 'w'})
    """
    renamings: list[Renamed] = []
    old_paths = {path: path for path in found}
    while len(renamings) < _RENAMINGS:
        match = _best_renaming(expected, {path: found[old] for path, old in old_paths.items()})
        if match is None:
            break
        renaming, pairs = match
        renamings.append(Renamed(renaming, {old_paths[old]: new for old, new in pairs.items()}))
        old_paths = {renaming(path): old for path, old in old_paths.items()}
    count = len(expected.keys() - found.keys())
    matches = sum(len(x.pairs) for x in renamings)
    return renamings if 2 * matches >= count else []


def describe_renamings(renamings: list[Renamed]) -> str:
    """Return how the source's paths differ from those of the destination, as one sentence."""
    first, *others = (x.renaming.text for x in renamings)
    return ", and ".join([first, *(x.removeprefix("the source ") for x in others)])


def _best_renaming(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Renamed | None:
    """Return the renaming that makes the most missing paths match, two at least."""
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    if len(missing) < 2 or len(unexpected) < 2:
        return None
    counts = Counter(_candidates(missing, unexpected, expected, found))
    dotted = any("." in path for path in unexpected)
    best: Renamed | None = None
    most = 1, 0
    for edit, _ in counts.most_common(_CANDIDATES):
        renaming = _renaming(edit, dotted)
        if renaming is None:
            continue
        pairs, others = _pairs(renaming, expected, found)
        if (len(pairs), -others) > most:
            best, most = Renamed(renaming, pairs), (len(pairs), -others)
    return best


class _Difference(NamedTuple):
    """A difference of two paths: the tokens before it, of the source, of the destination, after."""

    before: tuple[str, ...] | None
    old: tuple[str, ...]
    new: tuple[str, ...]
    after: int | None
    where: str


def _candidates(
    missing: list[str],
    unexpected: list[str],
    expected: Mapping[str, Any],
    found: Mapping[str, Any],
) -> Iterator[_Difference]:
    """Yield the differences of some missing paths from unexpected ones that may be the same."""
    ends: dict[tuple[int, str], list[str]] = {}
    for path in unexpected:
        tokens = _tokens(path)
        for end in {0, -1}:
            ends.setdefault((end, tokens[end]), []).append(path)
    step = max(1, len(missing) // _SAMPLES)
    for path in missing[::step][:_SAMPLES]:
        tokens = _tokens(path)
        near = dict.fromkeys(
            other
            for end in (-1, 0)
            for other in islice(ends.get((end, tokens[end]), ()), _COUNTERPARTS)
            if expected[path] == found[other]
        )
        for other in near:
            yield from set(_edits(_tokens(other), tokens))


def _tokens(path: str) -> list[str]:
    return re.split(r"([./])", path)


def _edits(old: list[str], new: list[str]) -> Iterator[_Difference]:
    """Yield the edits in one place that turn one path into the other."""
    most = min(len(old), len(new))
    start = next((n for n in range(most) if old[n] != new[n]), most)
    rest = most - start
    end = next((n for n in range(rest) if old[-1 - n] != new[-1 - n]), rest)
    a, b = tuple(old[start : len(old) - end]), tuple(new[start : len(new) - end])
    if not start or not end:
        yield _Difference(None, a, b, None, "end" if start else "start")
        if not start and not a:  # a level that only some of the source's paths lack
            yield _Difference(("#" if old[0].isdigit() else old[0],), a, b, None, "start")
    elif a:
        yield _Difference(None, a, b, None, "middle")
    else:  # a level that the source lacks, after the same keys or before as many
        yield _Difference(
            tuple("#" if x.isdigit() else x for x in old[:start]), a, b, None, "middle"
        )
        yield _Difference(None, a, b, end, "middle")


def _renaming(edit: _Difference, dotted: bool) -> Renaming | None:
    """Return a renaming for a difference, unless it concerns what frameworks call arrays."""
    old, new = "".join(edit.old), "".join(edit.new)
    if old and new and {old, new} <= _LEAF_NAMES:
        return None
    text = _describe(old.strip("./"), new.strip("./"), edit.where)
    plain = not dotted and "." not in new
    if edit.before is not None:
        inside = "".join(r"\d+" if x == "#" else re.escape(x) for x in edit.before)
        if edit.where == "start":
            return Renaming(f"^(?={inside}(?![^./]))", _escape(new), None, text, old, new, "start")
        glob = "".join("*" if x == "#" else x for x in edit.before)
        globs = (f"{glob}**", f"{glob}{new}**") if plain else None
        return Renaming(f"^({inside})", rf"\g<1>{_escape(new)}", globs, text, old, new, edit.where)
    if edit.after is not None:
        tail = r"[./]".join([r"[^./]+"] * (edit.after // 2 + 1))
        return Renaming(
            f"(?<![^./])({tail})$", rf"{_escape(new)}\g<1>", None, text, old, new, edit.where
        )
    first = {"start": "^", "end": "", "middle": "(?<![^./])"}[edit.where]
    last = "$" if edit.where == "end" else "" if old.endswith((".", "/")) else "(?![^./])"
    if edit.where == "start" and not old:
        last = ""
    pattern = f"{first}{re.escape(old)}{last}"
    globs = _globs(old, new, edit.where) if plain else None
    return Renaming(pattern, _escape(new), globs, text, old, new, edit.where)


def _escape(replacement: str) -> str:
    return replacement.replace("\\", r"\\")


def _globs(old: str, new: str, where: str) -> tuple[str, str]:
    """Return the arguments of `jtree.migrate.rename` for keys at the start, the end or between."""
    first, last = _EDGES[where]
    keys = (f"{x.strip('/')}/" if x else "" for x in (old, new))
    old, new = (f"{first}{x}{last}".removesuffix("/") for x in keys)
    return old, new


_EDGES = {"start": ("", "**"), "end": ("**/", ""), "middle": ("**/", "**")}


def _describe(old: str, new: str, where: str) -> str:
    """Return how the source's paths differ from those of the destination."""
    if old and new:
        return f"the source has {old!r} in its paths where the destination has {new!r}"
    name, verb = (old, "has") if old else (new, "lacks")
    part = {"start": "prefix", "end": "suffix", "middle": "level"}[where]
    return f"the source {verb} the {part} {name!r} in its paths, unlike the destination"


def _pairs(
    renaming: Renaming, expected: Mapping[str, Any], found: Mapping[str, Any]
) -> tuple[dict[str, str], int]:
    """Return the paths that a renaming makes match, and how many others it changes.

    There are none if it loses a match or a path.
    """
    pairs = {}
    taken: set[str] = set()
    others = 0
    for path in sorted(found):
        new = renaming(path)
        if new in taken or (path in expected and new != path):
            return {}, 0
        taken.add(new)
        if new != path and new in expected:
            pairs[path] = new
        elif new != path:
            others += 1
    return pairs, others
