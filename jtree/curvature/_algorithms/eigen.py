"""Some eigenvalues and eigenvectors of an operator."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ..._arguments import check_integer, check_key
from ..._errors import ArgumentError, ArgumentTypeError
from ..._tree.leaves import describe, istracer
from .._autodiff import dense
from .._autodiff.arguments import check_tol
from .._autodiff.finite import power_of_two, require_finite_rows
from .._operators.base import Operator, require_operator
from .lanczos import Request, search
from .search_space import select

_DENSE_SIZE = 512  # up to this size the matrix itself is decomposed
_DENSE_RATIO = 16  # and where k is not much smaller, since it takes less memory then


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
    with the vectors of a Krylov space, which is restarted, until the residuals are small. Since
    Lanczos with one vector finds one copy of an equal eigenvalue, a random vector is then added;
    if it brings further copies, the search continues with blocks. Data of `batched` are read for k
    vectors at once.

    Args:
      op: an operator.
      k: the number of pairs.
      which: `"LM"` for the largest in magnitude, `"LA"` for the largest, `"SA"` for the smallest.
      key: the PRNG key of the first block; by default a fixed one.
      tol: the residual to reach for each pair, relative to the magnitude of its eigenvalue; by
        default the square root of the dtype's precision. Residuals at the rounding of products are
        as small as they can be, and are accepted too.
      maxiter: the largest number of products, divided by k.

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

    Source: Wu and Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems",
    SIAM Journal on Matrix Analysis and Applications 22, 2000, doi:10.1137/S0895479898334605; named
    after `scipy.sparse.linalg.eigsh`.
    """
    require_operator(op, "eigsh")
    if not isinstance(which, str) or which not in ("LM", "LA", "SA"):
        raise ArgumentError(f"which: expected 'LM', 'LA' or 'SA', found {which!r}")
    _check_arguments(op, k, key, tol, maxiter)
    if op.size > max(_DENSE_SIZE, _DENSE_RATIO * k):
        tol = math.sqrt(jnp.finfo(op.dtype).eps) if tol is None else tol
        pairs = search(op, Request(int(k), which, tol, maxiter, 1 if op.traceable else int(k)), key)
        if pairs is not None:
            return Eigenpairs(*(jnp.asarray(x).astype(op.dtype) for x in pairs))
    return _decompose(op, op.dense(progress=False), k, which)


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


def _decompose(op: Operator, matrix: jax.Array, k: int, which: str) -> Eigenpairs:
    require_finite_rows(op, matrix, "eigsh")
    scale = power_of_two(matrix := dense.promote(matrix))
    values, vectors = jnp.linalg.eigh(matrix / scale)
    selected = select(values, k, which)
    values, vectors = values[selected], vectors[:, selected]
    product = dense.promote(op.mv(vectors)) / scale
    residuals = jnp.linalg.norm(product - vectors * values[None], axis=0)
    return _rescale(Eigenpairs(values, vectors, residuals), scale, op.dtype)


def _rescale(pairs: Eigenpairs, scale: jax.Array, dtype: Any) -> Eigenpairs:
    """Return the pairs of an operator from those of the operator divided by a scale."""
    values, residuals = pairs.values * scale, pairs.residuals * scale
    return Eigenpairs(*(x.astype(dtype) for x in (values, pairs.vectors, residuals)))
