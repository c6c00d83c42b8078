"""Products that read data on the host, within algorithms that are otherwise compiled.

The operator of a data loader cannot be part of compiled code. Its product is a primitive without
a lowering, and the algorithms run uncompiled with it; `vmap` passes all their vectors on at once,
so that the data are read once. `jax.pure_callback` is no alternative: a callback that calls JAX
can wait for the very computation that waits for it (https://github.com/jax-ml/jax/issues/24255).
JAX has no other primitive that users can batch without compiling it, and no plan for one.
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

_rows_p = Primitive("jtree_product_with_rows")


def product(op: Symmetric, v: jax.Array) -> jax.Array:
    """Return the product with a vector, or with all the vectors of a `vmap`."""
    rows: jax.Array = _rows_p.bind(v[None], op=op)
    return rows[0]


def run(function: Callable[..., Any], op: Symmetric, *args: Any) -> Any:
    """Call a jitted function with an operator, uncompiled if the operator reads data."""
    if op.traceable:
        return function(op, *args)
    with jax.disable_jit():
        return function(op, *args)


def _evaluate(rows: jax.Array, *, op: Symmetric) -> jax.Array:
    with jax.disable_jit(False):
        return op.mv(rows[0])[None] if len(rows) == 1 else op.mv(rows.T).T


def _abstract(rows: Any, *, op: Symmetric) -> ShapedArray:
    return ShapedArray(rows.shape, op.dtype)


def _batching_rule(args: Any, axes: Any, *, op: Symmetric) -> Any:
    rows = jnp.moveaxis(args[0], axes[0], 0)
    product = _rows_p.bind(rows.reshape(-1, op.size), op=op)
    return product.reshape(rows.shape), 0


def _raise_uncompilable(*_: Any, **__: Any) -> NoReturn:
    raise ArgumentError(
        "a batched operator reads its data in every product, so it cannot be compiled; "
        "multiply with it outside of jit, or build the operator of one batch inside"
    )


_rows_p.def_impl(_evaluate)
_rows_p.def_abstract_eval(_abstract)
batching.primitive_batchers[_rows_p] = _batching_rule
ad.deflinear2(_rows_p, lambda ct, _, *, op: [_rows_p.bind(ct, op=op)])
mlir.register_lowering(_rows_p, _raise_uncompilable)
