"""Files of NumPy: `.npy` holds one array, `.npz` is a zip archive of them.

Object arrays are pickles: they are listed and never read.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from ..._errors import ModelError
from ..._tree.lazy import LazyArray
from ..._tree.paths import show
from .archive import STORED, Archive, check_name
from .array_bytes import check_dtype, to_bytes
from .file import Entries, File, FileContents, Path, little_endian
from .npy_array import MAX_HEADER, lazy_array, parse_header, read_header, write_header

_DTYPES = {little_endian(code) for code in "?bhilqBHILQefdFD"}


def open_npy(path: Path, **_: Any) -> FileContents:
    """Return the one array of a file."""
    file = File(path)
    header = read_header(file, 0)
    header.check_size(file.size)
    source = Entries(file)
    return FileContents("npy", lazy_array(source, "(root)", header, 0), {}, source)


def open_npz(path: Path, *, verify: bool = True, **_: Any) -> FileContents:
    """Return the arrays of an archive by name."""
    archive = Archive(path, verify=verify)
    source = Entries(archive.file, verified=True)
    tree = {}
    for entry in archive.entries:
        if not entry.endswith(".npy"):
            raise ValueError(f"expected .npy files only, found {entry!r:.80}")
        name = entry.removesuffix(".npy")
        tree[name] = _member(source, archive, entry, name)
    return FileContents("npz", tree, {}, source)


def check_npz(arrays: Mapping[str, Any]) -> None:
    """Refuse dtypes and names that an archive of NumPy cannot hold."""
    for path, x in arrays.items():
        check_dtype(path, x, _DTYPES, "npz")
        if not path:
            raise ModelError("(root): npz needs a name for each array; use format='npy', or a dict")
        try:
            check_name(f"{path}.npy")
        except ValueError as error:
            raise ModelError(f"{show(path)}: {error}; rename it") from error


def write_npz(file: IO[bytes], arrays: Mapping[str, Any], _: Any) -> None:
    """Write arrays by name as an archive of NumPy."""
    with zipfile.ZipFile(file, "w") as archive:
        for path, x in arrays.items():
            entry = zipfile.ZipInfo(f"{path}.npy")
            with archive.open(entry, "w", force_zip64=True) as member:
                member.write(write_header(x))
                member.write(to_bytes(x))


def check_npy(arrays: Mapping[str, Any]) -> None:
    """Refuse anything but one array of a dtype that NumPy has."""
    if len(arrays) != 1:
        raise ModelError(f"npy holds one array, found {len(arrays)}; use format='npz'")
    for path, x in arrays.items():
        check_dtype(path, x, _DTYPES, "npy")


def write_npy(file: IO[bytes], arrays: Mapping[str, Any], _: Any) -> None:
    """Write one array."""
    (x,) = arrays.values()
    file.write(write_header(x))
    file.write(to_bytes(x))


def _member(source: Entries, archive: Archive, entry: str, name: str) -> LazyArray:
    """Return an array of an archive; its header is read, its values are not."""
    size = archive.entries[entry].size
    header = parse_header(_first_bytes(archive, entry, min(MAX_HEADER, size)))
    header.check_size(size)

    def read() -> np.ndarray[Any, Any]:
        header.check_values()
        x = header.build(archive.array(entry)[header.size :])
        return x if x.flags.aligned else x.copy()

    return source.add_named(name, header.shape, header.dtype.newbyteorder("="), read)


def _first_bytes(archive: Archive, entry: str, count: int) -> bytes:
    """Return the first bytes of an entry, uncompressed."""
    start, member = archive.start(entry), archive.entries[entry]
    if member.method == STORED:
        return archive.file.read(start, count)
    compressed = archive.file.read(start, min(member.compressed, 2**16))
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(compressed, count)
