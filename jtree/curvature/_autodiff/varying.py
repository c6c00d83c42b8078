"""Arrays that vary over the devices of a `shard_map`.

Within a `shard_map`, the type of an array tells over which axes of the mesh it varies. The values
of a loop have to keep their types, and tangents and cotangents need those of their primals, so
constants are cast. Elsewhere nothing varies, and nothing is cast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax import lax

Axes = frozenset[Any]
State = TypeVar("State")


def varying_axes(x: Any) -> Axes:
    """Return the axes of the mesh over which an array, or the result of `eval_shape`, varies."""
    aval = x if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x)
    # the name depends on the kind of type, and on the version of JAX: it is vma before 0.10.2
    for name in ("mat", "manual_axis_type"):
        if (axes := getattr(getattr(aval, name, None), "varying", None)) is not None:
            return frozenset(axes)
    return frozenset(getattr(aval, "vma", None) or ())


def vary(x: Any, axes: Axes) -> Any:
    """Return an array as one that varies over at least these axes."""
    missing = tuple(axes - varying_axes(x))
    return lax.pcast(x, missing, to="varying") if missing else x


def vary_as(tree: Any, like: Any) -> Any:
    """Return the arrays of a tree as ones that vary over the axes of those in another."""
    return jax.tree.map(lambda x, y: vary(x, varying_axes(y)), tree, like)


def as_carry(step: Callable[[State], State], start: State) -> State:
    """Return the first state of a loop, varying over every axis over which the next one varies."""
    if not getattr(jax.sharding.get_abstract_mesh(), "manual_axes", ()):
        return start
    axes: Axes = frozenset().union(*map(varying_axes, jax.tree.leaves(jax.eval_shape(step, start))))
    carry: State = jax.tree.map(lambda x: vary(x, axes), start)
    return carry
