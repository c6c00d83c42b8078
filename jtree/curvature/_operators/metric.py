"""Metrics on a model's outputs: the Hessian of a loss, or the Fisher information of a likelihood.

A metric is a block `(D, D)` for every example. It is known by products with rows `(N, D)`, and by
factors: `left (R, N, D)`, and `right (N, R, R)` or None for the identity. The block of example n is
the sum over r and s of `left[r, n]`, `right[n, r, s]` and `left[s, n]`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from ..._errors import ArgumentError
from .._autodiff.call import Call, trace
from .._autodiff.partition import depends_on_vector
from .._autodiff.varying import vary_as
from .outputs import OutputStructure

Factors = tuple[jax.Array, jax.Array | None]


class Metric(ABC):
    """The matrix between the two Jacobians of a Gauss-Newton matrix."""

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    def rank(self) -> int | None:
        """The rank of an example's block, or None if it is the number of outputs."""
        return None

    @abstractmethod
    def product(
        self, structure: OutputStructure, out: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """Return the product with rows, at outputs given as rows."""

    @abstractmethod
    def factors(self, structure: OutputStructure, out: jax.Array) -> Factors:
        """Return the factors of the blocks, at outputs given as rows."""

    def check(self, structure: OutputStructure, out: jax.Array, /) -> None:  # noqa: B027
        """Raise for outputs that do not fit the metric."""

    def takes_logits(self, outputs: jax.Array, last: str, /) -> bool:  # noqa: ARG002
        """Return whether softmax or a sigmoid is applied to outputs that `last` may have made."""
        return False


def unit_rows(out: jax.Array) -> jax.Array:
    """Return the unit vectors of every example's outputs, `(D, N, D)`."""
    count, size = out.shape
    rows = jnp.broadcast_to(jnp.eye(size, dtype=out.dtype)[:, None], (size, count, size))
    units: jax.Array = vary_as(rows, out)
    return units


@partial(jax.tree_util.register_dataclass, data_fields=["loss"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class LossMetric(Metric):
    """The Hessian of a loss with respect to the outputs."""

    loss: Call

    @property
    def name(self) -> str:
        return self.loss.name

    def product(
        self, structure: OutputStructure, out: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """Return the product, by differentiation."""
        gradient = jax.grad(lambda rows: self.loss(structure.outputs(rows)))
        product: Callable[[jax.Array], jax.Array] = jax.linearize(gradient, out)[1]
        return product

    def factors(self, structure: OutputStructure, out: jax.Array) -> Factors:
        """Return unit vectors and the blocks, from one product for each output."""
        columns = jax.vmap(self.product(structure, out))(unit_rows(out))
        return unit_rows(out), columns.transpose(1, 2, 0)

    def check(self, structure: OutputStructure, out: jax.Array, /) -> None:
        """Raise for a loss that is not a real scalar."""
        value = jax.eval_shape(self.loss, structure.outputs(out))
        if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise ArgumentError(
                f"{self.name}: expected a loss(outputs, y) that returns one real scalar, "
                f"found {value}; return a mean or a sum, without auxiliary results"
            )
        gradient = jax.grad(lambda rows: self.loss(structure.outputs(rows)))
        if out.size and not depends_on_vector(trace(gradient, out)):
            raise ArgumentError(
                f"{self.name}: the loss is linear in the outputs, so its Hessian is zero, and so "
                "is the matrix; if the outputs are log-probabilities, return logits, and apply "
                "log_softmax in the loss"
            )

    def takes_logits(self, outputs: jax.Array, last: str, /) -> bool:
        """Return whether the loss is the same for outputs plus a constant, as with softmax."""
        if last == "logistic":
            return False
        before, after = self.loss(outputs), self.loss(outputs + 1)
        rounding = float(jnp.finfo(outputs.dtype).eps) ** 0.5
        return bool(jnp.abs(after - before) <= rounding * (1 + jnp.abs(before)))
