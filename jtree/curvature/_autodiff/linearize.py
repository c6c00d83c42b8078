"""Products with what is linearised once, and keeps its linearisation for the next product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.tree_util import Partial

from ..._tree.leaves import istracer
from . import memory
from .protocol import Linearisable

_AT_ONCE = 64  # columns, of which more are taken in turns


_KEPT: WeakKeyDictionary[Linearisable, tuple[Any, ...]] = WeakKeyDictionary()


def product(op: Linearisable, v: jax.Array) -> jax.Array:
    """Return the product with a vector or with columns; the first one linearises for all others.

    Within a compiled function nothing is kept: there one product is one function.
    """
    found: jax.Array
    kept = _KEPT.get(op)
    if kept is None:
        if any(map(istracer, [v, *jax.tree.leaves(op)])):
            found = once(op, v)
            return found
        linear = _linearised(op)
        kept = linear.func, *linear.args
        if not any(map(istracer, jax.tree.leaves(linear))):
            _KEPT[op] = kept
    function, numbers = kept
    found = function(numbers, v)
    return found


@jax.jit
def once(op: Linearisable, v: jax.Array) -> jax.Array:
    """Return the product with a vector or with columns, of what is used for this one product."""
    return _columns(op._linear(), v)


@jax.jit
def _linearised(op: Linearisable) -> Partial:
    """Return the product as a compiled function of the numbers that it needs, and the numbers."""
    struct = jax.ShapeDtypeStruct(op.shape[1:], op.dtype)
    traced = jax.make_jaxpr(op._linear())(struct)

    @jax.jit
    def product(numbers: list[Any], v: jax.Array) -> jax.Array:
        linear = jaxpr_as_fun(ClosedJaxpr(traced.jaxpr, numbers))
        return _columns(lambda v: linear(v)[0], v)

    return Partial(product, traced.consts)


def _columns(linear: Callable[[jax.Array], jax.Array], v: jax.Array) -> jax.Array:
    if v.ndim == 1:
        return linear(v)
    column = jax.ShapeDtypeStruct(v.shape[:1], v.dtype)
    count = memory.at_once(linear, column, most=_AT_ONCE, budget=None)
    if v.shape[1] <= count:
        return jax.vmap(linear, 1, 1)(v)
    found: jax.Array = jax.lax.map(linear, v.T, batch_size=count)
    return found.T
