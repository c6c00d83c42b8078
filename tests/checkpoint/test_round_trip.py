"""Save, load, open and verify checkpoints, through Orbax."""

from __future__ import annotations

import concurrent.futures
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as orbax_v0
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from orbax.checkpoint import v1 as ocp

import jtree
from jtree.checkpoint._orbax import decoding as _decoding
from jtree.checkpoint._orbax.arrays import OrbaxArrays

from ..same import same
from ..zoo import KEY, ZOO, Net, Shared, abstract

ODD = {
    "a.b": np.ones(1),
    "a": {"b": np.zeros(2), "": np.float32(2), "/": np.arange(2), "%": np.ones(3), "%2E": 1.5},
    "empty": np.zeros((0, 3)),
    "four": np.ones(3, jnp.uint4),
    "eight": np.ones(3, jnp.float8_e4m3),
    "wide": np.array([2**40]),
    "complex": 1 + 2j,
    "bytes": b"x\0",
    "scalars": [np.int64(2**40), np.bool_(True), jnp.bfloat16(1.5), np.complex64(1j)],
    "numbers": (1, [2.5, (True, None)], float("inf"), 2**80),
    "\U0001f600 '\"\n": np.arange(2),
    "integer keys": {1: "one", 2: "two"},
    "flags": np.array([True, False]),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(10)[::3],
    "nan": np.array([np.nan, -0.0]),
    "half": np.ones(2, np.float16),
    "\ud800": np.ones(1),
    "texts": ["\ud800\udfff", "\U000103ff"],
    "long": [10**4400, -(2**70)],
    "%uD800": np.zeros(1),
}


@pytest.mark.parametrize("packed", [False, True])
def test_what_orbax_alone_loses_is_kept(tmp_path: Path, packed: bool) -> None:
    jtree.save(tmp_path / "a b\u00e9", ODD, packed=packed)
    assert same(jtree.load(tmp_path / "a b\u00e9"), dict(ODD))
    assert jtree.open(tmp_path / "a b\u00e9").packed == packed


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", sorted(set(ZOO) - {"gradients"}))
def test_each_kind_of_model_comes_back(tmp_path: Path, name: str, packed: bool) -> None:
    model = ZOO[name]()
    jtree.save(tmp_path / "x", model, packed=packed)
    assert same(jtree.load(tmp_path / "x"), jtree.state(model))
    for into in (model, abstract(model)):
        loaded = jtree.load(tmp_path / "x", into)
        assert same(jtree.state(loaded), jtree.state(model))
        assert type(loaded) is type(model)
    assert not jtree.diff(model, tmp_path / "x")
    assert jtree.verify(tmp_path / "x") == {}


@pytest.mark.parametrize("state", [3, {}, np.arange(3), "text", {"a": ()}, {"": np.ones(1)}])
def test_states_with_few_arrays_or_none(tmp_path: Path, state: Any) -> None:
    for packed in (False, True):
        jtree.save(tmp_path / f"{packed}", state, packed=packed)
        assert same(jtree.load(tmp_path / f"{packed}"), state)


KEYS = st.text(max_size=4) | st.sampled_from(
    ["a.b", "a/b", "", " ", ".", "..", "%", "%2F", "\0", "é"]
)
LEAVES = st.sampled_from([np.ones(2), np.zeros((0, 2)), 1.5, None, "x", np.int8(3)])


def plain_paths(state: Any) -> bool:
    try:
        jtree.walk(state)
    except jtree.ModelError:  # two places with one path
        return False
    return True


@settings(max_examples=30, deadline=None)
@given(
    state=st.recursive(
        LEAVES,
        lambda x: st.dictionaries(KEYS, x, max_size=3) | st.lists(x, max_size=3).map(tuple),
        max_leaves=6,
    ).filter(plain_paths),
    packed=st.booleans(),
)
def test_any_keys_in_any_nesting(tmp_path_factory: Any, state: Any, packed: bool) -> None:
    path = tmp_path_factory.mktemp("any")
    jtree.save(path / "x", state, packed=packed)
    assert same(jtree.load(path / "x"), state)
    shutil.rmtree(path)


def test_deep_and_wide_states(tmp_path: Path) -> None:
    deep: Any = np.arange(3)
    for level in range(200):
        deep = {"x": deep} if level % 2 else [deep]
    wide = {str(n): np.full(1, n) for n in range(5000)}
    jtree.save(tmp_path / "deep", deep)
    jtree.save(tmp_path / "wide", wide, packed=True)
    assert same(jtree.load(tmp_path / "deep"), deep)
    assert same(jtree.load(tmp_path / "wide"), wide)


def test_plain_orbax_reads_it_as_an_ordinary_tree(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"layers": [{"w": np.arange(3)}], "rate": 0.1})
    assert ocp.load(tmp_path / "x")["layers"]["0"]["w"].tolist() == [0, 1, 2]
    target = {"layers": {"0": {"w": np.zeros(3, np.int64)}}}
    assert ocp.load(tmp_path / "x", target)["layers"]["0"]["w"].tolist() == [0, 1, 2]


def test_a_model_is_loaded_into_another_kind_with_the_same_names(tmp_path: Path) -> None:
    model = Net(nnx.Rngs(0))
    jtree.save(tmp_path / "x", nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    target = nnx.state(Net(nnx.Rngs(1)), nnx.Param)
    loaded = jtree.load(tmp_path / "x", target)
    assert type(loaded) is type(target)
    assert same(loaded["conv"]["kernel"][...], model.conv.kernel[...])
    linear = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    jtree.save(tmp_path / "y", linear)
    found = jtree.load(tmp_path / "y", {"weight": jnp.zeros((3, 2)), "bias": jnp.zeros(3)})
    assert same(found["weight"], linear.weight)


def test_ties_are_stored_once_and_tied_again(tmp_path: Path) -> None:
    shared = Shared(nnx.Rngs(0))
    jtree.save(tmp_path / "s", shared)
    found = jtree.open(tmp_path / "s")
    assert ("dec/kernel", "enc/kernel") in found.ties
    assert found["dec/kernel"] is found["enc/kernel"]
    assert "enc" not in ocp.metadata(tmp_path / "s").metadata
    state = jtree.load(tmp_path / "s")
    assert state["enc"]["kernel"] is state["dec"]["kernel"]
    assert (again := jtree.load(tmp_path / "s", Shared(nnx.Rngs(1)))).enc is again.dec
    with pytest.raises(jtree.LoadError):
        jtree.load(tmp_path / "s", Net(nnx.Rngs(0)))
    untied = jax.tree.map(np.copy, state)
    untied["enc"]["kernel"] += 1
    jtree.save(tmp_path / "untied", untied)
    with pytest.raises(jtree.LoadError, match="different values at dec/kernel and enc/kernel"):
        jtree.load(tmp_path / "untied", shared)


def test_loading_is_strict_and_names_every_place(tmp_path: Path) -> None:
    src = {"a": np.ones(2), "b": np.ones((12, 3)), "c": np.ones(2), "d": np.array([2**40])}
    jtree.save(tmp_path / "x", src)
    dst = {"a": jnp.ones(3), "b": jnp.ones((16, 3)), "c": jnp.ones(2, int), "d": jnp.ones(1, int)}
    with pytest.raises(jtree.LoadError) as error:
        jtree.load(tmp_path / "x", dst | {"e": None, "f": jnp.ones(1)})
    assert str(error.value) == (
        "nothing was loaded: 5 mismatches\n"
        "  a: expected float32[3], found float64[2]\n"
        "  b: expected float32[16, 3], found float64[12, 3]\n"
        "  c: expected int32[2], found float64[2]; values are not rounded to integers; convert "
        "the source first\n"
        "  d: expected int32[1], found int64[1]; not every integer in it fits\n"
        "  f: expected float32[1], found nothing"
    )
    assert jtree.load(tmp_path / "x")["d"].tolist() == [2**40]
    kept = jtree.load(tmp_path / "x", dst | {"f": jnp.ones(1)}, strict=False)
    assert not any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(kept))
    with pytest.raises(jtree.LoadError, match="the destination is abstract, so it has no values"):
        jtree.load(tmp_path / "x", abstract(dst), strict=False)


def test_none_in_the_model_is_a_mismatch_unless_absence_is_meant(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"a": np.ones(2), "b": np.zeros(1)})
    with pytest.raises(jtree.LoadError, match="an absent parameter"):
        jtree.load(tmp_path / "x", {"a": None, "b": None})
    assert jtree.load(tmp_path / "x", {"a": jnp.zeros(2), "b": None})["b"] is None
    jtree.save(tmp_path / "y", {"a": np.ones(2), "b": None})
    dst = {"a": jnp.zeros(2), "b": jnp.ones(1)}
    with pytest.raises(jtree.LoadError, match='use none="zero"'):
        jtree.load(tmp_path / "y", dst)
    assert jtree.load(tmp_path / "y", dst, none="zero")["b"].tolist() == [0]


def test_optimiser_states(tmp_path: Path) -> None:
    params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
    optimiser = optax.chain(optax.clip(1.0), optax.adamw(1e-3))
    states = optimiser.init(params)
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        _, states = optimiser.update(params, states, params)
    jtree.save(tmp_path / "x", states)
    loaded = jtree.load(tmp_path / "x", jax.eval_shape(optimiser.init, params))
    assert same(loaded, states)


def test_only_what_is_named_is_read(tmp_path: Path) -> None:
    state = {"encoder": {"w": np.ones(2), "rate": 0.1}, "layers": [np.zeros(1), (np.ones(3), 2)]}
    jtree.save(tmp_path / "x", state)
    assert same(jtree.load(tmp_path / "x", where="encoder/**"), {"encoder": state["encoder"]})
    found = jtree.load(tmp_path / "x", where=["layers/1/0"])
    assert same(found, {"layers": [(), (np.ones(3), ())]})
    found = jtree.load(tmp_path / "x", where=lambda path, _: path.endswith("w"))
    assert same(found, {"encoder": {"w": np.ones(2)}})
    model = {"encoder": {"w": jnp.zeros(2)}, "head": jnp.zeros(4)}
    loaded = jtree.load(tmp_path / "x", model, where="encoder/**")
    assert loaded["encoder"]["w"].tolist() == [1, 1]
    assert loaded["head"] is model["head"]
    with pytest.raises(jtree.LoadError, match="encoder/v: expected float32"):
        jtree.load(tmp_path / "x", {"encoder": {"v": jnp.zeros(2)}}, where="encoder/*")
    with pytest.raises(jtree.LoadError, match="head: the destination is abstract"):
        jtree.load(tmp_path / "x", abstract(model), where="encoder/**")
    with pytest.raises(jtree.PathError, match="did you mean 'encoder/\\*\\*'"):
        jtree.load(tmp_path / "x", where="encoder")


def test_damage_elsewhere_does_not_matter_to_what_is_named(tmp_path: Path) -> None:
    arrays = {"a": np.arange(1000.0), "b": np.arange(1000.0) + 7}
    damage(tmp_path / "x", arrays, "b")
    assert jtree.load(tmp_path / "x", where="a")["a"].tolist() == arrays["a"].tolist()
    with pytest.raises(jtree.ChecksumError, match="checksum mismatch in b; use another copy"):
        jtree.load(tmp_path / "x")


def damage(path: Path, arrays: dict[str, Any], name: str) -> None:
    """Save other numbers than those that the checksums are of."""
    jtree.save(path.with_name("right"), arrays)
    metadata = ocp.metadata(path.with_name("right")).custom_metadata
    ocp.save(path, arrays | {name: arrays[name] + 1}, custom_metadata=metadata)


def test_other_numbers_than_those_written_are_refused_by_name(tmp_path: Path) -> None:
    damage(tmp_path / "y", {"a": np.ones(2), "b": np.ones(2)}, "b")
    with pytest.raises(jtree.ChecksumError) as error:
        jtree.load(tmp_path / "y")
    assert str(error.value) == (
        f"{tmp_path / 'y'}: checksum mismatch in b; use another copy of this checkpoint, or pass "
        "verify=False to read it as it is"
    )
    assert jtree.load(tmp_path / "y", verify=False)["b"].tolist() == [2, 2]
    assert list(jtree.verify(tmp_path / "y")) == ["b"]


def test_opening_reads_no_array(tmp_path: Path) -> None:
    model = Net(nnx.Rngs(0))
    jtree.save(tmp_path / "x", model)
    for data in (tmp_path / "x").rglob("d"):
        shutil.rmtree(data)  # where the arrays are
    found = jtree.open(tmp_path / "x")
    assert found["conv/kernel"].shape == (3, 3, 1, 2)
    assert "layers/1/kernel" in found
    assert "12 arrays, 172 elements, 692 bytes" in " ".join(str(found).split())
    assert not jtree.diff(model, tmp_path / "x")
    assert jtree.diff({"a": jnp.ones(1)}, found).missing == ("a",)
    with pytest.raises(jtree.CheckpointError):
        jtree.load(tmp_path / "x")
    assert len(jtree.verify(tmp_path / "x")) == 12


def test_a_path_or_an_opened_checkpoint_stands_for_a_model(tmp_path: Path) -> None:
    state = {"a": np.arange(3.0), "b": np.ones(2, np.int8)}
    jtree.save(tmp_path / "x", state)
    jtree.save(tmp_path / "y", {"a": np.zeros(3, np.float32), "b": np.zeros(2, np.int8)})
    model = {"a": jnp.zeros(3), "b": jnp.zeros(2, jnp.int8)}
    for src in (tmp_path / "x", str(tmp_path / "x"), jtree.open(tmp_path / "x")):
        assert not jtree.diff(model, src)
        loaded = jtree.loadmodel(model, src)
        assert [type(x) for x in loaded.values()] == [type(x) for x in model.values()]
        assert loaded["a"].tolist() == [0, 1, 2]
    both = jtree.loadmodel(tmp_path / "y", tmp_path / "x")
    assert same(both, {"a": np.arange(3, dtype=np.float32), "b": np.ones(2, np.int8)})
    part = jtree.loadmodel(tmp_path / "x", {"a": np.ones(3)}, strict=False)
    assert same(part, {"a": np.ones(3), "b": state["b"]})


def test_a_model_may_be_a_text_and_a_wrong_path_is_none(tmp_path: Path) -> None:
    assert jtree.loadmodel("relu", "relu") == "relu"
    assert not jtree.diff("", "")
    for wrong in (str(tmp_path / "wrong"), ""):
        with pytest.raises(jtree.CheckpointError):
            jtree.diff({"a": jnp.ones(1)}, wrong)


def test_metadata_comes_back_and_is_checked(tmp_path: Path) -> None:
    metadata = {"step": 3, "nested": {"rates": [0.1, None, "\u00e9"]}}
    jtree.save(tmp_path / "x", {"a": 1}, metadata=metadata)
    assert jtree.open(tmp_path / "x").metadata == metadata
    for wrong in ({"a": np.ones(1)}, {1: "a"}, {"a": (1, 2)}, [1]):
        with pytest.raises(
            jtree.ArgumentTypeError,
            match=r"^metadata: expected a dict of JSON values with str keys",
        ):
            jtree.save(tmp_path / "y", {"a": 1}, metadata=wrong)  # type: ignore[arg-type]
    file = tmp_path / "x" / "_CHECKPOINT_METADATA"
    file.write_text(file.read_text().replace('"step": 3', '"step": 4'))
    with pytest.raises(
        jtree.ChecksumError, match="checksum mismatch in the structure of the state"
    ):
        jtree.open(tmp_path / "x")


def test_what_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"a": 1})
    with pytest.raises(OSError, match="already exists; pass overwrite=True to replace it"):
        jtree.save(tmp_path / "x", {"a": 2})
    assert jtree.load(tmp_path / "x") == {"a": 1}
    jtree.save(tmp_path / "x", {"a": 2}, overwrite=True)
    assert jtree.load(tmp_path / "x") == {"a": 2}
    assert [x.name for x in tmp_path.iterdir()] == ["x"]


def test_what_cannot_be_saved_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    for leaf in (jax.ShapeDtypeStruct((1,), np.float32), np.array(["text"]), np.zeros(2, "V3")):
        with pytest.raises(jtree.ModelError, match=r"^a: cannot save "):
            jtree.save(tmp_path / "x", {"a": leaf})
    with pytest.raises(jtree.ModelError, match=r"^a: the key \(1, 2\): cannot save a tuple"):
        jtree.save(tmp_path / "x", {"a": {(1, 2): 3}})
    assert not list(tmp_path.iterdir())


def test_saving_in_the_background(tmp_path: Path) -> None:
    numbers, kept = np.arange(5.0), jnp.arange(5.0)
    saving = jtree.save_async(tmp_path / "x", {"a": numbers, "b": kept})
    numbers += 1
    kept.delete()
    assert isinstance(saving, concurrent.futures.Future)
    assert saving.result() is None
    assert saving.done()
    assert not saving.cancel()
    assert repr(saving) == f"Saving({str(tmp_path / 'x')!r}, done)"
    loaded = jtree.load(tmp_path / "x")
    assert loaded["a"].tolist() == loaded["b"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(jtree.CheckpointError, match="already exists"):
        jtree.save_async(tmp_path / "x", {"a": numbers})


def test_errors_of_the_background_are_raised_by_its_result(tmp_path: Path) -> None:
    saving = jtree.save_async(tmp_path / "x", [np.zeros(1_000_000)] * 4)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").touch()
    with pytest.raises(jtree.CheckpointError, match="x already exists; pass overwrite=True"):
        saving.result()
    assert [x.name for x in tmp_path.iterdir()] == ["x"]
    assert [x.name for x in (tmp_path / "x").iterdir()] == ["mine"]


def test_a_background_save_ends_before_the_process_does(run_python: Any, tmp_path: Path) -> None:
    run_python(f"import jtree, numpy as np; jtree.save_async({str(tmp_path)!r} + '/x', np.ones(9))")
    assert jtree.load(tmp_path / "x").tolist() == [1] * 9


def test_a_donated_array_is_saved_as_it_was(tmp_path: Path) -> None:
    x = jnp.arange(100_000.0)
    saving = jtree.save_async(tmp_path / "x", {"x": x})
    y = jax.jit(lambda x: x * 2, donate_argnums=0)(x)
    saving.result()
    assert float(y[3]) == 6
    assert jtree.load(tmp_path / "x")["x"][3] == 3


def test_plain_checkpoints_of_orbax(tmp_path: Path) -> None:
    with jax.enable_x64(True):
        wide = jnp.array([2**40])
        tree = {
            "a": jnp.ones(2),
            "t": (np.ones(1, np.float16), [wide]),
            "n": 3,
            "s": "x",
            "e": None,
        }
        ocp.save(tmp_path / "v1", tree)
    found = jtree.open(tmp_path / "v1")
    assert found.format == "Orbax v1"
    assert not found.checksums
    assert "without checksums" in str(found)
    loaded = jtree.load(tmp_path / "v1")
    assert same(loaded["t"], [np.ones(1, np.float16), [np.array([2**40])]])
    assert (loaded["n"], loaded["s"], loaded["e"]) == (3, "x", None)
    assert same(jtree.load(tmp_path / "v1", where="a"), {"a": np.ones(2)})
    model = {"a": jnp.zeros(2), "t": (jnp.zeros(1), [np.zeros(1, np.int64)])}
    assert jtree.load(tmp_path / "v1", model)["t"][1][0].tolist() == [2**40]
    assert jtree.verify(tmp_path / "v1") == {}


def test_step_directories_of_version_0(tmp_path: Path) -> None:
    state = {"a": np.arange(3.0), "b": [jnp.ones(2), 3], "flag": True, "wide": np.array([2**40])}
    with orbax_v0.CheckpointManager(tmp_path / "run") as manager:
        manager.save(1, args=orbax_v0.args.PyTreeSave(state))
        items = {"params": orbax_v0.args.StandardSave({"w": np.ones(2)})}
        manager.wait_until_finished()
    with orbax_v0.CheckpointManager(tmp_path / "items") as manager:
        items |= {"data": orbax_v0.args.JsonSave({"seen": [1, 2]})}
        manager.save(7, args=orbax_v0.args.Composite(**items))
        manager.wait_until_finished()
    orbax_v0.PyTreeCheckpointer().save(tmp_path / "tree", {"a": np.arange(3.0)})
    loaded = jtree.load(tmp_path / "run" / "1")
    assert same(loaded["a"], state["a"])
    assert same(loaded["wide"], state["wide"])
    assert loaded["b"][1] == 3
    assert loaded["flag"] is True
    assert jtree.open(tmp_path / "run" / "1").format == "Orbax v0"
    both = jtree.load(tmp_path / "items" / "7")
    assert same(both, {"params": {"w": np.ones(2)}, "data": {"seen": [1, 2]}})
    assert same(jtree.load(tmp_path / "tree"), {"a": np.arange(3.0)})
    orbax_v0.PyTreeCheckpointer().save(tmp_path / "flag", {"a": np.arange(3.0), "b": True})
    assert same(jtree.load(tmp_path / "flag"), {"a": np.arange(3.0), "b": True})
    with pytest.raises(jtree.CheckpointError, match=r"a directory of checkpoints: 1; load one"):
        jtree.load(tmp_path / "run")
    with pytest.raises(jtree.CheckpointError, match="a part of the checkpoint"):
        jtree.load(tmp_path / "run" / "1" / "default")


def test_on_which_devices(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"a": np.ones(2, np.float32), "n": np.array([2**40])})
    device = jax.devices()[0]
    found = jtree.load(tmp_path / "x", where="a", sharding=device)["a"]
    assert isinstance(found, jax.Array)
    assert found.committed
    with pytest.raises(jtree.ArgumentError, match=r"^sharding: n: int64\[1\] would lose precision"):
        jtree.load(tmp_path / "x", sharding=device)
    with jax.enable_x64(True):
        assert jtree.load(tmp_path / "x", sharding=device)["n"].tolist() == [2**40]
    chosen = jtree.load(tmp_path / "x", sharding=lambda path, _: device if path == "a" else None)
    assert [type(x).__name__ for x in chosen.values()] == ["ArrayImpl", "ndarray"]
    with pytest.raises(jtree.ArgumentTypeError, match=r"^sharding: expected a jax.sharding.Sha"):
        jtree.load(tmp_path / "x", sharding="gpu")


def test_a_loaded_array_is_committed_only_where_that_of_the_model_is(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"a": np.ones(2, np.float32)})
    device = jax.devices()[0]
    for value in (jnp.zeros(2), jax.device_put(jnp.zeros(2), device)):
        assert jtree.load(tmp_path / "x", {"a": value})["a"].committed == value.committed


def test_packed_arrays_and_large_ones_beside_them(tmp_path: Path) -> None:
    state = {"large": np.arange(300_000.0), "small": [np.full(3, n, np.int8) for n in range(50)]}
    jtree.save(tmp_path / "x", state, packed=True)
    assert set(ocp.load(tmp_path / "x")) == {"large", "%packed"}
    assert same(jtree.load(tmp_path / "x"), state)
    loaded = jtree.load(tmp_path / "x")
    loaded["small"][0][0] = 99  # no array is a part of another
    assert loaded["small"][1][0] == 1


def test_the_diff_of_two_checkpoints_has_everything_that_differs(tmp_path: Path) -> None:
    a = {"w": np.array([1.0, np.nan]), "n": np.array([2**62]), "x": np.ones(2), "r": 0.1, "k": 1}
    b = {"w": np.array([1.0, np.nan]), "n": np.array([2**62 + 1]), "x": np.ones(3), "r": 0.2}
    jtree.save(tmp_path / "a", a | {"only": np.ones(1), "f": np.ones(2)})
    jtree.save(tmp_path / "b", b | {"k": np.ones(1), "f": np.ones(2, np.float32)})
    diff = jtree.diff(tmp_path / "a", tmp_path / "b")
    assert {x.path: x.kind for x in diff.mismatches} == {
        "only": "missing",
        "x": "shape",
        "k": "kind",
    }
    assert {x.path: x.kind for x in diff.differences} == {
        "only": "missing",
        "x": "shape",
        "k": "kind",
        "r": "config",
        "f": "conversion",
    }
    assert jtree.diff(tmp_path / "a", tmp_path / "b", values=True).values == {
        "n": (1.0, pytest.approx(2**-62))
    }
    same = jtree.diff(tmp_path / "a", tmp_path / "a", values=True)
    assert (bool(same), same.differences) == (False, ())


def test_ties_that_only_one_checkpoint_has_are_a_remark(tmp_path: Path) -> None:
    jtree.save(tmp_path / "tied", Shared(nnx.Rngs(0)))
    state = jtree.load(tmp_path / "tied")
    copies = jax.tree.map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, state)
    jtree.save(tmp_path / "untied", copies)
    diff = jtree.diff(tmp_path / "tied", tmp_path / "untied", values=True)
    assert not diff
    assert {x.kind for x in diff.remarks} == {"ties"}
    assert "dec/kernel: expected tied to enc/kernel, found not tied" in {
        x.text for x in diff.remarks
    }


def test_values_are_compared_in_one_read_of_each_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {str(n): np.full(3, n, np.float32) for n in range(5)}
    jtree.save(tmp_path / "a", state)
    jtree.save(tmp_path / "b", state | {"4": np.zeros(3, np.float32)}, packed=True)
    reads = []
    read = OrbaxArrays.read
    monkeypatch.setattr(
        OrbaxArrays, "read", lambda self, names: reads.append(len(names)) or read(self, names)
    )
    assert list(jtree.diff(tmp_path / "a", tmp_path / "b", values=True).values) == ["4"]
    assert reads == [5, 5]
    reads.clear()
    assert jtree.diff(jax.tree.map(jnp.asarray, state), tmp_path / "b", values=True).values == {
        "4": (4.0, 1.0)
    }
    assert reads == [5]
    assert not jtree.diff(tmp_path / "a", tmp_path / "b")
    assert reads == [5]


def test_an_opened_checkpoint_can_be_saved(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", Shared(nnx.Rngs(0)))
    jtree.save(tmp_path / "y", jtree.open(tmp_path / "x"), packed=True)
    jtree.save(tmp_path / "z", {"inner": jtree.open(tmp_path / "x").tree})
    assert same(jtree.load(tmp_path / "y"), jtree.load(tmp_path / "x"))
    assert jtree.open(tmp_path / "y").ties == jtree.open(tmp_path / "x").ties
    assert same(jtree.load(tmp_path / "z")["inner"], jtree.load(tmp_path / "x"))


def test_a_tied_checkpoint_takes_equal_sources_only(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", Shared(nnx.Rngs(0)))
    kept = jtree.load(tmp_path / "x")
    other = jax.tree.map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, kept)
    assert not jtree.diff(tmp_path / "x", other)
    other["enc"]["kernel"] += 1
    assert jtree.diff(tmp_path / "x", other).ties


def test_an_item_that_orbax_cannot_read_is_left_out(tmp_path: Path) -> None:
    args = orbax_v0.args
    items = {"state": args.StandardSave({"w": jnp.ones(2)}), "rng": args.JaxRandomKeySave(KEY)}
    with orbax_v0.CheckpointManager(tmp_path) as manager:
        manager.save(0, args=args.Composite(**items))
        manager.wait_until_finished()
    assert jtree.load(tmp_path / "0", where="state/**")["state"]["w"].tolist() == [1, 1]


def test_one_array_of_many_that_are_packed(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {f"{n}": np.full(100, n) for n in range(50)}, packed=True)
    found = jtree.load(tmp_path / "x", where="7")["7"]
    assert found.tolist() == [7] * 100
    assert found.base is None  # and the others are not kept with it


def test_a_path_comes_first(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=r"^expected a path as the first argument, found dict; write save"
    ):
        jtree.save({"a": 1}, tmp_path / "x")  # type: ignore[arg-type]
    with pytest.raises(jtree.CheckpointError, match=r"^gs://bucket/x cannot be reached: "):
        jtree.load("gs://bucket/x")


TRAINING = """
    import sys, jax, jax.numpy as jnp, jtree, numpy as np, orbax.checkpoint as ocp
    run = {"w": jnp.zeros(3), "count": np.zeros((), np.int64)}
    options = ocp.CheckpointManagerOptions(max_to_keep=3)
    with ocp.CheckpointManager(sys.argv[1], options=options) as manager:
        if manager.latest_step() is not None:
            run = jtree.load(f"{sys.argv[1]}/{manager.latest_step()}", run)
        while run["count"] < 1000:
            count = np.asarray(run["count"] + 1)
            run = {"w": run["w"] + run["count"].astype(np.float32), "count": count}
            manager.save(int(run["count"]), args=ocp.args.PyTreeSave(jtree.state(run)))
            manager.wait_until_finished()
            print(int(run["count"]), flush=True)
"""


def test_training_goes_on_after_a_kill(tmp_path: Path) -> None:
    """Orbax's manager keeps the last three steps, and the run resumes from the latest."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(TRAINING), str(tmp_path)]
    seen = 0
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            steps = [int(process.stdout.readline()) for _ in range(4)]
            process.kill()
        assert steps[0] in (seen + 1, seen + 2)  # one more may have been complete at the kill
        assert steps == list(range(steps[0], steps[0] + 4))
        seen = steps[-1]
    steps = sorted(int(x.name) for x in tmp_path.iterdir() if x.name.isdigit())
    found = jtree.load(tmp_path / str(steps[-1]))
    assert found["count"] == steps[-1]
    assert found["w"][0] == sum(range(steps[-1]))
    assert len(steps) <= 4


def test_bytes_that_are_one_value_at_all_places_are_decoded() -> None:
    """That is what Orbax gives for a chunk that is gone; its checksum then says so."""
    stored = _decoding.StoredArray(("w",), np.dtype(np.float32), (2, 2), 0, bytes=True, at=8)
    gone = np.broadcast_to(np.uint8(0), 64)
    np.testing.assert_array_equal(stored.decode(gone), np.zeros((2, 2), np.float32))
