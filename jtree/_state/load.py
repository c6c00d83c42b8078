"""Load the values of one model into another: `loadmodel`."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import numpy as np

from .._arguments import check_callable, check_flag
from .._errors import LoadError, ModelError
from .._tree import paths as _path
from .._tree.lazy import LazyArray, read_all
from .._tree.leaves import canonical, describe, isabstract, isarray, isconcrete, istracer
from .._tree.opaque import check_leaves
from .._tree.paths import Where
from .._tree.ties import Ties
from .._tree.walk import Walk, walk
from .._vector.dtypes import as_dtype, as_weak
from .casts import rounding
from .compare import Comparison, Side, compare
from .file_casts import cast_mismatch
from .leaf_sources import KEEP, ZERO
from .mismatch import Diff
from .scalars import to_scalar
from .sources import Scalars, open_for, open_tree, recorded_ties, resolve

# A function of the path and the leaf of the destination. It returns the sharding to load onto, or
# None for the default.
ShardingFunction: TypeAlias = Callable[[str, Any], Any]

logger = logging.getLogger("jtree")


def loadmodel(
    dst: Any,
    src: Any,
    /,
    *,
    strict: bool = True,
    filter: Callable[[Any], Any] | None = None,
    none: Literal["error", "zero", "keep"] = "error",
    ties: Ties = "references",
    scalars: bool = False,
) -> Any:
    """Return a model like `dst` with the values of `src`. Neither of them is modified.

    Leaves are compared by path, and only where they hold arrays: activation functions, dropout
    rates and other fields need not match, and are not copied. With `scalars=True` the leaves that
    are numbers, bools, text and bytes are loaded too, as `jtree.load` does.

    - Shapes must match. The dtype, device and sharding are those of `dst`. Floating-point values
      are converted. Floating-point to integer, complex to real, an integer that does not fit, and
      finite values that would become infinite or NaN are mismatches.
    - `False` marks an absent parameter. If it is absent from the source, the destination becomes
      zero. If it is absent from the destination (`False` or `None`), the source must be all zero.
    - The sources of tied leaves must be equal, and the result is tied in the same way.

    Args:
      dst: any pytree, which may be abstract.
      src: a model or a state.
      strict: whether to raise an error on a mismatch. If False, load what fits, keep the rest of
        `dst`, and log the mismatches.
      filter: a function of a child. Children for which it is false are dropped on both sides, at
        every level, before comparing. Sequences close up.
      none: the meaning of `None` in `src`: `"error"`; `"zero"` if there is no such parameter; or
        `"keep"` if its value is elsewhere, as after `eqx.partition`.
      ties: which leaves of `dst` are one parameter; see `jtree.destructure`.
      scalars: True also loads leaves that are Python or NumPy numbers, bools, text and bytes. A
        number takes a number or a 0-d array of its kind (integer, floating-point, complex, bool),
        and a 0-d array takes such a number. Static fields are always left alone.

    Returns:
      A new model of the type of `dst`.

    Raises:
      LoadError: `src` does not fit, or with `strict=False` nothing in it does. It reports all
        mismatches at once, and holds them as `.diff`.

    Example:
      >>> dst = {"weight": jnp.zeros((2, 2)), "bias": jnp.ones(2), "activation": jnp.tanh}
      >>> src = {"weight": np.eye(2), "bias": False}
      >>> loadmodel(dst, src)["bias"]
      Array([0., 0.], dtype=float32)

    Source: `loadmodel!` of Flux.jl.
    """
    loads = Scalars.LOADED if check_flag("scalars", scalars) else Scalars.KEPT
    return load_into(dst, src, strict=strict, filter=filter, none=none, ties=ties, scalars=loads)


def load_into(
    dst: Any,
    src: Any,
    *,
    strict: bool = True,
    filter: Callable[[Any], Any] | None = None,
    none: Literal["error", "zero", "keep"] = "error",
    ties: Ties = "references",
    where: Where = None,
    sharding: ShardingFunction | None = None,
    scalars: Scalars = Scalars.KEPT,
) -> Any:
    """Return `loadmodel(dst, src)`, for the leaves that `where` selects, on other devices."""
    check_flag("strict", strict)
    walked, source = walk_both(*resolve_both(dst, src), ties)
    options: dict[str, Any] = {"keep": filter, "none": none, "where": where, "scalars": scalars}
    compared = compare_walks(walked.check(), source.check(), **options)
    if compared.diff and strict:
        raise LoadError(f"nothing was loaded: {compared.diff.message()}", compared.diff)
    if compared.diff and all(x is KEEP for x in compared.sources.values()):
        raise LoadError(
            "nothing was loaded: strict=False loads what fits, and nothing in the source does: "
            f"{compared.diff.message()}",
            compared.diff,
        )
    loaded = load_compared(walked, compared, sharding, strict=strict)
    if compared.diff:
        logger.warning("loaded in part: %s", compared.diff.message())
    return loaded


def compare_walks(
    dst: Walk,
    src: Walk,
    *,
    keep: Callable[[Any], Any] | None = None,
    none: str = "error",
    where: Where = None,
    scalars: Scalars = Scalars.KEPT,
) -> Comparison:
    """Compare two walked trees, without the children for which `keep` is false."""
    if keep is not None:
        check_callable("filter", keep)
    sides = [Side(walked.slots, *walked.labels(keep)) for walked in (dst, src)]
    sides[1] = sides[1]._replace(indices=_without_boxes(*sides))
    return compare(*sides, none=none, where=where, scalars=scalars)


def _without_boxes(dst: Side, src: Side) -> dict[str, int]:
    """Return the paths of a source, without a last level `value` where the destination has a box.

    Orbax writes a Variable of Flax NNX as a dict with the key `value`.
    """
    boxes = {f"{path}/value": path for path in dst.indices if path in dst.nodes}
    return {boxes.get(path, path): index for path, index in src.indices.items()}


def load_compared(
    walked: Walk,
    compared: Comparison,
    sharding: ShardingFunction | None = None,
    *,
    strict: bool = True,
) -> Any:
    """Return a walked model with the sources of a comparison.

    Values in files that do not fit are found when they are read: an error, or kept where not
    `strict`.
    """
    _check_abstract(walked, compared)
    return walked.rebuild(_load_values(walked, compared, sharding, strict))


def resolve_both(dst: Any, src: Any) -> tuple[Any, Any]:
    """Return checkpoints for paths; a str on both sides is a leaf, unless the path exists."""
    if isinstance(dst, str) and dst == src and not os.path.exists(dst):
        return dst, src
    return resolve(dst), resolve(src)


def walk_both(dst: Any, src: Any, ties: Ties) -> tuple[Walk, Walk]:
    """Walk the trees of two objects that are resolved."""
    standard = isinstance(ties, str) and ties == "references"
    recorded = recorded_ties(dst) if standard else None
    dst = dst if isinstance(dst, str) else open_tree(dst)
    src = src if isinstance(src, str) else open_for(src, dst)
    walked = check_leaves(walk(dst, ties=recorded or ties))
    return walked, check_leaves(walk(src), tensors=True)


def _load_values(
    walked: Walk, compared: Comparison, sharding: ShardingFunction | None, strict: bool
) -> list[Any]:
    """Return the value of every slot; those of tied slots are at the first one."""
    values = [slot.value for slot in walked.slots]
    kept = {i: x for i, x in enumerate(values) if isinstance(x, LazyArray)}
    loaded = kept | {i: x for i, x in compared.sources.items() if x is not KEEP}
    targets = {i: _target(values[i], walked.slots[i].path, sharding) for i in loaded}
    lazy = {i: x for i, x in loaded.items() if isinstance(x, LazyArray)}
    arrays = read_all((x, _read_sharding(x, targets[i])) for i, x in lazy.items())
    for i in _lost(walked, compared, {i: (x, arrays[x]) for i, x in lazy.items()}, strict):
        del loaded[i], lazy[i]
    uses = Counter(lazy.values())
    for i, source in loaded.items():
        array, owned = source, source is ZERO
        if source is ZERO:
            array = np.zeros(values[i].shape, values[i].dtype)
        elif isinstance(source, LazyArray):
            uses[source] -= 1
            owned = not uses[source]
            array = arrays.pop(source) if owned else arrays[source]
        if isarray(values[i]):
            values[i] = _convert(array, values[i], targets[i], owned=owned)
        else:
            values[i] = to_scalar(values[i], array)
    return values


def _lost(
    walked: Walk, compared: Comparison, pairs: dict[int, tuple[LazyArray, Any]], strict: bool
) -> list[int]:
    """Return the slots whose values, as they were read, do not fit; raise where `strict`."""
    mismatches, rounded = {}, []
    for i, (lazy, array) in pairs.items():
        slot = walked.slots[i]
        if isarray(slot.value) and slot.value is not lazy:
            mismatches[i] = cast_mismatch(slot.path, slot.value, lazy, array)
            rounded += rounding(slot.path, slot.value, array)
    if rounded:
        logger.warning("rounded to the dtypes of the model: %s", _path.shorten(rounded))
    lost = {i: x for i, x in mismatches.items() if x is not None}
    if lost:
        diff = Diff((*compared.diff.mismatches, *lost.values()), compared.diff.config)
        if strict or any(isabstract(walked.slots[i].value) for i in lost):
            raise LoadError(f"nothing was loaded: {diff.message()}", diff)
        logger.warning("loaded in part: %s", Diff(tuple(lost.values())).message())
    return list(lost)


class _LoadTarget(NamedTuple):
    """Where to put an array: on a sharding, or on the default device."""

    sharding: Any
    uncommitted: bool = False  # any sharding with the same devices will do


def _target(x: Any, path: str, sharding: ShardingFunction | None) -> _LoadTarget:
    if sharding is not None and isarray(x):
        return _LoadTarget(sharding(path, x))
    if istracer(x) or not isarray(x):
        return _LoadTarget(None)
    uncommitted = isconcrete(x) and not getattr(x, "committed", True)
    return _LoadTarget(getattr(x, "sharding", None), uncommitted)


def _read_sharding(x: LazyArray, target: _LoadTarget) -> Any:
    """Return the sharding to read onto: that of the target if it has several devices, or None."""
    several = target.sharding is not None and len(target.sharding.device_set) > 1
    return target.sharding if several and x.dtype == canonical(x.dtype) else None


def _check_abstract(walked: Walk, compared: Comparison) -> None:
    """Refuse a source without values, and a destination without values to keep."""
    for slot in walked.slots:
        source = compared.sources.get(slot.tie)
        if isabstract(source) and not (isabstract(slot.value) or isinstance(source, LazyArray)):
            raise ModelError(
                f"{_path.show(slot.path)}: the source is abstract: it has a shape and a dtype, "
                f"{describe(source)}, but no values to load"
            )
        if isinstance(slot.value, jax.ShapeDtypeStruct) and (source is None or source is KEEP):
            raise LoadError(
                f"nothing was loaded: {_path.show(slot.path)}: the destination is abstract, so it "
                "has no values to keep where the source has none or is not selected: "
                f"{compared.diff.message()}",
                compared.diff,
            )


def _convert(source: Any, like: Any, target: _LoadTarget, *, owned: bool = False) -> Any:
    """Return an array with the dtype of a leaf, at its target; `owned` allows not to copy."""
    if isabstract(source):
        return like
    on_host = isinstance(like, np.ndarray | LazyArray) and target.sharding is None
    if on_host and not istracer(source):
        return _to_numpy(source, like.dtype, owned)
    dtype = canonical(like.dtype)
    if isinstance(source, jax.Array):
        array = as_dtype(source, dtype)
    else:
        sharding = None if target.uncommitted else target.sharding
        array = jax.device_put(_to_numpy(source, dtype, owned), sharding, may_alias=True)
    if getattr(like, "weak_type", False):
        array = as_weak(array)
    if target.sharding is None or istracer(array):
        return array
    same_devices = array.sharding.device_set == target.sharding.device_set
    keep = target.uncommitted and same_devices
    return array if keep else jax.device_put(array, target.sharding)


def _to_numpy(source: Any, dtype: Any, owned: bool) -> np.ndarray[Any, Any]:
    """Return an array as NumPy's; values out of range become infinite, as in JAX."""
    if owned and isinstance(source, np.ndarray) and source.dtype == dtype:
        return source
    with np.errstate(all="ignore"):
        return np.array(source, dtype=dtype)
