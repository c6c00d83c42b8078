"""Rules about numbered arrays: stack, unstack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

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
    normalise,
    public_rule,
    text,
)
from .lazy_arrays import lazy, node
from .lazy_ops import picked, stacked

NUMBER = "#"


@public_rule
class Stack(Rule):
    """Put numbered arrays side by side along a new axis, in the order of their numbers.

    Args:
      pattern: a glob over paths in which `#` stands for the number: `"layers/#/**"`.
      into: the new path, filled in from the wildcards as by `rename`: `"layers/**"`.
      axis: where the new axis is.
      start: the first number. From there on none may be missing.
      optional: whether it may match nothing.

    Raises:
      RuleError: nothing matches, a number is missing or there twice, or arrays differ in shape or
        dtype.

    Example:
      >>> source = {f"layers/{n}/w": np.full(1, n) for n in range(11)}
      >>> found = jtree.migrate.apply([stack("layers/#/**", "layers/**")], source)
      >>> found, found["layers/w"].read()[:, 0].tolist()
      ({'layers/w': LazyArray(int64[11, 1])}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    """

    pattern: str
    into: str
    axis: int = 0
    start: int = 0

    def __post_init__(self) -> None:
        normalise(self, pattern=text, into=text, axis=integer, start=integer)
        _check_number(self, "pattern", self.pattern)
        check_template(self, self.pattern.replace(NUMBER, "_"), self.into)

    def edits(self, arrays: Arrays, /) -> Iterator[Edit]:
        """Yield one step for each group of numbered arrays."""
        groups: dict[str, list[tuple[int, str]]] = {}
        for path, (number, others) in self._numbered(arrays).items():
            groups.setdefault(fill_in(self.into, others), []).append((number, path))
        for into, members in groups.items():
            members.sort()
            self._check_order(members, into)
            paths = [path for _, path in members]
            first = arrays[paths[0]]
            check_alike(self, paths, arrays)
            axis = axis_of(self, paths[0], node(first), self.axis, len(first.shape) + 1)
            new = stacked([node(arrays[path]) for path in paths], axis)
            yield Edit(tuple(paths), {into: lazy(new)})

    def _numbered(self, arrays: Arrays) -> Mapping[str, tuple[int, tuple[str, ...]]]:
        """Return the number in each path that matches, and what the other wildcards stand for."""
        place = _path.wildcards(f"{self.pattern.partition(NUMBER)[0]}_")
        found = {}
        for path in arrays:
            groups = _path.captures(self.pattern, path, numbers=True)
            if groups:
                found[path] = int(groups[place]), (*groups[:place], *groups[place + 1 :])
        if not found and not self.optional:
            raise self.nothing(self.pattern, arrays)
        return found

    def _check_order(self, members: list[tuple[int, str]], into: str) -> None:
        numbers = [n for n, _ in members]
        for (low, first), (high, second) in pairwise(members):
            if low == high:
                raise RuleError(f"{self}: {first} and {second} are both number {low} of {into}")
        expected = range(self.start, self.start + len(numbers))
        missing = sorted({*expected, *range(self.start, numbers[-1])} - set(numbers))
        if numbers != list(expected):
            raise RuleError(
                f"{self}: {into}: expected numbers from {self.start} on without a gap, found "
                f"{_path.shorten([str(n) for n in numbers], 12)}; missing "
                f"{_path.shorten([str(n) for n in missing])}; another first number is start="
            )


@public_rule
class Unstack(Rule):
    """Make numbered arrays of what is along one axis.

    Args:
      pattern: a glob over paths: `"layers/**"`.
      into: the new paths, filled in from the wildcards as by `rename`, with `#` for the number:
        `"layers/#/**"`.
      axis: the axis along which; it goes away.
      start: the first number.
      optional: whether it may match nothing.

    Raises:
      RuleError: nothing matches, or an array has no such axis.

    Example:
      >>> rule = unstack("layers/**", "layers/#/**")
      >>> jtree.migrate.apply([rule], {"layers/w": np.zeros((2, 3))})
      {'layers/0/w': LazyArray(float64[3]), 'layers/1/w': LazyArray(float64[3])}
    """

    pattern: str
    into: str
    axis: int = 0
    start: int = 0

    def __post_init__(self) -> None:
        normalise(self, pattern=text, into=text, axis=integer, start=integer)
        _check_number(self, "into", self.into)
        check_template(self, self.pattern, self.into)

    def edits(self, arrays: Arrays, /) -> Iterator[Edit]:
        """Yield one step for each array that is taken apart."""
        for path, groups in captured(self, self.pattern, arrays).items():
            check_numbers(self, path, arrays[path])
            x = node(arrays[path])
            axis = axis_of(self, path, x, self.axis)
            names = [
                fill_in(self.into.replace(NUMBER, str(self.start + n)), groups)
                for n in range(x.shape[axis])
            ]
            yield Edit((path,), {name: lazy(picked(x, axis, n)) for n, name in enumerate(names)})


def _check_number(rule: Rule, name: str, pattern: str) -> None:
    if pattern.count(NUMBER) != 1:
        raise ArgumentError(
            f"{rule}: {name}: expected one '#', for the number, found {pattern!r}; "
            "write 'layers/#/**'"
        )


stack = Stack
unstack = Unstack
