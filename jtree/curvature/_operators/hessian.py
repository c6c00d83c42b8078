"""The Hessian of a loss over the parameters of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from ..._errors import ArgumentError
from ..._vector.restructure import Restructure
from .._autodiff.arguments import checked_vector
from .._autodiff.call import Call, call, traced
from .._autodiff.linearize import once
from .._autodiff.partition import Cut, cut, split, uses
from .._autodiff.protocol import Linear
from .differentiated import Differentiated, check_numbers, checked, replaced


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["loss", "flat", "labels"],
    meta_fields=["sizes", "numbers"],
)
@dataclass(frozen=True, eq=False, repr=False)
class Hessian(Differentiated):
    """The second derivative of a loss: what `hessian` returns."""

    loss: Call
    flat: jax.Array
    labels: Restructure | None
    sizes: tuple[int, ...] | None
    numbers: tuple[int, ...] | None = None

    @property
    def examples(self) -> int | None:
        return self.loss.length

    def _cut(self) -> Cut:
        return cut(self.loss, self.flat, self.sizes)

    def _map(self, function: Cut, inputs: Sequence[int], outputs: Sequence[int]) -> Linear:
        pieces = split(self.flat, function.sizes)

        def gradient(given: Sequence[jax.Array]) -> list[jax.Array]:
            now = replaced(pieces, inputs, given)
            part = lambda xs: function.function(replaced(now, outputs, xs))  # noqa: E731
            found: list[jax.Array] = jax.grad(part)([now[k] for k in outputs])
            return found

        _, linear = jax.linearize(gradient, [pieces[k] for k in inputs])
        return linear

    def _about(self) -> str:
        return self.loss.name


def hessian(
    loss: Callable[..., Any], flat: Any, /, *args: Any, re: Restructure | None = None
) -> Hessian:
    """Return the Hessian of a loss at a vector of parameters, as an operator.

    Products are forward over reverse: the gradient is linearised, and no matrix is made.

    Args:
      loss: `loss(flat, *args)`, a scalar. It is compiled once, so that data belong in `args`, and
        a function of a module is better than a new lambda each time.
      flat: `(n,)`, floating; the first result of `jtree.destructure`.
      args: what the loss takes behind the vector: arrays, models, a `Restructure`. Integers,
        booleans and text are static.
      re: the second result of `jtree.destructure`, which labels rows and columns.

    Returns:
      A `Hessian`, `(n, n)`, of the vector's dtype.

    Raises:
      VectorTypeError: complex parameters, or no floating numbers.
      ArgumentError: the loss is no scalar, does not use its vector, or `re` does not fit.
      ModelError: the loss changes an NNX variable that was made outside of it.

    Example:
      >>> rosenbrock = lambda v: 100 * (v[1] - v[0] ** 2) ** 2 + (1 - v[0]) ** 2
      >>> jtree.curvature.hessian(rosenbrock, jnp.ones(2)).dense()
      Array([[ 802., -400.],
             [-400.,  200.]], dtype=float32)

    Source: Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6, 1994,
    doi:10.1162/neco.1994.6.1.147.
    """
    vector, sizes = checked(flat, re)
    found = Hessian(call(loss, *args), vector, re, sizes)
    _check.eval_shape(found)
    return found


@jax.jit
def _check(op: Hessian) -> None:
    """Refuse a loss that has no Hessian; `jit` remembers which ones were found good."""
    whole = traced(op.loss, op.flat)
    name, found = op.loss.name, whole.out_avals
    real = [x.shape == () and jax.numpy.issubdtype(x.dtype, jax.numpy.floating) for x in found]
    if real != [True]:
        shown = ", ".join(map(str, found)) or "none"
        raise ArgumentError(
            f"{name}: expected a loss that returns one real number, found {shown}; "
            "return a mean or a sum, without auxiliary results"
        )
    if not uses(whole):
        raise ArgumentError(
            f"{name}: the loss does not depend on its first argument, so its Hessian is zero; "
            "build the model from the vector inside it, with re(flat) "
            "(with eqx.combine the new parameters come first)"
        )
    check_numbers(op, name)


def hvp(loss: Callable[..., Any], flat: Any, v: Any, /, *args: Any) -> jax.Array:
    """Return the product of a loss's Hessian with a vector: `hessian(loss, flat, *args) @ v`.

    Args:
      loss: `loss(flat, *args)`, a scalar.
      flat: `(n,)`.
      v: `(n,)`, or `(n, k)` for k vectors at once.
      args: what the loss takes behind the vector.

    Returns:
      An array of the shape of `v`.

    Raises:
      What `hessian` and `Operator.mv` raise.

    Example:
      >>> jtree.curvature.hvp(lambda v: (v ** 3).sum(), jnp.array([1.0, 2.0]), jnp.ones(2))
      Array([ 6., 12.], dtype=float32)

    Source: see `hessian`.
    """
    op = hessian(loss, flat, *args)
    found: jax.Array = once(op, checked_vector(op, v))
    return found
