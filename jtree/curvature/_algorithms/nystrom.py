"""Randomized low-rank approximations of positive semidefinite operators.

The Nystrom factorizations of matfree serve its estimators of traces. They do not report negative
eigenvalues, of which a Hessian has many, and return factors instead of eigenpairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._arguments import check_integer, check_key, check_number
from ..._errors import ArgumentError, CurvatureError
from ..._tree.leaves import istracer
from ..._vector.restructure import Restructure
from .._autodiff import dense
from .._autodiff.finite import power_of_two, require_finite_rows
from .._autodiff.memory import require_memory
from .._operators.base import Operator, require_operator
from .decomposed import Decomposed, Eigenspace


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "vectors", "labels"],
    meta_fields=["source", "precision"],
)
@dataclass(frozen=True, eq=False, repr=False)
class Nystrom(Decomposed):
    """A low-rank approximation `vectors @ diag(values) @ vectors.T`: what `nystrom` returns.

    Attributes:
      values: `(rank,)`, the eigenvalues, the largest first. None is above that of the operator.
      vectors: `(n, rank)`, the eigenvectors.
    """

    values: jax.Array
    vectors: jax.Array
    labels: Restructure | None
    source: str
    precision: Any

    @property
    def size(self) -> int:
        return int(self.vectors.shape[0])

    @property
    def dtype(self) -> Any:
        return self.precision

    @property
    def re(self) -> Restructure | None:
        return self.labels

    @property
    def name(self) -> str:
        return f"rank {len(self.values)}, {self.source}"

    @property
    def semidefinite(self) -> bool:
        return True

    @property
    def titles(self) -> tuple[str, ...]:
        return (f"the approximation of rank {len(self.values)}",)

    def eigenspaces(self) -> tuple[Eigenspace, ...]:
        """Return the eigenpairs, as those of one block."""
        return (Eigenspace(self.values, self.vectors),)

    def gather(self, v: jax.Array) -> list[jax.Array]:
        """Return a list with the vector."""
        return [v]

    def scatter(self, parts: Sequence[jax.Array]) -> jax.Array:
        """Return the only vector of a list."""
        return parts[0]

    def linear(self) -> Callable[[jax.Array], jax.Array]:
        def product(v: jax.Array) -> jax.Array:
            inner = self.values * (self.vectors.T @ dense.promote(v))
            return (self.vectors @ inner).astype(self.dtype)

        return product

    def exact_diagonal(self) -> jax.Array:
        return (self.vectors**2 @ self.values).astype(self.dtype)


def nystrom(op: Operator, /, rank: int, *, key: Any = None, memory: int | None = None) -> Nystrom:
    """Return a randomized low-rank approximation of a positive semidefinite operator.

    It takes `rank` products, all at once, and captures the largest eigenvalues. The error is that
    of the best approximation of a somewhat smaller rank, so the spectrum should decay.

    Args:
      op: a positive semidefinite operator, such as a `ggn` or a `fisher`.
      rank: the number of products, and of eigenpairs.
      key: the PRNG key of the test vectors; by default a fixed one.
      memory: the bytes that the test vectors, their products and the eigenvectors may take; by
        default the free memory.

    Returns:
      A `Nystrom`: an operator with `values` and `vectors`, `solve(b, damping=...)`,
      `logdet(damping)` and `sample(samples, key=..., damping=...)`. Passed to `solve` as
      `preconditioner=`, it makes the number of products almost independent of the condition, for a
      damping that is not below its smallest eigenvalue.

    Raises:
      CurvatureError: the operator has negative eigenvalues, or is not finite.
      ArgumentError: `rank` is out of range, or the vectors need more memory than there is.

    Example:
      >>> op = jtree.curvature.hessian(lambda v: (v[:3] ** 2).sum(), jnp.ones(100))
      >>> approximation = jtree.curvature.nystrom(op, 5)
      >>> approximation.values.round(4)
      Array([2., 2., 2., 0., 0.], dtype=float32)
      >>> approximation.logdet(1.0).round(4)
      Array(3.2958, dtype=float32)

    Source: Frangella, Tropp and Udell, "Randomized Nystrom preconditioning", SIMAX 44, 2023,
    doi:10.1137/21M1466244.
    """
    require_operator(op, "nystrom")
    if not op.size:
        raise ArgumentError("nystrom: expected an operator with at least one row, found 0 x 0")
    rank = check_integer("rank", rank)
    if not 1 <= rank <= op.size:
        raise ArgumentError(f"rank: expected 1 to {op.size}, found {rank}")
    key = jax.random.key(0) if key is None else check_key("key", key)
    if memory is not None:
        check_number("memory", memory)
    nbytes = 3 * rank * op.size * max(4, np.dtype(op.dtype).itemsize)
    require_memory(nbytes, memory, f"an approximation of rank {rank} takes", "use a smaller rank")
    test = jnp.linalg.qr(jax.random.normal(key, (op.size, rank), dense.promoted(op.dtype)))[0]
    product = dense.promote(op.mv(test.astype(op.dtype)))
    require_finite_rows(op, product, "nystrom")
    space, least = _approximate(test, product, float(jnp.finfo(op.dtype).eps))
    if not istracer(least) and least < 0:
        raise CurvatureError(
            f"nystrom: the operator is not positive semidefinite: v @ op @ v is {least:.3g} for a "
            "unit vector; use a ggn, or add a damping: op.damped(...)"
        )
    return Nystrom(space.values, space.vectors, op.re, op.label, np.dtype(op.dtype))


@partial(jax.jit, static_argnums=2)
def _approximate(
    test: jax.Array, product: jax.Array, precision: float
) -> tuple[Eigenspace, jax.Array]:
    """Return the largest eigenpairs, and the least curvature if it is negative beyond rounding.

    `product @ core^-1 @ product.T` is factored by the eigenvalues of the core, since a Cholesky
    decomposition fails where the operator has a smaller rank.
    """
    scale = power_of_two(product)
    product = product / scale
    core = test.T @ product
    values, vectors = jnp.linalg.eigh((core + core.T) / 2)
    limit = 10 * len(test) ** 0.5 * precision * jnp.abs(values).max()
    root = jnp.where(values > limit, 1 / jnp.sqrt(jnp.maximum(values, limit)), 0)
    left, singular, _ = jnp.linalg.svd(product @ (vectors * root[None]), full_matrices=False)
    least = jnp.where(values[0] < -limit, values[0], 0)
    return Eigenspace(singular**2 * scale, left), least * scale
