"""Gauss-Newton matrices: a metric on a model's outputs, between two Jacobians of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..._errors import ArgumentError
from ..._tree.leaves import istracer
from ..._vector.destructure import flatten_function
from ..._vector.restructure import Restructure
from .._autodiff import memory
from .._autodiff.call import Call, bind, trace
from .._autodiff.dense import DenseOptions
from .._autodiff.partition import (
    PartitionedFunction,
    Pieces,
    depends_on_vector,
    join,
    partition,
    replace_pieces,
    split,
)
from .._autodiff.protocol import Linear
from .._autodiff.varying import vary, vary_as, varying_axes
from .base import Operator
from .differentiated import Differentiated, as_point, check_scalars
from .metric import LossMetric, Metric
from .outputs import Outputs, check_outputs, sum_over
from .probabilities import last_operation, warn_about_probabilities
from .single import allclose, equal_derivatives, pull


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["apply", "metric", "flat", "labels"],
    meta_fields=["sizes", "indices"],
)
@dataclass(frozen=True, eq=False, repr=False)
class GaussNewton(Differentiated, Operator):
    """`J.T @ M @ J`: what `ggn` and `fisher` return.

    `J` is the Jacobian of the outputs, and `M` a positive semidefinite matrix over the outputs,
    with one block for every example.
    """

    apply: Call
    metric: Metric
    flat: jax.Array
    labels: Restructure | None
    sizes: tuple[int, ...] | None
    indices: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        return f"{self.metric.name}, {self.apply.name}"

    @property
    def examples(self) -> int | None:
        return self.apply.examples

    @property
    def semidefinite(self) -> bool:
        return True

    @property
    def outputs(self) -> Outputs:
        return Outputs(self.apply)

    @property
    def rank(self) -> int:
        """The rank of an example's share of the matrix."""
        return self.metric.rank or self.outputs.structure(self.flat).width

    def function(self, point: Pieces | None = None) -> PartitionedFunction:
        return partition(self.outputs.__call__, self.flat, self.sizes, point)

    def between(
        self, function: PartitionedFunction, inputs: Sequence[int], outputs: Sequence[int]
    ) -> Linear:
        pieces = function.point

        def forward(indices: Sequence[int]) -> Callable[[Sequence[jax.Array]], jax.Array]:
            return lambda new: function.function(replace_pieces(pieces, indices, new))

        point = [pieces[k] for k in inputs]
        out, push = function.linearize(forward(inputs), point, self.apply.name)
        _, pull = jax.vjp(forward(outputs), [pieces[k] for k in outputs])
        product = self.metric.product(self.outputs.structure(self.flat), out)
        return lambda tangents: pull(product(push(tangents)))[0]

    def matrix(self, options: DenseOptions) -> jax.Array:
        concrete = not any(map(istracer, jax.tree.leaves(self)))
        if self.size and concrete and options.sharding is None and options.chunk in ("auto", None):
            budget = memory.budget(self, options.memory)
            matrix: jax.Array
            matrix, valid = _matrix_by_examples(self, budget)
            if valid is not None and valid:
                return matrix
        return super().matrix(options)

    def exact_diagonal(self) -> jax.Array:
        """Return the diagonal; NaN within `jit` where the examples depend on each other."""
        diagonal: jax.Array
        diagonal, valid = _diagonal_by_examples(self)
        if istracer(valid):
            return jnp.where(valid, diagonal, jnp.nan)
        return diagonal if valid else super().exact_diagonal()


@jax.jit
def _diagonal_by_examples(op: GaussNewton) -> tuple[Any, Any]:
    """Return the diagonal from the Jacobians of single examples, and whether it is valid."""
    if not _splits_by_example(op):
        return None, None
    axes = varying_axes(op.outputs(op.flat)) - varying_axes(op.flat)
    op = op._replace(flat=vary(op.flat, axes))  # its derivatives would be summed over devices
    factors = example_factors(op)

    def contribution(i: Any) -> jax.Array:
        rows, weighted = factors(i)
        return (rows * weighted).sum(0)

    nbytes = 2 * op.rank * op.size * jnp.dtype(op.dtype).itemsize
    diagonal, valid = sum_over(contribution, _count(op), nbytes), _independent(op)
    if not axes:
        return diagonal, valid
    return lax.psum(diagonal, tuple(axes)), lax.pmin(valid.astype(int), tuple(axes)).astype(bool)


@partial(jax.jit, static_argnums=1)
def _matrix_by_examples(op: GaussNewton, budget: int | None) -> tuple[Any, Any]:
    """Return the matrix from the Jacobians of all examples, where that is less work."""
    if not _splits_by_example(op) or not _is_cheaper(op, budget):
        return None, None
    rows, weighted = jax.vmap(example_factors(op))(jnp.arange(_count(op)))
    n = op.size
    return rows.reshape(-1, n).T @ weighted.reshape(-1, n), _independent(op)


def _count(op: GaussNewton) -> int:
    return op.outputs.structure(op.flat).shapes[0][0]


def _splits_by_example(op: GaussNewton) -> bool:
    """Return whether the model accepts one example alone.

    It does not where an array among its inputs has as many rows as there are examples by chance.
    """
    try:
        one = jax.eval_shape(op.outputs.one_example(0), op.flat)
    except (TypeError, ValueError):
        return False
    return tuple(one.shape) == (1, op.outputs.structure(op.flat).width)


def _is_cheaper(op: GaussNewton, budget: int | None) -> bool:
    """Return whether `rows.T @ weighted` takes fewer multiplications than products.

    There is a row for each example and output, and both ways are measured in multiplications for
    each column of the matrix. No simpler rule holds: products are 2.4 times as fast for a
    perceptron with 10 outputs, rows 2 times for one with 2 outputs, and rows 19 times for a small
    convolutional network with 10, whose kernels a product uses at every pixel.
    """
    rows = _count(op) * op.rank
    copies = 1 if op.metric.rank else 2
    nbytes = rows * op.size * jnp.dtype(op.dtype).itemsize * copies
    if budget is not None and nbytes > budget:
        return False
    function = op.function()
    indices = list(range(len(function.sizes))) if op.indices is None else list(op.indices)
    pieces = [jax.ShapeDtypeStruct((function.sizes[k],), op.dtype) for k in indices]
    product = jax.make_jaxpr(op.between(function, indices, indices))(pieces)
    return rows * op.size <= memory.multiplications(product)


def example_factors(op: GaussNewton) -> Callable[[Any], tuple[jax.Array, jax.Array]]:
    """Return a function from an example's index to the two factors of its share, `(rank, n)`."""
    structure, out = op.outputs.structure(op.flat), op.outputs(op.flat)
    left, right = op.metric.factors(structure, out)

    def factors(i: Any) -> tuple[jax.Array, jax.Array]:
        function = partition(op.outputs.one_example(i), op.flat, op.sizes)
        pieces = split(op.flat, function.sizes)
        indices = range(len(pieces)) if op.indices is None else op.indices

        def forward(new: Sequence[jax.Array]) -> jax.Array:
            row: jax.Array = function.function(replace_pieces(pieces, indices, new))
            return row

        _, pull = jax.vjp(forward, [pieces[k] for k in indices])
        rows = jax.vmap(lambda u: join(pull(u[None])[0]))(left[:, i])
        if right is None:
            return rows, rows
        dtype = np.promote_types(rows.dtype, right.dtype)
        return rows, (right[i].astype(dtype) @ rows.astype(dtype)).astype(rows.dtype)

    return factors


def _independent(op: GaussNewton) -> jax.Array:
    """Return whether each example alone has the outputs, derivatives and metric of the batch.

    It does not under BatchNorm in training mode, nor with a loss that compares examples. A zero, as
    in a new head or a residual scale, hides this from the outputs, but not from their derivatives.
    """
    structure, out = op.outputs.structure(op.flat), op.outputs(op.flat)
    probe = vary_as(jax.random.normal(jax.random.key(0), out.shape, out.dtype), out)
    indices, functions = op.indices, (op.outputs.__call__, op.outputs.alone(len(out)))
    same = equal_derivatives(*(pull(f, op.flat, op.sizes, indices, probe) for f in functions))
    left, right = op.metric.factors(structure, out)
    if right is None:
        return same
    share = jnp.einsum("cnd,nce,ne->nd", left, right, probe)
    return same & allclose(share, op.metric.product(structure, out)(probe))


def ggn(
    apply: Callable[..., Any],
    loss: Callable[..., Any],
    flat: Any,
    x: Any,
    y: Any,
    /,
    *,
    re: Restructure | None = None,
) -> GaussNewton:
    """Return the generalized Gauss-Newton matrix of a loss on a model's outputs, as an operator.

    It is `J.T @ H @ J`, with the Jacobian `J` of the outputs and the Hessian `H` of the loss with
    respect to them. It is positive semidefinite if the loss is convex in the outputs, and equals
    the Hessian if the model is linear in its parameters.

    Args:
      apply: `apply(flat, x)`, the outputs: one array `(N, ...)`, or several. A model with
        BatchNorm should be in inference mode.
      loss: `loss(outputs, y)`, a scalar: a mean or a sum over the examples.
      flat: `(n,)`, floating point; the first result of `jtree.destructure`. Or a model, and then
        `apply(model, x)`.
      x: the inputs, arrays with N examples along their first axis.
      y: the second argument of the loss.
      re: the second result of `jtree.destructure`, which labels rows and columns.

    Returns:
      A `GaussNewton`, `(n, n)`, of the vector's dtype.

    Raises:
      VectorTypeError: the parameters are complex or not floating point.
      ArgumentError: the loss is not a scalar, or is linear in the outputs; the outputs do not
        depend on the vector or are not one row for each example; or `re` does not fit.

    Warns:
      UserWarning: the outputs are probabilities, and the loss applies softmax to them once more.

    Example:
      >>> x, y = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.zeros(2)
      >>> mse = lambda outputs, y: ((outputs - y) ** 2).mean()
      >>> jtree.curvature.ggn(lambda w, x: x @ w, mse, jnp.ones(2), x, y).dense()
      Array([[10., 14.],
             [14., 20.]], dtype=float32)

    Source: Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent",
    Neural Computation 14, 2002, doi:10.1162/08997660260028683.
    """
    apply, flat, re = flatten_function(apply, flat, re)
    vector, sizes = as_point(flat, re)
    op = GaussNewton(bind(apply, x), LossMetric(bind(loss, y)), vector, re, sizes)
    warn_about_probabilities(op.apply, op.flat, op.metric, *check.eval_shape(op))
    return op


@jax.jit
def check(op: GaussNewton) -> dict[str, None]:
    """Raise for a model or a loss without a Gauss-Newton matrix; `jit` remembers which passed.

    Returns:
      The name of the model's last operation, as a key, since that is static to `jit`.
    """
    check_outputs(op.apply, op.flat)
    whole = trace(op.outputs.__call__, op.flat)
    if not depends_on_vector(whole):
        raise ArgumentError(
            f"{op.apply.name}: the outputs do not depend on the vector, so the matrix is zero; "
            "build the model from the vector inside the function, with re(flat) "
            "(with eqx.combine, pass the new parameters first)"
        )
    check_scalars(op, op.apply.name)
    op.metric.check(op.outputs.structure(op.flat), op.outputs(op.flat))
    return {last_operation(whole): None}
