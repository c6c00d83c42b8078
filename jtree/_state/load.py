"""A model as basic containers, and numbers from one model into another."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import numpy as np

from .._errors import LoadError, ModelError
from .._tree import paths as _path
from .._tree.lazy import LazyArray, read_all
from .._tree.leaves import BASIC, canonical, describe, isabstract, isarray, isconcrete, istracer
from .._tree.nodes import kind, static_fields, to_basic
from .._tree.paths import Where
from .._tree.ties import Ties
from .._tree.walk import Walk, walk
from .._vector.dtypes import as_dtype
from .compare import KEEP, ZERO, Comparison, compare
from .diff import Diff
from .sources import both_walked

# The sharding that the array at a path is to be put on, or None where it stays on the host, or
# where JAX puts new arrays.
Placement: TypeAlias = Callable[[str, Any], Any]

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
    return compare(*both_walked(dst, src, ties), keep=filter, none=none).diff


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
    return load_into(dst, src, strict=strict, filter=filter, none=none, ties=ties)


def load_into(
    dst: Any,
    src: Any,
    *,
    strict: bool = True,
    filter: Callable[[Any], Any] | None = None,
    none: Literal["error", "zero", "keep"] = "error",
    ties: Ties = "references",
    where: Where = None,
    place: Placement | None = None,
) -> Any:
    """Do what `loadmodel` does, at the places that `where` chooses, onto chosen devices."""
    walked, source = both_walked(dst, src, ties)
    compared = compare(walked.check(), source.check(), keep=filter, none=none, where=where)
    if compared.diff and strict:
        raise LoadError(f"nothing was loaded: {compared.diff.message()}", compared.diff)
    loaded = load_compared(walked, compared, place)
    if compared.diff:
        logger.warning("loaded in part: %s", compared.diff.message())
    return loaded


def load_compared(walked: Walk, compared: Comparison, place: Placement | None = None) -> Any:
    """Return a walked model with the values that a comparison found for it."""
    _check_abstract(walked, compared)
    return walked.rebuild(_values(walked, compared.sources, place))


def _values(walked: Walk, sources: dict[int, Any], place: Placement | None) -> list[Any]:
    """Return the value of every slot, each tied one's at its first place."""
    values = [slot.value for slot in walked.slots]
    kept = {n: x for n, x in enumerate(values) if isinstance(x, LazyArray)}
    wanted = kept | {n: x for n, x in sources.items() if x is not KEEP}
    paths = {n: walked.slots[n].path for n in wanted}
    spots = {n: _spot(values[n], paths[n], place) for n in wanted}
    lazy = {n: x for n, x in wanted.items() if isinstance(x, LazyArray)}
    read = read_all((x, _read_onto(x, spots[n])) for n, x in lazy.items())
    left = Counter(lazy.values())
    for n, source in wanted.items():
        numbers, owned = source, source is ZERO
        if source is ZERO:
            numbers = np.zeros(values[n].shape, values[n].dtype)
        elif isinstance(source, LazyArray):
            left[source] -= 1
            owned = not left[source]
            numbers = read.pop(source) if owned else read[source]
        values[n] = _like(numbers, values[n], spots[n], owned=owned)
    return values


class _Spot(NamedTuple):
    """Where the numbers of a place go: on a sharding, or where new arrays go."""

    sharding: Any
    free: bool = False  # any sharding with the same devices will do


def _spot(target: Any, path: str, place: Placement | None) -> _Spot:
    if place is not None:
        return _Spot(place(path, target))
    if istracer(target):
        return _Spot(None)
    free = isconcrete(target) and not getattr(target, "committed", True)
    return _Spot(getattr(target, "sharding", None), free)


def _read_onto(x: LazyArray, spot: _Spot) -> Any:
    """Return where an array is read onto at once: several devices, as it is; else the host."""
    several = spot.sharding is not None and len(spot.sharding.device_set) > 1
    return spot.sharding if several and x.dtype == canonical(x.dtype) else None


def _check_abstract(walked: Walk, compared: Comparison) -> None:
    """Refuse a source without numbers, and a destination without numbers to keep."""
    for slot in walked.slots:
        source = compared.sources.get(slot.tie)
        if isabstract(source) and not (isabstract(slot.value) or isinstance(source, LazyArray)):
            raise ModelError(
                f"{_path.show(slot.path)}: the source is abstract: it has a shape and a dtype, "
                f"{describe(source)}, but no numbers to load"
            )
        if isinstance(slot.value, jax.ShapeDtypeStruct) and (source is None or source is KEEP):
            raise LoadError(
                f"nothing was loaded: {_path.show(slot.path)}: the destination is abstract, so it "
                f"has no numbers to keep where the source has none, or is not asked for: "
                f"{compared.diff.message()}",
                compared.diff,
            )


def _like(source: Any, target: Any, spot: _Spot, *, owned: bool = False) -> Any:
    """Return the source's numbers with the dtype of the target, where they are to be.

    What is `owned` is nobody else's, so it need not be copied.
    """
    if isabstract(source):
        return target
    host = isinstance(target, np.ndarray | LazyArray) and spot.sharding is None
    if host and not istracer(source):
        return _on_host(source, target.dtype, owned)
    dtype = canonical(target.dtype)
    if isinstance(source, jax.Array):
        value = as_dtype(source, dtype)
    else:
        at = None if spot.free else spot.sharding
        value = jax.device_put(_on_host(source, dtype, owned), at, may_alias=True)
    if spot.sharding is None or istracer(value):
        return value
    there = value.sharding.device_set == spot.sharding.device_set
    return value if spot.free and there else jax.device_put(value, spot.sharding)


def _on_host(source: Any, dtype: Any, owned: bool) -> np.ndarray[Any, Any]:
    """Return numbers in NumPy, no one else's; too large ones become infinite, as in JAX."""
    if owned and isinstance(source, np.ndarray) and source.dtype == dtype:
        return source
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
    held = to_basic(node, {field: x for field, x in found.items() if x is not _HIDDEN})
    if not isinstance(held, dict):
        return held
    whole = kind(node).all_fields
    return held | {
        field: state(x) if basic else ()
        for field, x in static_fields(node).items()
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
