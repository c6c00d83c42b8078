"""Approximations with known eigenvectors, and their functions: solutions, determinants, samples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from ..._arguments import check_integer, check_key
from ..._errors import ArgumentError, CurvatureError
from ..._tree.leaves import istracer
from ..._tree.paths import Where
from .._autodiff import dense
from .._autodiff.arguments import as_columns, check_scalar
from .._autodiff.finite import power_of_two
from .._autodiff.pieces import labeled_pieces
from .._autodiff.protocol import Piecewise
from .._operators.base import Operator


class Eigenspace(NamedTuple):
    """The eigenpairs of one block on the diagonal; the block's other eigenvalues are zero.

    Attributes:
      values: `(k,)`.
      vectors: `(m, k)`, with orthonormal columns.
    """

    values: jax.Array
    vectors: jax.Array

    @property
    def rest(self) -> int:
        """The number of other eigenvalues."""
        return self.vectors.shape[0] - self.vectors.shape[1]

    def damped(self, damping: Any) -> jax.Array:
        """Return the eigenvalues plus a damping; where there are others, they come last, as one."""
        values = jnp.append(self.values, 0) if self.rest else self.values
        return values + jnp.asarray(check_scalar("damping", damping)).astype(values.dtype)

    def multiply(self, weights: jax.Array, v: jax.Array) -> jax.Array:
        """Return the product with a matrix of these eigenvectors and other eigenvalues."""
        inner = self.vectors.T @ v
        product = self.vectors @ (weights[: len(inner)] * inner)
        return product + weights[-1] * (v - self.vectors @ inner) if self.rest else product


def decompose(matrix: jax.Array) -> Eigenspace:
    """Return all eigenpairs of a matrix, in single precision at least."""
    scale = power_of_two(matrix := dense.promote(matrix))
    values, vectors = jnp.linalg.eigh(matrix / scale)
    return Eigenspace(values * scale, vectors)


def rounding(values: jax.Array) -> jax.Array:
    """Return the magnitude below which an eigenvalue is zero to rounding."""
    factor = 4 * len(values) ** 0.5 * float(jnp.finfo(values.dtype).eps)
    limit: jax.Array = factor * jnp.abs(values).max(initial=0)
    return limit


def reciprocal(values: jax.Array) -> jax.Array:
    """Return the inverses of eigenvalues; NaN for those that are zero to rounding."""
    regular = jnp.abs(values) > rounding(values)
    return jnp.where(regular, 1 / jnp.where(regular, values, 1), jnp.nan)


def only_positive(values: jax.Array) -> jax.Array:
    """Return eigenvalues, with NaN for those that are not positive beyond rounding."""
    return jnp.where(values > rounding(values), values, jnp.nan)


def _bounded_reciprocal(space: Eigenspace, damping: Any) -> jax.Array:
    """Return the inverses of the magnitudes of eigenvalues, the smallest one for all others."""
    values = jnp.abs(space.damped(damping)[: len(space.values)])
    least = jnp.maximum(rounding(values), jnp.finfo(values.dtype).tiny)
    inverses = 1 / jnp.maximum(values, least)
    return jnp.append(inverses, inverses.max()) if space.rest else inverses


class Decomposed(Operator):
    """An operator with known eigenvectors: a `BlockDiagonal` or a `Nystrom` approximation."""

    @property
    @abstractmethod
    def titles(self) -> tuple[str, ...]:
        """The names of the blocks, for messages."""

    @abstractmethod
    def eigenspaces(self) -> tuple[Eigenspace, ...]:
        """Return the eigenpairs of each block."""

    @abstractmethod
    def gather(self, v: jax.Array) -> list[jax.Array]:
        """Return the elements of a vector that belong to each block."""

    @abstractmethod
    def scatter(self, parts: Sequence[jax.Array]) -> jax.Array:
        """Return the vector with these elements."""

    def piecewise(self) -> Piecewise:
        return labeled_pieces(self)

    def restrict(self, where: Where, /) -> Operator:  # noqa: ARG002
        """Raise, since an approximation is that of an operator, which can be restricted."""
        raise ArgumentError("restrict: restrict the operator before it is approximated")

    def solve(self, b: Any, /, *, damping: Any = 0.0) -> jax.Array:
        """Return x with `(op + damping * I) @ x = b`, from the eigenvalues.

        Args:
          b: `(n,)`, or `(n, k)` for k systems.
          damping: a scalar that is added to every eigenvalue.

        Returns:
          An array of the shape of `b`. Within `jit`, a singular system has a solution of NaN.

        Raises:
          CurvatureError: an eigenvalue plus the damping is zero to rounding.
          VectorError: `b` has another length or rank.
        """
        columns = as_columns(b, self.size, self.dtype)
        inverse = self.function(reciprocal, damping, "solve")
        x: jax.Array = inverse(columns) if columns.ndim == 1 else jax.vmap(inverse, 1, 1)(columns)
        return x

    def known_solution(self, b: jax.Array, damping: Any) -> jax.Array:
        return self.solve(b, damping=damping)

    def logdet(self, damping: Any = 0.0, /) -> jax.Array:
        """Return the logarithm of the determinant of `op + damping * I`.

        Args:
          damping: a scalar that is added to every eigenvalue.

        Returns:
          A scalar of the operator's dtype. Within `jit` it is NaN where it would raise.

        Raises:
          CurvatureError: an eigenvalue plus the damping is not positive.
        """
        spaces = self.eigenspaces()
        logarithms = self._weights(spaces, lambda x: jnp.log(only_positive(x)), damping, "logdet")
        total = jnp.zeros((), dense.promoted(self.dtype))
        for space, x in zip(spaces, logarithms, strict=True):
            total = total + x.sum() + ((space.rest - 1) * x[-1] if space.rest else 0)
        return total.astype(self.dtype)

    def sample(self, samples: int = 1, /, *, key: Any, damping: Any = 0.0) -> jax.Array:
        """Return samples of a normal distribution with the precision `op + damping * I`.

        That is the posterior of a Laplace approximation, about zero: add the parameters. `damping`
        is the precision of the prior, for an operator that is a sum over examples.

        Args:
          samples: how many.
          key: the PRNG key.
          damping: a scalar that is added to every eigenvalue.

        Returns:
          `(samples, n)`. Within `jit` they are NaN where it would raise.

        Raises:
          CurvatureError: an eigenvalue plus the damping is not positive.
        """
        count = check_integer("samples", samples, least=1)
        normal = jax.random.normal(check_key("key", key), (count, self.size), self.dtype)
        root = self.function(lambda x: only_positive(x) ** -0.5, damping, "sample")
        rows: jax.Array = jax.vmap(root)(normal)
        return rows

    def as_preconditioner(self, damping: Any = 0.0, /) -> Partial:
        """Return a positive definite approximation of the inverse, for conjugate gradients.

        It is the inverse of `op + damping * I`, with the magnitudes of negative eigenvalues, and in
        place of unknown eigenvalues the smallest known one. `solve` calls this for an operator
        that is passed as `preconditioner=`.
        """
        spaces = self.eigenspaces()
        weights = tuple(_bounded_reciprocal(space, damping) for space in spaces)
        return Partial(_multiply, self, spaces, weights)

    def function(self, weigh: Callable[[jax.Array], jax.Array], damping: Any, name: str) -> Partial:
        """Return the product with a function of the operator, by its eigenvalues."""
        spaces = self.eigenspaces()
        return Partial(_multiply, self, spaces, self._weights(spaces, weigh, damping, name))

    def _weights(
        self,
        spaces: tuple[Eigenspace, ...],
        weigh: Callable[[jax.Array], jax.Array],
        damping: Any,
        name: str,
    ) -> tuple[jax.Array, ...]:
        """Return a function of all eigenvalues, or raise where it is not finite."""
        values = [space.damped(damping) for space in spaces]
        weights = tuple(map(weigh, values))
        for title, x, y in zip(self.titles, values, weights, strict=True):
            if not istracer(y) and not bool(jnp.isfinite(y).all()):
                raise CurvatureError(_explain(name, title, x))
        return weights


def _multiply(
    op: Decomposed, spaces: tuple[Eigenspace, ...], weights: tuple[jax.Array, ...], v: jax.Array
) -> jax.Array:
    parts = op.gather(dense.promote(v))
    products = [s.multiply(w, x) for s, w, x in zip(spaces, weights, parts, strict=True)]
    return op.scatter(products).astype(op.dtype)


def _explain(name: str, title: str, values: jax.Array) -> str:
    least = float(values.min())
    if not bool(jnp.isfinite(values).all()):
        return f"{name}: {title} has eigenvalues that are not finite"
    if name == "solve" or least >= -float(rounding(values)):
        return f"{name}: {title} is singular to rounding; add a larger damping="
    return (
        f"{name}: {title} is not positive definite: its smallest eigenvalue is {least:.3g}; "
        "add a larger damping=, or use a ggn"
    )
