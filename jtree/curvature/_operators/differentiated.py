"""The common base of operators that are derivatives: a point, its labels, and the pieces in use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp

from ..._errors import ArgumentError, VectorError, VectorTypeError
from ..._tree.leaves import describe, isabstract, isarray, isinexact
from ..._tree.paths import Where
from ..._vector import eager
from ..._vector.restructure import Restructure, check_restructure, fix_others
from .._autodiff.arguments import require_labels
from .._autodiff.call import with_automatic_axes
from .._autodiff.partition import PartitionedFunction, Pieces, join, split, used_pieces
from .._autodiff.protocol import Linear, Piecewise
from .._autodiff.varying import vary, varying_axes

T = TypeVar("T")

_MANY = 64  # pieces; with fewer, compiling a kernel for each pays off after a few products


class Differentiated(ABC):
    """The shared half of `Hessian` and `GaussNewton`.

    Subclasses are dataclasses with these fields: `flat`, the point, whole; `labels`, the
    `Restructure` of the operator's own vector; `sizes`, the pieces of the whole vector that the
    labels name; `indices`, the pieces that the operator is restricted to, or None for all.
    """

    flat: jax.Array
    labels: Restructure | None
    sizes: tuple[int, ...] | None
    indices: tuple[int, ...] | None

    @abstractmethod
    def function(self, point: Pieces | None = None) -> PartitionedFunction:
        """Return the function to differentiate, as a function of pieces; `point` as `partition`."""

    @abstractmethod
    def between(
        self, function: PartitionedFunction, inputs: Sequence[int], outputs: Sequence[int]
    ) -> Linear:
        """Return the product as a linear function from some pieces to others."""

    @property
    def size(self) -> int:
        return int(self.flat.size) if self.indices is None else sum(self._own(self.sizes or ()))

    @property
    def dtype(self) -> Any:
        return self.flat.dtype

    @property
    def re(self) -> Restructure | None:
        return self.labels

    @property
    def point(self) -> jax.Array:
        """The values of the parameters that the operator is restricted to."""
        if self.indices is None or self.sizes is None:
            return self.flat
        return join(self._own(split(self.flat, self.sizes)))

    def _own(self, pieces: Sequence[T]) -> Sequence[T]:
        """Return what belongs to the pieces that the operator is restricted to."""
        return pieces if self.indices is None else [pieces[k] for k in self.indices]

    def restrict(self, where: Where, /) -> Self:
        """Return the operator over some parameters, with the others fixed."""
        re = require_labels(self.labels, "restrict")
        selected = re.layout.select(where)
        indices = selected if self.indices is None else tuple(self.indices[k] for k in selected)
        return self._replace(indices=indices, labels=fix_others(re, self.point, selected))

    def labeled(self, re: Restructure) -> Self:
        """Return the operator with these labels, if it has none and they fit."""
        if self.labels is not None or self.flat.size != check_restructure(re).size:
            return self
        return self._replace(labels=re, sizes=re.layout.sizes)

    def _replace(self, **fields: Any) -> Self:
        operator: Any = self
        copy: Self = replace(operator, **fields)
        return copy

    def split_eagerly(self, v: jax.Array, /) -> tuple[list[Any], list[Any]] | None:
        """Return the pieces of the whole vector, and of a vector or of columns of the operator.

        None where they are few, or where an array is traced or not in the memory of one CPU.
        """
        sizes = self.sizes or ()
        if len(sizes) < _MANY:
            return None
        arrays = [x for x in (v, *jax.tree.leaves(self)) if isinstance(x, jax.Array)]
        if not (eager.isplain(arrays) and eager.on_cpu(self.flat)):
            return None
        return eager.rows(self.flat, sizes), eager.rows(jnp.asarray(v), self._own(sizes))

    def piecewise(self, point: Pieces | None = None, /) -> Piecewise:
        """Return the operator as maps between pieces of its vector, for use within `jit`."""
        function = self.function(point)
        indices = tuple(range(len(function.sizes))) if self.indices is None else self.indices
        own = {k: i for i, k in enumerate(indices)}

        def between(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Linear:
            linear = self.between(
                function, [indices[i] for i in inputs], [indices[j] for j in outputs]
            )
            axes = varying_axes(self.flat)
            return (lambda pieces: linear([vary(x, axes) for x in pieces])) if axes else linear

        order = tuple(own[k] for k in function.order if k in own)
        return Piecewise(tuple(self._own(function.sizes)), order, between)


def as_point(flat: Any, re: Restructure | None) -> tuple[jax.Array, tuple[int, ...] | None]:
    """Return a vector of parameters as an array of JAX, and the sizes of its labeled pieces."""
    if not isarray(flat) or isabstract(flat) or not isinexact(flat.dtype):
        raise VectorTypeError(
            f"flat: expected a floating-point vector, found {describe(flat)}; "
            "jtree.destructure(model) returns the vector of a model"
        )
    if flat.ndim != 1:
        raise VectorError(f"flat: expected a vector, found {describe(flat)}")
    if jnp.issubdtype(flat.dtype, jnp.complexfloating):
        raise VectorTypeError(
            f"flat: expected a real vector, found {describe(flat)}; the second derivative of a "
            "real function of complex parameters is not complex-linear: use their real and "
            "imaginary parts as parameters"
        )
    if re is not None and check_restructure(re).size != flat.size:
        raise ArgumentError(
            f"re: expected labels for {flat.size} parameters, found {re!r}; "
            "pass the second result of the destructure that returned flat"
        )
    array = with_automatic_axes(flat if isinstance(flat, jax.Array) else jnp.asarray(flat))
    return array, None if re is None else re.layout.sizes


def check_scalars(op: Differentiated, name: str) -> None:
    """Raise for scalar parameters that the function does not use.

    The state of a training loop has such scalars, learning rates and step counters, which would
    otherwise end up in the vector.
    """
    re = op.labels
    if re is None or () not in re.layout.shapes:
        return
    flags = used_pieces(op.function())
    shapes = zip(re.paths, re.layout.shapes, flags, strict=True)
    unused = [path for path, shape, used in shapes if shape == () and not used]
    if unused:
        raise ArgumentError(
            f"{', '.join(unused)}: {name} does not depend on this scalar; if it is a learning rate "
            'or a step counter, leave it out of the vector: destructure(state, where="params/**")'
        )
