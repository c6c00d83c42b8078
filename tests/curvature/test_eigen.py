"""Eigenpairs, inertia, norms and condition numbers."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtree import ArgumentError, CurvatureError
from jtree import curvature as C  # noqa: N812
from jtree.curvature._algorithms import eigen, lanczos

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
def test_pairs_that_did_not_converge_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eigen, "_DENSE_SIZE", 0)
    message = (
        r"eigsh: no convergence: after 2 blocks \d of 3 residuals are too large, up to [\d.]+ "
        r"where [\d.e-]+ is allowed; pass a larger maxiter= or tol="
    )
    with pytest.raises(CurvatureError) as caught:
        C.eigsh(operator(matrix_of(*VALUES)), 3, maxiter=2)
    assert re.fullmatch(message, str(caught.value))
    pairs = C.eigsh(operator(matrix_of(*VALUES)), 3, maxiter=2, tol=10.0)
    assert float(pairs.residuals.max()) > 1e-3
    assert repr(pairs).startswith("Eigenpairs([")


def test_small_negative_eigenvalues_beside_large_positive_ones() -> None:
    values = np.append(np.random.default_rng(0).uniform(0.5, 1000, 597), [-0.1, -0.05, -0.01])
    pairs = C.eigsh(diagonal_operator(values), 3, "SA")
    np.testing.assert_allclose(pairs.values, [-0.1, -0.05, -0.01], atol=2e-3)


@pytest.mark.parametrize("size", [5, 600])
@pytest.mark.parametrize("scale", [1e-27, 1e30])
def test_eigenvalues_of_any_scale(size: int, scale: float) -> None:
    values = np.linspace(1, 2, size)
    values[-2:] = 5, 4
    pairs = C.eigsh(diagonal_operator(values * scale), 2)
    np.testing.assert_allclose(pairs.values, np.array([5, 4]) * scale, rtol=1e-5)
    assert 0 < float(pairs.residuals.max()) < scale or size == 5


def test_eigenvalues_within_jit() -> None:
    message = "eigsh: within jit it takes up to 512 parameters, found 600; call it outside of jit"
    with pytest.raises(ArgumentError, match=f"^{message}\n"):  # JAX adds a note
        jax.jit(lambda op: C.eigsh(op, 1).values)(diagonal_operator(np.ones(600)))
    assert jax.jit(lambda op: C.eigsh(op, 1).values)(diagonal_operator(np.ones(5))) == 1


@pytest.mark.parametrize("size", [5, 600])
def test_an_operator_that_is_not_finite(size: int) -> None:
    values = np.ones(size)
    values[2] = np.nan
    message = (
        f"eigsh: the operator has values that are not finite, in 1 of {size} rows; "
        "check the loss and its gradient at this point"
    )
    with pytest.raises(CurvatureError, match=f"^{message}$"):
        C.eigsh(diagonal_operator(values), 1)


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


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("host", [True, False])
def test_all_copies_of_equal_eigenvalues(
    times: int, host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not host:
        monkeypatch.setattr(lanczos, "_MAX_HOST", 0)
    values = np.repeat(1 / np.arange(1, 601 // times) ** 0.5, times)
    pairs = C.eigsh(diagonal_operator(values), 6, "LA")
    np.testing.assert_allclose(pairs.values, values[:6], rtol=1e-4)
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(6), atol=1e-5)


def test_every_direction_of_a_multiple_of_the_identity() -> None:
    pairs = C.eigsh(diagonal_operator(np.full(600, 3.0)), 4)
    np.testing.assert_allclose(pairs.values, 3, rtol=1e-6)
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(4), atol=1e-5)


def test_it_takes_few_products(monkeypatch: pytest.MonkeyPatch) -> None:
    products, multiply = [], lanczos._multiply
    counted = lambda op, block: (products.append(block.shape[1]), multiply(op, block))[1]  # noqa: E731
    monkeypatch.setattr(lanczos, "_multiply", counted)
    values = np.append(np.linspace(-1, 1, 1994), [9, 8, 7, 6, 5, 4])
    first = C.eigsh(diagonal_operator(values))
    np.testing.assert_allclose(first.values, [9, 8, 7, 6, 5, 4], rtol=1e-5)
    assert sum(products) < 50  # 35 by SciPy without a search for copies
    np.testing.assert_array_equal(first.vectors, C.eigsh(diagonal_operator(values)).vectors)


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
