"""One operator over many batches of data, of which one batch is in memory at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ... import _progress
from ..._arguments import check_callable, check_flag
from ..._errors import ArgumentError, ArgumentTypeError, CurvatureError
from ..._tree.leaves import describe, istracer
from ..._tree.paths import Where
from ..._vector.restructure import Restructure
from ..._vector.static import Static
from .._autodiff import host, memory
from .._autodiff.arguments import as_columns, as_scalar
from .._autodiff.dense import DenseOptions
from .._autodiff.linearize import product_uncached
from .._autodiff.protocol import Piecewise, one_piece
from .base import Operator

_UNEQUAL = (
    "batched: the batches have unequal shares of the labels -1 or -100; if the loss leaves these "
    "out of its mean, pass size=lambda batch: the number of valid labels"
)


class BatchSource(NamedTuple):
    """The data of a `Batched` operator, and how to make operators of it.

    Attributes:
      data: an iterable of batches.
      make: a function from a batch to its operator.
      size: a function from a batch to its number of examples, or None.
      first: the operator of the first batch.
      progress: whether to show progress bars.
    """

    data: Iterable[Any]
    make: Callable[[Any], Operator]
    size: Callable[[Any], int] | None
    first: Operator
    progress: bool

    def operators(self, title: str, progress: bool) -> Iterator[tuple[Operator, Any]]:
        """Yield the operator of each batch with the batch, beside a progress bar."""
        shown = self.progress and progress
        for batch in _progress.tracked(self.data, title, shown=shown):
            op = self.make(batch)
            if not isinstance(op, Operator):
                raise ArgumentTypeError(f"make: expected an operator, found {describe(op)}")
            if op.shape != self.first.shape:
                raise ArgumentError(f"make: expected operators of one shape, found {op!r}")
            yield op, batch

    def count_examples(self, op: Operator, batch: Any) -> int:
        """Return the number of examples in a batch."""
        count = op.examples if self.size is None else self.size(batch)
        if count is None:
            raise ArgumentError(
                "batched: a mean weights batches by their numbers of examples, which this "
                "operator's arrays do not tell; pass size=lambda batch: ..., or reduction='sum'"
            )
        if as_scalar(count) is None or not count >= 0:
            raise ArgumentError(f"size: expected 0 or more examples, found {describe(count)}")
        return int(count)


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["static", "reduction"])
@dataclass(frozen=True, eq=False, repr=False)
class Batched(Operator):
    """A sum or a mean of operators, one for each batch: what `batched` returns."""

    static: Static  # of a BatchSource
    reduction: str

    @property
    def source(self) -> BatchSource:
        source: BatchSource = self.static.value
        return source

    @property
    def size(self) -> int:
        return self.source.first.size

    @property
    def dtype(self) -> Any:
        return self.source.first.dtype

    @property
    def re(self) -> Restructure | None:
        return self.source.first.re

    @property
    def name(self) -> str:
        first = self.source.first
        return f"{self.reduction} of {type(first).__name__}({first.name})"

    @property
    def traceable(self) -> bool:
        return False

    @property
    def semidefinite(self) -> bool:
        return self.source.first.semidefinite

    def piecewise(self) -> Piecewise:
        return one_piece(self)

    def linear(self) -> Callable[[jax.Array], jax.Array]:
        return partial(host.product, self)

    def mv(self, v: Any, /) -> jax.Array:
        v = as_columns(v, self.size, self.dtype)
        if istracer(v):
            return host.product(self, v) if v.ndim == 1 else jax.vmap(self.mv, 1, 1)(v)
        return self._reduce(
            lambda op: product_uncached(op, v) if op.traceable else op.mv(v), "product"
        )

    def matrix(self, options: DenseOptions) -> jax.Array:
        memory.budget(self, options.memory)  # raises where the matrix does not fit
        quiet = options._replace(progress=False)
        return self._reduce(lambda op: op.matrix(quiet), "dense", options.progress)

    def exact_diagonal(self) -> jax.Array:
        return self._reduce(lambda op: op.exact_diagonal(), "diagonal")

    def block(self, rows: Where, cols: Where = None, /) -> jax.Array:
        return self._reduce(lambda op: op.block(rows, cols), "block")

    def restrict(self, where: Where, /) -> Batched:
        make = self.source.make
        restricted = self.source._replace(
            make=lambda batch: make(batch).restrict(where),
            first=self.source.first.restrict(where),
        )
        return Batched(Static(restricted), self.reduction)

    def _reduce(
        self, evaluate: Callable[[Operator], Any], title: str, progress: bool = True
    ) -> jax.Array:
        """Return the sum, or the mean over examples, of an array of each batch's operator."""
        total: jax.Array | None = None
        weights, unit, passed = 0.0, 0, 0
        shares: set[float] = set()
        for op, batch in self.source.operators(title, progress):
            weight, passed = 1.0, passed + 1
            if self.reduction == "mean":
                count = self.source.count_examples(op, batch)
                if not count:  # the mean over no examples is NaN
                    continue
                if self.source.size is None:
                    shares.add(_valid_share(batch))
                unit = unit or count  # relative to the first batch, lest half precision overflow
                weight = count / unit
            part = evaluate(op) * jnp.asarray(weight, self.dtype)
            total, weights = part if total is None else _accumulate(total, part), weights + weight
        if total is None and passed:
            raise CurvatureError("batched: no batch has any examples, so their mean is undefined")
        if total is None:
            raise ArgumentError("batches: expected one or more, found none in this pass")
        if len(shares) > 1:
            warnings.warn(_UNEQUAL, stacklevel=4)
        return total / jnp.asarray(weights, self.dtype) if self.reduction == "mean" else total


def _valid_share(batch: Any) -> float:
    """Return the share of labels in a batch that are not the usual mark of a missing one."""
    labels = [
        np.asarray(x)
        for x in jax.tree.leaves(batch)
        if isinstance(x, jax.Array | np.ndarray) and np.issubdtype(x.dtype, np.signedinteger)
    ]
    missing = sum(int(((x == -1) | (x == -100)).sum()) for x in labels)
    return 1 - missing / max(1, sum(x.size for x in labels))


@partial(jax.jit, donate_argnums=0)
def _accumulate(total: jax.Array, part: jax.Array) -> jax.Array:
    return total + part


def batched(
    batches: Iterable[Any],
    /,
    make: Callable[[Any], Operator],
    *,
    reduction: Literal["mean", "sum"] = "mean",
    size: Callable[[Any], int] | None = None,
    progress: bool = True,
) -> Batched:
    """Return one operator over batches of data, equal to that of all the data at once.

    Every batch is read once per product, and a matrix of k columns is one product. With `"mean"`
    each batch is weighted by its number of examples, so that a smaller last batch is correct.

    Args:
      batches: an iterable that can be read repeatedly, such as a list or a data loader, but not a
        generator.
      make: `make(batch)` returns the operator of a batch. Let it use one function with the data
        as arguments, so that it is compiled once per shape of a batch.
      reduction: `"mean"` if each operator is a mean over its examples, `"sum"` if it is a sum.
      size: `size(batch)` returns over how many examples the loss of a batch averages. Where it
        leaves out invalid labels, that is `size=lambda batch: int((batch[1] >= 0).sum())`. By
        default it is the common length of the arrays after the vector, and unequal shares of the
        labels -1 and -100 are a warning.
      progress: whether to show a progress bar for long products, on a terminal.

    Returns:
      A `Batched`, with all methods of an `Operator`. It reads data, so it cannot be used within
      `jit`; `eigsh`, `solve`, `trace`, `diagonal` and `spectrum` accept it.

    Raises:
      ArgumentTypeError: `batches` can be read only once.
      ArgumentError: there are no batches, or the number of examples in one is unknown.

    Example:
      >>> loss = lambda w, x: ((x @ w) ** 2).mean()
      >>> x = jnp.arange(14.0).reshape(7, 2)
      >>> make = lambda batch: jtree.curvature.hessian(loss, jnp.ones(2), batch)
      >>> op = jtree.curvature.batched([x[:3], x[3:]], make, size=len)
      >>> op
      Batched(mean of Hessian(<lambda>), 2 x 2, float32)
      >>> bool(jnp.allclose(op.dense(), make(x).dense()))
      True
    """
    check_flag("progress", progress)
    if not isinstance(reduction, str) or reduction not in ("mean", "sum"):
        raise ArgumentError(f"reduction: expected 'mean' or 'sum', found {reduction!r}")
    if not callable(make):
        raise ArgumentTypeError(
            f"make: expected a function from a batch to an operator, found {describe(make)}"
        )
    if size is not None:
        check_callable("size", size)
    batch = _first(batches)
    first = make(batch)
    if not isinstance(first, Operator):
        raise ArgumentTypeError(f"make: expected an operator, found {describe(first)}")
    source = BatchSource(batches, make, size, first, progress)
    if reduction == "mean":
        source.count_examples(first, batch)
    return Batched(Static(source), reduction)


def _first(batches: Any) -> Any:
    """Return the first batch of an iterable that can be read again from its beginning."""
    if not isinstance(batches, Iterable) or getattr(batches, "ndim", 1) == 0:
        raise ArgumentTypeError(f"batches: expected an iterable, found {describe(batches)}")
    reader = iter(batches)
    # A loader may return itself if it rewinds; it has a length then, which a stream lacks.
    resumes = not hasattr(batches, "__len__") and iter(batches) is reader
    if isinstance(batches, Iterator) or resumes:
        raise ArgumentTypeError(
            f"batches: expected an iterable that can be read repeatedly, found {describe(batches)},"
            " which can be read only once; pass list(...) of it, or a data loader"
        )
    for batch in reader:
        return batch
    raise ArgumentError("batches: expected one or more, found none")
