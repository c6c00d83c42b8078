"""Products with a linear map that is linearized once, for this product and the next ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.tree_util import Partial

from ..._tree.leaves import istracer
from ..._vector import eager
from . import memory
from .protocol import Linearizable, Splittable

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

    Nothing is kept where the operator or the vector is traced, nor where the vector has many
    pieces, since a linearization takes longer to compile than a product.
    `check(v, size, dtype)` returns a vector as an array that fits, or raises.
    """
    columns: jax.Array | None
    kept = _CACHE.get(op)
    if kept is not None and getattr(v, "aval", None) is kept.checked:
        columns = kept.function(kept.constants, v)
        return columns
    array = check(v, op.shape[1], op.dtype)
    if kept is None:
        columns = _product_in_pieces(op, array)
        if columns is not None:
            return columns
        if any(map(istracer, [array, *jax.tree.leaves(op)])):
            columns = _product_traced(op, array)
            return columns
        kept = linearize_cached(op)
    if array is v and isinstance(v, jax.Array):
        kept.checked = v.aval
    columns = kept.function(kept.constants, array)
    return columns


def product_uncached(op: Linearizable, v: jax.Array) -> jax.Array:
    """Return the product with a vector or with columns, for an operator that is used once."""
    columns = _product_in_pieces(op, v)
    product: jax.Array = _product_traced(op, v) if columns is None else columns
    return product


@jax.jit
def _product_traced(op: Linearizable, v: jax.Array) -> Any:
    return _multiply_columns(op.linear(), v)


def _product_in_pieces(op: Linearizable, v: jax.Array) -> jax.Array | None:
    """Return the product, split and put together outside of what is compiled, or None.

    XLA compiles a kernel for every piece of a vector, and for a thousand of them takes minutes.
    """
    vectors = op.split_eagerly(v) if isinstance(op, Splittable) else None
    if vectors is None:
        return None
    products = _product_of_pieces(op, *vectors)
    if not eager.isplain(products):  # concrete arrays within `jit`
        return jnp.concatenate(products)
    product = eager.ravel(products, products[0].dtype)
    return product if v.ndim == 1 else jnp.reshape(product, v.shape)


@jax.jit
def _product_of_pieces(op: Splittable, point: list[Any], tangents: list[Any]) -> list[jax.Array]:
    pieces = op.piecewise(point)
    every = tuple(range(len(pieces.sizes)))
    products: list[jax.Array] = _multiply_columns(pieces.between(every, every), tangents)
    return products


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
    closed = jax.make_jaxpr(op.linear())(struct)
    jaxpr = closed.jaxpr  # the closed one holds tracers, which would leak with the function

    @jax.jit
    def product(constants: list[Any], v: jax.Array) -> Any:
        linear = jaxpr_as_fun(ClosedJaxpr(jaxpr, constants))
        return _multiply_columns(lambda v: linear(v)[0], v)

    return Partial(product, closed.consts)


def _multiply_columns(linear: Callable[[Any], Any], v: Any) -> Any:
    """Return the product with a vector or with columns, whole or in pieces."""
    shape = jax.tree.leaves(v)[0].shape
    if len(shape) == 1:
        return linear(v)
    column = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[:1], x.dtype), v)
    count = memory.batch_size(linear, column, most=_MAX_COLUMNS, budget=None)
    if shape[1] <= count:
        return jax.vmap(linear, 1, 1)(v)
    rows = jax.lax.map(linear, jax.tree.map(jnp.transpose, v), batch_size=count)
    return jax.tree.map(jnp.transpose, rows)
