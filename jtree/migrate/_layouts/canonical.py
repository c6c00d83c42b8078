"""A layer in the common form: read from a source, checked, and written for a destination."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from .spec import ArraySpec, KeyPath, LayerSpec
from .transforms import Array, Options

CanonicalArrays = dict[str, Array]

TOKENS = ("bias_k", "bias_v")  # one more position to attend to, which changes all others
ONES = ("scale", "var")  # what an absent parameter stands for; zero for every other one


def to_canonical(
    layer_spec: LayerSpec, fetch: Callable[[KeyPath], Any], options: Options
) -> CanonicalArrays:
    """Return a layer in the common form; an array that is None is not there.

    What is there twice is added, such as the two biases of PyTorch's LSTM.
    """
    out: CanonicalArrays = {}
    for part in layer_spec:
        x = fetch(part.key_path)
        if x is None or not part.canonical:
            continue
        if part.rows:
            x = x.reshape(-1) if x.shape[:-1] == (part.rows,) else x[:0]
        packed = len(part.canonical) > 1
        if packed and (
            x.ndim <= part.axis or not x.size or x.shape[part.axis] % len(part.canonical)
        ):
            continue
        blocks = np.split(x, len(part.canonical), part.axis) if packed else [x]
        for canonical_name, block in zip(part.canonical, blocks, strict=True):
            found = part.transform.read(block, options)
            if canonical_name:
                out[canonical_name] = (
                    _add(out[canonical_name], found) if canonical_name in out else found
                )
    return out


def from_canonical(
    part: ArraySpec, canonical: Mapping[str, Array], options: Options, shape: Any
) -> Array | None:
    """Return one array of a layer as its framework stores it; None where the source has none."""
    if not all(canonical_name in canonical for canonical_name in part.canonical):
        return None
    number = len(part.canonical)
    if number > 1:
        axis = part.axis
        shape = (*shape[:axis], shape[axis] // number, *shape[axis + 1 :])
    blocks = [
        part.transform.write(canonical[canonical_name], options, shape)
        for canonical_name in part.canonical
    ]
    return np.concatenate(blocks, part.axis) if number > 1 else blocks[0]


def lost_names(canonical: Mapping[str, Array], held: Iterable[str]) -> list[str]:
    """Return the names of arrays that a destination has no place for, and that are not neutral."""
    left = [canonical_name for canonical_name in canonical if canonical_name not in set(held)]
    return [
        canonical_name
        for canonical_name in left
        if not _neutral(canonical_name, canonical[canonical_name])
    ]


def _neutral(canonical_name: str, x: Array) -> bool:
    if canonical_name in TOKENS:
        return False
    wide = np.asarray(x, np.float64)
    return bool((wide == 1).all()) if canonical_name in ONES else not wide.any()


def _add(x: Array, y: Array) -> Array:
    """Add in at least single precision; it is rounded once, by the destination."""
    dtype = jnp.promote_types(x.dtype, y.dtype)
    if jnp.finfo(dtype).bits < 32:
        dtype = jnp.dtype(jnp.float32)
    total: Array = np.add(np.asarray(x, dtype), np.asarray(y, dtype))
    return total
