"""Derivatives of a loss of the nested model with respect to the vector."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree._vector.gradient import _nested

from ..zoo import ZOO

MODEL = {"a": {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}, "name": "net", "step": jnp.array(3)}
X = jnp.arange(12.0).reshape(4, 3) / 12


def loss(model: Any, x: Any, *, scale: float = 1.0) -> Any:
    return (jnp.tanh(x @ model["a"]["w"] + model["a"]["b"]) ** 2).mean() * scale


def with_aux(model: Any, x: Any) -> Any:
    return loss(model, x), {"step": model["step"] + 1, "name": model["name"], "f": jnp.tanh}


def cubes(model: Any) -> Any:
    """Return a loss of any model: every parameter counts, each with a weight of its own."""
    terms = [
        (jnp.abs(x.astype(jnp.complex64 if jnp.iscomplexobj(x) else jnp.float32)) ** 3).sum() * i
        for i, x in enumerate(jtree.trainables(model).values(), 1)
    ]
    return sum(terms, jnp.zeros(()))


@pytest.fixture(params=[name for name in ZOO if name not in ("no_pytree", "abstract")])
def model(request: pytest.FixtureRequest) -> Any:
    return ZOO[request.param]()


def wide(x: Any) -> Any:
    return np.asarray(x).astype(np.complex64 if jnp.iscomplexobj(x) else np.float32)


def close(found: Any, expected: Any) -> None:
    small = expected.dtype.itemsize < 4
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if small else {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(wide(found), wide(expected), **tolerance)


def inline(re: Any, function: Any, *args: Any) -> Any:
    return lambda v: function(re(v), *args)


def test_they_are_the_derivatives_of_the_flat_loss(model: Any) -> None:
    flat, re = jtree.destructure(model)
    value, gradient = jax.value_and_grad(inline(re, cubes))(flat)
    found, found_gradient = re.value_and_grad(cubes)(flat)
    assert found_gradient.dtype == flat.dtype
    np.testing.assert_allclose(found, value, rtol=1e-5)
    close(found_gradient, gradient)


@pytest.mark.parametrize("name", ["nested_dict", "mixed_dtypes", "complex_numbers", "nnx_shared"])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_gradients_and_products_are_the_same_in_and_out_of_jit(name: str, transform: Any) -> None:
    flat, re = jtree.destructure(ZOO[name]())
    v = jax.random.normal(jax.random.key(1), flat.shape).astype(flat.dtype)
    gradient = jax.grad(inline(re, cubes))
    close(transform(re.grad(cubes))(flat), gradient(flat))
    close(transform(re.value_and_grad(cubes))(flat)[1], gradient(flat))
    close(transform(re.hvp(cubes))(flat, v), jax.jvp(gradient, (flat,), (v,))[1])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.complex64])
def test_the_gradient_has_the_dtype_of_the_vector(dtype: Any) -> None:
    model = {"h": jnp.ones(2, jnp.float16), "w": jnp.ones(3), "z": jnp.ones(2, jnp.complex64)}
    _, re = jtree.destructure(model)
    flat = jnp.arange(1, 8).astype(dtype)
    expected = jax.grad(inline(re, cubes))(flat)
    gradient = re.grad(cubes)(flat)
    assert gradient.dtype == expected.dtype == dtype
    np.testing.assert_allclose(wide(gradient), wide(expected), rtol=1e-2)


def test_auxiliary_results_come_back_nested() -> None:
    flat, re = jtree.destructure(MODEL)
    (value, aux), gradient = re.value_and_grad(with_aux, has_aux=True)(flat, X)
    assert (value, aux["step"], aux["name"]) == (loss(MODEL, X), 4, "net")
    assert aux["f"] is jnp.tanh
    again, same = re.grad(with_aux, has_aux=True)(flat, X)
    np.testing.assert_array_equal(again, gradient)
    assert same["name"] == "net"


def test_every_transformation_takes_them() -> None:
    flat, re = jtree.destructure(MODEL)
    vg, f = re.value_and_grad(loss), inline(re, loss, X)
    flats = jnp.stack([flat, 2 * flat])
    close(jax.vmap(vg, (0, None))(flats, X)[1], jax.vmap(jax.grad(f))(flats))
    close(jax.vmap(re.grad(loss), (None, 0))(flat, jnp.stack([X, 2 * X]))[0], jax.grad(f)(flat))
    close(jax.jacfwd(re.grad(loss))(flat, X), jax.hessian(f)(flat))
    close(jax.jacrev(re.grad(loss))(flat, X), jax.hessian(f)(flat))
    cubic = jax.jvp(lambda v: re.hvp(loss)(v, flat, X), (flat,), (flat,))[1]
    expected = jax.jvp(lambda v: jax.jvp(jax.grad(f), (v,), (flat,))[1], (flat,), (flat,))[1]
    close(cubic, expected)

    def descend(v: Any, _: Any) -> Any:
        value, gradient = vg(v, X)
        return v - 0.1 * gradient, value

    last, values = jax.lax.scan(descend, flat, length=3)
    assert values[0] > values[2]
    for _ in range(3):
        flat = flat - 0.1 * vg(flat, X)[1]
    close(last, flat)


def test_they_compile_once_for_equal_layouts_and_refreshed_statistics() -> None:
    def with_aux(model: Any, x: Any) -> Any:  # a function that nothing else has compiled
        return loss(model, x), {"step": model["step"] + 1}

    flat, re = jtree.destructure(MODEL)
    first = re.value_and_grad(with_aux, has_aux=True)
    before = _nested._cache_size()
    first(flat, X)
    other, re_other = jtree.destructure(jax.tree.map(lambda x: x, MODEL))
    re_other.value_and_grad(with_aux, has_aux=True)(other, X)
    refreshed = re.refresh(MODEL | {"step": jnp.array(7)})
    (_, aux), _ = refreshed.value_and_grad(with_aux, has_aux=True)(flat, X)
    assert aux["step"] == 8
    assert _nested._cache_size() == before + 1


def test_numbers_are_traced_and_booleans_static() -> None:
    def power(model: Any, n: Any, flag: bool, text: str) -> Any:
        x = model["a"]["w"] ** n
        return x.sum() if flag and text == "yes" else jnp.zeros(())

    flat, re = jtree.destructure(MODEL)
    vg = re.value_and_grad(power)
    before = _nested._cache_size()
    values = [float(vg(2 * flat, n, True, "yes")[0]) for n in (1, 2, 3)]
    assert values == [12, 24, 48]
    assert _nested._cache_size() == before + 1
    assert vg(flat, 2, False, "yes")[0] == 0


def test_data_of_numpy_are_traced() -> None:
    flat, re = jtree.destructure(MODEL)
    vg = re.value_and_grad(lambda model, x: loss(model, x))
    before = _nested._cache_size()
    for i in range(3):
        batch = np.asarray(X, np.float64) + i
        np.testing.assert_allclose(vg(flat, batch)[0], loss(MODEL, X + i), rtol=1e-6)
    assert _nested._cache_size() == before + 1


def test_concrete_arguments_within_jit() -> None:
    flat, re = jtree.destructure(MODEL)
    gradient = re.grad(loss)
    inner = jax.jit(lambda s: s * gradient(flat, X))(2.0)
    np.testing.assert_allclose(inner, 2 * gradient(flat, X), rtol=1e-6)


def test_they_are_pytrees_that_jit_takes_without_constants() -> None:
    flat, re = jtree.destructure(MODEL)
    vg = re.value_and_grad(loss)
    assert repr(vg) == "value_and_grad(loss, Restructure(dict, ..., 8))"
    assert repr(re.hvp(loss)) == "hvp(loss, Restructure(dict, ..., 8))"
    run = jax.jit(lambda vg, v, x: vg(v, x))
    np.testing.assert_allclose(run(vg, flat, X)[0], loss(MODEL, X), rtol=1e-6)
    assert not jax.make_jaxpr(lambda vg, v, x: vg(v, x))(vg, flat, X).consts
    refreshed = re.refresh(MODEL | {"step": jnp.array(7)}).value_and_grad(loss)
    run(refreshed, flat, X)
    assert run._cache_size() == 1


def test_arrays_of_the_loss_are_arguments() -> None:
    @jax.tree_util.register_pytree_node_class
    class Weighted:
        def __init__(self, weight: Any) -> None:
            self.weight = weight

        def __call__(self, model: Any) -> Any:
            return (self.weight * model["a"]["w"]).sum()

        def tree_flatten(self) -> Any:
            return (self.weight,), None

        @classmethod
        def tree_unflatten(cls, _: Any, leaves: Any) -> Any:
            return cls(*leaves)

    flat, re = jtree.destructure(MODEL)
    before = _nested._cache_size()
    values = [float(re.value_and_grad(Weighted(jnp.array(x)))(flat)[0]) for x in (1.0, 2.0)]
    assert values == [6, 12]
    assert _nested._cache_size() == before + 1


def test_ties_add_and_frozen_leaves_have_no_gradient() -> None:
    w = jnp.array([1.0, 2.0])
    flat, re = jtree.destructure({"x": w, "y": w, "z": 3 * w}, where="[xz]", ties=[("x", "y")])
    gradient = re.grad(lambda m: (m["x"] * m["y"] * m["z"]).sum())(flat)
    np.testing.assert_allclose(gradient, [6, 24, 1, 4])
    flat, re = jtree.destructure({"x": w, "z": 3 * w}, where="x")
    np.testing.assert_allclose(re.grad(lambda m: (m["x"] * m["z"]).sum())(flat), 3 * w)


def test_statistics_of_nnx_come_back_as_auxiliary_results() -> None:
    net = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(0)))

    def step(net: Any, x: Any) -> Any:
        return (net(x) ** 2).mean(), nnx.state(net, nnx.BatchStat)

    flat, re = jtree.destructure(net)
    (_, stats), gradient = re.value_and_grad(step, has_aux=True)(flat, X)
    assert gradient.shape == flat.shape
    assert jnp.abs(jax.tree.leaves(stats)[0]).sum() > 0
    assert not jnp.abs(net.layers[1].mean[...]).sum()


def test_abstract_vectors_give_abstract_results() -> None:
    flat, re = jtree.destructure(MODEL)
    struct = jax.ShapeDtypeStruct(flat.shape, flat.dtype)
    value, gradient = re.value_and_grad(loss)(struct, X)
    assert value == jax.ShapeDtypeStruct((), jnp.float32)
    assert gradient == struct


def test_a_vector_over_several_devices_keeps_to_them() -> None:
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.P("x"))
    flat, re = jtree.destructure(MODEL)
    value, gradient = re.value_and_grad(loss)(jax.device_put(flat, sharding), X)
    np.testing.assert_allclose(value, loss(MODEL, X), rtol=1e-6)
    assert gradient.sharding.mesh == mesh


def test_a_gradient_shares_no_memory_with_its_vector() -> None:
    flat, re = jtree.destructure({"w": jnp.ones(64)})
    gradient = re.grad(lambda m: (m["w"] ** 2).sum())(flat)
    (copy,) = re.value_and_grad(lambda m: (m["w"].sum(), m["w"]), has_aux=True)(flat)[0][1:]
    kept = np.array(copy)
    jax.jit(lambda x: 7 * x, donate_argnums=0)(flat)
    np.testing.assert_array_equal(copy, kept)
    np.testing.assert_array_equal(gradient, 2 * np.ones(64))


MESSAGES = {
    "vector": (
        lambda re, v: re.value_and_grad(lambda m: m["a"]["w"])(v),
        "<lambda>: expected a loss that returns one real scalar, found float32[3, 2]; "
        "return a mean or a sum",
    ),
    "aux": (
        lambda re, v: re.grad(lambda m: (m["a"]["w"].sum(), 1))(v),
        "<lambda>: expected a loss that returns one real scalar, found a tuple; pass has_aux=True",
    ),
    "no aux": (
        lambda re, v: re.grad(lambda m: m["a"]["w"].sum(), has_aux=True)(v),
        "<lambda>: expected a loss that returns (value, aux), as has_aux=True says, "
        "found float32[]",
    ),
    "integers": (
        lambda re, v: re.grad(loss)(v.astype(int), X),
        "loss: expected a floating-point vector, found int32[8]; convert it with .astype(re.dtype)",
    ),
    "length": (
        lambda re, v: re.grad(loss)(v[1:], X),
        "expected a vector of 8 elements, found one of 7",
    ),
    "no loss": (
        lambda re, _: re.grad(3),
        "grad: expected a loss, a function (model, *args), found 3",
    ),
    "has_aux": (
        lambda re, _: re.grad(loss, has_aux=1),
        "has_aux: expected True or False, found 1",
    ),
    "no tangent": (
        lambda re, v: re.hvp(loss)(v),
        "loss: expected a vector and a tangent, found one vector",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_messages(case: str) -> None:
    flat, re = jtree.destructure(MODEL)
    call, message = MESSAGES[case]
    with pytest.raises(jtree.JtreeError) as error:
        call(re, flat)
    assert str(error.value) == message
