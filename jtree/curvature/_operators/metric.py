"""Metrics on a model's outputs: the Hessian of a loss, or the Fisher information of a likelihood.

A metric is a block `(D, D)` for every example. It is known by products with rows `(N, D)`, and by
factors: `left (R, N, D)`, and `right (N, R, R)` or None for the identity, such that the block of
example n is the sum over r and s of `left[r, n]`, `right[n, r, s]` and `left[s, n]`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from ..._errors import ArgumentError
from .._autodiff.call import Call
from .outputs import Form

Factors = tuple[jax.Array, jax.Array | None]


class Metric(ABC):
    """What a Gauss-Newton matrix has between the Jacobians."""

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    def rank(self) -> int | None:
        """The rank of an example's block where it is known; None for that of the outputs."""
        return None

    @abstractmethod
    def product(self, form: Form, out: jax.Array) -> Callable[[jax.Array], jax.Array]:
        """Return the product with rows, at outputs given as rows."""

    @abstractmethod
    def factors(self, form: Form, out: jax.Array) -> Factors:
        """Return the blocks as factors."""

    def check(self, form: Form, out: jax.Array, /) -> None:  # noqa: B027
        """Refuse outputs that the metric does not fit."""


def units(out: jax.Array) -> jax.Array:
    """Return the unit vectors of every example's outputs, `(D, N, D)`."""
    count, size = out.shape
    return jnp.broadcast_to(jnp.eye(size, dtype=out.dtype)[:, None], (size, count, size))


@partial(jax.tree_util.register_dataclass, data_fields=["loss"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class LossMetric(Metric):
    """The Hessian of a loss by the outputs."""

    loss: Call

    @property
    def name(self) -> str:
        return self.loss.name

    def product(self, form: Form, out: jax.Array) -> Callable[[jax.Array], jax.Array]:
        """Return the product, by differentiation."""
        product: Callable[[jax.Array], jax.Array]
        _, product = jax.linearize(jax.grad(lambda rows: self.loss(form.outputs(rows))), out)
        return product

    def factors(self, form: Form, out: jax.Array) -> Factors:
        """Return unit vectors and the blocks, from one product for each output."""
        columns = jax.vmap(self.product(form, out))(units(out))
        return units(out), columns.transpose(1, 2, 0)

    def check(self, form: Form, out: jax.Array, /) -> None:
        """Refuse a loss that is no scalar."""
        found = jax.eval_shape(self.loss, form.outputs(out))
        if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.floating):
            raise ArgumentError(
                f"{self.name}: expected a loss(outputs, y) that returns one real number, "
                f"found {found}; return a mean or a sum, without auxiliary results"
            )
