"""What every operator is: a symmetric matrix known by its products, labelled by path."""

from __future__ import annotations

import operator as _op
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import ArgumentError, ArgumentTypeError, VectorError
from ..._tree.leaves import describe, isarray
from ..._tree.paths import Where
from ..._vector.restructure import Restructure
from .._autodiff import dense as _dense
from .._autodiff.arguments import checked_vector, chosen, extra, places
from .._autodiff.linearize import product
from .._autodiff.partition import join, split
from .._autodiff.protocol import Linear, Parts


class Operator(ABC):
    """A symmetric matrix over the parameters of a model, known by its products with vectors.

    Every operator is a frozen, registered dataclass: it passes through `jit` as an argument, its
    arrays as data, and is compiled once for a function and the shapes of its arguments.

    `op @ v` is the product with a vector `(n,)`, or with the columns of a matrix `(n, k)`. The
    first one linearises, and the operator keeps what the next ones need. `op + other`, `2 * op`,
    `-op` and `op - other` are operators again. An operator is a function too, as `matfree` and
    `jax.scipy.sparse.linalg` want one: `op(v)`.

    Attributes:
      shape: `(n, n)`.
      dtype: that of the vector; vectors of other real dtypes are converted.
      re: the `Restructure` that labels rows and columns, or None.

    Example:
      >>> flat, re = jtree.destructure({"w": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)})
      >>> loss = lambda v: re(v)["w"].prod() * re(v)["b"]
      >>> op = jtree.curvature.hessian(loss, flat, re=re)
      >>> op
      Hessian(<lambda>, 3 x 3, float32, b, w)
      >>> op @ jnp.array([1.0, 0.0, 0.0])
      Array([0., 2., 1.], dtype=float32)
      >>> op.block("w", "b").tolist()
      [[2.0], [1.0]]
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of rows."""

    @property
    @abstractmethod
    def dtype(self) -> Any: ...

    @property
    @abstractmethod
    def re(self) -> Restructure | None: ...

    @property
    def shape(self) -> tuple[int, int]:
        return self.size, self.size

    @property
    def T(self) -> Self:  # noqa: N802 (what arrays call it)
        """The operator itself, which is symmetric."""
        return self

    @property
    def examples(self) -> int | None:
        """How many examples it was made of, for weights; None where that is not known."""
        return None

    @abstractmethod
    def _parts(self) -> Parts:
        """Return the operator over pieces; called where it is traced."""

    @property
    def _traceable(self) -> bool:
        """Whether products can be part of a compiled function."""
        return True

    @property
    def _semidefinite(self) -> bool:
        """Whether it is known to have no negative eigenvalue."""
        return False

    def _matrix(self, chunk: Any, budget: int | None, shown: bool) -> jax.Array:
        """Return the matrix; called where it is traced."""
        return _dense.matrix(self._parts(), self.dtype, chunk, budget, shown)

    def _diagonal(self) -> jax.Array:
        """Return the diagonal, by products."""
        found: jax.Array = _dense.diagonal(self)
        return found

    def _linear(self) -> Callable[[jax.Array], jax.Array]:
        """Return the product with a vector, linearised once; called where it is traced."""
        parts = self._parts()
        every = tuple(range(len(parts.sizes)))
        linear = parts.mapping(every, every)
        return lambda v: join(linear(split(v, parts.sizes)))

    def mv(self, v: Any, /) -> jax.Array:
        """Return the product with a vector, or with each column of a matrix.

        Args:
          v: `(n,)`, or `(n, k)` for k vectors at once, of any real dtype.

        Returns:
          An array of the same shape, of the operator's dtype.

        Raises:
          VectorError: another length or rank.
          VectorTypeError: no array, or complex numbers.
        """
        return self._product(checked_vector(self, v))

    def _product(self, v: jax.Array) -> jax.Array:
        return product(self, v)

    def __matmul__(self, v: Any) -> jax.Array:
        return self.mv(v) if isarray(v) else NotImplemented

    def __rmatmul__(self, v: Any) -> jax.Array:
        return self.mv(v.T).T if isarray(v) else NotImplemented

    __array_ufunc__ = None  # NumPy's arrays leave `v @ op` and `2.0 * op` to us

    def __call__(self, v: Any, /) -> jax.Array:
        return self.mv(v)

    def mv_tree(self, model: Any, /) -> Any:
        """Return the product with the parameters of a model, as a model.

        Leaves have the model's own dtypes; what is no parameter rides along.

        >>> model = {"w": jnp.ones(2), "name": "head"}
        >>> flat, re = jtree.destructure(model)
        >>> op = jtree.curvature.hessian(lambda v: (v ** 3).sum() / 6, flat, re=re)
        >>> op.mv_tree({"w": jnp.array([2.0, 5.0]), "name": "head"})
        {'name': 'head', 'w': Array([2., 5.], dtype=float32)}
        """
        re = self._labels("mv_tree")
        return re(self.mv(re.ravel(model)))

    def dense(
        self,
        chunk: int | str | None = "auto",
        *,
        memory: int | None = None,
        sharding: jax.sharding.Sharding | None = None,
        progress: bool = True,
    ) -> jax.Array:
        """Return the matrix.

        Products with unit vectors are taken `chunk` at a time and written in place. An operator
        that is differentiated goes parameter by parameter in the order in which the model uses
        them, leaves out what the ones before it have settled, and mirrors it.

        Args:
          chunk: how many products at once; `"auto"` or None chooses, within the memory.
          memory: how many bytes this may take at the most, the matrix included; by default what
            is free, where that can be told.
          sharding: where the rows go, such as `NamedSharding(mesh, P("x", None))`; each device then
            computes its own.
          progress: whether to show a progress bar, which only a terminal does.

        Returns:
          `(n, n)`, symmetric to rounding.

        Raises:
          ArgumentError: the matrix needs more memory than there is.
        """
        _dense.check_chunk(chunk)
        return self._whole(_dense.Options(chunk, memory, sharding, progress))

    def _whole(self, options: _dense.Options) -> jax.Array:
        """Return the matrix, as `dense` is asked for it."""
        return _dense.dense(self, options)

    def block(self, rows: Where, cols: Where = None, /) -> jax.Array:
        """Return the block of some parameters against others, and compute nothing else.

        Args:
          rows: a path, a glob such as `"layers/0/**"`, or several.
          cols: the same; by default those of the rows.

        Returns:
          `(sum of the rows' sizes, sum of the columns' sizes)`, each in the vector's order.

        Raises:
          PathError: a glob matches no parameter.
          ArgumentError: the operator has no labels.
        """
        re = self._labels("block")
        first = chosen(re, rows)
        return _dense.block(self, first, first if cols is None else chosen(re, cols))

    def restrict(self, where: Where, /) -> Operator:  # noqa: ARG002 (some have no parts)
        """Return the operator on some parameters, with the others fixed.

        Nothing is computed for the others: the function is differentiated by these alone.

        Args:
          where: a path, a glob such as `"head/**"`, or several.

        Raises:
          PathError: a glob matches no parameter.
          ArgumentError: the operator has no labels.
        """
        self._labels("restrict")
        raise ArgumentError(f"restrict: a {type(self).__name__} has no parts")

    def damped(self, damping: Any, /) -> Combination:
        """Return the operator with a number added to its diagonal.

        >>> op = jtree.curvature.hessian(lambda v: (v ** 2).sum(), jnp.ones(2))
        >>> op.damped(0.5).dense().tolist()
        [[2.5, 0.0], [0.0, 2.5]]
        """
        return combination([(1.0, self)], damping)

    def as_lineax(self) -> Any:
        """Return the operator for `lineax`, tagged as symmetric, for any of its solvers.

        A Gauss-Newton or Fisher matrix is tagged as positive semidefinite too, as `lineax.CG` and
        `lineax.Cholesky` ask for. Of another you may know:
        `lineax.TaggedLinearOperator(op.as_lineax(), lineax.positive_semidefinite_tag)`.

        >>> import lineax as lx
        >>> op = jtree.curvature.hessian(lambda v: (v ** 2).sum(), jnp.ones(2))
        >>> lx.linear_solve(op.as_lineax(), jnp.ones(2), lx.GMRES(rtol=1e-6, atol=1e-6)).value
        Array([0.5, 0.5], dtype=float32)
        """
        lx = extra("lineax")
        struct = jax.ShapeDtypeStruct((self.size,), self.dtype)
        more = [lx.positive_semidefinite_tag] * self._semidefinite
        return lx.FunctionLinearOperator(self.mv, struct, frozenset([lx.symmetric_tag, *more]))

    def __add__(self, other: Any) -> Combination:
        if not isinstance(other, Operator):
            return NotImplemented
        return combination([(1.0, self), (1.0, other)])

    def __radd__(self, other: Any) -> Operator:
        return self if _is(other, 0) else NotImplemented  # what `sum` starts with

    def __sub__(self, other: Any) -> Combination:
        if not isinstance(other, Operator):
            return NotImplemented
        return combination([(1.0, self), (-1.0, other)])

    def __mul__(self, factor: Any) -> Combination:
        if not isinstance(factor, int | float | np.number) and getattr(factor, "shape", None) != ():
            return NotImplemented
        return combination([(factor, self)])

    def __rmul__(self, factor: Any) -> Combination:
        return self.__mul__(factor)

    def __truediv__(self, factor: Any) -> Combination:
        return self.__mul__(1 / factor)

    def __neg__(self) -> Combination:
        return self.__mul__(-1.0)

    def __repr__(self) -> str:
        rows = f"{self.size} x {self.size}, {np.dtype(self.dtype).name}"
        return ", ".join([f"{type(self).__name__}({self._about()}", rows, *self._paths()]) + ")"

    def _about(self) -> str:
        return "..."

    def _paths(self) -> list[str]:
        paths = () if self.re is None else self.re.paths
        return [*paths] if len(paths) <= 4 else [*paths[:3], "..."]

    def _labelled(self, re: Restructure) -> Operator:  # noqa: ARG002 (some have no parts)
        """Return the operator with labels, where it has none and can have some."""
        return self

    def _labels(self, method: str) -> Restructure:
        if self.re is None:
            raise ArgumentError(
                f"{method}: the operator has no labels; give it the second result of destructure, "
                "as in hessian(loss, flat, x, y, re=re)"
            )
        return self.re


@partial(
    jax.tree_util.register_dataclass, data_fields=["terms", "factors", "damping"], meta_fields=[]
)
@dataclass(frozen=True, eq=False, repr=False)
class Combination(Operator):
    """A weighted sum of operators, with a number on the diagonal: what `+`, `*` and `damped` make.

    Attributes:
      terms: the operators.
      factors: a number for each.
      damping: what is added to the diagonal.
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

    def block(self, rows: Where, cols: Where = None, /) -> jax.Array:
        re = self._labels("block")
        if self._traceable and all(_named_alike(op.re, re) for op in self.terms):
            return super().block(rows, cols)
        here, there = (places(re, where) for where in (rows, rows if cols is None else cols))
        out: jax.Array = self._number(self.damping) * (here[:, None] == there).astype(self.dtype)
        for factor, op in zip(self._factors, self.terms, strict=True):
            out = out + factor * op.block(rows, cols).astype(self.dtype)
        return out

    def restrict(self, where: Where, /) -> Combination:
        return replace(self, terms=tuple(op.restrict(where) for op in self.terms))

    @property
    def _traceable(self) -> bool:
        return all(op._traceable for op in self.terms)

    @property
    def _semidefinite(self) -> bool:
        numbers = [*self.factors, self.damping]
        known = not any(isinstance(x, jax.core.Tracer) or x < 0 for x in numbers)
        return known and all(op._semidefinite for op in self.terms)

    def _product(self, v: jax.Array) -> jax.Array:
        if self._traceable:
            return super()._product(v)
        out: jax.Array = self._number(self.damping) * v
        for factor, op in zip(self._factors, self.terms, strict=True):
            out = out + factor * op._product(v.astype(op.dtype)).astype(self.dtype)
        return out

    def _diagonal(self) -> jax.Array:
        out = jnp.full(self.size, self._number(self.damping))
        for factor, op in zip(self._factors, self.terms, strict=True):
            out = out + factor * op._diagonal().astype(self.dtype)
        return out

    def _whole(self, options: _dense.Options) -> jax.Array:
        if self._traceable and len(self.terms) > 1:
            return super()._whole(options)
        out: jax.Array = _dense.scaled(
            self.terms[0]._whole(options).astype(self.dtype), self._factors[0]
        )
        for factor, op in zip(self._factors[1:], self.terms[1:], strict=True):
            out = _dense.added(out, op._whole(options).astype(self.dtype), factor)
        return out if _is(self.damping, 0) else _dense.shifted(out, self._number(self.damping))

    @property
    def _factors(self) -> list[jax.Array]:
        return [self._number(f) for f in self.factors]

    def _number(self, x: Any) -> jax.Array:
        return jnp.asarray(x).astype(self.dtype)

    def _parts(self) -> Parts:
        terms = [op._parts() for op in self.terms]
        if any(term.sizes != terms[0].sizes for term in terms):
            terms = [whole(op) for op in self.terms]
        damping, factors = self._number(self.damping), self._factors

        def mapping(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Linear:
            maps = [term.mapping(inputs, outputs) for term in terms]

            def linear(given: Sequence[jax.Array]) -> list[jax.Array]:
                own = dict(zip(inputs, given, strict=True))
                found = [
                    linear([x.astype(op.dtype) for x in given])
                    for linear, op in zip(maps, self.terms, strict=True)
                ]
                sums = [
                    reduce(
                        _op.add,
                        (f * x.astype(self.dtype) for f, x in zip(factors, xs, strict=True)),
                    )
                    for xs in zip(*found, strict=True)
                ]
                return [
                    x + damping * own[j] if j in own else x
                    for j, x in zip(outputs, sums, strict=True)
                ]

            return linear

        return Parts(terms[0].sizes, terms[0].order, mapping)

    def _about(self) -> str:
        def term(factor: Any, op: Operator) -> str:
            name = f"{type(op).__name__}({op._about()})"
            return name if _is(factor, 1) else f"{_show(factor)} {name}"

        shown = [term(f, op) for f, op in zip(self.factors, self.terms, strict=True)]
        return " + ".join(shown + ([] if _is(self.damping, 0) else [f"{_show(self.damping)} I"]))


def _named_alike(re: Restructure | None, other: Restructure) -> bool:
    return re is not None and re.layout.sizes == other.layout.sizes


def _is(x: Any, number: float) -> bool:
    return isinstance(x, int | float) and x == number


def _show(x: Any) -> str:
    return f"{float(x):.4g}" if not isinstance(x, jax.core.Tracer) else "?"


def whole(op: Operator) -> Parts:
    """Return an operator over its vector as one piece."""

    def mapping(_: tuple[int, ...], __: tuple[int, ...]) -> Linear:
        linear = op._linear()
        return lambda given: [linear(given[0])]

    return Parts((op.size,), (0,), mapping)


def combination(terms: Sequence[tuple[Any, Operator]], damping: Any = 0.0) -> Combination:
    """Return a weighted sum of operators, nested sums opened up."""
    sizes = {op.size for _, op in terms}
    if len(sizes) > 1:
        raise VectorError(f"expected operators of one size, found {sorted(sizes)}")
    if isinstance(damping, Operator | str) or (
        not np.isscalar(damping) and np.shape(damping) != ()
    ):
        raise ArgumentTypeError(f"expected a number, found {describe(damping)}")
    found: list[tuple[Any, Operator]] = []
    for factor, op in terms:
        if isinstance(op, Combination):
            found += [(factor * f, x) for f, x in zip(op.factors, op.terms, strict=True)]
            damping = damping + factor * op.damping
        else:
            found.append((factor, op))
    re = next((op.re for _, op in found if op.re is not None), None)
    operators = tuple(op if re is None else op._labelled(re) for _, op in found)
    return Combination(operators, tuple(f for f, _ in found), damping)
