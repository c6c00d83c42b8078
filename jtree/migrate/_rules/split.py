"""Rules about parts of arrays: split, concatenate."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

from ..._errors import ArgumentError, RuleError
from ..._tree import paths as _path
from .base import (
    Arrays,
    Edit,
    Rule,
    axis_of,
    captured,
    check_alike,
    check_numbers,
    check_template,
    fill_in,
    integer,
    integers,
    normalise,
    public_rule,
    text,
    texts,
)
from .lazy_arrays import lazy, node
from .lazy_ops import joined, part


@public_rule
class Split(Rule):
    """Cut arrays into several along one axis.

    Args:
      pattern: a glob over paths: `"**/in_proj"`.
      into: the new paths, each filled in from the wildcards as by `rename`.
      axis: the axis along which.
      sizes: the length of each; without it they are equal.
      optional: whether it may match nothing.

    Raises:
      RuleError: nothing matches, or the sizes are not those of the axis.

    Example:
      >>> rule = split("in_proj", ("q", "k", "v"))
      >>> jtree.migrate.apply([rule], {"in_proj": np.zeros((6, 2))})
      {'q': LazyArray(float64[2, 2]), 'k': LazyArray(float64[2, 2]), 'v': LazyArray(float64[2, 2])}
    """

    pattern: str
    into: tuple[str, ...]
    axis: int = 0
    sizes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        normalise(self, pattern=text, into=_several, axis=integer)
        for template in self.into:
            check_template(self, self.pattern, template)
        if self.sizes is not None:
            normalise(self, sizes=integers)
            if len(self.sizes) != len(self.into) or min(self.sizes) < 0:
                raise ArgumentError(f"{self}: expected a size for each of into=")

    def edits(self, arrays: Arrays, /) -> Iterator[Edit]:
        """Yield one step for each array that is cut."""
        for path, groups in captured(self, self.pattern, arrays).items():
            check_numbers(self, path, arrays[path])
            x = node(arrays[path])
            axis, parts = axis_of(self, path, x, self.axis), len(self.into)
            sizes = self.sizes or (x.shape[axis] // parts,) * parts
            if sum(sizes) != x.shape[axis]:
                expected = (
                    f"an axis {axis} of {sum(self.sizes)}"
                    if self.sizes
                    else (f"an axis {axis} that {parts} equal parts have")
                )
                raise self.wrong(path, x, expected, "say the length of each with sizes=")
            bounds = pairwise(accumulate(sizes, initial=0))
            new = [(fill_in(name, groups), b) for name, b in zip(self.into, bounds, strict=True)]
            _check_names(self, [name for name, _ in new])
            yield Edit((path,), {name: lazy(part(x, axis, *b)) for name, b in new})


@public_rule
class Concatenate(Rule):
    """Join arrays along an axis that they have.

    Args:
      patterns: globs over paths, one for each part, in order. Their wildcards stand for the same
        text in all parts of one array.
      into: the new path, filled in from the wildcards as by `rename`.
      axis: the axis along which.
      optional: whether they may match nothing.

    Raises:
      RuleError: nothing matches, a part is missing, or shapes or dtypes do not fit.

    Example:
      >>> source = {f"{n}/{name}": np.zeros((2, 5)) for n in range(2) for name in "qkv"}
      >>> jtree.migrate.apply([concatenate(("*/q", "*/k", "*/v"), "*/in_proj")], source)
      {'0/in_proj': LazyArray(float64[6, 5]), '1/in_proj': LazyArray(float64[6, 5])}
    """

    patterns: tuple[str, ...]
    into: str
    axis: int = 0

    def __post_init__(self) -> None:
        normalise(self, patterns=_several, into=text, axis=integer)
        for pattern in self.patterns:
            check_template(self, pattern, self.into)
        if len({_path.wildcards(pattern) for pattern in self.patterns}) > 1:
            raise ArgumentError(f"{self}: expected patterns with as many wildcards each")

    def edits(self, arrays: Arrays, /) -> Iterator[Edit]:
        """Yield one step for each array that is made."""
        found = [captured(self, pattern, arrays) for pattern in self.patterns]
        parts = [{groups: path for path, groups in one.items()} for one in found]
        for groups in dict.fromkeys(groups for one in parts for groups in one):
            for pattern, one in zip(self.patterns, parts, strict=True):
                if groups not in one:
                    raise self.nothing(fill_in(pattern, groups), arrays)
            paths = [one[groups] for one in parts]
            xs = [node(arrays[path]) for path in paths]
            axis = axis_of(self, paths[0], xs[0], self.axis)
            check_alike(self, paths, arrays, axis)
            yield Edit(tuple(paths), {fill_in(self.into, groups): lazy(joined(xs, axis))})


def _several(rule: Rule, name: str, x: object) -> tuple[str, ...]:
    found = texts(rule, name, x)
    return (found,) if isinstance(found, str) else found


def _check_names(rule: Rule, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise RuleError(f"{rule}: two results at {_path.show(name)}; give each a path")


split = Split
concatenate = Concatenate
