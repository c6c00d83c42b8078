"""Exact blocks on the diagonal of an operator, one for each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from ... import _progress
from ..._arguments import check_flag, check_number
from ..._errors import ArgumentError, CurvatureError
from ..._text import plural
from ..._tree.leaves import istracer
from ..._tree.paths import shorten
from ..._vector.restructure import Restructure
from .._autodiff import memory as _memory
from .._autodiff.arguments import require_labels
from .._autodiff.dense import DenseOptions
from .._autodiff.finite import require_finite
from .._autodiff.partition import join, split
from .._operators.base import Operator, require_operator
from .decomposed import Decomposed, Eigenspace, decompose
from .groups import Groups, ParameterGroup, group_parameters

_SPACES: WeakKeyDictionary[BlockDiagonal, tuple[Eigenspace, ...]] = WeakKeyDictionary()


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["matrices", "labels"],
    meta_fields=["paths", "indices", "source", "positive"],
)
@dataclass(frozen=True, eq=False, repr=False)
class BlockDiagonal(Decomposed):
    """An operator that is zero but for blocks on its diagonal: what `block_diagonal` returns.

    It decomposes its blocks once, when `solve`, `logdet` or `sample` first need that.

    Attributes:
      matrices: the blocks, dense.
      paths: the path of each block, or the glob of its parameters.
    """

    matrices: tuple[jax.Array, ...]
    labels: Restructure
    paths: tuple[str, ...]
    indices: tuple[tuple[int, ...], ...]
    source: str
    positive: bool

    @property
    def size(self) -> int:
        return self.labels.size

    @property
    def dtype(self) -> Any:
        return self.matrices[0].dtype if self.matrices else self.labels.dtype

    @property
    def re(self) -> Restructure | None:
        return self.labels

    @property
    def name(self) -> str:
        return self.source

    @property
    def semidefinite(self) -> bool:
        return self.positive

    @property
    def titles(self) -> tuple[str, ...]:
        return self.paths

    @property
    def blocks(self) -> dict[str, jax.Array]:
        """The blocks, by the path or the glob of their parameters."""
        return dict(zip(self.paths, self.matrices, strict=True))

    def linear(self) -> Callable[[jax.Array], jax.Array]:
        return lambda v: self.scatter(
            [matrix @ x for matrix, x in zip(self.matrices, self.gather(v), strict=True)]
        )

    def gather(self, v: jax.Array) -> list[jax.Array]:
        """Return the elements of a vector that belong to each block."""
        pieces = split(v, self.labels.layout.sizes) if self.size else []
        return [join([pieces[k] for k in block]) for block in self.indices]

    def scatter(self, parts: Sequence[jax.Array]) -> jax.Array:
        """Return the vector with these elements."""
        sizes = self.labels.layout.sizes
        pieces: dict[int, jax.Array] = {}
        for block, part in zip(self.indices, parts, strict=True):
            pieces |= zip(block, split(part, [sizes[k] for k in block]), strict=True)
        return join([pieces[k] for k in sorted(pieces)]) if pieces else jnp.zeros(0, self.dtype)

    def eigenspaces(self) -> tuple[Eigenspace, ...]:
        """Return the eigenpairs of each block, which are kept as long as the operator."""
        kept = _SPACES.get(self)
        if kept is None:
            kept = _decompose(self.matrices)
            if not any(map(istracer, jax.tree.leaves(kept))):
                _SPACES[self] = kept
        return kept

    def matrix(self, options: DenseOptions) -> jax.Array:
        if options.sharding is not None:
            return super().matrix(options)
        _memory.budget(self, options.memory)  # raises where the matrix does not fit
        out, slices = jnp.zeros(self.shape, self.dtype), self.labels.layout.slices
        for block, matrix in zip(self.indices, self.matrices, strict=True):
            rows = np.concatenate([np.arange(slices[k].start, slices[k].stop) for k in block])
            out = out.at[np.ix_(rows, rows)].set(matrix)
        return out

    def exact_diagonal(self) -> jax.Array:
        return self.scatter([jnp.diagonal(matrix) for matrix in self.matrices])


@jax.jit
def _decompose(matrices: tuple[jax.Array, ...]) -> tuple[Eigenspace, ...]:
    return tuple(map(decompose, matrices))


def block_diagonal(
    op: Operator,
    /,
    where: Groups = None,
    *,
    memory: int | None = None,
    progress: bool = True,
) -> BlockDiagonal:
    """Return the exact blocks of an operator on its diagonal, as an operator.

    Each block is computed by products with its own columns, differentiated by its own parameters
    only. The curvature between blocks is left out.

    Args:
      op: an operator with labels.
      where: a glob for each block, such as `["layers/0/**", "layers/1/**"]`, which together select
        every parameter once; `op.re.paths` makes a block of each parameter. By default the
        parameters of each layer are a block, and each parameter at the root is one.
      memory: the bytes that the blocks and their eigenvectors may take; by default the free memory.
      progress: whether to show a progress bar, on a terminal.

    Returns:
      A `BlockDiagonal`: an operator with `blocks` by path, `solve(b, damping=...)`,
      `logdet(damping)` and `sample(samples, key=..., damping=...)`. Passed to `solve` as
      `preconditioner=`, it is inverted with the system's damping.

    Raises:
      ArgumentError: the blocks need more memory than there is, leave out or repeat parameters, or
        the operator has no labels.
      PathError: a glob matches no parameter.
      CurvatureError: the operator is not finite.

    Example:
      >>> flat, re = jtree.destructure({"w": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)})
      >>> loss = lambda v: (re(v)["w"] ** 2).sum() * re(v)["b"] ** 2
      >>> blocks = jtree.curvature.block_diagonal(jtree.curvature.hessian(loss, flat, re=re))
      >>> blocks.blocks["w"].tolist()
      [[18.0, 0.0], [0.0, 18.0]]
      >>> blocks.logdet().round(2)
      Array(8.08, dtype=float32)

    Source: the names are those of `BlockDiagonalLinearOperator` in curvlinops, and of `sample` and
    the log-determinant of the posterior precision in laplace-torch: Daxberger et al., "Laplace
    redux", NeurIPS 2021, arXiv:2106.14806.
    """
    check_flag("progress", progress)
    require_operator(op, "block_diagonal")
    groups = group_parameters(op, where, "block_diagonal")
    _check_cover(require_labels(op.re, "block_diagonal").paths, groups)
    _check_memory(op, groups, memory)
    tracked = _progress.tracked(groups, "block_diagonal", shown=progress)
    return BlockDiagonal(
        tuple(_block(op, group) for group in tracked),
        require_labels(op.re, "block_diagonal"),
        tuple(group.path for group in groups),
        tuple(group.indices for group in groups),
        op.label,
        op.semidefinite,
    )


def _block(op: Operator, group: ParameterGroup) -> jax.Array:
    matrix = op.block(group.selects)
    if not istracer(matrix) and not bool(jnp.isfinite(matrix).all()):
        require_finite(op, "block_diagonal")
        raise CurvatureError(f"block_diagonal: {group.path} has values that are not finite")
    return matrix


def _check_cover(paths: tuple[str, ...], groups: list[ParameterGroup]) -> None:
    counts = np.bincount([k for g in groups for k in g.indices], minlength=len(paths))
    for flags, verb in ((counts == 0, "no block"), (counts > 1, "several blocks")):
        wrong = [paths[k] for k in np.flatnonzero(flags)]
        if wrong:
            raise ArgumentError(
                f"where: each parameter belongs to one block, but {shorten(wrong)} "
                f"{'is' if len(wrong) == 1 else 'are'} in {verb}; op.re.paths makes a block of each"
            )


def _check_memory(op: Operator, groups: list[ParameterGroup], memory: int | None) -> None:
    if memory is not None:
        check_number("memory", memory)
    sizes = [group.size for group in groups]
    nbytes = 2 * sum(size**2 for size in sizes) * np.dtype(op.dtype).itemsize
    if nbytes:
        _memory.require_memory(
            nbytes,
            memory,
            f"{plural(len(sizes), 'block')} of up to {max(sizes):,} parameters, with eigenvectors, "
            f"{'takes' if len(sizes) == 1 else 'take'}",
            "use smaller blocks, such as where=op.re.paths, or nystrom(op, rank)",
        )
