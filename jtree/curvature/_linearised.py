"""Products with what is linearised once, and keeps its linearisation for the next product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.tree_util import Partial

from .._leaves import istracer
from ._parts import Linearisable

_AT_ONCE = 64  # more columns than these are taken in turns, for the sake of memory


_KEPT: WeakKeyDictionary[Linearisable, Partial] = WeakKeyDictionary()


def product(op: Linearisable, v: jax.Array) -> jax.Array:
    """Return the product with a vector or with columns; the first one linearises for all others.

    Within a compiled function nothing is kept: there one product is one function.
    """
    found: jax.Array
    linear = _KEPT.get(op)
    if linear is None:
        if any(map(istracer, [v, *jax.tree.leaves(op)])):
            found = once(op, v)
            return found
        linear = _linearised(op)
        if not any(map(istracer, jax.tree.leaves(linear))):
            _KEPT[op] = linear
    found = _applied(linear, v)
    return found


@jax.jit
def once(op: Linearisable, v: jax.Array) -> jax.Array:
    """Return the product with a vector or with columns, of what is used for this one product."""
    return _columns(op._linear(), v)


@jax.jit
def _applied(linear: Partial, v: jax.Array) -> jax.Array:
    return _columns(linear, v)


@jax.jit
def _linearised(op: Linearisable) -> Partial:
    """Return the product as a function that has the numbers it needs as leaves."""
    struct = jax.ShapeDtypeStruct(op.shape[1:], op.dtype)
    traced = jax.make_jaxpr(op._linear())(struct)
    jaxpr = traced.jaxpr

    def linear(consts: list[Any], v: jax.Array) -> jax.Array:
        found: jax.Array
        (found,) = jaxpr_as_fun(ClosedJaxpr(jaxpr, consts))(v)
        return found

    return Partial(linear, traced.consts)


def _columns(linear: Callable[[jax.Array], jax.Array], v: jax.Array) -> jax.Array:
    if v.ndim == 1:
        return linear(v)
    if v.shape[1] <= _AT_ONCE:
        return jax.vmap(linear, 1, 1)(v)
    found: jax.Array = jax.lax.map(linear, v.T, batch_size=_AT_ONCE)
    return found.T
