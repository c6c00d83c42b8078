"""Diagonals and traces, exact and estimated."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtree import curvature as C  # noqa: N812

from .problems import (
    KEY,
    X,
    close,
    diagonal_operator,
    empty,
    matrix_of,
    mse,
    operator,
    random,
    weighted,
)

MATRIX = matrix_of(*np.geomspace(1e-4, 10, 40))


@pytest.mark.usefixtures("double")
def test_exact_diagonals_and_traces() -> None:
    op = operator(MATRIX)
    close(C.diagonal(op), np.diag(MATRIX))
    assert float(C.trace(op)) == pytest.approx(np.trace(MATRIX))
    assert float(C.trace(op).error) == 0


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("method", ["hutchinson", "xtrace"])
def test_estimated_traces(method: Any) -> None:
    estimate = C.trace(operator(MATRIX), method, key=KEY, samples=15)
    assert 0 < float(estimate.error) < 5
    assert abs(float(estimate) - np.trace(MATRIX)) < 5 * float(estimate.error)


@pytest.mark.usefixtures("double")
def test_estimated_diagonals() -> None:
    errors = {
        method: abs(C.diagonal(operator(MATRIX), method, key=KEY, samples=15) - np.diag(MATRIX))
        for method in ("hutchinson", "xdiag")
    }
    assert 3 * errors["xdiag"].max() < errors["hutchinson"].max() < 3


@pytest.mark.usefixtures("double")
def test_estimates_of_more_samples_than_parameters() -> None:
    op = operator(matrix_of(1.0, 2.0, -3.0))
    estimate = C.diagonal(op, "hutchinson", key=KEY, samples=20_000)
    close(estimate, C.diagonal(op), 0.1)


@pytest.mark.usefixtures("double")
def test_standard_errors_are_those_of_a_sample() -> None:
    op = operator(matrix_of(*np.arange(6.0)))
    keys = jax.random.split(KEY, 300)
    traces = jax.jit(jax.vmap(lambda key: C.trace(op, "hutchinson", key=key, samples=2)))(keys)
    assert np.mean(traces.error**2) == pytest.approx(np.var(traces.value), rel=0.25)
    assert np.isnan(C.trace(op, "hutchinson", key=KEY, samples=1).error)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_estimates_with_a_sketch_in_half_precision(dtype: Any) -> None:
    values = jnp.arange(1.0, 9.0).astype(dtype)
    op = C.hessian(weighted, jnp.ones(8, dtype), values)
    estimate = C.trace(op, "xtrace", key=KEY, samples=6)
    assert estimate.value.dtype == estimate.error.dtype == dtype
    assert float(estimate) == pytest.approx(36, abs=0.5)
    diagonal = C.diagonal(op, "xdiag", key=KEY, samples=8)
    assert diagonal.dtype == dtype
    np.testing.assert_allclose(diagonal.astype(float), values.astype(float), atol=0.2)


def test_the_error_of_an_estimate_is_at_least_rounding() -> None:
    op = diagonal_operator(np.exp(-np.arange(60.0)))
    estimate = C.trace(op, "xtrace", key=KEY, samples=40)
    assert float(estimate.error) >= 1e-7 * float(estimate)
    assert float(estimate) == pytest.approx(1 / (1 - np.exp(-1)), abs=1e-5)


def test_an_operator_without_parameters() -> None:
    op = empty()
    for method in ("exact", "hutchinson", "xdiag"):
        assert C.diagonal(op, method, key=KEY).shape == (0,)
    for method in ("exact", "hutchinson", "xtrace"):
        assert float(C.trace(op, method, key=KEY)) == 0
    shift = C.ggn(lambda v, x: x + v.sum(), lambda o, _: (o**2).sum(), jnp.zeros(0), jnp.ones(3), 0)
    assert shift.dense().shape == (0, 0)


def test_an_estimate_is_a_scalar_with_an_error() -> None:
    estimate = C.Estimate(jnp.array(2.5), jnp.array(0.25))
    assert (float(estimate), repr(estimate)) == (2.5, "Estimate(2.5, error=0.25)")
    assert np.allclose(estimate, 2.5)
    assert float(jnp.abs(estimate)) == 2.5
    value, error = estimate
    assert (float(value), float(error)) == (2.5, 0.25)


def test_arithmetic_of_estimates() -> None:
    a, b = C.Estimate(jnp.array(3.0), jnp.array(0.5)), C.Estimate(jnp.array(-2.0), jnp.array(0.25))
    results = [
        (2 * a, 6, 1),
        (a / -2, -1.5, 0.25),
        (np.float64(2) * a, 6, 1),
        (np.float32(2) / a, 2 / 3, 1 / 9),
        (1 - a, -2, 0.5),
        (a - 1 + b, 0, 0.75),
        (a * b, -6, 2 * 0.5 + 3 * 0.25),
        (a / b, -1.5, (0.5 + 1.5 * 0.25) / 2),
        (abs(-b), 2, 0.25),
        (jax.jit(lambda a: (repr(a), 2 * a)[1])(a), 6, 1),
    ]
    for result, value, error in results:
        assert isinstance(result, C.Estimate)
        np.testing.assert_allclose(np.array(tuple(result)), [value, error], rtol=1e-6)
    assert float(jnp.float32(2) * a) == 6  # JAX converts to the value
    assert np.isinf((a / 0).value)
    for other in ("a", None, 1j):
        with pytest.raises(TypeError):
            a * other


def test_comparisons_and_formats_of_estimates() -> None:
    a = C.Estimate(jnp.array(3.0), jnp.array(0.5))
    assert (a > 2, a >= 3, a < 4, a <= 3, a == 3, a != 2, a == C.Estimate(3.0, 0.0)) == (True,) * 7
    assert (f"{a:.2f}", int(a), round(a, 1)) == ("3.00", 3, 3.0)
    assert f"{a}" == str(a) == "Estimate(3, error=0.5)"
    several = C.Estimate(jnp.ones(2), jnp.ones(2))
    assert repr(several) == "Estimate(float32[2], error=float32[2])"


def normalized(x: jax.Array) -> jax.Array:
    return (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-3)


def zero_head(v: jax.Array, x: jax.Array) -> jax.Array:
    return normalized(x @ v[:9].reshape(3, 3)) @ v[9:].reshape(3, 2)


def zero_gate(v: jax.Array, x: jax.Array) -> jax.Array:
    return (x @ v[:9].reshape(3, 3) + v[9] * normalized(jnp.tanh(x)))[:, :2]


@pytest.mark.parametrize(("apply", "zeros"), [(zero_head, 6), (zero_gate, 1)])
@pytest.mark.parametrize("kind", ["ggn", "fisher"])
def test_examples_that_depend_on_each_other_behind_a_zero(
    apply: Any, zeros: int, kind: str
) -> None:
    x, y = jnp.asarray(X, jnp.float32), jnp.zeros((7, 2))
    flat = jnp.append(jnp.asarray(random(9), jnp.float32), jnp.zeros(zeros))
    if kind == "ggn":
        op = C.ggn(apply, mse, flat, x, y)
    else:
        op = C.fisher(apply, flat, x, likelihood="gaussian")
    jacobian = np.asarray(jax.jacobian(apply)(flat, x)).reshape(14, -1)
    expected = jacobian.T @ jacobian * (2 / 14 if kind == "ggn" else 1 / 7)
    close(op.dense(), expected, 1e-4)
    close(C.diagonal(op), np.diag(expected), 1e-4)
    close(C.trace(op).value, np.trace(expected), 1e-4)
    assert jnp.isnan(jax.jit(C.diagonal)(op)).all()


def test_estimates_are_scalars_for_operators() -> None:
    op = diagonal_operator([1.0, 3.0])
    trace = C.trace(op)
    close(op.damped(trace / 2).dense(), np.diag([3.0, 5.0]), 1e-6)
    close((op / trace).dense(), np.diag([0.25, 0.75]), 1e-6)
    close((trace * op).dense(), np.diag([4.0, 12.0]), 1e-6)
