"""Restructure: which vectors it takes, and what else of a model it keeps."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree

from ..zoo import Shared, abstract


def test_donating_the_vector_or_the_model_leaves_the_other_alive() -> None:
    donate = jax.jit(lambda v: jax.tree.map(lambda x: x * 2, v), donate_argnums=0)
    for model in ({"w": jnp.ones(4)}, {"w": jnp.ones(4), "b": jnp.ones(2)}, jnp.ones(3)):
        flat, re = jtree.destructure(model)
        again = re(flat)
        donate(flat)
        assert not any(x.is_deleted() for x in jax.tree.leaves((model, again)))
        flat, re = jtree.destructure(model)
        donate(re(flat))
        assert not flat.is_deleted()


def test_wide_integers_are_not_truncated_on_their_way_into_jit() -> None:
    flat, re = jtree.destructure({"w": jnp.ones(1), "n": np.array([2**40 + 1])})
    inside = []
    jax.jit(lambda re, v: inside.append(re(v)["n"]))(re, flat)
    assert inside[0].tolist() == [2**40 + 1]
    assert re(np.array([2**40]), restore_dtype=False)["w"].item() == 2.0**40


def test_integers_are_restored_leaf_by_leaf_from_numpy_too() -> None:
    _, re = jtree.destructure({"w": jnp.ones(2)}, dtype=jnp.bfloat16)
    for vector in (np.array([257, 259]), jnp.array([257, 259])):
        assert re(vector)["w"].tolist() == [257, 259]


def test_imaginary_parts_are_not_dropped() -> None:
    z = jnp.array([1 + 2j])
    message = "^z: expected a real array for a vector of float32, found complex64"
    with pytest.raises(ValueError, match=message):
        jtree.destructure({"z": z}, dtype=jnp.float32)
    with pytest.raises(ValueError, match=message):
        jtree.destructure({"z": jnp.ones(1)})[1].ravel({"z": z})


def test_ravel_takes_floating_arrays_only() -> None:
    _, re = jtree.destructure({"w": jnp.ones(1)})
    with pytest.raises(
        ValueError, match=r"^w: expected a floating-point or complex array, found int32"
    ):
        re.ravel({"w": jnp.array([2**24 + 1])})
    for junk in (jax.random.split(jax.random.key(0), 1), np.array(["x"]), "x", object()):
        with pytest.raises(ValueError, match=r"^w: expected an array of shape \(1,\), found"):
            re.ravel_grad({"w": junk})


@pytest.mark.parametrize("where", [[], (), lambda *_: False])
def test_a_where_that_selects_nothing_is_refused(where: Any) -> None:
    with pytest.raises(ValueError, match=r"^where: "):
        jtree.destructure({"w": jnp.ones(1)}, where=where)


def test_a_deleted_array_is_refused_wherever_it_is() -> None:
    gone = jnp.arange(2)
    gone.delete()
    with pytest.raises(
        jtree.DeletedArrayError, match=r"^i: this int32\[2\] array has been deleted"
    ):
        jtree.destructure({"w": jnp.ones(1), "i": gone})
    dead = jnp.ones(2)
    dead.delete()
    with pytest.raises(jtree.DeletedArrayError, match=r"^a: this float32\[2\] array has been"):
        jtree.destructure({"a": dead, "b": jnp.ones(2)}, ties=[("a", "b")])


def test_minus_zero_is_another_layout() -> None:
    plus, minus = (jtree.destructure({"s": x})[1] for x in (0.0, -0.0))
    assert plus != minus
    assert jtree.destructure({"s": float("nan")})[1] == jtree.destructure({"s": float("nan")})[1]


@pytest.mark.parametrize(
    "vector",
    [
        np.array([None, 1]),
        np.array(["a", "b"]),
        np.zeros(2, "M8[s]"),
        np.zeros(2, [("a", int)]),
        np.zeros(2, jax.dtypes.float0),
        jax.random.split(jax.random.key(0), 2),
    ],
)
def test_a_vector_of_a_non_numeric_dtype_is_refused(vector: Any) -> None:
    with pytest.raises(TypeError, match=r"^expected a vector of 2 elements, found an array of "):
        jtree.destructure({"w": jnp.ones(2)})[1](vector)


def test_the_other_order_of_bytes_is_read() -> None:
    model = {"r": np.array([1, 2], ">f4"), "i": np.array([1, 2], ">i4")}
    flat, re = jtree.destructure(model)
    assert flat.tolist() == [1, 2]
    inside = []
    jax.jit(lambda re, v: inside.append(re(v)["i"]))(re, flat)
    assert inside[0].tolist() == [1, 2]


def test_the_same_statistics_twice_are_tied_by_arrays_where_all_are_taken() -> None:
    array = jnp.ones(2)
    model = [nnx.BatchStat(array), nnx.BatchStat(array)]
    assert len(jtree.destructure(model, which="all", ties="arrays")[1]) == 2


def test_a_bare_array_has_one_name_in_and_out_of_jit() -> None:
    eager = jtree.destructure(jnp.ones(2))[1]
    inside = []
    jax.jit(lambda x: inside.append(jtree.destructure(x)[1]))(jnp.ones(2))
    assert inside[0].layout == eager.layout
    assert repr(eager) == "Restructure(Array, ..., 2)"


def test_asking_a_restructure_for_something_else_than_a_path() -> None:
    _, re = jtree.destructure({"w": jnp.ones(2)})
    assert "w" in re
    assert "v" not in re
    for key in (0, ["w"], slice(0, 1)):
        with pytest.raises(TypeError, match="expected a path or a glob"):
            re[key]
    with pytest.raises(TypeError):
        list(re)


@pytest.mark.parametrize("ties", [[5], [("a", 3)], [()]])
def test_ties_that_are_not_paths_are_refused(ties: Any) -> None:
    with pytest.raises(ValueError, match=r"^ties: expected tuples of two paths or more, found"):
        jtree.destructure({"a": jnp.ones(1)}, ties=ties)


def test_abstract_models_keep_their_shared_modules() -> None:
    model = abstract(Shared(nnx.Rngs(0)))
    _, re = jtree.destructure(model)
    rebuilt = re(jax.ShapeDtypeStruct((len(re),), re.dtype))
    assert rebuilt.enc is rebuilt.dec


def test_the_arrays_of_a_partial_are_parameters() -> None:
    model = jax.tree_util.Partial(partial(jnp.add, 1), jnp.ones(1))
    assert jtree.destructure(model)[1].paths == ("0/0",)


def test_a_mutable_reference_is_refused() -> None:
    model = {"w": jax.new_ref(jnp.ones(2))}
    for function in (jtree.destructure, jtree.state, lambda m: jtree.loadmodel(m, m)):
        with pytest.raises(jtree.ModelError, match=r"^w: expected an array, found a mutable ref"):
            function(model)


def test_refresh_keeps_ties_and_takes_static_fields() -> None:
    model = Shared(nnx.Rngs(0))
    flat, re = jtree.destructure(model, ties=())
    again = re.refresh(model)(flat)
    assert again.enc is not again.dec
    flat, re = jtree.destructure(model)
    through_jit = jax.jit(lambda m: m)(model)
    assert through_jit.enc is not through_jit.dec
    assert (tied := re.refresh(through_jit)(flat)).enc is tied.dec
    flat, re = jtree.destructure(nnx.BatchNorm(2, rngs=nnx.Rngs(0)))
    evaluating = nnx.BatchNorm(2, use_running_average=True, rngs=nnx.Rngs(0))
    assert re.refresh(evaluating)(flat).use_running_average
    with pytest.raises(jtree.ModelError, match=r"^expected BatchNorm, found dict"):
        re.refresh({})
    with pytest.raises(jtree.ModelError, match=r"^w: expected an array of shape \(2,\), found"):
        jtree.destructure({"w": jnp.ones(2)})[1].refresh({"w": jnp.ones(3)})


def test_where_on_one_tied_leaf_selects_the_parameter() -> None:
    _, re = jtree.destructure(Shared(nnx.Rngs(0)), where="enc/kernel")
    assert re.ties == (("dec/kernel", "enc/kernel"),)


def test_static_leaves_are_compared_by_their_bits() -> None:
    def layout(x: Any) -> jtree.Restructure:
        return jtree.destructure({"s": x})[1]

    assert layout(np.float32(0.0)) != layout(np.float32(-0.0))
    nan = np.array([float("nan")])
    assert layout(nan) == layout(nan.copy())
    assert hash(layout(float("nan"))) == hash(layout(float("nan")))


def test_a_numpy_leaf_changed_afterwards_changes_nothing() -> None:
    model = {"w": jnp.ones(1), "n": np.array([2**40])}
    flat, re = jtree.destructure(model)
    model["n"][0] = 5
    assert re(flat)["n"].tolist() == [2**40]


def test_absent_gradients_are_zeros_on_every_device(run_python: Any) -> None:
    out = run_python(
        """
        import jax, jax.numpy as jnp, jtree
        model = jax.device_put({"a": jnp.ones(2), "b": jnp.ones(1)}, jax.devices()[1])
        flat, re = jtree.destructure(model)
        grads = re.ravel_grad({"a": model["a"], "b": None})
        print(grads.tolist(), grads.devices() == flat.devices() == {jax.devices()[1]})
        print({str(x.devices()) for x in re(flat).values()} == {str({jax.devices()[1]})})
        """,
        JAX_NUM_CPU_DEVICES="2",
    )
    assert out == "[1.0, 1.0, 0.0] True\nTrue\n"
