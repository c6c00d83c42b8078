"""Files of other libraries: the same numbers, both ways."""

from __future__ import annotations

import io
import json
import logging
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.serialization
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

import jtree
from jtree.checkpoint._formats.safetensors import DTYPES

from ..same import same
from ..zoo import ZOO, Shared

RNG = np.random.default_rng(0)
NUMPY = [np.dtype(code) for code in "?bhiqBHIQefdFD"]
SAFE = [np.dtype(x) for x in DTYPES.values()]
EVERY = [*NUMPY, *(np.dtype(getattr(ml_dtypes, x)) for x in ("bfloat16", "float8_e4m3fn"))]
FLAT = ("safetensors", "npz", "msgpack", "orbax")


def numbers(dtype: Any, shape: tuple[int, ...] = (2, 3)) -> Any:
    """Return an array of any bits that are numbers of a dtype."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = RNG.integers(0, 2 if dtype == np.dtype(bool) else 256, size).astype(np.uint8)
    return data.view(dtype).reshape(shape)


def odd(dtype: Any) -> dict[str, Any]:
    """Return arrays of one dtype that are stored in every way that arrays are."""
    x = numbers(dtype, (4, 6))
    return {
        "plain": x,
        "fortran": np.asfortranarray(x),
        "strided": x[::2, 1::2],
        "reversed": x[::-1],
        "scalar": numbers(dtype, ()),
        "empty": numbers(dtype, (0, 3)),
    }


def bits(x: Any) -> bytes:
    return np.ascontiguousarray(x).tobytes()


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


@pytest.mark.parametrize("dtype", SAFE, ids=str)
def test_safetensors_keep_every_bit(tmp_path: Path, dtype: Any) -> None:
    arrays = odd(dtype)
    jtree.save(tmp_path / "x.safetensors", arrays)
    found = jtree.open(tmp_path / "x.safetensors")
    assert found.format == "safetensors"
    for name, x in arrays.items():
        read = np.asarray(found[name])
        assert (read.shape, read.dtype, bits(read)) == (x.shape, x.dtype, bits(x))
        assert read.flags.owndata or read.base is not None
        read[...] = read  # it may be written to


LIBRARY = [x for x in SAFE if x.kind != "V" and "float8" not in x.name]


@pytest.mark.parametrize("dtype", LIBRARY, ids=str)
def test_the_safetensors_library_agrees(tmp_path: Path, dtype: Any) -> None:
    arrays = odd(dtype)
    jtree.save(tmp_path / "ours", arrays, format="safetensors", metadata={"a": "\u00e9"})
    theirs = safetensors.numpy.load_file(tmp_path / "ours")
    assert {name: bits(x) for name, x in theirs.items()} == {k: bits(x) for k, x in arrays.items()}
    whole = {name: np.ascontiguousarray(x).reshape(x.shape) for name, x in arrays.items()}
    safetensors.numpy.save_file(whole, tmp_path / "theirs", {"a": "\u00e9"})
    found = jtree.open(tmp_path / "theirs")
    assert found.metadata == {"a": "\u00e9"}
    assert {name: bits(x.read()) for name, x in found.items()} == {
        name: bits(x) for name, x in arrays.items()
    }
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_shards_of_safetensors(tmp_path: Path) -> None:
    a, b = {"x.w": np.ones(2)}, {"y.w": np.arange(3), "y.b": np.zeros((0, 2))}
    safetensors.numpy.save_file(a, tmp_path / "model-1.safetensors")
    safetensors.numpy.save_file(b, tmp_path / "model-2.safetensors", {"k": "v"})
    assert same(jtree.load(tmp_path), a | b)
    weights = dict.fromkeys(a, "model-1.safetensors") | dict.fromkeys(b, "model-2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 40}, "weight_map": weights}, indent=1))
    for path in (tmp_path, index):
        found = jtree.open(path)
        assert same(jtree.load(path), a | b)
        assert found.metadata == {"total_size": 40, "k": "v"}
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(jtree.CheckpointError, match="this shard is missing"):
        jtree.open(index)
    for wrong in ("../model-1.safetensors", "/etc/passwd", "a\\b", "", 3, "C:x"):
        index.write_text(json.dumps({"weight_map": weights | {"x.w": wrong}}))
        with pytest.raises(
            jtree.CheckpointError, match=r"x\.w: expected the name of a file beside"
        ):
            jtree.open(index)


@pytest.mark.parametrize("dtype", NUMPY, ids=str)
def test_numpy_agrees(tmp_path: Path, dtype: Any) -> None:
    arrays = odd(dtype)
    jtree.save(tmp_path / "x.npz", arrays)
    with np.load(tmp_path / "x.npz") as theirs:
        assert same({name: theirs[name] for name in theirs}, arrays)
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "y.npz", **arrays)  # type: ignore[operator]
        found = jtree.open(tmp_path / "y.npz")
        assert found.checksums
        assert same(jtree.load(tmp_path / "y.npz"), arrays)
    for name, x in arrays.items():
        jtree.save(tmp_path / f"{name}.npy", x)
        assert same(np.load(tmp_path / f"{name}.npy"), x)
        np.save(tmp_path / f"{name}.npy", x)
        assert same(jtree.load(tmp_path / f"{name}.npy"), x)
        swapped = x.astype(x.dtype.newbyteorder(">"))
        np.save(tmp_path / "swapped.npy", swapped)
        assert jtree.open(tmp_path / "swapped.npy")[""].dtype.isnative
        assert bits(jtree.load(tmp_path / "swapped.npy")) == bits(x)


@pytest.mark.parametrize("dtype", EVERY, ids=str)
def test_flax_agrees(tmp_path: Path, dtype: Any) -> None:
    arrays = odd(dtype)
    state = {"layers": [arrays, {"w": jnp.ones(2)}], "n": {"i": -(2**40), "s": "text", "e": None}}
    more = {"f": 0.1, "c": 1 - 2j, "b": b"\0\1", "t": True, "g": arrays["scalar"][()], "u": 2**63}
    state["more"] = more | {str(n): n for n in (0, 127, 128, -1, -33, 70_000)}
    (tmp_path / "theirs").write_bytes(flax.serialization.to_bytes(state))
    jtree.save(tmp_path / "ours", state, format="msgpack")
    template = jax.tree.map(lambda x: x, state)
    theirs = flax.serialization.from_bytes(template, (tmp_path / "ours").read_bytes())
    expected = flax.serialization.to_state_dict(state)
    found = jtree.load(tmp_path / "theirs")
    assert jtree.open(tmp_path / "ours").format == "msgpack"
    for tree in (found, jtree.load(tmp_path / "ours"), flax.serialization.to_state_dict(theirs)):
        assert jax.tree.structure(tree) == jax.tree.structure(expected)
        for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
            assert bits(x) == bits(y) if hasattr(y, "dtype") else x == y


def test_flax_writes_large_arrays_in_parts(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 64)
    monkeypatch.setattr("jtree.checkpoint._formats.msgpack.CHUNK_BYTES", 64)
    tree = {"w": np.arange(100.0).reshape(4, 25), "small": np.ones(2)}
    (tmp_path / "theirs").write_bytes(flax.serialization.msgpack_serialize(tree))
    jtree.save(tmp_path / "ours", tree, format="msgpack")
    assert same(jtree.load(tmp_path / "theirs"), tree)
    assert same(jtree.load(tmp_path / "ours"), tree)
    restored = flax.serialization.msgpack_restore((tmp_path / "ours").read_bytes())
    assert same(restored, tree)


def test_equinox_files_are_read_in_the_order_of_a_model(tmp_path: Path, caplog: Any) -> None:
    key = jax.random.key(0)
    model = eqx.nn.Sequential([eqx.nn.Linear(2, 3, key=key), eqx.nn.Dropout(0.5)])
    model = (jtree.bf16(model), {"n": np.arange(3), "steps": 7})
    eqx.tree_serialise_leaves(tmp_path / "x.eqx", model)
    found = jtree.open(tmp_path / "x.eqx")
    assert (found.format, next(iter(found))) == ("Equinox", "leaf/0")
    other = jax.tree.map(lambda x: x * 0 if eqx.is_array(x) else x, model)
    with caplog.at_level(logging.INFO):
        loaded = jtree.load(tmp_path / "x.eqx", other)
    assert "4 arrays" not in caplog.text
    assert "has no names" in caplog.text
    expected = eqx.tree_deserialise_leaves(tmp_path / "x.eqx", other)
    assert same(jtree.state(loaded), jtree.state(expected))
    with pytest.raises(jtree.CheckpointError, match="expected 1 arrays, one for each leaf"):
        jtree.load(tmp_path / "x.eqx", {"a": jnp.ones(2)})


def test_one_array_of_equinox_is_a_file_of_numpy(tmp_path: Path) -> None:
    model = eqx.nn.Linear(2, 3, use_bias=False, key=jax.random.key(0))
    eqx.tree_serialise_leaves(tmp_path / "x.eqx", model)
    assert same(jtree.state(jtree.load(tmp_path / "x.eqx", model)), jtree.state(model))


def test_hdf5_of_keras(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    arrays = {"layers/dense/vars/0": numbers("f4"), "layers/dense/vars/1": numbers("<i8")}
    arrays |= {"big": numbers("f8").astype(">f8"), "packed": np.arange(1000), "s": np.float32(2)}
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        for name, x in arrays.items():
            file.create_dataset(
                name, data=x, **({"compression": "gzip"} if name == "packed" else {})
            )
        file["names"] = [b"a", b"b"]
        file["text"] = "words"
        file.create_group("optimizer/empty")
        half = file.create_dataset("half", data=numbers("bfloat16", (3,)).view("V2"))
        half.attrs["dtype"] = "bfloat16"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential"})
        file.attrs["backend"] = "jax"
    found = jtree.open(tmp_path / "x.weights.h5")
    assert found.format == "Keras"
    assert found.metadata == {"model_config": {"class_name": "Sequential"}, "backend": "jax"}
    assert set(found) == {*arrays, "half"}
    for name, x in arrays.items():
        assert bits(found[name].read()) == bits(
            np.asarray(x, np.asarray(x).dtype.newbyteorder("="))
        )
    assert found["half"].dtype == jnp.bfloat16
    found["half"].read()
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.8"}))
        archive.writestr("config.json", json.dumps({"module": "os", "class_name": "system"}))
        archive.write(tmp_path / "x.weights.h5", "model.weights.h5")
    again = jtree.open(tmp_path / "x.keras")
    assert again.metadata["config"] == {"module": "os", "class_name": "system"}
    assert {k: bits(x.read()) for k, x in again.items()} == {
        k: bits(x.read()) for k, x in found.items()
    }


def test_without_h5py_the_error_names_the_extra(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "x").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(jtree.CheckpointError) as error:
        jtree.open(tmp_path / "x")
    assert str(error.value) == (
        f'{tmp_path / "x"}: HDF5 files are read with h5py; run: pip install "jtree[keras]"'
    )


def arrays(model: Any) -> list[Any]:
    return [slot.value for slot in jtree.walk(model).slots if hasattr(slot.value, "dtype")]


@pytest.mark.parametrize("format", ["safetensors", "msgpack"])
@pytest.mark.parametrize("name", sorted(set(ZOO) - {"gradients"}))
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


def test_what_is_tied_is_at_each_of_its_places(tmp_path: Path) -> None:
    model = Shared(nnx.Rngs(0))
    jtree.save(tmp_path / "x.safetensors", model)
    with safetensors.safe_open(tmp_path / "x.safetensors", "np") as theirs:
        assert {"enc/kernel", "dec/kernel"} <= set(theirs.keys())
    loaded = jtree.load(tmp_path / "x.safetensors", Shared(nnx.Rngs(1)))
    assert loaded.enc is loaded.dec
    assert same(jtree.state(loaded), jtree.state(model))


def test_what_is_left_out_is_said(tmp_path: Path, caplog: Any) -> None:
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
        "format: expected one of 'orbax', 'safetensors', 'npz', 'npy', 'msgpack', found 'zip'",
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
def test_what_a_format_cannot_hold_is_refused_by_path(tmp_path: Path, name: str) -> None:
    write, error, text = REFUSED[name]
    with pytest.raises(error) as found:
        write(tmp_path)
    assert str(found.value) == text
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
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


def test_a_file_that_was_changed_since_is_not_read(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x.npz", {"a": np.ones(3)})
    found = jtree.open(tmp_path / "x.npz")
    jtree.save(tmp_path / "x.npz", {"a": np.ones(4), "b": np.ones(1)}, overwrite=True)
    with pytest.raises(jtree.CheckpointError, match="has changed since it was opened"):
        found["a"].read()


def test_names_decide_nothing(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x.npz", {"a": np.ones(1)}, format="safetensors")
    assert jtree.open(tmp_path / "x.npz").format == "safetensors"
    assert jtree.open(str(tmp_path / "x.npz")).path == str(tmp_path / "x.npz")
    held = io.BytesIO()
    np.savez(held)
    (tmp_path / "empty").write_bytes(held.getvalue())
    assert dict(jtree.open(tmp_path / "empty")) == {}


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


def test_what_is_tied_in_a_file_is_tied_in_orbax(tmp_path: Path) -> None:
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
