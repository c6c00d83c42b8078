"""Saving in the background."""

from __future__ import annotations

import concurrent.futures
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree


def test_saving_in_the_background(tmp_path: Path) -> None:
    numbers, kept = np.arange(5.0), jnp.arange(5.0)
    saving = jtree.save_async(tmp_path / "x", {"a": numbers, "b": kept})
    numbers += 1
    kept.delete()
    assert isinstance(saving, concurrent.futures.Future)
    assert saving.result() is None
    assert saving.done()
    assert not saving.cancel()
    assert repr(saving) == f"Saving({str(tmp_path / 'x')!r}, done)"
    loaded = jtree.load(tmp_path / "x")
    assert loaded["a"].tolist() == loaded["b"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(jtree.CheckpointError, match="already exists"):
        jtree.save_async(tmp_path / "x", {"a": numbers})


def test_errors_of_the_background_are_raised_by_its_result(tmp_path: Path) -> None:
    saving = jtree.save_async(tmp_path / "x", [np.zeros(1_000_000)] * 4)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").touch()
    with pytest.raises(jtree.CheckpointError, match="x already exists; pass overwrite=True"):
        saving.result()
    assert [x.name for x in tmp_path.iterdir()] == ["x"]
    assert [x.name for x in (tmp_path / "x").iterdir()] == ["mine"]


def test_a_background_save_ends_before_the_process_does(run_python: Any, tmp_path: Path) -> None:
    run_python(f"import jtree, numpy as np; jtree.save_async({str(tmp_path)!r} + '/x', np.ones(9))")
    assert jtree.load(tmp_path / "x").tolist() == [1] * 9


def test_a_donated_array_is_saved_as_it_was(tmp_path: Path) -> None:
    x = jnp.arange(100_000.0)
    saving = jtree.save_async(tmp_path / "x", {"x": x})
    y = jax.jit(lambda x: x * 2, donate_argnums=0)(x)
    saving.result()
    assert float(y[3]) == 6
    assert jtree.load(tmp_path / "x")["x"][3] == 3


def test_a_directory_that_appears_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"a": 1})
    saving = jtree.save_async(tmp_path / "x", [np.zeros(1_000_000)] * 4, overwrite=True)
    shutil.rmtree(tmp_path / "x")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").touch()
    with pytest.raises(jtree.CheckpointError, match="exists and is not a jtree checkpoint"):
        saving.result()
    assert [x.name for x in (tmp_path / "x").iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    jtree.save(tmp_path / "empty", {"a": 1})
    assert jtree.load(tmp_path / "empty") == {"a": 1}


def test_the_last_of_two_saves_in_the_background_is_the_one_that_stays(tmp_path: Path) -> None:
    large = np.random.default_rng(0).random(2_000_000)
    first = jtree.save_async(tmp_path / "x", {"a": large}, overwrite=True)
    second = jtree.save_async(tmp_path / "x", {"a": np.ones(1)}, overwrite=True)
    second.result()
    first.result()
    assert jtree.load(tmp_path / "x")["a"].shape == (1,)
