"""A model as one vector: `destructure`."""

from __future__ import annotations

from typing import Any, Literal

import jax

from .._errors import ArgumentError
from .._tree import paths
from .._tree.leaves import canonical, isarray, isnumeric, type_name
from .._tree.paths import Where
from .._tree.ties import Slot, Ties
from .._tree.walk import Walk, walk
from .layout import VectorLayout
from .ravel import common_dtype, floating, ravel
from .restructure import Restructure, restructure


def destructure(
    model: Any,
    /,
    *,
    which: Literal["trainable", "all"] = "trainable",
    where: Where = None,
    ties: Ties = "references",
    dtype: Any = None,
) -> tuple[jax.Array, Restructure]:
    """Return the parameters of a model as one vector, and the way back.

    Works eagerly, under `jit`, `grad`, `jvp` and `vmap`, on abstract models (`ShapeDtypeStruct`
    in, `ShapeDtypeStruct` out), and on whatever else holds arrays: gradients, optimiser states.
    Derivatives of every order are exact, through the vector and through the rebuilt model.

    Args:
      model: any pytree.
      which: `"trainable"` for the parameters: numeric leaves that every ancestor's
        `jtree.trainable` lets through; `"all"` for every numeric leaf, running statistics too.
      where: a glob over paths (`"layers/0/**"`), several, or a function `(path, leaf) -> bool`,
        to take some of these only.
      ties: what is one parameter at several places. `"references"`: what is under one reference
        object (an NNX module or variable) met twice. `"arrays"`: the same array object too. A
        list of tuples of paths: these, and references; a tied place takes the first one's number.
        `()`: nothing.
      dtype: the vector's dtype, floating or complex; by default what the parameters promote to.
        float8 and smaller count as bfloat16, which holds all their values.

    Returns:
      `(flat, re)`: `flat` is 1-D, in JAX's leaf order, `float32[0]` where there are no parameters;
      `re(flat)` is the model again. Whatever is no parameter rides along in `re`, bit for bit.

    Raises:
      ModelError: the model cannot be walked; arrays are on different devices; an array was deleted.
      PathError: `where` or `ties` names what is not there.
      ArgumentError: an option has a value that is none of those offered.

    Example:
      >>> model = {"x": jnp.array([1.0, 2.0]), "y": (jnp.sin, jnp.array([3.0 + 4.0j]))}
      >>> flat, re = destructure(model)
      >>> flat
      Array([1.+0.j, 2.+0.j, 3.+4.j], dtype=complex64)
      >>> re
      Restructure(dict, ..., 3)
      >>> re(jnp.array([3, 5, 7 + 11j]))["x"]
      Array([3., 5.], dtype=float32)

    Source: `destructure` of Optimisers.jl, `jax.flatten_util.ravel_pytree`.
    """
    walked = walk(model, ties=ties).check()
    layout = _remembered_layout(model, walked, which, where, dtype)
    parameters = {path: walked.values[first] for path, first in layout.firsts}
    return ravel(parameters, layout.dtype), restructure(walked, layout)


_LAYOUTS: dict[Any, VectorLayout] = {}
_MOST = 512  # layouts to remember


def _remembered_layout(
    model: Any, walked: Walk, which: str, where: Where, dtype: Any
) -> VectorLayout:
    """Return the layout of a model, worked out once for models that are alike."""
    if not (walked.simple and isinstance(where, str | None)):
        return _layout(model, walked, which, where, dtype)
    leaves = tuple((x.shape, x.dtype) if isarray(x) else None for x in walked.values)
    key = (walked.structure, type(model), leaves, which, where, walked.ties, dtype, _x64())
    if key not in _LAYOUTS:
        if len(_LAYOUTS) >= _MOST:
            _LAYOUTS.clear()
        _LAYOUTS[key] = _layout(model, walked, which, where, dtype)
    return _LAYOUTS[key]


def _x64() -> bool:
    return bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]


def _layout(model: Any, walked: Walk, which: str, where: Where, dtype: Any) -> VectorLayout:
    """Choose the parameters, number them, and put what is left in line."""
    slots, numbers, left, sources = walked.slots, dict[int, int](), 0, list[int]()
    for slot, flag in zip(slots, _choose(slots, which, where), strict=True):
        if flag:
            sources.append(numbers.setdefault(slot.tie, len(numbers)))
        else:
            sources.append(~left)
            left += 1
    parameters = [slots[first].value for first in numbers]
    return VectorLayout(
        name=type_name(model),
        slots=walked.structure.paths,
        sources=tuple(sources),
        shapes=tuple(tuple(x.shape) for x in parameters),
        dtypes=tuple(canonical(x.dtype) for x in parameters),
        dtype=common_dtype([x.dtype for x in parameters]) if dtype is None else floating(dtype),
    )


def _choose(slots: list[Slot], which: str, where: Where) -> list[bool]:
    """Tell of each slot whether it is a parameter; a tied one is, if one of its places is."""
    if which not in ("trainable", "all"):
        raise ArgumentError(f"which: expected 'trainable' or 'all', found {which!r}")
    offered = [isnumeric(slot.value) if which == "all" else slot.trainable for slot in slots]
    candidates = [
        (slot.path, slot.value) for slot, flag in zip(slots, offered, strict=True) if flag
    ]
    selected = iter(paths.select(where, candidates))
    flags = [flag and next(selected) for flag in offered]
    chosen = {slot.tie for slot, flag in zip(slots, flags, strict=True) if flag}
    return [slot.tie in chosen for slot in slots]
