"""Files of Keras and HDF5."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import jtree

from .bounds import refused
from .damage import damaged, read_all
from .files import bits, hdf5, random_array, whole_file


def test_hdf5_of_keras(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    arrays = {"layers/dense/vars/0": random_array("f4"), "layers/dense/vars/1": random_array("<i8")}
    arrays |= {
        "big": random_array("f8").astype(">f8"),
        "packed": np.arange(1000),
        "s": np.float32(2),
    }
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        for name, x in arrays.items():
            file.create_dataset(
                name, data=x, **({"compression": "gzip"} if name == "packed" else {})
            )
        file["names"] = [b"a", b"b"]
        file["text"] = "words"
        file.create_group("optimizer/empty")
        half = file.create_dataset("half", data=random_array("bfloat16", (3,)).view("V2"))
        half.attrs["dtype"] = "bfloat16"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential"})
        file.attrs["backend"] = "jax"
    found = jtree.open(tmp_path / "x.weights.h5")
    assert found.format == "Keras"
    assert found.metadata == {"model_config": {"class_name": "Sequential"}, "backend": "jax"}
    assert set(found) == {*arrays, "half"}
    for name, x in arrays.items():
        assert bits(found[name].read()) == bits(
            np.asarray(x, np.asarray(x).dtype.newbyteorder("="))
        )
    assert found["half"].dtype == jnp.bfloat16
    found["half"].read()
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.8"}))
        archive.writestr("config.json", json.dumps({"module": "os", "class_name": "system"}))
        archive.write(tmp_path / "x.weights.h5", "model.weights.h5")
    again = jtree.open(tmp_path / "x.keras")
    assert again.metadata["config"] == {"module": "os", "class_name": "system"}
    assert {k: bits(x.read()) for k, x in again.items()} == {
        k: bits(x.read()) for k, x in found.items()
    }


def test_without_h5py_the_error_names_the_extra(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "x").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(jtree.ExtraError) as error:
        jtree.open(tmp_path / "x")
    assert str(error.value) == (
        f"{tmp_path / 'x'}: reading HDF5 needs h5py, which is not installed; run: pip install "
        '"jtree[keras]"'
    )


def write_hdf5(path: Path, which: str) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        if which == "external link":
            file["a"] = h5py.ExternalLink("/etc/passwd", "/")
        if which == "soft link":
            file["a"] = h5py.SoftLink("/b")
        if which == "external storage":
            file.create_dataset("a", (4,), "f4", external=[("/etc/passwd", 0, 16)])
        if which == "virtual":
            layout = h5py.VirtualLayout((4,), "f4")
            layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
            file.create_virtual_dataset("a", layout)
        if which == "unwritten":
            file.create_dataset("a", (2**40,), "f4", chunks=(2**10,))
        if which == "packed":
            file.create_dataset("a", (2**27,), "f4", compression=9, fillvalue=0)
            file["a"][: 2**20] = 0
        if which == "cycle":
            file["a/b"] = file.create_group("a") and file["/"]


@pytest.mark.parametrize(
    "which",
    ["external link", "soft link", "external storage", "virtual", "unwritten", "packed", "cycle"],
)
def test_links_and_sizes_of_hdf5_are_refused(tmp_path: Path, which: str) -> None:
    write_hdf5(tmp_path / "x", which)
    refused(tmp_path / "x")


@pytest.mark.parametrize("format", ["Keras", "HDF5"])
@pytest.mark.parametrize("examples", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_damaged_hdf5_in_a_process_of_its_own(
    run_python: Any, tmp_path: Path, format: str, examples: int
) -> None:
    """The library of HDF5 is written in C, so a crash must not take these tests with it."""
    count = 0

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=damaged(format))
    def write(data: bytes) -> None:
        nonlocal count
        (tmp_path / f"{count}").write_bytes(data)
        count += 1

    write()
    (tmp_path / "right").write_bytes(whole_file(format))
    out = run_python(
        f"""
        import pathlib, jtree
        for path in sorted(pathlib.Path({str(tmp_path)!r}).iterdir()):
            try:
                for x in jtree.open(path).values():
                    x.read()
            except jtree.CheckpointError:
                continue
        print(len(jtree.open(path)), path.name)
        """
    )
    assert out == "4 right\n"


@pytest.mark.parametrize("script", ["while True: pass", "import os; os.kill(os.getpid(), 11)"])
def test_where_the_library_of_hdf5_crashes_or_never_returns(
    tmp_path: Path, script: str, monkeypatch: Any
) -> None:
    (tmp_path / "x").write_bytes(hdf5())
    (tmp_path / "script.py").write_text(script)
    monkeypatch.setattr(
        "jtree.checkpoint._formats.hdf5_probe.__file__", str(tmp_path / "script.py")
    )
    monkeypatch.setattr("jtree.checkpoint._formats.keras._PROBE_SECONDS", 2)
    with pytest.raises(jtree.CheckpointError, match="damaged: the HDF5 library"):
        jtree.open(tmp_path / "x")


def test_an_attribute_that_the_library_of_hdf5_never_returns_from(tmp_path: Path) -> None:
    data = bytearray(hdf5())
    at = data.index(b"GCOL")
    for place in range(at + 16, at + 40, 8):
        damaged_there = data[:place] + b"\0" * 8 + data[place + 8 :]
        (tmp_path / "x").write_bytes(damaged_there)
        read_all(tmp_path / "x")
