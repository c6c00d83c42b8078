"""What all algorithms require: operators with finite values, of any scale, and options they use."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree import ArgumentError, ArgumentTypeError, CurvatureError
from jtree import curvature as C  # noqa: N812

from .problems import KEY, diagonal_operator, empty, weighted


@pytest.mark.parametrize("method", ["auto", "cg", "minres", "cholesky"])
@pytest.mark.parametrize("scale", [1e20, 1e-30])
def test_systems_of_any_scale(method: Any, scale: float) -> None:
    op = diagonal_operator(np.array([1.0, 2.0, 4.0]) * scale)
    x = C.solve(op, jnp.array([0.5, 1.0, 2.0]) * scale, method=method)
    np.testing.assert_allclose(x, 0.5, rtol=1e-5)


@pytest.mark.parametrize("method", ["minres", "cholesky"])
def test_methods_without_a_preconditioner(method: Any) -> None:
    message = f"preconditioner: method='{method}' takes none; use method='cg'"
    with pytest.raises(ArgumentError, match=f"^{message}$"):
        C.solve(diagonal_operator(np.ones(2)), np.ones(2), method=method, preconditioner=np.ones(2))
    calls = []
    C.solve(
        diagonal_operator(np.ones(2)),
        np.ones(2),
        preconditioner=lambda r: (calls.append(r), r)[1],
    )
    assert calls


@pytest.mark.parametrize(
    "name", ["solve", "cg", "minres", "diagonal", "trace", "hutchinson", "spectrum", "cond"]
)
def test_operators_that_are_not_finite(name: str) -> None:
    flat, re = jtree.destructure({"b": jnp.ones(2), "w": jnp.ones(2)})
    op = C.hessian(weighted, flat, jnp.array([1.0, 1.0, jnp.inf, 1.0]), re=re)
    calls = {
        "solve": lambda: C.solve(op, flat),
        "cg": lambda: C.solve(op, flat, method="cg"),
        "minres": lambda: C.solve(op, flat, method="minres"),
        "diagonal": lambda: C.diagonal(op),
        "trace": lambda: C.trace(op),
        "hutchinson": lambda: C.trace(op, "hutchinson", key=KEY),
        "spectrum": lambda: C.spectrum(op, key=KEY),
        "cond": lambda: C.cond(op),
    }
    called = {"cg": "solve", "minres": "solve", "hutchinson": "trace"}.get(name, name)
    message = (
        f"{called}: the operator has values that are not finite, in 1 of 4 rows: w; "
        "check the loss and its gradient at this point"
    )
    with pytest.raises(CurvatureError, match=f"^{message}$"):
        calls[name]()


def test_arguments_that_are_not_operators() -> None:
    functions = {
        "eigsh": C.eigsh,
        "solve": lambda op: C.solve(op, np.ones(2)),
        "trace": C.trace,
        "block_diagonal": C.block_diagonal,
        "inverse": C.inverse,
        "layerwise": C.layerwise,
        "nystrom": lambda op: C.nystrom(op, 1),
        "cond": C.cond,
        "norm": C.norm,
        "inertia": C.inertia,
        "spectrum": lambda op: C.spectrum(op, key=KEY),
    }
    for name, function in functions.items():
        with pytest.raises(ArgumentTypeError, match=rf"^{name}: expected an operator, found .*; "):
            function(np.ones((2, 2)))


def test_no_samples() -> None:
    with pytest.raises(ArgumentError, match=r"^samples: expected 1 or more, found 0$"):
        C.trace(diagonal_operator(np.ones(2)), "hutchinson", key=KEY, samples=0)


def test_labels_that_the_kind_of_fisher_does_not_use() -> None:
    message = "y: kind='exact' uses no labels; leave out y, or pass kind='empirical'"
    with pytest.raises(ArgumentError, match=f"^{message}$"):
        C.fisher(lambda v, x: x @ v.reshape(2, 2), jnp.ones(4), np.ones((3, 2)), np.zeros(3, int))


# Operators without rows, and batches without examples

NONE = np.ones((0, 2), np.float32)
ROWS = np.ones((3, 2), np.float32)


def mean_square(v: Any, x: Any) -> Any:
    return ((x @ v) ** 2).mean()


def empty_square() -> C.Operator:
    op = empty()
    return op @ op


@pytest.mark.parametrize("make", [empty, empty_square, lambda: empty().damped(1.0)])
def test_results_for_operators_without_rows(make: Any) -> None:
    op, zero = make(), jnp.zeros(0)
    assert op.dense().shape == np.asarray(op).shape == (0, 0)
    assert (op @ jnp.zeros((0, 3))).shape == (0, 3)
    assert C.inertia(op) == (0, 0, 0)
    assert float(C.norm(op)) == float(C.norm(op, "fro")) == 0
    for method in ("auto", "cg", "minres", "cholesky"):
        assert C.solve(op, zero, method=method).shape == (0,)


def test_jacobians_without_rows_or_columns() -> None:
    no_rows = C.jacobian(lambda v, x: x @ v, jnp.ones(2), NONE)
    no_columns = C.jacobian(lambda v, x: x + v.sum(), jnp.zeros(0), ROWS)
    for op, shape in [(no_rows, (0, 2)), (no_rows.T, (2, 0)), (no_columns, (6, 0))]:
        assert op.dense().shape == (op @ jnp.ones((shape[1], 1)) @ jnp.ones((1, shape[1]))).shape
        assert op.dense().shape == shape


def test_batches_without_examples_do_not_count() -> None:
    make = lambda x: C.hessian(mean_square, jnp.ones(2), x)  # noqa: E731
    for batches in ([ROWS, NONE], [NONE, ROWS]):
        np.testing.assert_allclose(C.batched(batches, make).dense(), make(ROWS).dense())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: C.batched([NONE], lambda x: C.hessian(mean_square, jnp.ones(2), x)).dense(),
            "batched: no batch has any examples, so their mean is undefined",
        ),
        (
            lambda: C.ggn(lambda v, x: x @ v, lambda o, _: (o**2).mean(), jnp.ones(2), NONE, 0),
            "x: expected one or more examples, found 0",
        ),
        (
            lambda: C.fisher(lambda v, x: x * v, jnp.ones(2), NONE),
            "x: expected one or more examples, found 0",
        ),
    ],
)
def test_means_of_no_examples(call: Any, message: str) -> None:
    with pytest.raises(CurvatureError) as caught:
        call()
    assert str(caught.value) == message


def test_counting_eigenvalues_within_jit() -> None:
    message = "inertia: it counts values, so call it outside of jit; or use eigsh"
    with pytest.raises(ArgumentError) as caught:
        jax.jit(C.inertia)(diagonal_operator(np.ones(2)))
    assert str(caught.value) == message


def test_counts_may_be_arrays() -> None:
    op, two = diagonal_operator(np.ones(2)), jnp.int32(2)
    assert float(C.trace(op, "hutchinson", key=KEY, samples=two)) == 2
    assert C.diagonal(op, "xdiag", key=KEY, samples=two).shape == (2,)
    assert C.spectrum(op, key=KEY, samples=two, steps=two).nodes.shape == (2, 2)
    assert C.solve(op, np.ones(2), method="cg", maxiter=two).shape == (2,)


def test_integers_are_not_keys() -> None:
    op = diagonal_operator(np.ones(2))
    message = r"key: expected a key such as jax.random.key\(0\), found 0"
    for call in (
        lambda: C.trace(op, "hutchinson", key=0),
        lambda: C.diagonal(op, "hutchinson", key=0),
        lambda: C.spectrum(op, key=0),
        lambda: C.eigsh(op, 1, key=0),
        lambda: C.fisher(lambda v, x: x * v, jnp.ones(2), ROWS, kind="mc", key=0),
    ):
        with pytest.raises(ArgumentTypeError, match=f"^{message}$"):
            call()
