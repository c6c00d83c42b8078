"""A model's outputs as one row of numbers for each example."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..._errors import ArgumentError
from .._autodiff.call import Call, fixed


class Form(NamedTuple):
    """What outputs look like, and a way back to that from rows `(N, D)`."""

    shapes: tuple[tuple[int, ...], ...]
    treedef: Any

    def outputs(self, rows: jax.Array) -> Any:
        """Return outputs as the model returns them, for as many examples as there are rows."""
        sizes = [math.prod(shape[1:]) for shape in self.shapes]
        pieces = lax.split(rows, sizes, axis=1)
        arrays = [
            piece.reshape(rows.shape[0], *shape[1:])
            for piece, shape in zip(pieces, self.shapes, strict=True)
        ]
        return self.treedef.unflatten(arrays)


def rows(outputs: Any) -> jax.Array:
    """Return outputs as `(N, D)`."""
    leaves = [x.reshape(x.shape[0], -1) for x in jax.tree.leaves(outputs)]
    return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves, axis=1)


class Outputs(NamedTuple):
    """`apply(flat, x)` as a function of the vector alone, with a row for each example."""

    apply: Call

    def __call__(self, flat: jax.Array) -> jax.Array:
        return rows(self.apply(flat))

    def form(self, flat: jax.Array) -> Form:
        """Return what the outputs look like."""
        leaves, treedef = jax.tree.flatten(jax.eval_shape(self.apply, flat))
        return Form(tuple(tuple(x.shape) for x in leaves), treedef)

    def of(self, i: Any) -> Callable[[jax.Array], jax.Array]:
        """Return the outputs of one example alone, as `(1, D)`."""
        function, args = self.apply.parts()
        examples = self.apply.size

        def own(a: Any) -> Any:
            whole = fixed(a) or not getattr(a, "ndim", 0) or len(a) != examples
            return a if whole else lax.dynamic_slice_in_dim(a, i, 1)

        one = jax.tree.map(own, args, is_leaf=fixed)
        return lambda flat: rows(function(flat, *one))


def check_outputs(apply: Call, flat: jax.Array) -> None:
    """Refuse outputs that are not floating numbers with an example in each row."""
    found = jax.tree.leaves(jax.eval_shape(apply, flat))
    examples = apply.size
    good = [
        x.ndim > 0 and x.shape[0] == examples and jnp.issubdtype(x.dtype, jnp.floating)
        for x in found
    ]
    if not found or not all(good):
        shown = ", ".join(f"{x.dtype}{list(x.shape)}" for x in found)
        raise ArgumentError(
            f"{apply.name}: expected floating outputs with the {examples} examples of x along "
            f"their first axis, found {shown or 'none'}"
        )


_BYTES = 2**25  # of Jacobians at once


def sums(function: Callable[[Any], Any], count: int, each: int) -> Any:
    """Return the sum of a function over numbers from 0, several at once.

    Args:
      function: from a number to an array.
      count: how many numbers.
      each: the bytes that one takes.
    """
    size = max(1, min(count, _BYTES // max(1, each)))

    def many(numbers: jax.Array) -> Any:
        return jax.tree.map(lambda x: x.sum(0), jax.vmap(function)(numbers))

    full = count // size * size
    first = many(jnp.arange(size))

    def body(k: Any, total: Any) -> Any:
        return total + many(k * size + jnp.arange(size))

    total = lax.fori_loop(1, count // size, body, first)
    return total + many(jnp.arange(full, count)) if full < count else total
