"""Eager products over many parameters, which are split outside of what is compiled."""

from __future__ import annotations

import gc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import jtree
from jtree import curvature as C  # noqa: N812
from jtree._vector import eager
from jtree.curvature._autodiff import linearize

from .problems import close, mse, normal, random

pytestmark = pytest.mark.usefixtures("double")

N = 66
X, Y = random(5, 2), random(5, seed=1)


def model(scale: float = 1.0) -> Any:
    """Return parameters of two shapes, so many that eager products are computed in pieces."""
    shapes = [(2,) if i % 3 else (1, 2) for i in range(N)]
    return {f"w{i:02}": scale * normal(*shape, seed=i) for i, shape in enumerate(shapes)}


def outputs(model: Any, x: jax.Array) -> jax.Array:
    """Return outputs in which every parameter meets its neighbor."""
    values = jnp.stack([x @ w.reshape(-1) for w in model.values()])
    return jnp.tanh(values * jnp.roll(values, 1, 0)).sum(0)


def loss(model: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return mse(outputs(model, x), y)


OPERATORS = {
    "hessian": lambda m: C.hessian(loss, m, X, Y),
    "ggn": lambda m: C.ggn(outputs, mse, m, X, Y),
    "fisher": lambda m: C.fisher(outputs, m, X, likelihood="gaussian"),
}


@pytest.fixture(params=OPERATORS)
def op(request: pytest.FixtureRequest) -> Any:
    return OPERATORS[request.param](model())


def true_hessian() -> np.ndarray:
    flat, re = jtree.destructure(model())
    return np.asarray(jax.hessian(lambda v: loss(re(v), X, Y))(flat))


def test_products_are_those_of_the_compiled_operator(op: Any) -> None:
    v = normal(op.size, 3)
    expected = np.asarray(jax.jit(lambda op, v: op @ v)(op, v))
    close(op @ v[:, 0], expected[:, 0])
    close(op @ v, expected)
    close(op.mv(np.asarray(v)), expected)
    close(op @ v[:, 0].astype(jnp.float32), expected[:, 0], 1e-5)
    assert isinstance(op(np.asarray(v)), np.ndarray)
    close(op.re.ravel(op @ op.re(v[:, 1])), expected[:, 1])


def test_products_by_labels() -> None:
    flat, re = jtree.destructure(model())
    v, true = normal(flat.size), true_hessian()
    f = lambda v, re, x, y: loss(re(v), x, y)  # noqa: E731
    close(C.hessian(f, flat, re, X, Y, re=re) @ v, true @ v)
    close(C.hvp(loss, model(), v, X, Y), true @ v)
    close(re.ravel(C.hvp(loss, model(), re(v), X, Y)), true @ v)
    part = re["w0*"]
    close(C.hessian(loss, model(), X, Y).restrict("w0*") @ v[part], true[part][:, part] @ v[part])


def test_a_function_that_uses_its_vector_whole() -> None:
    flat, re = jtree.destructure(model())
    op = C.hessian(lambda v: (v**2).sum() ** 2 + v @ jnp.flip(v), flat, re=re)
    v = normal(flat.size)
    expected = 8 * flat * (flat @ v) + 4 * (flat @ flat) * v + 2 * jnp.flip(v)
    close(op @ v, expected)


def test_a_custom_vjp() -> None:
    @jax.custom_vjp
    def square(x: jax.Array) -> jax.Array:
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, ct: (2 * x * ct,))
    op = C.hessian(lambda m: sum(square(w).sum() for w in m.values()), model())
    close(op @ normal(op.size), 2 * normal(op.size))


def test_the_compiled_function_neither_splits_nor_concatenates(op: Any) -> None:
    v = normal(op.size)
    compiled = jax.make_jaxpr(linearize._product_of_pieces)(op, *op.split_eagerly(v))
    assert [x.size for x in compiled.out_avals] == [2] * N
    equations, vectors = list(compiled.jaxpr.eqns), []
    while equations:
        eqn = equations.pop()
        for inner in jaxprs_in_params(eqn.params):
            equations += inner.eqns
        used = [] if eqn.primitive.name == "jit" else eqn.invars
        vectors += [x for x in (*used, *eqn.outvars) if x.aval.shape == (op.size,)]
    assert not vectors


def test_they_compile_once_and_keep_nothing() -> None:
    C.hessian(loss, model(), X, Y) @ normal(2 * N)
    gc.collect()  # of other tests' operators
    kept, compiled = len(linearize._CACHE), linearize._product_of_pieces._cache_size()
    for scale in (2.0, 3.0):
        C.hessian(loss, model(scale), scale * X, Y) @ normal(2 * N)
    assert linearize._product_of_pieces._cache_size() == compiled
    assert len(linearize._CACHE) == kept


def test_within_transformations() -> None:
    op, v = C.hessian(loss, model(), X, Y), normal(2 * N)
    expected = np.asarray(op @ v)
    close(jax.jit(lambda s: s * (op @ v))(2.0), 2 * expected)
    close(jax.vmap(lambda v: op @ v)(jnp.stack([v, 2 * v]))[1], 2 * expected)
    close(jax.grad(lambda v: v @ (op @ v))(v), 2 * expected)


def test_arrays_that_are_not_plain_are_multiplied_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    op, v = C.hessian(loss, model(), X, Y), normal(2 * N)
    expected = np.asarray(op @ v)
    monkeypatch.setattr(eager, "isplain", lambda _: False)
    assert op.split_eagerly(v) is None
    close(op @ v, expected)


def test_few_parameters_are_multiplied_whole() -> None:
    op = C.hessian(lambda m: (m["a"] ** 3).sum(), {"a": normal(3)})
    assert op.split_eagerly(normal(3)) is None
