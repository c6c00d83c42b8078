"""Whether the outputs of single examples, and their derivatives, are those of the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._autodiff.partition import partition, replace_pieces, split


class Pulled(NamedTuple):
    """Outputs, and the product of their transposed Jacobian with a vector, by parameter."""

    outputs: jax.Array
    gradients: list[jax.Array]


def pull(
    outputs: Callable[[jax.Array], jax.Array],
    flat: jax.Array,
    sizes: tuple[int, ...] | None,
    indices: Sequence[int] | None,
    u: jax.Array,
) -> Pulled:
    """Return the outputs at a vector, and u times their derivatives by some of its pieces."""
    function = partition(outputs, flat, sizes)
    pieces = split(flat, function.sizes)
    selected = range(len(pieces)) if indices is None else indices

    def forward(new: Sequence[jax.Array]) -> Any:
        return function.function(replace_pieces(pieces, selected, new))

    out, transposed = jax.vjp(forward, [pieces[k] for k in selected])
    return Pulled(out, transposed(u)[0])


def equal_derivatives(a: Pulled, b: Pulled) -> jax.Array:
    """Return whether outputs agree, and gradients, each parameter's at its own scale.

    The products with one random vector differ wherever the Jacobians do.
    """
    largest = jnp.stack([jnp.abs(x).max(initial=0) for x in a.gradients]).max()
    rounding = 4 * float(jnp.finfo(largest.dtype).eps) * largest
    pairs = zip(a.gradients, b.gradients, strict=True)
    same = [allclose(a.outputs, b.outputs), *(allclose(x, y, rounding) for x, y in pairs)]
    return jnp.stack(same).all()


def allclose(a: jax.Array, b: jax.Array, rounding: Any = 0.0) -> jax.Array:
    """Return whether two arrays agree up to rounding at the scale of the largest value."""
    scale = jnp.abs(a).max(initial=0) + jnp.abs(b).max(initial=0)
    limit = float(jnp.finfo(a.dtype).eps) ** 0.5 * scale + rounding
    return jnp.asarray((jnp.abs(a - b) <= limit).all())
