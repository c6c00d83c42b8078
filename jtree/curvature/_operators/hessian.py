"""The Hessian of a loss over the parameters of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..._errors import ArgumentError
from ..._vector.destructure import flatten_function
from ..._vector.restructure import Restructure
from .._autodiff.arguments import as_columns
from .._autodiff.call import Call, bind, trace
from .._autodiff.linearize import product_uncached
from .._autodiff.partition import (
    PartitionedFunction,
    Pieces,
    depends_on_vector,
    partition,
    replace_pieces,
)
from .._autodiff.protocol import Linear
from .base import Operator
from .differentiated import Differentiated, as_point, check_scalars
from .linear_map import is_model


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["loss", "flat", "labels"],
    meta_fields=["sizes", "indices"],
)
@dataclass(frozen=True, eq=False, repr=False)
class Hessian(Differentiated, Operator):
    """The second derivative of a loss: what `hessian` returns."""

    loss: Call
    flat: jax.Array
    labels: Restructure | None
    sizes: tuple[int, ...] | None
    indices: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        return self.loss.name

    @property
    def examples(self) -> int | None:
        return self.loss.common_length

    def function(self, point: Pieces | None = None) -> PartitionedFunction:
        return partition(self.loss, self.flat, self.sizes, point)

    def between(
        self, function: PartitionedFunction, inputs: Sequence[int], outputs: Sequence[int]
    ) -> Linear:
        pieces = function.point

        def gradient(new: Sequence[jax.Array]) -> list[jax.Array]:
            current = replace_pieces(pieces, inputs, new)

            def loss(xs: Sequence[jax.Array]) -> jax.Array:
                value: jax.Array = function.function(replace_pieces(current, outputs, xs))
                return value

            cotangents: list[jax.Array] = jax.grad(loss)([current[k] for k in outputs])
            return cotangents

        linear: Linear = function.derivative(gradient, [pieces[k] for k in inputs], self.name)
        return linear


def hessian(
    loss: Callable[..., Any], flat: Any, /, *args: Any, re: Restructure | None = None
) -> Hessian:
    """Return the Hessian of a loss at a vector of parameters, as an operator.

    A product linearizes the gradient (forward over reverse); the matrix is never formed.

    Args:
      loss: `loss(flat, *args)`, a scalar. It is compiled once per function, so pass data in
        `args`, and a function of a module rather than a new lambda each time.
      flat: `(n,)`, floating point; the first result of `jtree.destructure`. Or a model, and then
        `loss(model, *args)`: the operator is labeled, and `op @ model` is a model.
      args: the arguments of the loss after the vector: arrays, models, a `Restructure`. Integers,
        booleans and strings are static.
      re: the second result of `jtree.destructure`, which labels rows and columns.

    Returns:
      A `Hessian`, `(n, n)`, of the vector's dtype.

    Raises:
      VectorTypeError: the parameters are complex or not floating point.
      ArgumentError: the loss is not a scalar or does not use its vector, or `re` does not fit.
      ModelError: the loss changes an NNX variable that was created outside of it.

    Example:
      >>> rosenbrock = lambda v: 100 * (v[1] - v[0] ** 2) ** 2 + (1 - v[0]) ** 2
      >>> jtree.curvature.hessian(rosenbrock, jnp.ones(2)).dense()
      Array([[ 802., -400.],
             [-400.,  200.]], dtype=float32)
      >>> model = {"a": jnp.array(1.0), "b": jnp.array(2.0)}
      >>> jtree.curvature.hessian(lambda m: m["a"] ** 2 * m["b"], model) @ model
      {'a': Array(8., dtype=float32), 'b': Array(2., dtype=float32)}

    Source: Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6, 1994,
    doi:10.1162/neco.1994.6.1.147.
    """
    loss, flat, re = flatten_function(loss, flat, re)
    vector, sizes = as_point(flat, re)
    op = Hessian(bind(loss, *args), vector, re, sizes)
    _check.eval_shape(op)
    return op


@jax.jit
def _check(op: Hessian) -> None:
    """Raise for a loss that has no Hessian; `jit` remembers which losses passed."""
    whole = trace(op.loss, op.flat)
    name, outputs = op.loss.name, whole.out_avals
    real = [x.shape == () and jnp.issubdtype(x.dtype, jnp.floating) for x in outputs]
    if real != [True]:
        shown = ", ".join(map(str, outputs)) or "none"
        raise ArgumentError(
            f"{name}: expected a loss that returns one real scalar, found {shown}; "
            "return a mean or a sum, without auxiliary results"
        )
    if not depends_on_vector(whole):
        raise ArgumentError(
            f"{name}: the loss does not depend on its first argument, so its Hessian is zero; "
            "build the model from the vector inside the loss, with re(flat) "
            "(with eqx.combine, pass the new parameters first)"
        )
    check_scalars(op, name)


def hvp(loss: Callable[..., Any], flat: Any, v: Any, /, *args: Any) -> Any:
    """Return the product of a loss's Hessian with a vector: `hessian(loss, flat, *args) @ v`.

    Args:
      loss: `loss(flat, *args)`, a scalar.
      flat: `(n,)`, or a model, and then `loss(model, *args)`.
      v: `(n,)`, or `(n, k)` for k vectors at once; or a model, if `flat` is one.
      args: the arguments of the loss after the vector.

    Returns:
      An array of the shape of `v`; or a model.

    Raises:
      The errors of `hessian` and `Operator.mv`.

    Example:
      >>> jtree.curvature.hvp(lambda v: (v ** 3).sum(), jnp.array([1.0, 2.0]), jnp.ones(2))
      Array([ 6., 12.], dtype=float32)

    Source: see `hessian`.
    """
    op = hessian(loss, flat, *args)
    re = op.re if is_model(v) else None
    columns = as_columns(v if re is None else re.ravel(v), op.size, op.dtype)
    product = product_uncached(op, columns)
    return product if re is None else re(product)
