"""Files of Keras: HDF5, alone or in a `.keras` archive. Their configuration is data, never run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import ml_dtypes
import numpy as np

from ..._extras import check_extra
from ..._tree import paths
from . import hdf5_probe
from .archive import STORED, Archive
from .file import Entries, File, FileContents, Path, to_native
from .limits import array_nbytes, check_growth, parse_json

WEIGHTS = "model.weights.h5"
_BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
_PROBE_SECONDS, _PROBE_SPEED = 60, 10**7  # the longest that a probe may take, and bytes a second
_MAX_TEXT = 2**24  # bytes of a configuration


def open_hdf5(path: Path, **_: Any) -> FileContents:
    """Return the arrays of a file of HDF5."""
    file = File(path)
    return _open(file, 0, file.size, None)


def open_keras(path: Path, *, verify: bool = True, **_: Any) -> FileContents:
    """Return the weights of a `.keras` archive, with its configuration as metadata."""
    archive = Archive(path, verify=verify)
    entry = archive.entries[WEIGHTS]
    if entry.method != STORED:
        raise ValueError(f"{WEIGHTS} is compressed, which Keras never does; extract and open it")
    archive.checker(WEIGHTS)()
    texts = [name for name in ("config.json", "metadata.json") if name in archive.entries]
    metadata = {
        name.removesuffix(".json"): parse_json(archive.read(name, _MAX_TEXT), archive.file.size)
        for name in texts
    }
    return _open(archive.file, archive.start(WEIGHTS), entry.size, metadata)


def _open(file: File, start: int, size: int, metadata: Any) -> FileContents:
    source = Entries(file)
    _import_h5py(file.path)
    _probe(file, start, size)
    reader = _Hdf5Reader(file, start, size, source)
    with reader.open() as root:
        tree = reader.group(root, ())
        if metadata is None:
            metadata = dict(_attributes(root, file.size))
    return FileContents("Keras", tree, metadata, source)


class _Hdf5Reader:
    """The groups and datasets of a file."""

    def __init__(self, file: File, start: int, size: int, source: Entries) -> None:
        self.file = file
        self.start = start
        self.size = size
        self.source = source
        self.left = hdf5_probe.MAX_ITEMS
        self.total = 0

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Open the file for the time of a block."""
        h5py = _import_h5py(self.file.path)
        window = hdf5_probe.Window(self.file.path.open("rb"), self.start, self.size)
        with window, h5py.File(window, "r") as root:
            yield root

    def group(self, group: Any, parts: tuple[str, ...]) -> dict[str, Any]:
        """Return the members of a group by name."""
        return {name: self._member(group, name, (*parts, name)) for name in group}

    def _member(self, group: Any, name: str, parts: tuple[str, ...]) -> Any:
        h5py = _import_h5py(self.file.path)
        path = paths.join(parts)
        self.left -= 1
        if self.left < 0 or len(parts) > hdf5_probe.MAX_DEPTH:
            raise ValueError(
                f"expected at most {hdf5_probe.MAX_ITEMS:,} groups and datasets, nested at most "
                f"{hdf5_probe.MAX_DEPTH} levels deep"
            )
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{path} is a link to another path or file; links are not followed")
        item = group[name]
        if isinstance(item, h5py.Group):
            return self.group(item, parts)
        return self._dataset(item, path) if isinstance(item, h5py.Dataset) else ()

    def _dataset(self, x: Any, path: str) -> Any:
        if x.external or x.is_virtual:
            raise ValueError(f"{path} has its values in other files, which are not read")
        if x.shape is None or x.dtype.kind not in "biufcV" or x.dtype.names or x.dtype.subdtype:
            return ()  # text, such as the names of optimizers
        dtype = _dtype(x)
        shape = tuple(map(int, x.shape))
        nbytes = array_nbytes(shape, dtype)
        self.total += nbytes
        if x.id.get_storage_size() < nbytes:
            check_growth(self.total, self.file.size)
        stored, offset = x.dtype, _offset(x)
        if offset is None:
            return self.source.add_named(path, shape, dtype, lambda: self._read(path, shape, dtype))
        return self.source.add_named(
            path,
            shape,
            dtype,
            lambda: to_native(self.file.array(self.start + offset, shape, stored)).view(dtype),
        )

    def _read(self, path: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        self.file.check_unchanged()
        with self.open() as root:
            dataset = root[path]
            out = np.empty(shape, dataset.dtype)
            if out.size:
                dataset.read_direct(out)
        array: np.ndarray[Any, Any] = to_native(out).view(dtype)
        return array


def _probe(file: File, start: int, size: int) -> None:
    """Let another process read the file first, so that a crash is not ours."""
    if not file.islocal or not sys.executable:
        return
    command = [sys.executable, "-P", hdf5_probe.__file__, str(file.path), str(start), str(size)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    seconds = _PROBE_SECONDS + size / _PROBE_SPEED
    try:
        probe = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=env)
    except subprocess.TimeoutExpired:
        raise ValueError("damaged: the HDF5 library never returns from it") from None
    if probe.returncode == hdf5_probe.UNREADABLE:
        raise ValueError(probe.stdout.strip())
    if probe.returncode < 0:
        raise ValueError("damaged: the HDF5 library crashes on it or never returns from it")


def _offset(x: Any) -> int | None:
    """Return the offset of a dataset's values, if they are in one piece and as NumPy has them."""
    from h5py import h5t

    plain = x.chunks is None and x.dtype.kind in "iufV" and not x.file.userblock_size
    if not plain or h5t.py_create(x.dtype) != x.id.get_type():
        return None
    offset: int | None = x.id.get_offset()
    return offset


def _dtype(x: Any) -> np.dtype[Any]:
    """Return the dtype of a dataset; Keras writes bfloat16 as an attribute."""
    name = x.attrs.get("dtype")
    if x.dtype.itemsize == 2 and x.dtype.kind == "V" and name in ("bfloat16", b"bfloat16"):
        return _BFLOAT16
    dtype: np.dtype[Any] = x.dtype.newbyteorder("=")
    return dtype


def _attributes(root: Any, size: int) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a file that are text, parsed where they are JSON."""
    for name in root.attrs:
        if root.attrs.get_id(name).get_storage_size() > _MAX_TEXT:
            continue
        x = root.attrs[name]
        x = x.decode(errors="replace") if isinstance(x, bytes) else x
        if isinstance(x, str) and len(x) <= _MAX_TEXT:
            yield name, parse_json(x.encode(), size) if x.startswith("{") else x


def _import_h5py(path: Path) -> Any:
    check_extra(f"{path}: reading HDF5", "keras", "h5py")
    return import_module("h5py")
