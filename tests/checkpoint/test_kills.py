"""Killed writers, full disks, and other processes at the same path."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jtree
from jtree.checkpoint._load import RETRIES
from jtree.checkpoint._orbax.arrays import OrbaxArrays
from jtree.checkpoint._storage import atomic
from jtree.checkpoint._storage.paths import as_path

from ..forks import Forks
from .versions import version, version_of
from .writers import (
    save_for,
    save_together,
    save_until,
    save_without_permission,
    save_without_room,
    train,
    watch_overwrite,
)

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked")


def check_after_kill(target: Path, number: int, overwrite: bool) -> bool:
    """Check that a path holds the old version or the new one; return whether it is the new one."""
    if not overwrite and not target.exists():
        return False
    found = version_of(jtree.load(target))
    assert found in ({0, number} if overwrite else {number})
    assert not jtree.verify(target)
    return found == number


@needs_fork
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("trials", [2, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_save_killed_before_a_change_of_a_file_leaves_the_old_checkpoint_or_the_new(
    tmp_path: Path, forks: Forks, overwrite: bool, packed: bool, trials: int
) -> None:
    target = tmp_path / "model"
    jtree.save(target, version(0))
    count = forks.run(save_until, target, 1, True, packed, -1).result
    kept = []
    for last in range(0, count, max(1, count // trials)):
        if overwrite:
            jtree.save(target, version(0), overwrite=True, packed=packed)
        else:
            shutil.rmtree(target, ignore_errors=True)
        killed = forks.run(save_until, target, last + 1, overwrite, packed, last).killed
        assert check_after_kill(target, last + 1, overwrite) or killed
        kept.append(killed)
    assert any(kept)
    jtree.save(target, version(99), overwrite=True)  # removes what the killed ones have left
    assert [x.name for x in tmp_path.iterdir()] == ["model"]


@needs_fork
@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_save_killed_at_any_moment_leaves_the_old_checkpoint_or_the_new(
    tmp_path: Path, forks: Forks, overwrite: bool, packed: bool
) -> None:
    """Orbax writes in threads of C++, whose changes of files Python does not see."""
    randomly = random.Random(overwrite * 2 + packed)
    target = tmp_path / "model"
    usual = forks.run(save_for, tmp_path / "timed", 0, False, packed, 1000.0).result
    killed = 0
    for number in range(1, 21):
        if overwrite:
            jtree.save(target, version(0), overwrite=True, packed=packed)
        seconds = randomly.uniform(0, 1.1 * usual)
        killed += forks.run(save_for, target, number, overwrite, packed, seconds).killed
        check_after_kill(target, number, overwrite)
        if not overwrite:
            shutil.rmtree(target, ignore_errors=True)
    assert killed
    jtree.save(target, version(99), overwrite=True)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["model", "timed"]


@needs_fork
def test_the_target_is_a_checkpoint_at_every_step_of_an_overwrite(
    tmp_path: Path, forks: Forks
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    if not atomic._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system has no exchange in one step")
    jtree.save(tmp_path / "model", version(0))
    there = forks.run(watch_overwrite, tmp_path / "model").result
    assert len(there) > 5
    assert all(there)
    assert version_of(jtree.load(tmp_path / "model")) == 1


def test_the_overwritten_checkpoint_is_found_where_a_kill_between_two_renames_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_exchange", lambda *_: False)  # as where the system has none
    target = tmp_path / "model"
    jtree.save(target, version(1))
    jtree.save(target, version(2), overwrite=True)
    assert version_of(jtree.load(target)) == 2
    staging = tmp_path / ".model.0123abcd.jtree"
    staging.mkdir()
    target.rename(staging / "old")
    assert version_of(jtree.load(target)) == 2
    jtree.save(target, version(3), overwrite=True)
    assert version_of(jtree.load(target)) == 3
    assert [x.name for x in tmp_path.iterdir()] == ["model"]


def test_a_failing_rename_puts_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
    jtree.save(tmp_path / "x", {"a": 1})
    path_class = type(as_path(tmp_path))
    rename = path_class.rename

    def fail(self: Any, target: Any) -> Any:
        if self.name == "new":
            raise OSError("no room")
        return rename(self, target)

    monkeypatch.setattr(path_class, "rename", fail)
    with pytest.raises(jtree.CheckpointError, match="cannot be written: no room"):
        jtree.save(tmp_path / "x", {"a": 2}, overwrite=True)
    monkeypatch.undo()
    assert jtree.load(tmp_path / "x") == {"a": 1}
    assert [x.name for x in tmp_path.iterdir()] == ["x"]


@needs_fork
def test_a_full_disk(tmp_path: Path, forks: Forks) -> None:
    jtree.save(tmp_path / "x", {"a": 1})
    for name in "xy":
        assert "cannot be written" in forks.run(save_without_room, tmp_path / name).result
    assert jtree.load(tmp_path / "x") == {"a": 1}
    assert [x.name for x in tmp_path.iterdir()] == ["x"]


@needs_fork
def test_a_directory_that_cannot_be_written_to(tmp_path: Path, forks: Forks) -> None:
    jtree.save(tmp_path / "x", {"a": 1})
    error = forks.run(save_without_permission, tmp_path / "x").result
    os.chmod(tmp_path, 0o755)
    assert "cannot be written" in error
    assert "ermission" in error
    assert jtree.load(tmp_path / "x") == {"a": 1}


@needs_fork
@pytest.mark.parametrize(("overwrite", "expected"), [(False, 1), (True, 6)])
def test_six_processes_save_to_one_path(
    tmp_path: Path, forks: Forks, overwrite: bool, expected: int
) -> None:
    assert forks.run(save_together, tmp_path / "x", overwrite).result == expected
    version_of(jtree.load(tmp_path / "x"))
    assert [x.name for x in tmp_path.iterdir()] == ["x"]


def test_threads_save_and_load_at_once(tmp_path: Path) -> None:
    def work(number: int) -> int:
        jtree.save(tmp_path / f"{number}", version(number), packed=number % 2 == 0)
        return version_of(jtree.load(tmp_path / f"{number}"))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(12))) == list(range(12))


@pytest.mark.parametrize("before", [False, True])
def test_a_checkpoint_that_is_overwritten_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """It is overwritten before the arrays are read, or after, and then read again."""
    path, numbers = tmp_path / "x", iter(range(1, RETRIES))
    jtree.save(path, version(0))
    opened, read = jtree.open(path), OrbaxArrays._read_all

    def read_overwritten(self: OrbaxArrays, shardings: Any) -> Any:
        arrays = None if before else read(self, shardings)
        for number in itertools.islice(numbers, 1):
            jtree.save(path, version(number), overwrite=True)
        return read(self, shardings) if before else arrays

    monkeypatch.setattr(OrbaxArrays, "_read_all", read_overwritten)
    assert version_of(jtree.load(path)) == RETRIES - 1
    monkeypatch.undo()
    with pytest.raises(jtree.CheckpointError, match="has been overwritten since it was opened"):
        np.asarray(opened["arrays/0"])


def test_a_checkpoint_that_is_overwritten_again_and_again_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jtree.save(tmp_path / "x", {"w": np.ones(1)})
    read = OrbaxArrays._read_all

    def read_overwritten(self: OrbaxArrays, shardings: Any) -> Any:
        jtree.save(tmp_path / "x", {"w": np.ones(1)}, overwrite=True)
        return read(self, shardings)

    monkeypatch.setattr(OrbaxArrays, "_read_all", read_overwritten)
    with pytest.raises(jtree.CheckpointError) as error:
        jtree.load(tmp_path / "x")
    assert str(error.value) == (
        f"{tmp_path / 'x'} has been overwritten since it was opened; open it again"
    )


@needs_fork
def test_training_continues_after_a_kill(tmp_path: Path, forks: Forks) -> None:
    """Orbax's manager keeps the last three steps, and the run resumes from the latest."""
    latest = 0
    for _ in range(3):
        assert forks.run(train, tmp_path, 4).killed
        steps = sorted(int(x.name) for x in tmp_path.iterdir() if x.name.isdigit())
        assert steps[-1] in (latest + 4, latest + 5)  # the last may be complete at the kill
        latest = steps[-1]
    loaded = jtree.load(tmp_path / str(latest))
    assert loaded["count"] == latest
    assert loaded["w"][0] == sum(range(latest))
    assert len(steps) <= 4
