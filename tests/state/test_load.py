"""state, loadmodel and diff: every rule, and every message in full."""

from __future__ import annotations

import logging
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import SingleDeviceSharding

import jtree

from ..same import same
from ..zoo import Affine, Chex, Net, Pair, Struct


def refused(dst: Any, src: Any, **options: Any) -> str:
    """Return why loading fails, without the first words."""
    before = [slot.value for slot in jtree.walk(dst).slots]
    with pytest.raises(jtree.LoadError) as info:
        jtree.loadmodel(dst, src, **options)
    assert all(a is slot.value for a, slot in zip(before, jtree.walk(dst).slots, strict=True))
    assert info.value.diff
    assert isinstance(info.value, ValueError)
    return str(info.value).removeprefix("nothing was loaded: ")


# --- state ---------------------------------------------------------------------------------------


def test_state_has_basic_containers_and_static_fields() -> None:
    w = jnp.ones((2, 3))
    assert jtree.state(Affine(w, False)) == {
        "weight": w,
        "bias": False,
        "size": 3,
        "name": "affine",
    }
    assert jtree.state(Pair(1, [2, (3,)])) == {"left": 1, "right": [2, (3,)]}
    assert jtree.state(Struct(kernel=None, steps=2)) == {"kernel": None, "steps": 2, "rate": 0.1}
    assert jtree.state(Chex(mean=1, scale=2)) == {"mean": 1, "scale": 2, "flag": True}
    assert jtree.state((1, jnp.tanh)) == (1, ())
    assert jtree.state({"d": jnp.float32, "c": 1 + 2j, "b": b"x"}) == {
        "d": (),
        "c": 1 + 2j,
        "b": b"x",
    }


def test_state_of_nnx_and_equinox_modules() -> None:
    state = jtree.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    assert state["kernel"].shape == (2, 3)
    assert (state["in_features"], state["use_bias"], state["dtype"]) == (2, True, None)
    assert "dot_general" not in state
    assert isinstance(jtree.state(Net(nnx.Rngs(0)))["layers"], list)
    linear = jtree.state(eqx.nn.Linear(2, 3, key=jax.random.key(0)))
    assert linear["in_features"] == 2
    assert jtree.state(nnx.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)))["kernel_size"] == (3, 3)


# --- loadmodel, rule by rule ---------------------------------------------------------------------


def test_only_arrays_are_loaded() -> None:
    dst = Affine(jnp.zeros((2, 3)), jnp.zeros(3), activation=jnp.sin, name="dst")
    src = Affine(jnp.ones((2, 3)), jnp.ones(3), activation=jnp.cos, name="src")
    loaded = jtree.loadmodel(dst, src)
    assert loaded.activation is jnp.sin
    assert loaded.name == "dst"
    assert same(loaded.weight, src.weight)
    assert dst.weight.sum() == 0


def test_a_field_that_a_newer_version_added_does_not_matter() -> None:
    src = jtree.state(Affine(jnp.ones((2, 3)), jnp.ones(3)))
    del src["size"]
    src["old"] = 5
    assert not jtree.diff(Affine(jnp.zeros((2, 3)), jnp.zeros(3)), src)


def test_shapes_must_match() -> None:
    assert refused({"w": jnp.ones((3, 2))}, {"w": jnp.ones((2, 3))}) == (
        "1 mismatch\n  w: expected float32[3, 2], found float32[2, 3]; the source looks transposed"
    )
    report = jtree.diff({"w": jnp.ones((3, 2))}, {"w": jnp.ones(6)})
    assert report.shape == {"w": ((3, 2), (6,))}


def test_missing_and_unexpected_paths_come_with_a_near_one() -> None:
    dst = {"layers": [{"weight": jnp.ones(2)}], "other": jnp.ones(1)}
    src = {"layers": [{"wieght": jnp.ones(2)}], "more": jnp.zeros(4)}
    assert refused(dst, src) == (
        "4 mismatches\n"
        "  layers/0/weight: expected float32[2], found nothing; did you mean layers/0/wieght?\n"
        "  layers/0/wieght: expected nothing, found float32[2]; did you mean layers/0/weight?\n"
        "  more: expected nothing, found float32[4]\n"
        "  other: expected float32[1], found nothing"
    )
    report = jtree.diff(dst, src)
    assert report.missing == ("layers/0/weight", "other")
    assert report.unexpected == ("layers/0/wieght", "more")


def test_only_the_first_ten_mismatches_are_printed_in_full() -> None:
    message = refused({f"w{i:02}": jnp.ones(1) for i in range(15)}, {})
    assert message.count("expected float32[1]") == 10
    assert message.endswith("... and 5 more, all in `.diff`")


DTYPES = [
    ("float32", "float16", True),
    ("bfloat16", "float32", True),
    ("complex64", "float32", True),
    ("float32", "complex64", "the imaginary part would be lost; take the real part of the source"),
    ("int32", "float32", "values are not rounded to integers; convert the source first"),
    ("int32", "int8", True),
    ("float32", "int32", True),
    ("bool", "int32", "there is no conversion between these dtypes"),
    ("bool", "bool", True),
    ("float8_e4m3fn", "float32", True),
]


@pytest.mark.parametrize(("dst", "src", "expected"), DTYPES)
def test_dtypes_are_those_of_the_destination(dst: str, src: str, expected: Any) -> None:
    target, source = {"x": jnp.zeros(2, dst)}, {"x": np.ones(2).astype(jnp.dtype(src))}
    if expected is True:
        loaded = jtree.loadmodel(target, source)["x"]
        assert loaded.dtype == dst
        assert isinstance(loaded, jax.Array)
        assert loaded.astype(jnp.complex64).tolist() == [1, 1]
    else:
        assert refused(target, source).startswith(
            f"1 mismatch\n  x: expected {dst}[2], found {src}[2]; {expected}"
        )
        assert list(jtree.diff(target, source).dtype) == ["x"]


INTEGERS = [
    ("int8", 127, True),
    ("int8", 128, False),
    ("uint8", -1, False),
    ("float16", 2048, True),
    ("float16", 2049, False),
    ("float32", 2**24 + 1, False),
    ("float32", 2**40, True),
    ("int32", 2**40, False),
]


@pytest.mark.parametrize(("dtype", "number", "fits"), INTEGERS)
def test_an_integer_must_fit(dtype: str, number: int, fits: bool) -> None:
    target, source = {"x": jnp.zeros(1, dtype)}, {"x": np.array([number], np.int64)}
    if fits:
        assert int(jtree.loadmodel(target, source)["x"][0]) == number
    else:
        assert refused(target, source) == (
            f"1 mismatch\n  x: expected {dtype}[1], found int64[1]; not every integer in it fits"
        )


def test_an_abstract_int64_is_an_int32_while_x64_is_off() -> None:
    target = {"x": jax.ShapeDtypeStruct((1,), np.int64)}
    assert "not every integer in it fits" in refused(target, {"x": np.array([2**40])})
    host = jtree.loadmodel({"x": np.zeros(1, np.int64)}, {"x": np.array([2**40])})
    assert host["x"].tolist() == [2**40]


def test_false_is_an_absent_parameter() -> None:
    dst = Affine(jnp.ones((2, 3)), jnp.ones(3))
    assert jtree.loadmodel(dst, Affine(jnp.ones((2, 3)), False)).bias.tolist() == [0, 0, 0]
    without = Affine(jnp.ones((2, 3)), False)
    assert jtree.loadmodel(without, Affine(jnp.ones((2, 3)), jnp.zeros(3))).bias is False
    assert jtree.loadmodel(without, without).bias is False
    assert refused(without, dst) == (
        "1 mismatch\n"
        "  bias: expected False, an absent parameter, found float32[3], which is not "
        "all zero; add the parameter to the destination, or put False there in the source"
    )
    assert list(jtree.diff(without, dst).kind) == ["bias"]


def test_none_in_the_destination_is_absent_too() -> None:
    dst = nnx.Linear(2, 3, use_bias=False, rngs=nnx.Rngs(0))
    src = nnx.Linear(2, 3, rngs=nnx.Rngs(1))
    assert same(jtree.loadmodel(dst, src).kernel[...], src.kernel[...])
    src.bias[...] = jnp.ones(3)
    assert refused(dst, src).startswith("1 mismatch\n  bias: expected None, an absent parameter")


def test_true_is_a_mismatch_on_either_side() -> None:
    array = {"b": jnp.ones(3)}
    assert refused(array, {"b": True}) == (
        "1 mismatch\n  b: expected float32[3], found True; "
        "only False, for an absent parameter, can stand for an array"
    )
    assert refused({"b": True}, array) == "1 mismatch\n  b: expected True, found float32[3]"


def test_none_in_the_source_must_be_explained() -> None:
    dst, src = {"b": jnp.ones(3)}, {"b": None}
    assert refused(dst, src) == (
        "1 mismatch\n  b: expected float32[3], found None; if there is no such parameter use "
        'none="zero", if it is elsewhere none="keep"'
    )
    assert jtree.loadmodel(dst, src, none="zero")["b"].tolist() == [0, 0, 0]
    assert jtree.loadmodel(dst, src, none="keep")["b"] is dst["b"]
    assert refused({"a": dst}, {"a": None}).startswith(
        "1 mismatch\n  a/b: expected float32[3], found None at a; if there"
    )
    with pytest.raises(jtree.ArgumentError, match=r"^none: expected 'error', 'zero' or 'keep'"):
        jtree.loadmodel(dst, src, none="nothing")  # type: ignore[arg-type]


def test_a_partitioned_source_never_zeroes_anything_silently() -> None:
    model = eqx.nn.MLP(2, 1, 4, 2, key=jax.random.key(0))
    head = lambda path, _: path[0].name == "layers" and path[1].idx == 2  # noqa: E731
    chosen = jax.tree_util.tree_map_with_path(head, model)
    part, rest = eqx.partition(model, chosen)
    with pytest.raises(jtree.LoadError):
        jtree.loadmodel(model, part)
    other = jax.tree.map(lambda x: x + 1 if eqx.is_array(x) else x, model)
    half = eqx.partition(other, chosen)[0]
    loaded = jtree.loadmodel(model, half, none="keep")
    assert same(loaded.layers[0], model.layers[0])
    assert same(loaded.layers[2], other.layers[2])
    assert same(eqx.combine(part, rest), model)


def test_an_array_against_something_else() -> None:
    dst = {"x": jnp.ones(1), "y": "text", "z": jnp.sin}
    src = {"x": 1.5, "y": jnp.ones(1), "z": jnp.ones(2)}
    assert refused(dst, src) == (
        "3 mismatches\n"
        "  x: expected float32[1], found 1.5; make it an array with numpy.asarray\n"
        "  y: expected 'text', found float32[1]\n"
        "  z: expected the function sin, found float32[2]"
    )


def test_an_abstract_source_has_no_values_to_load() -> None:
    abstract = {"x": jax.ShapeDtypeStruct((2,), jnp.float32)}
    assert not jtree.diff({"x": jnp.ones(2)}, abstract)
    with pytest.raises(jtree.ModelError, match=r"^x: the source is abstract: it has a shape and a"):
        jtree.loadmodel({"x": jnp.ones(2)}, abstract)


def test_filter_drops_children_on_both_sides() -> None:
    class Drop:
        def __init__(self, rate: Any) -> None:
            self.rate = rate

    jax.tree_util.register_pytree_node(Drop, lambda x: ((x.rate,), None), lambda _, xs: Drop(*xs))
    a, b = jnp.ones(2), jnp.ones(3)
    plain, extra = [{"w": a}, {"w": b}], [{"w": a * 2}, Drop(jnp.array(0.1)), {"w": b * 2}]
    assert jtree.diff(plain, extra)
    keep = lambda child: not isinstance(child, Drop)  # noqa: E731
    assert jtree.loadmodel(plain, extra, filter=keep)[1]["w"].tolist() == [2, 2, 2]
    back = jtree.loadmodel(extra, plain, filter=keep)
    assert back[2]["w"].tolist() == [1, 1, 1]
    assert back[1].rate.item() == pytest.approx(0.1)


def test_strict_false_loads_what_fits_and_logs_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    dst = {"a": jnp.zeros(2), "b": jnp.zeros(3)}
    with caplog.at_level(logging.WARNING, "jtree"):
        loaded = jtree.loadmodel(dst, {"a": jnp.ones(2), "b": jnp.ones(4)}, strict=False)
    assert loaded["a"].tolist() == [1, 1]
    assert loaded["b"] is dst["b"]
    assert caplog.messages == [
        "loaded in part: 1 mismatch\n  b: expected float32[3], found float32[4]"
    ]


def test_strict_false_never_returns_anything_abstract() -> None:
    dst = {"a": jax.ShapeDtypeStruct((2,), jnp.float32), "b": jnp.zeros(3)}
    message = refused(dst, {"b": jnp.ones(3)}, strict=False)
    assert message.startswith("a: the destination is abstract, so it has no values to keep where")


def test_a_numpy_source_is_copied() -> None:
    src = {"x": np.ones(64, np.float32)}
    for dst in ({"x": np.zeros(64, np.float32)}, {"x": jnp.zeros(64)}):
        loaded = jtree.loadmodel(dst, src)
        src["x"][0] = 5
        assert loaded["x"][0] == 1
        assert type(loaded["x"]) is type(dst["x"])
        src["x"][0] = 1


def test_device_and_sharding_are_those_of_the_destination() -> None:
    sharding = SingleDeviceSharding(jax.devices()[0])
    dst = {"x": jax.device_put(jnp.zeros(2), sharding), "y": jnp.zeros(2)}
    loaded = jtree.loadmodel(dst, {"x": np.ones(2), "y": np.ones(2)})
    assert loaded["x"].sharding == sharding
    assert loaded["x"].committed
    assert not loaded["y"].committed


def test_loading_under_jit() -> None:
    load = jax.jit(lambda dst, src: jtree.loadmodel(dst, src))
    assert load({"x": jnp.zeros(2)}, {"x": jnp.ones(2)})["x"].tolist() == [1, 1]


def test_fields_without_arrays_that_differ_are_information() -> None:
    dst, src = Affine(1.0, jnp.ones(1), name="a"), Affine(2.0, jnp.ones(1), name="b")
    report = jtree.diff(dst, src)
    assert not report
    assert report.config == {"weight": (1.0, 2.0), "name": ("a", "b")}


def test_a_diff_prints_as_a_table() -> None:
    report = jtree.diff(
        {"w": jnp.ones((2, 3)), "b": jnp.ones(1), "rate": 0.1}, {"w": jnp.ones((3, 2)), "rate": 0.2}
    )
    text = str(report)
    for word in (
        "2 mismatches",
        "missing",
        "shape",
        "(2, 3)",
        "(3, 2)",
        "float32[1]",
        "0.1",
        "0.2",
    ):
        assert word in text
    assert str(jtree.Diff()).strip().startswith("no mismatch")


def test_arrays_are_not_read_where_metadata_decides() -> None:
    array = jnp.ones(4)
    array.delete()
    dst = {"a": jnp.ones((2, 2)), "b": jax.ShapeDtypeStruct((4,), jnp.float32)}
    src = {"a": array, "b": jax.ShapeDtypeStruct((4,), jnp.bfloat16)}
    assert list(jtree.diff(dst, src).shape) == ["a"]
