"""Rules about axes: transpose, take, flip, reshape."""

from __future__ import annotations

import math

import numpy as np

from ..._errors import ArgumentError
from .base import EachRule, axis_of, integer, integers, normalise, public_rule
from .lazy_ops import Node, flipped, reordered, reshaped, transposed


@public_rule
class Transpose(EachRule):
    """Put the axes of arrays in another order.

    Args:
      where: a glob over paths, or several.
      axes: for each new axis the old one, as in `numpy.transpose`. Without it a matrix is
        transposed, and anything else is an error, since its order is never guessed.
      optional: whether it may match nothing.

    Raises:
      RuleError: nothing matches, or an array has another number of axes.

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
        normalise(self, axes=integers)
        if sorted(self.axes) != list(range(len(self.axes))):
            raise ArgumentError(f"{self}: expected axes 0 to {len(self.axes) - 1}, each once")

    def change(self, path: str, x: Node, /) -> Node:
        """Return the transposed array."""
        expected = 2 if self.axes is None else len(self.axes)
        if len(x.shape) != expected:
            advice = "choose only matrices, or say the order of the axes, as axes=(2, 3, 1, 0)"
            if self.axes is not None:
                advice = "choose only arrays with these axes"
            raise self.wrong(path, x, f"{expected} axes", advice)
        return transposed(x, self.axes or (1, 0))


@public_rule
class Take(EachRule):
    """Put the entries along one axis in another order, one by one or in blocks of equal size.

    Args:
      where: a glob over paths, or several.
      order: for each new block the old one. The axis is cut into as many blocks as there are
        numbers here: four for the gates of an LSTM, or one for each entry.
      axis: the axis along which.
      optional: whether it may match nothing.

    Raises:
      RuleError: nothing matches, or an axis cannot be cut into so many blocks.

    Example:
      >>> found = jtree.migrate.apply([take("gates", (0, 2, 1))], {"gates": np.arange(6)})
      >>> found["gates"].read()
      array([0, 1, 4, 5, 2, 3])
    """

    order: tuple[int, ...]
    axis: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        normalise(self, order=integers, axis=integer)
        if not self.order or sorted(self.order) != list(range(len(self.order))):
            raise ArgumentError(f"{self}: expected an order of 0 to n - 1, each once")

    def change(self, path: str, x: Node, /) -> Node:
        """Return the array in the other order."""
        axis, blocks = axis_of(self, path, x, self.axis), len(self.order)
        if x.shape[axis] % blocks:
            expected = f"a length of axis {axis} that {blocks} blocks of equal size have"
            raise self.wrong(path, x, expected, "check order= and axis=")
        places = np.arange(x.shape[axis]).reshape(blocks, -1)[list(self.order)]
        return reordered(x, axis, places.reshape(-1))


@public_rule
class Flip(EachRule):
    """Reverse arrays along some axes.

    Args:
      where: a glob over paths, or several.
      axes: the axes along which.
      optional: whether it may match nothing.

    Raises:
      RuleError: nothing matches, or an array has no such axis.

    Example:
      >>> found = jtree.migrate.apply([flip("kernel", 0)], {"kernel": np.arange(3)})
      >>> found["kernel"].read()
      array([2, 1, 0])
    """

    axes: int | tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        normalise(self, axes=integer if isinstance(self.axes, int) else integers)

    def change(self, path: str, x: Node, /) -> Node:
        """Return the reversed array."""
        given = (self.axes,) if isinstance(self.axes, int) else self.axes
        return flipped(x, tuple({axis_of(self, path, x, axis) for axis in given}))


@public_rule
class Reshape(EachRule):
    """Give arrays another shape, with the same numbers in C order.

    Args:
      where: a glob over paths, or several.
      shape: the new shape, in which one length may be -1: what is left.
      optional: whether it may match nothing.

    Raises:
      RuleError: nothing matches, or an array has another number of elements.

    Example:
      >>> jtree.migrate.apply([reshape("q", (4, -1, 2))], {"q": np.zeros((4, 6))})
      {'q': LazyArray(float64[4, 3, 2])}
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        normalise(self, shape=integers)
        if min(self.shape, default=0) < -1 or self.shape.count(-1) > 1:
            raise ArgumentError(f"{self}: expected lengths, of which one may be -1")

    def change(self, path: str, x: Node, /) -> Node:
        """Return the array in the new shape."""
        size, known = math.prod(x.shape), math.prod(n for n in self.shape if n != -1)
        rest = size // known if known else 0
        shape = tuple(rest if n == -1 else n for n in self.shape)
        if math.prod(shape) != size:
            raise self.wrong(path, x, f"elements for {list(self.shape)}", "check shape=")
        return reshaped(x, shape)


transpose = Transpose
take = Take
flip = Flip
reshape = Reshape
