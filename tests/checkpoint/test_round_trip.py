"""What is saved comes back as it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from orbax.checkpoint import v1 as ocp

import jtree
from jtree.checkpoint._orbax import decoding as _decoding

from ..same import same
from ..zoo import ZOO, Net, Shared, abstract

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
@pytest.mark.parametrize("name", sorted(set(ZOO) - {"gradients", "no_pytree"}))
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


def test_optimiser_states(tmp_path: Path) -> None:
    params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
    optimiser = optax.chain(optax.clip(1.0), optax.adamw(1e-3))
    states = optimiser.init(params)
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        _, states = optimiser.update(params, states, params)
    jtree.save(tmp_path / "x", states)
    loaded = jtree.load(tmp_path / "x", jax.eval_shape(optimiser.init, params))
    assert same(loaded, states)


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


def test_an_opened_checkpoint_can_be_saved(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", Shared(nnx.Rngs(0)))
    jtree.save(tmp_path / "y", jtree.open(tmp_path / "x"), packed=True)
    jtree.save(tmp_path / "z", {"inner": jtree.open(tmp_path / "x").tree})
    assert same(jtree.load(tmp_path / "y"), jtree.load(tmp_path / "x"))
    assert jtree.open(tmp_path / "y").ties == jtree.open(tmp_path / "x").ties
    assert same(jtree.load(tmp_path / "z")["inner"], jtree.load(tmp_path / "x"))


def test_packed_arrays_and_large_ones_beside_them(tmp_path: Path) -> None:
    state = {"large": np.arange(300_000.0), "small": [np.full(3, n, np.int8) for n in range(50)]}
    jtree.save(tmp_path / "x", state, packed=True)
    assert set(ocp.load(tmp_path / "x")) == {"large", "%packed"}
    assert same(jtree.load(tmp_path / "x"), state)
    loaded = jtree.load(tmp_path / "x")
    loaded["small"][0][0] = 99  # no array is a part of another
    assert loaded["small"][1][0] == 1


def test_one_array_of_many_that_are_packed(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {f"{n}": np.full(100, n) for n in range(50)}, packed=True)
    found = jtree.load(tmp_path / "x", where="7")["7"]
    assert found.tolist() == [7] * 100
    assert found.base is None  # and the others are not kept with it


def test_repeated_bytes_are_decoded() -> None:
    """That is what Orbax gives for a chunk that is gone; its checksum then says so."""
    stored = _decoding.StoredArray(("w",), np.dtype(np.float32), (2, 2), 0, bytes=True, at=8)
    gone = np.broadcast_to(np.uint8(0), 64)
    np.testing.assert_array_equal(stored.decode(gone), np.zeros((2, 2), np.float32))
