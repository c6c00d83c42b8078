"""Derivatives of a loss of the nested model with respect to the vector.

Under a trace they are the derivatives of `loss(re(flat))`. Eagerly the vector is split outside of
the compiled function, and the gradient is put together outside of it, since XLA compiles a kernel
for every piece of a vector: the pieces are views, and nothing but the nested gradient is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from .._errors import ArgumentError, ArgumentTypeError, VectorTypeError
from .._tree.leaves import describe, isabstract, isinexact, istracer
from . import eager
from .dtypes import as_dtype, as_jax
from .layout import VectorLayout, check_vector
from .packed import Packed, pack


class Rebuild(Protocol):
    """The part of a `Restructure` that derivatives use: its layout, and models from parameters."""

    @property
    def layout(self) -> VectorLayout:
        """The layout of the vector."""

    def __call__(self, flat: Any, /) -> Any:
        """Return the model with the parameters in a vector."""

    def assemble(self, parameters: Sequence[Any]) -> Any:
        """Return the model with these parameters."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["re", "loss"],
    meta_fields=["transform", "has_aux"],
)
@dataclass(frozen=True, eq=False, repr=False)
class VectorFunction:
    """A derivative of a loss as a function of the vector: what `re.value_and_grad` returns.

    It is a pytree, whose data are the arrays of `re` and of the loss that are not parameters, so
    it can be an argument of a jitted function, which bakes in no constants.
    """

    re: Rebuild
    loss: Packed
    transform: str
    has_aux: bool = False

    def __call__(self, flat: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Return the derivative at a vector; the loss gets the model and the other arguments.

        Args:
          flat: `(size,)`, floating point or complex. For `hvp` the next argument is `(size,)` too.
          args: the arguments of the loss after the model. Arrays and Python numbers are traced,
            as under `jit`; booleans, text and functions are static.
          kwargs: keyword arguments of the loss, likewise.
        """
        vectors, args = self._vectors(flat, args)
        call = pack((args, kwargs))
        leaves = [*vectors, *jax.tree.leaves((self, call))]
        if any(map(isabstract, leaves)):
            return jax.eval_shape(_inline, self, vectors, (args, kwargs))
        if any(map(istracer, leaves)):
            return _inline(self, vectors, (args, kwargs))
        vectors = list(map(as_jax, vectors))
        if not eager.isplain(vectors):
            return _inline_compiled(self, vectors, call).unpack()
        return _eager(self, vectors, call)

    def _vectors(self, flat: Any, args: tuple[Any, ...]) -> tuple[list[Any], tuple[Any, ...]]:
        """Return the vectors among the arguments, checked, and the other arguments."""
        count = 1 if self.transform == "hvp" else 0
        if len(args) < count:
            raise ArgumentError(f"{self.name}: expected a vector and a tangent, found one vector")
        vectors = [flat, *args[:count]]
        for vector in vectors:
            check_vector(vector, self.re.layout)
            if not isinexact(vector.dtype):
                raise VectorTypeError(
                    f"{self.name}: expected a floating-point vector, found {describe(vector)}; "
                    "convert it with .astype(re.dtype)"
                )
        return vectors, args[count:]

    @property
    def name(self) -> str:
        """The name of the loss."""
        loss = self.loss.unpack()
        return getattr(loss, "__name__", type(loss).__name__)

    def __repr__(self) -> str:
        return f"{self.transform}({self.name}, {self.re!r})"


Loss = Callable[[Any], Any]
Derivative = tuple[Any, Any, Any]  # value, auxiliary results, gradient or product; None if not used


def vector_function(
    re: Rebuild, loss: Callable[..., Any], transform: str, has_aux: bool = False
) -> VectorFunction:
    """Return a derivative of a loss as a function of the vector."""
    if not callable(loss):
        raise ArgumentTypeError(
            f"{transform}: expected a loss, a function (model, *args), found {describe(loss)}"
        )
    if not isinstance(has_aux, bool):
        raise ArgumentTypeError(f"has_aux: expected True or False, found {describe(has_aux)}")
    return VectorFunction(re, pack(loss), transform, has_aux)


def _inline(function: VectorFunction, vectors: Sequence[Any], call: Any) -> Any:
    """Return the derivative of `loss(re(flat))` as JAX forms it."""
    flat, *tangents = vectors
    tangents = [as_dtype(as_jax(x), flat.dtype) for x in tangents]
    return _result(function, _differentiate(function, function.re, [flat, *tangents], call))


@jax.jit
def _inline_compiled(function: VectorFunction, vectors: Sequence[Any], call: Packed) -> Packed:
    return pack(_inline(function, vectors, call.unpack()), numbers=False)


def _eager(function: VectorFunction, vectors: Sequence[jax.Array], call: Packed) -> Any:
    """Return the derivative, split and put together outside of what is compiled."""
    layout, dtype = function.re.layout, vectors[0].dtype
    pieces = [eager.views(x, layout.shapes, layout.dtypes) for x in vectors]
    value, aux, gradients = _nested(function, pieces, call, dtype)
    return _result(function, (value, aux.unpack(), _join(gradients, vectors[0])))


def _join(gradients: list[jax.Array], like: jax.Array) -> jax.Array:
    """Return the gradients of the parameters as a vector, which takes the place of them."""
    if any(map(istracer, gradients)):  # of concrete arguments within `jit`
        return jnp.concatenate([x.reshape(-1) for x in gradients])
    if eager.on_cpu(like):
        committed = like if like.committed else None
        return eager.join(gradients, like.size, like.dtype, committed)
    return eager.ravel(gradients, like.dtype)


@partial(jax.jit, static_argnums=3)
def _nested(
    function: VectorFunction, pieces: Sequence[list[Any]], call: Packed, dtype: Any
) -> Derivative:
    """Return the derivative with respect to the parameters, each of them a piece of a vector."""
    value, aux, gradient = _differentiate(function, function.re.assemble, pieces, call.unpack())
    return value, pack(aux, numbers=False), [as_dtype(x, dtype) for x in gradient]


def _differentiate(
    function: VectorFunction, rebuild: Loss, primals: Sequence[Any], call: Any
) -> Derivative:
    """Return the derivative with respect to what `rebuild` makes a model of."""
    args, kwargs = call
    loss = function.loss.unpack()

    def evaluate(parameters: Any) -> Any:
        result = loss(rebuild(parameters), *args, **kwargs)
        return _check_loss(function, result)

    if function.transform == "hvp":
        gradient = jax.grad(lambda x: evaluate(x)[0])
        primal, tangent = primals
        return None, None, jax.jvp(gradient, (primal,), (tangent,))[1]
    (value, aux), gradients = jax.value_and_grad(evaluate, has_aux=True)(primals[0])
    return value, aux, gradients


def _check_loss(function: VectorFunction, result: Any) -> tuple[Any, Any]:
    """Return the value of a loss and its auxiliary results, or raise if it has no gradient."""
    if function.has_aux and not (isinstance(result, tuple) and len(result) == 2):
        raise ArgumentError(
            f"{function.name}: expected a loss that returns (value, aux), as has_aux=True says, "
            f"found {describe(result)}"
        )
    value, aux = result if function.has_aux else (result, None)
    shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", type(value))
    if shape != () or not jnp.issubdtype(dtype, jnp.floating):
        hint = "; pass has_aux=True" if isinstance(value, tuple) else "; return a mean or a sum"
        raise ArgumentError(
            f"{function.name}: expected a loss that returns one real scalar, "
            f"found {describe(value)}{hint}"
        )
    return value, aux


def _result(function: VectorFunction, derivative: Derivative) -> Any:
    """Return what the transform of JAX with this name returns."""
    value, aux, gradient = derivative
    if function.transform == "value_and_grad":
        return ((value, aux) if function.has_aux else value), gradient
    return (gradient, aux) if function.has_aux else gradient
