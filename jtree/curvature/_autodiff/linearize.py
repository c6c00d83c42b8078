"""Products with a linear map that is linearized once, for this product and the next ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.tree_util import Partial

from ..._tree.leaves import istracer
from . import memory
from .protocol import Linearizable

_MAX_COLUMNS = 64  # of one batched product


class Linearization:
    """A product as a compiled function of constants and a vector.

    Attributes:
      function: the function.
      constants: its first argument.
      checked: the abstract value of a vector that was checked before. JAX shares abstract values
        among results of one function, and comparing identities takes much less time than a check.
    """

    __slots__ = ("checked", "constants", "function")

    def __init__(self, function: Callable[..., Any], constants: Any) -> None:
        self.function, self.constants = function, constants
        self.checked: Any = object()


_CACHE: WeakKeyDictionary[Linearizable, Linearization] = WeakKeyDictionary()


def product(op: Linearizable, v: Any, check: Callable[..., jax.Array]) -> jax.Array:
    """Return the product with a vector or with columns, and keep the linearization.

    Nothing is kept where the operator or the vector is traced. `check(v, size, dtype)` returns a
    vector as an array that fits, or raises.
    """
    columns: jax.Array
    kept = _CACHE.get(op)
    if kept is not None and getattr(v, "aval", None) is kept.checked:
        columns = kept.function(kept.constants, v)
        return columns
    array = check(v, op.shape[1], op.dtype)
    if kept is None:
        if any(map(istracer, [array, *jax.tree.leaves(op)])):
            columns = product_uncached(op, array)
            return columns
        kept = linearize_cached(op)
    if array is v and isinstance(v, jax.Array):
        kept.checked = v.aval
    columns = kept.function(kept.constants, array)
    return columns


@jax.jit
def product_uncached(op: Linearizable, v: jax.Array) -> jax.Array:
    """Return the product with a vector or with columns, for an operator that is used once."""
    return _multiply_columns(op.linear(), v)


def linearize_cached(op: Linearizable) -> Linearization:
    """Return the product of an operator, which is kept as long as the operator."""
    linear = _linearize(op)
    kept = Linearization(linear.func, linear.args[0])
    if not any(map(istracer, jax.tree.leaves(linear))):
        _CACHE[op] = kept
    return kept


@jax.jit
def _linearize(op: Linearizable) -> Partial:
    """Return the product as a compiled function `(constants, v)`, with its constants.

    The constants, among them the model's activations, are arguments of that function, since a
    jaxpr that closes over them would have to be compiled for every operator.
    """
    struct = jax.ShapeDtypeStruct(op.shape[1:], op.dtype)
    jaxpr = jax.make_jaxpr(op.linear())(struct)

    @jax.jit
    def product(constants: list[Any], v: jax.Array) -> jax.Array:
        linear = jaxpr_as_fun(ClosedJaxpr(jaxpr.jaxpr, constants))
        return _multiply_columns(lambda v: linear(v)[0], v)

    return Partial(product, jaxpr.consts)


def _multiply_columns(linear: Callable[[jax.Array], jax.Array], v: jax.Array) -> jax.Array:
    if v.ndim == 1:
        return linear(v)
    column = jax.ShapeDtypeStruct(v.shape[:1], v.dtype)
    count = memory.batch_size(linear, column, most=_MAX_COLUMNS, budget=None)
    if v.shape[1] <= count:
        return jax.vmap(linear, 1, 1)(v)
    rows: jax.Array = jax.lax.map(linear, v.T, batch_size=count)
    return rows.T
