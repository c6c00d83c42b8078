"""A layer in the common form: read from a source, checked, and written for a destination."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from .spec import Form, Part, Steps
from .transforms import Array, Options

Roles = dict[str, Array]

TOKENS = ("bias_k", "bias_v")  # one more position to attend to, which changes all others
ONES = ("scale", "var")  # what an absent parameter stands for; zero for every other one


def inner(part: Part) -> Steps:
    """Return the steps of an array below its layer."""
    return tuple(part.name.split("/"))


def read(form: Form, fetch: Callable[[Steps], Any], options: Options) -> Roles:
    """Return a layer in the common form; an array that is None is not there.

    What is there twice is added, such as the two biases of PyTorch's LSTM.
    """
    out: Roles = {}
    for part in form:
        x = fetch(inner(part))
        if x is None or not part.roles:
            continue
        if part.rows:
            x = x.reshape(-1) if x.shape[:-1] == (part.rows,) else x[:0]
        packed = len(part.roles) > 1
        if packed and (x.ndim <= part.axis or not x.size or x.shape[part.axis] % len(part.roles)):
            continue
        blocks = np.split(x, len(part.roles), part.axis) if packed else [x]
        for role, block in zip(part.roles, blocks, strict=True):
            found = part.turn.read(block, options)
            if role:
                out[role] = _add(out[role], found) if role in out else found
    return out


def write(part: Part, roles: Mapping[str, Array], options: Options, shape: Any) -> Array | None:
    """Return one array of a layer as its framework stores it; None where the source has none."""
    if not all(role in roles for role in part.roles):
        return None
    number = len(part.roles)
    if number > 1:
        axis = part.axis
        shape = (*shape[:axis], shape[axis] // number, *shape[axis + 1 :])
    blocks = [part.turn.write(roles[role], options, shape) for role in part.roles]
    return np.concatenate(blocks, part.axis) if number > 1 else blocks[0]


def unheld(roles: Mapping[str, Array], held: Iterable[str]) -> list[str]:
    """Return the roles that a destination has no place for, and that are not neutral."""
    left = [role for role in roles if role not in set(held)]
    return [role for role in left if not _neutral(role, roles[role])]


def _neutral(role: str, x: Array) -> bool:
    if role in TOKENS:
        return False
    wide = np.asarray(x, np.float64)
    return bool((wide == 1).all()) if role in ONES else not wide.any()


def _add(x: Array, y: Array) -> Array:
    """Add in at least single precision; it is rounded once, by the destination."""
    dtype = jnp.promote_types(x.dtype, y.dtype)
    if jnp.finfo(dtype).bits < 32:
        dtype = jnp.dtype(jnp.float32)
    total: Array = np.add(np.asarray(x, dtype), np.asarray(y, dtype))
    return total
