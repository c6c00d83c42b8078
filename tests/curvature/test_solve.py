"""Linear systems."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree import curvature as C  # noqa: N812
from jtree.curvature._algorithms import solve

from .problems import close, matrix_of, operator, random

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize(
    ("method", "dense_size"),
    [("auto", 0), ("auto", 2000), ("cg", 0), ("minres", 0), ("cholesky", 0)],
)
def test_solutions(method: Any, dense_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve, "_DENSE_SIZE", dense_size)
    matrix, b = matrix_of(*np.linspace(0.5, 9, 30)), random(30)
    close(C.solve(operator(matrix), b, method=method), np.linalg.solve(matrix, b), 1e-8)
    damped = np.linalg.solve(matrix + 2 * np.eye(30), b)
    close(C.solve(operator(matrix), b, damping=2.0, method=method), damped, 1e-8)
    jitted = jax.jit(lambda op, b: C.solve(op, b, damping=2.0, method=method))
    close(jitted(operator(matrix), b), damped, 1e-8)


@pytest.mark.parametrize("dense_size", [0, 2000])
def test_an_indefinite_system(dense_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve, "_DENSE_SIZE", dense_size)
    matrix, b = matrix_of(*np.linspace(0.5, 9, 15), *np.linspace(-3, -1, 5)), random(20)
    close(C.solve(operator(matrix), b), np.linalg.solve(matrix, b), 1e-8)


def test_an_indefinite_system_by_each_method() -> None:
    matrix, b = matrix_of(*np.linspace(0.5, 9, 15), *np.linspace(-3, -1, 5)), random(20)
    op = operator(matrix)
    close(C.solve(op, b, method="minres"), np.linalg.solve(matrix, b), 1e-8)
    with pytest.raises(jtree.CurvatureError, match=r"^cg: the operator is not positive definite: "):
        C.solve(op, b, method="cg")
    with pytest.raises(jtree.CurvatureError, match="its smallest eigenvalue is -3; add a larger"):
        C.solve(op, b, method="cholesky")
    damped = np.linalg.solve(matrix + 4 * np.eye(20), b)
    close(C.solve(op, b, method="cg", damping=4.0), damped)
    assert bool(jnp.isnan(jax.jit(lambda op, b: C.solve(op, b, method="cg"))(op, b)).all())


def test_a_preconditioner_saves_products() -> None:
    scale = np.geomspace(1, 1e6, 50)
    matrix, b = np.diag(scale) + 0.1, random(50)
    op, expected = operator(matrix), np.linalg.solve(matrix, b)
    for preconditioner in (1 / C.diagonal(op), lambda r: r / scale):
        x = C.solve(op, b, method="cg", preconditioner=preconditioner, maxiter=8)
        close(x, expected, 1e-6)
    with pytest.raises(jtree.CurvatureError, match="no convergence"):
        C.solve(op, b, method="cg", maxiter=8)
