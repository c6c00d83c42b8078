"""One array in the format of NumPy: a header, then its values.

Source: NEP 1, "A simple file format for NumPy arrays".
"""

from __future__ import annotations

import ast
import io
from typing import Any, NamedTuple

import numpy as np

from ..._tree.lazy import LazyArray
from .file import Entries, File, little_endian, to_native
from .limits import array_nbytes

MAGIC = b"\x93NUMPY"
MAX_HEADER = 10_000 + 12  # bytes, as in numpy.load, and what stands before them


class NpyHeader(NamedTuple):
    """The dtype, shape and order of an array, and the bytes that its header takes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    size: int

    @property
    def nbytes(self) -> int:
        """The bytes of the values."""
        return array_nbytes(self.shape, self.dtype)

    def build(self, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the array that these bytes are."""
        shape = self.shape[::-1] if self.fortran else self.shape
        x = data.view(self.dtype).reshape(shape)
        return to_native(x.T if self.fortran else x)

    def check_size(self, size: int) -> None:
        """Refuse an array that does not fill a file of this size; a pickle may have any."""
        if self.dtype.kind != "O" and self.size + self.nbytes != size:
            raise ValueError(
                f"expected {self.nbytes:,} bytes for {self.dtype}{list(self.shape)}, found "
                f"{size - self.size:,}"
            )

    def check_values(self) -> None:
        """Refuse a pickle of Python objects."""
        if self.dtype.kind == "O":
            raise ValueError(
                "it is a pickle of Python objects, which could run code; save it with a numeric "
                "dtype"
            )


def read_header(file: File, start: int) -> NpyHeader:
    """Return the header at an offset of a file that must hold its values, too."""
    rest = file.size - start
    header = parse_header(file.read(start, min(MAX_HEADER, rest)))
    if header.size + header.nbytes > rest:
        raise ValueError(
            f"truncated: expected {header.nbytes:,} bytes for {header.dtype}{list(header.shape)}, "
            f"found {rest - header.size:,}"
        )
    return header


def parse_header(text: bytes) -> NpyHeader:
    """Return the header that the first bytes of a file hold."""
    if text[:6] != MAGIC or len(text) < 12 or text[6] not in (1, 2, 3) or text[7]:
        raise ValueError("expected a NumPy array, found other bytes")
    width = 2 if text[6] == 1 else 4
    length, start = int.from_bytes(text[8 : 8 + width], "little"), 8 + width
    if length > MAX_HEADER - 12 or start + length > len(text):
        raise ValueError(f"invalid array header of {length:,} bytes")
    encoding = "utf-8" if width > 2 else "latin1"
    try:
        fields = ast.literal_eval(text[start : start + length].decode(encoding))
    except Exception as error:  # whatever a parser of Python raises
        raise ValueError("invalid array header") from error
    if not isinstance(fields, dict) or fields.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("invalid array header")
    dtype = _parse_dtype(fields["descr"])
    shape, fortran = fields["shape"], fields["fortran_order"]
    if dtype.names or dtype.subdtype or (dtype.hasobject and dtype.kind != "O"):
        raise ValueError(f"arrays of {dtype!s:.80} are not supported")
    if not isinstance(shape, tuple) or type(fortran) is not bool:
        raise ValueError("invalid array header")
    array_nbytes(shape, np.uint8 if dtype.kind == "O" else dtype)
    return NpyHeader(dtype, shape, fortran, start + length)


def _parse_dtype(descr: Any) -> np.dtype[Any]:
    try:
        return np.lib.format.descr_to_dtype(descr)
    except Exception as error:  # NumPy raises nearly everything
        raise ValueError(f"unknown dtype {descr!r:.80}") from error


def lazy_array(source: Entries, name: str, header: NpyHeader, start: int) -> LazyArray:
    """Return the array whose header begins at an offset of a file."""

    def read() -> np.ndarray[Any, Any]:
        header.check_values()
        return header.build(source.file.array(start + header.size, (header.nbytes,), np.uint8))

    return source.add_named(name, header.shape, header.dtype.newbyteorder("="), read)


def write_header(x: Any) -> bytes:
    """Return the header of an array in C order."""
    out = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(little_endian(x.dtype))
    header = {"descr": descr, "fortran_order": False, "shape": tuple(x.shape)}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue()
