"""destructure and Restructure: the documented examples, dtypes, transformations, bad input."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

import jtree

from ..same import close, same
from ..zoo import Affine, Net, Shared


def test_the_documented_example() -> None:
    model = {"x": jnp.array([1.0, 2.0]), "y": (jnp.sin, jnp.array([3.0 + 4.0j]))}
    flat, re = jtree.destructure(model)
    assert flat.dtype == jnp.complex64
    assert flat.tolist() == [1.0, 2.0, 3.0 + 4.0j]
    assert repr(re) == "Restructure(dict, ..., 3)"
    again = re(jnp.array([3, 5, 7 + 11j]))
    assert again["x"].tolist() == [3.0, 5.0]
    assert again["x"].dtype == jnp.float32
    assert again["y"][0] is jnp.sin
    assert again["y"][1].tolist() == [7.0 + 11.0j]


def test_it_agrees_with_ravel_pytree_where_all_leaves_are_parameters() -> None:
    model = [jnp.ones((2, 3)), {"b": jnp.arange(3.0), "a": jnp.zeros(())}]
    flat, re = jtree.destructure(model)
    expected, unravel = ravel_pytree(model)
    assert same(flat, expected)
    assert same(re(flat + 1), unravel(flat + 1))


def test_no_parameters_give_an_empty_float32_vector() -> None:
    flat, re = jtree.destructure({"name": "net", "step": jnp.array(3)})
    assert flat.shape == (0,)
    assert flat.dtype == jnp.float32
    assert re(flat)["name"] == "net"


MIXES = [
    ((jnp.bfloat16, jnp.float32), jnp.float32),
    ((jnp.float16, jnp.bfloat16), jnp.float32),
    ((jnp.float16, jnp.float16), jnp.float16),
    ((jnp.float32, jnp.complex64), jnp.complex64),
    ((jnp.float8_e4m3fn, jnp.float32), jnp.float32),
    ((jnp.float8_e5m2, jnp.float8_e4m3fn), jnp.bfloat16),
    ((jnp.float8_e4m3fn,), jnp.bfloat16),
]


@pytest.mark.parametrize(("dtypes", "expected"), MIXES)
def test_mixed_dtypes_are_promoted_and_restored(dtypes: Any, expected: Any) -> None:
    model = [jnp.array([0.5, 2.0], dtype) for dtype in dtypes]
    flat, re = jtree.destructure(model)
    assert flat.dtype == expected
    assert same(re(flat), model)


def test_float64_is_kept_under_x64() -> None:
    with jax.enable_x64(True):
        model = {"d": jnp.array([1 / 3], jnp.float64), "s": jnp.ones(1, jnp.float32)}
        flat, re = jtree.destructure(model)
        assert flat.dtype == jnp.float64
        assert same(re(flat), model)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_, jnp.float16, jnp.complex64, np.float64])
def test_a_vector_of_another_dtype_is_restored_leaf_by_leaf(dtype: Any) -> None:
    model = {"x": jnp.ones(1, jnp.bfloat16), "y": jnp.ones(1), "z": jnp.ones(1, jnp.complex64)}
    _, re = jtree.destructure(model)
    again = re(np.array([0, 1, 1]).astype(dtype))
    assert [x.dtype for x in again.values()] == [jnp.bfloat16, jnp.float32, jnp.complex64]
    assert [complex(x[0]) for x in again.values()] == [0, 1, 1]
    kept = re(jnp.asarray(np.array([0, 1, 1], dtype)), restore_dtype=False)
    assert {x.dtype for x in kept.values()} == {jnp.asarray(np.zeros(0, dtype)).dtype}


def test_integers_too_large_for_int32_become_floating_without_wrapping() -> None:
    _, re = jtree.destructure({"x": jnp.ones(1)})
    assert re(np.array([2**40]))["x"].item() == 2.0**40


def test_the_vectors_dtype_can_be_chosen() -> None:
    flat, re = jtree.destructure({"x": jnp.ones(2)}, dtype=jnp.bfloat16)
    assert flat.dtype == re.dtype == jnp.bfloat16
    assert re(flat)["x"].dtype == jnp.float32
    with pytest.raises(jtree.ArgumentError, match=r"^dtype: expected a floating or complex dtype"):
        jtree.destructure({"x": jnp.ones(2)}, dtype=jnp.int32)


def test_other_leaves_are_kept_bit_for_bit() -> None:
    model = {
        "big": jnp.array([2**31 + 1, 2**32 - 1], jnp.uint32),
        "key": jax.random.key(7),
        "old": jax.random.PRNGKey(7),
        "text": "a\u00e9\n",
        "function": jnp.sin,
        "huge": 2**80,
        "nan": float("nan"),
        "w": jnp.ones(1),
    }
    flat, re = jtree.destructure(model)
    again = re(flat)
    assert all(again[name] is model[name] for name in model if name != "w")


def test_all_takes_running_statistics_too() -> None:
    model = Net(nnx.Rngs(0))
    trainable, every = jtree.destructure(model)[1], jtree.destructure(model, which="all")[1]
    assert set(every.paths) - set(trainable.paths) == {"norm/mean", "norm/var"}
    with pytest.raises(jtree.ArgumentError, match=r"^which: expected 'trainable' or 'all'"):
        jtree.destructure(model, which="some")  # type: ignore[arg-type]


def test_where_takes_globs_and_functions() -> None:
    model = {"a": {"w": jnp.ones(1), "b": jnp.ones(2)}, "c": jnp.ones(4)}
    assert jtree.destructure(model, where="a/**")[1].paths == ("a/b", "a/w")
    assert jtree.destructure(model, where=["**/w", "c"])[1].paths == ("a/w", "c")
    assert jtree.destructure(model, where=lambda _, x: x.size > 1)[1].paths == ("a/b", "c")
    flat, re = jtree.destructure(model, where="c")
    assert re(flat * 2)["a"]["w"] is model["a"]["w"]


def test_paths_shapes_dtypes_slices_and_indices() -> None:
    _, re = jtree.destructure({"a": jnp.ones((2, 3)), "b": [jnp.ones(2, jnp.bfloat16), 5]})
    assert re.paths == ("a", "b/0")
    assert re.shapes == {"a": (2, 3), "b/0": (2,)}
    assert re.dtypes == {"a": jnp.float32, "b/0": jnp.bfloat16}
    assert re.slices == {"a": slice(0, 6), "b/0": slice(6, 8)}
    assert tuple(re.shapes) == tuple(re.dtypes) == tuple(re.slices) == re.paths
    assert re.ties == ()
    assert re["b/0"] == slice(6, 8)
    assert re["b/**"].tolist() == [6, 7]
    with pytest.raises(KeyError, match=r"^'b/1' matches no parameter; did you mean b/0\?$"):
        re["b/1"]


def test_apply_calls_the_rebuilt_model() -> None:
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    flat, re = jtree.destructure(model)
    x = jnp.ones((3, 2))
    close(re.apply(flat, x), model(x))


def test_a_restructure_is_an_argument_of_jit_without_constants_and_retracing() -> None:
    model = {"w": jnp.ones(2), "stats": jnp.full(1000, 3.0), "step": jnp.array(1)}
    traces = []

    @jax.jit
    def rebuild(re: jtree.Restructure, v: jax.Array) -> Any:
        traces.append(re)
        return re(v)

    for step in (1, 2):
        flat, re = jtree.destructure(model | {"step": jnp.array(step)}, where="w")
        assert rebuild(re, flat)["step"] == step
    assert len(traces) == 1
    assert not jax.make_jaxpr(lambda re, v: re(v))(re, flat).consts
    assert not jax.make_jaxpr(lambda re, v: re(v))(re, flat).jaxpr.constvars


def test_vmap_and_scan() -> None:
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    flat, re = jtree.destructure(model)
    batch = jnp.stack([flat, flat * 2])
    assert jax.vmap(re)(batch).kernel.shape == (2, 2, 1)

    def step(v: jax.Array, _: None) -> Any:
        loss = lambda v: (re(v)(jnp.ones((1, 2))) ** 2).sum()  # noqa: E731
        return v - 0.1 * jax.grad(loss)(v), loss(v)

    _, losses = jax.lax.scan(step, flat + 1, None, length=20)
    assert losses[-1] < 0.01 * losses[0]


def test_it_pickles_hashes_and_compares() -> None:
    affine = Affine(jnp.ones((2, 2)), jnp.ones(2), activation="tanh")
    flat, re = jtree.destructure({"a": affine, "s": jnp.arange(3)})
    again = pickle.loads(pickle.dumps(re))
    assert again == re
    assert hash(again) == hash(re)
    assert same(again(flat), re(flat))
    other = jtree.destructure({"a": affine, "s": jnp.arange(1, 4)})[1]
    assert other != re


def test_ravel_takes_a_model_of_this_structure() -> None:
    model = {"w": jnp.ones((1, 2)), "b": jnp.zeros(1), "step": 1}
    _, re = jtree.destructure(model)
    assert re.ravel({"w": jnp.array([[5.0, 6.0]]), "b": jnp.array([4.0])}).tolist() == [4, 5, 6]
    with pytest.raises(
        ValueError, match=r"^w: expected an array of shape \(1, 2\), found float32\[2\]$"
    ):
        re.ravel({"w": jnp.ones(2), "b": jnp.zeros(1)})
    with pytest.raises(ValueError, match=r"^b: expected float32\[1\], found nothing$"):
        re.ravel({"w": jnp.ones((1, 2))})
    with pytest.raises(ValueError, match=r"^c: expected nothing, found float32\[1\]$"):
        re.ravel(model | {"c": jnp.ones(1)})


def test_refresh_takes_other_leaves_and_refuses_other_structures() -> None:
    _, re = jtree.destructure({"w": jnp.ones(2), "step": jnp.array(1), "tag": "old"})
    new = re.refresh({"w": jnp.zeros(2), "step": jnp.array(2), "tag": "new"})
    again = new(jnp.array([7.0, 8.0]))
    assert (again["w"].tolist(), again["step"].item(), again["tag"]) == ([7, 8], 2, "new")
    with pytest.raises(ValueError, match=r"missing: step; unknown: stop$"):
        re.refresh({"w": jnp.ones(2), "stop": jnp.array(1), "tag": ""})


def test_new_running_statistics_by_refresh() -> None:
    model = Net(nnx.Rngs(0))
    flat, re = jtree.destructure(model)
    trained = re(flat)
    trained(jnp.ones((2, 4, 4, 1)))
    before, after = re(flat), re.refresh(trained)(flat)
    assert not same(before.norm.mean[...], after.norm.mean[...])
    assert same(after.norm.mean[...], trained.norm.mean[...])


BAD_VECTORS = [
    (jnp.ones(4), ValueError, "expected a vector of 3 elements, found one of 4"),
    (
        jnp.ones((1, 3)),
        ValueError,
        "expected a vector of 3 elements, found an array of rank 2 and shape (1, 3); "
        "for a batch of vectors use jax.vmap(re)",
    ),
    (
        jnp.float32(1),
        ValueError,
        "expected a vector of 3 elements, found an array of rank 0 and shape (); "
        "for a batch of vectors use jax.vmap(re)",
    ),
    (
        1.0,
        TypeError,
        "expected a vector of 3 elements, found 1.0; make it an array with jnp.asarray",
    ),
    (
        [1.0, 2.0, 3.0],
        TypeError,
        "expected a vector of 3 elements, found a list; make it an array with jnp.asarray",
    ),
]


@pytest.mark.parametrize(("vector", "cls", "message"), BAD_VECTORS)
def test_a_vector_that_does_not_fit_is_refused(vector: Any, cls: Any, message: str) -> None:
    _, re = jtree.destructure({"w": jnp.ones(3)})
    with pytest.raises(cls) as info:
        re(vector)
    assert str(info.value) == message
    assert isinstance(info.value, jtree.JtreeError)


def test_a_where_that_matches_nothing_is_refused() -> None:
    model = {"w": jnp.ones(3), "i": 1}
    with pytest.raises(ValueError, match=r"^'v/\*\*' matches no parameter; the paths are w$"):
        jtree.destructure(model, where="v/**")
    with pytest.raises(ValueError, match=r"^'\*\*' matches no parameter: the model has none$"):
        jtree.destructure({"i": 1}, where="**")
    with pytest.raises(
        TypeError, match=r"^where: expected a glob such as 'layers/0/\*\*', several"
    ):
        jtree.destructure(model, where=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^where: expected globs as str, found int$"):
        jtree.destructure(model, where=["w", 3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"^'\[w' is not a glob: '\[' without '\]'$"):
        jtree.destructure(model, where="[w")


def test_a_deleted_array_is_refused_by_path() -> None:
    model = {"w": jnp.ones(3), "gone": jnp.ones(2)}
    model["gone"].delete()
    for cls in (ValueError, RuntimeError):
        with pytest.raises(
            cls, match=r"^gone: this float32\[2\] array has been deleted, most often"
        ):
            jtree.destructure(model)


# --- through JAX's transformations ---------------------------------------------------------------


def energy(model: Any) -> jax.Array:
    return (model["a"] ** 3).sum() * jnp.cos(model["b"]["c"]).prod() + (model["b"]["d"] ** 4).sum()


MODEL = {
    "a": jnp.array([0.3, -0.7]),
    "b": {"c": jnp.array([[0.2, 0.9]]), "d": jnp.array(1.3)},
    "n": 3,
}


def test_the_hessian_is_symmetric_and_the_nested_one_assembled() -> None:
    flat, re = jtree.destructure(MODEL)
    hessian = jax.hessian(lambda v: energy(re(v)))(flat)
    close(hessian, hessian.T)
    arrays = {"a": MODEL["a"], "b": MODEL["b"]}
    nested = jax.hessian(energy)(arrays)
    rows = []
    for i in range(len(re)):
        row = jax.tree.map(lambda x: x, nested)
        rows.append(_row(row, i))
    close(hessian, jnp.stack(rows))


def _row(nested: Any, i: int) -> jax.Array:
    """Return row i of the matrix that nested second derivatives make."""
    outer = [(("a",), 2), (("b", "c"), 2), (("b", "d"), 1)]
    for path, size in outer:
        if i < size:
            block = nested
            for key in path:
                block = block[key]
            shape = {"a": (2,), "c": (1, 2), "d": ()}[path[-1]]
            index = np.unravel_index(i, shape) if shape else ()
            row = jax.tree.map(lambda x, at=index: x[at], block)
            return jtree.destructure(row)[0]
        i -= size
    raise AssertionError


MODES = [jax.jacfwd, jax.jacrev]


@pytest.mark.parametrize("outer", MODES)
@pytest.mark.parametrize("inner", MODES)
def test_second_derivatives_in_every_mix_of_modes(outer: Any, inner: Any) -> None:
    flat, re = jtree.destructure(MODEL)
    through_re = outer(inner(lambda v: energy(re(v))))(flat)
    close(through_re, jax.hessian(lambda v: energy(re(v)))(flat))

    arrays = {"a": MODEL["a"], "b": MODEL["b"]}
    square = lambda m: (jtree.destructure(m)[0] ** 3).sum()  # noqa: E731
    nested = outer(inner(square))(arrays)
    close(nested["a"]["a"], jnp.diag(6 * MODEL["a"]))
    close(nested["a"]["b"]["d"], jnp.zeros(2))


def test_second_derivatives_through_destructure_of_a_gradient() -> None:
    def outer(v: jax.Array) -> jax.Array:
        loss = lambda m: (jtree.destructure(m)[0] ** 2).sum()  # noqa: E731
        grads = jax.grad(loss)((v, jnp.array([4.0, 5.0, 6.0])))
        return (grads[0] ** 2).sum()

    assert jax.grad(outer)(jnp.array([1.0, 2.0, 3.0])).tolist() == [8.0, 16.0, 24.0]


def test_jvp_and_linear_transpose_are_exact() -> None:
    flat, _ = jtree.destructure(MODEL)
    arrays = {"a": MODEL["a"], "b": MODEL["b"]}
    _, tangent = jax.jvp(lambda m: jtree.destructure(m)[0], (arrays,), (arrays,))
    close(tangent, flat)
    (back,) = jax.linear_transpose(lambda m: jtree.destructure(m)[0], arrays)(flat)
    assert same(back, arrays)


def test_destructure_of_a_nested_gradient_is_the_flat_gradient() -> None:
    flat, re = jtree.destructure(MODEL)
    nested = jax.grad(energy, allow_int=True)(MODEL)
    flat_gradient = jax.grad(lambda v: energy(re(v)))(flat)
    close(jtree.destructure(nested)[0], flat_gradient)
    close(re.ravel_grad(nested), flat_gradient)


def test_ravel_grad_takes_none_for_leaves_and_branches() -> None:
    _, re = jtree.destructure(MODEL)
    grads = {"a": jnp.array([1.0, 2.0]), "b": None, "n": None}
    assert re.ravel_grad(grads).tolist() == [1, 2, 0, 0, 0]
    assert re.ravel_grad({"a": None, "b": {"c": None, "d": jnp.array(3)}}).tolist() == [0] * 4 + [3]
    wide = re.ravel_grad({"a": jnp.array([1j, 2]), "b": None})
    assert wide.dtype == jnp.complex64
    with pytest.raises(
        ValueError, match=r"^b/c: expected float32\[1, 2\], found nothing; did you mean b/d\?$"
    ):
        re.ravel_grad({"a": None, "b": {"d": None}})


def test_complex_gradients_flow_both_ways() -> None:
    model = {"x": jnp.array([1.0]), "z": jnp.array([2.0 + 1.0j])}
    flat, re = jtree.destructure(model)
    loss = lambda m: (m["x"] ** 2).sum() + (jnp.abs(m["z"]) ** 2).sum()  # noqa: E731
    nested = jax.grad(loss)(model)
    close(jax.grad(lambda v: loss(re(v)))(flat), jtree.destructure(nested)[0])


# --- Flax NNX ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_rebuilt_nnx_network_trains_under_every_transformation() -> None:
    model = Net(nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 1))
    flat, re = jtree.destructure(model)
    before = jtree.state(model)
    loss = lambda v: (re(v)(x) ** 2).sum()  # noqa: E731
    gradient = jax.grad(loss)(flat)
    close(jax.jit(jax.grad(loss))(flat), gradient, rtol=1e-4, atol=1e-5)
    stacked = jax.vmap(jax.grad(loss))(jnp.stack([flat, flat]))
    close(stacked[1], gradient, rtol=1e-4, atol=1e-5)
    vector = jnp.ones_like(flat)
    hvp = jax.jvp(jax.grad(loss), (flat,), (vector,))[1]
    other = jax.grad(lambda v: jax.grad(loss)(v) @ vector)(flat)
    close(hvp, other, rtol=1e-3, atol=1e-3)
    assert same(jtree.state(model), before)
    assert same(jtree.state(re(flat)), before)


def test_rebuilt_variables_are_new_at_every_call() -> None:
    flat, re = jtree.destructure(Net(nnx.Rngs(0)))
    one, two = re(flat), re(flat)
    assert one.norm.mean is not two.norm.mean
    one(jnp.ones((2, 4, 4, 1)))
    assert same(two.norm.mean[...], re(flat).norm.mean[...])


# --- random nested models ------------------------------------------------------------------------

LEAVES = st.one_of(
    st.tuples(
        st.sampled_from(["float32", "bfloat16", "complex64", "int32", "bool"]),
        st.lists(st.integers(0, 3), max_size=3),
    ).map(lambda x: jnp.ones(x[1], x[0])),
    st.none(),
    st.text(max_size=3),
    st.integers(),
    st.floats(allow_nan=False),
)
MODELS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text("abc. -\u00e9", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(MODELS)
def test_round_trips_of_random_models(model: Any) -> None:
    flat, re = jtree.destructure(model)
    assert same(re(flat), model)
    assert same(jtree.loadmodel(model, jtree.state(model)), model)
    assert same(jtree.state(model), model)
    doubled = re.ravel(re(flat * 2))
    assert doubled.tolist() == (flat * 2).tolist()


def test_shared_modules_stay_shared() -> None:
    model = Shared(nnx.Rngs(0))
    flat, re = jtree.destructure(model)
    again = re(flat * 2)
    assert again.enc is again.dec
    assert again.again[0] is again.head.kernel
    assert re.ties == (
        ("again/0", "head/kernel"),
        ("dec/bias", "enc/bias"),
        ("dec/kernel", "enc/kernel"),
    )
    assert re["enc/kernel"] == re["dec/kernel"]


def test_linen_variables_that_are_taken_whole_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    variables = {"params": {"w": jnp.ones(7)}, "batch_stats": {"mean_of_seven": jnp.zeros(7)}}
    with caplog.at_level("WARNING", "jtree"):
        jtree.destructure(variables, where="params/**")
        jtree.destructure(variables, which="all")
        jtree.destructure({"params": variables["params"], "optimiser": jnp.ones(2)})
        assert not caplog.messages
        for _ in range(2):
            jtree.destructure(variables)
            jtree.destructure(variables, dtype=jnp.float16)
    assert caplog.messages == [
        "the vector holds params and batch_stats, as Flax linen stores them, and an optimiser "
        'would train both; pass where="params/**" for the parameters only, or which="all" for all'
    ]
