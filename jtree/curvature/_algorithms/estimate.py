"""Scalars with a standard error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._tree.leaves import describe, isarray, istracer
from .._autodiff.arguments import isreal


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Estimate:
    """A scalar with its standard error, which is 0 if the scalar is exact and NaN if it is unknown.

    It converts to its value with `float(estimate)`, `numpy.asarray(estimate)` and in functions of
    `jax.numpy`, and unpacks as `value, error = trace(op)`. `+`, `-`, `*` and `/` with numbers and
    other estimates are estimates again, whose error is an upper bound to first order, since
    estimates may share their samples. Comparisons and formats are those of the value.

    >>> total = Estimate(jnp.array(3.0), jnp.array(0.5))
    >>> 2 * total - 1, bool(total > 2), f"{total:.2f}"
    (Estimate(5, error=1), True, '3.00')
    """

    __array_priority__ = 1000  # so that NumPy's numbers leave `x * estimate` to the estimate

    value: Any
    error: Any

    def __iter__(self) -> Iterator[Any]:
        return iter((self.value, self.error))

    def __jax_array__(self) -> jax.Array:
        return jnp.asarray(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __round__(self, digits: int | None = None) -> Any:
        return round(float(self), digits)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return np.array(self.value, dtype=dtype, copy=copy)

    def __add__(self, other: Any) -> Any:
        if (b := _as_estimate(other)) is None:
            return NotImplemented
        return Estimate(self.value + b.value, self.error + b.error)

    def __sub__(self, other: Any) -> Any:
        return NotImplemented if (b := _as_estimate(other)) is None else self + -b

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __mul__(self, other: Any) -> Any:
        if (b := _as_estimate(other)) is None:
            return NotImplemented
        error = abs(b.value) * self.error + abs(self.value) * b.error
        return Estimate(self.value * b.value, error)

    def __truediv__(self, other: Any) -> Any:
        if (b := _as_estimate(other)) is None:
            return NotImplemented
        quotient = jnp.divide(self.value, b.value)  # infinite or NaN where the divisor is 0
        return Estimate(quotient, jnp.divide(self.error + abs(quotient) * b.error, abs(b.value)))

    def __rtruediv__(self, other: Any) -> Any:
        return NotImplemented if (b := _as_estimate(other)) is None else b / self

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Estimate:
        return Estimate(-self.value, self.error)

    def __abs__(self) -> Estimate:
        return Estimate(abs(self.value), self.error)

    def __eq__(self, other: object) -> Any:
        return NotImplemented if (b := _as_estimate(other)) is None else self.value == b.value

    def __lt__(self, other: Any) -> Any:
        return NotImplemented if (b := _as_estimate(other)) is None else self.value < b.value

    def __le__(self, other: Any) -> Any:
        return NotImplemented if (b := _as_estimate(other)) is None else self.value <= b.value

    def __gt__(self, other: Any) -> Any:
        return NotImplemented if (b := _as_estimate(other)) is None else self.value > b.value

    def __ge__(self, other: Any) -> Any:
        return NotImplemented if (b := _as_estimate(other)) is None else self.value >= b.value

    def __format__(self, spec: str) -> str:
        return format(float(self), spec) if spec else repr(self)

    def __repr__(self) -> str:
        return f"Estimate({_show(self.value, '.6g')}, error={_show(self.error, '.2g')})"


def _as_estimate(x: Any) -> Estimate | None:
    """Return a number as an exact estimate, and None for what is neither of them."""
    if isinstance(x, Estimate):
        return x
    array = isarray(x) or isinstance(x, np.generic)
    return Estimate(x, 0) if isinstance(x, int | float) or (array and isreal(x.dtype)) else None


def _show(x: Any, spec: str) -> str:
    """Return a scalar in a format, and an array or a tracer by its shape."""
    return describe(x) if istracer(x) or np.ndim(x) else format(float(x), spec)
