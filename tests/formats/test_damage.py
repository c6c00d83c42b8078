"""Damaged files of every format: refused, or arrays; never anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from .damage import damaged, read_all
from .files import BITS, MAKERS, whole_file

SURE = ("npz", "packed npz", "PyTorch")  # their arrays have checksums


@pytest.mark.parametrize("format", [x for x in MAKERS if x not in ("Keras", "HDF5")])
@pytest.mark.parametrize("examples", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_damage_is_refused_or_harmless(tmp_path_factory: Any, format: str, examples: int) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x"
    path.write_bytes(whole_file(format))
    assert read_all(path)

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=damaged(format))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        arrays = read_all(path)
        if format in SURE:
            assert all(x.tobytes() in BITS for x in arrays or ())

    check()


@pytest.mark.parametrize("format", MAKERS)
def test_every_file_that_is_cut_off_is_refused(tmp_path: Path, format: str) -> None:
    data = whole_file(format)
    count = 4 if format in ("HDF5", "Keras") else 150  # each starts a process
    for size in range(0, len(data), max(1, len(data) // count)):
        (tmp_path / "x").write_bytes(data[:size])
        arrays = read_all(tmp_path / "x")
        whole = format == "Equinox" or (format in ("HDF5", "Keras"))
        assert arrays is None or whole, size
        assert all(x.tobytes() in BITS for x in arrays or ())
