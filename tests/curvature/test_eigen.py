"""Eigenpairs, inertia, norms and condition numbers."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jtree import curvature as C  # noqa: N812
from jtree.curvature._algorithms import eigen

from .problems import (
    KEY,
    close,
    diagonal_operator,
    empty,
    matrix_of,
    operator,
    weighted,
)

VALUES = np.concatenate([[-9.0, -9.0, 12.0, 11.0, 11.0], np.linspace(-1, 1, 195)])


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("which", ["LM", "LA", "SA"])
@pytest.mark.parametrize("dense_size", [0, 512])
def test_eigenpairs_with_equal_eigenvalues(
    which: Any, dense_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eigen, "_DENSE_SIZE", dense_size)
    matrix = matrix_of(*VALUES)
    pairs = C.eigsh(operator(matrix), 3, which=which, tol=1e-9)
    expected = {"LM": [12, 11, 11], "LA": [12, 11, 11], "SA": [-9, -9, -1]}[which]
    vectors = np.asarray(pairs.vectors)
    close(pairs.values, expected)
    close(matrix @ vectors, vectors * np.asarray(pairs.values), 1e-6)
    close(vectors.T @ vectors, np.eye(3))
    assert float(pairs.residuals.max()) < 1e-6


@pytest.mark.usefixtures("double")
def test_residuals_tell_how_good_the_pairs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eigen, "_DENSE_SIZE", 0)
    pairs = C.eigsh(operator(matrix_of(*VALUES)), 3, maxiter=2)
    assert float(pairs.residuals.max()) > 1e-3
    assert repr(pairs).startswith("Eigenpairs([")


def test_values_and_vectors_unpack_as_those_of_scipy_do() -> None:
    pairs = C.eigsh(diagonal_operator([1.0, 2.0]), 1)
    values, vectors = pairs
    assert values.shape == pairs.residuals.shape == (1,)
    assert vectors.shape == (2, 1)


@pytest.mark.parametrize("size", [700])
def test_many_pairs_of_a_matrix_that_is_not_much_larger(size: int) -> None:
    ends = [50, 50, 50, -40, -40]
    values = np.sort(np.append(np.random.default_rng(0).normal(size=size - len(ends)), ends))
    pairs = C.eigsh(diagonal_operator(values), 80, "LA")
    np.testing.assert_allclose(pairs.values, values[::-1][:80], atol=1e-3)


@pytest.mark.usefixtures("double")
def test_inertia_norms_and_condition_numbers() -> None:
    op = operator(matrix_of(5.0, -2.0, 1.0, 0.0))
    assert C.inertia(op) == (2, 1, 1)
    close(C.norm(op), 5)
    close(C.norm(op, "fro"), 30**0.5)
    close(C.cond(operator(matrix_of(5.0, -2.0, 1.0, 3.0))), 5)


def test_the_condition_number_of_a_singular_matrix_is_infinite() -> None:
    assert C.cond(diagonal_operator([1.0, 0.0])) == jnp.inf
    assert C.cond(diagonal_operator([0.0, 0.0])) == jnp.inf


def test_an_operator_without_parameters() -> None:
    assert C.norm(empty()) == C.norm(empty(), "fro") == 0
    assert C.inertia(empty()) == (0, 0, 0)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str) -> None:
    op = C.hessian(weighted, jnp.ones(3, dtype), jnp.array([1.0, 2.0, -4.0], dtype))
    pairs = C.eigsh(op, 3)
    assert pairs.values.dtype == pairs.vectors.dtype == op.dtype
    close(pairs.values.astype(float), [-4, 2, 1], 0.02)
    assert C.inertia(op) == (2, 1, 0)
    assert (C.cond(op), C.norm(op)) == (4, 4)
    close(C.solve(op, jnp.ones(3)).astype(float), [1, 0.5, -0.25], 0.02)
    assert C.spectrum(op, key=KEY, samples=4).moment(1) == pytest.approx(-1 / 3, abs=0.02)
