"""Thick-restart Lanczos for the pairs at an end of the spectrum."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import ArgumentError, CurvatureError
from ..._tree.leaves import istracer
from .._autodiff.finite import power_of_two, require_finite_rows
from .._autodiff.protocol import Symmetric
from .search_space import Array, RitzPairs, SearchSpace, Values

_INTERVAL = 4  # vectors between two looks at the residuals
_ROUNDING = 10  # residuals of this many times the dtype's precision are as small as they get
_MAX_DENSE = 2048  # up to this size the matrix is decomposed rather than multiplied more often
_MAX_HOST = 2**22  # elements of a search space, up to which NumPy is as fast as JAX
_MIN_TRIAL = 8  # vectors


class Request(NamedTuple):
    """A request to `eigsh`, and the number of vectors in a block.

    An operator that reads data multiplies k vectors at once; elsewhere one takes the fewest
    products.
    """

    k: int
    which: str
    tol: float
    maxiter: int
    size: int

    @property
    def width(self) -> int:
        """The number of vectors in the search space."""
        return max(32, 2 * self.k + 20) if self.size == 1 else max(8 * self.k, self.k + 40)

    def kept(self, block: Array) -> int:
        """Return how many vectors a restart keeps, so that another block fits."""
        return min(self.k + (self.width - self.k) // 3, self.width - int(block.shape[1]))

    def limits(self, values: Values, largest: float, dtype: Any) -> Values:
        """Return the residuals to reach, relative to each value, and no less than rounding."""
        rounding = _ROUNDING * float(jnp.finfo(dtype).eps) * largest
        return np.maximum(float(self.tol) * np.abs(values), rounding)


class Trial:
    """A search for further copies of the eigenvalues, once pairs have converged.

    The Krylov space of one vector has one eigenvector of each eigenvalue. So a random vector is
    added, and pairs are confirmed if they last for a third as many products as they took to
    converge. If a copy appears instead, the search continues with blocks of one more vector.
    """

    def __init__(self, space: SearchSpace, k: int) -> None:
        self._space, self._k = space, k
        self._length = self._end = 0

    def confirms(self, converged: bool, count: int) -> bool:
        """Return whether pairs are confirmed after this many products; begin and end a trial."""
        if not self._end and self._space.block.shape[1] == self._k:  # there are k copies of each
            return converged
        if self._end and not converged:
            self._space.reunite()
            self._end = 0
        elif converged and not self._end:
            self._length = self._length or max(_MIN_TRIAL, count // 3)
            self._end = count + self._length
            self._space.randomize()
        return converged and count >= self._end


def search(op: Symmetric, request: Request, key: Any) -> RitzPairs | None:
    """Return pairs that have converged, or None where decomposing the matrix takes less time."""
    space, product, scale = _start(op, request, key)
    trial = Trial(space, request.k)
    count, due, most = 0, request.k, request.maxiter * request.k
    while op.size > min(count, _MAX_DENSE):
        count += space.block.shape[1]
        space.extend(_divide(product, scale, op, space))
        if count >= min(due, most):
            due, pairs = count + _INTERVAL, _converged(space, request, op.dtype)
            confirmed = trial.confirms(pairs is not None, count)
            if pairs and (confirmed or count >= most):
                return pairs.scaled(scale)
            if count >= most:
                raise CurvatureError(_no_convergence(space, request, scale, op.dtype))
        if space.full:
            space.restart(request.kept(space.block), request.which)
        product = _multiply(op, space.block)
    return None


def _start(op: Symmetric, request: Request, key: Any) -> tuple[SearchSpace, jax.Array, float]:
    """Return an empty space, the product with its first block, and the scale of the operator."""
    random, dtype = _generator(key, op), np.promote_types(op.dtype, np.float32)
    block = np.linalg.qr(random.standard_normal((op.size, request.size)))[0].astype(dtype)
    product = _multiply(op, block)
    _require_concrete(product, op)
    require_finite_rows(op, product, "eigsh")
    on_cpu = all(device.platform == "cpu" for device in product.devices())
    host = on_cpu and op.size * request.width <= _MAX_HOST
    return SearchSpace(block, request.width, random, host), product, float(power_of_two(product))


def _generator(key: Any, op: Symmetric) -> np.random.Generator:
    """Return a generator of values on the host, which depends on a PRNG key."""
    if key is None:
        return np.random.default_rng(0)
    data = jax.random.key_data(key)
    _require_concrete(data, op)
    return np.random.default_rng(np.asarray(data).ravel().tolist())


def _require_concrete(array: jax.Array, op: Symmetric) -> None:
    if istracer(array):
        raise ArgumentError(
            f"eigsh: within jit it takes up to 512 parameters, found {op.size}; "
            "call it outside of jit"
        )


def _multiply(op: Symmetric, block: Array) -> jax.Array:
    return op.mv(block[:, 0] if block.shape[1] == 1 else block)


def _divide(product: jax.Array, scale: float, op: Symmetric, space: SearchSpace) -> Array:
    """Return a product as columns for a space, or raise if it is not finite."""
    array = space.xp.asarray(product, space.basis.dtype).reshape(op.size, -1) / scale
    if not space.xp.isfinite(array).all():
        require_finite_rows(op, product, "eigsh")
    return array


def _converged(space: SearchSpace, request: Request, dtype: Any) -> RitzPairs | None:
    """Return the requested pairs if they have converged; the residuals are estimated first."""
    values, estimates = space.estimate(request.k, request.which)
    limits = request.limits(values, space.largest, dtype)
    if space.block.shape[1] == 1 and (estimates > limits).any():
        return None
    pairs = space.ritz(request.k, request.which)
    return pairs if (pairs.residuals <= limits).all() else None


def _no_convergence(space: SearchSpace, request: Request, scale: float, dtype: Any) -> str:
    pairs = space.ritz(request.k, request.which)
    limits = request.limits(pairs.values, space.largest, dtype)
    count = int((pairs.residuals > limits).sum())
    residual, limit = float(pairs.residuals.max()) * scale, float(limits.min()) * scale
    return (
        f"eigsh: no convergence: after {request.maxiter} blocks {count} of {len(limits)} residuals "
        f"are too large, up to {residual:.2g} where {limit:.2g} is allowed; "
        "pass a larger maxiter= or tol="
    )
