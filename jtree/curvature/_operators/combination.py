"""Weighted sums of operators."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import ArgumentTypeError, VectorError
from ..._tree.leaves import describe, istracer
from ..._tree.paths import Where
from ..._vector.restructure import Restructure
from .._autodiff import dense
from .._autodiff.arguments import as_columns, require_labels, select_elements
from .._autodiff.protocol import Linear, Piecewise, one_piece
from .base import Operator


@partial(
    jax.tree_util.register_dataclass, data_fields=["terms", "factors", "damping"], meta_fields=[]
)
@dataclass(frozen=True, eq=False, repr=False)
class Combination(Operator):
    """A weighted sum of operators and the identity, as `+`, `*` and `damped` return it.

    Attributes:
      terms: the operators.
      factors: a scalar for each.
      damping: the factor of the identity.
    """

    terms: tuple[Operator, ...]
    factors: tuple[Any, ...]
    damping: Any

    @property
    def size(self) -> int:
        return self.terms[0].size

    @property
    def dtype(self) -> Any:
        return np.result_type(*(op.dtype for op in self.terms))

    @property
    def re(self) -> Restructure | None:
        return next((op.re for op in self.terms if op.re is not None), None)

    @property
    def examples(self) -> int | None:
        return next((op.examples for op in self.terms if op.examples), None)

    @property
    def traceable(self) -> bool:
        return all(op.traceable for op in self.terms)

    @property
    def semidefinite(self) -> bool:
        scalars = [*self.factors, self.damping]
        return not any(istracer(x) or x < 0 for x in scalars) and all(
            op.semidefinite for op in self.terms
        )

    @property
    def name(self) -> str:
        def show(factor: Any, op: Operator) -> str:
            name = f"{type(op).__name__}({op.name})"
            return name if _is_number(factor, 1) else f"{_format(factor)} {name}"

        terms = [show(f, op) for f, op in zip(self.factors, self.terms, strict=True)]
        identity = [] if _is_number(self.damping, 0) else [f"{_format(self.damping)} I"]
        return " + ".join(terms + identity)

    def restrict(self, where: Where, /) -> Combination:
        return replace(self, terms=tuple(op.restrict(where) for op in self.terms))

    def piecewise(self) -> Piecewise:
        terms = [op.piecewise() for op in self.terms]
        if any(term.sizes != terms[0].sizes for term in terms):
            terms = [one_piece(op) for op in self.terms]

        def between(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Linear:
            return self._linear([term.between(inputs, outputs) for term in terms], inputs, outputs)

        return Piecewise(terms[0].sizes, terms[0].order, between)

    def _linear(self, maps: list[Linear], inputs: Sequence[int], outputs: Sequence[int]) -> Linear:
        """Return the weighted sum of linear functions between pieces, and of the identity."""

        def linear(pieces: Sequence[jax.Array]) -> list[jax.Array]:
            given = dict(zip(inputs, pieces, strict=True))
            products = [
                [f * x.astype(self.dtype) for x in term([p.astype(op.dtype) for p in pieces])]
                for f, term, op in zip(self._weights, maps, self.terms, strict=True)
            ]
            sums = [reduce(operator.add, terms) for terms in zip(*products, strict=True)]
            damping = self._cast(self.damping)
            return [
                x + damping * given[k] if k in given else x
                for k, x in zip(outputs, sums, strict=True)
            ]

        return linear

    # Terms that cannot be traced are multiplied one by one.

    def mv(self, v: Any, /) -> jax.Array:
        if self.traceable:
            return super().mv(v)
        v = as_columns(v, self.size, self.dtype)
        return self._sum_terms(lambda op: op.mv(v), self._cast(self.damping) * v)

    def block(self, rows: Where, cols: Where = None, /) -> jax.Array:
        layout = require_labels(self.re, "block").layout
        if self.traceable and all(_same_sizes(op.re, layout.sizes) for op in self.terms):
            return super().block(rows, cols)
        row, col = (select_elements(layout, x) for x in (rows, rows if cols is None else cols))
        identity = (row[:, None] == col).astype(self.dtype)
        return self._sum_terms(lambda op: op.block(rows, cols), self._cast(self.damping) * identity)

    def exact_diagonal(self) -> jax.Array:
        identity = jnp.full(self.size, self._cast(self.damping))
        return self._sum_terms(lambda op: op.exact_diagonal(), identity)

    def _sum_terms(self, evaluate: Callable[[Operator], jax.Array], total: jax.Array) -> jax.Array:
        for weight, op in zip(self._weights, self.terms, strict=True):
            total = total + weight * evaluate(op).astype(self.dtype)
        return total

    def matrix(self, options: dense.DenseOptions) -> jax.Array:
        if self.traceable and len(self.terms) > 1:
            return super().matrix(options)
        matrices = (op.matrix(options).astype(self.dtype) for op in self.terms)
        total: jax.Array = dense.scale_in_place(next(matrices), self._weights[0])
        for weight, matrix in zip(self._weights[1:], matrices, strict=True):
            total = dense.add_in_place(total, matrix, weight)
        if _is_number(self.damping, 0):
            return total
        damped: jax.Array = dense.damp_in_place(total, self._cast(self.damping))
        return damped

    @property
    def _weights(self) -> list[jax.Array]:
        return [self._cast(factor) for factor in self.factors]

    def _cast(self, scalar: Any) -> jax.Array:
        return jnp.asarray(scalar).astype(self.dtype)


def _same_sizes(re: Restructure | None, sizes: tuple[int, ...]) -> bool:
    return re is not None and re.layout.sizes == sizes


def _is_number(scalar: Any, number: float) -> bool:
    return isinstance(scalar, int | float) and scalar == number


def _format(scalar: Any) -> str:
    return "?" if istracer(scalar) else f"{float(scalar):.4g}"


def combine(terms: Sequence[tuple[Any, Operator]], damping: Any = 0.0) -> Combination:
    """Return a weighted sum of operators and the identity; nested sums become one."""
    sizes = {op.size for _, op in terms}
    if len(sizes) > 1:
        raise VectorError(f"expected operators of one size, found {sorted(sizes)}")
    if isinstance(damping, Operator | str) or (
        not np.isscalar(damping) and np.shape(damping) != ()
    ):
        raise ArgumentTypeError(f"damping: expected a scalar, found {describe(damping)}")
    flat: list[tuple[Any, Operator]] = []
    for factor, op in terms:
        if isinstance(op, Combination):
            flat += [(factor * f, x) for f, x in zip(op.factors, op.terms, strict=True)]
            damping = damping + factor * op.damping
        else:
            flat.append((factor, op))
    re = next((op.re for _, op in flat if op.re is not None), None)
    operators = tuple(op if re is None else op.labeled(re) for _, op in flat)
    return Combination(operators, tuple(factor for factor, _ in flat), damping)


Operator.combine = combine
