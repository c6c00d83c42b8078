"""Saving as a file: formats by suffix, what each holds, what is refused."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

import jtree

from ..same import same
from ..zoo import ZOO, Shared
from .files import RNG

FLAT = ("safetensors", "npz", "msgpack", "orbax")


@pytest.mark.parametrize("name", ["x", "run.v1", "step.1000", "model.zip", "npz"])
def test_a_path_without_a_known_suffix_is_an_orbax_directory(tmp_path: Path, name: str) -> None:
    jtree.save(tmp_path / name, {"a": np.ones(2), "n": 3})
    assert jtree.open(tmp_path / name).format == "jtree"
    assert jtree.load(tmp_path / name)["n"] == 3


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz", "x.npy", "x.msgpack", "X.NPZ"])
def test_the_suffix_of_a_path_selects_the_format(tmp_path: Path, name: str) -> None:
    jtree.save(tmp_path / name, {"a": np.ones(2)})
    assert jtree.open(tmp_path / name).format == name.lower().rpartition(".")[2]


READ_ONLY = {
    "PyTorch": ("x.pt", "x.pth", "x.bin", "x.ckpt", "x.PT"),
    "HDF5": ("x.h5", "x.weights.h5", "x.hdf5"),
    "Keras": ("x.keras",),
    "Equinox": ("x.eqx",),
    "shard index": ("model.safetensors.index.json",),
}


@pytest.mark.parametrize("library", READ_ONLY)
def test_the_suffix_of_a_format_that_cannot_be_written_is_an_error(
    tmp_path: Path, library: str
) -> None:
    for name in READ_ONLY[library]:
        for save in (jtree.save, jtree.save_async):
            with pytest.raises(jtree.ArgumentError) as error:
                save(tmp_path / name, {"a": np.ones(2)})
            assert str(error.value) == (
                f"{tmp_path / name}: {library} files can be read but not written; save to a path "
                "that ends in .safetensors, or pass format='orbax' for a directory of this name"
            )
        assert not list(tmp_path.iterdir())
        jtree.save(tmp_path / name, {"a": np.ones(2)}, format="orbax")
        assert jtree.open(tmp_path / name).format == "jtree"
        shutil.rmtree(tmp_path / name)


def test_packed_is_for_orbax_only(tmp_path: Path) -> None:
    with pytest.raises(jtree.ArgumentError) as error:
        jtree.save(tmp_path / "x.npz", {"a": np.ones(2)}, packed=True)
    assert str(error.value) == (
        f"packed=True is for Orbax directories, and {tmp_path / 'x.npz'} is saved as npz; leave it "
        "out, or pass format='orbax'"
    )


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz", "x.msgpack"])
def test_a_file_is_saved_in_the_background_with_the_values_of_now(
    tmp_path: Path, name: str
) -> None:
    host, device = np.arange(5.0), jnp.arange(5.0)
    saving = jtree.save_async(tmp_path / name, {"a": host, "b": device})
    host += 1
    device.delete()
    assert saving.result(timeout=60) is None
    loaded = jtree.load(tmp_path / name)
    assert loaded["a"].tolist() == loaded["b"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(jtree.ModelError, match=r"key: .* cannot hold key"):
        jtree.save_async(tmp_path / f"y{name}", {"key": jax.random.key(0)})


def test_a_path_in_place_of_a_tree_is_opened_and_other_text_is_a_leaf(tmp_path: Path) -> None:
    jtree.save(tmp_path / "a.npz", {"w": np.ones(2)})
    for tree in (tmp_path / "a.npz", str(tmp_path / "a.npz"), jtree.open(tmp_path / "a.npz")):
        jtree.save(tmp_path / "b", tree, overwrite=True)
        assert same(jtree.load(tmp_path / "b"), {"w": np.ones(2)})
    jtree.save(tmp_path / "c", "relu")
    assert jtree.load(tmp_path / "c") == "relu"
    with pytest.raises(jtree.CheckpointError, match="no such file or directory"):
        jtree.save(tmp_path / "d", tmp_path / "nothing")


def arrays(model: Any) -> list[Any]:
    return [slot.value for slot in jtree.walk(model).slots if hasattr(slot.value, "dtype")]


@pytest.mark.parametrize("format", ["safetensors", "msgpack"])
@pytest.mark.parametrize("name", sorted(set(ZOO) - {"gradients", "no_pytree"}))
def test_models_go_into_flat_files_and_back(tmp_path: Path, name: str, format: Any) -> None:
    model = ZOO[name]()
    if any(jnp.issubdtype(x.dtype, jax.dtypes.extended) for x in arrays(model)):
        with pytest.raises(jtree.ModelError, match=r"save jax\.random\.key_data of it"):
            jtree.save(tmp_path / "x", model, format=format)
        return
    if format == "safetensors" and hasattr(model, "dtype"):
        model = {"w": model}
    jtree.save(tmp_path / "x", model, format=format)
    assert not jtree.diff(model, tmp_path / "x")
    loaded = jtree.load(tmp_path / "x", model)
    assert same(jtree.state(loaded), jtree.state(model))


@pytest.mark.parametrize("into", FLAT)
@pytest.mark.parametrize("source", FLAT)
def test_from_any_format_to_any_other(tmp_path: Path, source: Any, into: Any) -> None:
    arrays = {"w": RNG.normal(size=(3, 4)).astype(np.float32), "n": np.arange(5), "s": np.array(2)}
    jtree.save(tmp_path / "a", arrays, format=source)
    jtree.save(tmp_path / "b", tmp_path / "a", format=into)
    jtree.save(tmp_path / "c", jtree.open(tmp_path / "a"), format=into)
    for name in "bc":
        assert same(jtree.load(tmp_path / name), arrays)
        assert not jtree.diff(tmp_path / "a", tmp_path / name, values=True)
        assert jtree.verify(tmp_path / name) == {}


def test_every_command_of_checkpoints_takes_every_format(tmp_path: Path) -> None:
    arrays = {"a/w": np.ones((2, 3)), "b": np.array([1.0, np.nan])}
    jtree.save(tmp_path / "x.npz", arrays)
    found = jtree.open(tmp_path / "x.npz")
    assert "npz, with checksums" in str(found)
    assert jtree.checkpoint.stats(tmp_path / "x.npz")["b"].nan == 1
    assert same(jtree.load(tmp_path / "x.npz", where="a/*"), {"a/w": arrays["a/w"]})
    model = {"a": {"w": jnp.zeros((2, 3))}, "b": jnp.zeros(2)}
    assert jtree.loadmodel(model, found)["a"]["w"].tolist() == [[1] * 3] * 2
    device = jax.devices()[0]
    with jax.enable_x64(True):
        placed = jtree.load(tmp_path / "x.npz", sharding=device)
    assert isinstance(placed["b"], jax.Array)


def test_tied_arrays_are_at_each_of_their_paths(tmp_path: Path) -> None:
    model = Shared(nnx.Rngs(0))
    jtree.save(tmp_path / "x.safetensors", model)
    with safetensors.safe_open(tmp_path / "x.safetensors", "np") as theirs:
        assert {"enc/kernel", "dec/kernel"} <= set(theirs.keys())
    loaded = jtree.load(tmp_path / "x.safetensors", Shared(nnx.Rngs(1)))
    assert loaded.enc is loaded.dec
    assert same(jtree.state(loaded), jtree.state(model))


def test_leaves_that_are_left_out_are_logged(tmp_path: Path, caplog: Any) -> None:
    jtree.save(tmp_path / "model.npz", nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    assert not caplog.text
    jtree.save(tmp_path / "x.npz", {"w": np.ones(2), "epoch": 3, "flag": True, "none": None})
    assert "npz files hold arrays only; left out: epoch; keep them with metadata=" in caplog.text


REFUSED: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "a dtype": (
        lambda p: jtree.save(p / "x.npz", {"a": {"w": jnp.ones(2, jnp.bfloat16)}}),
        jtree.ModelError,
        "a/w: npz cannot hold bfloat16[2]; cast it, or use format='safetensors' or 'orbax'",
    ),
    "complex128": (
        lambda p: jtree.save(p / "x.safetensors", {"w": np.ones(2, complex)}),
        jtree.ModelError,
        "w: safetensors cannot hold complex128[2]; cast it, or use format='orbax'",
    ),
    "a key": (
        lambda p: jtree.save(p / "x.safetensors", {"key": jax.random.key(0)}),
        jtree.ModelError,
        "key: safetensors cannot hold key<fry>[]; save jax.random.key_data of it, or use "
        "format='orbax'",
    ),
    "text": (
        lambda p: jtree.save(p / "x.msgpack", {"a": np.array(["x"], object)}),
        jtree.ModelError,
        "a: msgpack cannot hold object[1]; cast it, or use format='safetensors' or 'orbax'",
    ),
    "no numbers": (
        lambda p: jtree.save(p / "x.npz", {"a": jax.ShapeDtypeStruct((2,), jnp.float32)}),
        jtree.ModelError,
        "a: cannot save float32[2]: it is abstract; save a model with values",
    ),
    "no name": (
        lambda p: jtree.save(p / "x.safetensors", np.ones(2)),
        jtree.ModelError,
        "(root): safetensors needs another name; rename it, or put it in a dict",
    ),
    "two arrays": (
        lambda p: jtree.save(p / "x.npy", {"a": np.ones(1), "b": np.ones(1)}),
        jtree.ModelError,
        "npy holds one array, found 2; use format='npz'",
    ),
    "a name": (
        lambda p: jtree.save(p / "x.npz", {"b": {"..": {"c": np.ones(1)}}}),
        jtree.ModelError,
        "b/../c: 'b/../c.npy' may lead out of the archive, so it cannot name an entry; rename it",
    ),
    "a format": (
        lambda p: jtree.save(p / "x", {}, format="zip"),  # type: ignore[arg-type]
        jtree.ArgumentError,
        "format: expected one of 'orbax', 'safetensors', 'npz', 'npy', 'msgpack', "
        "'flux-state', found 'zip'",
    ),
    "metadata": (
        lambda p: jtree.save(p / "x.npz", {}, metadata={"a": "b"}),
        jtree.ArgumentError,
        "metadata: npz files do not hold any; use format='safetensors' or 'orbax'",
    ),
    "numbers in metadata": (
        lambda p: jtree.save(p / "x.safetensors", {}, metadata={"step": 3}),
        jtree.ArgumentTypeError,
        "safetensors metadata maps str to str; found int for 'step'; use str(...) or "
        "json.dumps(...)",
    ),
    "a large integer": (
        lambda p: jtree.save(p / "x.msgpack", {"n": 2**64}),
        jtree.ModelError,
        "n: msgpack holds integers of 64 bits, found 18446744073709551616; use format='orbax'",
    ),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_leaves_that_a_format_cannot_hold_are_refused_by_path(tmp_path: Path, name: str) -> None:
    write, error, text = REFUSED[name]
    with pytest.raises(error) as found:
        write(tmp_path)
    assert str(found.value) == text
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    jtree.save(path, {"a": np.ones(1)})
    with pytest.raises(jtree.CheckpointError, match="already exists; pass overwrite=True"):
        jtree.save(path, {"a": np.zeros(1)})
    with pytest.raises(jtree.ModelError):
        jtree.save(path, {"a": jnp.ones(1, jnp.bfloat16)}, overwrite=True)
    assert jtree.load(path)["a"].tolist() == [1]
    jtree.save(path, {"a": np.zeros(1)}, overwrite=True)
    assert jtree.load(path)["a"].tolist() == [0]
    (tmp_path / "d.npz").mkdir()
    with pytest.raises(jtree.CheckpointError, match="is a directory; refusing to replace it"):
        jtree.save(tmp_path / "d.npz", {"a": np.ones(1)}, overwrite=True)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["d.npz", "x.npz"]


@pytest.mark.parametrize("into", FLAT)
@pytest.mark.parametrize("source", ["safetensors", "npz", "msgpack"])
def test_one_array_is_in_memory_at_a_time(tmp_path: Path, source: Any, into: Any) -> None:
    size = 2**22
    jtree.save(tmp_path / "a", {str(n): np.full(size, n, "i1") for n in range(8)}, format=source)
    tracemalloc.start()
    try:
        jtree.save(tmp_path / "b", tmp_path / "a", format=into)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    together = 2**24 if into == "orbax" else size  # of 2**25
    assert peak < 1.3 * together + 2**20
    assert jtree.load(tmp_path / "b", where="7")["7"][-1] == 7


def test_ties_of_a_file_are_ties_in_orbax(tmp_path: Path) -> None:
    shared = Shared(nnx.Rngs(0))
    jtree.save(tmp_path / "a", shared, metadata={"step": 1})
    for source in (tmp_path / "a", jtree.open(tmp_path / "a")):
        jtree.save(tmp_path / "b", source, format="orbax", overwrite=True)
        assert jtree.diff(tmp_path / "a", tmp_path / "b", values=True).differences == ()
        assert jtree.open(tmp_path / "b").ties == jtree.open(tmp_path / "a").ties != ()
    jtree.save(tmp_path / "b", tmp_path / "b", overwrite=True)  # onto itself
    assert jtree.diff(tmp_path / "a", tmp_path / "b", values=True).differences == ()
    assert sorted(x.name for x in tmp_path.iterdir()) == ["a", "b"]


def test_every_leaf_of_a_checkpoint_comes_through_a_file(tmp_path: Path) -> None:
    tree = {
        "key": jax.random.key(1),
        "eight": jnp.ones((2, 3), jnp.float8_e4m3fn),
        "four": jnp.ones((3,), jnp.int4),
        "empty": np.zeros((0, 3)),
        "wide": np.array([2**40]),
        "list": [np.ones(2, ">f4"), (1, None, "x", 0.5)],
    }
    jtree.save(tmp_path / "a", tree)
    mixed = {**jtree.open(tmp_path / "a").tree, "more": np.arange(3)}
    jtree.save(tmp_path / "b", mixed, format="orbax")
    jtree.save_async(tmp_path / "c", jtree.open(tmp_path / "a")).result()
    found = jtree.load(tmp_path / "a")
    assert same(jtree.load(tmp_path / "b"), {**found, "more": np.arange(3)})
    assert same(jtree.load(tmp_path / "c"), found)
    assert jtree.checkpoint.verify(tmp_path / "b") == {}
