"""The parts of an operator that algorithms and dense matrices need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

Linear = Callable[[Sequence[jax.Array]], Sequence[jax.Array]]


class Piecewise(NamedTuple):
    """An operator as maps between the pieces of its vector.

    Attributes:
      sizes: the lengths of the pieces.
      order: the indices of the pieces; maps between later ones are cheaper.
      between: `between(inputs, outputs)` is a linear function from the pieces with the indices
        `inputs` to the product's pieces with the indices `outputs`. It computes no other piece.
    """

    sizes: tuple[int, ...]
    order: tuple[int, ...]
    between: Callable[[tuple[int, ...], tuple[int, ...]], Linear]


class Linearizable(Protocol):
    """A linear map that is a pytree, and can be linearized within `jit`."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> Any: ...
    def linear(self) -> Callable[[jax.Array], jax.Array]: ...


@runtime_checkable
class Splittable(Protocol):
    """An operator at a point that can be split before it is differentiated."""

    def split_eagerly(self, v: jax.Array, /) -> tuple[list[Any], list[Any]] | None:
        """Return the pieces of the point, and of a vector or of columns, or None."""

    def piecewise(self, point: Any = None, /) -> Piecewise: ...


class Rectangular(Linearizable, Protocol):
    """A linear map with a transpose."""

    @property
    def T(self) -> Rectangular: ...  # noqa: N802 (as arrays call it)


class Symmetric(Linearizable, Protocol):
    """The interface of `Operator` for the modules below it."""

    @property
    def size(self) -> int: ...
    @property
    def re(self) -> Any: ...
    @property
    def traceable(self) -> bool: ...
    def mv(self, v: Any, /) -> jax.Array: ...
    def dense(self, *, progress: bool = True) -> jax.Array: ...
    def piecewise(self) -> Piecewise: ...


def one_piece(op: Symmetric) -> Piecewise:
    """Return the maps of an operator that has one piece, the whole vector."""

    def between(_: tuple[int, ...], __: tuple[int, ...]) -> Linear:
        linear = op.linear()
        return lambda pieces: [linear(pieces[0])]

    return Piecewise((op.size,), (0,), between)
