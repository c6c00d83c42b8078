"""Flatten a model into one vector: `destructure`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import jax

from .._arguments import check_callable, check_choice
from .._errors import ModelError
from .._tree import paths
from .._tree.cache import Cache
from .._tree.leaves import canonical, isarray, isnumeric, isscalar, type_name
from .._tree.opaque import check_opened
from .._tree.paths import Where
from .._tree.ties import Slot, Ties
from .._tree.walk import Walk, walk
from .dtypes import check_dtype, common_dtype
from .layout import VectorLayout
from .ravel import ravel
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
    """Return the parameters of a model as one vector, and a function that rebuilds the model.

    This works eagerly, under `jit`, `grad`, `jvp` and `vmap`, on abstract models, for which the
    vector is a `ShapeDtypeStruct`, and on any other pytree of arrays, such as gradients and
    optimiser states. Derivatives of every order are exact in both directions.

    Args:
      model: any pytree.
      which: `"trainable"` for the parameters, which are the numeric leaves that `jtree.trainable`
        allows, or `"all"` for every numeric leaf, including running statistics.
      where: which of these leaves to take: a glob over paths such as `"layers/0/**"`, several
        globs, or a function `(path, leaf) -> bool`. By default all of them.
      ties: which leaves are one parameter. `"references"` ties the leaves of a reference object
        (an NNX module or variable) that occurs twice. `"arrays"` also ties leaves that are the
        same array object. A list of tuples of paths states ties in addition to references. `()`
        ties nothing.
      dtype: the floating-point or complex dtype of the vector. By default it is what the
        parameters promote to, where float8 and smaller dtypes count as bfloat16.

    Returns:
      A tuple `(flat, re)`. `flat` is a vector in JAX's leaf order, and `float32[0]` if there are
      no parameters. `re(flat)` is the model; `re` keeps every other leaf unchanged.

    Raises:
      ModelError: the model cannot be walked, JAX does not open an object that holds arrays, its
        arrays are on different devices, or one of them
        was deleted.
      PathError: `where` or `ties` does not match the model.
      ArgumentError: an option has an invalid value.

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
    walked = check_opened(walk(model, ties=ties).check())
    layout = _cached_layout(model, walked, which, where, dtype)
    leaves = zip(layout.paths, layout.first_slots, strict=True)
    parameters = {path: walked.values[slot] for path, slot in leaves}
    return ravel(parameters, layout.dtype), restructure(walked, layout)


logger = logging.getLogger("jtree")
_LAYOUTS: Cache[VectorLayout] = Cache()


def _cached_layout(model: Any, walked: Walk, which: str, where: Where, dtype: Any) -> VectorLayout:
    """Return the layout of a model, which models with equal structure and shapes share."""
    if not (walked.untied and isinstance(where, str | None)):
        return _layout(model, walked, which, where, dtype)
    leaves = tuple((x.shape, x.dtype) if isarray(x) else None for x in walked.values)
    x64 = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]
    key = (walked.structure, type(model), leaves, which, where, walked.ties, dtype, x64)
    layout = _LAYOUTS.get(key)
    if layout is None:
        layout = _layout(model, walked, which, where, dtype)
        _LAYOUTS.put(key, layout)
    return layout


_COLLECTIONS = {"params", "batch_stats", "cache", "intermediates"}


@lru_cache(maxsize=512)
def _warn_of_collections(names: tuple[str, ...], paths: tuple[str, ...]) -> None:
    """Warn of variables of Flax linen that are taken whole, once for each structure."""
    del paths
    others = [name for name in names if name != "params"]
    if others and others != list(names):
        logger.warning(
            "the vector holds params and %s, as Flax linen stores them, and an optimiser would "
            'train both; pass where="params/**" for the parameters only, or which="all" for all',
            " and ".join(others),
        )


def _check_dtypes(slots: Iterable[Slot]) -> None:
    for slot in slots:
        dtype = slot.value.dtype
        if getattr(dtype, "char", "") in ("g", "G"):  # long double, which no device of JAX has
            name = "complex128" if dtype.kind == "c" else "float64"
            raise ModelError(
                f"{paths.show(slot.path)}: JAX has no dtype {dtype}; convert the array with "
                f"x.astype({name!r})"
            )


def _layout(model: Any, walked: Walk, which: str, where: Where, dtype: Any) -> VectorLayout:
    check_choice("which", which, ("trainable", "all"))
    if which == "trainable" and where is None and isinstance(model, Mapping):
        _warn_of_collections(tuple(sorted(_COLLECTIONS & {*model})), walked.structure.paths)
    slots, indices, others, sources = walked.slots, dict[int, int](), 0, list[int]()
    for slot, selected in zip(slots, _select(slots, which, where), strict=True):
        if selected:
            sources.append(indices.setdefault(slot.tie, len(indices)))
        else:
            sources.append(~others)
            others += 1
    parameters = [slots[first].value for first in indices]
    _check_dtypes([slots[first] for first in indices])
    return VectorLayout(
        name=type_name(model),
        slots=walked.structure.paths,
        sources=tuple(sources),
        shapes=tuple(tuple(x.shape) for x in parameters),
        dtypes=tuple(canonical(x.dtype) for x in parameters),
        dtype=common_dtype([x.dtype for x in parameters]) if dtype is None else check_dtype(dtype),
    )


def _select(slots: list[Slot], which: str, where: Where) -> list[bool]:
    """Return whether each slot is a parameter; all tied slots are if one of them is selected."""
    eligible = [isnumeric(slot.value) if which == "all" else slot.trainable for slot in slots]
    leaves = [(slot.path, slot.value) for slot, x in zip(slots, eligible, strict=True) if x]
    flags = iter(paths.select(where, leaves))
    selected = [x and next(flags) for x in eligible]
    ties = {slot.tie for slot, x in zip(slots, selected, strict=True) if x}
    return [slot.tie in ties for slot in slots]


@partial(jax.tree_util.register_dataclass, data_fields=["function", "re"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class FunctionOfVector:
    """A function of a model, as a function of the model's vector."""

    function: Callable[..., Any]
    re: Restructure

    @property
    def __name__(self) -> str:
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def __call__(self, flat: jax.Array, *args: Any) -> Any:
        """Return the function's value at the model that a vector describes."""
        return self.function(self.re(flat), *args)


def flatten_function(
    function: Any, model: Any, re: Restructure | None
) -> tuple[Any, Any, Restructure | None]:
    """Return a function of a model and the model as those of its vector, with its labels.

    A vector stays as it is, and so does what is neither a vector nor a model.
    """
    if re is not None or isarray(model) or isscalar(model) or model is None:
        return function, model, re
    flat, labels = destructure(model)
    if not labels.size:
        return function, model, re
    return FunctionOfVector(check_callable("function", function), labels), flat, labels
