"""The formats of files that can be written, by name, and the suffixes that select them."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any, NamedTuple

from .msgpack import check_msgpack, write_msgpack
from .numpy import check_npy, check_npz, write_npy, write_npz
from .safetensors import check_safetensors, write_safetensors


class FileFormat(NamedTuple):
    """A format of files that can be written; its suffix is its name.

    Attributes:
      check: refuses what the format cannot hold, before anything is written.
      write: writes into a file what was checked, with metadata.
      nested: whether it is given a state, not arrays by their paths.
      metadata: whether it holds metadata.
    """

    check: Callable[[Any], None]
    write: Callable[[IO[bytes], Any, Any], None]
    nested: bool = False
    metadata: bool = False


FILE_FORMATS = {
    "safetensors": FileFormat(check_safetensors, write_safetensors, metadata=True),
    "npz": FileFormat(check_npz, write_npz),
    "npy": FileFormat(check_npy, write_npy),
    "msgpack": FileFormat(check_msgpack, write_msgpack, nested=True),
}

READ_ONLY = {  # the suffixes of files that can be read and not written
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), "PyTorch"),
    **dict.fromkeys((".h5", ".hdf5"), "HDF5"),
    ".keras": "Keras",
    ".eqx": "Equinox",
    ".index.json": "shard index",
}
