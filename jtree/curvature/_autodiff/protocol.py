"""What the algorithms know of an operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax

Linear = Callable[[Sequence[jax.Array]], Sequence[jax.Array]]


class Parts(NamedTuple):
    """An operator over the pieces of its vector.

    Attributes:
      sizes: the lengths of the pieces.
      order: their numbers, in an order in which those further on cost less.
      mapping: `mapping(inputs, outputs)` is a linear function from pieces numbered `inputs` to the
        product's pieces numbered `outputs`, in which nothing is computed for other pieces.
    """

    sizes: tuple[int, ...]
    order: tuple[int, ...]
    mapping: Callable[[tuple[int, ...], tuple[int, ...]], Linear]


class Linearisable(Protocol):
    """What is known by its products, and passes through `jit`."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> Any: ...
    def _linear(self) -> Callable[[jax.Array], jax.Array]: ...


class Symmetric(Linearisable, Protocol):
    """What `Operator` is to the modules below it."""

    @property
    def size(self) -> int: ...
    @property
    def _traceable(self) -> bool: ...
    def mv(self, v: Any, /) -> jax.Array: ...
    def _parts(self) -> Parts: ...
    def _matrix(self, chunk: Any, budget: int | None, shown: bool) -> jax.Array: ...
