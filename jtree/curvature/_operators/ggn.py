"""Gauss-Newton operators: a model's Jacobian on both sides of a metric on its outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import ArgumentError
from ..._tree.leaves import istracer
from ..._vector.restructure import Restructure
from .._autodiff import dense
from .._autodiff import memory as _memory
from .._autodiff.call import Call, call, traced
from .._autodiff.partition import Cut, cut, join, split, uses
from .._autodiff.protocol import Linear
from .differentiated import Differentiated, check_numbers, checked, replaced
from .metric import LossMetric, Metric
from .outputs import Outputs, check_outputs, sums


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["apply", "metric", "flat", "labels"],
    meta_fields=["sizes", "numbers"],
)
@dataclass(frozen=True, eq=False, repr=False)
class GaussNewton(Differentiated):
    """`J.T @ M @ J`: what `ggn` and `fisher` return.

    `J` is the Jacobian of the outputs, and `M` a positive semidefinite matrix over the outputs, a
    block for every example.
    """

    apply: Call
    metric: Metric
    flat: jax.Array
    labels: Restructure | None
    sizes: tuple[int, ...] | None
    numbers: tuple[int, ...] | None = None

    @property
    def examples(self) -> int | None:
        return self.apply.size

    def _cut(self) -> Cut:
        return cut(self._outputs.__call__, self.flat, self.sizes)

    @property
    def _outputs(self) -> Outputs:
        return Outputs(self.apply)

    def _map(self, function: Cut, inputs: Sequence[int], outputs: Sequence[int]) -> Linear:
        pieces = split(self.flat, function.sizes)

        def forward(numbers: Sequence[int]) -> Callable[[Sequence[jax.Array]], jax.Array]:
            return lambda given: function.function(replaced(pieces, numbers, given))

        out, push = jax.linearize(forward(inputs), [pieces[k] for k in inputs])
        _, pull = jax.vjp(forward(outputs), [pieces[k] for k in outputs])
        product = self.metric.product(self._outputs.form(self.flat), out)
        return lambda tangents: pull(product(push(tangents)))[0]

    @property
    def _semidefinite(self) -> bool:
        return True

    def _about(self) -> str:
        return f"{self.metric.name}, {self.apply.name}"

    def _whole(self, options: dense.Options) -> jax.Array:
        concrete = not any(map(istracer, jax.tree.leaves(self)))
        if self.size and concrete and options.sharding is None and options.chunk in ("auto", None):
            budget = _memory.left(self, options.memory)
            found: jax.Array
            found, right = _by_examples(self, budget)
            if right is not None and right:
                return found
        return super()._whole(options)

    def _diagonal(self) -> jax.Array:
        found, right = _diagonal_by_examples(self)
        if isinstance(right, jax.core.Tracer):
            return jnp.where(right, found, jnp.nan)
        return found if right else super()._diagonal()


@jax.jit
def _diagonal_by_examples(op: GaussNewton) -> tuple[Any, Any]:
    if not _alone(op):
        return None, None
    one, (examples, rank) = example(op), width(op)

    def share(i: Any) -> jax.Array:
        rows, weighted = one(i)
        return (rows * weighted).sum(0)

    each = 2 * rank * op.size * jnp.dtype(op.dtype).itemsize
    return sums(share, examples, each), agree(op)


@partial(jax.jit, static_argnums=1)
def _by_examples(op: GaussNewton, budget: int | None) -> tuple[Any, Any]:
    """Return the matrix from the Jacobians of all examples, where that is less work."""
    function = op._cut()
    if not _alone(op) or not _pays(op, function, budget):
        return None, None
    rows, weighted, right = jacobians(op)
    return rows.T @ weighted, right


def _alone(op: GaussNewton) -> bool:
    """Tell whether the model takes one example alone, of what seems to have one in each row.

    It does not where an array among its inputs has as many rows as there are examples by chance.
    """
    try:
        found = jax.eval_shape(op._outputs.of(0), op.flat)
    except (TypeError, ValueError):
        return False
    outputs = sum(math.prod(shape[1:]) for shape in op._outputs.form(op.flat).shapes)
    return tuple(found.shape) == (1, outputs)


_EFFICIENCY = 1.0  # more rows than this many products cost are left to products


def _pays(op: GaussNewton, function: Cut, budget: int | None) -> bool:
    """Tell whether a matrix product over examples is less work than products, by counting."""
    examples, rank = width(op)
    rows = examples * rank
    copies = 1 if op.metric.rank else 2
    memory = rows * op.size * jnp.dtype(op.dtype).itemsize * copies
    if budget is not None and memory > budget:
        return False
    numbers = list(range(len(function.sizes))) if op.numbers is None else list(op.numbers)
    pieces = [jax.ShapeDtypeStruct((function.sizes[k],), op.dtype) for k in numbers]
    one = _memory.operations(jax.make_jaxpr(op._map(function, numbers, numbers))(pieces))
    return rows * op.size <= _EFFICIENCY * one


def jacobians(op: GaussNewton) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return R and S with `R.T @ S` the matrix, a row for each example, and whether that is so."""
    examples, _ = width(op)
    every = jnp.arange(examples)
    rows, weighted = jax.vmap(example(op))(every)
    n = op.size
    return rows.reshape(-1, n), weighted.reshape(-1, n), agree(op)


def example(op: GaussNewton) -> Callable[[Any], tuple[jax.Array, jax.Array]]:
    """Return a function from an example's number to its share's two factors, each `(rank, n)`."""
    form = op._outputs.form(op.flat)
    out = op._outputs(op.flat)
    left, right = op.metric.factors(form, out)

    def one(i: Any) -> tuple[jax.Array, jax.Array]:
        function = cut(op._outputs.of(i), op.flat, op.sizes)
        pieces = split(op.flat, function.sizes)
        numbers = range(len(pieces)) if op.numbers is None else op.numbers
        forward = lambda given: function.function(replaced(pieces, numbers, given))  # noqa: E731
        _, pull = jax.vjp(forward, [pieces[k] for k in numbers])
        rows = jax.vmap(lambda u: join(pull(u[None])[0]))(left[:, i])
        if right is None:
            return rows, rows
        dtype = np.promote_types(rows.dtype, right.dtype)
        return rows, (right[i].astype(dtype) @ rows.astype(dtype)).astype(rows.dtype)

    return one


def width(op: GaussNewton) -> tuple[int, int]:
    """Return the number of examples, and the rank of an example's share of the matrix."""
    form = op._outputs.form(op.flat)
    outputs = sum(math.prod(shape[1:]) for shape in form.shapes)
    return form.shapes[0][0], op.metric.rank or outputs


def agree(op: GaussNewton) -> jax.Array:
    """Tell whether examples are independent: one alone has the outputs and the metric it has here.

    They are not under BatchNorm in training mode, nor with a loss that compares examples.
    """
    out, form = op._outputs(op.flat), op._outputs.form(op.flat)
    alone = jax.vmap(lambda i: op._outputs.of(i)(op.flat)[0])(jnp.arange(len(out)))
    probe = jax.random.normal(jax.random.key(0), out.shape, out.dtype)
    left, right = op.metric.factors(form, out)
    if right is None:
        return _near(alone, out)
    share = jnp.einsum("cnd,nce,ne->nd", left, right, probe)
    return _near(alone, out) & _near(share, op.metric.product(form, out)(probe))


def _near(a: jax.Array, b: jax.Array) -> jax.Array:
    scale = jnp.finfo(a.dtype).eps ** 0.5 * (jnp.abs(a).max() + jnp.abs(b).max())
    return (jnp.abs(a - b) <= scale).all()


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
    """Return the generalised Gauss-Newton matrix of a loss on a model's outputs, as an operator.

    It is `J.T @ H @ J` with the Jacobian `J` of the outputs and the Hessian `H` of the loss by
    them, by differentiation. Where the loss is convex in the outputs it is positive semidefinite;
    where the model is linear in its parameters it is the Hessian.

    Args:
      apply: `apply(flat, x)`, the outputs: an array `(N, ...)`, or several. A model with BatchNorm
        is to be in inference mode.
      loss: `loss(outputs, y)`, a scalar; whether it is a mean or a sum is yours to say.
      flat: `(n,)`, floating; the first result of `jtree.destructure`.
      x: the inputs, arrays with N examples along their first axis.
      y: what the loss takes behind the outputs.
      re: the second result of `jtree.destructure`, which labels rows and columns.

    Returns:
      A `GaussNewton`, `(n, n)`, of the vector's dtype.

    Raises:
      VectorTypeError: complex parameters, or no floating numbers.
      ArgumentError: the loss is no scalar, the outputs do not depend on the vector, or are not
        one or more for each example; `re` does not fit.

    Example:
      >>> x, y = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.zeros(2)
      >>> mse = lambda outputs, y: ((outputs - y) ** 2).mean()
      >>> jtree.curvature.ggn(lambda w, x: x @ w, mse, jnp.ones(2), x, y).dense()
      Array([[10., 14.],
             [14., 20.]], dtype=float32)

    Source: Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent",
    Neural Computation 14, 2002, doi:10.1162/08997660260028683.
    """
    vector, sizes = checked(flat, re)
    metric = LossMetric(call(loss, y))
    found = GaussNewton(call(apply, x), metric, vector, re, sizes)
    check.eval_shape(found)
    return found


@jax.jit
def check(op: GaussNewton) -> None:
    """Refuse a model or a loss that has no Gauss-Newton matrix; `jit` remembers the good ones."""
    check_outputs(op.apply, op.flat)
    whole = traced(op._outputs.__call__, op.flat)
    if not uses(whole):
        raise ArgumentError(
            f"{op.apply.name}: the outputs do not depend on the vector, so the matrix is zero; "
            "build the model from the vector inside it, with re(flat) "
            "(with eqx.combine the new parameters come first)"
        )
    check_numbers(op, op.apply.name)
    op.metric.check(op._outputs.form(op.flat), op._outputs(op.flat))
