"""Inverses as operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import jtree
from jtree import curvature as C  # noqa: N812
from jtree.curvature._algorithms import inverse

from .problems import (
    KEY,
    close,
    empty,
    in_batches,
    matrix_of,
    network_ggn,
    network_hessian,
    normal,
    operator,
    random,
)

pytestmark = pytest.mark.usefixtures("double")

OPERATORS: dict[str, Callable[[], C.Operator]] = {
    "hessian": network_hessian,
    "ggn": network_ggn,
    "batched": lambda: in_batches()[0],
    "combination": lambda: 2 * network_ggn() + network_hessian().damped(0.5),
}


@pytest.mark.parametrize("dense_size", [0, 2000])
@pytest.mark.parametrize("make", [lambda: operator(matrix_of(1.0, 2.0, 5.0)), in_batches])
def test_products_and_the_matrix_of_an_inverse(
    make: Callable[[], Any], dense_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverse, "_DENSE_SIZE", dense_size)
    made = make()
    op = made[0] if isinstance(made, tuple) else made
    true, v = np.linalg.inv(np.asarray(op.dense()) + 0.7 * np.eye(3)), random(3, 2)
    inv = C.inverse(op, 0.7)
    close(inv @ v, true @ v, 1e-6)
    close(inv.dense(), true, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dense_size", [0, 2000])
@pytest.mark.parametrize("name", OPERATORS)
def test_an_inverse_is_that_of_the_matrix(
    name: str, dense_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverse, "_DENSE_SIZE", dense_size)
    op = OPERATORS[name]()
    n = op.size
    true = np.linalg.inv(np.asarray(op.dense()) + 0.7 * np.eye(n))
    inv, v = C.inverse(op, 0.7), random(n, 3)
    assert inv.shape == (n, n)
    close(inv @ v, true @ v, 1e-6)
    close(inv @ v[:, 0], true @ v[:, 0], 1e-6)
    close(v.T @ inv, v.T @ true, 1e-6)
    close(inv.dense(), true, 1e-6)
    close(C.diagonal(inv), np.diag(true), 1e-6)
    close(C.trace(inv).value, np.trace(true), 1e-6)
    close(C.eigsh(inv, 1).values, np.linalg.eigvalsh(true)[[-1]], 1e-6)
    close(
        (inv + op).damped(1.0) @ v[:, 0], (true + np.asarray(op.dense())) @ v[:, 0] + v[:, 0], 1e-6
    )
    assert C.trace(inv, "hutchinson", key=KEY, samples=3).value > 0


def test_an_inverse_is_an_argument_of_jit_and_of_lineax() -> None:
    x, v = normal(6, 3), normal(3)
    op = C.ggn(lambda w, x: x @ w, lambda o, y: ((o - y) ** 2).sum() / 2, v, x, jnp.zeros(6))
    true = np.linalg.inv(x.T @ x + np.eye(3))
    close(jax.jit(lambda op, d, v: C.inverse(op, d) @ v)(op, 1.0, v), true @ v)
    close(jax.jit(lambda inv, v: inv @ v)(C.inverse(op, 1.0), v), true @ v)
    linear = C.inverse(op, 1.0).as_lineax()
    assert lx.is_positive_semidefinite(linear)
    close(linear.mv(v), true @ v)
    close(lx.linear_solve(linear, v, lx.CG(rtol=1e-10, atol=1e-10)).value, op @ v + v, 1e-6)


@pytest.mark.parametrize("dense_size", [0, 2000])
def test_derivatives_of_an_inverse(dense_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inverse, "_DENSE_SIZE", dense_size)
    matrix, v = matrix_of(1.0, 2.0, 5.0), normal(3)

    def by_operator(matrix: jax.Array, d: Any, v: jax.Array) -> jax.Array:
        return jnp.tanh(C.inverse(operator(matrix), d) @ v).sum()

    def by_matrix(matrix: jax.Array, d: Any, v: jax.Array) -> jax.Array:
        symmetric = (matrix + matrix.T) / 2
        return jnp.tanh(jnp.linalg.solve(symmetric + d * jnp.eye(3), v)).sum()

    expected = jax.grad(by_matrix, (0, 1, 2))(jnp.asarray(matrix), 0.5, v)
    for a, b in zip(
        jax.grad(by_operator, (0, 1, 2))(jnp.asarray(matrix), 0.5, v), expected, strict=True
    ):
        close(a, b, 1e-6)


def test_an_inverse_decomposes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    once = inverse.decompose
    monkeypatch.setattr(inverse, "decompose", lambda x: counts.append(1) or once(x))
    inv = C.inverse(operator(matrix_of(1.0, 2.0, 5.0, 7.0)), 0.5)
    for _ in range(3):
        inv @ normal(4)
    assert len(counts) == 1


def test_an_indefinite_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, v = matrix_of(-3.0, 1.0, 2.0, 4.0), normal(4)
    for size in (2000, 0):
        monkeypatch.setattr(inverse, "_DENSE_SIZE", size)
        close(C.inverse(operator(matrix)) @ v, np.linalg.solve(matrix, v), 1e-6)
        close(C.inverse(operator(matrix)).dense(), np.linalg.inv(matrix), 1e-6)
    for method in ("cg", "cholesky"):
        with pytest.raises(jtree.CurvatureError, match=f"^{method}: .* not positive definite"):
            C.inverse(operator(matrix), method=method) @ v
    jitted = jax.jit(lambda op, v: C.inverse(op, method="cholesky") @ v)(operator(matrix), v)
    assert bool(jnp.isnan(jitted).all())


def test_errors_of_an_inverse() -> None:
    with pytest.raises(jtree.CurvatureError, match="singular to rounding; add damping="):
        C.inverse(operator(matrix_of(0.0, 1.0, 2.0))) @ np.ones(3)
    with pytest.raises(jtree.CurvatureError, match="values that are not finite, in 3 of 3 rows"):
        C.inverse(operator(np.full((3, 3), np.nan))) @ np.ones(3)
    with pytest.raises(jtree.VectorError):
        C.inverse(operator(np.eye(3))) @ np.ones(2)
    with pytest.raises(jtree.ArgumentError, match=r"^restrict: inverse"):
        C.inverse(network_ggn(), 1.0).restrict("layer0/**")
    assert C.inverse(empty(), 1.0).dense().shape == (0, 0)


def test_blocks_of_an_inverse_by_path() -> None:
    flat, re = jtree.destructure({"a": normal(2), "b": normal(1)})
    matrix = matrix_of(1.0, 2.0, 5.0)
    inv = C.inverse(C.hessian(lambda v, m: v @ m @ v / 2, flat, jnp.asarray(matrix), re=re), 1.0)
    true = np.linalg.inv(matrix + np.eye(3))
    close(inv.block("b", "a"), true[2:, :2])
    close(re.ravel(inv.mv_tree(re(flat))), true @ np.asarray(flat))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_inverse_in_the_dtype_of_the_operator(dtype: Any) -> None:
    op = C.hessian(lambda v: (v**2).sum(), jnp.ones(3, dtype))
    x = C.inverse(op, 2.0) @ jnp.ones(3)
    assert x.dtype == dtype
    close(x.astype(float), np.full(3, 0.25), 1e-2)
