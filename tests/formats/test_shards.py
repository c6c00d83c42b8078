"""Sharded checkpoints of safetensors and PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import jtree

from ..same import same
from .files import tensor_bytes


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


torch = pytest.importorskip("torch")


A, B = (f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2))


SHARED = torch.arange(6.0).reshape(2, 3)


SHARDS = {
    A: {"emb.weight": SHARED, "head.weight": SHARED},
    B: {"fc.weight": torch.ones(3, dtype=torch.bfloat16), "fc.bias": torch.zeros(0, 2)},
}


WEIGHTS = {name: file for file, shard in SHARDS.items() for name in shard}


def write_index(directory: Path, weights: Any = WEIGHTS) -> Path:
    path = directory / "pytorch_model.bin.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 30}, "weight_map": weights}))
    return path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    for file, shard in SHARDS.items():
        torch.save(shard, tmp_path / file)
    (tmp_path / "training_args.bin").write_bytes(b"\x80\4.")  # of another program
    return tmp_path


@pytest.mark.parametrize("indexed", [True, False])
def test_shards_are_one_checkpoint(sharded: Path, indexed: bool) -> None:
    paths = [sharded, write_index(sharded)] if indexed else [sharded]
    for path in paths:
        found = jtree.open(path)
        assert (found.format, found.checksums) == ("PyTorch", True)
        assert set(found) == set(WEIGHTS)
        for name, file in WEIGHTS.items():
            assert np.asarray(found[name]).tobytes() == tensor_bytes(SHARDS[file][name])
        assert found.ties == (("emb.weight", "head.weight"),)
        assert found.metadata == ({"total_size": 30} if indexed else {})
        assert jtree.checkpoint.verify(path) == {}


def reason(path: Path) -> str:
    with pytest.raises(jtree.CheckpointError) as error:
        jtree.open(path)
    return str(error.value).replace(f"{path.parent if path.is_file() else path}/", "")


def test_shards_that_do_not_belong_together(sharded: Path) -> None:
    index = write_index(sharded, {**WEIGHTS, "fc.bias": A})
    assert reason(index) == (
        "pytorch_model.bin.index.json: cannot read this sharded checkpoint: the index and the "
        f"shards disagree on 'fc.bias': expected it in {A}, found it in {B}; copy the index and "
        "the shards again"
    )
    write_index(sharded, {**WEIGHTS, "more": B})
    assert f"'more': expected it in {B}, found it in none" in reason(index)
    write_index(sharded, {name: x for name, x in WEIGHTS.items() if name != "fc.bias"})
    assert f"'fc.bias': expected it in no shard, found it in {B}" in reason(index)
    write_index(sharded)
    torch.save({**SHARDS[B], "head.weight": SHARED}, sharded / B)
    assert f"'head.weight' is in two shards, {A} and {B}" in reason(index)
    torch.save({**SHARDS[B], "step": 3}, sharded / B)
    assert reason(index) == (
        f"{B}: expected a dict from names to arrays, as shards have, found 3 at 'step'; open this "
        "file by itself"
    )
    torch.save([SHARED], sharded / B)
    assert "found a list at '(root)'; " in reason(index)
    np.savez(sharded / "x.npz", a=np.ones(2))
    (sharded / "x.npz").rename(sharded / B)
    assert (
        reason(index)
        == f"{B}: cannot read this shard: expected safetensors or PyTorch, found a NumPy file"
    )
    torch.save(SHARDS[B], sharded / B, _use_new_zipfile_serialization=False)
    assert f"{B}: cannot read this shard: not a checkpoint: a pickle" in reason(index)


def test_shards_that_are_missing_or_too_many(sharded: Path) -> None:
    (sharded / B).rename(sharded / "kept")
    assert f"{A} is one of 2 shards, and {B} is missing" in reason(sharded)
    index = write_index(sharded)
    assert reason(index) == f"{B}: this shard is missing; copy it beside the others"
    write_index(sharded, dict.fromkeys(SHARDS[A], A))
    assert f"{A} is one of 2 shards, and {B} is missing" in reason(index)
    (sharded / "kept").rename(sharded / B)
    write_index(sharded)
    (sharded / "pytorch_model-00003-of-00003.bin").touch()
    assert reason(index) == (
        "pytorch_model.bin.index.json: cannot read this sharded checkpoint: "
        "pytorch_model-00003-of-00003.bin is beside the shards but not in their index; move it "
        "away, or open the index that lists it"
    )


def test_shards_are_beside_their_index(sharded: Path) -> None:
    for wrong in (f"../{A}", f"{sharded}/{A}", "..", f"sub/{A}", "C:x", "", None):
        index = write_index(sharded, WEIGHTS | {"emb.weight": wrong})
        with pytest.raises(
            jtree.CheckpointError, match="expected the name of a file beside the index"
        ):
            jtree.open(index)


def test_a_whole_model_in_a_directory(tmp_path: Path) -> None:
    torch.save(SHARDS[A], tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text("{}")
    assert set(jtree.open(tmp_path)) == set(SHARDS[A])
    jtree.save(tmp_path / "model.safetensors", {"x": np.ones(2)})
    assert set(jtree.open(tmp_path)) == {"x"}
