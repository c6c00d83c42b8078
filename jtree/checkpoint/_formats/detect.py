"""Which format a file has, told by its content; its name decides nothing."""

from __future__ import annotations

from collections.abc import Callable

from .._storage.atomic import MARK, Path
from .archive import Archive
from .describe import looks_like
from .file import File, Opened, explained
from .keras import WEIGHTS, open_hdf5, open_keras
from .msgpack import open_msgpack
from .numpy import MAGIC, open_npy, open_npz
from .safetensors import open_safetensors
from .shards import has_shards, open_shards
from .torch import open_torch

Reader = Callable[..., Opened]
_START = 4096
_HDF5 = b"\x89HDF\r\n\x1a\n"
# What flax writes begins with a dict, or is one array.
_MSGPACK = {*range(0x80, 0x90), *range(0xC7, 0xCA), *range(0xD4, 0xD9), 0xDE, 0xDF}


def open_file(path: Path, *, verify: bool) -> Opened | None:
    """Return what is in a file, or a directory of shards; None where it is Orbax's to say."""
    with explained(path, "it cannot be read"):
        if not path.exists() or (path.is_dir() and not _is_of_shards(path)):
            return None
        found = _reader(path)
    if found is None:
        return None
    kind, reader = found
    what = "these shards" if reader is _open_shards else f"this {kind} file"
    with explained(path, f"{what} cannot be read"):
        return reader(path, verify=verify)


def _is_of_shards(path: Path) -> bool:
    return not (path / MARK).exists() and has_shards(path)


def _open_shards(path: Path, *, verify: bool) -> Opened:
    """Return what is in shards, each of which may be of safetensors or of PyTorch."""

    def open_one(shard: Path) -> Opened:
        with explained(shard, "this shard cannot be read"):
            kind, reader = _reader(shard) or ("", None)
            if reader not in (open_safetensors, open_torch):
                raise ValueError(looks_like(shard) if reader is None else f"it is of {kind}")
            return reader(shard, verify=verify)

    return open_shards(path, open_one)


def _reader(path: Path) -> tuple[str, Reader] | None:
    """Return the name of a format and what reads it; None where no reader knows it."""
    if path.is_dir():
        return "shards", _open_shards
    file = File(path)
    size = file.size
    start = file.read(0, min(_START, size))
    if start.startswith(MAGIC):
        return "NumPy", open_npy
    if start.startswith(b"PK"):
        return _zipped(path)
    if start.startswith(_HDF5):
        return "HDF5", open_hdf5
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and (8 + length <= size or length < 2**40):
        return "safetensors", open_safetensors
    if start.lstrip()[:1] == b"{" and b'"weight_map"' in _all(path, size):
        return "shards", _open_shards
    pickled = start[:1] == b"\x80" and start[1:2] in {b"\2", b"\3", b"\4", b"\5"}
    if start and start[0] in _MSGPACK and not (pickled and size > 1):
        return "msgpack", open_msgpack
    return None


def _all(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        found: bytes = file.read(min(size, 2**26))
    return found


def _zipped(path: Path) -> tuple[str, Reader]:
    """Return what reads a zip archive: that of its entries' names."""
    names = Archive(path, verify=False).entries
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return "PyTorch", open_torch
    if WEIGHTS in names:
        return "Keras", open_keras
    if all(name.endswith(".npy") for name in names):
        return "NumPy", open_npz
    raise ValueError(looks_like(path))
