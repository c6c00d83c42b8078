"""Layers in the canonical layout: read from one framework's arrays, written as another's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from .spec import ArraySpec, KeyPath, LayerSpec
from .transforms import Array, LayerOptions

CanonicalArrays = dict[str, Array]

TOKENS = ("bias_k", "bias_v")  # one more position to attend to, which changes all others
ONES = ("scale", "var")  # an absent one stands for ones, every other array for zeros


def to_canonical(
    layer_spec: LayerSpec, stored: Mapping[KeyPath, Array | None], options: LayerOptions
) -> CanonicalArrays:
    """Return the canonical arrays of a layer, from the arrays that its framework stores.

    Arrays of the same canonical name are added, such as the two biases of PyTorch's LSTM.
    """
    arrays: CanonicalArrays = {}
    for spec in layer_spec:
        array = stored.get(spec.key_path)
        if array is None or not spec.canonical:
            continue
        for name, block in zip(spec.canonical, _unpack(spec, array), strict=False):
            if name:
                x = spec.transform.to_canonical(block, options)
                arrays[name] = _add(arrays[name], x) if name in arrays else x
    return arrays


def from_canonical(
    spec: ArraySpec, arrays: Mapping[str, Array], options: LayerOptions, shape: Any
) -> Array | None:
    """Return an array as its framework stores it, or None where canonical arrays are missing."""
    if not all(name in arrays for name in spec.canonical):
        return None
    count, axis = len(spec.canonical), spec.axis
    if count > 1:
        shape = (*shape[:axis], shape[axis] // count, *shape[axis + 1 :])
    transform = spec.transform.from_canonical
    blocks = [transform(arrays[name], options, shape) for name in spec.canonical]
    return np.concatenate(blocks, axis) if count > 1 else blocks[0]


def lost_names(arrays: Mapping[str, Array], stored: Iterable[str]) -> list[str]:
    """Return the names of arrays that a destination does not store and that are not defaults."""
    lost = [name for name in arrays if name not in set(stored)]
    return [name for name in lost if not _is_default(name, arrays[name])]


def _unpack(spec: ArraySpec, stored: Array) -> list[Array]:
    """Return the blocks of an array, or none where they cannot be of equal size."""
    if spec.rows:
        stored = stored.reshape(-1) if stored.shape[:-1] == (spec.rows,) else stored[:0]
    count, axis = len(spec.canonical), spec.axis
    if count == 1:
        return [stored]
    if stored.ndim <= axis or not stored.size or stored.shape[axis] % count:
        return []
    return np.split(stored, count, axis)


def _is_default(name: str, x: Array) -> bool:
    if name in TOKENS:
        return False
    values = np.asarray(x, np.float64)
    return bool((values == 1).all()) if name in ONES else not values.any()


def _add(x: Array, y: Array) -> Array:
    """Add in at least single precision; the destination rounds the sum once."""
    dtype = jnp.promote_types(x.dtype, y.dtype)
    if jnp.finfo(dtype).bits < 32:
        dtype = jnp.dtype(jnp.float32)
    total: Array = np.add(np.asarray(x, dtype), np.asarray(y, dtype))
    return total
