"""Operators and Jacobians in SciPy, NumPy and lineax, and their algebra."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import scipy.sparse.linalg as sp

import jtree
from jtree import curvature as C  # noqa: N812

from .problems import (
    X,
    close,
    in_batches,
    matrix_of,
    network_ggn,
    network_hessian,
    normal,
    operator,
    point,
    quadratic,
    random,
    true_hessian,
    weighted,
)

pytestmark = pytest.mark.usefixtures("double")

MATRIX = matrix_of(*np.linspace(1, 5, 12))
TALL = random(7, 3, seed=3)
B = random(12, seed=1)


def linear(v: jax.Array, x: jax.Array) -> jax.Array:
    return x @ v


def tall() -> C.Jacobian:
    return C.jacobian(linear, jnp.ones(3), TALL)


# SciPy


def test_scipy_multiplies_with_operators_and_jacobians() -> None:
    for op, matrix in [(operator(MATRIX), MATRIX), (tall(), TALL), (tall().T, TALL.T)]:
        wrapped = sp.aslinearoperator(op)
        assert (wrapped.shape, wrapped.dtype) == (matrix.shape, np.float64)
        rows, cols = matrix.shape
        close(wrapped @ random(cols), matrix @ random(cols))
        close(wrapped.rmatvec(random(rows)), matrix.T @ random(rows))
        close(wrapped.T @ random(rows, 2), matrix.T @ random(rows, 2))
        close(op.matmat(random(cols, 4)), matrix @ random(cols, 4))
        close(op.rmatmat(random(rows, 4)), matrix.T @ random(rows, 4))


def test_products_are_arrays_of_the_library_of_the_vector() -> None:
    op = operator(MATRIX)
    product = op.matvec(B)
    assert type(product) is np.ndarray
    product += 1  # solvers write into products
    assert isinstance(op.matvec(jnp.asarray(B)), jax.Array)
    close(jax.jit(lambda op, v: op.matvec(v) + op.rmatvec(v))(op, B), 2 * MATRIX @ B)
    close(jax.jit(lambda op: op.matvec(B))(op), MATRIX @ B)


@pytest.mark.parametrize("solver", [sp.cg, sp.minres, sp.gmres, sp.bicgstab, sp.tfqmr])
def test_solvers_of_scipy(solver: Any) -> None:
    x, info = solver(operator(MATRIX), B)
    assert info == 0
    close(x, np.linalg.solve(MATRIX, B), 1e-3)


def test_least_squares_eigenvalues_and_singular_values_of_scipy() -> None:
    b = random(7)
    close(sp.lsqr(tall(), b, atol=1e-12, btol=1e-12)[0], np.linalg.lstsq(TALL, b)[0], 1e-6)
    close(sp.lsmr(tall(), b, atol=1e-12, btol=1e-12)[0], np.linalg.lstsq(TALL, b)[0], 1e-6)
    values, vectors = sp.eigsh(operator(MATRIX), 2)
    close(values, np.linalg.eigvalsh(MATRIX)[-2:])
    close(MATRIX @ vectors, vectors * values, 1e-6)
    block = random(30, 2)
    close(sp.lobpcg(operator(np.diag(np.arange(1.0, 31))), block, maxiter=200)[0], [30, 29], 1e-6)
    close(sorted(sp.svds(tall(), 2)[1]), np.sort(np.linalg.svd(TALL)[1])[1:])


@pytest.mark.parametrize("method", ["trust-constr", "trust-ncg", "Newton-CG"])
def test_minimize_takes_operators_as_hessians(method: str) -> None:
    values = jnp.array([1.0, 5.0, 9.0])
    shifted = lambda v: weighted(v - 2, values)  # noqa: E731
    minimum = scipy.optimize.minimize(
        shifted,
        np.zeros(3),
        method=method,
        jac=jax.grad(shifted),
        hess=lambda v: C.hessian(shifted, v),
    )
    close(minimum.x, [2, 2, 2], 1e-4)


def test_scipy_takes_single_precision() -> None:
    op = C.hessian(weighted, jnp.ones(3, jnp.float32), jnp.arange(1.0, 4.0, dtype="float32"))
    assert sp.eigsh(op, 1)[0].dtype == np.float32
    close(sp.cg(op, np.ones(3))[0], 1 / np.arange(1.0, 4.0), 1e-5)


def test_eigenpairs_unpack_as_those_of_scipy() -> None:
    values, vectors = pairs = C.eigsh(operator(MATRIX), 3)
    assert (values.shape, vectors.shape, len(pairs)) == ((3,), (12, 3), 2)
    assert pairs[0] is values
    assert pairs[1] is vectors


def test_eigenpairs_are_printed_within_jit() -> None:
    def values(op: C.Operator) -> jax.Array:
        pairs = C.eigsh(op, 3)
        assert repr(pairs) == "Eigenpairs(values=float64[3], vectors=float64[12, 3])"
        return pairs[0]

    assert jax.eval_shape(values, operator(MATRIX)).shape == (3,)


# NumPy


def test_numpy_arrays_of_operators() -> None:
    close(np.asarray(operator(MATRIX)), MATRIX)
    close(np.asarray(tall().T, dtype=np.float32), TALL.T, 1e-6)
    close(jnp.asarray(operator(MATRIX)), MATRIX)
    close(np.linalg.norm(tall()), np.linalg.norm(TALL))


ARRAYS: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: np.asarray(quadratic(jnp.zeros(3000))),
        "the matrix of 3000 x 3000 float64 takes 68.665 MiB, and NumPy forms one of up to 64.000 "
        "MiB by itself; use op.dense(), or products: op @ v, or "
        "scipy.sparse.linalg.aslinearoperator(op)",
    ),
    (
        lambda: np.array(quadratic(jnp.zeros(3)), copy=False),
        "copy=False: a matrix known by its products is computed, not copied",
    ),
    (
        lambda: jax.jit(np.asarray)(quadratic(jnp.zeros(3))),
        "within jit NumPy cannot form a matrix; use op.dense()",
    ),
]


@pytest.mark.parametrize(("call", "message"), ARRAYS)
def test_arrays_that_numpy_does_not_form(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(jtree.ArgumentError) as caught:
        call()
    assert str(caught.value) == message


# lineax


def test_lineax_takes_jacobians_and_products() -> None:
    b = normal(7)
    expected = np.linalg.lstsq(TALL, np.asarray(b))[0]
    solver = lx.Normal(lx.CG(rtol=1e-12, atol=1e-12))
    close(lx.linear_solve(tall().as_lineax(), b, solver).value, expected, 1e-6)
    close(lx.linear_solve((2 * tall()).as_lineax(), b, solver).value, expected / 2, 1e-6)
    close(tall().T.as_lineax().as_matrix(), TALL.T)


# Models


def test_products_with_models() -> None:
    flat, re = point()
    model = re(2 * flat)
    close(re.ravel(network_hessian() @ model), 2 * true_hessian() @ np.asarray(flat))
    J = C.jacobian(lambda m, x: jnp.tanh(x @ m["w"]), {"w": normal(3)}, X)  # noqa: N806
    close(J @ {"w": jnp.ones(3)}, J @ jnp.ones(3))


def nested(m: Any, x: Any = 1.0) -> jax.Array:
    return (jnp.sin(m["a"]) * x).sum() * m["b"]


def test_functions_of_models() -> None:
    model = {"a": normal(3), "b": jnp.array(2.0), "name": "two"}
    flat, re = jtree.destructure(model)
    for args in ((), (X[0],)):
        op = C.hessian(nested, model, *args)
        true = C.hessian(lambda v, *args: nested(re(v), *args), flat, *args)
        assert op.re.paths == ("a", "b")
        close(op.dense(), true.dense())
        product = op @ model
        assert product["name"] == "two"
        close(re.ravel(product), true @ flat)
        close(re.ravel(C.hvp(nested, model, model, *args)), true @ flat)
        close(C.hvp(nested, model, flat, *args), true @ flat)
    assert repr(op) == "Hessian(nested, 4 x 4, float64, a, b)"


def test_gauss_newton_fisher_and_jacobian_of_models() -> None:
    model = {"w": normal(3, 2)}
    flat, re = jtree.destructure(model)
    logits = lambda m, x: x @ m["w"]  # noqa: E731
    by_vector = lambda v, x: logits(re(v), x)  # noqa: E731
    loss = lambda o, _: (o**4).mean()  # noqa: E731
    close(C.ggn(logits, loss, model, X, 0).dense(), C.ggn(by_vector, loss, flat, X, 0).dense())
    close(C.fisher(logits, model, X).dense(), C.fisher(by_vector, flat, X).dense())
    close(C.jacobian(logits, model, X).dense(), C.jacobian(by_vector, flat, X).dense())
    close(C.diagonal(C.fisher(logits, model, X)), C.diagonal(C.fisher(by_vector, flat, X)))


def test_a_function_of_a_model_compiles_once() -> None:
    traces = []

    def f(m: Any) -> jax.Array:
        traces.append(1)
        return (m["w"] ** 3).sum()

    C.hessian(f, {"w": normal(3)}) @ normal(3)
    count = len(traces)
    C.hessian(f, {"w": 2 * normal(3)}) @ normal(3)
    assert len(traces) == count


# Algebra


def test_products_of_linear_maps() -> None:
    A, G, J = operator(MATRIX[:3, :3]), quadratic(normal(3)), tall()  # noqa: N806
    a, g = MATRIX[:3, :3], 2 * np.eye(3)
    table: dict[str, tuple[Any, Any]] = {
        "Product": (A @ G, a @ g),
        "transpose": ((A @ G).T, g @ a),
        "tall": (J @ A, TALL @ a),
        "long": (3 * (J @ (A @ G)) - J / 2, 3 * TALL @ a @ g - TALL / 2),
        "sum": ((J + J).T, 2 * TALL.T),
        "negative": (-J, -TALL),
    }
    for m, matrix in table.values():
        rows, cols = matrix.shape
        assert m.shape == matrix.shape
        close(m.dense(), matrix)
        close(m @ random(cols, 2), matrix @ random(cols, 2))
        close(random(rows) @ m, random(rows) @ matrix)
        close(jax.jit(lambda m, v: m @ v)(m, random(cols)), matrix @ random(cols))
        assert not isinstance(m, C.Operator)
    assert repr(A @ G) == "Product(Hessian(form) @ Hessian(square), 3 x 3, float64)"
    assert (
        repr(2 * J.T - J.T) == "Sum(2 Jacobian(linear).T + -1 Jacobian(linear).T, 3 x 7, float64)"
    )


def test_symmetric_products_are_operators() -> None:
    A, G, J = operator(MATRIX[:3, :3]), quadratic(normal(3)), tall()  # noqa: N806
    a = MATRIX[:3, :3]
    for m, matrix in [(A @ A, a @ a), (A @ G @ A, 2 * a @ a), (J @ A @ J.T, TALL @ a @ TALL.T)]:
        assert isinstance(m, C.Operator)
        close(m.dense(), matrix)
        close(C.trace(m).value, np.trace(matrix))
        close(C.eigsh(m, 1)[0][0], np.linalg.eigvalsh(matrix)[-1])
        close((m.damped(1.0) + m).dense(), 2 * matrix + np.eye(len(matrix)))
    assert (A @ A).semidefinite
    assert not (A @ G @ A).semidefinite
    K = C.jacobian(linear, jnp.ones(3), X)  # noqa: N806
    assert (J @ K.T @ K @ J.T).semidefinite
    assert repr(A @ A) == "SymmetricProduct(Hessian(form) @ Hessian(form), 3 x 3, float64)"


def test_algebra_with_batches() -> None:
    batched, whole = in_batches()
    true = np.asarray(whole.dense())
    for m, matrix in [(batched @ batched, true @ true), (batched @ operator(true), true @ true)]:
        close(m.dense(), matrix)
        close(m @ normal(3), matrix @ np.asarray(normal(3)))
    close(C.diagonal(batched @ batched), np.diag(true @ true))


def test_products_in_jit_and_derivatives() -> None:
    g = network_ggn()
    v = normal(31)
    close(jax.jit(lambda op, v: (op @ op) @ v)(g, v), g @ (g @ v))
    close(jax.grad(lambda v: (g @ g @ v).sum())(v), g @ (g @ jnp.ones(31)))


ERRORS: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: quadratic(normal(3)) + 0.1,
        "+: expected an operator, found 0.1; for a multiple of the identity use op.damped(damping)",
    ),
    (
        lambda: 1 - quadratic(normal(3)),
        "-: expected an operator, found 1; for a multiple of the identity use op.damped(damping)",
    ),
    (
        lambda: np.eye(3) + quadratic(normal(3)),
        "+: expected an operator, found float64[3, 3]; for the matrix use op.dense()",
    ),
    (
        lambda: scipy.sparse.eye_array(3) + quadratic(normal(3)),
        "+: expected an operator, found float64[3, 3]; for the matrix use op.dense()",
    ),
    (
        lambda: quadratic(normal(3)) - scipy.sparse.eye_array(3),
        "-: expected an operator, found float64[3, 3]; for the matrix use op.dense()",
    ),
    (
        lambda: quadratic(normal(3)) ** 2,
        "**: a matrix known by its products has no power; use op @ op for the square, "
        "or op.dense() for the matrix",
    ),
    (
        lambda: 2 ** quadratic(normal(3)),
        "**: a matrix known by its products has no power; use op @ op for the square, "
        "or op.dense() for the matrix",
    ),
    (
        lambda: quadratic(normal(3))[0],
        "[]: a matrix known by its products has no elements; use op.dense()[...], op @ v, or for "
        "parameters by path op.block(rows, cols)",
    ),
    (
        lambda: list(quadratic(normal(3))),
        "[]: a matrix known by its products has no elements; use op.dense()[...], op @ v, or for "
        "parameters by path op.block(rows, cols)",
    ),
    (
        lambda: network_hessian().restrict(jnp.array(1)),
        "where: expected a glob such as 'layers/0/**', several globs, or a function of (path, "
        "leaf), found an array",
    ),
    (
        lambda: network_hessian().block("**", np.array("w")),
        "where: expected a glob such as 'layers/0/**', several globs, or a function of (path, "
        "leaf), found an array",
    ),
    (
        lambda: C.batched(jnp.array(1.0), quadratic),
        "batches: expected an iterable, found float64[]",
    ),
    (
        lambda: jnp.eye(3) - quadratic(normal(3)),
        "-: expected an operator, found float64[3, 3]; for the matrix use op.dense()",
    ),
    (
        lambda: quadratic(normal(3)) + None,
        "+: expected an operator, found None",
    ),
    (
        lambda: quadratic(normal(3)) * np.ones(3),
        "*: expected a scalar, found float64[3]; use @ for products",
    ),
    (
        lambda: quadratic(normal(3)) * quadratic(normal(3)),
        "*: expected a scalar, found float64[3, 3]; use @ for products",
    ),
    (
        lambda: quadratic(normal(3)) * 1j,
        "*: expected a scalar, found 1j; use @ for products",
    ),
    (
        lambda: quadratic(normal(3)) / "a",
        "/: expected a scalar, found 'a'",
    ),
    (
        lambda: 1 / quadratic(normal(3)),
        "/: an operator divides nothing; use curvature.solve(op, b)",
    ),
    (
        lambda: tall() + 1,
        "+: expected an operator, found 1",
    ),
    (
        lambda: quadratic(normal(3)) / 0,
        "/: expected a scalar other than 0, found 0",
    ),
    (
        lambda: tall() @ tall(),
        "@: expected a linear map with 3 rows, found Jacobian(linear, 7 x 3, float64)",
    ),
    (
        lambda: tall() + tall().T,
        "expected linear maps of one shape, found [(3, 7), (7, 3)]",
    ),
    (
        lambda: quadratic(normal(3)) @ [1.0, 2.0, 3.0],
        "expected a vector of 3 elements, found a list",
    ),
    (
        lambda: quadratic(normal(3)) @ {"w": normal(3)},
        "op @ model: the operator has no labels; pass the second result of destructure, as in "
        "hessian(loss, flat, x, y, re=re)",
    ),
    (
        lambda: C.eigsh(tall(), 1),
        "eigsh: expected an operator, found Jacobian(linear); it is not symmetric; use ggn, or the "
        "product with its transpose, A.T @ A",
    ),
    (
        lambda: C.trace(np.eye(3)),
        "trace: expected an operator, found float64[3, 3]; for an array A pass "
        "hessian(lambda v: v @ A @ v / 2, jnp.zeros(len(A)))",
    ),
    (
        lambda: C.cond(linear),
        "cond: expected an operator, found the function linear; for a function of a vector pass "
        "hessian(function, vector)",
    ),
]


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_errors_of_the_algebra(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(jtree.JtreeError) as caught:
        call()
    assert str(caught.value) == message
