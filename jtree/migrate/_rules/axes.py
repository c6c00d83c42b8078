"""Rules about axes: transpose, take, flip, reshape."""

from __future__ import annotations

import math

import numpy as np

from ..._errors import ArgumentError
from ..._text import plural
from . import lazy_ops
from .arguments import check_fields, check_integer, check_integers
from .base import ArrayRule, normalise_axis, public_rule
from .lazy_ops import BlockArray


@public_rule
class Transpose(ArrayRule):
    """Permute the axes of arrays.

    Args:
      where: a glob over paths, or several.
      axes: the old axis for each new one, as in `numpy.transpose`. By default matrices are
        transposed, and other arrays are refused.
      optional: whether a glob may match nothing.

    Raises:
      RuleError: a glob matches nothing, or an array does not have as many axes.

    Example:
      >>> source = {"fc/weight": np.zeros((2, 3)), "conv/weight": np.zeros((8, 4, 3, 5))}
      >>> rules = [transpose("fc/weight"), transpose("conv/*", axes=(2, 3, 1, 0))]
      >>> jtree.migrate.apply(rules, source)
      {'fc/weight': LazyArray(float64[3, 2]), 'conv/weight': LazyArray(float64[3, 5, 4, 8])}
    """

    axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.axes is None:
            return
        check_fields(self, axes=check_integers)
        if sorted(self.axes) != list(range(len(self.axes))):
            last = len(self.axes) - 1
            raise ArgumentError(
                f"{self}: expected axes= to contain each axis from 0 to {last} once"
            )

    def transform(self, path: str, x: BlockArray, /) -> BlockArray:
        """Return the transposed array."""
        ndim = 2 if self.axes is None else len(self.axes)
        if len(x.shape) != ndim:
            advice = f"select only arrays with {plural(ndim, 'axis', 'axes')}"
            if self.axes is None:
                advice += ", or pass the order of the axes, such as axes=(2, 3, 1, 0)"
            raise self.mismatch(path, x, plural(ndim, "axis", "axes"), advice)
        return lazy_ops.transpose(x, self.axes or (1, 0))


@public_rule
class Take(ArrayRule):
    """Reorder the entries along an axis, one by one or in blocks of equal size.

    Args:
      where: a glob over paths, or several.
      order: the index of the old block for each new one. The axis is divided into as many blocks
        as there are indices: four for the gates of an LSTM, or one for each entry.
      axis: the axis.
      optional: whether a glob may match nothing.

    Raises:
      RuleError: a glob matches nothing, or an axis cannot be divided into as many blocks.

    Example:
      >>> arrays = jtree.migrate.apply([take("gates", (0, 2, 1))], {"gates": np.arange(6)})
      >>> arrays["gates"].read()
      array([0, 1, 4, 5, 2, 3])
    """

    order: tuple[int, ...]
    axis: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, order=check_integers, axis=check_integer)
        if not self.order or sorted(self.order) != list(range(len(self.order))):
            raise ArgumentError(
                f"{self}: expected order= to contain each index from 0 to n - 1 once"
            )

    def transform(self, path: str, x: BlockArray, /) -> BlockArray:
        """Return the reordered array."""
        axis, blocks = normalise_axis(self, path, x, self.axis), len(self.order)
        if x.shape[axis] % blocks:
            expected = f"an axis {axis} whose length is a multiple of {blocks}"
            raise self.mismatch(path, x, expected, "check order= and axis=")
        indices = np.arange(x.shape[axis]).reshape(blocks, -1)[list(self.order)]
        return lazy_ops.take(x, axis, indices.reshape(-1))


@public_rule
class Flip(ArrayRule):
    """Reverse arrays along one axis or several.

    Args:
      where: a glob over paths, or several.
      axes: an axis, or several.
      optional: whether a glob may match nothing.

    Raises:
      RuleError: a glob matches nothing, or an axis is out of range.

    Example:
      >>> arrays = jtree.migrate.apply([flip("kernel", 0)], {"kernel": np.arange(3)})
      >>> arrays["kernel"].read()
      array([2, 1, 0])
    """

    axes: int | tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, axes=check_integer if isinstance(self.axes, int) else check_integers)

    def transform(self, path: str, x: BlockArray, /) -> BlockArray:
        """Return the reversed array."""
        axes = (self.axes,) if isinstance(self.axes, int) else self.axes
        return lazy_ops.flip(x, tuple({normalise_axis(self, path, x, axis) for axis in axes}))


@public_rule
class Reshape(ArrayRule):
    """Give arrays another shape, with the same values in C order.

    Args:
      where: a glob over paths, or several.
      shape: the new shape. One length may be -1, and is then inferred from the others.
      optional: whether a glob may match nothing.

    Raises:
      RuleError: a glob matches nothing, or the numbers of elements differ.

    Example:
      >>> jtree.migrate.apply([reshape("q", (4, -1, 2))], {"q": np.zeros((4, 6))})
      {'q': LazyArray(float64[4, 3, 2])}
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, shape=check_integers)
        if min(self.shape, default=0) < -1 or self.shape.count(-1) > 1:
            raise ArgumentError(
                f"{self}: expected lengths of 0 or more, of which at most one may be -1"
            )

    def transform(self, path: str, x: BlockArray, /) -> BlockArray:
        """Return the array in the new shape."""
        size, known = math.prod(x.shape), math.prod(n for n in self.shape if n != -1)
        inferred = size // known if known else 0
        shape = tuple(inferred if n == -1 else n for n in self.shape)
        if math.prod(shape) != size:
            expected = f"{'a multiple of ' if -1 in self.shape else ''}{known} elements"
            raise self.mismatch(path, x, expected, "check shape=")
        return lazy_ops.reshape(x, shape)


transpose = Transpose
take = Take
flip = Flip
reshape = Reshape
