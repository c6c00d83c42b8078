"""Rules that split and concatenate arrays along an axis."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

from ..._errors import ArgumentError, RuleError
from ..._tree import paths as _paths
from . import lazy_ops
from .arguments import (
    check_fields,
    check_integer,
    check_integers,
    check_paths,
    check_template,
    check_text,
    fill_template,
)
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
from .lazy_ops import BlockArray


@public_rule
class Split(Rule):
    """Split arrays into several along an axis.

    Args:
      pattern: a glob over paths, such as `"**/in_proj"`.
      into: the new paths, each filled in from the wildcards as by `rename`.
      axis: the axis.
      sizes: the length of each new array along the axis; by default they are equal.
      optional: whether the pattern may match nothing.

    Raises:
      RuleError: the pattern matches nothing, or the sizes do not add up to the length of the axis.

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
        check_fields(self, pattern=check_text, into=check_paths, axis=check_integer)
        for template in self.into:
            check_template(self, self.pattern, template)
        if self.sizes is not None:
            check_fields(self, sizes=check_integers)
            if len(self.sizes) != len(self.into) or min(self.sizes) < 0:
                raise ArgumentError(
                    f"{self}: expected a size of 0 or more for each of the {len(self.into)} paths "
                    "in into="
                )

    def edits(self, arrays: LazyArrays, /) -> Iterator[Edit]:
        """Yield one edit for each array that is split."""
        for path, captures in capture(self, self.pattern, arrays).items():
            check_values(self, path, arrays[path])
            x = as_blocks(arrays[path])
            axis = normalise_axis(self, path, x, self.axis)
            bounds = pairwise(accumulate(self._sizes(path, x, axis), initial=0))
            parts = [as_lazy(lazy_ops.slice_axis(x, axis, *pair)) for pair in bounds]
            new = [fill_template(template, captures) for template in self.into]
            for name in new:
                if new.count(name) > 1:
                    raise RuleError(
                        f"{self}: two results at {_paths.show(name)}; give each a path of its own"
                    )
            yield Edit((path,), dict(zip(new, parts, strict=True)))

    def _sizes(self, path: str, x: BlockArray, axis: int) -> tuple[int, ...]:
        length, count = x.shape[axis], len(self.into)
        sizes = self.sizes or (length // count,) * count
        if sum(sizes) != length:
            suffix = f"of length {sum(sizes)}"
            if not self.sizes:
                suffix = f"whose length is a multiple of {count}"
            advice = "pass the length of each new array with sizes="
            raise self.mismatch(path, x, f"an axis {axis} {suffix}", advice)
        return sizes


@public_rule
class Concatenate(Rule):
    """Concatenate arrays along an axis.

    Args:
      patterns: globs over paths, one for each array to concatenate, in order. Arrays whose paths
        have the same text for the wildcards are concatenated.
      into: the new path, filled in from the wildcards as by `rename`.
      axis: the axis.
      optional: whether the patterns may match nothing.

    Raises:
      RuleError: a pattern matches nothing, an array is missing, or shapes or dtypes differ.

    Example:
      >>> source = {f"{n}/{name}": np.zeros((2, 5)) for n in range(2) for name in "qkv"}
      >>> jtree.migrate.apply([concatenate(("*/q", "*/k", "*/v"), "*/in_proj")], source)
      {'0/in_proj': LazyArray(float64[6, 5]), '1/in_proj': LazyArray(float64[6, 5])}
    """

    patterns: tuple[str, ...]
    into: str
    axis: int = 0

    def __post_init__(self) -> None:
        check_fields(self, patterns=check_paths, into=check_text, axis=check_integer)
        for pattern in self.patterns:
            check_template(self, pattern, self.into)
        if len({_paths.count_wildcards(pattern) for pattern in self.patterns}) > 1:
            raise ArgumentError(f"{self}: expected the same number of wildcards in each pattern")

    def edits(self, arrays: LazyArrays, /) -> Iterator[Edit]:
        """Yield one edit for each new array."""
        matches = [capture(self, pattern, arrays) for pattern in self.patterns]
        by_captures = [{captures: path for path, captures in x.items()} for x in matches]
        for captures in dict.fromkeys(captures for x in by_captures for captures in x):
            for pattern, known in zip(self.patterns, by_captures, strict=True):
                if captures not in known:
                    raise self.no_match(fill_template(pattern, captures), arrays, filled=True)
            paths = [known[captures] for known in by_captures]
            xs = [as_blocks(arrays[path]) for path in paths]
            axis = normalise_axis(self, paths[0], xs[0], self.axis)
            check_same_type(self, paths, arrays, except_axis=axis)
            new = as_lazy(lazy_ops.concatenate(xs, axis))
            yield Edit(tuple(paths), {fill_template(self.into, captures): new})


split = Split
concatenate = Concatenate
