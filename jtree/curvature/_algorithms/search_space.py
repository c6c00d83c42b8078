"""The space in which eigenpairs are searched: orthonormal vectors and their products."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

_LOST = 100  # a column shorter than this many times the precision is rounding
_PASSES = 5  # of orthogonalization; two are enough where no column is lost
_ONE_THREAD = 2**18  # multiplications in one product that BLAS computes without more threads

Array = Any  # of NumPy where the space is on the host, else of JAX
Values = np.ndarray[Any, Any]


class RitzPairs(NamedTuple):
    """Approximate eigenpairs, with the norms of their residuals."""

    values: Values
    vectors: Array
    residuals: Values

    def scaled(self, scale: float) -> RitzPairs:
        """Return the pairs of a multiple of the operator."""
        return RitzPairs(self.values * scale, self.vectors, self.residuals * scale)


class SearchSpace:
    """Orthonormal columns and their products with an operator, of which some are filled.

    Small spaces are arrays of NumPy, for which nothing has to be compiled; others are of JAX.

    Attributes:
      basis: `(n, width)`, the columns.
      product: `(n, width)`, the operator's product with them.
      small: `(width, width)`, the operator within the space; only the lower triangle is used.
      filled: the number of columns that are filled.
      block: the columns to multiply next.
      remainder: how much of the last product is outside of the space.
      largest: the largest magnitude of a value so far.
    """

    def __init__(self, block: Values, width: int, random: np.random.Generator, host: bool) -> None:
        self.xp: ModuleType = np if host else jnp
        shape = width, len(block)  # transposed, so that columns are contiguous
        self.basis: Array = self.xp.zeros(shape, block.dtype).T
        self.product: Array = self.xp.zeros(shape, block.dtype).T
        self.small = np.zeros((width, width))
        self.filled = 0
        self.block: Array = self.xp.asarray(block)
        self.remainder = self.largest = 0.0
        self._random = random
        self._aside: list[Array] = []

    @property
    def full(self) -> bool:
        """Whether another block does not fit."""
        return self.filled + int(self.block.shape[1]) > len(self.small)

    def extend(self, product: Array) -> None:
        """Add the block, given its product; the next block is that of the Krylov space."""
        start, self.filled = self.filled, self.filled + self.block.shape[1]
        self.basis = _write(self.basis, self.block, start)
        self.product = _write(self.product, product, start)
        basis = self._columns(self.basis)
        mixed = basis.T @ product
        self.small[start : self.filled, : self.filled] = np.asarray(mixed)[: self.filled].T
        outside = product - basis @ mixed
        self.remainder = float(self.xp.linalg.norm(outside))
        self.block = self._orthonormalize(outside)

    def randomize(self) -> None:
        """Set the next block aside, and begin with a random column instead."""
        self._aside.append(self.block)
        self.block = self._orthonormalize(self._normal(1))

    def reunite(self) -> None:
        """Return to the blocks that were set aside, together with the current one."""
        block = self.xp.concatenate([*self._aside, self.block], axis=1)
        self._aside = []
        self.block = self._orthonormalize(block)

    def estimate(self, k: int, which: str) -> tuple[Values, Values]:
        """Return the requested values, and estimates of their residuals.

        They are those of a Krylov space of vectors, too large for blocks, and too small after a
        random block.
        """
        values, vectors = self._decompose(k, which)
        last = vectors[self.filled - self.block.shape[1] :]
        return values, self.remainder * np.linalg.norm(last, axis=0)

    def ritz(self, k: int, which: str) -> RitzPairs:
        """Return the requested approximate pairs."""
        values, vectors = self._decompose(k, which)
        basis, product = self._combine(self.basis, vectors), self._combine(self.product, vectors)
        residuals = product - basis * self.xp.asarray(values, basis.dtype)[None]
        return RitzPairs(values, basis, np.asarray(self.xp.linalg.norm(residuals, axis=0)))

    def restart(self, count: int, which: str) -> None:
        """Keep the best directions only."""
        if self._aside:  # before the directions go that it has in common with the space
            self._aside = [self._orthonormalize(self.xp.concatenate(self._aside, axis=1))]
        values, vectors = self._decompose(count, which)
        self.basis = self._replace(self.basis, self._combine(self.basis, vectors))
        self.product = self._replace(self.product, self._combine(self.product, vectors))
        self.small[:count, :count] = np.diag(values)
        self.filled = count

    def _decompose(self, count: int, which: str) -> tuple[Values, Values]:
        """Return requested eigenpairs of the operator within the space."""
        small = self.small[: self.filled, : self.filled]
        values, vectors = scipy.linalg.eigh(small, check_finite=False)
        self.largest = max(self.largest, float(np.abs(values).max()))
        selected = select(values, count, which)
        return values[selected], vectors[:, selected]

    def _orthonormalize(self, block: Array) -> Array:
        """Return a block with orthonormal columns, orthogonal to the space.

        It is projected until that shortens no column. A column that is lost to rounding, as in an
        invariant space, is replaced by a random one.
        """
        xp, basis = self.xp, self._columns(self.basis)
        norms = xp.linalg.norm(block, axis=0)
        block = block / xp.where(norms > 0, norms, 1)[None]
        for _ in range(_PASSES):
            block, lengths = self._qr(block - basis @ (basis.T @ block))
            lost = lengths < _LOST * jnp.finfo(block.dtype).eps
            if lost.any():
                block = xp.where(xp.asarray(lost), self._normal(len(lost)), block)
            elif lengths.min() > 0.5:
                break
        return block

    def _qr(self, block: Array) -> tuple[Array, Values]:
        """Return orthonormal columns, and the length of each without those before it."""
        if block.shape[1] == 1:
            norm = self.xp.linalg.norm(block)
            return block / self.xp.where(norm > 0, norm, 1), np.asarray(norm)[None]
        block, triangle = self.xp.linalg.qr(block)
        return block, np.abs(np.diagonal(np.asarray(triangle)))

    def _combine(self, array: Array, vectors: Values) -> Array:
        """Return combinations of the filled columns of an array.

        NumPy takes a few rows at a time: the threads of BLAS wait for cores that those of XLA hold.
        """
        mixed = np.zeros((self._columns(array).shape[1], vectors.shape[1]), array.dtype)
        mixed[: self.filled] = vectors
        if self.xp is jnp:
            return array @ jnp.asarray(mixed)
        rows, columns = max(1, _ONE_THREAD // mixed.size), self._columns(array)
        return np.concatenate([columns[i : i + rows] @ mixed for i in range(0, len(array), rows)])

    def _columns(self, array: Array) -> Array:
        """Return the filled columns; in JAX all, since it would compile for each shape."""
        return array[:, : self.filled] if self.xp is np else array

    def _replace(self, array: Array, columns: Array) -> Array:
        """Return an array with these columns; in JAX the other ones are zero."""
        return _write(array if self.xp is np else jnp.zeros_like(array), columns, 0)

    def _normal(self, count: int) -> Array:
        shape = len(self.basis), count
        return self.xp.asarray(self._random.standard_normal(shape), self.basis.dtype)


def select(values: Array, k: int, which: str) -> Array:
    """Return the indices of the requested eigenvalues, the requested end first."""
    rank = {"LM": -abs(values), "LA": -values, "SA": values}[which]
    return rank.argsort(stable=True)[:k]


def _write(array: Array, columns: Array, start: int) -> Array:
    """Return an array with these columns from an index on, in place where that is possible."""
    if isinstance(array, np.ndarray):
        array[:, start : start + columns.shape[1]] = columns
        return array
    return _update(array, columns, start)


@jax.jit
def _update(array: jax.Array, columns: jax.Array, start: Any) -> jax.Array:
    return jax.lax.dynamic_update_slice(array, columns, (0, start))
