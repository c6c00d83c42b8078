"""Odd inputs, each of which went wrong once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree

from .same import same
from .zoo import Affine, Shared, abstract


def test_a_function_in_a_list_of_layers_keeps_its_index() -> None:
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(2, 2, rngs=rngs), nnx.relu, nnx.Linear(2, 2, rngs=rngs))
    assert [x[:8] for x in jtree.trainables(model)] == ["layers/0"] * 2 + ["layers/2"] * 2
    assert jtree.state(model)["layers"][1] == ()
    other = nnx.Sequential(nnx.Linear(2, 2, rngs=rngs), nnx.Linear(2, 2, rngs=rngs), nnx.relu)
    assert jtree.diff(model, other).missing == ("layers/2/bias", "layers/2/kernel")
    for source in (nnx.state(model), nnx.to_pure_dict(nnx.state(model)), jtree.state(model)):
        assert not jtree.diff(model, source)


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


def test_a_key_cannot_be_zeroed() -> None:
    for source, options in (({"k": None}, {"none": "zero"}), ({"k": False}, {})):
        with pytest.raises(jtree.LoadError, match=r"an array of key<fry> cannot be set to zero"):
            jtree.loadmodel({"k": jax.random.key(0)}, source, **options)


def test_integers_too_large_for_float16_do_not_fit() -> None:
    with pytest.raises(jtree.LoadError, match="not every integer in it fits"):
        jtree.loadmodel({"p": jnp.zeros(1, jnp.float16)}, {"p": np.array([70000])})


def test_casts_that_overflow_are_infinite_without_a_warning() -> None:
    huge = {"p": np.array([1e30])}
    assert np.isinf(jtree.loadmodel({"p": np.zeros(1, np.float16)}, huge)["p"][0])
    assert np.isinf(jtree.f16(huge)["p"][0])
    _, re = jtree.destructure({"w": jnp.ones(1, jnp.float16)})
    assert np.isinf(re(np.array([70000]))["w"][0])
    assert np.isinf(re(np.array([1e300]))["w"][0])
    double = {"p": jax.ShapeDtypeStruct((1,), np.dtype("float64"))}
    assert jtree.loadmodel(double, {"p": np.array([0.5])})["p"].dtype == jnp.float32


def test_abstract_models_obey_the_laws_too() -> None:
    model = {"w": jax.ShapeDtypeStruct((2,), jnp.float32)}
    assert same(jtree.loadmodel(model, jtree.state(model)), model)
    _, re = jtree.destructure(model)
    assert re.ravel_grad(model).shape == (2,)
    with pytest.raises(jtree.LoadError, match="the destination is abstract"):
        jtree.loadmodel(model, {"w": None}, none="keep")


def test_loading_under_tracing_into_numpy_and_into_tied_leaves() -> None:
    load = jax.jit(lambda src: jtree.loadmodel({"a": np.zeros(2, np.float32)}, src))
    assert load({"a": jnp.ones(2)})["a"].tolist() == [1, 1]
    tied = jax.jit(lambda a, b: jtree.loadmodel(a, b, ties=[("a", "b")]))
    ones = {"a": jnp.ones(2), "b": jnp.ones(2)}
    with pytest.raises(jtree.LoadError, match="values that cannot be compared yet at a and b"):
        tied(ones, ones)


def test_a_tied_destination_is_content_with_one_source() -> None:
    model = Shared(nnx.Rngs(0))
    loaded = jtree.loadmodel(model, nnx.state(Shared(nnx.Rngs(1))))
    assert loaded.enc is loaded.dec
    assert not same(loaded.enc.kernel[...], model.enc.kernel[...])


def test_paths_are_printed_as_they_are() -> None:
    text = str(jtree.diff({"[/x]": jnp.ones(1), ":smile:": jnp.ones(1), "y": "[/]"}, {"y": "[/"}))
    assert "[/x]" in text
    assert ":smile:" in text
    long = "transformer_encoder_layer_with_a_long_name/" * 4 + "weight"
    lines = str(jtree.diff({long: jnp.ones(1)}, {})).splitlines()
    cells = [line.split("\u2502")[1].strip() for line in lines if line.startswith("\u2502")]
    assert "".join(cells) == long


def test_config_holds_functions_and_tells_types_apart() -> None:
    dst = {"f": jnp.sin, "n": 1, "nan": float("nan")}
    src = {"f": jnp.cos, "n": True, "nan": float("nan")}
    assert jtree.diff(dst, src).config == {"f": (jnp.sin, jnp.cos), "n": (1, True)}


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


def test_a_configuration_may_hold_what_a_model_may_not() -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    for config in ({1: 2, "a": 3}, {"a/b": 1, "a": {"b": 2}}, cyclic):
        assert "name" not in jtree.state(Affine(jnp.ones(1), None, name=config))  # type: ignore[arg-type]


def test_two_nodes_with_one_path_are_refused() -> None:
    with pytest.raises(jtree.ModelError, match=r"a/b: .* have the same path"):
        jtree.modules({"a/b": [1], "a": {"b": {"z": 2}}})
    with pytest.raises(jtree.ModelError, match=r"a/b: .* have the same path"):
        jtree.modules({"a/b": 1, "a": {"b": {"z": 2}}})
    assert jtree.state({"": 1}) == {"": 1}


def test_minus_zero_is_another_layout() -> None:
    plus, minus = (jtree.destructure({"s": x})[1] for x in (0.0, -0.0))
    assert plus != minus
    assert jtree.destructure({"s": float("nan")})[1] == jtree.destructure({"s": float("nan")})[1]


def test_many_renamed_leaves_are_reported_quickly() -> None:
    dst = {f"old{i}": np.ones(1) for i in range(1500)}
    src = {f"new{i}": np.ones(1) for i in range(1500)}
    assert len(jtree.diff(dst, src).mismatches) == 3000


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


def test_weak_types_are_those_of_the_destination() -> None:
    weak = jnp.asarray(1.0)
    assert weak.weak_type
    assert not jtree.loadmodel({"x": jnp.ones(())}, {"x": weak})["x"].weak_type


def test_children_created_by_each_flatten_may_be_trainable() -> None:
    @jax.tree_util.register_pytree_node_class
    @dataclass
    class Fresh:
        w: Any

        def tree_flatten(self) -> Any:
            return ({"inner": self.w},), None

        @classmethod
        def tree_unflatten(cls, _: None, children: Any) -> Any:
            return cls(children[0]["inner"])

    jtree.trainable.register(Fresh)(jtree.children)
    assert list(jtree.trainables(Fresh(jnp.ones(1)))) == ["0/inner"]


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


def test_false_above_a_branch_is_named() -> None:
    with pytest.raises(jtree.LoadError) as info:
        jtree.loadmodel({"l": {"w": jnp.ones(1)}}, {"l": False})
    assert str(info.value).endswith(
        "l/w: expected float32[1], found False at l; False stands for a single absent parameter"
    )


def test_abstract_models_keep_their_shared_modules() -> None:
    model = abstract(Shared(nnx.Rngs(0)))
    _, re = jtree.destructure(model)
    rebuilt = re(jax.ShapeDtypeStruct((len(re),), re.dtype))
    assert rebuilt.enc is rebuilt.dec


def test_an_int_key_and_attributes_that_begin_with_an_underscore() -> None:
    class Module(nnx.Module):
        def __init__(self) -> None:
            self._size = 3
            self.w = nnx.Param(jnp.ones(1))

    assert jtree.state(Module())["_size"] == 3


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


def test_an_array_where_the_destination_has_a_branch() -> None:
    report = jtree.diff({"a": {"b": jnp.ones(2)}}, {"a": np.ones(2)})
    assert (report.missing, report.unexpected) == (("a/b",), ("a",))


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


def test_four_bit_integers_are_compared() -> None:
    source = {"x": np.array([-3], jnp.int4)}
    assert jtree.diff({"x": jnp.zeros(1, jnp.uint8)}, source)
    assert jtree.loadmodel({"x": jnp.zeros(1, jnp.int8)}, source)["x"].tolist() == [-3]
