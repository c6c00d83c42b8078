"""Causes that many mismatches share, each with its remedy."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Any

from .._text import plural
from .._tree import paths as _path
from .._tree.leaves import isarray
from .mismatch import Cause
from .renames import describe_renamings, find_renamings


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
    tensors = frozenset(path for path, x in found.items() if _istensor(x))
    if tensors:
        text = (
            "the source holds tensors of PyTorch, not arrays; convert it with "
            "jtree.migrate.convert(model, source), or pass {name: x.numpy() for name, x in "
            "source.items()}"
        )
        return (Cause(text, tensors),)
    shapes = [
        {path: tuple(x.shape) for path, x in leaves.items() if isarray(x)}
        for leaves in (expected, found)
    ]
    return tuple(_find(*shapes))


def _istensor(x: Any) -> bool:
    return type(x).__module__.partition(".")[0] == "torch" and hasattr(x, "numpy")


Shapes = Mapping[str, tuple[int, ...]]


def _find(expected: Shapes, found: Shapes) -> Iterator[Cause]:
    whole = _other_framework(expected, found) or _shared(expected, found)
    if whole is not None:
        yield whole
        return
    renamings = find_renamings(expected, found)
    renamings = renamings or find_renamings(_ranks(expected), _ranks(found))
    rules = [x.renaming.rule for x in renamings]
    shapes = found
    for renaming, _ in renamings:
        shapes = {renaming(path): shape for path, shape in shapes.items()}
    if renamings:
        yield Cause(
            f"{describe_renamings(renamings)}; rename them with "
            f"jtree.migrate.apply([{', '.join(rules)}], source)",
            frozenset(path for x in renamings for pair in x.pairs.items() for path in pair),
        )
    yield from _transposed(expected, shapes, rules)


def _ranks(shapes: Shapes) -> Mapping[str, int]:
    return {path: len(shape) for path, shape in shapes.items()}


_FLAX = ("kernel", "embedding", "scale")


def _other_framework(expected: Shapes, found: Shapes) -> Cause | None:
    """Return the cause of names that frameworks give to the arrays of their layers, or None."""
    sides = [sorted(a.keys() - b.keys()) for a, b in ((expected, found), (found, expected))]
    missing, unexpected = ({_name(path) for path in side} for side in sides)
    flax = {*_FLAX}
    if "weight" in unexpected and "weight" not in missing and missing & flax:
        names, layout = ("weight", _any_of(missing & flax)), "torch"
    elif "weight" in missing and "weight" not in unexpected and unexpected & flax:
        names, layout = (_any_of(unexpected & flax), "weight"), "linen"
    else:
        return None
    text = (
        f"the source has arrays called {names[0]} where the destination has {names[1]}, as if it "
        "came from another framework, which orders axes differently; convert it with "
        f"jtree.migrate.convert(model, source, layout={layout!r})"
    )
    return Cause(text, frozenset(chain(*sides)))


def _shared(expected: Shapes, found: Shapes) -> Cause | None:
    """Return the cause of an `eqx.nn.Shared` on one side and what it returns on the other."""
    missing, unexpected = expected.keys() - found.keys(), found.keys() - expected.keys()
    if _is_shared(missing, expected, found):
        text = (
            "the destination is an eqx.nn.Shared, and the source what it returns when it is "
            "called; load into that, and share again: "
            "eqx.nn.Shared(jtree.load(path, shared()), shared.where, shared.get)"
        )
    elif _is_shared(unexpected, found, expected):
        text = (
            "the source is an eqx.nn.Shared, and the destination what it returns when it is "
            "called; load into the eqx.nn.Shared, and call it: jtree.load(path, shared)()"
        )
    else:
        return None
    return Cause(text, frozenset(missing | unexpected))


def _is_shared(inner: Collection[str], shapes: Shapes, others: Shapes) -> bool:
    """Return whether paths have a level `pytree` more than those of other arrays."""
    outer = {path: _path.join([x for x in path.split("/") if x != "pytree"]) for path in inner}
    return bool(outer) and all(
        path != other and shapes[path] == others.get(other) for path, other in outer.items()
    )


def _any_of(names: Collection[str]) -> str:
    return " and ".join(sorted(names))


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
                rule = _transpose(name, axes, group, found)
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


def _transpose(name: str, axes: tuple[int, ...], group: list[str], paths: Collection[str]) -> str:
    """Return the call of `jtree.migrate.transpose` for these paths, by a glob where one fits."""
    globs: Any = f"**/{name}"
    matches = [path for path in paths if _path.matches(globs, path)]
    if sorted(matches) != group:
        globs = group
    order = "" if len(axes) == 2 else f", axes={axes}"
    return f"jtree.migrate.transpose({globs!r}{order})"
