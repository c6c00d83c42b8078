"""A user's function with the arguments after its vector, as a pytree that `jit` accepts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from ..._errors import ArgumentTypeError, ModelError
from ..._tree.leaves import describe, isarray, isdata, istracer
from ..._vector.static import Static


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["arrays"],
    meta_fields=["statics", "treedef"],
)
@dataclass(frozen=True, eq=False)
class Call:
    """A function and its arguments after the vector: arrays as data, everything else static.

    Two calls of one function with arrays of the same shapes are equal to `jit`, which therefore
    compiles once. Functions are compared as Python compares them: a new lambda is a new function.
    """

    arrays: tuple[Any, ...]
    statics: tuple[Static, ...]
    treedef: Any

    def __call__(self, *first: Any) -> Any:
        """Return the function's value at a vector and the arguments after it."""
        function, args = self.unpack()
        return function(*first, *args)

    def unpack(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return the function and its arguments."""
        arrays = iter(self.arrays)
        leaves = [static.value if static else next(arrays) for static in self.statics]
        function, args = self.treedef.unflatten(leaves)
        return function, args

    @property
    def name(self) -> str:
        function = self.unpack()[0]
        return getattr(function, "__name__", type(function).__name__)

    @property
    def examples(self) -> int | None:
        """The number of examples: the length of the first array of data that has an axis."""
        return next(iter(self._lengths()), None)

    @property
    def common_length(self) -> int | None:
        """The length of all arrays of data that have an axis; None where they differ."""
        lengths = set(self._lengths())
        return lengths.pop() if len(lengths) == 1 else None

    def _lengths(self) -> list[int]:
        arguments = jax.tree.leaves(self.unpack()[1], is_leaf=callable)
        return [len(x) for x in arguments if isarray(x) and x.ndim]


def bind(function: Any, *args: Any) -> Call:
    """Return a function with its arguments; all but arrays and Python floats are static.

    The arrays of an argument that can be called, such as a model or a `Restructure`, are traced
    too, but they are parameters and not data.
    """
    if not callable(function):
        raise ArgumentTypeError(f"expected a function, found {describe(function)}")
    leaves, treedef = jax.tree.flatten((function, args))
    leaves = [_as_jax(x) for x in leaves]
    data = [isdata(x) or isinstance(x, float) for x in leaves]
    statics = tuple(Static() if d else Static(x) for x, d in zip(leaves, data, strict=True))
    return Call(tuple(x for x, d in zip(leaves, data, strict=True) if d), statics, treedef)


def _as_jax(x: Any) -> Any:
    """Return arrays of NumPy and PyTorch as arrays of JAX, on a mesh with automatic axes."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "biufcV":
        return jnp.asarray(x)
    if hasattr(x, "__dlpack__") and not isarray(x):  # a tensor from a data loader
        return jnp.asarray(np.asarray(x))
    return with_automatic_axes(x)


def with_automatic_axes(x: Any) -> Any:
    """Return an array on a mesh with explicit axes as the same array on one with automatic axes.

    `jax.make_mesh` makes explicit axes by default since JAX 0.9. With them JAX raises where the
    sharding of a result is ambiguous, as it is for rows that are written into a matrix.
    """
    sharding = None if istracer(x) else getattr(x, "sharding", None)
    if not isinstance(sharding, NamedSharding) or AxisType.Explicit not in sharding.mesh.axis_types:
        return x
    names = sharding.mesh.axis_names
    mesh = Mesh(sharding.mesh.devices, names, axis_types=(AxisType.Auto,) * len(names))
    return jax.device_put(x, NamedSharding(mesh, sharding.spec, memory_kind=sharding.memory_kind))


def trace(function: Callable[..., Any], *args: Any) -> Any:
    """Return the jaxpr of a user's function, and explain the error of Flax if it raises one."""
    try:
        return jax.make_jaxpr(function)(*args)
    except Exception as error:
        if type(error).__name__ != "TraceContextError":  # of Flax, which is not imported here
            raise
        raise ModelError(
            "the function changes an NNX variable that was created outside of it, as BatchNorm "
            "does with its statistics in training mode and Dropout with its counter; call "
            "model.eval() before destructure, and rebuild the model inside with re(flat)"
        ) from error
