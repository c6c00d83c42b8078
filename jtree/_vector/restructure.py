"""Rebuild a model from a vector: `Restructure`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

from .._arguments import check_flag, unexpected
from .._errors import ModelError
from .._tree.leaves import equal, isconcrete, isdata, type_name
from .._tree.structure import Plan
from .._tree.walk import Walk, assemble, walk
from .dtypes import common_dtype
from .gather import check_parameter, compare_paths, gather, shared_value, sum_gradients
from .gradient import VectorFunction, vector_function
from .layout import VectorLayout, check_vector
from .parameter_paths import ParameterPaths
from .ravel import ravel, unravel
from .static import Static


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["arrays"],
    meta_fields=["layout", "statics", "plan"],
)
@dataclass(frozen=True, eq=False, repr=False)
class Restructure(ParameterPaths):
    """A function that rebuilds a model from a vector: the second result of `destructure`.

    It is a registered dataclass. The arrays that are not parameters are its data, and the layout
    is static and hashable. It can therefore be an argument of a jitted function, which bakes in no
    constants and does not compile again for an equal layout.

    Attributes:
      paths: the path of every parameter, in the order of the vector. A tied parameter has the
        path of its first leaf.
      shapes: the shape of each parameter in the model, a mapping by path in the same order.
      dtypes: the dtype of each parameter in the model, by path.
      slices: the slice of the vector that holds each parameter, by path.
      ties: a tuple of paths for every tied parameter.
      size: the length of the vector, which is also `len(re)`.
      dtype: the dtype of the vector.

    Example:
      >>> flat, re = jtree.destructure({"w": jnp.ones((2, 2)), "b": jnp.zeros(2), "name": "head"})
      >>> re(jnp.arange(6.0))["w"].tolist()
      [[2.0, 3.0], [4.0, 5.0]]
      >>> re.paths, re["w"], re.shapes["w"], len(re)
      (('b', 'w'), slice(2, 6, None), (2, 2), 6)
    """

    arrays: tuple[Any, ...]
    layout: VectorLayout
    statics: tuple[Static, ...]
    plan: Plan

    def __call__(self, flat: Any, /, *, restore_dtype: bool = True) -> Any:
        """Return the model with the parameters in a vector.

        Each leaf is converted to its own dtype by the rules of ChainRules' `ProjectTo`: the
        precision is restored, a real leaf takes the real part, and integers become floating-point.

        Args:
          flat: `(size,)`, of any dtype. It may be a tracer or a `ShapeDtypeStruct`.
          restore_dtype: whether to convert. If False, every leaf has the dtype of the vector.

        Returns:
          A new model with the same ties and shared objects. Variables of Flax NNX are new objects.

        Raises:
          VectorError: the vector has the wrong length or rank.
          VectorTypeError: `flat` is not an array.
        """
        check_vector(flat, self.layout)
        restored = check_flag("restore_dtype", restore_dtype)
        dtypes = self.layout.dtypes if restored else (None,) * len(self.layout.dtypes)
        return self.assemble(unravel(flat, self.layout, dtypes))

    def apply(self, flat: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Return `re(flat)(*args, **kwargs)`: call the model with the parameters in a vector.

        >>> from jax.tree_util import Partial
        >>> _, re = jtree.destructure(Partial(jnp.dot, jnp.ones(2)))
        >>> re.apply(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]))
        Array(11., dtype=float32)
        """
        return self(flat)(*args, **kwargs)

    def ravel(self, model: Any, /) -> Any:
        """Return the parameters of a model with this structure as a vector of `re.dtype`.

        Parameters are looked up by path. Leaves that are tied here must have equal values there.

        Raises:
          ModelError: a parameter is missing, unknown, of another shape, or untied.

        >>> flat, re = jtree.destructure({"w": jnp.ones(2), "b": jnp.zeros(1)})
        >>> re.ravel({"b": jnp.array([7.0]), "w": jnp.array([8.0, 9.0])})
        Array([7., 8., 9.], dtype=float32)
        """
        values = map(shared_value, gather(self.layout, walk(model).slots))
        return ravel(dict(zip(self.paths, values, strict=True)), self.dtype)

    def ravel_grad(self, grads: Any, /) -> Any:
        """Return a gradient with this structure as a vector, in which tied leaves are summed.

        A leaf or a whole branch that is `None` is zero, and so is a leaf of dtype `float0`. A
        reference object that occurs twice in `grads` is one gradient and counts once.

        Returns:
          `(size,)`, of the dtype that `re.dtype` and the gradients promote to.

        Raises:
          ModelError: a gradient is missing, unknown, or of another shape.

        >>> flat, re = jtree.destructure({"w": jnp.ones(2), "b": jnp.zeros(1)})
        >>> re.ravel_grad({"w": jnp.array([3.0, 4.0]), "b": None})
        Array([0., 3., 4.], dtype=float32)
        """
        leaves = enumerate(gather(self.layout, walk(grads).slots, gradient=True))
        sums = [sum_gradients(self.layout, k, x) for k, x in leaves]
        dtype = common_dtype([self.dtype, *(x.dtype for x in sums)])
        return ravel(dict(zip(self.paths, sums, strict=True)), dtype)

    def refresh(self, model: Any, /) -> Restructure:
        """Return this layout with the other leaves of a model, such as new running statistics.

        Raises:
          ModelError: the model has other paths, or its parameters have other shapes.

        >>> flat, re = jtree.destructure({"w": jnp.ones(2), "step": jnp.array(1)})
        >>> re.refresh({"w": jnp.zeros(2), "step": jnp.array(5)})(flat)["step"].item()
        5
        """
        layout, walked = self.layout, walk(model)
        if type_name(model) != layout.name:
            raise ModelError(f"expected {layout.name}, found {type_name(model)}")
        slots = walked.slots
        paths = tuple(slot.path for slot in slots)
        if paths != layout.slots:
            raise ModelError(compare_paths(layout.slots, paths))
        for slot, source in zip(slots, layout.sources, strict=True):
            if source >= 0:
                check_parameter(slot.path, slot.value, layout.shapes[source])
        refreshed = restructure(walked, layout)
        if _inputs(walked.plan) != _inputs(self.plan):  # the model shares other objects than this
            return replace(refreshed, plan=self.plan)
        return refreshed

    def value_and_grad(
        self, loss: Callable[..., Any], /, *, has_aux: bool = False
    ) -> VectorFunction:
        """Return a function `(flat, *args, **kwargs)` to a loss of the model and its gradient.

        It returns what `jax.value_and_grad(lambda flat: loss(re(flat), ...))` returns, with
        derivatives of every order under `jit`, `grad`, `vmap` and `scan`. Called eagerly, it
        compiles the gradient of the nested model only: the vector is split into views and the
        gradient put together outside of it, since XLA compiles a kernel for every piece of a
        vector. It compiles once for equal layouts; arrays of `re` that are not parameters are
        arguments, so `re.refresh` does not compile again.

        Args:
          loss: `loss(model, *args, **kwargs)`, a real scalar, or `(scalar, aux)`. It is compiled
            once per function, so pass a function of a module rather than a new lambda each time.
          has_aux: whether the loss returns auxiliary results, any pytree, beside its value.

        Returns:
          A `VectorFunction`. Called with `flat`, `(size,)`, and the other arguments of the loss, it
          returns `(value, gradient)`, or `((value, aux), gradient)`; the gradient is `(size,)`, of
          the dtype of `flat`, and tied leaves are summed. Arrays and Python numbers among the
          arguments are traced, as under `jit`; booleans, strings and functions are static.

        Raises:
          ArgumentError: the loss does not return a real scalar.
          VectorTypeError: `flat` is not floating point.

        Example:
          >>> flat, re = jtree.destructure({"w": jnp.array([1.0, 2.0]), "b": jnp.zeros(())})
          >>> def loss(model, x, y):
          ...     return ((x @ model["w"] + model["b"] - y) ** 2).sum()
          >>> step = re.value_and_grad(loss)
          >>> step(flat, jnp.array([3.0, 4.0]), 10.0)
          (Array(1., dtype=float32), Array([2., 6., 8.], dtype=float32))
        """
        return vector_function(self, loss, "value_and_grad", has_aux)

    def grad(self, loss: Callable[..., Any], /, *, has_aux: bool = False) -> VectorFunction:
        """Return a function to the gradient of a loss of the model; see `value_and_grad`.

        >>> flat, re = jtree.destructure({"w": jnp.array([1.0, 2.0])})
        >>> re.grad(lambda model: (model["w"] ** 3).sum())(flat)
        Array([ 3., 12.], dtype=float32)
        """
        return vector_function(self, loss, "grad", has_aux)

    def hvp(self, loss: Callable[..., Any], /) -> VectorFunction:
        """Return a function `(flat, v, *args, **kwargs)` to a Hessian-vector product.

        It is `jax.jvp` of the gradient, and compiled as `value_and_grad` is.

        >>> flat, re = jtree.destructure({"w": jnp.array([1.0, 2.0])})
        >>> re.hvp(lambda model: (model["w"] ** 3).sum())(flat, jnp.array([1.0, 10.0]))
        Array([  6., 120.], dtype=float32)
        """
        return vector_function(self, loss, "hvp")

    def __repr__(self) -> str:
        return f"Restructure({self.layout.name}, ..., {self.size})"

    def __hash__(self) -> int:
        return hash((self.layout, self.statics, self.plan))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Restructure):
            return NotImplemented
        static = self.layout, self.statics, self.plan
        if static != (other.layout, other.statics, other.plan):
            return False
        return all(_same(a, b) for a, b in zip(self.arrays, other.arrays, strict=True))

    def assemble(self, parameters: Sequence[Any]) -> Any:
        others, sources = _others(self), self.layout.sources
        return assemble(self.plan, [parameters[k] if k >= 0 else others[~k] for k in sources])


def check_restructure(re: Any) -> Restructure:
    """Return the argument `re`, or raise if it is not a `Restructure`."""
    if not isinstance(re, Restructure):
        raise unexpected("re", "the Restructure from flat, re = jtree.destructure(model)", re)
    return re


def restructure(walked: Walk, layout: VectorLayout) -> Restructure:
    """Return the `Restructure` of a walked model.

    A leaf that is not a parameter is data if `jit` can take it as an array, and static otherwise.
    """
    others = [walked.values[walked.slots[slot].tie] for slot in layout.other_slots]
    return _around(others, layout, walked.plan)


def fix_others(re: Restructure, flat: Any, indices: Sequence[int]) -> Restructure:
    """Return the `Restructure` of some parameters, with the others fixed at a vector's values.

    Args:
      re: the `Restructure` of all parameters.
      flat: `(re.size,)`.
      indices: the indices of the parameters that remain, in increasing order.
    """
    layout, remaining = re.layout, {k: i for i, k in enumerate(indices)}
    parameters, others = unravel(flat, layout, layout.dtypes), _others(re)
    sources, fixed = list[int](), list[Any]()
    for source in layout.sources:
        if source in remaining:
            sources.append(remaining[source])
        else:
            sources.append(~len(fixed))
            fixed.append(parameters[source] if source >= 0 else others[~source])
    part = replace(
        layout,
        sources=tuple(sources),
        shapes=tuple(layout.shapes[k] for k in indices),
        dtypes=tuple(layout.dtypes[k] for k in indices),
    )
    return _around(fixed, part, re.plan)


def _around(others: Sequence[Any], layout: VectorLayout, plan: Plan) -> Restructure:
    """Return the `Restructure` around leaves that are not parameters, in the order of slots."""
    statics = tuple(_NOTHING if isdata(x) else Static(x) for x in others)
    return Restructure(tuple(filter(isdata, others)), layout, statics, plan)


def _others(re: Restructure) -> list[Any]:
    """Return the leaves that are not parameters, in the order of slots."""
    arrays = iter(re.arrays)
    return [static.value if static else next(arrays) for static in re.statics]


_NOTHING = Static()


def _inputs(plan: Plan) -> list[tuple[int, ...]]:
    return [inputs for _, inputs in plan]


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    return isconcrete(a) and isconcrete(b) and a.dtype == b.dtype and equal(a, b)
