"""Diagonals and traces of operators, exact or estimated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..._arguments import check_integer, check_key
from ..._errors import ArgumentError
from ..._tree.leaves import istracer
from .._autodiff import dense, host
from .._autodiff.arguments import import_extra
from .._autodiff.finite import require_finite
from .._operators.base import Operator, require_operator
from .estimate import Estimate


def diagonal(
    op: Operator,
    /,
    method: Literal["exact", "hutchinson", "xdiag"] = "exact",
    *,
    key: Any = None,
    samples: int = 100,
) -> jax.Array:
    """Return the diagonal of an operator.

    The exact diagonal of a `ggn` or `fisher` is computed from the Jacobians of single examples, in
    batches, at the cost of one gradient per example and output. That of a Hessian takes n products,
    each differentiated by one parameter only.

    Args:
      op: an operator.
      method: `"exact"`; `"hutchinson"`, the mean of `z * (op @ z)` over random sign vectors; or
        `"xdiag"`, which subtracts a low-rank sketch first and takes two products per sample.
      key: the PRNG key of the estimates.
      samples: the number of random vectors.

    Returns:
      `(n,)`, of the operator's dtype.

    Raises:
      ArgumentError: the method is unknown, `samples` is less than 1, or an estimate has no key.
      CurvatureError: the operator is not finite.

    Example:
      >>> op = jtree.curvature.hessian(lambda v: (v ** 4).sum(), jnp.array([1.0, 2.0]))
      >>> jtree.curvature.diagonal(op)
      Array([12., 48.], dtype=float32)

    Source: Bekas, Kokiopoulou and Saad, "An estimator for the diagonal of a matrix", Applied
    Numerical Mathematics 57, 2007, doi:10.1016/j.apnum.2007.01.003; Epperly, Tropp and Webber,
    "XTrace", SIMAX 45, 2024, doi:10.1137/23M1548323; through `matfree`.
    """
    require_operator(op, "diagonal")
    samples = check_estimate(method, ("exact", "hutchinson", "xdiag"), key, samples)
    if method == "exact" or not op.size:
        return _finite(op, op.exact_diagonal(), "diagonal")
    samples = min(samples, op.size) if method == "xdiag" else samples
    estimate: jax.Array = host.run(_estimated_diagonal, op, key, samples, method)
    return _finite(op, estimate, "diagonal")


def _finite(op: Operator, result: jax.Array, name: str) -> jax.Array:
    """Return a result, or raise if it is not finite because the operator is not."""
    if not istracer(result) and not bool(jnp.isfinite(result).all()):
        require_finite(op, name)
    return result


@partial(jax.jit, static_argnums=(2, 3))
def _estimated_diagonal(op: Operator, key: Any, samples: int, method: str) -> jax.Array:
    st = import_extra("matfree.stochtrace")
    linear, like = _product(op, method)
    if method == "hutchinson":
        estimate = st.estimator_monte_carlo(
            st.monte_carlo_diagonal(), sampler=st.sampler_signs(like, num=samples)
        )
    else:
        estimate = st.estimator_leave_one_out(
            st.leave_one_out_xdiag(), sampler=st.sampler_normal(like, num=samples)
        )
    with jax.numpy_rank_promotion("allow"):  # xdiag of matfree 0.6.3 adds (n,) to (n, 1)
        diagonal: jax.Array = estimate(linear, key).astype(op.dtype)
    return diagonal


def _product(op: Operator, method: str) -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """Return the product and a vector for it, in single precision for methods that decompose."""
    linear, like = op.linear(), jnp.zeros(op.size, op.dtype)
    if method == "hutchinson":
        return linear, like
    return lambda v: dense.promote(linear(v.astype(op.dtype))), dense.promote(like)


def trace(
    op: Operator,
    /,
    method: Literal["exact", "hutchinson", "xtrace"] = "exact",
    *,
    key: Any = None,
    samples: int = 100,
) -> Estimate:
    """Return the trace of an operator, with its standard error.

    Args:
      op: an operator.
      method: `"exact"`, the sum of the exact diagonal; `"hutchinson"`, the mean of `z @ op @ z`
        over random sign vectors; or `"xtrace"`, which subtracts a low-rank sketch first, takes two
        products per sample, and is far more accurate if the spectrum decays. Its samples share
        the sketch, so its standard error is too small, often by a third.
      key: the PRNG key of the estimates.
      samples: the number of random vectors.

    Returns:
      An `Estimate`; `float(...)` returns its value.

    Raises:
      ArgumentError: the method is unknown, `samples` is less than 1, or an estimate has no key.
      CurvatureError: the operator is not finite.

    Example:
      >>> op = jtree.curvature.hessian(lambda v: (v ** 4).sum(), jnp.array([1.0, 2.0]))
      >>> jtree.curvature.trace(op)
      Estimate(60, error=0)

    Source: Hutchinson, Communications in Statistics 19, 1990, doi:10.1080/03610919008812866;
    Epperly, Tropp and Webber, "XTrace", SIMAX 45, 2024, doi:10.1137/23M1548323; through `matfree`.
    """
    require_operator(op, "trace")
    samples = check_estimate(method, ("exact", "hutchinson", "xtrace"), key, samples)
    if method == "exact" or not op.size:
        return Estimate(_finite(op, op.exact_diagonal().sum(), "trace"), jnp.zeros((), op.dtype))
    samples = min(samples, op.size) if method == "xtrace" else samples
    value, error = host.run(_estimated_trace, op, key, samples, method)
    return Estimate(_finite(op, value, "trace"), error)


@partial(jax.jit, static_argnums=(2, 3))
def _estimated_trace(op: Operator, key: Any, samples: int, method: str) -> tuple[Any, Any]:
    st = import_extra("matfree.stochtrace")
    linear, like = _product(op, method)
    if method == "hutchinson":
        estimate = st.estimator_monte_carlo_mean_and_sem(
            st.monte_carlo_trace(), sampler=st.sampler_signs(like, num=samples)
        )
    else:
        estimate = st.estimator_leave_one_out_mean_and_sem(
            st.leave_one_out_xtrace(), sampler=st.sampler_sphere(like, num=samples)
        )
    value, error = estimate(linear, key)
    if samples > 1:  # matfree divides the variance by samples, and not by samples - 1
        error = error * (samples / (samples - 1)) ** 0.5
    elif method == "hutchinson" or op.size > 2:
        error = jnp.full_like(error, jnp.nan)
    rounding = jnp.finfo(value.dtype).eps * jnp.abs(value)
    return value.astype(op.dtype), jnp.hypot(error, rounding).astype(op.dtype)


def check_estimate(method: str, methods: tuple[str, ...], key: Any, samples: Any) -> int:
    """Return the number of samples, or raise for an invalid option."""
    if not isinstance(method, str) or method not in methods:
        raise ArgumentError(
            f"method: expected one of {', '.join(map(repr, methods))}, found {method!r}"
        )
    if method != "exact" and key is None:
        raise ArgumentError(f"method={method!r} samples vectors; pass key=jax.random.key(0)")
    if key is not None:
        check_key("key", key)
    if (count := check_integer("samples", samples)) < 1:
        raise ArgumentError(f"samples: expected 1 or more, found {samples}")
    return count
