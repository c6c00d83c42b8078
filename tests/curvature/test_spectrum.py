"""Densities of eigenvalues."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree import curvature as C  # noqa: N812

from .problems import KEY, close, diagonal_operator, matrix_of, operator

VALUES = np.concatenate([[-9.0, -9.0, 12.0, 11.0, 11.0], np.linspace(-1, 1, 595)])


@pytest.mark.usefixtures("double")
def test_the_density_is_the_true_one() -> None:
    spectrum = C.spectrum(operator(matrix_of(*VALUES)), key=KEY, samples=20, steps=60)
    at = np.array([-10.0, -5.0, -0.5, 0.0, 0.5, 5.0, 11.5, 13.0])
    true = (VALUES[None] <= at[:, None]).mean(1)
    close(spectrum.cdf(at), true, 0.02)
    close(spectrum.weights.sum(1), np.ones(20))
    close(spectrum.range, (-9, 12), 1e-6)
    close(spectrum.moment(2) * len(VALUES), (VALUES**2).sum(), 0.1)
    grid = spectrum.grid()
    close(np.trapezoid(spectrum.density(grid, width=0.3), grid), 1, 1e-3)


@pytest.mark.usefixtures("double")
def test_the_spectrum_after_one_step() -> None:
    spectrum = C.spectrum(operator(2 * np.eye(5)), key=KEY)
    close(spectrum.range, (2, 2))
    close(spectrum.cdf(jnp.array([1.9, 2.1])), [0, 1])


def test_a_spectrum_within_jit() -> None:
    op = diagonal_operator([1.0, 2.0, 4.0])

    @jax.jit
    def evaluate(op: C.Operator) -> tuple[Any, ...]:
        spectrum = C.spectrum(op, key=KEY)
        assert repr(spectrum).startswith("Spectrum(nodes=float32")
        return spectrum.range, spectrum.grid(3), spectrum.density(2.0), spectrum.density([2.0])

    (low, high), grid, density, densities = evaluate(op)
    np.testing.assert_allclose([low, high], [1, 4], rtol=1e-5)
    np.testing.assert_allclose(grid, [0.85, 2.5, 4.15], rtol=1e-5)
    np.testing.assert_allclose([density], densities)


def test_a_spectrum_of_one_eigenvalue_has_no_others() -> None:
    op = diagonal_operator([1.0] * 3)
    assert C.spectrum(op, key=KEY, samples=4).range == pytest.approx((1, 1))


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e25, 1e30])
def test_the_spectrum_is_free_of_scale(scale: float) -> None:
    values = np.linspace(-4, 6, 21)
    spectrum = C.spectrum(diagonal_operator(scale * values), key=KEY, samples=3)
    assert np.allclose(np.sort(spectrum.nodes[0]) / scale, values, atol=1e-4)


@pytest.mark.usefixtures("double")
def test_log_determinants() -> None:
    matrix = matrix_of(*np.geomspace(0.1, 50, 80))
    true = np.linalg.slogdet(matrix)[1]
    estimate = C.spectrum(operator(matrix), key=KEY, samples=30, steps=40).trace(jnp.log)
    assert 0 < float(estimate.error) < 5
    assert abs(float(estimate) - true) < 4 * float(estimate.error)
    exact = C.spectrum(operator(matrix), method="exact").trace(jnp.log)
    close(exact.value, true)
    assert float(exact.error) == 0
    damped = C.spectrum(operator(matrix), method="exact").trace(lambda x: np.log(x + 2))
    close(damped.value, np.linalg.slogdet(matrix + 2 * np.eye(80))[1])


@pytest.mark.usefixtures("double")
def test_traces_of_functions_that_are_exact() -> None:
    for op, n in ((operator(3 * np.eye(5)), 5), (operator(np.array([[3.0]])), 1)):
        estimate = C.spectrum(op, key=KEY).trace(jnp.log)
        close(estimate.value, n * np.log(3))
        assert float(estimate.error) < 1e-12
    jitted = jax.jit(lambda s: s.trace(jnp.exp).value)(C.spectrum(op, key=KEY))
    close(jitted, np.exp(3))


@pytest.mark.usefixtures("double")
def test_the_standard_error_is_that_of_the_samples() -> None:
    op = operator(matrix_of(*np.arange(1.0, 9.0)))
    estimates = [
        C.spectrum(op, key=key, samples=3, steps=8).trace(jnp.log)
        for key in jax.random.split(KEY, 20)
    ]
    squares = np.mean([float(x.error) ** 2 for x in estimates])
    assert squares == pytest.approx(np.var([float(x) for x in estimates]), rel=0.9)
    one = C.spectrum(op, key=KEY, samples=1, steps=8).trace(jnp.log)
    assert np.isnan(one.error)


@pytest.mark.usefixtures("double")
def test_functions_of_a_spectrum_that_are_not_finite() -> None:
    spectrum = C.spectrum(operator(np.diag([-0.5, 1.0, 2.0])), method="exact")
    with pytest.raises(jtree.CurvatureError) as error:
        spectrum.trace(jnp.log)
    assert str(error.value) == (
        "trace: the function is not finite at the eigenvalue -0.5; add a damping, as in "
        "spectrum.trace(lambda x: jnp.log(x + 0.1))"
    )
    for f, message in (
        (3, "f: expected a function of an array, such as jnp.log, found 3"),
        (math.log, "f: expected a function of an array, such as jnp.log, found builtin_"),
        (jnp.sum, "f: expected real values of shape (1, 3), one for each node, found float64[]"),
    ):
        with pytest.raises(jtree.ArgumentError) as wrong:
            spectrum.trace(f)  # type: ignore[arg-type]
        assert str(wrong.value).startswith(message)
    with pytest.raises(jtree.ArgumentError, match=r"^method: expected one of"):
        C.spectrum(operator(np.eye(2)), method="qr")  # type: ignore[arg-type]
