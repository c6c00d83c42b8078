"""The formats of files that can be written, by name, and the suffixes that select them."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any, NamedTuple

from .bson import check_bson, write_bson
from .jld2 import check_jld2, write_jld2
from .msgpack import check_msgpack, write_msgpack
from .numpy import check_npy, check_npz, write_npy, write_npz
from .safetensors import check_safetensors, write_safetensors


class FileFormat(NamedTuple):
    """A format of files that can be written; its suffix is its name.

    Attributes:
      check: refuses what the format cannot hold, before anything is written.
      write: writes into a file what was checked, with metadata, or with the Julia types of an
        opened checkpoint where the format is ordered.
      nested: whether it is given a state, not arrays by their paths.
      ordered: whether the keys of the state's dicts keep their order.
      metadata: whether it holds metadata.
    """

    check: Callable[[Any], None]
    write: Callable[[IO[bytes], Any, Any], None]
    nested: bool = False
    ordered: bool = False
    metadata: bool = False


FILE_FORMATS = {
    "safetensors": FileFormat(check_safetensors, write_safetensors, metadata=True),
    "npz": FileFormat(check_npz, write_npz),
    "npy": FileFormat(check_npy, write_npy),
    "msgpack": FileFormat(check_msgpack, write_msgpack, nested=True),
    "bson": FileFormat(check_bson, write_bson, nested=True, ordered=True),
    "jld2": FileFormat(check_jld2, write_jld2, nested=True, ordered=True),
}
FLUX_STATE = "flux-state"  # the name of the formats that Flux.jl loads; the suffix selects one
FLUX_STATE_SUFFIXES = ("bson", "jld2")  # the first where the suffix is another
FORMAT_NAMES = ("orbax", *(x for x in FILE_FORMATS if x not in FLUX_STATE_SUFFIXES), FLUX_STATE)

READ_ONLY = {  # the suffixes of files that can be read and not written
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), "PyTorch"),
    **dict.fromkeys((".h5", ".hdf5"), "HDF5"),
    ".keras": "Keras",
    ".eqx": "Equinox",
    ".index.json": "shard index",
}
