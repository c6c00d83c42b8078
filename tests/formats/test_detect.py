"""Detection of formats by content, and files that are none."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import jtree

from .bounds import refused


def test_the_content_decides_the_format(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x.npz", {"a": np.ones(1)}, format="safetensors")
    assert jtree.open(tmp_path / "x.npz").format == "safetensors"
    assert jtree.open(str(tmp_path / "x.npz")).path == str(tmp_path / "x.npz")
    held = io.BytesIO()
    np.savez(held)
    (tmp_path / "empty").write_bytes(held.getvalue())
    assert dict(jtree.open(tmp_path / "empty")) == {}


def test_a_file_that_was_changed_since_is_not_read(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x.npz", {"a": np.ones(3)})
    found = jtree.open(tmp_path / "x.npz")
    jtree.save(tmp_path / "x.npz", {"a": np.ones(4), "b": np.ones(1)}, overwrite=True)
    with pytest.raises(jtree.CheckpointError, match="has changed since it was opened"):
        found["a"].read()


def test_files_that_are_not_checkpoints_are_described(tmp_path: Path) -> None:
    tests = {
        b"": "not a checkpoint: an empty file",
        b"hello": "not a checkpoint: a file in an unknown format",
        pickle.dumps({"a": 1}): "not a checkpoint: a pickle",
        bytes(257) + b"ustar" + bytes(300): "not a checkpoint: a tar archive",
        b'{"weight_map": 3}': 'the index lacks a "weight_map"',
        b"{}": "not a checkpoint: a file in an unknown format",
        b"PK": "the directory of the zip archive is missing",
    }
    for data, words in tests.items():
        (tmp_path / "x").write_bytes(data)
        refused(tmp_path / "x", words)
    with pytest.raises(jtree.CheckpointError, match="no such file or directory"):
        jtree.open(tmp_path / "nothing")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.safetensors")
    for path in (tmp_path, tmp_path / "x.safetensors"):
        with pytest.raises(jtree.CheckpointError, match="found a pipe or a device"):
            jtree.open(path)
