"""Files of NumPy: npy, one array; npz, an archive of them; and Equinox, one after another.

Source: NEP 1, "A simple file format for NumPy arrays". Pickles in them are never read.
"""

from __future__ import annotations

import ast
import io
import zlib
from typing import Any, NamedTuple

import numpy as np

from ..._tree.lazy import LazyArray
from .._storage.atomic import Path
from .archive import STORED, Archive
from .file import Budget, Entries, File, Opened, native, nbytes

MAGIC = b"\x93NUMPY"
_HEADER = 10_000  # bytes at the most, as numpy.load has it


class Header(NamedTuple):
    """What stands before the numbers of an array, and how many bytes it takes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    size: int

    @property
    def nbytes(self) -> int:
        """The bytes of the numbers."""
        return nbytes(self.shape, self.dtype)

    def build(self, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the array that these bytes are."""
        shape = self.shape[::-1] if self.fortran else self.shape
        x = data.view(self.dtype).reshape(shape)
        return native(x.T if self.fortran else x)


def open_npy(path: Path, **_: Any) -> Opened:
    """Return the array in a file; where more follow it, those of an Equinox model."""
    file = File(path)
    first = read_header(file, 0, file.size)
    if str(path).endswith(".eqx") or first.size + first.nbytes < file.size:
        return _open_equinox(file)
    source = Entries(file, "npy")
    _check_end(first, file.size)
    return Opened("npy", _lazy(source, "(root)", file, first, 0), {}, source)


def _open_equinox(file: File) -> Opened:
    """Return arrays by number: an Equinox file has no names."""
    source = Entries(file, "Equinox")
    leaves: list[LazyArray] = []
    at = 0
    budget = Budget(file.size)
    while at < file.size:
        budget.spend()
        header = read_header(file, at, file.size)
        end = at + header.size + header.nbytes
        _check_end(header, end - at)
        leaves.append(_lazy(source, f"leaf/{len(leaves)}", file, header, at))
        at = end
    return Opened("Equinox", {"leaf": leaves}, {}, source)


def open_npz(path: Path, *, verify: bool = True, **_: Any) -> Opened:
    """Return the arrays of an archive by name."""
    archive = Archive(path, verify=verify)
    source = Entries(archive.file, "npz", verified=True)
    tree = {}
    for entry in archive.entries:
        if not entry.endswith(".npy"):
            raise ValueError(f"{entry!r:.80} is no array, as all of a NumPy archive are")
        name = entry.removesuffix(".npy")
        tree[name] = _member(source, archive, entry, name)
    return Opened("npz", tree, {}, source)


def read_header(file: File, start: int, end: int) -> Header:
    """Return the header of an array whose numbers must end there, or before."""
    header = parse_header(file.read(start, min(_HEADER + 12, end - start)))
    if header.size + header.nbytes > end - start:
        raise ValueError(
            f"it ends too early: {header.dtype}{list(header.shape)} takes {header.nbytes:,} bytes, "
            f"and there are {end - start - header.size:,}"
        )
    return header


def parse_header(text: bytes) -> Header:
    """Return what the first bytes of a file say of its array."""
    if text[:6] != MAGIC or len(text) < 12 or text[6] not in (1, 2, 3) or text[7]:
        raise ValueError("an array does not begin as those of NumPy do")
    wide = 2 if text[6] == 1 else 4
    length, start = int.from_bytes(text[8 : 8 + wide], "little"), 8 + wide
    if length > _HEADER or start + length > len(text):
        raise ValueError(f"its header would take {length:,} bytes")
    found = ast.literal_eval(text[start : start + length].decode("utf-8" if wide > 2 else "latin1"))
    if not isinstance(found, dict) or found.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("its header is not that of an array")
    dtype = np.lib.format.descr_to_dtype(found["descr"])
    shape, fortran = found["shape"], found["fortran_order"]
    if dtype.names or dtype.subdtype or (dtype.hasobject and dtype.kind != "O"):
        raise ValueError(f"arrays of {dtype!s:.80} are not read")
    if not isinstance(shape, tuple) or type(fortran) is not bool:
        raise ValueError("its header is not that of an array")
    if dtype.kind == "O":
        return Header(dtype, shape, fortran, start + length)
    nbytes(shape, dtype)
    return Header(dtype, shape, fortran, start + length)


def write_header(x: Any) -> bytes:
    """Return what stands before the numbers of an array in C order."""
    out = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(x.dtype).newbyteorder("<"))
    header = {"descr": descr, "fortran_order": False, "shape": tuple(x.shape)}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue()


def _lazy(source: Entries, name: str, file: File, header: Header, start: int) -> LazyArray:
    place = start + header.size

    def read() -> np.ndarray[Any, Any]:
        _check_numbers(header)
        return header.build(file.array(place, (header.nbytes,), np.uint8))

    return source.add_named(name, header.shape, header.dtype.newbyteorder("="), read)


def _member(source: Entries, archive: Archive, entry: str, name: str) -> LazyArray:
    """Return an array of an archive; its header is read, the numbers are not."""
    info, file, start = archive.entries[entry], archive.file, archive.start(entry)
    count = min(_HEADER + 12, info.size)
    text = file.read(start, count) if info.method == STORED else _first(archive, entry, count)
    header = parse_header(text)
    _check_end(header, info.size)

    def read() -> np.ndarray[Any, Any]:
        _check_numbers(header)
        x = header.build(archive.array(entry)[header.size :])
        return x if x.flags.aligned else x.copy()

    return source.add_named(name, header.shape, header.dtype.newbyteorder("="), read)


def _first(archive: Archive, entry: str, count: int) -> bytes:
    """Return the first bytes of what is packed."""
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    packed = archive.entries[entry].packed
    return unpack.decompress(archive.file.read(archive.start(entry), min(packed, 2**16)), count)


def _check_end(header: Header, size: int) -> None:
    """Refuse numbers that do not end where their file does; of a pickle the size is not known."""
    if header.dtype.kind != "O" and header.size + header.nbytes != size:
        raise ValueError(
            f"{header.dtype}{list(header.shape)} takes {header.nbytes:,} bytes, and there are "
            f"{size - header.size:,}"
        )


def _check_numbers(header: Header) -> None:
    if header.dtype.kind == "O":
        raise ValueError("it is a pickle of Python objects, which could run code")
