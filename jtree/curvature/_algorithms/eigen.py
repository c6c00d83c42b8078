"""Some eigenvalues and eigenvectors of an operator."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._arguments import check_integer, check_key
from ..._errors import ArgumentError, ArgumentTypeError, CurvatureError
from ..._tree.leaves import describe, istracer
from .._autodiff import dense
from .._autodiff.arguments import check_tol
from .._autodiff.finite import power_of_two, require_finite_rows
from .._operators.base import Operator, require_operator

_DENSE_SIZE = 512  # up to this size the matrix itself is decomposed
_ROUNDING = 10  # residuals of this many times the dtype's precision are as small as they get


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Eigenpairs:
    """Eigenvalues `(k,)`, eigenvectors `(n, k)` in columns, and residuals `(k,)`.

    It unpacks as SciPy's result does, `values, vectors = eigsh(op, 3)`, and `pairs[0]` are the
    values. The residuals are the norms of `op @ vector - value * vector`; there is a true
    eigenvalue within each of its value.
    """

    values: jax.Array
    vectors: jax.Array
    residuals: jax.Array

    def __iter__(self) -> Iterator[jax.Array]:
        return iter((self.values, self.vectors))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int, /) -> jax.Array:
        return (self.values, self.vectors)[index]

    def __repr__(self) -> str:
        if istracer(self.values) or self.values.ndim != 1:
            return f"Eigenpairs(values={describe(self.values)}, vectors={describe(self.vectors)})"
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
    maxiter: int = 1000,
) -> Eigenpairs:
    """Return some eigenvalues and eigenvectors of an operator, with residuals.

    Up to 512 parameters, or 16 times `k`, the matrix is decomposed. Larger operators are multiplied
    with blocks of k vectors, in a search space that grows by the residuals and is restarted. Unlike
    the single vectors of Lanczos, blocks find eigenvalues of multiplicity up to k.

    Args:
      op: an operator.
      k: the number of pairs.
      which: `"LM"` for the largest in magnitude, `"LA"` for the largest, `"SA"` for the smallest.
      key: the PRNG key of the first block; by default a fixed one.
      tol: the residual to reach for each pair, relative to the magnitude of its eigenvalue; by
        default the square root of the dtype's precision. Residuals at the rounding of products are
        as small as they can be, and are accepted too.
      maxiter: the largest number of blocks to multiply.

    Returns:
      `Eigenpairs`, the requested end of the spectrum first.

    Raises:
      CurvatureError: the pairs did not converge, or the operator is not finite.
      ArgumentError: `which`, `k` or `maxiter` is out of range.
      ArgumentTypeError: `k` is not an integer, or `op` is not an operator.

    Example:
      >>> op = jtree.curvature.hessian(lambda v: v[0] ** 2 - 3 * v[1] ** 2, jnp.ones(2))
      >>> values, vectors = jtree.curvature.eigsh(op, 2)
      >>> values.round(4)
      Array([-6.,  2.], dtype=float32)

    Source: Stathopoulos and Saad, "Restarting techniques for the (Jacobi-)Davidson symmetric
    eigenvalue methods", ETNA 7, 1998; named after `scipy.sparse.linalg.eigsh`.
    """
    require_operator(op, "eigsh")
    if not isinstance(which, str) or which not in ("LM", "LA", "SA"):
        raise ArgumentError(f"which: expected 'LM', 'LA' or 'SA', found {which!r}")
    _check_arguments(op, k, key, tol, maxiter)
    if op.size <= max(_DENSE_SIZE, 2 * _width(k)):  # for more the search takes less memory
        return _decompose(op, op.dense(progress=False), k, which)
    tol = math.sqrt(jnp.finfo(op.dtype).eps) if tol is None else tol
    return _search(op, k, which, jax.random.key(0) if key is None else key, tol, maxiter)


def _check_arguments(op: Operator, k: Any, key: Any, tol: Any, maxiter: Any) -> None:
    if not isinstance(k, int | np.integer) or isinstance(k, bool):
        raise ArgumentTypeError(f"k: expected an integer, found {describe(k)}")
    if not op.size:
        raise ArgumentError("eigsh: expected an operator with at least one row, found 0 x 0")
    if not 1 <= k <= op.size:
        raise ArgumentError(f"k: expected 1 to {op.size}, found {k}")
    if check_integer("maxiter", maxiter) < 1:
        raise ArgumentError(f"maxiter: expected 1 or more, found {maxiter}")
    if key is not None:
        check_key("key", key)
    check_tol(tol)


def _width(k: int) -> int:
    """Return how many vectors the search space for k pairs has."""
    return max(8 * k, k + 40)


def _decompose(op: Operator, matrix: jax.Array, k: int, which: str) -> Eigenpairs:
    require_finite_rows(op, matrix, "eigsh")
    scale = power_of_two(matrix := dense.promote(matrix))
    values, vectors = jnp.linalg.eigh(matrix / scale)
    selected = _select(values, k, which)
    values, vectors = values[selected], vectors[:, selected]
    product = dense.promote(op.mv(vectors)) / scale
    residuals = jnp.linalg.norm(product - vectors * values, axis=0)
    return _rescale(Eigenpairs(values, vectors, residuals), scale, op.dtype)


def _rescale(pairs: Eigenpairs, scale: jax.Array, dtype: Any) -> Eigenpairs:
    """Return the pairs of an operator from those of the operator divided by a scale."""
    values, residuals = pairs.values * scale, pairs.residuals * scale
    return Eigenpairs(*(x.astype(dtype) for x in (values, pairs.vectors, residuals)))


def _select(values: jax.Array, k: int, which: str) -> jax.Array:
    """Return the indices of the requested eigenvalues, the requested end first."""
    rank = {"LM": -jnp.abs(values), "LA": -values, "SA": values}[which]
    return jnp.argsort(rank)[:k]


class SearchSpace(NamedTuple):
    """A basis with orthonormal columns, its product with the operator, and how many are filled."""

    basis: jax.Array
    product: jax.Array
    filled: jax.Array


def _search(op: Operator, k: int, which: str, key: Any, tol: float, maxiter: int) -> Eigenpairs:
    width = _width(k)
    empty = dense.promote(jnp.zeros((op.size, width), op.dtype))
    space = SearchSpace(empty, empty.copy(), jnp.zeros((), int))
    block = dense.promote(jax.random.normal(key, (op.size, k), op.dtype))
    block = _orthonormalize(space.basis, block)
    product = dense.promote(op.mv(block))
    if istracer(product):
        raise ArgumentError(
            f"eigsh: within jit it takes up to {_DENSE_SIZE} parameters, found {op.size}; "
            "call it outside of jit"
        )
    require_finite_rows(op, product, "eigsh")
    scale = power_of_two(product)
    for _ in range(maxiter):
        space = _extend(space, block, product / scale)
        pairs, block, largest = _ritz(space, k, which)
        limits = _residual_limits(pairs, largest, tol, op)
        if bool((pairs.residuals <= limits).all()):
            return _rescale(pairs, scale, op.dtype)
        if int(space.filled) + k > width:
            space = _restart(space, min(3 * k, width - 2 * k), which)
        product = dense.promote(op.mv(block))
    raise CurvatureError(_no_convergence(_rescale(pairs, scale, op.dtype), limits * scale, maxiter))


def _residual_limits(pairs: Eigenpairs, largest: jax.Array, tol: float, op: Operator) -> jax.Array:
    """Return the residuals to reach, relative to each eigenvalue, and no less than rounding."""
    rounding = _ROUNDING * float(jnp.finfo(op.dtype).eps) * largest
    return jnp.maximum(tol * jnp.abs(pairs.values), rounding)


def _no_convergence(pairs: Eigenpairs, limits: jax.Array, maxiter: int) -> str:
    count = int((pairs.residuals > limits).sum())
    residual, limit = float(pairs.residuals.max()), float(limits.min())
    return (
        f"eigsh: no convergence: after {maxiter} blocks {count} of {len(limits)} residuals are too "
        f"large, up to {residual:.2g} where {limit:.2g} is allowed; pass a larger maxiter= or tol="
    )


@partial(jax.jit, donate_argnums=0)
def _extend(space: SearchSpace, block: jax.Array, product: jax.Array) -> SearchSpace:
    start = (0, space.filled)
    return SearchSpace(
        jax.lax.dynamic_update_slice(space.basis, block, start),
        jax.lax.dynamic_update_slice(space.product, product, start),
        space.filled + block.shape[1],
    )


@partial(jax.jit, static_argnums=(1, 2))
def _ritz(space: SearchSpace, k: int, which: str) -> tuple[Eigenpairs, jax.Array, jax.Array]:
    """Return the Ritz pairs, the block that extends the search space, and the largest magnitude."""
    values, mixed, unused = _project(space)
    selected = _select(jnp.where(unused, _worst_value(values, which), values), k, which)
    vectors, ritz = space.basis @ mixed[:, selected], values[selected]
    residuals = space.product @ mixed[:, selected] - vectors * ritz
    pairs = Eigenpairs(ritz, vectors, jnp.linalg.norm(residuals, axis=0))
    largest = jnp.abs(jnp.where(unused, 0, values)).max()
    return pairs, _orthonormalize(space.basis, residuals), largest


def _project(space: SearchSpace) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the eigenpairs within the space, and whether each belongs to an empty column."""
    small = space.basis.T @ space.product
    values, mixed = jnp.linalg.eigh((small + small.T) / 2)
    filled = (jnp.arange(len(values)) < space.filled).astype(values.dtype)
    return values, mixed, jnp.linalg.norm(mixed * filled[:, None], axis=0) < 0.5


def _worst_value(values: jax.Array, which: str) -> jax.Array:
    """Return a value that is selected last."""
    return jnp.array({"LM": 0.0, "LA": -jnp.inf, "SA": jnp.inf}[which], values.dtype)


@partial(jax.jit, static_argnums=(1, 2))
def _restart(space: SearchSpace, keep: int, which: str) -> SearchSpace:
    """Return the search space with only its best directions."""
    values, mixed, unused = _project(space)
    selected = _select(jnp.where(unused, _worst_value(values, which), values), keep, which)
    blank = jnp.zeros_like(space.basis)
    basis = blank.at[:, :keep].set(space.basis @ mixed[:, selected])
    product = blank.at[:, :keep].set(space.product @ mixed[:, selected])
    return SearchSpace(basis, product, jnp.array(keep))


@jax.jit
def _orthonormalize(basis: jax.Array, block: jax.Array) -> jax.Array:
    """Return a block with orthonormal columns, orthogonal to a basis.

    Three times, since rounding and columns of rank less than k spoil the first result.
    """
    for _ in range(3):
        block = block / jnp.maximum(jnp.linalg.norm(block, axis=0), jnp.finfo(block.dtype).tiny)
        block = jnp.linalg.qr(block - basis @ (basis.T @ block))[0]
    return block
