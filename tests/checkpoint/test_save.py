"""Saving: what is refused, what is replaced, and what is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1

import jtree

from ..same import same
from .writers import STATE


def test_a_checkpoint_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"a": 1})
    with pytest.raises(OSError, match="already exists; pass overwrite=True to replace it"):
        jtree.save(tmp_path / "x", {"a": 2})
    assert jtree.load(tmp_path / "x") == {"a": 1}
    jtree.save(tmp_path / "x", {"a": 2}, overwrite=True)
    assert jtree.load(tmp_path / "x") == {"a": 2}
    assert [x.name for x in tmp_path.iterdir()] == ["x"]


def test_leaves_that_cannot_be_saved_are_refused_by_path(tmp_path: Path) -> None:
    for leaf in (jax.ShapeDtypeStruct((1,), np.float32), np.array(["text"]), np.zeros(2, "V3")):
        with pytest.raises(jtree.ModelError, match=r"^a: cannot save "):
            jtree.save(tmp_path / "x", {"a": leaf})
    with pytest.raises(jtree.ModelError, match=r"^a: cannot save the key \(1, 2\); use keys"):
        jtree.save(tmp_path / "x", {"a": {(1, 2): 3}})
    assert not list(tmp_path.iterdir())


def test_only_checkpoints_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").write_text("the only copy")
    (tmp_path / ".y.old").mkdir()
    (tmp_path / ".y.mine").write_text("mine")
    with pytest.raises(
        jtree.CheckpointError,
        match="exists and is not a jtree checkpoint; refusing to overwrite it",
    ):
        jtree.save(tmp_path / "x", {"a": 1}, overwrite=True)
    jtree.save(tmp_path / "y", {"a": 1})
    jtree.save(tmp_path / "y", {"a": 2}, overwrite=True)
    assert sorted(x.name for x in tmp_path.iterdir()) == [".y.mine", ".y.old", "x", "y"]
    assert (tmp_path / "x" / "thesis.tex").read_text() == "the only copy"


def test_brackets_in_a_path_are_not_a_glob(tmp_path: Path) -> None:
    for path in (tmp_path / "run[1]" / "m", tmp_path / "m[!a]"):
        for packed in (False, True):
            jtree.save(path, STATE, packed=packed, overwrite=True)
            assert same(jtree.load(path), STATE)
            assert [x.name for x in path.parent.iterdir() if x.name != "run[1]"] == [path.name]


def test_staging_of_another_target_is_left_alone(tmp_path: Path) -> None:
    jtree.save(tmp_path / "model.best", {"best": 1})
    (tmp_path / ".model.best.0123abcd.jtree").mkdir()
    (tmp_path / "model.best").rename(tmp_path / ".model.best.0123abcd.jtree" / "old")
    (tmp_path / ".model.mine.jtree").mkdir()
    with pytest.raises(jtree.CheckpointError, match="no such file or directory"):
        jtree.load(tmp_path / "model")
    jtree.save(tmp_path / "model", {"x": 1})
    jtree.save(tmp_path / "model", {"x": 2}, overwrite=True)
    assert jtree.load(tmp_path / "model.best") == {"best": 1}
    assert (tmp_path / ".model.mine.jtree").exists()


def test_invalid_paths_and_states_are_refused(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    with pytest.raises(jtree.ModelError, match="nested too deeply"):
        jtree.save(tmp_path / "x", deep)
    with pytest.raises(jtree.ArgumentError, match="contains a NUL character"):
        jtree.load("a\0")
    with pytest.raises(jtree.CheckpointError, match="cannot be reached"):
        jtree.load("ftp://host/x")
    with pytest.raises(
        jtree.CheckpointError, match="are for unfinished checkpoints; use another name"
    ):
        jtree.save(tmp_path / "x.orbax-checkpoint-tmp-1", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
@pytest.mark.parametrize(("packed", "expected"), [(None, True), (False, False), (True, True)])
def test_many_small_arrays_are_packed_unless_they_are_not_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool | None, expected: bool
) -> None:
    monkeypatch.setattr("jtree.checkpoint._orbax.encoding.MOST_SEPARATE", 3)
    few = {"a": jnp.ones(2), "b": [np.ones(3), jax.random.key(0)], "n": 3}
    many = few | {"c": np.zeros(0), "large": np.zeros(2**20)}
    jtree.save(tmp_path / "few", few, packed=packed)
    jtree.save(tmp_path / "many", many, packed=packed)
    assert jtree.open(tmp_path / "few").packed == bool(packed)
    assert jtree.open(tmp_path / "many").packed == expected
    assert same(jtree.load(tmp_path / "many", many), many)
    names = set(v1.load(tmp_path / "many"))
    assert names == ({"%packed", "large"} if expected else {"a", "b", "c", "large"})
