"""The density of an operator's eigenvalues, by stochastic Lanczos quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..._arguments import check_callable, check_integer, check_key, unexpected
from ..._errors import ArgumentError, CurvatureError, VectorTypeError
from ..._tree.leaves import describe, istracer
from .._autodiff import dense, host
from .._autodiff.arguments import check_scalar, import_extra
from .._autodiff.finite import power_of_two, require_finite
from .._operators.base import Operator, require_operator
from .decomposed import decompose
from .estimate import Estimate

_LEAST_WEIGHT = 1e-9  # of a node; smaller weights are due to rounding


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
        valid = self.weights > _LEAST_WEIGHT
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
        sigma = 0.01 * self._scale if width is None else jnp.asarray(width, self.nodes.dtype)

        def bumps(at: jax.Array) -> jax.Array:
            return jnp.exp(-0.5 * ((at - self.nodes) / sigma) ** 2)

        return self._average(bumps, at) / (sigma * math.sqrt(2 * math.pi))

    def cdf(self, at: Any, /) -> jax.Array:
        """Return the share of the eigenvalues that are at most this large, at some points."""
        return self._average(lambda at: (self.nodes <= at).astype(self.nodes.dtype), at)

    def moment(self, power: int, /) -> jax.Array:
        """Return the mean of a power of the eigenvalues; times `size`, the trace of the power."""
        check_scalar("power", power)
        return (self.weights * self.nodes**power).sum(-1).mean()

    def _average(self, shares: Callable[[jax.Array], jax.Array], at: Any) -> jax.Array:
        """Return the mean over the runs of the weighted shares of the nodes, point by point."""
        try:
            points = jnp.asarray(at, self.nodes.dtype)
        except (TypeError, ValueError) as error:
            message = f"at: expected an array of real values, found {describe(at)}"
            raise VectorTypeError(message) from error

        def average(point: jax.Array) -> jax.Array:
            return (shares(point) * self.weights).sum(-1).mean()

        # a point is a scalar here, which jax_numpy_rank_promotion="raise" accepts
        averages: jax.Array = jax.vmap(average)(points.ravel()).reshape(points.shape)
        return averages

    def trace(self, f: Callable[[jax.Array], Any], /) -> Estimate:
        """Return the trace of a function of the operator, with its standard error.

        That of the logarithm is the log-determinant. The standard error is that of the random
        vectors; where the steps are too few for the function, as for a logarithm close to zero,
        the error of the quadrature adds to it. With all eigenvalues, from `method="exact"`, the
        trace is exact.

        Args:
          f: a function of an array of eigenvalues, by element, such as `jnp.log`, or
            `lambda x: jnp.log(x + damping)`.

        Returns:
          An `Estimate`.

        Raises:
          CurvatureError: the function is not finite at a node.
          ArgumentError: the function does not return an array of the same shape.

        Example:
          >>> op = jtree.curvature.hessian(lambda v: 2 * (v ** 2).sum(), jnp.ones(10))
          >>> spectrum = jtree.curvature.spectrum(op, method="exact")
          >>> spectrum.trace(jnp.log)
          Estimate(13.8629, error=0)

        Source: Ubaru, Chen and Saad, SIMAX 38, 2017, doi:10.1137/16M1104974.
        """
        used = self.weights > _LEAST_WEIGHT
        # a node of no weight may lie anywhere, also where the function is not defined
        nodes = jnp.where(used, self.nodes, jnp.take_along_axis(self.nodes, _heaviest(self), 1))
        values = _evaluate(f, nodes)
        runs = self.size * jnp.where(used, self.weights * values, 0).sum(-1)
        exact = (self.weights == 1 / self.size).all() & (self.nodes.shape[1] == self.size)
        count = len(runs)
        deviation = runs.std(ddof=1) / count**0.5 if count > 1 else jnp.nan * runs[0]
        value = runs.mean()
        error = jnp.hypot(deviation, jnp.finfo(runs.dtype).eps * jnp.abs(value))
        return Estimate(value, jnp.where(exact, 0, error))

    def __repr__(self) -> str:
        if istracer(self.nodes):
            return f"Spectrum(nodes={describe(self.nodes)}, weights={describe(self.weights)})"
        low, high = self.range
        samples, steps = self.nodes.shape
        return f"Spectrum({low:.4g} to {high:.4g}, {samples} runs of {steps} steps)"


def _heaviest(spectrum: Spectrum) -> jax.Array:
    """Return the index of the largest weight in each run, as a column."""
    return spectrum.weights.argmax(1, keepdims=True)


def _evaluate(f: Callable[[jax.Array], Any], nodes: jax.Array) -> jax.Array:
    """Return a function of nodes, or raise where it is not finite."""
    try:
        values = jnp.asarray(check_callable("f", f)(nodes))
    except TypeError as error:
        raise unexpected("f", "a function of an array, such as jnp.log", f) from error
    if values.shape != nodes.shape or jnp.iscomplexobj(values):
        raise ArgumentError(
            f"f: expected real values of shape {nodes.shape}, one for each node, "
            f"found {describe(values)}"
        )
    if not istracer(values) and not bool(jnp.isfinite(values).all()):
        node = float(nodes[~jnp.isfinite(values)][0])
        raise CurvatureError(
            f"trace: the function is not finite at the eigenvalue {node:.4g}; add a damping, as in "
            "spectrum.trace(lambda x: jnp.log(x + 0.1))"
        )
    return values


def spectrum(
    op: Operator,
    /,
    *,
    key: Any = None,
    samples: int = 10,
    steps: int = 80,
    method: Literal["lanczos", "exact"] = "lanczos",
) -> Spectrum:
    """Return the density of an operator's eigenvalues, by stochastic Lanczos quadrature.

    Args:
      op: an operator.
      key: the PRNG key of the vectors that the runs start from.
      samples: the number of runs; their vectors are multiplied together.
      steps: the number of products in each run. The extreme eigenvalues converge first.
      method: `"lanczos"`; or `"exact"` for all eigenvalues, by the matrix, without a key.

    Returns:
      A `Spectrum`, with `.density(points)`, `.grid()`, `.cdf(points)`, `.moment(power)` and
      `.trace(function)`.

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
    if not isinstance(method, str) or method not in ("lanczos", "exact"):
        raise ArgumentError(f"method: expected one of 'lanczos', 'exact', found {method!r}")
    if key is None and method == "lanczos":
        raise ArgumentError("spectrum samples vectors; pass key=jax.random.key(0)")
    if key is not None:
        check_key("key", key)
    samples, steps = check_integer("samples", samples), check_integer("steps", steps)
    if not op.size:
        raise ArgumentError("spectrum: expected an operator with at least one row, found 0 x 0")
    if samples < 1 or steps < 1:
        raise ArgumentError(
            f"spectrum: expected samples and steps of 1 or more, found {samples} and {steps}"
        )
    require_finite(op, "spectrum")
    if method == "exact":
        nodes = decompose(op.dense()).values[None]
        return Spectrum(nodes, jnp.full_like(nodes, 1 / op.size), op.size)
    nodes, weights = host.run(_quadrature, op, key, samples, min(steps, op.size))
    return Spectrum(nodes, weights, op.size)


@partial(jax.jit, static_argnums=(2, 3))
def _quadrature(op: Operator, key: Any, samples: int, steps: int) -> tuple[jax.Array, jax.Array]:
    # not tridiag_sym, which averages both triangles: after a breakdown the upper one is arbitrary
    lanczos = import_extra("matfree.decomp").hessenberg(steps, reortho="full", custom_vjp=False)
    product = op.linear()
    starts = dense.promote(jax.random.rademacher(key, (samples, op.size), op.dtype))
    scale = power_of_two(dense.promote(product(starts[0].astype(op.dtype))))

    def linear(v: jax.Array) -> jax.Array:
        return dense.promote(product(v.astype(op.dtype))) / scale

    def run(start: jax.Array) -> tuple[jax.Array, jax.Array]:
        small = lanczos(linear, start).J_small
        return _discard_breakdown(jnp.diagonal(small), jnp.diagonal(small, -1))

    values, vectors = jnp.linalg.eigh(jax.vmap(_tridiagonal)(*jax.vmap(run)(starts)))
    return values * scale, vectors[:, 0] ** 2


def _discard_breakdown(diagonal: jax.Array, offdiagonal: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return a tridiagonal matrix without the entries past a breakdown of Lanczos."""
    scale = jnp.abs(diagonal[0]) + jnp.nan_to_num(jnp.abs(offdiagonal)).max(initial=0.0)
    valid = jnp.cumprod(offdiagonal > 4 * jnp.finfo(offdiagonal.dtype).eps * scale).astype(bool)
    kept = jnp.concatenate([jnp.ones(1, bool), valid])
    return jnp.where(kept, diagonal, diagonal[0]), jnp.where(valid, offdiagonal, 0)


def _tridiagonal(diagonal: jax.Array, offdiagonal: jax.Array) -> jax.Array:
    return jnp.diag(diagonal) + jnp.diag(offdiagonal, 1) + jnp.diag(offdiagonal, -1)
