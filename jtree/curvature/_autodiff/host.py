"""Operators that read their data product by product, in algorithms that are compiled otherwise.

Such an operator cannot be part of compiled code. Its product is a primitive, so that `vmap` hands
all its vectors over at once; the algorithms run uncompiled, and what they are made of compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ..._errors import ArgumentError
from .protocol import Symmetric

_rows_p = Primitive("jtree_rows_over_batches")  # the product with the rows of a matrix


def product(op: Symmetric, v: jax.Array) -> jax.Array:
    """Return the product with a vector, which may be one of many under `vmap`."""
    found: jax.Array = _rows_p.bind(v[None], op=op)
    return found[0]


def _evaluated(rows: jax.Array, *, op: Symmetric) -> jax.Array:
    with jax.disable_jit(False):
        return op.mv(rows[0])[None] if len(rows) == 1 else op.mv(rows.T).T


def _shaped(rows: Any, *, op: Symmetric) -> ShapedArray:
    return ShapedArray(rows.shape, op.dtype)


def _batched(args: Any, dims: Any, *, op: Symmetric) -> Any:
    rows = jnp.moveaxis(args[0], dims[0], 0)
    found = _rows_p.bind(rows.reshape(-1, op.size), op=op)
    return found.reshape(rows.shape), 0


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise ArgumentError(
        "an operator over batches reads its data at every product, so it cannot be compiled into "
        "a function; call its products from outside of jit, or make an operator of one batch inside"
    )


_rows_p.def_impl(_evaluated)
_rows_p.def_abstract_eval(_shaped)
batching.primitive_batchers[_rows_p] = _batched
ad.deflinear2(_rows_p, lambda ct, _, *, op: [_rows_p.bind(ct, op=op)])
mlir.register_lowering(_rows_p, _refuse)


def run(function: Callable[..., Any], op: Symmetric, *args: Any) -> Any:
    """Call a jitted function of an operator, uncompiled where the operator needs that."""
    if op._traceable:
        return function(op, *args)
    with jax.disable_jit():
        return function(op, *args)
