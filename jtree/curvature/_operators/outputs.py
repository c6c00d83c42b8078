"""A model's outputs as one row for each example."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..._errors import ArgumentError, CurvatureError
from .._autodiff.call import Call


class OutputStructure(NamedTuple):
    """The shapes of a model's outputs, and the way back to them from rows `(N, D)`."""

    shapes: tuple[tuple[int, ...], ...]
    treedef: Any

    @property
    def width(self) -> int:
        """The number of values for each example."""
        return sum(math.prod(shape[1:]) for shape in self.shapes)

    def outputs(self, rows: jax.Array) -> Any:
        """Return outputs as the model returns them, for as many examples as there are rows."""
        sizes = [math.prod(shape[1:]) for shape in self.shapes]
        pieces = lax.split(rows, sizes, axis=1)
        arrays = [
            piece.reshape(rows.shape[0], *shape[1:])
            for piece, shape in zip(pieces, self.shapes, strict=True)
        ]
        return self.treedef.unflatten(arrays)


def as_rows(outputs: Any) -> jax.Array:
    """Return outputs as `(N, D)`."""
    leaves = [x.reshape(x.shape[0], -1) for x in jax.tree.leaves(outputs)]
    return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves, axis=1)


class Outputs(NamedTuple):
    """`apply(flat, x)` as a function of the vector alone, with a row for each example."""

    apply: Call

    def __call__(self, flat: jax.Array) -> jax.Array:
        return as_rows(self.apply(flat))

    def structure(self, flat: jax.Array) -> OutputStructure:
        """Return the structure of the outputs."""
        leaves, treedef = jax.tree.flatten(jax.eval_shape(self.apply, flat))
        return OutputStructure(tuple(tuple(x.shape) for x in leaves), treedef)

    def one_example(self, i: Any) -> Callable[[jax.Array], jax.Array]:
        """Return the outputs of example i alone, `(1, D)`, as a function of the vector."""
        function, args = self.apply.unpack()
        count = self.apply.examples

        def take(x: Any) -> Any:
            shared = callable(x) or not getattr(x, "ndim", 0) or len(x) != count
            return x if shared else lax.dynamic_slice_in_dim(x, i, 1)

        one = jax.tree.map(take, args, is_leaf=callable)
        return lambda flat: as_rows(function(flat, *one))

    def alone(self, count: int) -> Callable[[jax.Array], jax.Array]:
        """Return the outputs of each of the examples alone, `(count, D)`, as a function."""
        return lambda flat: jax.vmap(lambda i: self.one_example(i)(flat)[0])(jnp.arange(count))


def check_outputs(apply: Call, flat: jax.Array) -> None:
    """Raise for outputs that are not floating-point arrays with an example in each row."""
    count = apply.examples
    if count is None:
        raise ArgumentError(
            f"x: expected arrays with the examples of {apply.name} along their first axis, "
            "found none"
        )
    if count == 0:
        raise CurvatureError("x: expected one or more examples, found 0")
    outputs = jax.tree.leaves(jax.eval_shape(apply, flat))
    valid = [
        x.ndim > 0 and x.shape[0] == count and jnp.issubdtype(x.dtype, jnp.floating)
        for x in outputs
    ]
    if not outputs or not all(valid):
        shown = ", ".join(f"{x.dtype}{list(x.shape)}" for x in outputs)
        raise ArgumentError(
            f"{apply.name}: expected floating-point outputs with the {count} examples of x along "
            f"their first axis, found {shown or 'none'}"
        )


_BYTES = 2**25  # of the Jacobians that are computed at once


def sum_over(function: Callable[[Any], Any], count: int, nbytes: int) -> Any:
    """Return the sum of a function over the indices 0 to `count - 1`, in batches.

    Args:
      function: from an index to an array.
      count: the number of indices.
      nbytes: the bytes that one evaluation takes.
    """
    size = max(1, min(count, _BYTES // max(1, nbytes)))

    def batch_sum(indices: jax.Array) -> Any:
        return jax.tree.map(lambda x: x.sum(0), jax.vmap(function)(indices))

    full = count // size * size
    first = batch_sum(jnp.arange(size))

    def body(k: Any, total: Any) -> Any:
        return total + batch_sum(k * size + jnp.arange(size))

    total = lax.fori_loop(1, count // size, body, first)
    return total + batch_sum(jnp.arange(full, count)) if full < count else total
