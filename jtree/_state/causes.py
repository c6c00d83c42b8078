"""Causes that many mismatches share, each with its remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from .._text import plural
from .._tree import paths as _path
from .._tree.leaves import isarray
from .renames import find_renaming


class Cause(NamedTuple):
    """What several mismatches have in common.

    Attributes:
      text: the cause and its remedy, as a sentence.
      paths: the paths whose mismatches it explains.
    """

    text: str
    paths: frozenset[str]


def find_causes(expected: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[Cause, ...]:
    """Return the causes that several mismatches of two flat trees share.

    Args:
      expected: the leaves of the destination by path.
      found: those of the source.

    Example:
      >>> a, b = {"w": np.ones(2), "b": np.ones(3)}, {"net/w": np.ones(2), "net/b": np.ones(3)}
      >>> print(find_causes(a, b)[0].text)
      the source has the prefix 'net' in its paths, unlike the destination; rename them with \
jtree.migrate.apply([jtree.migrate.rename('net/**', '**')], source)
    """
    shapes = [
        {path: tuple(x.shape) for path, x in leaves.items() if isarray(x)}
        for leaves in (expected, found)
    ]
    return tuple(_find(*shapes))


Shapes = Mapping[str, tuple[int, ...]]


def _find(expected: Shapes, found: Shapes) -> Iterator[Cause]:
    framework = _other_framework(expected, found)
    if framework is not None:
        yield framework
        return
    renamed = find_renaming(expected, found) or find_renaming(_ranks(expected), _ranks(found))
    rules = []
    if renamed is not None:
        renaming, pairs = renamed
        rules.append(renaming.rule)
        found = {renaming(path): shape for path, shape in found.items()}
        yield Cause(
            f"{renaming.text}; rename them with jtree.migrate.apply([{renaming.rule}], source)",
            frozenset({*pairs, *pairs.values()}),
        )
    yield from _transposed(expected, found, rules)


def _ranks(shapes: Shapes) -> Mapping[str, int]:
    return {path: len(shape) for path, shape in shapes.items()}


_TORCH = {"running_mean", "running_var", "num_batches_tracked"}
_FLAX = {"kernel", "embedding", "scale"}


def _other_framework(expected: Shapes, found: Shapes) -> Cause | None:
    """Return the cause of names that frameworks give to the arrays of their layers, or None."""
    missing = {path for path in expected.keys() - found.keys() if _name(path) in _FLAX}
    unexpected = {path for path in found.keys() - expected.keys() if _name(path) == "weight"}
    layout = "torch"
    if not missing or not unexpected:
        missing = {path for path in expected.keys() - found.keys() if _name(path) == "weight"}
        unexpected = {path for path in found.keys() - expected.keys() if _name(path) in _FLAX}
        layout = "linen"
    if not missing or not unexpected:
        return None
    names = [", ".join(sorted({_name(x) for x in side})) for side in (unexpected, missing)]
    text = (
        f"the source calls {names[0]} what the destination calls {names[1]}, so it comes from "
        "another framework, which orders axes differently; convert it with "
        f"jtree.migrate.convert(model, source, layout={layout!r})"
    )
    return Cause(text, frozenset((expected.keys() | found.keys()) - (expected.keys() & found)))


def _name(path: str) -> str:
    return path.replace(".", "/").rpartition("/")[2]


def _transposed(expected: Shapes, found: Shapes, rules: list[str]) -> Iterator[Cause]:
    """Yield the causes of shapes that one order of axes makes equal."""
    both = sorted(expected.keys() & found.keys())
    groups: dict[tuple[str, int], list[str]] = {}
    for path in both:
        groups.setdefault((_name(path), len(found[path])), []).append(path)
    for (name, rank), group in groups.items():
        wrong = [path for path in group if expected[path] != found[path]]
        if len(wrong) < 2:
            continue
        for axes in _orders(rank):
            if all(tuple(found[x][i] for i in axes) == expected[x] for x in group):
                rule = _transpose(name, rank, axes, group, found)
                steps = ", ".join([*rules, rule])
                yield Cause(
                    f"the source stores {plural(len(wrong), 'array')} called {name!r} with axes "
                    f"in another order; transpose all of them with "
                    f"jtree.migrate.apply([{steps}], source)",
                    frozenset(wrong),
                )
                break


def _orders(rank: int) -> list[tuple[int, ...]]:
    """Return the orders of axes that frameworks use for kernels."""
    if rank < 2:
        return []
    front = tuple(range(rank - 2))
    last = (rank - 1, rank - 2)
    orders = [tuple(reversed(range(rank))), (*(i + 2 for i in front), 1, 0), (*last, *front)]
    return list(dict.fromkeys(orders))


def _transpose(name: str, rank: int, axes: tuple[int, ...], group: list[str], found: Shapes) -> str:
    globs: Any = f"**/{name}"
    matches = [path for path in found if _path.matches(globs, path)]
    if matches != group and sorted(matches) != group:
        globs = group
    order = "" if rank == 2 else f", axes={axes}"
    return f"jtree.migrate.transpose({globs!r}{order})"


def count_kinds(kinds: Collection[str]) -> str:
    """Return how many mismatches there are of each kind, as text.

    >>> count_kinds(["missing", "shape", "missing"])
    '2 missing, 1 shape'
    """
    return ", ".join(f"{n} {kind}" for kind, n in Counter(kinds).items())
