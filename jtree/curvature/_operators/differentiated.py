"""Operators that are derivatives: their function is cut into the pieces of its vector."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import jax
import jax.numpy as jnp

from ..._errors import ArgumentError, VectorError, VectorTypeError
from ..._tree.leaves import describe, isarray, isinexact
from ..._tree.paths import Where
from ..._vector import destructure
from ..._vector.restructure import Restructure
from .._autodiff.arguments import chosen
from .._autodiff.call import automatic
from .._autodiff.partition import Cut, join, split, used
from .._autodiff.protocol import Linear, Parts
from .base import Operator


class Differentiated(Operator):
    """What Hessian, Gauss-Newton and Fisher have in common.

    Subclasses have these fields: `flat`, the point, whole; `labels`, the `Restructure` of the
    operator's own vector; `sizes`, the pieces of the whole vector that the labels name; `numbers`,
    those that the operator is restricted to, or None for all.
    """

    flat: jax.Array
    labels: Restructure | None
    sizes: tuple[int, ...] | None
    numbers: tuple[int, ...] | None

    @abstractmethod
    def _cut(self) -> Cut:
        """Return the function that is differentiated, cut into pieces."""

    @abstractmethod
    def _map(self, function: Cut, inputs: Sequence[int], outputs: Sequence[int]) -> Linear:
        """Return the product as a linear function from some pieces to others."""

    @property
    def size(self) -> int:
        if self.numbers is None or self.sizes is None:
            return int(self.flat.size)
        return sum(self.sizes[k] for k in self.numbers)

    @property
    def dtype(self) -> Any:
        return self.flat.dtype

    @property
    def re(self) -> Restructure | None:
        return self.labels

    @property
    def point(self) -> jax.Array:
        """The parameters at which the function is differentiated, those alone that it is by."""
        if self.numbers is None or self.sizes is None:
            return self.flat
        pieces = split(self.flat, self.sizes)
        return join([pieces[k] for k in self.numbers])

    def restrict(self, where: Where, /) -> Self:
        re = self._labels("restrict")
        inner = chosen(re, where)
        numbers = inner if self.numbers is None else tuple(self.numbers[k] for k in inner)
        return replace(self, numbers=numbers, labels=_part(re, self.point, inner))  # type: ignore[type-var]

    def _labelled(self, re: Restructure) -> Operator:
        if self.labels is not None or self.flat.size != re.size:
            return self
        return replace(self, labels=re, sizes=re.layout.sizes)  # type: ignore[type-var]

    def _parts(self) -> Parts:
        function = self._cut()
        numbers = tuple(range(len(function.sizes))) if self.numbers is None else self.numbers
        place = {k: i for i, k in enumerate(numbers)}

        def mapping(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Linear:
            return self._map(function, [numbers[i] for i in inputs], [numbers[j] for j in outputs])

        order = tuple(place[k] for k in function.order if k in place)
        return Parts(tuple(function.sizes[k] for k in numbers), order, mapping)


def replaced(
    pieces: Sequence[jax.Array], numbers: Sequence[int], given: Sequence[jax.Array]
) -> list[jax.Array]:
    """Return pieces with some of them replaced."""
    found = list(pieces)
    for k, x in zip(numbers, given, strict=True):
        found[k] = x
    return found


def _part(re: Restructure, flat: jax.Array, numbers: tuple[int, ...]) -> Restructure:
    """Return the labels of some parameters, with the others fixed."""
    model, paths = re(flat, restore_dtype=True), {re.paths[k] for k in numbers}
    size = sum(re.layout.sizes[k] for k in numbers)
    for ties in (re.ties or "references", ()):  # () where references were not to be tied
        part = destructure.destructure(
            model, which="all", where=lambda path, _: path in paths, ties=ties, dtype=re.dtype
        )[1]
        if part.size == size:
            break
    return part


def check_numbers(op: Differentiated, name: str) -> None:
    """Refuse single numbers among the parameters that the function does not use.

    A state of training has such numbers, learning rates and step counters, and they would end up
    in the vector.
    """
    re = op.labels
    if re is None or () not in re.shapes.values():
        return
    flags = used(op._cut(), op.flat)
    shapes = zip(re.shapes.items(), flags, strict=True)
    idle = [path for (path, shape), u in shapes if shape == () and not u]
    if idle:
        raise ArgumentError(
            f"{', '.join(idle)}: {name} does not depend on this number, so that it is no parameter "
            "of it, as learning rates and step counters are none; leave it out, as in "
            'destructure(state, where="params/**")'
        )


def checked(flat: Any, re: Restructure | None) -> tuple[jax.Array, tuple[int, ...] | None]:
    """Return the point as an array, and the sizes of the pieces that labels name."""
    if not isarray(flat) or not isinexact(flat.dtype):
        raise VectorTypeError(
            f"flat: expected a vector of floating numbers, found {describe(flat)}; "
            "destructure(model) makes one of a model"
        )
    if flat.ndim != 1:
        raise VectorError(f"flat: expected a vector, found {describe(flat)}")
    if jnp.issubdtype(flat.dtype, jnp.complexfloating):
        raise VectorTypeError(
            f"flat: expected real numbers, found {describe(flat)}; the second derivative of a real "
            "function of complex parameters is not linear over complex numbers: make the real and "
            "the imaginary part parameters of their own"
        )
    if re is not None and re.size != flat.size:
        raise ArgumentError(
            f"re: expected labels for {flat.size} parameters, found {re!r}; "
            "give the second result of the destructure that flat is the first of"
        )
    array = automatic(flat if isinstance(flat, jax.Array) else jnp.asarray(flat))
    return array, None if re is None else re.layout.sizes
