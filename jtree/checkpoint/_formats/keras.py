"""Files of Keras: HDF5, alone or in a `.keras` archive. Their configuration is data, never run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np

from ..._errors import CheckpointError
from ..._tree import paths
from .._storage.atomic import Path, is_local
from . import hdf5_probe
from .archive import STORED, Archive
from .file import Entries, File, Opened, check_growth, native, nbytes, parse_json

FORMAT = "Keras"
WEIGHTS = "model.weights.h5"
_BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
_SECONDS, _SPEED = 60, 10**7  # that looking through a file may take, and bytes a second
_TEXT = 2**24  # bytes of a configuration at the most


def open_hdf5(path: Path, **_: Any) -> Opened:
    """Return what is in a file of HDF5."""
    file = File(path)
    return _open(file, 0, file.size, None)


def open_keras(path: Path, *, verify: bool = True, **_: Any) -> Opened:
    """Return the weights of a `.keras` archive, with its configuration as metadata."""
    archive = Archive(path, verify=verify)
    entry = archive.entries[WEIGHTS]
    if entry.method != STORED:
        raise ValueError(f"{WEIGHTS} is packed, which Keras never does; unpack it, and open that")
    archive.checked(WEIGHTS)()
    texts = [name for name in ("config.json", "metadata.json") if name in archive.entries]
    parsed = {name: parse_json(archive.read(name, _TEXT), archive.file.size) for name in texts}
    metadata = {name.removesuffix(".json"): x for name, x in parsed.items()}
    return _open(archive.file, archive.start(WEIGHTS), entry.size, metadata)


def _open(file: File, start: int, size: int, metadata: Any) -> Opened:
    source = Entries(file, FORMAT)
    _h5py(file.path)
    _look_through(file, start, size)
    reader = _Reader(file, start, size, source)
    with reader.open() as root:
        tree = reader.group(root, ())
        if metadata is None:
            metadata = dict(_attributes(root, file.size))
    return Opened(FORMAT, tree, metadata, source)


class _Reader:
    """The groups and datasets of a file."""

    def __init__(self, file: File, start: int, size: int, source: Entries) -> None:
        self.file = file
        self.start = start
        self.size = size
        self.source = source
        self.left = hdf5_probe.MANY
        self.total = 0

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Open the file for a while."""
        h5py = _h5py(self.file.path)
        window = hdf5_probe.Window(self.file.path.open("rb"), self.start, self.size)
        with window, h5py.File(window, "r") as found:
            yield found

    def group(self, group: Any, parts: tuple[str, ...]) -> dict[str, Any]:
        """Return what is in a group, by name."""
        return {name: self._member(group, name, (*parts, name)) for name in group}

    def _member(self, group: Any, name: str, parts: tuple[str, ...]) -> Any:
        h5py = _h5py(self.file.path)
        path = paths.join(parts)
        self.left -= 1
        if self.left < 0 or len(parts) > hdf5_probe.DEEP:
            raise ValueError("its groups are nested too deeply, or too many")
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{path} is a link to another place or file, which is not followed")
        found = group[name]
        if isinstance(found, h5py.Group):
            return self.group(found, parts)
        if not isinstance(found, h5py.Dataset):
            return ()
        return self._dataset(found, path)

    def _dataset(self, x: Any, path: str) -> Any:
        if x.external or x.is_virtual:
            raise ValueError(f"{path} has its numbers in other files, which are not read")
        if x.shape is None or x.dtype.kind not in "biufcV" or x.dtype.names or x.dtype.subdtype:
            return ()  # text, as the names of optimisers
        dtype = _dtype(x)
        shape = tuple(map(int, x.shape))
        self.total += nbytes(shape, dtype)
        if x.id.get_storage_size() < nbytes(shape, dtype):
            check_growth(self.total, self.file.size)
        stored, offset = x.dtype, _offset(x)
        if offset is None:
            return self.source.add_named(path, shape, dtype, lambda: self._read(path, shape, dtype))
        return self.source.add_named(
            path,
            shape,
            dtype,
            lambda: native(self.file.array(self.start + offset, shape, stored)).view(dtype),
        )

    def _read(self, path: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        self.file.array(0, (0,), np.uint8)  # the file must be what it was
        with self.open() as root:
            dataset = root[path]
            out = np.empty(shape, dataset.dtype)
            if out.size:
                dataset.read_direct(out)
        found: np.ndarray[Any, Any] = native(out).view(dtype)
        return found


def _look_through(file: File, start: int, size: int) -> None:
    """Let another process do all that this one will do, so that a crash is not ours."""
    if not is_local(file.path) or not sys.executable:
        return
    command = [sys.executable, "-P", hdf5_probe.__file__, str(file.path), str(start), str(size)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    seconds = _SECONDS + size / _SPEED
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=env)
    except subprocess.TimeoutExpired:
        raise ValueError("it is damaged: the library of HDF5 never returns from it") from None
    if done.returncode == 3:
        raise ValueError(done.stdout.strip())
    if done.returncode < 0:
        raise ValueError("it is damaged: the library of HDF5 crashes on it, or never returns")


def _offset(x: Any) -> int | None:
    """Return where the numbers of a dataset are, if they are as NumPy has them, in one piece."""
    from h5py import h5t

    plain = x.chunks is None and x.dtype.kind in "iufV" and not x.file.userblock_size
    if not plain or h5t.py_create(x.dtype) != x.id.get_type():
        return None
    found: int | None = x.id.get_offset()
    return found


def _dtype(x: Any) -> np.dtype[Any]:
    """Return the dtype of a dataset; Keras says bfloat16 in words."""
    name = x.attrs.get("dtype")
    if x.dtype.itemsize == 2 and x.dtype.kind == "V" and name in ("bfloat16", b"bfloat16"):
        return _BFLOAT16
    found: np.dtype[Any] = x.dtype.newbyteorder("=")
    return found


def _attributes(root: Any, size: int) -> Iterator[tuple[str, Any]]:
    """Yield what the file says of itself: text, which is JSON where it looks like it."""
    for name in root.attrs:
        space = root.attrs.get_id(name)
        if space.get_storage_size() > _TEXT:
            continue
        x = root.attrs[name]
        x = x.decode(errors="replace") if isinstance(x, bytes) else x
        if isinstance(x, str) and len(x) <= _TEXT:
            yield name, parse_json(x.encode(), size) if x.startswith("{") else x


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise CheckpointError(
            f'{path}: this is an HDF5 file, which h5py reads; run: pip install "jtree[keras]"'
        ) from error
    return h5py
