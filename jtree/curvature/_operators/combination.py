"""Weighted sums of operators, and of linear maps that are not symmetric."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import VectorError
from ..._tree.leaves import istracer
from ..._tree.paths import Where
from ..._vector.restructure import Restructure
from .._autodiff import dense
from .._autodiff.arguments import as_columns, check_scalar, require_labels, select_elements
from .._autodiff.protocol import Linear, Piecewise, one_piece
from .base import Operator
from .linear_map import LinearMap


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
        identity = "" if _is_number(self.damping, 0) else f" + {_format(self.damping)} I"
        return _name_sum(self.factors, self.terms) + identity

    @property
    def label(self) -> str:
        return f"({self.name})"

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


@partial(jax.tree_util.register_dataclass, data_fields=["terms", "factors"], meta_fields=[])
@dataclass(frozen=True, eq=False, repr=False)
class Sum(LinearMap):
    """A weighted sum of linear maps, as `+`, `-` and `*` return it if one is not symmetric.

    Attributes:
      terms: the linear maps.
      factors: a scalar for each.
    """

    terms: tuple[LinearMap, ...]
    factors: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return self.terms[0].shape

    @property
    def dtype(self) -> Any:
        return np.result_type(*(term.dtype for term in self.terms))

    @property
    def name(self) -> str:
        return _name_sum(self.factors, self.terms)

    @property
    def label(self) -> str:
        return f"({self.name})"

    @property
    def T(self) -> Sum:  # noqa: N802 (as arrays call it)
        """The sum of the transposes."""
        return Sum(tuple(term.T for term in self.terms), self.factors)

    @property
    def traceable(self) -> bool:
        return all(term.traceable for term in self.terms)

    def linear(self) -> Callable[[jax.Array], jax.Array]:
        functions = [(term.dtype, term.linear()) for term in self.terms]
        return lambda v: self._add_up([f(v.astype(dtype)) for dtype, f in functions])

    def mv(self, v: Any, /) -> jax.Array:
        """Return the product with a vector or with columns, by each term's own product."""
        v = as_columns(v, self.shape[1], self.dtype)
        return self._add_up([term.mv(v) for term in self.terms])

    def _add_up(self, products: Sequence[jax.Array]) -> jax.Array:
        pairs = zip(self.factors, products, strict=True)
        weighted = [jnp.asarray(f).astype(self.dtype) * x.astype(self.dtype) for f, x in pairs]
        return reduce(operator.add, weighted)


def _name_sum(factors: Sequence[Any], terms: Sequence[LinearMap]) -> str:
    pairs = zip(factors, terms, strict=True)
    return " + ".join(
        term.label if _is_number(f, 1) else f"{_format(f)} {term.label}" for f, term in pairs
    )


def _same_sizes(re: Restructure | None, sizes: tuple[int, ...]) -> bool:
    return re is not None and re.layout.sizes == sizes


def _is_number(scalar: Any, number: float) -> bool:
    return isinstance(scalar, int | float) and scalar == number


def _format(scalar: Any) -> str:
    return "?" if istracer(scalar) else f"{float(scalar):.4g}"


def combine(terms: Sequence[tuple[Any, LinearMap]], damping: Any = 0.0) -> Combination | Sum:
    """Return a weighted sum of linear maps and the identity; nested sums become one."""
    symmetric = [(factor, op) for factor, op in terms if isinstance(op, Operator)]
    if len(symmetric) == len(terms):
        return _combine_operators(symmetric, check_scalar("damping", damping))
    shapes = {op.shape for _, op in terms}
    if len(shapes) > 1:
        raise VectorError(f"expected linear maps of one shape, found {sorted(shapes)}")
    flat: list[tuple[Any, LinearMap]] = []
    for factor, op in terms:
        inner = zip(op.factors, op.terms, strict=True) if isinstance(op, Sum) else [(1.0, op)]
        flat += [(factor * f, term) for f, term in inner]
    return Sum(tuple(op for _, op in flat), tuple(factor for factor, _ in flat))


def _combine_operators(terms: Sequence[tuple[Any, Operator]], damping: Any) -> Combination:
    sizes = {op.size for _, op in terms}
    if len(sizes) > 1:
        raise VectorError(f"expected operators of one size, found {sorted(sizes)}")
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


LinearMap.combine = combine
