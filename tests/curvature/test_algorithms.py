"""What is asked of operators, operators over batches, and what goes wrong today elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jtree
from jtree import curvature
from jtree.curvature._algorithms import eigen as _eigen
from jtree.curvature._algorithms import solve as _solve

KEY = jax.random.key(0)
C = curvature


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def close(a: Any, b: Any, tol: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tol, atol=tol)


def form(v: jax.Array, matrix: jax.Array) -> jax.Array:
    return v @ (matrix @ v) / 2


def matrix_of(*values: float) -> jax.Array:
    """Return a symmetric matrix with these eigenvalues."""
    basis = jnp.linalg.qr(normal(len(values), len(values)))[0]
    return basis * jnp.array(values) @ basis.T


def operator(matrix: jax.Array) -> Any:
    return C.hessian(form, jnp.zeros(len(matrix)), matrix)


WIDE = np.concatenate([[-9.0, -9.0, 12.0, 11.0, 11.0], np.linspace(-1, 1, 595)])
X, TARGET = np.random.default_rng(3).normal(size=(7, 4)), np.arange(7.0)


def fit(v: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    return ((jnp.tanh(x @ v) - y) ** 2).mean()


def batched(**options: Any) -> tuple[Any, Any]:
    """Return an operator over batches of 3 and 4 examples, and that of all seven."""
    v = normal(4)
    batches = [(X[:3], TARGET[:3]), (X[3:], TARGET[3:])]
    over = C.batched(batches, lambda batch: C.hessian(fit, v, *batch), **options)
    return over, C.hessian(fit, v, X, TARGET)


# Diagonals and traces


def test_diagonals_and_traces_of_a_hessian() -> None:
    matrix = matrix_of(*np.geomspace(1e-4, 10, 40))
    op = operator(matrix)
    close(C.diagonal(op), jnp.diag(matrix))
    assert float(C.trace(op)) == pytest.approx(float(jnp.trace(matrix)))
    assert float(C.trace(op).error) == 0
    for method in ("hutchinson", "xtrace"):
        found = C.trace(op, method, key=KEY, samples=15)
        assert 0 < float(found.error) < 5
        assert abs(float(found) - float(jnp.trace(matrix))) < 5 * float(found.error)
    errors = {
        m: abs(C.diagonal(op, m, key=KEY, samples=15) - jnp.diag(matrix)).max()
        for m in ("hutchinson", "xdiag")
    }
    assert 3 * errors["xdiag"] < errors["hutchinson"] < 3


def test_an_estimate_is_a_number_with_an_error() -> None:
    found = C.Estimate(jnp.array(2.5), jnp.array(0.25))
    assert (float(found), repr(found)) == (2.5, "Estimate(2.5, error=0.25)")
    assert np.allclose(found, 2.5)


def test_the_diagonal_does_not_trust_examples_that_depend_on_each_other() -> None:
    def normalised(v: jax.Array, x: jax.Array) -> jax.Array:
        h = x * v
        return (h - h.mean(0)) / (1 + h.std(0))

    loss = lambda outputs, y: (outputs**2 * y).sum()  # noqa: E731
    op = C.ggn(normalised, loss, normal(4), X, 1.0)
    true = op.dense(chunk=2)
    close(C.diagonal(op), jnp.diag(true))
    close(op.dense(), true)
    assert bool(jnp.isnan(jax.jit(C.diagonal)(op)).all())


def test_the_diagonal_of_a_loss_that_compares_examples() -> None:
    loss = lambda outputs, y: (outputs[:, None] - outputs - y).var()  # noqa: E731
    op = C.ggn(lambda v, x: x @ v, loss, normal(4), X, 1.0)
    close(C.diagonal(op), jnp.diag(op.dense(chunk=2)))


# Eigenvalues


@pytest.mark.parametrize("which", ["LM", "LA", "SA"])
@pytest.mark.parametrize("small", [0, 512])
def test_eigenpairs_with_equal_eigenvalues(
    which: Any, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_eigen, "_SMALL", small)
    matrix = matrix_of(*WIDE[:200])
    found = C.eigsh(operator(matrix), 3, which=which, tol=1e-9)
    values = np.linalg.eigvalsh(np.asarray(matrix))
    expected = {"LM": [12, 11, 11], "LA": [12, 11, 11], "SA": [-9, -9, values[2]]}[which]
    close(found.values, expected)
    close(matrix @ found.vectors, found.vectors * found.values, 1e-6)
    close(found.vectors.T @ found.vectors, jnp.eye(3))
    assert float(found.residuals.max()) < 1e-6


def test_eigenpairs_say_how_good_they_are() -> None:
    found = C.eigsh(operator(matrix_of(*WIDE)), 3, maxiter=2)
    assert float(found.residuals.max()) > 1e-3
    assert repr(found).startswith("Eigenpairs([")


def test_inertia_norms_and_condition() -> None:
    op = operator(matrix_of(5.0, -2.0, 1.0, 0.0))
    assert C.inertia(op) == (2, 1, 1)
    close(C.norm(op), 5)
    close(C.norm(op, "fro"), 30**0.5)
    close(C.cond(operator(matrix_of(5.0, -2.0, 1.0))), 5)


def test_the_spectrum_is_the_true_density() -> None:
    found = C.spectrum(operator(matrix_of(*WIDE)), key=KEY, samples=20, steps=60)
    at = jnp.array([-10.0, -5.0, -0.5, 0.0, 0.5, 5.0, 11.5, 13.0])
    true = (WIDE[None] <= np.asarray(at)[:, None]).mean(1)
    close(found.cdf(at), true, 0.02)
    close(found.weights.sum(1), jnp.ones(20))
    close(found.range, (-9, 12), 1e-6)
    close(found.moment(2) * 600, (WIDE**2).sum(), 0.1)
    grid = found.grid()
    close(jnp.trapezoid(found.density(grid, width=0.3), grid), 1, 1e-3)


def test_the_spectrum_of_what_one_step_finds() -> None:
    found = C.spectrum(operator(2 * jnp.eye(5)), key=KEY)
    close(found.range, (2, 2))
    close(found.cdf(jnp.array([1.9, 2.1])), [0, 1])


# Systems


@pytest.mark.parametrize("method", ["auto", "cg", "minres", "cholesky"])
@pytest.mark.parametrize("small", [0, 2000])
def test_solutions(method: Any, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_solve, "_SMALL", small)
    matrix, b = matrix_of(*np.linspace(0.5, 9, 30)), normal(30)
    close(C.solve(operator(matrix), b, method=method), jnp.linalg.solve(matrix, b), 1e-8)
    damped = jnp.linalg.solve(matrix + 2 * jnp.eye(30), b)
    close(C.solve(operator(matrix), b, damping=2.0, method=method), damped, 1e-8)
    jitted = jax.jit(lambda op, b: C.solve(op, b, damping=2.0, method=method))
    close(jitted(operator(matrix), b), damped, 1e-8)


@pytest.mark.parametrize("small", [0, 2000])
def test_an_indefinite_system(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_solve, "_SMALL", small)
    matrix, b = matrix_of(*np.linspace(0.5, 9, 15), *np.linspace(-3, -1, 5)), normal(20)
    op, expected = operator(matrix), jnp.linalg.solve(matrix, b)
    close(C.solve(op, b), expected, 1e-8)
    close(C.solve(op, b, method="minres"), expected, 1e-8)
    with pytest.raises(jtree.CurvatureError, match="not positive definite: a direction of curv"):
        C.solve(op, b, method="cg")
    with pytest.raises(jtree.CurvatureError, match="its smallest eigenvalue is -3; add damping="):
        C.solve(op, b, method="cholesky")
    close(C.solve(op, b, method="cg", damping=4.0), jnp.linalg.solve(matrix + 4 * jnp.eye(20), b))
    assert bool(jnp.isnan(jax.jit(lambda op, b: C.solve(op, b, method="cg"))(op, b)).all())


def test_systems_without_a_solution_to_be_found() -> None:
    matrix, b = matrix_of(1.0, 2.0, 0.0), normal(3)
    with pytest.raises(jtree.CurvatureError, match="singular to rounding: add damping="):
        C.solve(operator(matrix), b)
    with pytest.raises(jtree.CurvatureError, match="minres: no convergence: after"):
        C.solve(operator(matrix), b, method="minres")
    with pytest.raises(jtree.CurvatureError, match="cg: no convergence: after 1 products"):
        C.solve(operator(matrix_of(1.0, 2.0, 3.0)), b, method="cg", maxiter=1)


def test_a_preconditioner_saves_products() -> None:
    scale = jnp.geomspace(1, 1e6, 50)
    op, b = operator(jnp.diag(scale) + 0.1), normal(50)
    expected = jnp.linalg.solve(jnp.diag(scale) + 0.1, b)
    for given in (1 / C.diagonal(op), lambda r: r / scale):
        found = C.solve(op, b, method="cg", preconditioner=given, maxiter=8)
        close(found, expected, 1e-6)
    with pytest.raises(jtree.CurvatureError, match="no convergence"):
        C.solve(op, b, method="cg", maxiter=8)


# Newton


def test_newton_takes_one_step_on_a_quadratic() -> None:
    matrix, v = matrix_of(*np.linspace(1, 9, 10)), normal(10)
    opt = C.newton(form)
    updates, state = opt.update(jax.grad(form)(v, matrix), opt.init(v), v, args=(matrix,))
    close(optax.apply_updates(v, updates), jnp.zeros(10), 1e-5)
    assert float(state.ratio) == pytest.approx(1, abs=1e-6)
    assert float(state.damping) == 0
    assert int(state.products) <= 11


def test_newton_gets_through_rosenbrock() -> None:
    def f(v: jax.Array) -> jax.Array:
        return (100 * (v[1:] - v[:-1] ** 2) ** 2 + (1 - v[:-1]) ** 2).sum()

    opt, v = C.newton(f), jnp.full(4, -1.2)
    step, state, values = jax.jit(opt.update), opt.init(v), [float(f(v))]
    for _ in range(80):
        updates, state = step(jax.grad(f)(v), state, v)
        v = optax.apply_updates(v, updates)
        values.append(float(f(v)))
    assert values == sorted(values, reverse=True)
    close(v, jnp.ones(4), 1e-6)


def test_newton_with_models_and_with_a_fisher() -> None:
    model = {"w": normal(4), "b": jnp.zeros(())}
    _, re = jtree.destructure(model)
    apply = lambda v, x: x @ re(v)["w"] + re(v)["b"]  # noqa: E731
    loss = lambda v, x, y: ((apply(v, x) - y) ** 2).mean() / 2  # noqa: E731
    natural = lambda v, x, _: C.fisher(apply, v, x, likelihood="gaussian")  # noqa: E731
    opt = optax.chain(C.newton(loss, re=re, curvature=natural), optax.scale(1.0))
    grads = jax.grad(lambda m: loss(re.ravel(m), X, TARGET))(model)
    updates, _ = opt.update(grads, opt.init(model), model, args=(X, TARGET))
    found = re.ravel(optax.apply_updates(model, updates))
    close(jax.grad(loss)(found, X, TARGET), jnp.zeros(5), 1e-5)


# Batches


def test_batches_of_unequal_size_equal_the_full_batch() -> None:
    over, full = batched()
    true, v = full.dense(), normal(4, 3)
    close(over @ v, true @ v)
    close(over @ v[:, 0], true @ v[:, 0])
    close(over.dense(), true)
    close(C.diagonal(over), jnp.diag(true))
    close((over + full).damped(1.0).dense(), 2 * true + jnp.eye(4))
    naive = (
        C.hessian(fit, normal(4), X[:3], TARGET[:3]) + C.hessian(fit, normal(4), X[3:], TARGET[3:])
    ) / 2
    assert abs(naive.dense() - true).max() > 0.01
    total = batched(reduction="sum")[0]
    close(total.dense(), 2 * naive.dense())


def test_every_batch_is_read_once_per_product() -> None:
    class Loader:
        reads = 0

        def __iter__(self) -> Iterator[Any]:
            for part in (slice(0, 3), slice(3, 7)):
                Loader.reads += 1
                yield X[part], TARGET[part]

    over = C.batched(Loader(), lambda batch: C.hessian(fit, normal(4), *batch))
    for product in (lambda: over @ normal(4), lambda: over @ normal(4, 3), over.dense):
        Loader.reads = 0
        product()
        assert Loader.reads == 2
    Loader.reads = 0
    C.trace(over, "hutchinson", key=KEY, samples=9)
    assert Loader.reads == 2


def test_everything_is_asked_of_operators_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    over, full = batched()
    monkeypatch.setattr(_eigen, "_SMALL", 0)
    b = normal(4)
    close(C.eigsh(over, 1).values, C.eigsh(full, 1).values, 1e-6)
    for method in ("cg", "minres"):
        solution = C.solve(over, b, damping=50.0, method=method)
        close(solution, jnp.linalg.solve(full.damped(50.0).dense(), b), 1e-8)
    close(
        C.spectrum(over, key=KEY, samples=2).nodes, C.spectrum(full, key=KEY, samples=2).nodes, 1e-6
    )
    for method in ("hutchinson", "xdiag"):
        found, expected = (C.diagonal(x, method, key=KEY, samples=3) for x in (over, full))
        close(found, expected, 1e-6)


def test_batches_keep_labels() -> None:
    flat, re = jtree.destructure({"a": normal(2), "b": normal(2)})

    def loss(v: jax.Array, re: Any, x: jax.Array) -> jax.Array:
        return (jnp.tanh(x @ jnp.concatenate([re(v)["a"], re(v)["b"]])) ** 2).mean()

    make = lambda x: C.hessian(loss, flat, re, x, re=re)  # noqa: E731
    over, true = C.batched([X[:3], X[3:]], make), make(X).dense()
    close(over.restrict("b").dense(), true[2:, 2:])
    close(over.block("a", "b"), true[:2, 2:])
    assert over.restrict("b").re.paths == ("b",)


def test_batches_are_refused_that_can_be_read_once_or_weigh_nothing() -> None:
    make = lambda x: C.hessian(lambda v: (v**2).sum() * len(x), normal(2))  # noqa: E731
    with pytest.raises(jtree.ArgumentTypeError, match=r"can be read once; give list\(...\) of it"):
        C.batched(iter([X]), make)
    with pytest.raises(jtree.ArgumentError, match="expected one or more, found none"):
        C.batched([], make)
    with pytest.raises(jtree.ArgumentError, match="give size=lambda batch"):
        C.batched([X], make)
    close(C.batched([X, X[:1]], make, size=len).dense(), (98 + 2) / 8 * jnp.eye(2))
    with pytest.raises(jtree.ArgumentError, match="outside of jit"):
        jax.jit(lambda v: C.batched([X], make, size=len) @ v)(normal(2))


# What users fall into


def test_parameters_combined_in_the_wrong_order_are_an_error() -> None:
    model = eqx.nn.Linear(2, 1, key=KEY)
    flat, re = jtree.destructure(model)
    wrong = lambda v: (eqx.combine(model, re(v)).weight ** 2).sum()  # noqa: E731
    with pytest.raises(jtree.ArgumentError, match="does not depend on its first argument"):
        C.hessian(wrong, flat)
    with pytest.raises(jtree.ArgumentError, match="does not depend on its first argument"):
        C.hessian(jax.jit(wrong), flat)
    outputs = lambda v, x: jax.vmap(eqx.combine(model, re(v)))(x)  # noqa: E731
    with pytest.raises(jtree.ArgumentError, match="outputs do not depend on the vector"):
        C.fisher(outputs, flat, jnp.ones((2, 2)))


def test_batch_norm_in_training_mode() -> None:
    model = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    flat, re = jtree.destructure(model)
    x = X.astype(np.float32)
    inside = C.hessian(lambda v: (re(v)(x) ** 3).sum(), flat, re=re)
    assert inside.dense().shape == (8, 8)

    def outside(v: jax.Array) -> jax.Array:
        return (model(x) * v[:4]).sum()

    with pytest.raises(jtree.ModelError, match=r"call model.eval\(\) before destructure"):
        C.hessian(outside, flat)


def test_step_counters_and_rates_are_seen_in_the_labels() -> None:
    flat, re = jtree.destructure({"w": normal(2), "step": jnp.array(3), "rate": 0.1})
    assert C.hessian(lambda v: (v**2).sum(), flat, re=re).re.paths == ("w",)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda v: C.hessian(jnp.sum, v.astype(complex)),
            jtree.VectorTypeError,
            "make the real and the imag",
        ),
        (
            lambda _: C.hessian(jnp.sum, jnp.arange(3)),
            jtree.VectorTypeError,
            "expected a vector of",
        ),
        (
            lambda v: C.hessian(jnp.sum, v[None]),
            jtree.VectorError,
            "flat: expected a vector, found",
        ),
        (
            lambda v: C.hessian(lambda v: v, v),
            jtree.ArgumentError,
            "returns one real number, found",
        ),
        (lambda v: C.hessian(lambda v: (v.sum(), v), v), jtree.ArgumentError, "without auxiliary"),
        (lambda v: C.hessian(3, v), jtree.ArgumentTypeError, "expected a function, found 3"),
        (lambda v: quadratic(v) @ v[:2], jtree.VectorError, "expected a vector of 3 numbers or a"),
        (lambda v: quadratic(v) @ jnp.ones((2, 3)), jtree.VectorError, "columns: transpose it"),
        (
            lambda v: quadratic(v) @ v.astype(complex),
            jtree.VectorTypeError,
            "expected real numbers",
        ),
        (lambda v: quadratic(v).mv([1.0]), jtree.VectorTypeError, "expected a vector of 3 numbers"),
        (lambda v: quadratic(v).block("w"), jtree.ArgumentError, "the operator has no labels"),
        (lambda v: quadratic(v).restrict("w"), jtree.ArgumentError, "the operator has no labels"),
        (
            lambda v: quadratic(v).dense(0),
            jtree.ArgumentError,
            "chunk: expected 1 or more, found 0",
        ),
        (lambda v: quadratic(v).dense("all"), jtree.ArgumentTypeError, "a number or 'auto'"),
        (lambda v: quadratic(v).dense(memory=50), jtree.ArgumentError, "op.restrict"),
        (lambda v: quadratic(v) + quadratic(v[:2]), jtree.VectorError, "operators of one size"),
        (lambda v: C.diagonal(quadratic(v), "hutchinson"), jtree.ArgumentError, "give key="),
        (
            lambda v: C.trace(quadratic(v), "xdiag", key=KEY),
            jtree.ArgumentError,
            "method: expected",
        ),
        (lambda v: C.eigsh(quadratic(v), 4), jtree.ArgumentError, "k: expected between 1 and 3"),
        (lambda v: C.eigsh(quadratic(v), which="SM"), jtree.ArgumentError, "which: expected"),
        (lambda v: C.norm(quadratic(v), 1), jtree.ArgumentError, "ord: expected 2 or 'fro'"),
        (lambda v: C.solve(quadratic(v), v, method="lu"), jtree.ArgumentError, "method: expected"),
        (lambda v: C.fisher(linear, v, X), jtree.ArgumentError, "for one logit per example use"),
        (lambda v: C.fisher(linear, v, X, kind="mc"), jtree.ArgumentError, "give key="),
        (lambda v: C.fisher(linear, v, X, kind="empirical"), jtree.ArgumentError, "give y"),
        (
            lambda v: C.fisher(linear, v, X, likelihood="poisson"),
            jtree.ArgumentError,
            "likelihood:",
        ),
        (lambda v: C.ggn(linear, jnp.subtract, v, X, 0.0), jtree.ArgumentError, "one real number"),
        (
            lambda v: C.ggn(lambda v, _: v, jnp.vdot, v, X, v),
            jtree.ArgumentError,
            "7 examples of x",
        ),
    ],
)
def test_errors_say_what_to_do(call: Callable[[Any], Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call(normal(3))


def quadratic(v: jax.Array) -> Any:
    return C.hessian(lambda v: (v**2).sum(), v)


def linear(v: jax.Array, x: jax.Array) -> jax.Array:
    return x[:, :3] @ v


def test_labels_of_another_model_are_refused() -> None:
    with pytest.raises(jtree.ArgumentError, match="re: expected labels for 3 parameters"):
        C.hessian(jnp.sum, normal(3), re=jtree.destructure(normal(2))[1])


def test_a_missing_library_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lineax", None)
    with pytest.raises(jtree.ExtraError, match=r'pip install "jtree\[curvature\]"'):
        quadratic(normal(3)).as_lineax()


def test_a_progress_bar_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    over, full = batched()
    true = full.dense()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    close(full.dense(chunk=2), true)
    close(over.dense(), true)


def test_devices_of_a_mesh(run_python: Callable[..., str]) -> None:
    out = run_python(
        """
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec as P
        from jtree import curvature

        mesh = jax.make_mesh((8,), ("x",))
        rows = NamedSharding(mesh, P("x", None))
        x = jax.device_put(np.random.default_rng(0).normal(size=(16, 8)).astype("f4"), rows)
        flat = jax.device_put(jnp.ones(8) / 9, NamedSharding(mesh, P("x")))
        loss = lambda v, x: (jnp.tanh(x @ v) ** 2).mean()
        true = jax.hessian(loss)(np.asarray(flat), np.asarray(x))
        op = curvature.hessian(loss, flat, x)
        v = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, P("x")))
        ok = lambda a, b: np.allclose(np.asarray(a), b, atol=1e-5)
        print(ok(op @ v, true @ np.arange(8.0)), ok(op @ np.eye(8, dtype="f4"), true))
        print(ok(op.dense(), true))
        matrix = op.dense(sharding=rows)
        print(ok(matrix, true), matrix.sharding == rows, len(matrix.addressable_shards))
        """,
        JAX_NUM_CPU_DEVICES="8",
        JAX_PLATFORMS="cpu",
    )
    assert out == "True True\nTrue\nTrue True 8\n"


# What was wrong once


def test_parts_of_sums_with_operators_without_labels() -> None:
    flat, re = jtree.destructure({"a": jnp.ones(2), "b": jnp.ones(1)})
    labelled = C.hessian(lambda v: re(v)["a"].prod() * re(v)["b"].sum(), flat, re=re)
    both = (labelled + quadratic(flat)).damped(0.5)
    true = both.dense()
    close(both.block("a"), true[:2, :2])
    close(both.block("a", "b"), true[:2, 2:])
    close(both.restrict("a").dense(), true[:2, :2])


def test_parts_of_sums_with_operators_over_batches() -> None:
    flat, re = jtree.destructure({"a": jnp.ones(2), "b": jnp.ones(1)})
    loss = lambda v, x: ((x @ re(v)["a"]) ** 2).mean() * re(v)["b"].sum()  # noqa: E731
    over = C.batched([X[:3, :2], X[3:, :2]], lambda x: C.hessian(loss, flat, x, re=re))
    both = (over + quadratic(flat)).damped(0.5)
    true = both.dense()
    close(both.block("a"), true[:2, :2])
    close(both.block("b", "a"), true[2:, :2])


def test_sums_of_operators_of_two_dtypes() -> None:
    single, double = quadratic(jnp.ones(3, jnp.float32)), quadratic(jnp.ones(3))
    for both in (single + double, double + single):
        assert both.dtype == both.dense().dtype == (both @ normal(3)).dtype == jnp.float64
        close(both.dense(), 4 * jnp.eye(3))


class Pair(NamedTuple):
    mean: Any
    log_sigma: Any


def test_a_gaussian_whose_pair_is_a_named_tuple() -> None:
    at, x = jnp.array([3.0, jnp.log(2.0)]), jnp.ones((5, 1))
    op = C.fisher(lambda v, x: Pair(v[0] * x, v[1] * x), at, x, likelihood="gaussian")
    close(op.dense(), jnp.diag(jnp.array([0.25, 2.0])))
    with pytest.raises(jtree.ArgumentError, match="as a tuple"):  # a dict's order is its keys'
        C.fisher(lambda v, x: Pair(v[0] * x, v[1] * x)._asdict(), at, x, likelihood="gaussian")


def test_logits_in_a_dict_and_logits_of_one_class() -> None:
    logits = lambda v, x: x[:, :3] @ v.reshape(3, 2)  # noqa: E731
    expected = C.fisher(logits, normal(6), X).dense()
    close(C.fisher(lambda v, x: {"logits": logits(v, x)}, normal(6), X).dense(), expected)
    with pytest.raises(jtree.ArgumentError, match="use 'bernoulli'"):
        C.fisher(lambda v, x: linear(v, x)[:, None], normal(3), X)


def test_inputs_with_as_many_rows_as_there_are_examples_by_chance() -> None:
    x, mixing = normal(3, 3), normal(3, 3, seed=1)
    apply = lambda v, given: given[0] @ given[1] @ v  # noqa: E731
    op = C.ggn(apply, lambda o, y: ((o - y) ** 2).sum() / 2, normal(3), (x, mixing), jnp.ones(3))
    true = (x @ mixing).T @ x @ mixing
    close(op.dense(), true)
    close(C.diagonal(op), jnp.diag(true))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str) -> None:
    v, scale = jnp.ones(3, dtype), jnp.array([1.0, 2.0, -4.0], dtype)
    op = C.hessian(lambda v, scale: (v * scale * v).sum() / 2, v, scale)
    pairs = C.eigsh(op, 3)
    assert pairs.values.dtype == pairs.vectors.dtype == op.dtype
    close(pairs.values.astype(float), [-4, 2, 1], 0.02)
    assert C.inertia(op) == (2, 1, 0)
    assert (C.cond(op), C.norm(op)) == (4, 4)
    close(C.solve(op, jnp.ones(3)).astype(float), [1, 0.5, -0.25], 0.02)
    assert C.spectrum(op, key=KEY).moment(1) == pytest.approx(-1 / 3, abs=0.02)
    apply = lambda v, x: x[:, :3] @ v.astype(x.dtype)  # noqa: E731
    mixed = C.ggn(apply, lambda o, y: ((o - y) ** 2).mean(), v, X, TARGET)
    assert mixed.dense().dtype == C.diagonal(mixed).dtype == v.dtype


def test_many_examples_in_half_precision() -> None:
    v = jnp.ones(1, jnp.float16)
    loss = lambda v, x: (v**2).sum() + 0 * x[0]  # noqa: E731
    batches = [jnp.ones(70_000, jnp.float16), jnp.ones(35_000, jnp.float16)]
    assert C.batched(batches, lambda x: C.hessian(loss, v, x)).dense() == 2


def test_arrays_of_several_lengths_do_not_tell_the_number_of_examples() -> None:
    def loss(v: jax.Array, key: jax.Array, x: jax.Array) -> jax.Array:
        return ((x @ v) ** 2).mean() + 0 * jax.random.normal(key)

    make = lambda x: C.hessian(loss, normal(4), jax.random.PRNGKey(0), x)  # noqa: E731
    with pytest.raises(jtree.ArgumentError, match="give size=lambda batch"):
        C.batched([X[:3], X[3:]], make)  # the key has two numbers
    close(C.batched([X[:3], X[3:]], make, size=len).dense(), 2 * X.T @ X / 7)


def test_estimates_of_more_samples_than_parameters() -> None:
    op = C.hessian(form, normal(3), matrix_of(1.0, 2.0, -3.0))
    found = C.diagonal(op, "hutchinson", key=KEY, samples=20_000)
    close(found, C.diagonal(op), 0.1)


def test_standard_errors_are_those_of_a_sample() -> None:
    op = C.hessian(form, normal(6), matrix_of(*np.arange(6.0)))
    many = [C.trace(op, "hutchinson", key=k, samples=2) for k in jax.random.split(KEY, 300)]
    variances = np.mean([float(x.error) ** 2 for x in many])
    assert variances == pytest.approx(np.var([float(x) for x in many]), rel=0.25)
    assert np.isnan(C.trace(op, "hutchinson", key=KEY, samples=1).error)


def test_newton_takes_arguments_as_the_loss_does() -> None:
    v = normal(4)
    opt, g = C.newton(fit), jax.grad(fit)(v, X, TARGET)
    updates, _ = opt.update(g, opt.init(v), v, X, TARGET)
    expected, _ = opt.update(g, opt.init(v), v, args=(X, TARGET))
    close(updates, expected)


def test_the_state_of_newton_keeps_its_types() -> None:
    opt, v = C.newton(lambda v: (v**2).sum()), normal(4)
    step, state = jax.jit(opt.update), opt.init(v)
    assert not any(x.weak_type for x in state)
    for _ in range(3):
        _, after = step(2 * v, state, v)
        assert [x.aval for x in after] == [x.aval for x in state]
        state = after
    assert step._cache_size() == 1
    with jax.disable_jit():
        _, after = opt.update(2 * v, opt.init(v), v)
    assert [x.aval for x in after] == [x.aval for x in state]
