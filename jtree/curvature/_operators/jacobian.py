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
from ..._vector.destructure import flatten_function
from ..._vector.restructure import Restructure
from .._autodiff.call import Call, bind, trace
from .._autodiff.forward import linearize
from .._autodiff.partition import depends_on_vector
from .._autodiff.protocol import Piecewise, one_piece
from .._autodiff.varying import vary_as
from .base import Operator
from .differentiated import as_point
from .linear_map import LinearMap, is_model


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["apply", "flat", "re"],
    meta_fields=["transposed"],
)
@dataclass(frozen=True, eq=False, repr=False)
class Jacobian(LinearMap):
    """The derivative of a model's outputs with respect to its parameters, from `jacobian`.

    `J @ v` and `J.T @ u` are products with vectors, or with the columns of a matrix. `J @ J.T` is
    the neural tangent kernel, an `Operator`. With labels, `J @ model` is the product with the
    parameters of a model.

    Attributes:
      shape: `(m, n)`: the outputs, in the order of `outputs.reshape(-1)`, and the parameters.
      dtype: the dtype of the vector.
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

    @property
    def name(self) -> str:
        return self.apply.name

    @property
    def label(self) -> str:
        return f"{super().label}{'.T' if self.transposed else ''}"

    @cached_property
    def T(self) -> Jacobian:  # noqa: N802 (as arrays call it)
        """The transpose."""
        return replace(self, transposed=not self.transposed)

    def linear(self) -> Callable[[jax.Array], jax.Array]:
        def forward(flat: jax.Array) -> jax.Array:
            outputs: jax.Array = self.apply(flat)
            return outputs.reshape(-1)

        if not self.transposed:
            linear: Callable[[jax.Array], jax.Array]
            _, linear = linearize(forward, self.flat, self.apply.name)
            return lambda v: linear(vary_as(v, self.flat))
        out, pull = jax.vjp(forward, self.flat)
        return lambda u: pull(vary_as(u.astype(out.dtype), out))[0]

    def is_transpose_of(self, other: LinearMap) -> bool:
        """Return whether another map is the transpose of this Jacobian."""
        if not isinstance(other, Jacobian) or other.transposed == self.transposed:
            return False
        return other.apply is self.apply and other.flat is self.flat

    def __matmul__(self, other: Any) -> Any:
        if isarray(other):
            return self.mv(other)
        if isinstance(other, Jacobian) and self.is_transpose_of(other):
            return Kernel(self.T if self.transposed else self, self.transposed)
        if self.re is not None and not self.transposed and is_model(other):
            other = self.re.ravel(other)
        return super().__matmul__(other)

    def __repr__(self) -> str:
        return f"{super().__repr__()}{'.T' if self.transposed else ''}"


@partial(jax.tree_util.register_dataclass, data_fields=["jacobian"], meta_fields=["inner"])
@dataclass(frozen=True, eq=False, repr=False)
class Kernel(Operator):
    """`J @ J.T` over the outputs, or `J.T @ J` over the parameters if `inner`."""

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
        return None  # it has no pieces: for J.T @ J by path there is ggn

    @property
    def name(self) -> str:
        return self.jacobian.apply.name

    @property
    def semidefinite(self) -> bool:
        return True

    def linear(self) -> Callable[[jax.Array], jax.Array]:
        outer, inner = self.jacobian, self.jacobian.T
        if self.inner:
            outer, inner = inner, outer
        first, second = inner.linear(), outer.linear()
        return lambda v: second(first(v)).astype(self.dtype)

    def piecewise(self) -> Piecewise:
        return one_piece(self)


def jacobian(
    apply: Callable[..., Any], flat: Any, x: Any, /, *, re: Restructure | None = None
) -> Jacobian:
    """Return the Jacobian of a model's outputs with respect to its parameters, as a linear map.

    Args:
      apply: `apply(flat, x)`, one array of outputs.
      flat: `(n,)`, floating point; the first result of `jtree.destructure`. Or a model, and then
        `apply(model, x)`.
      x: the inputs.
      re: the second result of `jtree.destructure`.

    Returns:
      A `Jacobian`, `(outputs, n)`.

    Raises:
      VectorTypeError: the parameters are complex or not floating point.
      ArgumentError: the outputs are not one floating-point array, or do not depend on the vector.

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
    apply, flat, re = flatten_function(apply, flat, re)
    vector, _ = as_point(flat, re)
    operator = Jacobian(bind(apply, x), vector, re)
    _check.eval_shape(operator)
    return operator


@jax.jit
def _check(jacobian: Jacobian) -> None:
    whole = trace(jacobian.apply, jacobian.flat)
    name, outputs = jacobian.apply.name, whole.out_avals
    if len(outputs) != 1 or not jnp.issubdtype(outputs[0].dtype, jnp.floating):
        shown = ", ".join(map(str, outputs)) or "none"
        raise ArgumentError(f"{name}: expected one floating-point array of outputs, found {shown}")
    if not depends_on_vector(whole):
        raise ArgumentError(
            f"{name}: the outputs do not depend on the vector, so the Jacobian is zero; build the "
            "model from the vector inside the function, with re(flat) (with eqx.combine, pass the "
            "new parameters first)"
        )
