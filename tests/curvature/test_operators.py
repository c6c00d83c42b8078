"""Operators of curvature: exact cases, their algebra, their parts, and every kind of model."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import curvature
from jtree.curvature._autodiff import linearize as _linearised

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def close(a: Any, b: Any, tol: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tol, atol=tol)


def network(sizes: tuple[int, ...] = (3, 5, 4, 3)) -> Any:
    pairs = pairwise(sizes)
    return {
        f"layer{i}": {"b": normal(m, seed=i) / 9, "w": normal(n, m, seed=i) / n**0.5}
        for i, (n, m) in enumerate(pairs)
    }


def forward(model: Any, x: jax.Array, activation: Any = jnp.tanh) -> jax.Array:
    for i, layer in enumerate(model.values()):
        x = (activation(x) if i else x) @ layer["w"] + layer["b"]
    return x


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()


def mse(outputs: jax.Array, y: jax.Array) -> jax.Array:
    return ((outputs - y) ** 2).mean()


X, Y = np.random.default_rng(7).normal(size=(7, 3)), np.array([0, 2, 1, 1, 0, 2, 2])


def at() -> tuple[jax.Array, Any]:
    return jtree.destructure(network())


def apply(flat: jax.Array, inputs: Any) -> jax.Array:
    re, x = inputs
    return forward(re(flat), x)


def loss(flat: jax.Array, re: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return cross_entropy(forward(re(flat), x), y)


def op_of(**options: Any) -> Any:
    flat, re = at()
    return curvature.hessian(loss, flat, re, X, Y, re=re, **options)


def ggn_of() -> Any:
    flat, re = at()
    return curvature.ggn(apply, cross_entropy, flat, (re, X), Y, re=re)


@cache
def true_hessian() -> jax.Array:
    flat, re = at()
    return jax.jit(jax.hessian(loss))(flat, re, jnp.asarray(X), jnp.asarray(Y))


@cache
def true_ggn() -> jax.Array:
    flat, re = at()
    jacobian = jax.jit(jax.jacobian(apply))(flat, (re, jnp.asarray(X))).reshape(-1, flat.size)
    out = apply(flat, (re, jnp.asarray(X)))
    inner = jax.hessian(cross_entropy)(out, jnp.asarray(Y)).reshape(out.size, out.size)
    return jacobian.T @ inner @ jacobian


# Exact cases


def test_hessian_of_logistic_regression() -> None:
    x, w = jnp.asarray(X), normal(3)
    y = jnp.asarray(Y > 0, w.dtype)
    nll = lambda w, x, y: (jax.nn.softplus(x @ w) - y * (x @ w)).sum()  # noqa: E731
    p = jax.nn.sigmoid(x @ w)
    close(curvature.hessian(nll, w, x, y).dense(), x.T @ jnp.diag(p * (1 - p)) @ x)


def test_hessian_of_softmax_regression_is_a_sum_of_kronecker_products() -> None:
    x, w = jnp.asarray(X), normal(3, 3)
    flat, re = jtree.destructure(w)
    op = curvature.hessian(lambda v, re, x, y: cross_entropy(x @ re(v), y), flat, re, X, Y, re=re)
    p = jax.nn.softmax(x @ w)
    blocks = jax.vmap(lambda p: jnp.diag(p) - jnp.outer(p, p))(p)
    expected = sum(jnp.kron(jnp.outer(a, a), b) for a, b in zip(x, blocks, strict=True)) / len(x)
    close(op.dense(), expected)


def test_hessian_of_linear_regression() -> None:
    op = curvature.hessian(lambda w, x, y: mse(x @ w, y), normal(3), X, normal(7))
    close(op.dense(), 2 * X.T @ X / 7)


def test_hessian_of_a_quadratic_form_is_its_symmetric_part() -> None:
    matrix = normal(6, 6)
    op = curvature.hessian(lambda v, a: v @ a @ v / 2, normal(6), matrix)
    close(op.dense(), (matrix + matrix.T) / 2)


def test_hessian_of_rosenbrock_in_ten_dimensions() -> None:
    def f(v: jax.Array) -> jax.Array:
        return (100 * (v[1:] - v[:-1] ** 2) ** 2 + (1 - v[:-1]) ** 2).sum()

    v = normal(10)
    middle = jnp.full(10, 202.0).at[0].set(2.0).at[-1].set(200.0)
    expected = jnp.diag(middle + jnp.append(1200 * v[:-1] ** 2 - 400 * v[1:], 0))
    beside = jnp.diag(-400 * v[:-1], 1)
    close(curvature.hessian(f, v).dense(), expected + beside + beside.T)


def test_two_linear_layers_have_a_saddle_at_zero_of_known_inertia() -> None:
    flat, re = jtree.destructure({"a": jnp.zeros((2, 2)), "b": jnp.zeros((2, 2))})
    target = jnp.diag(jnp.array([2.0, 1.0]))

    def f(v: jax.Array, re: Any, target: jax.Array) -> jax.Array:
        return ((re(v)["b"] @ re(v)["a"] - target) ** 2).sum() / 2

    op = curvature.hessian(f, flat, re, target, re=re)
    close(jnp.linalg.eigvalsh(op.dense()), [-2, -2, -1, -1, 1, 1, 2, 2])
    assert curvature.inertia(op) == (4, 4, 0)


def test_a_tied_autoencoder_has_twice_the_parameter_once() -> None:
    w = normal(3, 2)
    flat, re = jtree.destructure({"dec": w, "enc": w}, ties=[("enc", "dec")])

    def f(v: jax.Array, re: Any, x: jax.Array) -> jax.Array:
        m = re(v)
        return mse(jnp.tanh(x @ m["enc"]) @ m["dec"].T, x)

    op = curvature.hessian(f, flat, re, X, re=re)
    direct = lambda v: mse(jnp.tanh(X @ v.reshape(3, 2)) @ v.reshape(3, 2).T, X)  # noqa: E731
    assert op.shape == (6, 6)
    close(op.dense(), jax.hessian(direct)(w.reshape(-1)))
    close(op.block("enc", "dec"), op.dense())


def test_gauss_newton_is_the_hessian_of_a_linear_model() -> None:
    w, y = normal(3), normal(7)
    op = curvature.ggn(lambda w, x: x @ w, mse, w, X, y)
    close(op.dense(), 2 * X.T @ X / 7)


@pytest.mark.parametrize("chunk", ["auto", 4])
def test_gauss_newton_by_examples_and_by_products(chunk: Any) -> None:
    close(ggn_of().dense(chunk), true_ggn())


def test_the_exact_fisher_is_the_gauss_newton_matrix_of_the_negative_log_likelihood() -> None:
    flat, re = at()
    op = curvature.fisher(apply, flat, (re, X), re=re)
    close(op.dense(), true_ggn())
    close(op.dense(chunk=5), true_ggn())


@pytest.mark.parametrize(
    ("likelihood", "nll"),
    [
        ("bernoulli", lambda o, y: (jax.nn.softplus(o) - y * o).sum() / len(o)),
        ("gaussian", lambda o, y: ((o - y) ** 2).sum() / 2 / len(o)),
    ],
)
def test_the_fisher_of_other_likelihoods(likelihood: Any, nll: Any) -> None:
    flat, re = at()
    op = curvature.fisher(apply, flat, (re, X), likelihood=likelihood)
    other = curvature.ggn(apply, nll, flat, (re, X), jnp.ones((7, 3)))
    close(op.dense(), other.dense(chunk=4))
    close(op @ flat, other @ flat)


def test_the_fisher_of_a_gaussian_in_mean_and_log_sigma() -> None:
    def pair(v: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return v[0] + 0 * x, v[1] + 0 * x

    at, x = jnp.array([3.0, jnp.log(2.0)]), jnp.ones(5)
    exact = curvature.fisher(pair, at, x, likelihood="gaussian")
    close(exact.dense(), jnp.diag(jnp.array([1 / 4, 2.0])))
    drawn = curvature.fisher(pair, at, x, likelihood="gaussian", kind="mc", samples=20_000, key=KEY)
    close(drawn.dense(), exact.dense(), 0.1)


def test_the_empirical_fisher_sums_squares_of_gradients_not_the_square_of_their_sum() -> None:
    flat, re = at()
    op = curvature.fisher(apply, flat, (re, X), Y, kind="empirical", re=re)
    one = lambda x, y: jax.grad(loss)(flat, re, x[None], y[None])  # noqa: E731
    gradients = jax.vmap(one)(jnp.asarray(X), jnp.asarray(Y))
    close(op.dense(), gradients.T @ gradients / 7)
    close(op.dense(chunk=4), gradients.T @ gradients / 7)
    mean = gradients.mean(0)
    assert abs(op.dense() - jnp.outer(mean, mean)).max() > 0.01


def test_the_sampled_fisher_is_one_matrix_per_key_and_goes_to_the_exact_one() -> None:
    flat, re = at()
    make = lambda **o: curvature.fisher(apply, flat, (re, X), kind="mc", **o)  # noqa: E731
    close(make(key=KEY, samples=3).dense(), make(key=KEY, samples=3).dense(chunk=4))
    close(make(key=KEY, samples=20_000).dense(chunk=8), true_ggn(), 0.02)


def test_relu_networks_have_equal_diagonal_blocks_in_each_layer() -> None:
    flat, re = at()
    relu = lambda v, inputs: forward(inputs[0](v), inputs[1], jax.nn.relu)  # noqa: E731
    full = lambda v, re, x, y: cross_entropy(relu(v, (re, x)), y)  # noqa: E731
    hessian = curvature.hessian(full, flat, re, X, Y, re=re)
    ggn = curvature.ggn(relu, cross_entropy, flat, (re, X), Y, re=re)
    for layer in ("layer0", "layer2"):
        close(hessian.block(f"{layer}/**"), ggn.block(f"{layer}/**"))


def test_euler_relation_of_relu_networks_without_biases() -> None:
    flat, re = jtree.destructure([abs(normal(*shape)) for shape in ((3, 4), (4, 4), (4, 1))])

    def f(v: jax.Array, re: Any, x: jax.Array) -> jax.Array:
        for w in re(v):
            x = jax.nn.relu(x @ w)
        return x.sum()

    op = curvature.hessian(f, flat, re, jnp.abs(X), re=re)
    value = f(flat, re, jnp.abs(X))
    assert value > 0
    close(flat @ (op @ flat), 3 * 2 * value)


# Products


def test_products_with_vectors_and_with_columns() -> None:
    op, true, v = op_of(), true_hessian(), normal(59, 70)
    assert op.shape == true.shape == (59, 59)
    close(op @ v[:, 0], true @ v[:, 0])
    close(op @ v[:, :3], true @ v[:, :3])
    close(op.mv(v), true @ v)
    close(v[:, 0] @ op, true @ v[:, 0])
    close(np.asarray(v[:, :2]).T @ op, v[:, :2].T @ true)
    close(op(v[:, 0]), op.T @ v[:, 0])
    flat, re = at()
    close(curvature.hvp(loss, flat, v[:, 0], re, X, Y), true @ v[:, 0])


@pytest.mark.parametrize("chunk", ["auto", 1, 7, 1000])
def test_the_matrix_in_chunks(chunk: Any) -> None:
    close(op_of().dense(chunk), true_hessian())


def test_the_matrix_in_little_memory() -> None:
    close(op_of().dense(memory=59 * 59 * 8 + 10), true_hessian())


def test_a_model_whose_order_in_the_vector_is_not_that_of_its_use() -> None:
    names = {"layer0": "c", "layer1": "a", "layer2": "b"}
    model = {names[k]: v for k, v in network().items()}
    flat, re = jtree.destructure(model)

    def f(v: jax.Array, re: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        m = re(v)
        return cross_entropy(forward({k: m[k] for k in "cab"}, x), y)

    op = curvature.hessian(f, flat, re, X, Y, re=re)
    close(op.dense(3), jax.jit(jax.hessian(f))(flat, re, X, Y))
    close(curvature.diagonal(op), jnp.diag(op.dense()))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jitted"])
def test_a_loss_that_uses_the_vector_in_other_ways(wrap: Callable[[Any], Any]) -> None:
    flat, re = at()

    @wrap
    def f(v: jax.Array, x: jax.Array) -> jax.Array:
        weights = v[9:24].reshape(5, 3)
        return loss(v, re, x, jnp.asarray(Y)) + (v**4).sum() + (weights @ x.T).std() * v[-1]

    op = curvature.hessian(f, flat, X, re=re)
    true = jax.jit(jax.hessian(f))(flat, jnp.asarray(X))
    close(op.dense(), true)
    close(op.restrict("layer1/w").dense(), true[re["layer1/w"], re["layer1/w"]])


def test_products_compile_once_for_one_function() -> None:
    traces = []

    def f(v: jax.Array, x: jax.Array) -> jax.Array:
        traces.append(1)
        return ((x @ v) ** 4).sum()

    v = normal(3)
    curvature.hessian(f, v, X) @ v
    count = len(traces)
    for scale in (2.0, 3.0):
        op = curvature.hessian(f, scale * v, scale * X)
        close(op.damped(0.0).terms[0] @ v, op @ v)
    assert len(traces) == count


def test_the_first_product_linearises_for_all_others() -> None:
    runs: list[int] = []

    def f(v: jax.Array, x: jax.Array) -> jax.Array:
        jax.debug.callback(lambda: runs.append(1))
        return ((x @ v) ** 4).sum()

    v = normal(3)
    op = curvature.hessian(f, v, X).damped(1.0)
    once = jax.jit(op.mv)(v)  # leaves nothing of its tracing behind
    jax.effects_barrier()
    runs.clear()
    found = [op @ v, op @ v, (op @ jnp.stack([v, v], 1))[:, 1]]
    jax.effects_barrier()
    assert len(runs) == 1
    for product in found:
        close(product, once)
    kept = len(_linearised._KEPT)
    del op
    gc.collect()
    assert len(_linearised._KEPT) == kept - 1


def test_operators_are_arguments_of_jit() -> None:
    traces = []

    @jax.jit
    def step(op: Any, v: jax.Array) -> jax.Array:
        traces.append(1)
        return op @ v + op.dense().sum() + curvature.diagonal(op)

    flat, re = at()
    for scale in (1.0, 2.0):
        op = curvature.hessian(loss, scale * flat, re, X, Y, re=re).damped(scale)
        close(step(op, flat), op @ flat + op.dense().sum() + curvature.diagonal(op))
    assert len(traces) == 1
    assert jax.tree.leaves(op)


def test_products_can_be_differentiated_and_mapped() -> None:
    def f(v: jax.Array) -> jax.Array:
        return (v**3).sum()

    v = normal(4)
    close(jax.grad(lambda p: (curvature.hessian(f, p) @ v).sum())(v), 6 * v)
    close(jax.vmap(lambda p: curvature.hessian(f, p) @ p)(v[None]), 6 * v[None] ** 2)


# Algebra and parts


def test_sums_multiples_and_damping() -> None:
    h, g = op_of(), ggn_of()
    a, b, v = true_hessian(), true_ggn(), normal(59)
    both = (2 * h - g / 4).damped(0.5) + (-h)
    expected = a - b / 4 + 0.5 * jnp.eye(59)
    close(both.dense(), expected)
    close(both @ v, expected @ v)
    close(curvature.diagonal(both), jnp.diag(expected))
    part = at()[1]["layer1/**"]
    close(both.restrict("layer1/**").dense(), expected[part][:, part])
    close(both.block("layer1/**", "layer0/b"), expected[part][:, at()[1]["layer0/b"]])
    assert repr(h.damped(0.5)) == (
        "Combination(Hessian(loss) + 0.5 I, 59 x 59, float64, layer0/b, layer0/w, layer1/b, ...)"
    )
    close(h.damped(0.25).dense(), a + jnp.eye(59) / 4)


@pytest.mark.parametrize("make", [op_of, ggn_of])
def test_blocks_and_restrictions(make: Callable[[], Any]) -> None:
    op, (flat, re) = make(), at()
    true = op.dense(chunk=8)
    rows, cols = re["layer0/w"], re["layer2/**"]
    close(op.block("layer0/w", "layer2/**"), true[rows][:, cols])
    close(op.block("layer2/**", "layer0/w"), true[cols][:, rows])
    close(op.block(["layer0/w", "layer0/b"]), true[:20, :20])
    part = op.restrict("layer1/**")
    where = re["layer1/**"]
    assert part.re.paths == ("layer1/b", "layer1/w")
    close(part.dense(), true[where][:, where])
    close(part @ part.point, true[where][:, where] @ flat[where])
    inner = part.restrict("layer1/w")
    close(inner.dense(), true[re["layer1/w"], re["layer1/w"]])
    close(inner.re(inner.point)["layer0"]["w"], re(flat)["layer0"]["w"])
    close(curvature.diagonal(part), jnp.diag(true)[where])


def test_nothing_is_computed_for_what_an_operator_is_restricted_from() -> None:
    flat, re = at()
    op = curvature.hessian(loss, flat, re, X, Y, re=re).restrict("layer2/**")
    function = op._cut()
    linear = op._map(function, op.numbers, op.numbers)
    pieces = [jnp.zeros(function.sizes[k]) for k in op.numbers]
    widths = [e.outvars[0].aval.shape for e in jax.make_jaxpr(linear)(pieces).jaxpr.eqns]
    assert widths
    assert not any(5 in shape for shape in widths)  # the width of the first layer


def test_vectors_as_models() -> None:
    op, (flat, re) = op_of(), at()
    got = op.mv_tree(re(2 * flat))
    close(re.ravel(got), 2 * true_hessian() @ flat)


def test_other_libraries_take_operators() -> None:
    import lineax as lx
    from jax.scipy.sparse.linalg import cg
    from matfree import decomp

    op, v = ggn_of().damped(1.0), normal(59)
    expected = jnp.linalg.solve(true_ggn() + jnp.eye(59), v)
    close(cg(op, v, tol=1e-12)[0], expected)
    close(lx.linear_solve(op.as_lineax(), v, lx.GMRES(rtol=1e-12, atol=1e-12)).value, expected)
    basis = decomp.tridiag_sym(3, reortho="full", materialize=True)(op, v).J_small
    assert basis.shape == (3, 3)


def test_jacobians_and_the_neural_tangent_kernel() -> None:
    flat, re = at()
    op = curvature.jacobian(apply, flat, (re, X))
    true = jax.jacobian(apply)(flat, (re, jnp.asarray(X))).reshape(21, 59)
    v, u = normal(59, 2), normal(21, 3)
    assert (op.shape, op.T.shape) == ((21, 59), (59, 21))
    close(op @ v, true @ v)
    close(op @ v[:, 0], true @ v[:, 0])
    close(op.T @ u, true.T @ u)
    close(op.dense(), true)
    close(op.T.dense(), true.T)
    close((op @ op.T).dense(), true @ true.T)
    close((op.T @ op).dense(), true.T @ true)
    square = curvature.jacobian(lambda v, x: v**2 * x[0] + v[::-1], v[:3, 0], X)
    close(square.dense(), jax.jacobian(lambda v: v**2 * X[0] + v[::-1])(v[:3, 0]))
    with pytest.raises(jtree.ArgumentError, match="its own transpose"):
        op @ op


# Models


class Net(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.hidden = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(self.drop(jnp.tanh(self.norm(self.hidden(x)))))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(3)(nn.BatchNorm(use_running_average=True)(nn.Dense(4)(x)))


def nnx_network() -> Any:
    model = Net()
    model.eval()
    return *jtree.destructure(model), lambda re, v, x: re(v)(x)


def linen_network() -> Any:
    variables = Linen().init(KEY, X[:1].astype(np.float32))
    flat, re = jtree.destructure(variables, where="params/**")
    return flat, re, lambda re, v, x: Linen().apply(re(v), x)


def equinox_network() -> Any:
    model = eqx.nn.MLP(3, 3, 4, 1, key=KEY, dtype=jnp.float32)
    return *jtree.destructure(model), lambda re, v, x: jax.vmap(re(v))(x)


def layers_network() -> Any:
    from jtree.layers import BatchNorm, Chain, Dense

    model = jtree.f32(Chain(Dense(3, 4, jnp.tanh, key=KEY), BatchNorm(4), Dense(4, 3, key=KEY)))
    return *jtree.destructure(model), lambda re, v, x: re(v)(x)


def mixed_dtypes() -> Any:
    model = {
        "low": jnp.ones((3, 4), jnp.bfloat16),
        "step": jnp.array(3),
        "w": jnp.ones((4, 3), jnp.float32),
        "act": jnp.tanh,
    }
    run = lambda m, x: m["act"](x @ m["low"].astype(x.dtype)) @ m["w"].astype(x.dtype)  # noqa: E731
    return *jtree.destructure(model), lambda re, v, x: run(re(v), x)


def frozen_leaves() -> Any:
    flat, re = jtree.destructure(jtree.f32(network()), where=["layer0/**", "layer2/**"])
    return flat, re, lambda re, v, x: forward(re(v), x)


@pytest.mark.parametrize(
    "make",
    [nnx_network, linen_network, equinox_network, layers_network, mixed_dtypes, frozen_leaves],
)
def test_every_kind_of_model(make: Callable[[], Any]) -> None:
    flat, re, run = make()
    x = jnp.asarray(X, jnp.float32)

    def f(v: jax.Array, re: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return cross_entropy(run(re, v, x), y)

    op = curvature.hessian(f, flat, re, x, Y, re=re)
    true = jax.jit(jax.hessian(lambda v: f(v, re, x, jnp.asarray(Y))))(flat)
    tol = 0.02 if make is mixed_dtypes else 1e-5
    assert op.dtype == flat.dtype == jnp.float32
    assert abs(true).max() > 1e-3
    close(op.dense(), true, tol)
    close(op @ flat, true @ flat, 10 * tol)
    last = re.paths[-1]
    close(op.restrict(last).dense(), true[re[last], re[last]], tol)
    ggn = curvature.ggn(lambda v, i: run(i[0], v, i[1]), cross_entropy, flat, (re, x), Y, re=re)
    close(curvature.diagonal(ggn), jnp.diag(ggn.dense(chunk=8)), tol)
