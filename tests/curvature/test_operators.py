"""What operators share: products, matrices, sums, blocks, restrictions, `jit`."""

from __future__ import annotations

import gc
import pickle
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree import curvature as C  # noqa: N812
from jtree.curvature._autodiff import linearize
from jtree.curvature._operators import linear_map

from .problems import (
    X,
    Y,
    close,
    loss,
    network,
    network_ggn,
    network_hessian,
    normal,
    point,
    quadratic,
    true_ggn,
    true_hessian,
)

pytestmark = pytest.mark.usefixtures("double")


# Products and matrices


def test_products_with_vectors_and_with_columns() -> None:
    op, true, v = network_hessian(), true_hessian(), np.asarray(normal(31, 70))
    assert op.shape == true.shape == (31, 31)
    close(op @ v[:, 0], true @ v[:, 0])
    close(op @ v[:, :3], true @ v[:, :3])
    close(op.mv(v), true @ v)
    close(v[:, 0] @ op, true @ v[:, 0])
    close(v[:, :2].T @ op, v[:, :2].T @ true)
    close(op(v[:, 0]), op.T @ v[:, 0])


@pytest.mark.parametrize("chunk", ["auto", 1, 7, 1000])
def test_matrices_in_chunks(chunk: Any) -> None:
    flat, re = jtree.destructure({"a": normal(6), "b": normal(14)})
    f = lambda v, re: jnp.sin(re(v)["a"]).prod() * (re(v)["b"] ** 2).sum()  # noqa: E731
    op = C.hessian(f, flat, re, re=re)
    close(op.dense(chunk), op @ np.eye(20))


def test_a_matrix_of_a_network() -> None:
    close(network_hessian().dense(), true_hessian())


def test_a_matrix_in_little_memory() -> None:
    close(network_hessian().dense(memory=31 * 31 * 8 + 10), true_hessian())


def test_vectors_as_models() -> None:
    flat, re = point()
    product = network_hessian().mv_tree(re(2 * flat))
    close(re.ravel(product), 2 * true_hessian() @ np.asarray(flat))


def test_products_can_be_differentiated_and_mapped() -> None:
    def cubes(v: jax.Array) -> jax.Array:
        return (v**3).sum()

    v = normal(4)
    close(jax.grad(lambda p: (C.hessian(cubes, p) @ v).sum())(v), 6 * v)
    close(jax.vmap(lambda p: C.hessian(cubes, p) @ p)(v[None]), 6 * v[None] ** 2)


def test_a_progress_bar_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    close(quadratic(normal(5)).dense(chunk=2), 2 * np.eye(5))


# Compilation


def test_products_compile_once_for_one_function() -> None:
    traces = []

    def f(v: jax.Array, x: jax.Array) -> jax.Array:
        traces.append(1)
        return ((x @ v) ** 4).sum()

    v = normal(3)
    C.hessian(f, v, X) @ v
    count = len(traces)
    for scale in (2.0, 3.0):
        op = C.hessian(f, scale * v, scale * X)
        close(op.damped(0.0).terms[0] @ v, op @ v)
    assert len(traces) == count


def test_the_first_product_linearizes_for_all_others() -> None:
    runs: list[int] = []

    def f(v: jax.Array, x: jax.Array) -> jax.Array:
        jax.debug.callback(lambda: runs.append(1))
        return ((x @ v) ** 4).sum()

    v = normal(3)
    op = C.hessian(f, v, X).damped(1.0)
    expected = jax.jit(op.mv)(v)  # keeps nothing
    jax.effects_barrier()
    runs.clear()
    products = [op @ v, op @ v, (op @ jnp.stack([v, v], 1))[:, 1]]
    jax.effects_barrier()
    assert len(runs) == 1
    for product in products:
        close(product, expected)
    gc.collect()  # of other tests' operators
    kept = len(linearize._CACHE)
    del op
    gc.collect()
    assert len(linearize._CACHE) == kept - 1


def test_operators_are_arguments_of_jit() -> None:
    traces = []

    @jax.jit
    def step(op: Any, v: jax.Array) -> jax.Array:
        traces.append(1)
        return op @ v + op.dense().sum() + C.diagonal(op)

    flat, re = jtree.destructure({"a": normal(2), "b": normal(3)})
    f = lambda v, re: jnp.tanh(re(v)["a"]).sum() * (re(v)["b"] ** 3).sum()  # noqa: E731
    for scale in (1.0, 2.0):
        op = C.hessian(f, scale * flat, re, re=re).damped(scale)
        true = np.asarray(op.dense())
        close(step(op, flat), true @ np.asarray(flat) + true.sum() + np.diag(true))
    assert len(traces) == 1
    assert jax.tree.leaves(op)


def test_types_are_found_where_users_import_them() -> None:
    op = quadratic(normal(3)).damped(1.0)
    for cls in (type(op), type(op.terms[0]), C.Operator, C.Batched, C.GaussNewton, C.Kernel):
        assert cls.__module__ == "jtree.curvature"
    copy = pickle.loads(pickle.dumps(C.Inertia(1, 2, 3)))
    assert copy == (1, 2, 3)


# Sums


def test_sums_multiples_and_damping() -> None:
    h, g = network_hessian(), network_ggn()
    a, b, v = true_hessian(), true_ggn(), normal(31)
    both = (2 * h - g / 4).damped(0.5) + (-h)
    expected = a - b / 4 + 0.5 * np.eye(31)
    close(both.dense(), expected)
    close(both @ v, expected @ np.asarray(v))
    close(C.diagonal(both), np.diag(expected))
    assert repr(h.damped(0.5)) == (
        "Combination(Hessian(loss) + 0.5 I, 31 x 31, float64, layer0/b, layer0/w, layer1/b, "
        "layer1/w)"
    )
    close(h.damped(0.25).dense(), a + np.eye(31) / 4)


def test_parts_of_sums() -> None:
    re, both = point()[1], (network_hessian() + 2 * network_ggn()).damped(0.5)
    part, true = re["layer1/**"], true_hessian() + 2 * true_ggn() + 0.5 * np.eye(31)
    close(both.restrict("layer1/**").dense(), true[part][:, part])
    close(both.block("layer1/**", "layer0/b"), true[part][:, re["layer0/b"]])


def test_parts_of_sums_with_operators_without_labels() -> None:
    flat, re = jtree.destructure({"a": jnp.ones(2), "b": jnp.ones(1)})
    labeled = C.hessian(lambda v: re(v)["a"].prod() * re(v)["b"].sum(), flat, re=re)
    both = (labeled + quadratic(flat)).damped(0.5)
    true = np.asarray(both.dense())
    close(both.block("a"), true[:2, :2])
    close(both.block("a", "b"), true[:2, 2:])
    close(both.restrict("a").dense(), true[:2, :2])


def test_sum_adds_operators() -> None:
    op = quadratic(normal(2))
    close(sum([op, op, op]) @ jnp.ones(2), [6, 6])
    with pytest.raises(TypeError):
        1 + op


def test_sums_of_operators_of_two_dtypes() -> None:
    single, double = quadratic(jnp.ones(3, jnp.float32)), quadratic(jnp.ones(3))
    for both in (single + double, double + single):
        assert both.dtype == both.dense().dtype == (both @ normal(3)).dtype == jnp.float64
        close(both.dense(), 4 * np.eye(3))


# Blocks and restrictions


@pytest.mark.parametrize(
    ("make", "matrix"), [(network_hessian, true_hessian), (network_ggn, true_ggn)]
)
def test_blocks_and_restrictions(make: Callable[[], Any], matrix: Callable[[], Any]) -> None:
    op, true, (flat, re) = make(), matrix(), point()
    rows, cols = re["layer0/w"], re["layer1/**"]
    close(op.block("layer0/w", "layer1/**"), true[rows][:, cols])
    close(op.block("layer1/**", "layer0/w"), true[cols][:, rows])
    close(op.block(["layer0/w", "layer0/b"]), true[:16, :16])
    part = op.restrict("layer1/**")
    assert part.re.paths == ("layer1/b", "layer1/w")
    close(part.dense(), true[cols][:, cols])
    close(part @ part.point, true[cols][:, cols] @ np.asarray(flat)[cols])
    inner = part.restrict("layer1/w")
    close(inner.dense(), true[re["layer1/w"], re["layer1/w"]])
    close(inner.re(inner.point)["layer0"]["w"], re(flat)["layer0"]["w"])
    close(C.diagonal(part), np.diag(true)[cols])


def test_nothing_is_computed_for_what_an_operator_is_restricted_from() -> None:
    flat, re = jtree.destructure(network((3, 5, 4, 3)))
    op = C.hessian(loss, flat, re, X, Y, re=re).restrict("layer2/**")
    pieces = op.piecewise()
    linear = pieces.between((0, 1), (0, 1))
    struct = [jax.ShapeDtypeStruct((size,), op.dtype) for size in pieces.sizes]
    widths = [e.outvars[0].aval.shape for e in jax.make_jaxpr(linear)(struct).jaxpr.eqns]
    assert widths
    assert not any(5 in shape for shape in widths)  # the width of the first layer


def test_restrictions_keep_ties_and_other_leaves() -> None:
    w = normal(3, 2)
    model = {"dec": w, "enc": w, "head": normal(2), "step": 3, "name": "tied"}
    flat, re = jtree.destructure(model, ties=[("enc", "dec")])
    op = C.hessian(lambda v, re: (re(v)["enc"] @ re(v)["head"]).sum() ** 2, flat, re, re=re)
    part = op.restrict("dec")
    assert (part.re.paths, part.re.ties, part.size) == (("dec",), (("dec", "enc"),), 6)
    rebuilt = part.re(2 * part.point)
    close(rebuilt["enc"], 2 * w)
    close(rebuilt["dec"], 2 * w)
    close(rebuilt["head"], model["head"])
    assert (rebuilt["step"], rebuilt["name"]) == (3, "tied")


# Other libraries


def test_other_libraries_take_operators() -> None:
    import lineax as lx
    from jax.scipy.sparse.linalg import cg
    from matfree import decomp

    op, v = quadratic(normal(4)) + C.hessian(lambda v: (v[0] * v[1:]).sum(), normal(4)), normal(4)
    expected = np.linalg.solve(op.dense(), v)
    close(cg(op, v, tol=1e-12)[0], expected)
    solver = lx.GMRES(rtol=1e-12, atol=1e-12)
    close(lx.linear_solve(op.as_lineax(), v, solver).value, expected)
    basis = decomp.tridiag_sym(3, reortho="full", materialize=True)(op, v).J_small
    assert basis.shape == (3, 3)


def kinds() -> dict[str, C.Operator]:
    w, x = normal(6), X[:, :2]
    logits = lambda v, x: x @ v.reshape(2, 3)  # noqa: E731
    ggn = C.ggn(logits, lambda o, _: (o**2).mean(), w, x, 0.0)
    jacobian = C.jacobian(logits, w, x)
    return {
        "ggn": ggn.damped(0.5),
        "fisher": 2 * C.fisher(logits, w, x) + ggn.damped(0.5),
        "kernel": (jacobian @ jacobian.T).damped(0.5),
    }


def test_conjugate_gradients_of_lineax_take_what_is_semidefinite() -> None:
    import lineax as lx

    operators = kinds()
    for op in operators.values():
        assert lx.is_positive_semidefinite(op.as_lineax())
    op = operators["fisher"]
    b = jnp.ones(op.size)
    x = lx.linear_solve(op.as_lineax(), b, lx.CG(rtol=1e-9, atol=1e-9)).value
    close(op @ x, b, 1e-6)


def test_operators_that_may_be_indefinite_are_not_tagged_as_semidefinite() -> None:
    import lineax as lx

    ggn = kinds()["ggn"].terms[0]
    negative = jnp.array(-1.0)
    sums = [-ggn, negative * ggn, ggn.damped(-1.0), ggn.damped(negative)]
    for op in (*sums, quadratic(normal(2))):
        assert lx.is_symmetric(op.as_lineax())
        assert not lx.is_positive_semidefinite(op.as_lineax())


def test_a_vector_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    op, v, checked = quadratic(jnp.zeros(3)), jnp.ones(3), []
    check = linear_map.as_columns
    monkeypatch.setattr(
        linear_map, "as_columns", lambda *args: (checked.append(1), check(*args))[1]
    )
    for _ in range(3):
        close(op @ v, 2 * np.ones(3))
    assert len(checked) == 1
    with pytest.raises(jtree.VectorError):
        op @ jnp.ones(4)
    close(op @ np.arange(3.0), [0, 2, 4])  # of another dtype
    close(op @ jnp.ones((3, 2)), np.full((3, 2), 2.0))
