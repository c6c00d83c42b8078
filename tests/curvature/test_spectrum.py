"""Densities of eigenvalues."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
