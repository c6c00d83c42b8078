"""Damaged checkpoints: checksums notice, and errors name the arrays."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

import jtree

from ..forks import Forks
from .writers import read_damaged


def test_damage_elsewhere_does_not_matter_to_selected_paths(tmp_path: Path) -> None:
    arrays = {"a": np.arange(1000.0), "b": np.arange(1000.0) + 7}
    damage(tmp_path / "x", arrays, "b")
    assert jtree.load(tmp_path / "x", where="a")["a"].tolist() == arrays["a"].tolist()
    with pytest.raises(jtree.ChecksumError, match="checksum mismatch in b; use another copy"):
        jtree.load(tmp_path / "x")


def damage(path: Path, arrays: dict[str, Any], name: str) -> None:
    """Save other values than those that the checksums are of."""
    jtree.save(path.with_name("right"), arrays)
    metadata = ocp.metadata(path.with_name("right")).custom_metadata
    ocp.save(path, arrays | {name: arrays[name] + 1}, custom_metadata=metadata)


def test_values_that_differ_from_those_written_are_refused_by_name(tmp_path: Path) -> None:
    damage(tmp_path / "y", {"a": np.ones(2), "b": np.ones(2)}, "b")
    with pytest.raises(jtree.ChecksumError) as error:
        jtree.load(tmp_path / "y")
    assert str(error.value) == (
        f"{tmp_path / 'y'}: checksum mismatch in b; use another copy of this checkpoint, or pass "
        "verify=False to read it as it is"
    )
    assert jtree.load(tmp_path / "y", verify=False)["b"].tolist() == [2, 2]
    assert list(jtree.verify(tmp_path / "y")) == ["b"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked")
@pytest.mark.slow
@pytest.mark.parametrize("trials", [5])
def test_damaged_files_are_noticed_or_harmless(tmp_path: Path, forks: Forks, trials: int) -> None:
    noticed = forks.run(read_damaged, tmp_path, trials).result
    assert noticed["flipped"] > 6 * trials
    assert noticed["truncated"] > 6 * trials
    assert noticed["missing"] > 8


def test_a_flipped_bit_in_the_values_names_the_array(tmp_path: Path) -> None:
    """Orbax compresses, so what is stored plainly is found in what it cannot compress."""
    values = np.frombuffer(random.Random(0).randbytes(80_000), np.float64).copy()
    values[~np.isfinite(values)] = 1.0
    noticed = 0
    for seed in range(7):
        jtree.save(tmp_path / "x", {"w": values, "v": np.ones(3)}, overwrite=True)
        files = (x for x in (tmp_path / "x").rglob("*") if x.is_file())
        file = max(files, key=lambda x: x.stat().st_size)
        data = bytearray(file.read_bytes())
        data[random.Random(seed).randrange(2000, 60_000)] ^= 1 << (seed % 8)
        file.write_bytes(data)
        with pytest.raises(jtree.CheckpointError, match=r"\bw\b") as error:
            jtree.load(tmp_path / "x")
        noticed += isinstance(error.value, jtree.ChecksumError)
        assert list(jtree.verify(tmp_path / "x")) == ["w"]
        assert jtree.load(tmp_path / "x", where="v")["v"].tolist() == [1, 1, 1]
    assert noticed
