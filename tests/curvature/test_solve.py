"""Linear systems."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree import curvature as C  # noqa: N812
from jtree.curvature._algorithms import solve

from .problems import close, in_batches, matrix_of, normal, operator, random, square

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


METHODS = [("auto", 0), ("auto", 2000), ("cg", 0), ("minres", 0), ("cholesky", 0)]
B = random(4, 3, seed=1)


def ridge(v: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    return ((jnp.tanh(x @ v) - y) ** 2).mean() + 2.5 * (v**2).sum()


def solution(v: Any, x: Any, y: Any, b: Any, damping: Any, **options: Any) -> jax.Array:
    return C.solve(C.hessian(ridge, v, x, y), b, damping=damping, tol=1e-12, **options)


def dense_solution(v: Any, x: Any, y: Any, b: Any, damping: Any) -> jax.Array:
    return jnp.linalg.solve(jax.hessian(ridge)(v, x, y) + damping * jnp.eye(4), b)


@cache
def arguments() -> tuple[Any, ...]:
    return normal(4), normal(7, 4), normal(7), jnp.asarray(B), jnp.asarray(0.3)


@cache
def expected_gradients() -> Any:
    loss = lambda *args: jnp.sin(dense_solution(*args)).sum()  # noqa: E731
    return jax.grad(loss, range(5))(*arguments())


@pytest.mark.parametrize(("method", "dense_size"), METHODS)
def test_gradients_are_those_of_the_system(
    method: Any, dense_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solve, "_DENSE_SIZE", dense_size)
    loss = lambda *args: jnp.sin(solution(*args, method=method)).sum()  # noqa: E731
    for a, b in zip(jax.grad(loss, range(5))(*arguments()), expected_gradients(), strict=True):
        close(a, b, 1e-9)  # parameters, data, labels, right sides, damping


@pytest.mark.slow
def test_derivatives_of_second_order_and_forward() -> None:
    v, x, y, b, damping = arguments()
    ours = jax.hessian(lambda d: solution(v, x, y, b[:, 0], d, method="cg").sum())(damping)
    close(ours, jax.hessian(lambda d: dense_solution(v, x, y, b[:, 0], d).sum())(damping))


def test_a_hypergradient_by_the_implicit_function_theorem() -> None:
    """The derivative of a validation loss at the minimum of a training loss, by its weights."""
    x, y, weights = normal(9, 3), normal(9, seed=1), jnp.ones(9)

    def training(v: jax.Array, weights: jax.Array) -> jax.Array:
        return (weights * (x @ v - y) ** 2).mean() + 0.1 * (v**2).sum()

    def minimum(weights: jax.Array) -> jax.Array:
        matrix = 2 * (x.T * weights) @ x / 9 + 0.2 * jnp.eye(3)
        return jnp.linalg.solve(matrix, 2 * x.T @ (weights * y) / 9)

    def step(weights: jax.Array) -> jax.Array:
        v = jax.lax.stop_gradient(minimum(weights))
        op = C.hessian(training, v, weights)
        return v - C.solve(op, jax.grad(training)(v, weights), method="cg", tol=1e-12)

    close(jax.jacobian(step)(weights), jax.jacobian(minimum)(weights))


@pytest.mark.parametrize(("method", "dense_size"), METHODS)
def test_columns(method: Any, dense_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve, "_DENSE_SIZE", dense_size)
    matrix = matrix_of(*np.geomspace(0.5, 9, 30))
    b = random(30, 4)
    b[0], b[:, 2] = 0, np.eye(30)[0]  # the columns take different steps
    x = C.solve(operator(matrix), b * np.array([1, 1e-20, 0, 1e20]), method=method)
    expected = np.linalg.solve(matrix, b) * np.array([1, 1, 0, 1])
    close(np.asarray(x) / np.array([1, 1e-20, 1, 1e20]), expected, 1e-8)


def test_columns_with_a_preconditioner_and_of_batches() -> None:
    scale, b = np.geomspace(1, 1e6, 20), random(20, 3)
    op = operator(np.diag(scale) + 0.1)
    expected = np.linalg.solve(np.diag(scale) + 0.1, b)
    for preconditioner in (1 / scale, lambda r: r / scale):
        close(C.solve(op, b, method="cg", preconditioner=preconditioner, maxiter=8), expected, 1e-6)
    batched, whole = in_batches(size=lambda batch: len(batch[0]))
    for method in ("cg", "minres"):
        x = C.solve(batched, B[:3], damping=30.0, method=method)
        close(x, C.solve(whole, B[:3], damping=30.0), 1e-8)


@pytest.mark.slow
def test_gradients_of_a_system_in_batches() -> None:
    batched, whole = in_batches(size=lambda batch: len(batch[0]))
    for method in ("cg", "auto"):
        loss = lambda op, b: C.solve(op, b, damping=30.0, method=method).sum()  # noqa: B023, E731
        close(jax.grad(loss, 1)(batched, B[:3, 0]), jax.grad(loss, 1)(whole, B[:3, 0]), 1e-8)


@pytest.mark.parametrize(("method", "dense_size"), METHODS)
def test_within_jit_an_indefinite_system_is_solved_or_nan(
    method: Any, dense_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solve, "_DENSE_SIZE", dense_size)
    matrix, b = matrix_of(1.0, 2.0, -3.0), random(3)
    loss = lambda b: (C.solve(operator(matrix), b, method=method) ** 2).sum()  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(loss))(b)
    inverse = np.linalg.inv(matrix) * (np.nan if method in ("cg", "cholesky") else 1)
    close(value, ((inverse @ b) ** 2).sum())
    close(gradient, 2 * inverse @ inverse @ b)


def test_a_preconditioner_is_never_ignored() -> None:
    op, ones = operator(matrix_of(1.0, 2.0, -3.0)), np.ones(3)
    message = (
        r"^cg: the operator is not positive definite: .*; "
        "without preconditioner= method='auto' also tries MINRES$"
    )
    with pytest.raises(jtree.CurvatureError, match=message):
        C.solve(op, ones, preconditioner=ones)


def test_values_that_are_not_finite_are_named() -> None:
    flat, re = jtree.destructure({"b": jnp.ones(2), "w": jnp.ones(2)})
    op = C.hessian(square, flat, re=re)
    bad = np.array([1, 1, np.nan, 1])
    message = "expected finite values, found others in 1 of 4 rows: w"
    with pytest.raises(jtree.VectorError, match=f"^b: {message}$"):
        C.solve(op, bad)
    with pytest.raises(jtree.VectorError, match=f"^b: {message}$"):
        C.solve(op, np.stack([np.ones(4), bad], 1), method="minres")
    with pytest.raises(jtree.VectorError, match=f"^preconditioner: {message}$"):
        C.solve(op, flat, preconditioner=bad)
    with pytest.raises(
        jtree.ArgumentError, match=r"^damping: expected a finite scalar, found nan$"
    ):
        C.solve(op, flat, damping=np.nan)
    with pytest.raises(jtree.ArgumentError, match=r"^tol: expected 0 or more, found -1$"):
        C.solve(op, flat, tol=-1)


def test_the_column_that_fails_is_named() -> None:
    op = operator(np.diag([1.0, -2.0]))
    with pytest.raises(jtree.CurvatureError, match=r"^column 1: cg: the operator is not positive"):
        C.solve(op, np.eye(2), method="cg")
