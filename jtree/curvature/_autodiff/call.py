"""A user's function with the arguments behind its vector, in a form that `jit` takes."""

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
from ..._vector.restructure import Restructure
from ..._vector.static import Static


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["arrays"],
    meta_fields=["statics", "treedef"],
)
@dataclass(frozen=True, eq=False)
class Call:
    """A function and what it is called with behind the vector: arrays as data, the rest static.

    Two calls of one function on arrays of the same shapes are one to `jit`, which so compiles
    once. Functions are compared as Python compares them: a new lambda is another function.
    """

    arrays: tuple[Any, ...]
    statics: tuple[Static, ...]
    treedef: Any

    def __call__(self, *first: Any) -> Any:
        """Return the function's value at a vector, or at whatever comes first."""
        function, args = self.parts()
        return function(*first, *args)

    def parts(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return the function and its arguments."""
        arrays = iter(self.arrays)
        leaves = [static.value if static else next(arrays) for static in self.statics]
        found: tuple[Any, Any] = self.treedef.unflatten(leaves)
        return found

    @property
    def name(self) -> str:
        function = self.parts()[0]
        return getattr(function, "__name__", type(function).__name__)

    @property
    def size(self) -> int | None:
        """The number of examples: the length of the first array with an axis, outside of a `re`."""
        found = jax.tree.leaves(self.parts()[1], is_leaf=fixed)
        arrays = [x for x in found if isarray(x)]
        return next((len(x) for x in arrays if x.ndim), None)

    @property
    def length(self) -> int | None:
        """The length of all arrays with an axis, outside of a `re`; None where they differ."""
        found = jax.tree.leaves(self.parts()[1], is_leaf=fixed)
        lengths = {len(x) for x in found if isarray(x) and x.ndim}
        return lengths.pop() if len(lengths) == 1 else None


def fixed(x: Any) -> bool:
    """Tell whether an argument is no data, though there are arrays in it."""
    return isinstance(x, Restructure)


def call(function: Any, *args: Any) -> Call:
    """Return a function with arguments; what is no array and no floating number is static."""
    if not callable(function):
        raise ArgumentTypeError(f"expected a function, found {describe(function)}")
    leaves, treedef = jax.tree.flatten((function, args))
    leaves = [_array(x) for x in leaves]
    data = [isdata(x) or isinstance(x, float) for x in leaves]
    statics = tuple(_NOTHING if d else Static(x) for x, d in zip(leaves, data, strict=True))
    return Call(tuple(x for x, d in zip(leaves, data, strict=True) if d), statics, treedef)


_NOTHING = Static()


def _array(x: Any) -> Any:
    """Return NumPy's arrays of numbers as JAX's, and arrays on a mesh with automatic axes."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "biufcV":
        return jnp.asarray(x)
    if hasattr(x, "__dlpack__") and not isarray(x):  # what data loaders of PyTorch yield
        return jnp.asarray(np.asarray(x))
    return automatic(x)


def automatic(x: Any) -> Any:
    """Return an array of a mesh with explicit axes as the same array of one with automatic axes.

    With explicit axes, the default of `jax.make_mesh`, JAX refuses operations whose sharding is
    ambiguous, such as writing blocks of rows into a matrix.
    """
    sharding = None if istracer(x) else getattr(x, "sharding", None)
    if not isinstance(sharding, NamedSharding) or AxisType.Explicit not in sharding.mesh.axis_types:
        return x
    names = sharding.mesh.axis_names
    mesh = Mesh(sharding.mesh.devices, names, axis_types=(AxisType.Auto,) * len(names))
    return jax.device_put(x, NamedSharding(mesh, sharding.spec, memory_kind=sharding.memory_kind))


def traced(function: Callable[..., Any], *args: Any) -> Any:
    """Return a user's function traced, with an error that teaches where flax refuses."""
    try:
        return jax.make_jaxpr(function)(*args)
    except Exception as error:
        if type(error).__name__ != "TraceContextError":
            raise
        raise ModelError(
            "the function changes an NNX variable that was made outside of it, as BatchNorm in "
            "training mode does with its statistics and Dropout with its counter; call "
            "model.eval() before destructure, and rebuild the model inside with re(flat)"
        ) from error
