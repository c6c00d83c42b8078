"""Matrices of operators: products with unit vectors, in chunks, written in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ... import _progress
from ..._errors import ArgumentError, ArgumentTypeError
from ..._tree.leaves import describe, istracer
from . import memory as _memory
from .protocol import Linear, Parts, Symmetric

_CHUNK = 32  # products at once; 16 to 64 are alike on a CPU
_GROUPS = 8  # how many times the operator is linearised, so that compiling stays cheap


class Options(NamedTuple):
    """What `Operator.dense` is asked."""

    chunk: int | str | None
    memory: int | None
    sharding: jax.sharding.Sharding | None
    progress: bool


def dense(op: Symmetric, options: Options) -> jax.Array:
    """Return the matrix of an operator that can be traced."""
    chunk, memory, sharding, progress = options
    if sharding is not None:
        return _sharded(op, sharding, chunk)
    if any(map(istracer, jax.tree.leaves(op))):
        return op._matrix(chunk, None, False)
    budget = _memory.left(op, memory)
    with _progress.progress_bar("dense", 1.0, shown=progress, unit="share") as bar:
        found: jax.Array = _matrix(op, chunk, budget, bool(bar))
        return jax.block_until_ready(found) if bar else found


def check_chunk(chunk: Any) -> None:
    """Refuse what is no number of products at once."""
    if chunk in ("auto", None):
        return
    if not isinstance(chunk, int) or isinstance(chunk, bool):
        raise ArgumentTypeError(f"chunk: expected a number or 'auto', found {describe(chunk)}")
    if chunk < 1:
        raise ArgumentError(f"chunk: expected 1 or more, found {chunk}")


@partial(jax.jit, static_argnums=(1, 2, 3))
def _matrix(op: Symmetric, chunk: Any, budget: int | None, shown: bool) -> jax.Array:
    return op._matrix(chunk, budget, shown)


def matrix(parts: Parts, dtype: Any, chunk: Any, budget: int | None, shown: bool) -> jax.Array:
    """Return the matrix, group by group of pieces, each against itself and those behind it."""
    n = sum(parts.sizes)
    out = jnp.zeros((n, n), dtype)
    groups = _groups(parts)
    for g, group in enumerate(groups):
        others = tuple(sorted(k for later in groups[g + 1 :] for k in later))
        out = _fill(out, parts, group, others, chunk, budget, shown)
    return out


def wide(x: jax.Array) -> jax.Array:
    """Return half precision as single, which decompositions need at the least."""
    return x.astype(np.promote_types(x.dtype, np.float32))


def _starts(sizes: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(sizes).tolist()]


def _fill(
    out: jax.Array,
    parts: Parts,
    group: tuple[int, ...],
    others: tuple[int, ...],
    chunk: Any,
    budget: int | None,
    shown: bool,
) -> jax.Array:
    """Write the rows and the columns of a group of pieces, against itself and others."""
    starts = _starts(parts.sizes)
    linear = parts.mapping(group, group + others)
    first, sizes = starts[group[0]], [parts.sizes[k] for k in group]
    runs = _runs(others, starts, len(group))

    def write(out: jax.Array, i: Any, rows: Sequence[jax.Array]) -> jax.Array:
        out = lax.dynamic_update_slice(out, _wide(rows[: len(group)]), (first + i, first))
        for start, places in runs:
            block = _wide([rows[place] for place in places])
            out = lax.dynamic_update_slice(out, block, (first + i, start))
            out = lax.dynamic_update_slice(out, block.T, (start, first + i))
        return out

    return _in_chunks(out, linear, sizes, write, chunk, budget, shown)


def _runs(numbers: Sequence[int], starts: Sequence[int], skip: int) -> list[tuple[int, list[int]]]:
    """Return stretches of the vector without a gap: where each starts, and its places in a list."""
    runs: list[tuple[int, list[int]]] = []
    for place, k in enumerate(numbers):
        if place and numbers[place - 1] == k - 1:
            runs[-1][1].append(place + skip)
        else:
            runs.append((starts[k], [place + skip]))
    return runs


def _wide(rows: Sequence[jax.Array]) -> jax.Array:
    return rows[0] if len(rows) == 1 else jnp.concatenate(list(rows), 1)


def _in_chunks(
    out: jax.Array,
    linear: Linear,
    sizes: Sequence[int],
    write: Callable[[jax.Array, Any, Sequence[jax.Array]], jax.Array],
    chunk: Any,
    budget: int | None,
    shown: bool,
) -> jax.Array:
    """Apply a linear function to all unit vectors, some at once, and write what it returns.

    The last chunk starts where it still fits, and computes some rows again.
    """
    length, starts, dtype = sum(sizes), _starts(sizes), out.dtype
    if length == 0:
        return out
    k = min(length, chunk if isinstance(chunk, int) else _chunk(linear, sizes, dtype, budget))

    def body(c: Any, out: jax.Array) -> jax.Array:
        i = jnp.minimum(c * k, length - k)
        place = i + jnp.arange(k)[:, None]
        units = [(place == jnp.arange(a, b)[None]).astype(dtype) for a, b in pairwise(starts)]
        rows = jax.vmap(linear)(units)
        if shown:
            jax.debug.callback(_progress.advance_innermost, k / out.shape[0])
        return write(out, i, rows)

    count = math.ceil(length / k)
    return body(0, out) if count == 1 else lax.fori_loop(0, count, body, out)


def _chunk(linear: Linear, sizes: Sequence[int], dtype: Any, budget: int | None) -> int:
    """Return how many products at once fit into what memory the matrix leaves."""
    pieces = [jax.ShapeDtypeStruct((size,), dtype) for size in sizes]
    return _memory.at_once(linear, pieces, most=_CHUNK, budget=budget)


def _groups(parts: Parts) -> list[tuple[int, ...]]:
    """Return the pieces in order, small ones joined to what stands next to them in the vector."""
    least = sum(parts.sizes) / _GROUPS / 2
    groups: list[list[int]] = []
    for k in parts.order:
        size = parts.sizes[k]
        last = groups[-1] if groups else []
        beside = last and (k == last[-1] + 1 or k == last[0] - 1)
        if beside and (size < least or sum(parts.sizes[j] for j in last) < least):
            groups[-1] = sorted([*last, k])
        else:
            groups.append([k])
    return [tuple(group) for group in groups]


def block(op: Symmetric, rows: tuple[int, ...], cols: tuple[int, ...]) -> jax.Array:
    """Return the block of some pieces against others."""
    found: jax.Array = _block(op, rows, cols)
    return found


@partial(jax.jit, static_argnums=(1, 2))
def _block(op: Symmetric, rows: tuple[int, ...], cols: tuple[int, ...]) -> jax.Array:
    parts = op._parts()
    height, width = (sum(parts.sizes[k] for k in numbers) for numbers in (rows, cols))
    if height > width:  # products with the fewer unit vectors
        rows, cols, height, width, turned = cols, rows, width, height, True
    else:
        turned = False
    linear = parts.mapping(rows, cols)

    def write(out: jax.Array, i: Any, found: Sequence[jax.Array]) -> jax.Array:
        return lax.dynamic_update_slice(out, _wide(found), (i, 0))

    out = jnp.zeros((height, width), op.dtype)
    sizes = [parts.sizes[k] for k in rows]
    out = _in_chunks(out, linear, sizes, write, "auto", None, False)
    return out.T if turned else out


def _sharded(op: Symmetric, sharding: Any, chunk: Any) -> jax.Array:
    """Return the matrix with its rows on several devices, each computing its own."""
    blocks = []
    for device, (rows, cols) in sharding.addressable_devices_indices_map(op.shape).items():
        first, stop, _ = rows.indices(op.size)
        found = _rows(jax.device_put(op, device), first, stop - first, chunk)
        blocks.append(jax.device_put(found[:, cols], device))  # a constant one is not there yet
    return jax.make_array_from_single_device_arrays(op.shape, sharding, blocks)


@partial(jax.jit, static_argnums=(2, 3))
def _rows(op: Symmetric, first: Any, count: int, chunk: Any) -> jax.Array:
    linear = op._linear()
    k = chunk if isinstance(chunk, int) else _CHUNK

    def row(i: jax.Array) -> jax.Array:
        return linear((jnp.arange(op.size) == i).astype(op.dtype))

    found: jax.Array = lax.map(row, first + jnp.arange(count), batch_size=min(k, count))
    return found


@jax.jit
def diagonal(op: Symmetric) -> jax.Array:
    """Return the diagonal, group by group of pieces, each differentiated by itself alone."""
    parts = op._parts()
    starts, out = _starts(parts.sizes), jnp.zeros(op.size, op.dtype)
    for group in _groups(parts):
        first, sizes = starts[group[0]], [parts.sizes[k] for k in group]

        def write(out: jax.Array, i: Any, rows: Sequence[jax.Array], first: int = first) -> Any:
            own = jax.vmap(jnp.take)(_wide(rows), i + jnp.arange(len(rows[0])))
            return lax.dynamic_update_slice(out, own, (first + i,))

        out = _in_chunks(out, parts.mapping(group, group), sizes, write, "auto", None, False)
    return out


@partial(jax.jit, donate_argnums=0)
def scaled(matrix: jax.Array, factor: jax.Array) -> jax.Array:
    """Return a multiple of a matrix, in its place."""
    return matrix * factor


@partial(jax.jit, donate_argnums=0)
def added(total: jax.Array, matrix: jax.Array, factor: jax.Array) -> jax.Array:
    """Return a sum with a multiple of a matrix, in the first one's place."""
    return total + factor * matrix


@partial(jax.jit, donate_argnums=0)
def shifted(matrix: jax.Array, number: jax.Array) -> jax.Array:
    """Return a matrix with a number added to its diagonal, in its place."""
    rows, cols = (lax.broadcasted_iota(int, matrix.shape, axis) for axis in (0, 1))
    return jnp.where(rows == cols, matrix + number, matrix)  # on a mesh with explicit axes too
