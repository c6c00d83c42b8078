"""Opening: what is known without reading arrays, and paths that are not checkpoints."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree

from ..zoo import Net


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


def test_a_checkpoint_that_is_being_written(tmp_path: Path) -> None:
    saving = jtree.save_async(tmp_path / "x", [np.zeros(100_000)] * 20)
    try:
        jtree.load(tmp_path / "x")
    except jtree.CheckpointError as error:
        assert "no such file or directory" in str(error)  # noqa: PT017
    saving.result()
    assert len(jtree.load(tmp_path / "x")) == 20
    (tmp_path / "y.orbax-checkpoint-tmp").mkdir()
    with pytest.raises(
        jtree.CheckpointError, match="still being written, or its writer was killed"
    ):
        jtree.load(tmp_path / "y.orbax-checkpoint-tmp")


class Harmful:
    def __reduce__(self) -> Any:
        return os.mkdir, ("harm",)


def test_paths_that_are_not_checkpoints_are_described(tmp_path: Path) -> None:
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Harmful(), protocol=2))
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Harmful(), protocol=2))
    (tmp_path / "model.bson").write_bytes(b"\x02tag \x09   datatype ")
    (tmp_path / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    expected = {
        "old.pt": "not a checkpoint: a pickle, as PyTorch before 1.6 writes",
        "model.pt": "cannot read this PyTorch file",
        "model.bson": "not a checkpoint: a BSON file of Julia, damaged by a transfer as text",
        "weights.h5": "cannot read this HDF5 file",
        "notes.txt": "not a checkpoint: a file in an unknown format",
        "folder": "not a checkpoint: an empty directory",
        "nothing": "no such file or directory",
    }
    for name, text in expected.items():
        with pytest.raises(jtree.CheckpointError) as error:
            jtree.load(tmp_path / name)
        assert f"{tmp_path / name}: " in str(error.value)
        assert text in str(error.value)
    assert not Path("harm").exists()
