"""Eigenvalues and what follows from them: some pairs, inertia, norms, condition."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import ArgumentError, ArgumentTypeError, CurvatureError
from ..._tree.leaves import describe
from .._autodiff import dense
from .._operators.base import Operator

_SMALL = 512  # up to this size the matrix itself is decomposed


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Eigenpairs:
    """Eigenvalues `(k,)`, eigenvectors `(n, k)` in columns, and the norms of `A @ v - value * v`.

    They unpack as SciPy's do: `values, vectors = eigsh(op, 3)`. Every true eigenvalue that
    belongs to a pair is within its residual of the value.
    """

    values: jax.Array
    vectors: jax.Array
    residuals: jax.Array

    def __iter__(self) -> Iterator[jax.Array]:
        return iter((self.values, self.vectors))

    def __repr__(self) -> str:
        values = ", ".join(f"{x:.5g}" for x in self.values[:5].tolist())
        more = ", ..." if len(self.values) > 5 else ""
        return f"Eigenpairs([{values}{more}], residuals up to {float(self.residuals.max()):.1e})"


def eigsh(
    op: Operator,
    /,
    k: int = 6,
    which: Literal["LM", "LA", "SA"] = "LM",
    *,
    key: Any = None,
    tol: float | None = None,
    maxiter: int = 200,
) -> Eigenpairs:
    """Return some eigenvalues and eigenvectors of an operator, with residuals.

    Up to 512 parameters the matrix is decomposed, and beyond where k is more than a sixteenth of
    them. Otherwise a block of k vectors is multiplied at a time, in a search space that grows by
    residuals and is restarted: several equal eigenvalues are all found, which one vector of Lanczos
    cannot do.

    Args:
      op: an operator.
      k: how many pairs.
      which: `"LM"` for the largest in magnitude, `"LA"` for the largest, `"SA"` for the smallest.
      key: the PRNG key of the first block; one is fixed if none is given.
      tol: the residuals to reach, as a part of the largest magnitude found; by default the square
        root of the dtype's precision.
      maxiter: the most blocks to multiply.

    Returns:
      `Eigenpairs`, the wanted end of the spectrum first. If `maxiter` was reached, the residuals
      say how good they are.

    Raises:
      ArgumentError: `which`, `k` or `maxiter` is out of range.
      ArgumentTypeError: `k` is no whole number.

    Example:
      >>> op = jtree.curvature.hessian(lambda v: v[0] ** 2 - 3 * v[1] ** 2, jnp.ones(2))
      >>> jtree.curvature.eigsh(op, 2).values.round(4)
      Array([-6.,  2.], dtype=float32)

    Source: Stathopoulos and Saad, "Restarting techniques for the (Jacobi-)Davidson symmetric
    eigenvalue methods", ETNA 7, 1998; names of `scipy.sparse.linalg.eigsh`.
    """
    if which not in ("LM", "LA", "SA"):
        raise ArgumentError(f"which: expected 'LM', 'LA' or 'SA', found {which!r}")
    _check_counts(op, k, maxiter)
    if op.size <= max(_SMALL, 2 * _width(k)):  # beyond, the search takes less memory
        return _of_matrix(op, op.dense(progress=False), k, which)
    tol = math.sqrt(jnp.finfo(op.dtype).eps) if tol is None else tol
    return _search(op, k, which, jax.random.key(0) if key is None else key, tol, maxiter)


def _check_counts(op: Operator, k: Any, maxiter: Any) -> None:
    if not isinstance(k, int | np.integer) or isinstance(k, bool):
        raise ArgumentTypeError(f"k: expected a whole number of pairs, found {describe(k)}")
    if not 1 <= k <= op.size:
        expected = f"between 1 and {op.size}" if op.size else "an operator of one parameter or more"
        raise ArgumentError(f"k: expected {expected}, found {op.size and k}")
    if maxiter < 1:
        raise ArgumentError(f"maxiter: expected 1 or more, found {maxiter}")


def _width(k: int) -> int:
    """Return how many vectors the search space for k pairs has."""
    return max(8 * k, k + 40)


def _of_matrix(op: Operator, matrix: jax.Array, k: int, which: str) -> Eigenpairs:
    values, vectors = jnp.linalg.eigh(dense.wide(matrix))
    chosen = _wanted(values, k, which)
    values, vectors = values[chosen], vectors[:, chosen]
    residuals = jnp.linalg.norm(dense.wide(op.mv(vectors)) - vectors * values, axis=0)
    return _narrow(Eigenpairs(values, vectors, residuals), op.dtype)


def _narrow(found: Eigenpairs, dtype: Any) -> Eigenpairs:
    return Eigenpairs(*(x.astype(dtype) for x in (found.values, found.vectors, found.residuals)))


def _wanted(values: jax.Array, k: int, which: str) -> jax.Array:
    """Return the places of the wanted ones among values, the wanted end first."""
    rank = {"LM": -jnp.abs(values), "LA": -values, "SA": values}[which]
    return jnp.argsort(rank)[:k]


class _Space(NamedTuple):
    """A basis with orthonormal columns, its product with the operator, and how much is filled."""

    basis: jax.Array
    product: jax.Array
    filled: jax.Array


def _search(op: Operator, k: int, which: str, key: Any, tol: float, maxiter: int) -> Eigenpairs:
    width = _width(k)
    empty = dense.wide(jnp.zeros((op.size, width), op.dtype))
    space = _Space(empty, empty.copy(), jnp.zeros((), int))
    block = _orthonormal(space.basis, dense.wide(jax.random.normal(key, (op.size, k), op.dtype)))
    found: Eigenpairs
    for _ in range(maxiter):
        space = _grow(space, block, dense.wide(op.mv(block)))
        found, block, largest = _ritz(space, k, which)
        if float(found.residuals.max()) <= tol * float(largest):
            break
        if int(space.filled) + k > width:
            space = _restart(space, min(3 * k, width - 2 * k), which)
    return _narrow(found, op.dtype)


@partial(jax.jit, donate_argnums=0)
def _grow(space: _Space, block: jax.Array, product: jax.Array) -> _Space:
    at = (0, space.filled)
    return _Space(
        jax.lax.dynamic_update_slice(space.basis, block, at),
        jax.lax.dynamic_update_slice(space.product, product, at),
        space.filled + block.shape[1],
    )


@partial(jax.jit, static_argnums=(1, 2))
def _ritz(space: _Space, k: int, which: str) -> tuple[Eigenpairs, jax.Array, jax.Array]:
    """Return the wanted pairs of the search space, what to add to it, and its largest value."""
    values, mixed, unused = _small(space)
    chosen = _wanted(jnp.where(unused, _worst(values, which), values), k, which)
    vectors, values_ = space.basis @ mixed[:, chosen], values[chosen]
    residuals = space.product @ mixed[:, chosen] - vectors * values_
    pairs = Eigenpairs(values_, vectors, jnp.linalg.norm(residuals, axis=0))
    largest = jnp.abs(jnp.where(unused, 0, values)).max()
    return pairs, _orthonormal(space.basis, residuals), largest


def _small(space: _Space) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the eigenvalues and vectors of the small matrix, and which stand for empty columns."""
    small = space.basis.T @ space.product
    values, mixed = jnp.linalg.eigh((small + small.T) / 2)
    filled = (jnp.arange(len(values)) < space.filled).astype(values.dtype)
    return values, mixed, jnp.linalg.norm(mixed * filled[:, None], axis=0) < 0.5


def _worst(values: jax.Array, which: str) -> jax.Array:
    return jnp.array({"LM": 0.0, "LA": -jnp.inf, "SA": jnp.inf}[which], values.dtype)


@partial(jax.jit, static_argnums=(1, 2))
def _restart(space: _Space, keep: int, which: str) -> _Space:
    """Return the search space with its best directions only."""
    values, mixed, unused = _small(space)
    chosen = _wanted(jnp.where(unused, _worst(values, which), values), keep, which)
    blank = jnp.zeros_like(space.basis)
    basis = blank.at[:, :keep].set(space.basis @ mixed[:, chosen])
    product = blank.at[:, :keep].set(space.product @ mixed[:, chosen])
    return _Space(basis, product, jnp.array(keep))


@jax.jit
def _orthonormal(basis: jax.Array, block: jax.Array) -> jax.Array:
    """Return a block made orthonormal, against a basis too: three times, for rounding and gaps."""
    for _ in range(3):
        block = block / jnp.maximum(jnp.linalg.norm(block, axis=0), jnp.finfo(block.dtype).tiny)
        block = jnp.linalg.qr(block - basis @ (basis.T @ block))[0]
    return block


class Inertia(NamedTuple):
    """How many eigenvalues are positive, negative, and zero to rounding."""

    positive: int
    negative: int
    zero: int


def inertia(op: Operator, /, *, tol: float | None = None) -> Inertia:
    """Return how many eigenvalues of an operator are positive, negative and zero, by its matrix.

    Args:
      op: an operator.
      tol: what counts as zero, as a part of the largest magnitude; by default n times the dtype's
        precision.

    Returns:
      An `Inertia`.

    Raises:
      ArgumentError: the matrix needs more memory than there is.
      CurvatureError: the matrix has numbers that are not finite.

    Example:
      >>> saddle = jtree.curvature.hessian(lambda v: v[0] ** 2 - v[1] ** 2 + 0 * v[2], jnp.ones(3))
      >>> jtree.curvature.inertia(saddle)
      Inertia(positive=1, negative=1, zero=1)

    Source: Sylvester's law of inertia, Philosophical Magazine 4, 1852,
    doi:10.1080/14786445208647087.
    """
    values = np.asarray(jnp.linalg.eigvalsh(dense.wide(op.dense())))
    if not np.isfinite(values).all():
        raise CurvatureError("inertia: the matrix has entries that are not finite")
    tol = op.size * float(jnp.finfo(op.dtype).eps) if tol is None else tol
    limit = tol * np.abs(values).max(initial=0.0)
    positive, negative = int((values > limit).sum()), int((values < -limit).sum())
    return Inertia(positive, negative, len(values) - positive - negative)


def norm(op: Operator, /, ord: Literal[2, "fro"] = 2) -> jax.Array:
    """Return the largest magnitude of an eigenvalue, or the Frobenius norm.

    Args:
      op: an operator.
      ord: 2, from products; or `"fro"`, from the matrix.

    Returns:
      A scalar of the operator's dtype.

    Raises:
      ArgumentError: another `ord`.

    Example:
      >>> op = jtree.curvature.hessian(lambda v: 3 * v[0] ** 2 + 4 * v[1] ** 2, jnp.ones(2))
      >>> jtree.curvature.norm(op).item(), jtree.curvature.norm(op, "fro").item()
      (8.0, 10.0)
    """
    if ord not in (2, "fro"):
        raise ArgumentError(f"ord: expected 2 or 'fro', found {ord!r}")
    if not op.size:
        return jnp.zeros((), op.dtype)
    if ord == 2:
        return jnp.abs(eigsh(op, 1).values[0])
    found: jax.Array = jnp.linalg.norm(op.dense())
    return found


def cond(op: Operator, /) -> jax.Array:
    """Return the largest magnitude of an eigenvalue over the smallest, by the matrix.

    Args:
      op: an operator.

    Returns:
      A scalar of the operator's dtype; infinite for a singular matrix.

    Raises:
      ArgumentError: the matrix needs more memory than there is, or has no rows.

    Example:
      >>> op = jtree.curvature.hessian(lambda v: v[0] ** 2 - 4 * v[1] ** 2, jnp.ones(2))
      >>> jtree.curvature.cond(op).item()
      4.0
    """
    if not op.size:
        raise ArgumentError("cond: expected an operator of one parameter or more, found 0 x 0")
    values = jnp.abs(jnp.linalg.eigvalsh(dense.wide(op.dense())))
    least, most = values.min(), values.max()
    return jnp.where(most > 0, most / least, most + jnp.inf).astype(op.dtype)
