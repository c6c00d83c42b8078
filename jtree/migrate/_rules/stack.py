"""Rules that stack numbered arrays along a new axis, and unstack them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from ..._errors import ArgumentError, RuleError
from ..._tree import paths as _paths
from . import lazy_ops
from .arguments import check_fields, check_integer, check_template, check_text, fill_template
from .base import (
    Edit,
    LazyArrays,
    Rule,
    capture,
    check_same_type,
    check_values,
    normalise_axis,
    public_rule,
)
from .lazy_arrays import as_blocks, as_lazy

INDEX = "#"


@public_rule
class Stack(Rule):
    """Stack numbered arrays along a new axis, in the order of their indices.

    Args:
      pattern: a glob over paths in which `#` stands for the index, such as `"layers/#/**"`.
      into: the new path, filled in from the other wildcards as by `rename`: `"layers/**"`.
      axis: the position of the new axis.
      start: the first index. No index after it may be missing.
      optional: whether the pattern may match nothing.

    Raises:
      RuleError: the pattern matches nothing, an index is missing or occurs twice, or shapes or
        dtypes differ.

    Example:
      >>> source = {f"layers/{n}/w": np.full(1, n) for n in range(11)}
      >>> arrays = jtree.migrate.apply([stack("layers/#/**", "layers/**")], source)
      >>> arrays, arrays["layers/w"].read()[:, 0].tolist()
      ({'layers/w': LazyArray(int64[11, 1])}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    """

    pattern: str
    into: str
    axis: int = 0
    start: int = 0

    def __post_init__(self) -> None:
        check_fields(
            self, pattern=check_text, into=check_text, axis=check_integer, start=check_integer
        )
        _check_one_index(self, "pattern", self.pattern)
        check_template(self, self.pattern.replace(INDEX, "_"), self.into)

    def edits(self, arrays: LazyArrays, /) -> Iterator[Edit]:
        """Yield one edit for each stack."""
        groups: dict[str, list[tuple[int, str]]] = {}
        for path, (index, captures) in self._indexed(arrays).items():
            groups.setdefault(fill_template(self.into, captures), []).append((index, path))
        for into, members in groups.items():
            members.sort()
            self._check_order(members, into)
            paths = [path for _, path in members]
            xs = [as_blocks(arrays[path]) for path in paths]
            check_same_type(self, paths, arrays)
            axis = normalise_axis(self, paths[0], xs[0], self.axis, len(xs[0].shape) + 1)
            yield Edit(tuple(paths), {into: as_lazy(lazy_ops.stack(xs, axis))})

    def _indexed(self, arrays: LazyArrays) -> Mapping[str, tuple[int, tuple[str, ...]]]:
        """Return the index in each path that matches, and the text of the other wildcards."""
        before = _paths.count_wildcards(f"{self.pattern.partition(INDEX)[0]}_")
        matches = {}
        for path in arrays:
            groups = _paths.captures(self.pattern, path, numbers=True)
            if groups:
                others = (*groups[:before], *groups[before + 1 :])
                matches[path] = int(groups[before]), others
        if not matches and not self.optional:
            raise self.no_match(self.pattern, arrays, filled=True)
        return matches

    def _check_order(self, members: list[tuple[int, str]], into: str) -> None:
        for (low, first), (high, second) in pairwise(members):
            if low == high:
                raise RuleError(
                    f"{self}: {first} and {second} both have index {low} in {into}; rename or drop "
                    "one of them first"
                )
        indices = [index for index, _ in members]
        expected = range(self.start, self.start + len(indices))
        missing = sorted({*expected, *range(self.start, indices[-1])} - set(indices))
        if indices != list(expected):
            raise RuleError(
                f"{self}: {into}: expected consecutive indices from {self.start}, found "
                f"{_paths.shorten([str(n) for n in indices], 12)}; missing "
                f"{_paths.shorten([str(n) for n in missing])}; pass start= to begin at another one"
            )


@public_rule
class Unstack(Rule):
    """Unstack arrays along an axis into numbered ones.

    Args:
      pattern: a glob over paths, such as `"layers/**"`.
      into: the new paths, filled in from the wildcards as by `rename`, with `#` for the index:
        `"layers/#/**"`.
      axis: the axis, which the new arrays lack.
      start: the first index.
      optional: whether the pattern may match nothing.

    Raises:
      RuleError: the pattern matches nothing, or the axis is out of range.

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
        check_fields(
            self, pattern=check_text, into=check_text, axis=check_integer, start=check_integer
        )
        _check_one_index(self, "into", self.into)
        check_template(self, self.pattern, self.into)

    def edits(self, arrays: LazyArrays, /) -> Iterator[Edit]:
        """Yield one edit for each array that is unstacked."""
        for path, captures in capture(self, self.pattern, arrays).items():
            check_values(self, path, arrays[path])
            x = as_blocks(arrays[path])
            axis = normalise_axis(self, path, x, self.axis)
            adds = {}
            for index in range(x.shape[axis]):
                template = self.into.replace(INDEX, str(self.start + index))
                new = fill_template(template, captures)
                adds[new] = as_lazy(lazy_ops.take_one(x, axis, index))
            yield Edit((path,), adds)


def _check_one_index(rule: Rule, name: str, pattern: str) -> None:
    if pattern.count(INDEX) != 1:
        raise ArgumentError(
            f"{rule}: {name}: expected one '#' for the index, as in 'layers/#/**', "
            f"found {pattern!r}"
        )


stack = Stack
unstack = Unstack
