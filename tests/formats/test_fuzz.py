"""The fuzzer itself: it finds nothing in a short while, and does find what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .files import whole_file

atheris = pytest.importorskip("atheris")

ROOT = Path(__file__).parents[2]
FORMATS = (
    *("safetensors", "header", "msgpack", "npy", "npz", "member", "PyTorch", "pickle"),
    *("line", "HDF5", "index", "mark", "tree", "Orbax", "BSON", "JLD2", "structure"),
    "rules",
)
SLOW = {"HDF5": 10, "mark": 100, "tree": 50, "Orbax": 50}  # how many inputs of those that take long
NEEDS = {"PyTorch": "torch", "pickle": "torch", "HDF5": "h5py"}
ALONE = (
    "structure",
    "rules",
    "BSON",
    "JLD2",
    "line",
    "HDF5",
    "index",
    "mark",
    "tree",
    "Orbax",
)  # no other reader


@pytest.mark.parametrize("format", FORMATS)
def test_the_fuzzer_finds_nothing_in_a_short_while(tmp_path: Path, format: str) -> None:
    pytest.importorskip(NEEDS.get(format, "jax"))
    command = [sys.executable, "-m", "tests.formats.fuzz", format, str(tmp_path)]
    options = ["--runs", str(SLOW.get(format, 500)), "--seed", "1", "--seconds", "30"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "DONE" in done.stderr


@pytest.fixture(name="fuzz")
def _fuzz() -> Any:
    from . import fuzz

    return fuzz


def test_every_target_is_run(fuzz: Any) -> None:
    assert set(fuzz.TARGETS) == set(FORMATS)


@pytest.mark.parametrize("format", FORMATS)
def test_what_a_target_begins_with_is_read(tmp_path: Path, fuzz: Any, format: str) -> None:
    pytest.importorskip(NEEDS.get(format, "jax"))
    target = fuzz.TARGETS[format]
    first, *_ = target.begin()
    fuzz.check(target, tmp_path / "x", first)
    (tmp_path / "x").write_bytes(target.wrap(first))
    found = target.read(tmp_path / "x")
    others = fuzz.theirs(target, target.wrap(first))
    assert found or format in ("structure", "rules")
    assert format in ALONE or others >= {*map(fuzz.as_bytes, found)}


def test_other_numbers_are_found(tmp_path: Path, fuzz: Any) -> None:
    target = fuzz.TARGETS["npy"]._replace(others=lambda _: [np.ones(3)])
    with pytest.raises(AssertionError, match="other numbers"):
        fuzz.check(target, tmp_path / "x", whole_file("npy"))


def test_other_errors_are_found(tmp_path: Path, fuzz: Any) -> None:
    def fail(_: Path) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        fuzz.check(fuzz.TARGETS["npy"]._replace(read=fail), tmp_path / "x", b"x")


def test_memory_is_counted_where_it_grows(tmp_path: Path, fuzz: Any, monkeypatch: Any) -> None:
    grown = iter((0, 2**30))
    monkeypatch.setattr(fuzz, "most_memory", lambda: next(grown))
    target = fuzz.TARGETS["npy"]._replace(read=lambda _: list(bytes(2**27)[:0]))
    with pytest.raises(AssertionError):
        fuzz.check(target, tmp_path / "x", b"x")
