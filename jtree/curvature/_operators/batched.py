"""One operator over many batches: the matrix of all data, of which one batch is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ... import _progress
from ..._errors import ArgumentError, ArgumentTypeError
from ..._tree.leaves import describe, istracer
from ..._tree.paths import Where
from ..._vector.restructure import Restructure
from ..._vector.static import Static
from .._autodiff import dense, host, memory
from .._autodiff.linearize import once
from .._autodiff.protocol import Parts
from .base import Operator, whole


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["held", "reduction"])
@dataclass(frozen=True, eq=False, repr=False)
class Batched(Operator):
    """A sum or a mean of operators, one for each batch: what `batched` returns."""

    held: Static  # (batches, make, size, the first operator, progress)
    reduction: str

    @property
    def size(self) -> int:
        return self._first.size

    @property
    def dtype(self) -> Any:
        return self._first.dtype

    @property
    def re(self) -> Restructure | None:
        return self._first.re

    @property
    def _first(self) -> Operator:
        first: Operator = self.held.value[3]
        return first

    @property
    def _traceable(self) -> bool:
        return False

    @property
    def _semidefinite(self) -> bool:
        return self._first._semidefinite

    def _product(self, v: jax.Array) -> jax.Array:
        if istracer(v):
            return host.product(self, v) if v.ndim == 1 else jax.vmap(self.mv, 1, 1)(v)
        return self._sum(lambda op: once(op, v) if op._traceable else op.mv(v), "product")

    def _whole(self, options: dense.Options) -> jax.Array:
        memory.left(self, options.memory)
        quiet = options._replace(progress=False)
        return self._sum(lambda op: op._whole(quiet), "dense", options.progress)

    def block(self, rows: Where, cols: Where = None, /) -> jax.Array:
        return self._sum(lambda op: op.block(rows, cols), "block")

    def restrict(self, where: Where, /) -> Batched:
        batches, make, size, first, progress = self.held.value
        inner = first.restrict(where)
        held = Static((batches, lambda batch: make(batch).restrict(where), size, inner, progress))
        return Batched(held, self.reduction)

    def _linear(self) -> Callable[[jax.Array], jax.Array]:
        return partial(host.product, self)

    def _parts(self) -> Parts:
        return whole(self)

    def _diagonal(self) -> jax.Array:
        return self._sum(lambda op: op._diagonal(), "diagonal")

    def _sum(self, what: Callable[[Operator], Any], name: str, progress: bool = True) -> jax.Array:
        """Return the sum, or the mean over examples, of something of each batch's operator."""
        total: jax.Array | None = None
        count, unit = 0.0, 0
        for op, size in self._operators(name, progress):
            unit = unit or size  # shares of the first one's, lest half precision overflows
            weight = size / unit if self.reduction == "mean" else 1.0
            part = what(op) * jnp.asarray(weight, self.dtype)
            total, count = part if total is None else _add(total, part), count + weight
        if total is None:
            raise ArgumentError("batches: expected one or more, found none in this pass")
        return total / jnp.asarray(count, self.dtype) if self.reduction == "mean" else total

    def _operators(self, name: str, progress: bool) -> Iterator[tuple[Operator, int]]:
        batches, make, size, first, shown = self.held.value
        for batch in _progress.tracked(batches, name, shown=shown and progress):
            op = make(batch)
            if op.shape != first.shape:
                raise ArgumentError(f"make: expected operators of one shape, found {op!r}")
            yield op, _examples(op, batch, size) if self.reduction == "mean" else 0

    def _about(self) -> str:
        return f"{self.reduction} of {type(self._first).__name__}({self._first._about()})"


@partial(jax.jit, donate_argnums=0)
def _add(total: jax.Array, part: jax.Array) -> jax.Array:
    return total + part


def _examples(op: Operator, batch: Any, size: Callable[[Any], int] | None) -> int:
    found = op.examples if size is None else size(batch)
    if not found:
        raise ArgumentError(
            "batched: a mean weighs batches by their numbers of examples, and this operator cannot "
            "tell its own from its arrays; give size=lambda batch: ..., or reduction='sum'"
        )
    return int(found)


def batched(
    batches: Iterable[Any],
    /,
    make: Callable[[Any], Operator],
    *,
    reduction: Literal["mean", "sum"] = "mean",
    size: Callable[[Any], int] | None = None,
    progress: bool = True,
) -> Batched:
    """Return one operator over batches of data: equal to that of all data at once.

    Every batch is read once per product, and a matrix of k vectors is one product. With `"mean"`
    each batch counts by its number of examples, so that unequal batches are right.

    Args:
      batches: what can be iterated over again and again: a list, a data loader. No generator.
      make: `make(batch)`, the batch's operator. Let it give the same function every time, with the
        data as arguments, and it is compiled once per shape of a batch.
      reduction: `"mean"` where each operator is a mean over its examples, `"sum"` where it is a
        sum.
      size: the number of examples in a batch; by default the length of the arrays that the
        operator was given behind its vector, where they have one length.
      progress: whether long products show a progress bar, which only a terminal does.

    Returns:
      A `Batched`, with everything an `Operator` has. It reads data, so it is for use outside of
      `jit`; `eigsh`, `solve`, `trace`, `diagonal` and `spectrum` take it.

    Raises:
      ArgumentTypeError: `batches` can be read only once.
      ArgumentError: there are none, or a batch's number of examples cannot be told.

    Example:
      >>> loss = lambda w, x: ((x @ w) ** 2).mean()
      >>> x = jnp.arange(14.0).reshape(7, 2)
      >>> make = lambda batch: jtree.curvature.hessian(loss, jnp.ones(2), batch)
      >>> op = jtree.curvature.batched([x[:3], x[3:]], make)
      >>> op
      Batched(mean of Hessian(<lambda>), 2 x 2, float32)
      >>> bool(jnp.allclose(op.dense(), make(x).dense()))
      True
    """
    if reduction not in ("mean", "sum"):
        raise ArgumentError(f"reduction: expected 'mean' or 'sum', found {reduction!r}")
    if not isinstance(batches, Iterable):
        raise ArgumentTypeError(f"batches: expected an iterable, found {describe(batches)}")
    if isinstance(batches, Iterator):
        raise ArgumentTypeError(
            f"batches: expected what can be read at every product, found {describe(batches)}, "
            "which can be read once; give list(...) of it, or a data loader"
        )
    if not callable(make):
        raise ArgumentTypeError(
            f"make: expected a function from a batch to an operator, found {describe(make)}"
        )
    reader = iter(batches)
    if not hasattr(batches, "__len__") and iter(batches) is reader:  # loaders may rewind theirs
        raise ArgumentTypeError(
            f"batches: expected what can be read at every product, found {describe(batches)}, "
            "which goes on where it stopped; give list(...) of it, or a data loader"
        )
    batch = next(reader, _NONE)
    if batch is _NONE:
        raise ArgumentError("batches: expected one or more, found none")
    first = make(batch)
    if not isinstance(first, Operator):
        raise ArgumentTypeError(f"make: expected an operator, found {describe(first)}")
    if reduction == "mean":
        _examples(first, batch, size)
    return Batched(Static((batches, make, size, first, progress)), reduction)


_NONE = object()
