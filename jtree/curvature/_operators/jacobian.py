"""The Jacobian of a model's outputs, and the neural tangent kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp

from ..._errors import ArgumentError
from ..._tree.leaves import isarray
from ..._vector.restructure import Restructure
from .._autodiff.arguments import checked_vector
from .._autodiff.call import Call, call, traced
from .._autodiff.linearize import product
from .._autodiff.partition import uses
from .._autodiff.protocol import Parts
from .base import Operator, whole
from .differentiated import checked


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["apply", "flat", "re"],
    meta_fields=["transposed"],
)
@dataclass(frozen=True, eq=False, repr=False)
class Jacobian:
    """The derivative of a model's outputs by its parameters: what `jacobian` returns.

    `J @ v` and `J.T @ u` are products with vectors, or with the columns of a matrix. `J @ J.T` is
    the neural tangent kernel, an `Operator`.

    Attributes:
      shape: `(m, n)`: the outputs, in the order of `outputs.reshape(-1)`, and the parameters.
      dtype: that of the vector.
    """

    apply: Call
    flat: jax.Array
    re: Restructure | None
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        out = jax.eval_shape(self.apply, self.flat)
        shape = (int(out.size), int(self.flat.size))
        return shape[::-1] if self.transposed else shape

    @property
    def dtype(self) -> Any:
        return self.flat.dtype

    @cached_property
    def T(self) -> Jacobian:  # noqa: N802 (what arrays call it)
        """The transpose."""
        return replace(self, transposed=not self.transposed)

    def mv(self, v: Any, /) -> jax.Array:
        """Return the product with a vector `(n,)`, or with the columns of a matrix `(n, k)`."""
        return product(self, checked_vector(self, v, self.shape[1]))

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, Jacobian):
            self._check_transpose(other)
            return Kernel(self.T if self.transposed else self, self.transposed)
        return self.mv(other) if isarray(other) else NotImplemented

    def __rmatmul__(self, u: Any) -> Any:
        return self.T.mv(u.T).T if isarray(u) else NotImplemented

    __array_ufunc__ = None  # NumPy's arrays leave `u @ J` to us

    def __call__(self, v: Any, /) -> jax.Array:
        return self.mv(v)

    def dense(self) -> jax.Array:
        """Return the matrix, by rows or by columns, whichever are fewer."""
        found: jax.Array = _matrix(self)
        return found

    def _check_transpose(self, other: Jacobian) -> None:
        same = other.apply is self.apply and other.flat is self.flat
        if not same or other.transposed == self.transposed:
            raise ArgumentError("a Jacobian is multiplied with vectors, and with its own transpose")

    def _forward(self) -> Callable[[jax.Array], jax.Array]:
        return lambda flat: self.apply(flat).reshape(-1)

    def _linear(self) -> Callable[[jax.Array], jax.Array]:
        if not self.transposed:
            return jax.linearize(self._forward(), self.flat)[1]
        pull = jax.vjp(self._forward(), self.flat)[1]
        return lambda u: pull(u.astype(self._output_dtype))[0]

    @property
    def _output_dtype(self) -> Any:
        return jax.eval_shape(self.apply, self.flat).dtype

    def __repr__(self) -> str:
        rows, cols = self.shape
        turned = ".T" if self.transposed else ""
        return f"Jacobian({self.apply.name}, {rows} x {cols}, {self.dtype.name}){turned}"


@jax.jit
def _matrix(jacobian: Jacobian) -> jax.Array:
    rows, cols = jacobian.shape
    by_rows = rows < cols
    if by_rows:
        jacobian, cols = jacobian.T, rows
    linear = jacobian._linear()

    def column(i: jax.Array) -> jax.Array:
        return linear((jnp.arange(cols) == i).astype(jacobian.dtype))

    found: jax.Array = jax.lax.map(column, jnp.arange(cols), batch_size=min(cols, 32))
    return found if by_rows else found.T


@partial(jax.tree_util.register_dataclass, data_fields=["jacobian"], meta_fields=["inner"])
@dataclass(frozen=True, eq=False, repr=False)
class Kernel(Operator):
    """`J @ J.T` over the outputs, or with `inner` `J.T @ J` over the parameters."""

    jacobian: Jacobian
    inner: bool

    @property
    def size(self) -> int:
        return self.jacobian.shape[1 if self.inner else 0]

    @property
    def dtype(self) -> Any:
        return self.jacobian.dtype

    @property
    def re(self) -> Restructure | None:
        return None  # it is known as a whole only: J.T @ J by path is a ggn

    def _linear(self) -> Callable[[jax.Array], jax.Array]:
        outer, inner = self.jacobian, self.jacobian.T
        if self.inner:
            outer, inner = inner, outer
        first, second = inner._linear(), outer._linear()
        return lambda v: second(first(v)).astype(self.dtype)

    @property
    def _semidefinite(self) -> bool:
        return True

    def _parts(self) -> Parts:
        return whole(self)

    def _about(self) -> str:
        return self.jacobian.apply.name


def jacobian(
    apply: Callable[..., Any], flat: Any, x: Any, /, *, re: Restructure | None = None
) -> Jacobian:
    """Return the Jacobian of a model's outputs by its parameters, known by its products.

    Args:
      apply: `apply(flat, x)`, one array of outputs.
      flat: `(n,)`, floating; the first result of `jtree.destructure`.
      x: the inputs.
      re: the second result of `jtree.destructure`.

    Returns:
      A `Jacobian`, `(outputs, n)`.

    Raises:
      VectorTypeError: complex parameters, or no floating numbers.
      ArgumentError: the outputs are no single array of floating numbers, or do not depend on the
        vector.

    Example:
      >>> J = jtree.curvature.jacobian(lambda w, x: x @ w, jnp.ones(2), jnp.eye(3, 2))
      >>> J
      Jacobian(<lambda>, 3 x 2, float32)
      >>> J @ jnp.array([1.0, 2.0])
      Array([1., 2., 0.], dtype=float32)
      >>> (J @ J.T).dense().tolist()                        # the neural tangent kernel
      [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]

    Source: Jacot, Gabriel and Hongler, "Neural tangent kernel", NeurIPS 2018, arXiv:1806.07572.
    """
    vector, _ = checked(flat, re)
    found = Jacobian(call(apply, x), vector, re)
    _check.eval_shape(found)
    return found


@jax.jit
def _check(jacobian: Jacobian) -> None:
    whole_function = traced(jacobian.apply, jacobian.flat)
    name, outputs = jacobian.apply.name, whole_function.out_avals
    if len(outputs) != 1 or not jnp.issubdtype(outputs[0].dtype, jnp.floating):
        shown = ", ".join(map(str, outputs)) or "none"
        raise ArgumentError(f"{name}: expected one array of floating outputs, found {shown}")
    if not uses(whole_function):
        raise ArgumentError(
            f"{name}: the outputs do not depend on the vector, so the Jacobian is zero; build the "
            "model from the vector inside it, with re(flat) (with eqx.combine the new parameters "
            "come first)"
        )
