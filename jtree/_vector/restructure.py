"""The way from a vector back to a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from .._errors import ArgumentTypeError, ModelError, PathError
from .._tree import paths as _path
from .._tree.leaves import describe, equal, isconcrete, isdata, type_name
from .._tree.structure import Plan
from .._tree.walk import Walk, assemble, walk
from .gather import add, check_parameter, differing_places, one_value, values_at
from .layout import VectorLayout, check_vector
from .ravel import common_dtype, ravel, unravel
from .static import Static


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["arrays"],
    meta_fields=["layout", "statics", "plan"],
)
@dataclass(frozen=True, eq=False, repr=False)
class Restructure:
    """The way from a vector back to a model: what `destructure` returns beside the vector.

    It is a registered dataclass: the arrays that are no parameters are its data, the layout is
    static and hashable. So it passes through `jit` as an argument, with no constants baked in, and
    without retracing for an equal layout.

    Attributes:
      paths: the path of every parameter, in the order of the vector; a tied one's first.
      shapes: the shape of each parameter in the model, by path; a mapping in the same order.
      dtypes: the dtype of each parameter in the model, by path.
      slices: the slice of the vector that holds each parameter, by path.
      ties: a tuple of paths for every parameter that has several places.
      size: the length of the vector, which `len(re)` gives too.
      dtype: the dtype of the vector.

    Example:
      >>> flat, re = jtree.destructure({"w": jnp.ones((2, 2)), "b": jnp.zeros(2), "name": "head"})
      >>> re(jnp.arange(6.0))["w"].tolist()
      [[2.0, 3.0], [4.0, 5.0]]
      >>> re.paths, re["w"], len(re)
      (('b', 'w'), slice(2, 6, None), 6)
    """

    arrays: tuple[Any, ...]
    layout: VectorLayout
    statics: tuple[Static, ...]
    plan: Plan

    def __call__(self, flat: Any, /, *, restore_dtype: bool = True) -> Any:
        """Return the model with its parameters from a vector.

        Each leaf regains its own dtype by the rules of ChainRules' `ProjectTo`: precision is
        restored, the real part is taken where the leaf was real, integers are made floating.

        Args:
          flat: `(size,)`, of any dtype; a tracer of any kind; or a `ShapeDtypeStruct`.
          restore_dtype: False keeps the vector's dtype in every leaf.

        Returns:
          A new model. Ties and shared objects are as they were; NNX variables are new ones.

        Raises:
          VectorError: the vector has another length or rank.
          VectorTypeError: this is no array.
        """
        check_vector(flat, self.layout)
        dtypes = self.layout.dtypes if restore_dtype else (None,) * len(self.layout.dtypes)
        return self._assemble(unravel(flat, self.layout, dtypes))

    def apply(self, flat: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Return `re(flat)(*args, **kwargs)`: the model called with parameters from a vector.

        >>> from jax.tree_util import Partial
        >>> _, re = jtree.destructure(Partial(jnp.dot, jnp.ones(2)))
        >>> re.apply(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]))
        Array(11., dtype=float32)
        """
        return self(flat)(*args, **kwargs)

    def ravel(self, model: Any, /) -> Any:
        """Return the parameters of a model of this structure as a vector of `re.dtype`.

        Parameters are found by path. Places that are tied here must hold equal numbers there.

        Raises:
          ModelError: a parameter is missing, unknown, of another shape, or untied.

        >>> flat, re = jtree.destructure({"w": jnp.ones(2), "b": jnp.zeros(1)})
        >>> re.ravel({"b": jnp.array([7.0]), "w": jnp.array([8.0, 9.0])})
        Array([7., 8., 9.], dtype=float32)
        """
        found = values_at(self.layout, walk(model))
        values = [one_value(at) for at in found]
        return ravel(dict(zip(self.paths, values, strict=True)), self.dtype)

    def ravel_grad(self, grads: Any, /) -> Any:
        """Return a gradient of this structure as a vector; tied places are added.

        `None`, for a leaf or for a whole branch, and `float0` are zeros. A reference object met
        twice in `grads` is one gradient, and is counted once.

        Returns:
          `(size,)`, of the dtype that `re.dtype` and the gradients promote to.

        Raises:
          ModelError: a gradient is missing, unknown, or of another shape.

        >>> flat, re = jtree.destructure({"w": jnp.ones(2), "b": jnp.zeros(1)})
        >>> re.ravel_grad({"w": jnp.array([3.0, 4.0]), "b": None})
        Array([0., 3., 4.], dtype=float32)
        """
        found = values_at(self.layout, walk(grads), absent=True)
        sums = [add(self.layout, k, at) for k, at in enumerate(found)]
        dtype = common_dtype([self.dtype, *(x.dtype for x in sums)])
        return ravel(dict(zip(self.paths, sums, strict=True)), dtype)

    def refresh(self, model: Any, /) -> Restructure:
        """Return the same layout around another model's other leaves, such as new statistics.

        Raises:
          ModelError: the model has other places, or its parameters have other shapes.

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
            raise ModelError(differing_places(layout.slots, paths))
        for slot, source in zip(slots, layout.sources, strict=True):
            if source >= 0:
                check_parameter(slot.path, slot.value, layout.shapes[source])
        if _inputs(walked.plan) != _inputs(self.plan):  # it is tied in another way: keep ours
            return replace(restructure(walked, layout), plan=self.plan)
        return restructure(walked, layout)

    @property
    def paths(self) -> tuple[str, ...]:
        return self.layout.paths

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self.layout.shapes_by_path

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return self.layout.dtypes_by_path

    @property
    def slices(self) -> Mapping[str, slice]:
        return self.layout.slices_by_path

    @property
    def ties(self) -> tuple[tuple[str, ...], ...]:
        return self.layout.ties

    @property
    def size(self) -> int:
        return self.layout.size

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.layout.dtype

    def __len__(self) -> int:
        return self.layout.size

    def __getitem__(self, where: str, /) -> Any:
        """Return where a parameter is in the vector: a slice for a path, indices for a glob."""
        if not isinstance(where, str):
            raise ArgumentTypeError(
                f"expected a path or a glob such as 'layers/0/**', found {describe(where)}"
            )
        by_path = self.layout.by_path
        if where in by_path:
            return self.layout.slices[by_path[where]]
        chosen = {k for path, k in by_path.items() if _path.matches(where, path)}
        if not chosen:
            raise PathError(_path.nothing_matches(where, list(by_path)))
        parts = (self.layout.slices[k] for k in sorted(chosen))
        return np.concatenate([np.arange(part.start, part.stop) for part in parts])

    def __contains__(self, path: object, /) -> bool:
        return path in self.layout.by_path

    __iter__ = None  # `re[...]` is asked by path: there is nothing to iterate over

    def __repr__(self) -> str:
        return f"Restructure({self.layout.name}, ..., {self.size})"

    def __hash__(self) -> int:
        return hash((self.layout, self.statics, self.plan))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Restructure):
            return NotImplemented
        mine = self.layout, self.statics, self.plan
        if mine != (other.layout, other.statics, other.plan):
            return False
        return all(_same(a, b) for a, b in zip(self.arrays, other.arrays, strict=True))

    def _assemble(self, parameters: Sequence[Any]) -> Any:
        arrays = iter(self.arrays)
        rest = [static.value if static else next(arrays) for static in self.statics]
        sources = self.layout.sources
        return assemble(self.plan, [parameters[k] if k >= 0 else rest[~k] for k in sources])


def restructure(walked: Walk, layout: VectorLayout) -> Restructure:
    """Return the way back to a walked model, around what is no parameter in it.

    What rides along is data where it is an array, and static where it is not.
    """
    kept = [walked.values[walked.slots[slot].tie] for slot in layout.riding]
    statics = tuple(_NOTHING if isdata(x) else Static(x) for x in kept)
    return Restructure(tuple(filter(isdata, kept)), layout, statics, walked.plan)


_NOTHING = Static()


def _inputs(plan: Plan) -> list[tuple[int, ...]]:
    return [inputs for _, inputs in plan]


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    return isconcrete(a) and isconcrete(b) and a.dtype == b.dtype and equal(a, b)
