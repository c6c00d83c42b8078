"""Operators as the issue and other libraries call them, and at their edges."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest

import jtree
from jtree import curvature as C  # noqa: N812 (as in the other tests)
from jtree import plot

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
Y = np.array([0, 1, 2, 0, 1, 2, 0])
FLAT = jnp.linspace(-1.0, 1.0, 6)


def logits(v: jax.Array, x: jax.Array) -> jax.Array:
    return x @ v.reshape(2, 3)


def cross_entropy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()


def weighted(v: jax.Array, values: jax.Array) -> jax.Array:
    return (values * v * v).sum() / 2


def diagonal(values: Any) -> Any:
    """Return an operator with these eigenvalues, in the order of the vector."""
    return C.hessian(weighted, jnp.ones(len(values)), jnp.asarray(values, jnp.float32))


FUNCTIONS = [
    function
    for module in (C, plot)
    for function in vars(module).values()
    if inspect.isfunction(function) and not function.__name__.startswith("_")
]


@pytest.mark.parametrize(
    ("function", "count", "names"),
    [
        (C.fisher, 4, ["y"]),
        (C.batched, 2, ["make"]),
        (C.eigsh, 3, ["k", "which"]),
        (C.diagonal, 2, ["method"]),
        (plot.spectrum, 2, ["weights"]),
        (plot.landscape, 4, ["re", "directions"]),
        (plot.parameters, 2, ["re"]),
    ],
)
def test_arguments_by_position_or_by_name(
    function: Callable[..., Any], count: int, names: list[str]
) -> None:
    signature = inspect.signature(function)
    signature.bind(*range(count))
    before = list(signature.parameters)[:count]
    signature.bind(*(0 for name in before if name not in names), **dict.fromkeys(names))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_keys_and_optional_labels_are_keywords_and_the_vector_comes_first(
    function: Callable[..., Any],
) -> None:
    parameters = inspect.signature(function).parameters
    names = list(parameters)
    if "key" in names:
        assert parameters["key"].kind is inspect.Parameter.KEYWORD_ONLY
    if "re" in names and parameters["re"].default is None:
        assert parameters["re"].kind is inspect.Parameter.KEYWORD_ONLY
    if "re" in names and "flat" in names:
        assert names.index("flat") < names.index("re")


def test_results_unpack_and_estimates_are_numbers_to_jax() -> None:
    pairs = C.eigsh(diagonal([1.0, 2.0]), 1)
    values, vectors = pairs
    assert values.shape == pairs.residuals.shape == (1,)
    assert vectors.shape == (2, 1)
    estimate = C.trace(diagonal([1.0, 2.0]))
    value, error = estimate
    assert (float(value), float(error)) == (3, 0)
    assert float(jnp.abs(estimate)) == 3


def test_sum_adds_operators_up() -> None:
    op = diagonal([1.0, 2.0])
    np.testing.assert_allclose(sum([op, op, op]) @ jnp.ones(2), [3, 6])
    with pytest.raises(TypeError):
        1 + op


def positive(kind: str) -> Any:
    ggn = C.ggn(logits, cross_entropy, FLAT, X, Y)
    jacobian = C.jacobian(logits, FLAT, X)
    return {
        "ggn": ggn.damped(0.5),
        "fisher": 2 * C.fisher(logits, FLAT, X) + ggn.damped(0.5),
        "kernel": (jacobian @ jacobian.T).damped(0.5),
    }[kind]


def test_conjugate_gradients_of_lineax_take_what_is_semidefinite() -> None:
    for kind in ("ggn", "kernel"):
        assert lx.is_positive_semidefinite(positive(kind).as_lineax())
    op = positive("fisher")
    b = jnp.ones(op.size)
    found = lx.linear_solve(op.as_lineax(), b, lx.CG(rtol=1e-6, atol=1e-6)).value
    np.testing.assert_allclose(op @ found, b, atol=1e-4)


@pytest.mark.parametrize("factor", [-1.0, jnp.array(-1.0)])
def test_what_may_be_indefinite_is_not_called_semidefinite(factor: Any) -> None:
    ggn = C.ggn(logits, cross_entropy, FLAT, X, Y)
    for op in (factor * ggn, ggn.damped(factor), diagonal([1.0, -1.0])):
        assert lx.is_symmetric(op.as_lineax())
        assert not lx.is_positive_semidefinite(op.as_lineax())


def test_a_jacobian_is_multiplied_from_the_left_and_called() -> None:
    jacobian, u = C.jacobian(logits, FLAT, X), np.linspace(0, 1, 21, dtype=np.float32)
    np.testing.assert_allclose(u @ jacobian, jacobian.T @ u, rtol=1e-6)
    np.testing.assert_array_equal(jacobian(FLAT), jacobian @ FLAT)


def test_many_eigenpairs_of_a_matrix_not_much_larger() -> None:
    values = np.sort(np.append(np.random.default_rng(0).normal(size=695), [50, 50, 50, -40, -40]))
    found = C.eigsh(diagonal(values), 80, "LA")
    np.testing.assert_allclose(found.values, values[::-1][:80], atol=1e-3)


def test_a_spectrum_of_one_eigenvalue_has_no_others() -> None:
    assert C.spectrum(diagonal([1.0] * 3), key=KEY, samples=4).range == pytest.approx((1, 1))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_estimates_that_split_off_a_sketch_in_half_precision(dtype: Any) -> None:
    values = jnp.arange(1.0, 9.0).astype(dtype)
    op = C.hessian(weighted, jnp.ones(8, dtype), values)
    found = C.trace(op, "xtrace", key=KEY, samples=6)
    assert found.value.dtype == found.error.dtype == dtype
    assert float(found) == pytest.approx(36, abs=0.5)
    diagonal = C.diagonal(op, "xdiag", key=KEY, samples=8)
    assert diagonal.dtype == dtype
    np.testing.assert_allclose(diagonal.astype(float), values.astype(float), atol=0.2)


def test_the_error_of_an_estimate_is_no_less_than_rounding() -> None:
    found = C.trace(diagonal(np.exp(-np.arange(60.0))), "xtrace", key=KEY, samples=40)
    assert float(found.error) >= 1e-7 * float(found)
    assert float(found) == pytest.approx(1 / (1 - np.exp(-1)), abs=1e-5)


def nothing() -> Any:
    return C.hessian(lambda v: (v**2).sum(), jnp.zeros(0))


def test_an_operator_without_parameters_has_empty_answers() -> None:
    op = nothing()
    for method in ("exact", "hutchinson", "xdiag"):
        assert C.diagonal(op, method, key=KEY).shape == (0,)
    for method in ("exact", "hutchinson", "xtrace"):
        assert float(C.trace(op, method, key=KEY)) == 0
    assert C.norm(op) == C.norm(op, "fro") == 0
    assert C.inertia(op) == (0, 0, 0)
    shift = C.ggn(lambda v, x: x + v.sum(), lambda o, _: (o**2).sum(), jnp.zeros(0), jnp.ones(3), 0)
    assert shift.dense().shape == (0, 0)


def test_the_condition_of_a_singular_matrix_is_infinite() -> None:
    assert C.cond(diagonal([1.0, 0.0])) == C.cond(diagonal([0.0, 0.0])) == jnp.inf


def test_a_reader_that_goes_on_where_it_stopped_is_refused() -> None:
    class Once:
        def __init__(self) -> None:
            self.rest = iter([X[:3], X[3:]])

        def __iter__(self) -> Iterator[Any]:
            return self.rest

    with pytest.raises(jtree.ArgumentTypeError, match=r"found an? Once, which goes on where it st"):
        C.batched(Once(), lambda x: C.hessian(lambda v, x: ((x @ v) ** 2).mean(), FLAT[:2], x))


def test_arrays_of_other_libraries_are_arrays() -> None:
    torch = pytest.importorskip("torch")
    loss = lambda v, x, y: cross_entropy(logits(v, x), y)  # noqa: E731
    assert C.hessian(loss, FLAT, torch.tensor(X), torch.tensor(Y)).examples == 7


@pytest.mark.parametrize("make", [C.hessian, C.ggn])
def test_learning_rates_among_the_parameters_are_an_error(make: Any) -> None:
    state = {"params": jnp.ones((2, 3)), "hyperparams": {"rate": jnp.array(0.1)}}
    flat, re = jtree.destructure(state)
    apply = lambda v, x: x @ re(v)["params"]  # noqa: E731
    loss = lambda v, x, y: cross_entropy(apply(v, x), y)  # noqa: E731
    args = (loss, flat, X, Y) if make is C.hessian else (apply, cross_entropy, flat, X, Y)
    with pytest.raises(jtree.ArgumentError, match=r"hyperparams/rate: .* does not depend on this"):
        make(*args, re=re)
    used = lambda v: re(v)["hyperparams"]["rate"] * re(v)["params"].sum()  # noqa: E731
    assert C.hessian(used, flat, re=re).size == 7


def test_newton_takes_the_vector_also_where_it_knows_the_model() -> None:
    flat, re = jtree.destructure({"w": jnp.ones(2), "b": jnp.ones(())})
    loss = lambda v: (jnp.array([1.0, 2.0, 3.0]) * (v - 4) ** 2).sum()  # noqa: E731
    opt = C.newton(loss, re=re)
    updates, _ = jax.jit(opt.update)(jax.grad(loss)(flat), opt.init(flat), flat)
    np.testing.assert_allclose(optax.apply_updates(flat, updates), [4, 4, 4], rtol=1e-5)


def test_explicit_meshes(run_python: Callable[..., str]) -> None:
    code = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from jtree import curvature as C
mesh = jax.make_mesh((2,), ("x",))
rows, whole = NamedSharding(mesh, P("x", None)), NamedSharding(mesh, P("x"))
y, given = jax.device_put(jnp.arange(4) % 2, whole), jax.device_put(jnp.ones(4), whole)
fisher = C.fisher(lambda v, x: x @ v.reshape(2, 2), given, jnp.eye(4, 2), y, kind="empirical")
assert np.isfinite(fisher @ given).all()
op = C.hessian(lambda v: (v ** 2).sum(), given).damped(2.0)
np.testing.assert_array_equal(op.dense(sharding=rows), 4 * np.eye(4))
found = C.solve(op, given, method="cg", preconditioner=given)
np.testing.assert_allclose(found, np.full(4, 0.25))
print("good")
"""
    assert "good" in run_python(code, JAX_NUM_CPU_DEVICES="2")


def empirical(y: Any) -> Any:
    return C.fisher(logits, FLAT, X, y, kind="empirical")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: C.eigsh(diagonal([1.0]), 1, maxiter=0),
            jtree.ArgumentError,
            "maxiter: expected 1",
        ),
        (lambda: C.eigsh(diagonal([1.0]), 1.0), jtree.ArgumentTypeError, "k: expected a whole num"),  # type: ignore[arg-type]
        (lambda: C.eigsh(nothing(), 1), jtree.ArgumentError, "k: expected an operator of one par"),
        (
            lambda: C.spectrum(nothing(), key=KEY),
            jtree.ArgumentError,
            "spectrum: expected an operator",
        ),
        (lambda: C.spectrum(diagonal([1.0]), key=None), jtree.ArgumentError, "give key="),
        (lambda: C.cond(nothing()), jtree.ArgumentError, "cond: expected an operator of one"),
        (lambda: C.inertia(diagonal([jnp.nan])), jtree.CurvatureError, "entries that are not fini"),
        (
            lambda: diagonal([1.0]).damped("a"),
            jtree.ArgumentTypeError,
            "expected a number, found 'a'",
        ),
        (
            lambda: C.batched([X], 3),
            jtree.ArgumentTypeError,
            "make: expected a function from a batch",
        ),  # type: ignore[arg-type]
        (
            lambda: C.hessian(lambda _: None, FLAT),
            jtree.ArgumentError,
            "one real number, found none",
        ),
        (lambda: C.jacobian(lambda *_: (), FLAT, X), jtree.ArgumentError, "outputs, found none"),
        (
            lambda: C.fisher(lambda v, _: v.sum(), FLAT, X),
            jtree.ArgumentError,
            "expected floating outp",
        ),
        (
            lambda: empirical(Y + 1),
            jtree.ArgumentError,
            "class numbers from 0 to 2, found some from 1",
        ),
        (
            lambda: empirical(Y - 1),
            jtree.ArgumentError,
            "class numbers from 0 to 2, found some from -1",
        ),
        (
            lambda: empirical(np.array(["a"] * 7)),
            jtree.ArgumentTypeError,
            "y: expected an array of num",
        ),
        (lambda: C.newton(3), jtree.ArgumentTypeError, "loss: expected a function, found 3"),  # type: ignore[arg-type]
        (
            lambda: C.newton(jnp.sum, damping=-1),
            jtree.ArgumentError,
            "damping of 0 or more, found 100 and -1",
        ),
        (
            lambda: C.newton(jnp.sum).update(FLAT[:2], C.newton(jnp.sum).init(FLAT), FLAT),
            jtree.VectorError,
            "expected a gradient of 6 numbers",
        ),
        *(
            (
                lambda given=given: C.solve(
                    diagonal([1.0, 2.0]), FLAT[:2], method="cg", preconditioner=given
                ),
                jtree.VectorError,
                "preconditioner: expected",
            )
            for given in (jnp.ones(3), jnp.eye(2), lambda r: r[:1])
        ),
    ],
)
def test_errors_at_the_edges(call: Callable[[], Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
