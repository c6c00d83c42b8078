"""The density of an operator's eigenvalues, by stochastic Lanczos quadrature."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._arguments import check_integer, check_key
from ..._errors import ArgumentError, VectorTypeError
from ..._tree.leaves import describe, istracer
from .._autodiff import dense, host
from .._autodiff.arguments import check_scalar, import_extra
from .._autodiff.finite import require_finite
from .._operators.base import Operator, require_operator


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Spectrum:
    """A density of eigenvalues: what `spectrum` returns.

    Attributes:
      nodes: `(samples, steps)`, the quadrature nodes of each run of Lanczos.
      weights: `(samples, steps)`, their weights; those of a run sum to 1.
      size: the number of eigenvalues.
    """

    nodes: jax.Array
    weights: jax.Array
    size: Any

    @property
    def range(self) -> tuple[Any, Any]:
        """The smallest and the largest node with a weight above rounding: floats outside `jit`."""
        low, high = self._limits
        return (low, high) if istracer(low) else (float(low), float(high))

    @property
    def _limits(self) -> tuple[jax.Array, jax.Array]:
        valid = self.weights > 1e-9
        low, high = jnp.where(valid, self.nodes, jnp.inf), jnp.where(valid, self.nodes, -jnp.inf)
        return low.min(), high.max()

    @property
    def _scale(self) -> jax.Array:
        """The range of the spectrum; of a single eigenvalue its magnitude, or 1 if it is zero."""
        low, high = self._limits
        scale = jnp.where(high > low, high - low, jnp.abs(high))
        return jnp.where(scale > 0, scale, 1)

    def grid(self, points: int = 500, margin: float = 0.05) -> jax.Array:
        """Return evenly spaced points over the spectrum, with a margin on both sides."""
        check_integer("points", points, least=1)
        check_scalar("margin", margin)
        (low, high), width = self._limits, margin * self._scale
        return jnp.linspace(low - width, high + width, points, dtype=self.nodes.dtype)

    def density(self, at: Any, /, *, width: float | None = None) -> jax.Array:
        """Return the density at some points; it integrates to 1.

        Args:
          at: the points, of any shape.
          width: the standard deviation of the Gaussian that replaces each node; by default a
            hundredth of the spectrum's range.

        Returns:
          An array of the same shape.
        """
        if width is not None and not istracer(check_scalar("width", width)) and not width > 0:
            raise ArgumentError(f"width: expected more than 0, found {width}")
        sigma = 0.01 * self._scale if width is None else width
        at = self._as_points(at)
        bumps = jnp.exp(-0.5 * ((at - self.nodes) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
        density: jax.Array = (bumps * self.weights).sum(-1).mean(-1)
        return density

    def cdf(self, at: Any, /) -> jax.Array:
        """Return the share of the eigenvalues that are at most this large, at some points."""
        at = self._as_points(at)
        return jnp.where(self.nodes <= at, self.weights, 0).sum(-1).mean(-1)

    def moment(self, power: int, /) -> jax.Array:
        """Return the mean of a power of the eigenvalues; times `size`, the trace of the power."""
        check_scalar("power", power)
        return (self.weights * self.nodes**power).sum(-1).mean()

    def _as_points(self, at: Any) -> jax.Array:
        """Return the points of a function as an array with two axes more, for runs and nodes."""
        try:
            points = jnp.asarray(at, self.nodes.dtype)
        except (TypeError, ValueError) as error:
            message = f"at: expected an array of real values, found {describe(at)}"
            raise VectorTypeError(message) from error
        return points[..., None, None]

    def __repr__(self) -> str:
        if istracer(self.nodes):
            return f"Spectrum(nodes={describe(self.nodes)}, weights={describe(self.weights)})"
        low, high = self.range
        samples, steps = self.nodes.shape
        return f"Spectrum({low:.4g} to {high:.4g}, {samples} runs of {steps} steps)"


def spectrum(op: Operator, /, *, key: Any, samples: int = 10, steps: int = 80) -> Spectrum:
    """Return the density of an operator's eigenvalues, by stochastic Lanczos quadrature.

    Args:
      op: an operator.
      key: the PRNG key of the vectors that the runs start from.
      samples: the number of runs; their vectors are multiplied together.
      steps: the number of products in each run. The extreme eigenvalues converge first.

    Returns:
      A `Spectrum`, with `.density(points)`, `.grid()`, `.cdf(points)` and `.moment(power)`.

    Raises:
      ArgumentError: `samples` or `steps` is less than 1, or the operator has no rows.
      CurvatureError: the operator is not finite.

    Example:
      >>> saddle = lambda v: (v[:5] ** 2).sum() - (v[5:] ** 2).sum()
      >>> op = jtree.curvature.hessian(saddle, jnp.ones(10))
      >>> density = jtree.curvature.spectrum(op, key=jax.random.key(0), samples=30)
      >>> density
      Spectrum(-2 to 2, 30 runs of 10 steps)
      >>> density.cdf(jnp.array([-3.0, 0.0, 3.0])).round(1).tolist()
      [0.0, 0.5, 1.0]

    Source: Ubaru, Chen and Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature",
    SIMAX 38, 2017, doi:10.1137/16M1104974; Ghorbani, Krishnan and Xiao, ICML 2019,
    arXiv:1901.10159; Lanczos by `matfree`.
    """
    require_operator(op, "spectrum")
    if key is None:
        raise ArgumentError("spectrum samples vectors; pass key=jax.random.key(0)")
    check_key("key", key)
    samples, steps = check_integer("samples", samples), check_integer("steps", steps)
    if not op.size:
        raise ArgumentError("spectrum: expected an operator with at least one row, found 0 x 0")
    if samples < 1 or steps < 1:
        raise ArgumentError(
            f"spectrum: expected samples and steps of 1 or more, found {samples} and {steps}"
        )
    require_finite(op, "spectrum")
    nodes, weights = host.run(_quadrature, op, key, samples, min(steps, op.size))
    return Spectrum(nodes, weights, op.size)


@partial(jax.jit, static_argnums=(2, 3))
def _quadrature(op: Operator, key: Any, samples: int, steps: int) -> tuple[jax.Array, jax.Array]:
    # not tridiag_sym, which averages both triangles: after a breakdown the upper one is arbitrary
    lanczos = import_extra("matfree.decomp").hessenberg(steps, reortho="full", custom_vjp=False)
    product = op.linear()

    def linear(v: jax.Array) -> jax.Array:
        return dense.promote(product(v.astype(op.dtype)))

    def run(start: jax.Array) -> tuple[jax.Array, jax.Array]:
        small = lanczos(linear, start).J_small
        return _discard_breakdown(jnp.diagonal(small), jnp.diagonal(small, -1))

    starts = dense.promote(jax.random.rademacher(key, (samples, op.size), op.dtype))
    values, vectors = jnp.linalg.eigh(jax.vmap(_tridiagonal)(*jax.vmap(run)(starts)))
    return values, vectors[:, 0] ** 2


def _discard_breakdown(diagonal: jax.Array, offdiagonal: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return a tridiagonal matrix without the entries past a breakdown of Lanczos."""
    scale = jnp.abs(diagonal[0]) + jnp.nan_to_num(jnp.abs(offdiagonal)).max(initial=0.0)
    valid = jnp.cumprod(offdiagonal > 4 * jnp.finfo(offdiagonal.dtype).eps * scale).astype(bool)
    kept = jnp.concatenate([jnp.ones(1, bool), valid])
    return jnp.where(kept, diagonal, diagonal[0]), jnp.where(valid, offdiagonal, 0)


def _tridiagonal(diagonal: jax.Array, offdiagonal: jax.Array) -> jax.Array:
    return jnp.diag(diagonal) + jnp.diag(offdiagonal, 1) + jnp.diag(offdiagonal, -1)
