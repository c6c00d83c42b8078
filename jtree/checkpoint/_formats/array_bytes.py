"""The values of arrays as bytes, and the dtypes that a format has."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from ..._errors import ModelError
from ..._tree.lazy import LazyArray
from ..._tree.leaves import describe
from ..._tree.paths import show
from .file import little_endian


def check_dtype(path: str, x: Any, dtypes: Collection[Any], format: str) -> None:
    """Refuse an array that a format cannot hold: abstract, or of a dtype that it lacks."""
    if isinstance(x, jax.ShapeDtypeStruct):
        raise ModelError(
            f"{show(path)}: cannot save {describe(x)}: it is abstract; save a model with values"
        )
    plain = isinstance(x.dtype, np.dtype)
    if plain and little_endian(x.dtype) in dtypes:
        return
    remedy = "cast it, or use format='safetensors' or 'orbax'"
    if not plain:
        remedy = "save jax.random.key_data of it, or use format='orbax'"
    elif format == "safetensors":
        remedy = "cast it, or use format='orbax'"
    raise ModelError(f"{show(path)}: {format} cannot hold {describe(x)}; {remedy}")


def to_bytes(x: Any) -> memoryview:
    """Return the bytes of an array, in C order and little-endian; a lazy one is read."""
    host = np.ascontiguousarray(x.read() if isinstance(x, LazyArray) else np.asarray(x))
    if host.dtype.byteorder == ">" or (host.dtype.byteorder == "=" and sys.byteorder == "big"):
        host = host.astype(little_endian(host.dtype))
    return host.reshape(-1).view(np.uint8).data
