"""Orbax alone reads what jtree writes, and the other way round."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as orbax_v0
import pytest
from flax import serialization
from orbax.checkpoint import v1 as ocp

import jtree
from jtree.checkpoint._orbax import decoding as _decoding

from ..same import same
from ..zoo import KEY


def test_plain_orbax_reads_it_as_an_ordinary_tree(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"layers": [{"w": np.arange(3)}], "rate": 0.1})
    assert ocp.load(tmp_path / "x")["layers"]["0"]["w"].tolist() == [0, 1, 2]
    target = {"layers": {"0": {"w": np.zeros(3, np.int64)}}}
    assert ocp.load(tmp_path / "x", target)["layers"]["0"]["w"].tolist() == [0, 1, 2]


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


def test_an_item_that_orbax_cannot_read_is_left_out(tmp_path: Path) -> None:
    args = orbax_v0.args
    items = {"state": args.StandardSave({"w": jnp.ones(2)}), "rng": args.JaxRandomKeySave(KEY)}
    with orbax_v0.CheckpointManager(tmp_path) as manager:
        manager.save(0, args=args.Composite(**items))
        manager.wait_until_finished()
    assert jtree.load(tmp_path / "0", where="state/**")["state"]["w"].tolist() == [1, 1]


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"a": np.ones(1)})
    metadata = ocp.metadata(tmp_path / "x").custom_metadata
    metadata["jtree"]["format"] = 99
    ocp.save(tmp_path / "y", {"a": np.ones(1)}, custom_metadata=metadata)
    with pytest.raises(jtree.CheckpointError) as error:
        jtree.load(tmp_path / "y")
    assert str(error.value) == (
        f"{tmp_path / 'y'}: expected jtree's checkpoint format 3, found 99; use the version of "
        "jtree that wrote it"
    )


def structure(text: str) -> Any:

    found = {"format": _decoding.FORMAT, "structure": text, "metadata": {}}
    return found | {"crc32": _decoding.structure_crc32(found)}


DTYPE = '{"tree":{"array":["a"],"dtype":",f8","shape":[2],"crc32":0},"ties":[]}'


@pytest.mark.parametrize("text", ["[" * 100_000, '{"tree":{"scalar":["i4",""]},"ties":[]}', DTYPE])
def test_malformed_structures_are_refused(text: str) -> None:

    with pytest.raises(jtree.CheckpointError, match="malformed structure of the state"):
        _decoding.decode(structure(text), lambda stored: stored)


def test_directories_of_flax_and_of_early_versions_of_orbax_say_what_to_do(tmp_path: Path) -> None:
    for name in ("checkpoint_9", "checkpoint_10"):
        data = serialization.msgpack_serialize({"w": np.ones(2)})
        (tmp_path / name).write_bytes(data)
    with pytest.raises(jtree.CheckpointError) as error:
        jtree.load(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: a directory of checkpoints: checkpoint_9, checkpoint_10; load one of them, "
        f"{tmp_path / 'checkpoint_10'}"
    )
    assert jtree.load(tmp_path / "checkpoint_10")["w"].tolist() == [1, 1]
    early = tmp_path / "early"
    early.mkdir()
    (early / "checkpoint").write_bytes(data)
    with pytest.raises(jtree.CheckpointError) as error:
        jtree.load(early)
    assert str(error.value) == (
        f"{early}: an Orbax checkpoint without _CHECKPOINT_METADATA, as early versions wrote: "
        f"restore it with orbax.checkpoint.PyTreeCheckpointer().restore({str(early)!r}), and save "
        "the result with jtree.save"
    )


@pytest.mark.parametrize("name", ["_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "d"])
@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"x" * 99, None])
def test_a_damaged_checkpoint_of_orbax_alone_is_one_error(
    tmp_path: Path, name: str, data: bytes | None
) -> None:
    orbax_v0.PyTreeCheckpointer().save(tmp_path / "x", {"w": np.ones(2), "b": {"c": np.arange(3)}})
    path = tmp_path / "x" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if data is not None:
        path.write_bytes(data)
    state = None
    with contextlib.suppress(jtree.CheckpointError):
        state = jtree.load(tmp_path / "x")
    assert state is None or (name, state["w"].tolist()) == ("_CHECKPOINT_METADATA", [1, 1])


@pytest.mark.parametrize("shape", [[2**40], [2**27], [-1], "x", None])
def test_a_shape_that_no_machine_can_hold_is_refused(tmp_path: Path, shape: Any) -> None:
    """TensorStore would end the process."""
    context = ocp.Context()
    context.array_options.saving.storage_options.chunk_byte_size = None
    context.array_options.saving.use_ocdbt = False
    with context:
        ocp.save(tmp_path / "x", {"w": np.ones(3)})
    (file,) = (tmp_path / "x").rglob("zarr.json")
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"shape": shape}))
    with pytest.raises(jtree.CheckpointError) as error:
        jtree.load(tmp_path / "x")
    if shape == [2**40]:
        expected = "its arrays would take 1,099,511,627,776 bytes, and this machine has "
        assert expected in str(error.value)


def test_arrays_that_the_machine_cannot_hold_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jtree.save(tmp_path / "x", {"w": np.ones(3), "v": np.ones(1)})
    orbax_v0.PyTreeCheckpointer().save(tmp_path / "y", {"w": np.ones(3), "v": np.ones(1)})
    monkeypatch.setattr("jtree.checkpoint._storage.memory.total_memory", lambda: 24.0)
    for name in "xy":
        with pytest.raises(jtree.CheckpointError) as error:
            jtree.load(tmp_path / name)
        assert str(error.value) == (
            f"{tmp_path / name}: its arrays would take 32 bytes, and this machine has 24; read "
            "some of them with where=, or use another copy of this checkpoint"
        )
        assert jtree.load(tmp_path / name, where="v")["v"].tolist() == [1]
