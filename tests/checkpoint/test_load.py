"""Loading into a model: strictness, selected paths, shardings, ties."""

from __future__ import annotations

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree

from ..same import same
from ..zoo import Net, Shared, abstract


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


def test_loading_is_strict_and_names_every_path(tmp_path: Path) -> None:
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
    dst |= {"a": jnp.zeros(2)}
    loaded = jtree.load(tmp_path / "x", dst, strict=False)
    assert same(loaded, dst | {"a": jnp.ones(2)})
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


def test_only_selected_paths_are_read(tmp_path: Path) -> None:
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


def test_text_may_be_a_model_and_a_wrong_path_is_an_error(tmp_path: Path) -> None:
    assert jtree.loadmodel("relu", "relu") == "relu"
    assert not jtree.diff("", "")
    for wrong in (str(tmp_path / "wrong"), ""):
        with pytest.raises(jtree.CheckpointError):
            jtree.diff({"a": jnp.ones(1)}, wrong)


def test_sharding_selects_the_device(tmp_path: Path) -> None:
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


def test_a_tied_checkpoint_takes_equal_sources_only(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", Shared(nnx.Rngs(0)))
    kept = jtree.load(tmp_path / "x")
    other = jax.tree.map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, kept)
    assert not jtree.diff(tmp_path / "x", other)
    other["enc"]["kernel"] += 1
    assert jtree.diff(tmp_path / "x", other).ties


def test_a_path_comes_first(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=r"^expected a path as the first argument, found dict; write save"
    ):
        jtree.save({"a": 1}, tmp_path / "x")  # type: ignore[arg-type]
    with pytest.raises(jtree.CheckpointError, match=r"^gs://bucket/x cannot be reached: "):
        jtree.load("gs://bucket/x")
