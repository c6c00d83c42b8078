"""The pieces of operators whose products cannot be computed in parts."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from .partition import join, replace_pieces, split
from .protocol import Linear, Piecewise, Symmetric


def labeled_pieces(op: Symmetric) -> Piecewise:
    """Return the maps between the parameters of an operator whose products are computed whole."""
    sizes = (op.size,) if op.re is None or not op.size else op.re.layout.sizes
    linear, every = op.linear(), tuple(range(len(sizes)))

    def between(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Linear:
        def restricted(pieces: Sequence[jax.Array]) -> list[jax.Array]:
            zeros = [jnp.zeros(size, op.dtype) for size in sizes]
            products = split(linear(join(replace_pieces(zeros, inputs, pieces))), sizes)
            return [products[k] for k in outputs]

        return restricted

    return Piecewise(sizes, every, between)
