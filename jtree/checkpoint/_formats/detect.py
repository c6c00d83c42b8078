"""Detection of a file's format, by its content; its name decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..._errors import CheckpointError
from .archive import Archive
from .bson import open_bson
from .bson_document import is_damaged_bson, starts_as_bson
from .describe import describe_path
from .equinox import is_equinox, json_size, open_equinox
from .file import File, FileContents, Path, as_checkpoint_error
from .jld2 import STARTS, open_jld2
from .keras import WEIGHTS, open_hdf5, open_keras
from .msgpack import open_msgpack
from .npy_array import MAGIC
from .numpy import open_npy, open_npz
from .safetensors import open_safetensors
from .shards import has_shards, open_shards
from .torch import open_torch

_START = 4096
_HDF5 = b"\x89HDF\r\n\x1a\n"
# What Flax writes begins with a dict, or is one array.
_MSGPACK = {*range(0x80, 0x90), *range(0xC7, 0xCA), *range(0xD4, 0xD9), 0xDE, 0xDF}


class FileReader(NamedTuple):
    """A kind of file: its name in messages, and the function that opens one."""

    name: str
    open: Callable[..., FileContents]


def open_file(path: Path, *, verify: bool) -> FileContents | None:
    """Return the contents of a file or a directory of shards, or None for other directories."""
    with as_checkpoint_error(path, "cannot read this file"):
        if path.is_dir() and not has_shards(path):
            return None
        reader = _detect(path)
    if reader is None:
        return None
    with as_checkpoint_error(path, f"cannot read this {reader.name}"):
        return reader.open(path, verify=verify)


def _detect(path: Path) -> FileReader | None:
    """Return the reader of a file, or None where its format is unknown."""
    if path.is_dir():
        return _SHARDS
    file = File(path)
    start = file.read(0, min(_START, file.size))
    if start.startswith(MAGIC):
        return FileReader("NumPy file", _open_npy)
    if start.startswith(b"PK"):
        return _detect_zipped(path)
    if start.startswith(_HDF5):
        return FileReader("HDF5 file", open_hdf5)
    if start.startswith(STARTS):
        return FileReader("JLD2 file", open_jld2)
    if starts_as_bson(start) and (_ends_as_bson(file) or b"\x02tag\0" in start):
        return FileReader("BSON file", open_bson)
    if is_damaged_bson(start):
        return None
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and (8 + length <= file.size or length < 2**40):
        return _SAFETENSORS
    if start.lstrip()[:1] in (b"{", b"[") and json_size(file):
        return FileReader("Equinox file", open_equinox)
    if start.lstrip()[:1] == b"{" and b'"weight_map"' in file.read(0, min(file.size, 2**26)):
        return _SHARDS
    pickled = start[:1] == b"\x80" and start[1:2] in {b"\2", b"\3", b"\4", b"\5"}
    if start and start[0] in _MSGPACK and not (pickled and file.size > 1):
        return FileReader("msgpack file", open_msgpack)
    return None


def _ends_as_bson(file: File) -> bool:
    """Return whether a file has the length that it declares, and a document's end."""
    declared = int.from_bytes(file.read(0, 4), "little")
    return declared == file.size and file.read(file.size - 1, 1) == b"\0"


def _detect_zipped(path: Path) -> FileReader:
    """Return the reader of a zip archive, by the names of its entries."""
    names = Archive(path, verify=False).entries
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return _TORCH
    if WEIGHTS in names:
        return FileReader("Keras file", open_keras)
    if all(name.endswith(".npy") for name in names):
        return FileReader("NumPy file", open_npz)
    raise CheckpointError(f"{path}: {describe_path(path)}")


def _open_npy(path: Path, **_: Any) -> FileContents:
    return open_equinox(path) if is_equinox(path) else open_npy(path)


def _open_shards(path: Path, *, verify: bool) -> FileContents:
    """Return the contents of shards, each of which may be a file of safetensors or PyTorch."""

    def open_shard(shard: Path) -> FileContents:
        with as_checkpoint_error(shard, "cannot read this shard"):
            reader = _detect(shard)
            if reader is None:
                raise ValueError(describe_path(shard))
            if reader not in (_SAFETENSORS, _TORCH):
                raise ValueError(f"expected safetensors or PyTorch, found a {reader.name}")
            return reader.open(shard, verify=verify)

    return open_shards(path, open_shard)


_SAFETENSORS = FileReader("safetensors file", open_safetensors)
_TORCH = FileReader("PyTorch file", open_torch)
_SHARDS = FileReader("sharded checkpoint", _open_shards)
