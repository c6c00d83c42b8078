"""Damaged files of every format: an error of jtree's, or arrays; never anything else."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import flax.serialization
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jtree

ARRAYS = {
    "layer.w": np.arange(12, dtype=np.float32).reshape(3, 4) + 100,
    "layer.b": np.array([7, 8, 9], np.int64),
    "scale": np.array(0.5),
    "empty": np.zeros((0, 2)),
}
BITS = {x.tobytes() for x in ARRAYS.values()}


def saved(write: Callable[[Any], Any]) -> bytes:
    out = io.BytesIO()
    write(out)
    return out.getvalue()


def pytorch() -> bytes:
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(x.copy()) for name, x in ARRAYS.items()}
    tensors["again"] = tensors["layer.w"]
    return saved(lambda out: torch.save({"model": tensors, "epoch": 3, "names": ["a"]}, out))


def hdf5() -> bytes:
    h5py = pytest.importorskip("h5py")

    def write(out: Any) -> None:
        with h5py.File(out, "w") as file:
            for name, x in ARRAYS.items():
                file[name.replace(".", "/")] = x
            file.attrs["config"] = json.dumps({"a": [1, 2]})

    return saved(write)


def keras() -> bytes:
    def write(out: Any) -> None:
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", hdf5())

    return saved(write)


MAKERS: dict[str, Callable[[], bytes]] = {
    "safetensors": lambda: safetensors.numpy.save(ARRAYS, {"k": "v"}),
    "msgpack": lambda: flax.serialization.msgpack_serialize({"a": dict(ARRAYS), "n": 3}),
    "npz": lambda: saved(lambda out: np.savez(out, **ARRAYS)),
    "packed npz": lambda: saved(lambda out: np.savez_compressed(out, **ARRAYS)),
    "npy": lambda: saved(lambda out: np.save(out, ARRAYS["layer.w"])),
    "Equinox": lambda: saved(lambda out: [np.save(out, x) for x in ARRAYS.values()]),
    "PyTorch": pytorch,
    "Keras": keras,
    "HDF5": hdf5,
}
SURE = ("npz", "packed npz", "PyTorch")  # their arrays have checksums


@cache
def made(format: str) -> bytes:
    return MAKERS[format]()


@st.composite
def damaged(draw: Any, format: str) -> bytes:
    """Return a file with some bytes flipped, set, left out, put in, repeated, or cut off."""
    data = bytearray(made(format))
    for _ in range(draw(st.integers(1, 4))):
        low, high = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        high = min(high, low + 40)
        what = draw(st.sampled_from(["flip", "set", "cut", "put", "repeat", "number", "truncate"]))
        if what == "flip" and low < len(data):
            data[low] ^= 1 << draw(st.integers(0, 7))
        elif what == "set" and low < len(data):
            data[low] = draw(st.integers(0, 255))
        elif what == "number":
            data[low : low + 4] = draw(
                st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f"])
            )
        elif what == "cut":
            del data[low:high]
        elif what == "put":
            data[low:low] = draw(st.binary(max_size=12))
        elif what == "repeat":
            data[low:low] = data[low:high]
        elif what == "truncate":
            del data[low:]
    return bytes(data)


def read_all(path: Path, *, shown: bool = True) -> list[Any] | None:
    """Return the arrays of a file that could be read; None where it was refused."""
    try:
        found = jtree.open(path)
    except jtree.CheckpointError:
        return None
    arrays = []
    for x in found.values():
        assert x.nbytes <= 16 * path.stat().st_size + 2**26
        try:
            arrays.append(x.read())
        except jtree.CheckpointError:
            continue
        assert (arrays[-1].shape, arrays[-1].dtype) == (x.shape, x.dtype)
    if shown:
        str(found)
    return arrays


@pytest.mark.parametrize("format", [x for x in MAKERS if x not in ("Keras", "HDF5")])
def test_damage_is_refused_or_harmless(tmp_path_factory: Any, format: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x"
    path.write_bytes(made(format))
    assert read_all(path)

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=damaged(format))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        arrays = read_all(path)
        if format in SURE:
            assert all(x.tobytes() in BITS for x in arrays or ())

    check()


@pytest.mark.parametrize("format", MAKERS)
def test_every_file_that_is_cut_off_is_refused(tmp_path: Path, format: str) -> None:
    data = made(format)
    count = 6 if format in ("HDF5", "Keras") else 150  # each starts a process
    for size in range(0, len(data), max(1, len(data) // count)):
        (tmp_path / "x").write_bytes(data[:size])
        arrays = read_all(tmp_path / "x")
        whole = format == "Equinox" or (format in ("HDF5", "Keras"))
        assert arrays is None or whole, size
        assert all(x.tobytes() in BITS for x in arrays or ())


@pytest.mark.parametrize("format", ["Keras", "HDF5"])
def test_damaged_hdf5_in_a_process_of_its_own(run_python: Any, tmp_path: Path, format: str) -> None:
    """The library of HDF5 is written in C, so a crash must not take these tests with it."""
    count = 0

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=damaged(format))
    def write(data: bytes) -> None:
        nonlocal count
        (tmp_path / f"{count}").write_bytes(data)
        count += 1

    write()
    (tmp_path / "right").write_bytes(made(format))
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


def test_warnings_of_parsers_are_not_raised(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x93NUMPY\1\0\x20\0" + b"{'descr': '\\d', 1is 1}".ljust(32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(jtree.CheckpointError):
            jtree.open(tmp_path / "x")


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
