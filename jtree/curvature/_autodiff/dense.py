"""Matrices of operators: products with unit vectors, batched, written in place."""

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
from ..._arguments import check_flag, check_number, unexpected
from ..._errors import ArgumentError, ArgumentTypeError
from ..._tree.leaves import describe, istracer
from . import memory as _memory
from .protocol import Linear, Piecewise, Rectangular, Symmetric
from .varying import as_carry

_MAX_CHUNK = 32  # products in a batch; 16 to 64 are equally fast on a CPU
_GROUPS = 8  # how often the operator is linearized, so that compiling stays cheap


class DenseOptions(NamedTuple):
    """The arguments of `Operator.dense`."""

    chunk: int | str | None
    memory: int | None
    sharding: jax.sharding.Sharding | None
    progress: bool

    def check(self) -> DenseOptions:
        """Return the options, or raise for one of the wrong type or out of range."""
        chunk: Any = self.chunk
        if self.memory is not None:
            check_number("memory", self.memory)
        if not isinstance(self.sharding, jax.sharding.Sharding | None):
            raise unexpected("sharding", "a jax.sharding.Sharding", self.sharding)
        if chunk is None or (isinstance(chunk, str) and chunk == "auto"):
            return self
        if not isinstance(chunk, int) or isinstance(chunk, bool):
            raise ArgumentTypeError(
                f"chunk: expected an integer or 'auto', found {describe(chunk)}"
            )
        if chunk < 1:
            raise ArgumentError(f"chunk: expected 1 or more, found {chunk}")
        return self


def matrix(op: Symmetric, options: DenseOptions) -> jax.Array:
    """Return the matrix of an operator that can be traced."""
    chunk, memory, sharding, progress = options
    check_flag("progress", progress)
    if sharding is not None:
        return _sharded_matrix(op, sharding, chunk)
    traced = any(map(istracer, jax.tree.leaves(op)))
    budget = None if traced else _memory.budget(op, memory)
    with _progress.progress_bar("dense", 1.0, shown=progress and not traced, unit="share") as bar:
        array: jax.Array = compute_matrix(op, chunk, budget, bool(bar))
        return jax.block_until_ready(array) if bar else array


@partial(jax.jit, static_argnums=(1, 2, 3))
def compute_matrix(op: Symmetric, chunk: Any, budget: int | None, shown: bool) -> jax.Array:
    """Return the matrix, group by group of pieces, each against itself and the groups after it.

    Args:
      op: the operator.
      chunk: how many products to batch; "auto" or None decides by the budget.
      budget: the bytes that products may take.
      shown: whether a progress bar is open.
    """
    pieces = op.piecewise()
    out = jnp.zeros((op.size, op.size), op.dtype)
    groups = _group_pieces(pieces)
    for g, group in enumerate(groups):
        others = tuple(sorted(k for later in groups[g + 1 :] for k in later))
        out = _write_group(out, pieces, group, others, chunk, budget, shown)
    return out


def promote(x: jax.Array) -> jax.Array:
    """Return half precision as single precision, the least that decompositions support."""
    return x.astype(promoted(x.dtype))


def promoted(dtype: Any) -> Any:
    """Return the dtype that `promote` returns."""
    return np.promote_types(dtype, np.float32)


def _piece_starts(sizes: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(sizes).tolist()]


def _group_pieces(pieces: Piecewise) -> list[tuple[int, ...]]:
    """Return the indices of the pieces in order, small ones grouped with their neighbors."""
    least = sum(pieces.sizes) / _GROUPS / 2
    groups: list[list[int]] = []
    for k in pieces.order:
        size = pieces.sizes[k]
        last = groups[-1] if groups else []
        adjacent = last and (k == last[-1] + 1 or k == last[0] - 1)
        if adjacent and (size < least or sum(pieces.sizes[j] for j in last) < least):
            groups[-1] = sorted([*last, k])
        else:
            groups.append([k])
    return [tuple(group) for group in groups]


def _write_group(
    out: jax.Array,
    pieces: Piecewise,
    group: tuple[int, ...],
    others: tuple[int, ...],
    chunk: Any,
    budget: int | None,
    shown: bool,
) -> jax.Array:
    """Write the rows of a group of pieces, against itself and others, and mirror the others."""
    starts = _piece_starts(pieces.sizes)
    linear = pieces.between(group, group + others)
    first, sizes = starts[group[0]], [pieces.sizes[k] for k in group]
    runs = _contiguous_runs(others, starts, len(group))

    def write(out: jax.Array, i: Any, rows: Sequence[jax.Array]) -> jax.Array:
        out = lax.dynamic_update_slice(out, _concatenate(rows[: len(group)]), (first + i, first))
        for start, indices in runs:
            block = _concatenate([rows[index] for index in indices])
            out = lax.dynamic_update_slice(out, block, (first + i, start))
            out = lax.dynamic_update_slice(out, block.T, (start, first + i))
        return out

    return _multiply_units(out, linear, sizes, write, chunk, budget, shown)


def _contiguous_runs(
    pieces: Sequence[int], starts: Sequence[int], skip: int
) -> list[tuple[int, list[int]]]:
    """Return runs of adjacent pieces: where each starts in the vector, and its indices in a list.

    The list begins with `skip` other pieces.
    """
    runs: list[tuple[int, list[int]]] = []
    for index, k in enumerate(pieces):
        if index and pieces[index - 1] == k - 1:
            runs[-1][1].append(index + skip)
        else:
            runs.append((starts[k], [index + skip]))
    return runs


def _concatenate(rows: Sequence[jax.Array]) -> jax.Array:
    return rows[0] if len(rows) == 1 else jnp.concatenate(list(rows), 1)


def _multiply_units(
    out: jax.Array,
    linear: Linear,
    sizes: Sequence[int],
    write: Callable[[jax.Array, Any, Sequence[jax.Array]], jax.Array],
    chunk: Any,
    budget: int | None,
    shown: bool,
) -> jax.Array:
    """Apply a linear function to all unit vectors, a chunk at a time, and write the results.

    The last chunk starts early enough to be whole, and computes some rows again.
    """
    length, starts, dtype = sum(sizes), _piece_starts(sizes), out.dtype
    if length == 0:
        return out
    k = min(length, chunk if isinstance(chunk, int) else _chunk_size(linear, sizes, dtype, budget))

    def body(c: Any, out: jax.Array) -> jax.Array:
        i = jnp.minimum(c * k, length - k)
        index = i + jnp.arange(k)[:, None]
        units = [(index == jnp.arange(a, b)[None]).astype(dtype) for a, b in pairwise(starts)]
        rows = jax.vmap(linear)(units)
        if shown:
            jax.debug.callback(_progress.advance_innermost, k / out.shape[0])
        return write(out, i, rows)

    count = math.ceil(length / k)
    if count == 1:
        return body(0, out)
    carry = as_carry(lambda out: body(0, out), out)
    filled: jax.Array = lax.fori_loop(0, count, body, carry)
    return filled


def _chunk_size(linear: Linear, sizes: Sequence[int], dtype: Any, budget: int | None) -> int:
    inputs = [jax.ShapeDtypeStruct((size,), dtype) for size in sizes]
    return _memory.batch_size(linear, inputs, most=_MAX_CHUNK, budget=budget)


@partial(jax.jit, static_argnums=(1, 2))
def block(op: Symmetric, rows: tuple[int, ...], cols: tuple[int, ...]) -> jax.Array:
    """Return the block of some pieces against others."""
    pieces = op.piecewise()
    height, width = (sum(pieces.sizes[k] for k in indices) for indices in (rows, cols))
    transposed = height > width  # multiply with the fewer unit vectors
    if transposed:
        rows, cols, height, width = cols, rows, width, height

    def write(out: jax.Array, i: Any, products: Sequence[jax.Array]) -> jax.Array:
        return lax.dynamic_update_slice(out, _concatenate(products), (i, 0))

    out = jnp.zeros((height, width), op.dtype)
    sizes = [pieces.sizes[k] for k in rows]
    out = _multiply_units(out, pieces.between(rows, cols), sizes, write, "auto", None, False)
    return out.T if transposed else out


def _sharded_matrix(op: Symmetric, sharding: Any, chunk: Any) -> jax.Array:
    """Return the matrix with its rows on several devices, each of which computes its own."""
    blocks = []
    for device, (rows, cols) in sharding.addressable_devices_indices_map(op.shape).items():
        first, stop, _ = rows.indices(op.size)
        local = _compute_rows(jax.device_put(op, device), first, stop - first, chunk)
        blocks.append(jax.device_put(local[:, cols], device))  # a constant matrix is elsewhere
    return jax.make_array_from_single_device_arrays(op.shape, sharding, blocks)


@partial(jax.jit, static_argnums=(2, 3))
def _compute_rows(op: Symmetric, first: Any, count: int, chunk: Any) -> jax.Array:
    linear = op.linear()
    k = chunk if isinstance(chunk, int) else _MAX_CHUNK

    def row(i: jax.Array) -> jax.Array:
        return linear((jnp.arange(op.size) == i).astype(op.dtype))

    rows: jax.Array = lax.map(row, first + jnp.arange(count), batch_size=max(1, min(k, count)))
    return rows


@jax.jit
def rectangle(op: Rectangular) -> jax.Array:
    """Return the matrix of a linear map, by rows or by columns, whichever are fewer."""
    by_rows = op.shape[0] < op.shape[1]
    op = op.T if by_rows else op
    linear, count = op.linear(), op.shape[1]

    def column(i: jax.Array) -> jax.Array:
        return linear((jnp.arange(count) == i).astype(op.dtype))

    columns: jax.Array = lax.map(column, jnp.arange(count), batch_size=max(1, min(count, 32)))
    return columns if by_rows else columns.T


@jax.jit
def diagonal(op: Symmetric) -> jax.Array:
    """Return the diagonal, group by group of pieces, each differentiated by itself alone."""
    pieces = op.piecewise()
    starts, out = _piece_starts(pieces.sizes), jnp.zeros(op.size, op.dtype)
    for group in _group_pieces(pieces):
        first, sizes = starts[group[0]], [pieces.sizes[k] for k in group]

        def write(out: jax.Array, i: Any, rows: Sequence[jax.Array], first: int = first) -> Any:
            own = jax.vmap(jnp.take)(_concatenate(rows), i + jnp.arange(len(rows[0])))
            return lax.dynamic_update_slice(out, own, (first + i,))

        linear = pieces.between(group, group)
        out = _multiply_units(out, linear, sizes, write, "auto", None, False)
    return out


@partial(jax.jit, donate_argnums=0)
def scale_in_place(matrix: jax.Array, factor: jax.Array) -> jax.Array:
    """Return a multiple of a matrix."""
    return matrix * factor


@partial(jax.jit, donate_argnums=0)
def add_in_place(total: jax.Array, matrix: jax.Array, factor: jax.Array) -> jax.Array:
    """Return the sum of a matrix and a multiple of another."""
    return total + factor * matrix


@partial(jax.jit, donate_argnums=0)
def damp_in_place(matrix: jax.Array, damping: jax.Array) -> jax.Array:
    """Return a matrix with a scalar added to its diagonal."""
    rows, cols = (lax.broadcasted_iota(int, matrix.shape, axis) for axis in (0, 1))
    # a comparison, since a scatter needs a sharding on a mesh with explicit axes
    return jnp.where(rows == cols, matrix + damping, matrix)
