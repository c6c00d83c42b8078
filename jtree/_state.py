"""A model as basic containers, and numbers from one model into another."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from . import _path
from ._compare import KEEP, ZERO, Comparison, compare
from ._diff import Diff
from ._errors import LoadError, ModelError
from ._kinds import contain, kind, static
from ._leaves import BASIC, canonical, describe, isabstract, isarray, isconcrete, istracer
from ._ties import Ties
from ._vector import as_dtype
from ._walk import walk

logger = logging.getLogger("jtree")


def state(x: Any, /) -> Any:
    """Return the same nested structure in basic containers only.

    Named fields become a dict; sequences a list or a tuple; boxes around one array the array.
    Arrays are kept as they are, and so are bool, int, float, complex, str, bytes and None. Static
    fields of dataclasses, Equinox and NNX modules are included where they are made of these. Any
    other leaf, such as a function or a dtype, becomes `()`.

    Args:
      x: any pytree.

    Returns:
      Nested dicts, lists and tuples. `loadmodel(model, state(model))` is the model.

    Raises:
      ModelError: the tree cannot be walked.

    Example:
      >>> state({"layers": [(jnp.ones(1), jnp.tanh)], "rate": 0.1})
      {'layers': [(Array([1.], dtype=float32), ())], 'rate': 0.1}

    Source: `state` of Flux.jl.
    """
    return walk(x).check().fold(_basic, _contain)


def diff(
    dst: Any,
    src: Any,
    /,
    *,
    filter: Callable[[Any], Any] | None = None,
    none: Literal["error", "zero", "keep"] = "error",
    ties: Ties = "references",
) -> Diff:
    """Return what would keep `loadmodel(dst, src)` from loading; nothing is loaded.

    Args: those of `loadmodel`.

    Returns:
      A `Diff`: true where loading would fail, and printed as a table. Arrays are read only where
      their metadata does not decide, and either side may be abstract.

    Example:
      >>> report = diff({"w": jnp.ones(2), "b": jnp.ones(1)}, {"w": jnp.ones(3)})
      >>> bool(report), report.missing, report.shape
      (True, ('b',), {'w': ((2,), (3,))})
    """
    return compare(walk(dst, ties=ties), walk(src), keep=filter, none=none).diff


def loadmodel(
    dst: Any,
    src: Any,
    /,
    *,
    strict: bool = True,
    filter: Callable[[Any], Any] | None = None,
    none: Literal["error", "zero", "keep"] = "error",
    ties: Ties = "references",
) -> Any:
    """Return a model like `dst` with the numbers of `src`. Nothing is changed in place.

    Places are compared by path, and only where they hold arrays: activation functions, dropout
    rates and other fields need not match, and are not copied.

    - Shapes must match. dtype, device and sharding are those of `dst`. Floating numbers are cast
      to floating; floating to integer, complex to real, and an integer that does not fit are
      mismatches.
    - `False` marks an absent parameter. An absent source zeroes the destination. An absent
      destination, `False` or `None`, takes an all-zero source, and refuses any other.
    - A tied destination takes equal sources only, and the result is tied in the same way.

    Args:
      dst: any pytree; it may be abstract.
      src: a model, or a state.
      strict: False loads what fits, keeps the rest of `dst`, and logs the report.
      filter: a function of a child; what it is false for is dropped on both sides at every level
        before comparing. Sequences close up.
      none: what `None` in `src` means: `"error"`; `"zero"`, no such parameter; or `"keep"`, not
        here, as after `eqx.partition`.
      ties: what is one parameter in `dst`; see `jtree.destructure`.

    Returns:
      A new model of the type of `dst`.

    Raises:
      LoadError: `src` does not fit. All mismatches are reported at once; `.diff` holds them.

    Example:
      >>> dst = {"weight": jnp.zeros((2, 2)), "bias": jnp.ones(2), "activation": jnp.tanh}
      >>> src = {"weight": np.eye(2), "bias": False}
      >>> loadmodel(dst, src)["bias"]
      Array([0., 0.], dtype=float32)

    Source: `loadmodel!` of Flux.jl.
    """
    walked = walk(dst, ties=ties).check()
    compared = compare(walked, walk(src).check(), keep=filter, none=none)
    if compared.diff and strict:
        raise LoadError(f"nothing was loaded: {compared.diff.message()}", compared.diff)
    old = [slot.value for slot in walked.slots]
    _check_abstract(old, compared)
    values = _values(old, compared)
    if compared.diff:
        logger.warning("loaded in part: %s", compared.diff.message())
    return walked.rebuild(values)


def _values(old: list[Any], compared: Comparison) -> list[Any]:
    """Return the value of every slot, each tied one's at its first place."""
    values = list(old)
    for slot, source in compared.sources.items():
        if source is ZERO:
            values[slot] = _like(np.zeros(old[slot].shape, old[slot].dtype), old[slot])
        elif source is not KEEP:
            values[slot] = _like(source, old[slot])
    return values


def _check_abstract(old: list[Any], compared: Comparison) -> None:
    """Refuse a source without numbers, and a destination without numbers to keep."""
    for path, slot in compared.slots.items():
        if not isarray(old[slot]):
            continue
        source = compared.sources.get(compared.classes[slot])
        if isabstract(source) and not isabstract(old[slot]):
            raise ModelError(
                f"{_path.show(path)}: the source is abstract: it has a shape and a dtype, "
                f"{describe(source)}, but no numbers to load"
            )
        if isabstract(old[slot]) and (source is None or source is KEEP):
            raise LoadError(
                f"nothing was loaded: {_path.show(path)}: the destination is abstract, so it has "
                f"no numbers to keep where the source has none: {compared.diff.message()}",
                compared.diff,
            )


def _like(source: Any, target: Any) -> Any:
    """Return the source's numbers with the dtype, device and sharding of the target."""
    if isabstract(source):
        return target
    if isinstance(target, np.ndarray) and not istracer(source):
        return _on_host(source, target.dtype)
    if not isinstance(source, jax.Array):
        source = jnp.array(_on_host(source, canonical(target.dtype)))
    value = as_dtype(source, canonical(target.dtype))
    sharding = None if istracer(target) or istracer(value) else getattr(target, "sharding", None)
    free = sharding is not None and isconcrete(target) and not target.committed
    if sharding is None or (free and value.sharding.device_set == sharding.device_set):
        return value
    return jax.device_put(value, sharding)


def _on_host(source: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """Return a copy of numbers in NumPy; too large ones become infinite, as in JAX."""
    with np.errstate(all="ignore"):
        return np.array(source, dtype=dtype)


def _basic(leaf: Any) -> Any:
    return leaf if isarray(leaf) or isinstance(leaf, (*BASIC, np.generic)) else ()


def _contain(node: Any, names: list[Any], results: list[Any]) -> Any:
    found = dict(zip(names, results, strict=True))
    if type(node) is dict:
        return found
    if kind(node).hidden:
        return _HIDDEN
    if kind(node).box:
        return results[0] if results else ()
    held = contain(node, {field: x for field, x in found.items() if x is not _HIDDEN})
    if not isinstance(held, dict):
        return held
    whole = kind(node).whole
    return held | {
        field: state(x) if basic else ()
        for field, x in static(node).items()
        if (basic := _isbasic(x)) or whole
    }


_HIDDEN = object()


def _isbasic(x: Any) -> bool:
    """Tell whether a static field is made of basic leaves and containers only."""
    if not isinstance(x, (*BASIC, dict, list, tuple)):
        return False
    try:
        walked = walk(x)
    except ModelError:  # a configuration may hold what a model may not
        return False
    leaves = all(isinstance(slot.value, BASIC) for slot in walked.slots)
    return leaves and all(isinstance(node, dict | list | tuple) for _, node in walked.nodes)
