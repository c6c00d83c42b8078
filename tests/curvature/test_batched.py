"""Operators over batches of data."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree import curvature as C  # noqa: N812
from jtree.curvature._algorithms import eigen

from .problems import (
    KEY,
    TARGET,
    X,
    close,
    fit,
    in_batches,
    normal,
    quadratic,
)

pytestmark = pytest.mark.usefixtures("double")


def test_batches_of_unequal_size_equal_the_full_batch() -> None:
    batched, full = in_batches()
    true, v = np.asarray(full.dense()), np.asarray(normal(3, 3))
    close(batched @ v, true @ v)
    close(batched @ v[:, 0], true @ v[:, 0])
    close(batched.dense(), true)
    close(C.diagonal(batched), np.diag(true))
    close((batched + full).damped(1.0).dense(), 2 * true + np.eye(3))
    parts = [C.hessian(fit, normal(3), X[part], TARGET[part]) for part in np.split(range(7), [3])]
    naive = sum(np.asarray(op.dense()) for op in parts) / 2
    assert abs(naive - true).max() > 0.01
    close(in_batches(reduction="sum")[0].dense(), 2 * naive)


def test_every_batch_is_read_once_per_product() -> None:
    class Loader:
        reads = 0

        def __iter__(self) -> Iterator[Any]:
            for part in (slice(0, 3), slice(3, 7)):
                Loader.reads += 1
                yield X[part], TARGET[part]

    batched = C.batched(Loader(), lambda batch: C.hessian(fit, normal(3), *batch))
    for product in (lambda: batched @ normal(3), lambda: batched @ normal(3, 3), batched.dense):
        Loader.reads = 0
        product()
        assert Loader.reads == 2
    Loader.reads = 0
    C.trace(batched, "hutchinson", key=KEY, samples=9)
    assert Loader.reads == 2


def test_eigenpairs(monkeypatch: pytest.MonkeyPatch) -> None:
    batched, full = in_batches()
    monkeypatch.setattr(eigen, "_DENSE_SIZE", 0)
    close(C.eigsh(batched, 1).values, C.eigsh(full, 1).values, 1e-6)


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_solutions(method: Any) -> None:
    batched, full = in_batches()
    b = np.asarray(normal(3))
    solution = C.solve(batched, b, damping=50.0, method=method)
    close(solution, np.linalg.solve(full.dense() + 50 * np.eye(3), b), 1e-8)


def test_spectra() -> None:
    batched, full = (C.spectrum(op, key=KEY, samples=2) for op in in_batches())
    close(batched.nodes, full.nodes, 1e-6)


@pytest.mark.parametrize("method", ["hutchinson", "xdiag"])
def test_diagonals(method: Any) -> None:
    batched, full = (C.diagonal(op, method, key=KEY, samples=3) for op in in_batches())
    close(batched, full, 1e-6)


def test_batches_keep_labels() -> None:
    flat, re = jtree.destructure({"a": normal(2), "b": normal(1)})

    def loss(v: jax.Array, re: Any, x: jax.Array) -> jax.Array:
        return (jnp.tanh(x @ jnp.concatenate([re(v)["a"], re(v)["b"]])) ** 2).mean()

    make = lambda x: C.hessian(loss, flat, re, x, re=re)  # noqa: E731
    batched, true = C.batched([X[:3], X[3:]], make), np.asarray(make(X).dense())
    close(batched.restrict("b").dense(), true[2:, 2:])
    close(batched.block("a", "b"), true[:2, 2:])
    assert batched.restrict("b").re.paths == ("b",)


def test_parts_of_sums_with_batched_operators() -> None:
    flat, re = jtree.destructure({"a": jnp.ones(2), "b": jnp.ones(1)})
    loss = lambda v, x: ((x @ re(v)["a"]) ** 2).mean() * re(v)["b"].sum()  # noqa: E731
    batched = C.batched([X[:3, :2], X[3:, :2]], lambda x: C.hessian(loss, flat, x, re=re))
    both = (batched + quadratic(flat)).damped(0.5)
    true = np.asarray(both.dense())
    close(both.block("a"), true[:2, :2])
    close(both.block("b", "a"), true[2:, :2])


def test_the_number_of_examples_may_be_given() -> None:
    make = lambda x: C.hessian(lambda v: (v**2).sum() * len(x), normal(2))  # noqa: E731
    close(C.batched([X, X[:1]], make, size=len).dense(), (98 + 2) / 8 * np.eye(2))


def test_the_number_of_examples_is_unknown_for_arrays_of_several_lengths() -> None:
    def loss(v: jax.Array, key: jax.Array, x: jax.Array) -> jax.Array:
        return ((x @ v) ** 2).mean() + 0 * jax.random.normal(key)

    make = lambda x: C.hessian(loss, normal(3), jax.random.PRNGKey(0), x)  # noqa: E731
    with pytest.raises(jtree.ArgumentError, match="pass size=lambda batch"):
        C.batched([X[:3], X[3:]], make)  # the key has two elements
    close(C.batched([X[:3], X[3:]], make, size=len).dense(), 2 * X.T @ X / 7)


def test_many_examples_in_half_precision() -> None:
    v = jnp.ones(1, jnp.float16)
    loss = lambda v, x: (v**2).sum() + 0 * x[0]  # noqa: E731
    batches = [jnp.ones(70_000, jnp.float16), jnp.ones(35_000, jnp.float16)]
    assert C.batched(batches, lambda x: C.hessian(loss, v, x)).dense() == 2


def test_a_progress_bar_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    batched, full = in_batches()
    true = full.dense()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    close(batched.dense(), true)


def test_batches_with_unequal_shares_of_missing_labels_warn() -> None:
    def loss(w: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        valid = y >= 0
        return jnp.where(valid, (x @ w - y.astype(w.dtype)) ** 2, 0).sum() / valid.sum().astype(
            w.dtype
        )

    w = jnp.ones(2)
    x, y = jnp.arange(12, dtype=w.dtype).reshape(6, 2), jnp.array([0, -100, -100, 1, 2, 1])
    batches = [(x[:3], y[:3]), (x[3:], y[3:])]
    make = lambda batch: C.hessian(loss, w, *batch)  # noqa: E731
    message = (
        "batched: the batches have unequal shares of the labels -1 or -100; if the loss leaves "
        "these out of its mean, pass size=lambda batch: the number of valid labels"
    )
    with pytest.warns(UserWarning, match=f"^{message}$"):
        C.batched(batches, make).dense()
    with warnings.catch_warnings(action="error"):
        sized = C.batched(batches, make, size=lambda batch: int((batch[1] >= 0).sum()))
        np.testing.assert_allclose(sized.dense(), make((x, y)).dense(), rtol=1e-5)
