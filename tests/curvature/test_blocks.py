"""Block diagonals and Nystrom approximations: operators with known eigenvectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree import curvature as C  # noqa: N812

from .problems import (
    KEY,
    X,
    apply,
    close,
    empty,
    loss,
    matrix_of,
    network_ggn,
    network_hessian,
    normal,
    operator,
    point,
    random,
    weighted,
)

pytestmark = pytest.mark.usefixtures("double")


def fisher() -> C.Operator:
    flat, re = point()
    return C.fisher(apply, flat, (re, X), re=re)


def batched() -> C.Operator:
    flat, re = point()
    y = np.array([0, 2, 1, 1, 0, 2, 2])
    batches = [(X[:3], y[:3]), (X[3:], y[3:])]
    return C.batched(
        batches, lambda b: C.hessian(loss, flat, re, *b, re=re), size=lambda b: len(b[1])
    )


OPERATORS: dict[str, Callable[[], C.Operator]] = {
    "hessian": network_hessian,
    "ggn": network_ggn,
    "fisher": fisher,
    "batched": batched,
    "combination": lambda: 2 * network_ggn() + network_hessian().damped(0.5),
}
LAYERS = ["layer0/*", "layer1/*"]


def masked(op: C.Operator, globs: list[str]) -> np.ndarray:
    """Return the matrix of an operator, with zeros between blocks."""
    matrix, mask = np.asarray(op.dense()), np.zeros(op.shape, bool)
    for glob in globs:
        rows = [i for p, s in op.re.slices.items() if p.startswith(glob[:-1]) for i in range(31)[s]]
        mask[np.ix_(rows, rows)] = True
    return np.where(mask, matrix, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_blocks_are_those_of_the_matrix(name: str) -> None:
    op = OPERATORS[name]()
    blocks, true, v = C.block_diagonal(op), masked(op, LAYERS), random(31, 2)
    assert list(blocks.blocks) == LAYERS
    close(blocks.dense(), true)
    close(blocks @ v, true @ v)
    close(C.diagonal(blocks), np.diag(true))
    close(blocks.block("layer0/b", "layer0/w"), op.block("layer0/b", "layer0/w"))
    close(blocks.block("layer0/b", "layer1/w"), np.zeros((4, 12)))
    close((blocks + op).damped(1.0).dense(), true + np.asarray(op.dense()) + np.eye(31))
    damped = true + 3 * np.eye(31)
    close(blocks.solve(v, damping=3.0), np.linalg.solve(damped, v))
    close(C.solve(blocks, v[:, 0], damping=3.0), np.linalg.solve(damped, v[:, 0]))
    close(C.inverse(blocks, 3.0) @ v, np.linalg.solve(damped, v))
    close(C.inverse(blocks, 3.0).dense(), np.linalg.inv(damped))
    close(blocks.logdet(3.0), np.linalg.slogdet(damped)[1])


@pytest.mark.slow
def test_a_block_of_each_parameter_or_of_globs() -> None:
    op = network_ggn()
    each = C.block_diagonal(op, op.re.paths)
    assert list(each.blocks) == list(op.re.paths)
    close(each.blocks["layer0/b"], op.block("layer0/b"))
    mixed = C.block_diagonal(op, ["*/b", "*/w"])
    true = np.asarray(op.dense())
    rows = np.r_[range(31)[op.re["layer0/b"]], range(31)[op.re["layer1/b"]]]
    close(mixed.blocks["*/b"], true[np.ix_(rows, rows)])
    close(mixed.dense()[np.ix_(rows, rows)], true[np.ix_(rows, rows)])
    close(mixed @ np.ones(31), np.asarray(mixed.dense()).sum(1))
    close(C.block_diagonal(op, "**").dense(), true)


@pytest.mark.slow
def test_samples_of_a_posterior_have_its_covariance() -> None:
    op = network_ggn()
    blocks = C.block_diagonal(op)
    samples = np.asarray(blocks.sample(40_000, key=KEY, damping=0.5))
    assert samples.shape == (40_000, 31)
    covariance = np.linalg.inv(masked(op, LAYERS) + 0.5 * np.eye(31))
    close(samples.T @ samples / len(samples), covariance, 0.06)
    approximation = C.nystrom(op, 31)
    samples = np.asarray(approximation.sample(40_000, key=KEY, damping=0.5))
    covariance = np.linalg.inv(np.asarray(op.dense()) + 0.5 * np.eye(31))
    close(samples.T @ samples / len(samples), covariance, 0.06)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ggn", "fisher"])
def test_a_nystrom_approximation_of_full_rank_is_the_operator(name: str) -> None:
    op = OPERATORS[name]()
    approximation, true, v = C.nystrom(op, 31, key=KEY), np.asarray(op.dense()), random(31)
    close(approximation.dense(), true, 1e-7)
    close(approximation @ v, true @ v, 1e-7)
    close(C.diagonal(approximation), np.diag(true), 1e-7)
    damped = true + 0.5 * np.eye(31)
    close(approximation.solve(v, damping=0.5), np.linalg.solve(damped, v), 1e-6)
    close(approximation.logdet(0.5), np.linalg.slogdet(damped)[1], 1e-6)
    close(approximation.block("layer0/b"), op.block("layer0/b"), 1e-7)


def test_a_nystrom_approximation_of_low_rank() -> None:
    values = np.r_[np.geomspace(100, 1, 5), np.full(35, 1e-6)]
    matrix, v = matrix_of(*values), random(40)
    approximation = C.nystrom(operator(matrix), 10, key=KEY)
    close(approximation.values[:5], values[:5], 1e-4)
    assert bool((approximation.values[5:] < 1e-5).all())
    damped = matrix + 0.1 * np.eye(40)
    close(approximation.solve(v, damping=0.1), np.linalg.solve(damped, v), 1e-3)
    close(approximation.logdet(0.1), np.linalg.slogdet(damped)[1], 1e-3)
    inverse = C.inverse(approximation, 0.1)
    close(inverse @ v, np.linalg.solve(damped, v), 1e-3)


@pytest.mark.slow
def test_a_nystrom_approximation_of_batches_reads_each_once() -> None:
    reads = []

    class Loader(list[Any]):
        def __iter__(self) -> Any:
            reads.append(1)
            return super().__iter__()

    flat, re = point()
    y = np.array([0, 2, 1, 1, 0, 2, 2])

    def make(batch: Any) -> C.Operator:
        return C.fisher(apply, flat, (re, batch[0]), re=re)

    op = C.batched(Loader([(X[:3], y[:3]), (X[3:], y[3:])]), make, size=lambda b: len(b[1]))
    reads.clear()
    approximation = C.nystrom(op, 31)
    assert len(reads) == 1
    close(approximation.dense(), fisher().dense(), 1e-7)


@pytest.mark.parametrize("kind", ["blocks", "nystrom", "inverse", "function"])
def test_preconditioners_save_products(kind: str) -> None:
    values, b = np.r_[np.geomspace(1e6, 1e2, 10), np.ones(50)], random(60)
    flat, re = jtree.destructure({"a": jnp.zeros(10), "b": jnp.zeros(50)})
    matrix = np.diag(values) + 0.01 * matrix_of(*np.linspace(0, 1, 60))
    op = C.hessian(lambda v, m: v @ m @ v / 2, flat, jnp.asarray(matrix), re=re)
    expected = np.linalg.solve(matrix + 0.1 * np.eye(60), b)
    with pytest.raises(jtree.CurvatureError, match="no convergence"):
        C.solve(op, b, damping=0.1, method="cg", maxiter=12)
    preconditioner: Any = {
        "blocks": lambda: C.block_diagonal(op),
        "nystrom": lambda: C.nystrom(op, 15, key=KEY),
        "inverse": lambda: C.inverse(C.block_diagonal(op), 0.1),
        "function": lambda: C.nystrom(op, 15, key=KEY).as_preconditioner(0.1),
    }[kind]()
    for method in ("cg", "auto"):
        x = C.solve(op, b, damping=0.1, method=method, preconditioner=preconditioner, maxiter=12)
        close(x, expected, 1e-6)
    jitted = jax.jit(
        lambda op, b, p: C.solve(op, b, damping=0.1, preconditioner=p, method="cg", maxiter=12)
    )
    close(jitted(op, b, preconditioner), expected, 1e-6)
    inverse = C.inverse(op, 0.1, preconditioner=preconditioner, maxiter=12)
    close(inverse @ b, expected, 1e-6)


def test_a_preconditioner_of_a_singular_approximation_is_definite() -> None:
    op, b = operator(np.diag([4.0, 1.0, 0.5])), np.ones(3)
    x = C.solve(op, b, preconditioner=C.nystrom(op, 1), method="cg")
    close(x, [0.25, 1, 2], 1e-6)
    flat, re = jtree.destructure({"a": jnp.zeros(2), "b": jnp.zeros(2)})
    indefinite = C.hessian(weighted, flat, jnp.array([3.0, -1.0, 0.0, 2.0]), re=re)
    assert bool(jnp.isfinite(C.block_diagonal(indefinite).as_preconditioner()(jnp.ones(4))).all())


@pytest.mark.slow
def test_within_jit() -> None:
    @jax.jit
    def results(op: C.Operator, v: jax.Array) -> Any:
        blocks, approximation = C.block_diagonal(op, progress=False), C.nystrom(op, 31)
        return [
            (x @ v, x.solve(v, damping=0.5), x.logdet(0.5), x.sample(2, key=KEY, damping=0.5))
            for x in (blocks, approximation)
        ]

    op, v = network_ggn(), normal(31)
    for jitted, x in zip(results(op, v), (C.block_diagonal(op), C.nystrom(op, 31)), strict=True):
        close(jitted[0], x @ v, 1e-6)
        close(jitted[1], x.solve(v, damping=0.5), 1e-6)
        close(jitted[2], x.logdet(0.5), 1e-6)
        assert jitted[3].shape == (2, 31)
    singular = jax.jit(lambda op: C.nystrom(op, 3).solve(jnp.ones(31)))(op)
    assert bool(jnp.isnan(singular).all())


@pytest.mark.slow
def test_derivatives_of_the_log_determinant() -> None:
    def logdet(scale: Any) -> Any:
        return C.block_diagonal(scale * network_ggn(), progress=False).logdet(1.0)

    matrix = masked(network_ggn(), LAYERS)
    inverse = np.linalg.inv(matrix + np.eye(31))
    close(jax.grad(logdet)(1.0), np.trace(inverse @ matrix), 1e-6)


def test_approximations_of_a_small_operator() -> None:
    flat, re = jtree.destructure({"a": jnp.zeros(2), "b": {"v": jnp.zeros(1), "w": jnp.zeros(2)}})
    matrix = matrix_of(1.0, 2.0, 3.0, 5.0, 8.0)
    op = C.hessian(lambda v, m: v @ m @ v / 2, flat, jnp.asarray(matrix), re=re)
    blocks, v = C.block_diagonal(op), random(5, 2)
    true = matrix.copy()
    true[:2, 2:] = true[2:, :2] = 0
    assert list(blocks.blocks) == ["a", "b/*"]
    for x, expected in ((blocks, true), (C.nystrom(op, 5), matrix)):
        damped = expected + 3 * np.eye(5)
        close(x.dense(), expected)
        close(x @ v, expected @ v)
        close(x.solve(v, damping=3.0), np.linalg.solve(damped, v))
        close(C.solve(x, v[:, 0], damping=3.0), np.linalg.solve(damped, v[:, 0]))
        close(x.logdet(3.0), np.linalg.slogdet(damped)[1])
        close(x.block("b/w", "b/v"), expected[3:, 2:3])
        samples = np.asarray(x.sample(20_000, key=KEY, damping=3.0))
        close(samples.T @ samples / len(samples), np.linalg.inv(damped), 0.02)


def labeled(*values: float) -> C.Operator:
    flat, re = jtree.destructure({"a": jnp.zeros(2), "b": jnp.zeros(2)})
    return C.hessian(weighted, flat, jnp.array(values), re=re)


MESSAGES: dict[str, Callable[[], Any]] = {
    "solve: b is singular to rounding; add a larger damping=": lambda: C.block_diagonal(
        labeled(1.0, 2.0, 0.0, 3.0)
    ).solve(np.ones(4)),
    "logdet: b is not positive definite: its smallest eigenvalue is -3; add a larger damping=, "
    "or use a ggn": lambda: C.block_diagonal(labeled(1.0, 2.0, -3.0, 3.0)).logdet(),
    "sample: a is singular to rounding; add a larger damping=": lambda: C.block_diagonal(
        labeled(0.0, 2.0, 3.0, 3.0)
    ).sample(key=KEY),
    "sample: the approximation of rank 2 is singular to rounding; add a larger damping=": lambda: (
        C.nystrom(labeled(1.0, 2.0, 3.0, 4.0), 2).sample(key=KEY)
    ),
    "block_diagonal: the operator has no labels; pass the second result of destructure, as in "
    "hessian(loss, flat, x, y, re=re)": lambda: C.block_diagonal(operator(np.eye(3))),
    "where: each parameter belongs to one block, but b is in no block; op.re.paths makes a block "
    "of each": lambda: C.block_diagonal(labeled(1.0, 1.0, 1.0, 1.0), "a"),
    "where: each parameter belongs to one block, but a is in several blocks; op.re.paths makes a "
    "block of each": lambda: C.block_diagonal(labeled(1.0, 1.0, 1.0, 1.0), ["a", "**"]),
    "where: expected a glob such as 'layers/0/**', or several, found 3": lambda: C.block_diagonal(
        labeled(1.0, 1.0, 1.0, 1.0), 3
    ),  # type: ignore[arg-type]
    "2 blocks of up to 2 parameters, with eigenvectors, take 128 bytes, but memory= allows 100 "
    "bytes; use smaller blocks, such as where=op.re.paths, or nystrom(op, rank)": lambda: (
        C.block_diagonal(labeled(1.0, 1.0, 1.0, 1.0), memory=100)
    ),
    "block_diagonal: the operator has values that are not finite, in 1 of 4 rows: b; check the "
    "loss and its gradient at this point": lambda: C.block_diagonal(labeled(1.0, 1.0, np.inf, 1.0)),
    "nystrom: the operator has values that are not finite, in 1 of 4 rows: b; check the "
    "loss and its gradient at this point": lambda: C.nystrom(labeled(1.0, 1.0, np.inf, 1.0), 2),
    "nystrom: the operator is not positive semidefinite: v @ op @ v is -2 for a unit vector; use "
    "a ggn, or add a damping: op.damped(...)": lambda: C.nystrom(labeled(1.0, 1.0, -2.0, 1.0), 4),
    "rank: expected 1 to 4, found 5": lambda: C.nystrom(labeled(1.0, 1.0, 1.0, 1.0), 5),
    "nystrom: expected an operator with at least one row, found 0 x 0": lambda: C.nystrom(
        empty(), 1
    ),
    "an approximation of rank 2 takes 192 bytes, but memory= allows 100 bytes; use a smaller "
    "rank": lambda: C.nystrom(labeled(1.0, 1.0, 1.0, 1.0), 2, memory=100),
    "restrict: restrict the operator before it is approximated": lambda: C.block_diagonal(
        labeled(1.0, 1.0, 1.0, 1.0)
    ).restrict("a"),
}


@pytest.mark.parametrize("message", MESSAGES)
def test_messages(message: str) -> None:
    with pytest.raises(jtree.JtreeError) as error:
        MESSAGES[message]()
    assert str(error.value) == message


def test_operators_without_parameters() -> None:
    flat, re = jtree.destructure({"f": jnp.tanh})
    op = C.hessian(lambda v: (v**2).sum(), flat, re=re)
    blocks = C.block_diagonal(op)
    assert blocks.blocks == {}
    assert blocks.dense().shape == (0, 0)
    assert blocks.solve(jnp.zeros(0)).shape == (0,)
    assert float(blocks.logdet()) == 0
    assert blocks.sample(3, key=KEY).shape == (3, 0)
    flat, re = jtree.destructure({"a": jnp.zeros((0, 2)), "b": jnp.ones(2)})
    blocks = C.block_diagonal(C.hessian(lambda v: (v**2).sum(), flat, re=re))
    assert float(blocks.logdet()) == pytest.approx(2 * math.log(2))
    close(blocks.solve(jnp.ones(2)), [0.5, 0.5])


@pytest.mark.parametrize("scale", [1e-20, pytest.param(1e20, marks=pytest.mark.slow)])
def test_approximations_of_any_scale(scale: float) -> None:
    flat, re = jtree.destructure({"a": jnp.zeros(2, "f4"), "b": jnp.zeros(2, "f4")})
    values = jnp.array([1.0, 2.0, 3.0, 4.0], "f4") * np.float32(scale)
    op = C.hessian(weighted, flat, values, re=re)
    for x in (C.block_diagonal(op), C.nystrom(op, 4)):
        close(x.solve(values), np.ones(4), 1e-5)
        close(x.logdet(), np.log(np.asarray(values, float)).sum(), 1e-5)


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_approximations_in_the_dtype_of_the_operator(dtype: Any) -> None:
    flat, re = jtree.destructure({"a": jnp.zeros(2, dtype), "b": jnp.zeros(2, dtype)})
    op = C.hessian(weighted, flat, jnp.array([1.0, 2.0, 3.0, 4.0], dtype), re=re)
    for x in (C.block_diagonal(op), C.nystrom(op, 4)):
        for result in (x @ flat, x.solve(flat), x.logdet(), x.sample(key=KEY), C.diagonal(x)):
            assert result.dtype == dtype
        close(x.dense().astype(float), np.diag([1.0, 2, 3, 4]), 0.05)


@pytest.mark.slow
def test_the_default_rank_promotion_may_be_an_error() -> None:
    with jax.numpy_rank_promotion("raise"):
        op = labeled(1.0, 2.0, 3.0, 4.0)
        C.nystrom(op, 2).solve(np.ones(4), damping=1.0)
        C.block_diagonal(op).sample(2, key=KEY)
        C.inverse(op, 1.0) @ np.ones((4, 2))
        C.spectrum(op, key=KEY).trace(jnp.log)
