"""Files of every format, made by hand: whole ones, and parts of malformed ones."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import flax.serialization
import numpy as np
import pytest
import safetensors.numpy

from . import bson_files, jld2_files

RNG = np.random.default_rng(0)


def random_array(dtype: Any, shape: tuple[int, ...] = (2, 3)) -> Any:
    """Return an array of any bits that are values of a dtype."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = RNG.integers(0, 2 if dtype == np.dtype(bool) else 256, size).astype(np.uint8)
    return data.view(dtype).reshape(shape)


def array_layouts(dtype: Any) -> dict[str, Any]:
    """Return arrays of one dtype that are stored in every way that arrays are."""
    x = random_array(dtype, (4, 6))
    return {
        "plain": x,
        "fortran": np.asfortranarray(x),
        "strided": x[::2, 1::2],
        "reversed": x[::-1],
        "scalar": random_array(dtype, ()),
        "empty": random_array(dtype, (0, 3)),
    }


def bits(x: Any) -> bytes:
    return np.ascontiguousarray(x).tobytes()


def torch_archive(path: Path, program: bytes, entries: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", program)
        archive.writestr("x/version", "3\n")
        for name, data in (entries or {}).items():
            archive.writestr(name, data)
    return path


class Call:
    """What a pickle calls when it is loaded."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.pair = function, args

    def __reduce__(self) -> Any:
        return self.pair


def pickled_text(x: str) -> bytes:
    return b"X" + struct.pack("<I", len(x)) + x.encode()


def pickled_tensor(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int = 0,
    count: int = 4,
    kind: str = "FloatStorage",
    key: str = "0",
) -> bytes:
    """Return a pickle of one tensor."""

    def put(x: Any) -> bytes:
        return pickle.dumps(x, 2)[2:-1]

    storage = (
        b"("
        + pickled_text("storage")
        + f"ctorch\n{kind}\n".encode()
        + pickled_text(key)
        + pickled_text("cpu")
    )
    storage += put(count) + b"tQ"
    args = storage + put(offset) + put(shape) + put(strides) + b"\x89}"
    return (
        b"\x80\x02}" + pickled_text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + args + b"tRs."
    )


HUGE = 2**40


def zip_archive(names: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for member, data in names.items():
            archive.writestr(member, data)
    return out.getvalue()


def npy_file(x: Any = None, header: str | None = None, version: int = 1) -> bytes:
    out = io.BytesIO()
    if header is None:
        np.save(out, np.arange(4.0) if x is None else x, allow_pickle=True)
        return out.getvalue()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + bytes(32)


def patch_entry(data: bytes, at: int, form: str, value: int) -> bytes:
    """Return bytes with a number of the first central entry replaced."""
    start = data.index(b"PK\x01\x02") + at
    return data[:start] + struct.pack(form, value) + data[start + struct.calcsize(form) :]


def safetensors_file(header: Any, data: bytes = bytes(16), length: int | None = None) -> bytes:
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(body) if length is None else length
    return struct.pack("<Q", size) + body + data


def array_entry(dtype: Any = "F32", shape: Any = (4,), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def msgpack_extension(payload: bytes, code: int = 1) -> bytes:
    return b"\x81\xa1w\xc9" + struct.pack(">IB", len(payload), code) + payload


ARRAYS = {
    "layer.w": np.arange(12, dtype=np.float32).reshape(3, 4) + 100,
    "layer.b": np.array([7, 8, 9], np.int64),
    "scale": np.array(0.5),
    "empty": np.zeros((0, 2)),
}


BITS = {x.tobytes() for x in ARRAYS.values()}


def written_by(write: Callable[[Any], Any]) -> bytes:
    out = io.BytesIO()
    write(out)
    return out.getvalue()


def pytorch() -> bytes:
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(x.copy()) for name, x in ARRAYS.items()}
    tensors["again"] = tensors["layer.w"]
    return written_by(lambda out: torch.save({"model": tensors, "epoch": 3, "names": ["a"]}, out))


def hdf5() -> bytes:
    h5py = pytest.importorskip("h5py")

    def write(out: Any) -> None:
        with h5py.File(out, "w") as file:
            for name, x in ARRAYS.items():
                file[name.replace(".", "/")] = x
            file.attrs["config"] = json.dumps({"a": [1, 2]})

    return written_by(write)


def keras() -> bytes:
    def write(out: Any) -> None:
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", hdf5())

    return written_by(write)


MAKERS: dict[str, Callable[[], bytes]] = {
    "safetensors": lambda: safetensors.numpy.save(ARRAYS, {"k": "v"}),
    "msgpack": lambda: flax.serialization.msgpack_serialize({"a": dict(ARRAYS), "n": 3}),
    "npz": lambda: written_by(lambda out: np.savez(out, **ARRAYS)),
    "packed npz": lambda: written_by(lambda out: np.savez_compressed(out, **ARRAYS)),
    "npy": lambda: written_by(lambda out: np.save(out, ARRAYS["layer.w"])),
    "Equinox": lambda: written_by(lambda out: [np.save(out, x) for x in ARRAYS.values()]),
    "PyTorch": pytorch,
    "Keras": keras,
    "HDF5": hdf5,
    "BSON": lambda: bson_files.document(bson_files.EVERYTHING),
    "JLD2": lambda: jld2_files.document(jld2_files.EVERYTHING),
}


@cache
def whole_file(format: str) -> bytes:
    return MAKERS[format]()


def tensor_bytes(x: Any) -> bytes:
    """Return the bytes of a tensor of PyTorch, in C order."""
    import torch

    x = x.detach().resolve_conj().resolve_neg().contiguous()
    data: bytes = x.reshape(-1).view(torch.uint8).numpy().tobytes() if x.numel() else b""
    return data
