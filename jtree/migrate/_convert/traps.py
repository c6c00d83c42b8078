"""Traps: conversions that every shape and name fits, and that may be silently wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..._state.mismatch import Mismatch, mismatch
from ..._text import format_value, plural
from ..._tree import paths
from ..._tree.leaves import describe
from .._layouts.spec import TypedLayer
from .._rules.apply import Migrated
from .bases import AsBase
from .hints import Hint
from .quantised import find_dropped_scales
from .report import Cautions
from .stages import (
    ArrayValue,
    LayerMatch,
    LayerValues,
    Matches,
    NamedSource,
    SourceArray,
    SourceLayer,
    Values,
)

_NAMED = 3  # the number of layers or arrays that a line names
_SETTINGS = ("heads", "groups", "epsilon")
_OUT_IN = ("torch", "equinox")  # the layouts whose kernels are (out, in, *window)


def find_traps(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    source: NamedSource,
    matches: Matches,
    hints: Sequence[Hint],
) -> list[Mismatch]:
    """Return a problem for each array or layer that fits, and whose conversion would be wrong.

    Args:
      before: the arrays of the source before rules.
      after: its arrays after rules.
      source: the source with the names of the model.
      matches: the matches of the model's layers and arrays.
      hints: the hints.
    """
    layers = [x for x in matches.layers if x.sources]
    globs = [glob for hint in hints if isinstance(hint, AsBase) for glob in hint.where]
    dropped = after.dropped if isinstance(after, Migrated) else ()
    entries = after.entries.values() if isinstance(after, Migrated) else ()
    kept = {name for entry in entries for name in entry.sources}
    return [
        *_overriding(layers, source, globs),
        *_integers_as_floats(source, matches),
        *(find_dropped_scales(before, dropped, kept) if dropped else ()),
    ]


def _overriding(
    layers: Sequence[LayerMatch], source: NamedSource, globs: Sequence[str]
) -> Iterator[Mismatch]:
    """Yield a problem for each layer that overrides the call, and each glob without such a layer.

    Args:
      layers: the layers that have a source.
      source: the source.
      globs: the globs over layers that are converted as their base types.
    """
    used: set[str] = set()
    for match in layers:
        for layer in filter(None, (match.layer, match.source_layer)):
            names = [match.layer.path, layer.path.replace(source.layout.separator, "/")]
            allowing = [x for x in globs if any(paths.matches(x, name) for name in names)]
            used.update(allowing if layer.base else ())
            if layer.base and not allowing:
                yield _overridden(layer, match.layer.path, in_source=layer is match.source_layer)
    for glob in globs:
        if glob not in used:
            expected = "a layer that overrides the call of its base type, for migrate.as_base"
            yield mismatch(glob, "missing", expected, "none")


def _overridden(layer: TypedLayer, path: str, *, in_source: bool) -> Mismatch:
    where = " in the source" if in_source else ""
    text = f"{layer.type}{where}, which overrides the call of {layer.base}"
    advice = (
        f"; if its weights mean what they mean in {layer.base}, and the model and the source "
        f"compute the same from them, add migrate.as_base({path or '**'!r}) to hints"
    )
    return mismatch(path, "kind", f"{layer.base}, or another known type", text, advice)


def _integers_as_floats(source: NamedSource, matches: Matches) -> Iterator[Mismatch]:
    """Yield a problem for each array of integers or booleans that would become floating."""
    for match in matches.layers:
        floating = {
            name: path
            for path, spec in match.specs.items()
            if _is_inexact(match.slots[path].value)
            for name in spec.canonical
        }
        for spec in match.source_spec:
            path = next((floating[name] for name in spec.canonical if name in floating), None)
            if path is not None:
                yield from _integers(path, match.sources, spec.key_path, source)
    for other in matches.arrays:
        if _is_inexact(other.slot.value):
            yield from _integers(other.slot.path, other.sources, (other.key,), source)


def _integers(
    path: str, layers: Iterable[SourceLayer], keys: tuple[str, ...], source: NamedSource
) -> Iterator[Mismatch]:
    arrays = (source.by_name.get((*layer.key_path, *keys)) for layer in layers)
    for array in {x.name: x for x in arrays if x is not None}.values():
        if _is_integral(array.array):
            yield _integer_problem(path, array)


def _integer_problem(path: str, array: SourceArray) -> Mismatch:
    expected, text = f"floating-point values for {path}", describe(array.array)
    advice = (
        ", which may be quantised; pass its dequantised values, or if the integers are the values, "
        "cast them to a floating dtype in the source"
    )
    return mismatch(array.name, "dtype", expected, text, advice)


def _is_integral(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.integer) or jnp.issubdtype(x.dtype, jnp.bool_))


def _is_inexact(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.inexact))


def find_cautions(source: NamedSource, values: Values) -> Cautions:
    """Return warnings of possible errors that do not justify refusing a conversion."""
    untransposed = [text for x in values.arrays for text in _untransposed(x, source)]
    layers = [x for x in values.layers if x.arrays]
    stacks = [text for x in layers for text in _stacked_either_way(x.match)]
    return Cautions(
        (*untransposed, *stacks, *_not_finite(values.by_path)),
        tuple(_find_unverified(layers, source)),
    )


def _untransposed(value: ArrayValue, source: NamedSource) -> Iterator[str]:
    """Yield a warning for a kernel that lands in an array of the user's own and fits both ways."""
    match = value.match
    if value.array is None or source.layout.name not in _OUT_IN:
        return
    shape = tuple(value.array.shape)[0 if match.stacked is None else 1 :]
    if len(shape) < 2 or shape != (*shape[2:], shape[1], shape[0]):
        return
    array = source.by_name.get((*match.sources[0].key_path, match.key))
    origin = "" if array is None else source.unchanged.get(array.name, "")
    if array is None or not origin.replace(".", "/").rpartition("/")[2].endswith("weight"):
        return
    dense = len(shape) == 2
    order = "(out, in)" if dense else "(out, in, *window)"
    readings = (
        "that is right for x @ w.T, and wrong for x @ w"
        if dense
        else "that is right for code that takes this order, and wrong for (*window, in, out)"
    )
    axes = "" if dense else f", {(*range(2, len(shape)), 1, 0)}"
    path, text = paths.show(match.slot.path), describe(value.array)
    yield (
        f"{path}: {array.name} is copied as it is, and {text} fits both ways; if it is a kernel, "
        f"it is stored as {order}: {readings}; for the latter, "
        f"add migrate.transpose({array.name!r}{axes}) to rules"
    )


def _stacked_either_way(match: LayerMatch) -> Iterator[str]:
    """Yield a warning for a stack whose arrays have the same shapes along another axis."""
    shapes = [tuple(slot.value.shape) for slot in match.slots.values()]
    if match.stacked is not None and all(x[0:1] == x[1:2] for x in shapes):
        path, sizes = paths.show(match.layer.path), " and ".join(map(str, shapes))
        yield (
            f"{path}: its {match.stacked} layers are stacked along axis 0, but its shapes {sizes} "
            "fit a stack along axis 1 too; if the model stacks along that axis, as by out_axes=1 "
            'or variable_axes={"params": 1}, the result is wrong: build it with axis 0'
        )


def _not_finite(arrays: Mapping[str, Any]) -> Iterator[str]:
    """Yield one warning for all arrays with values that are NaN."""
    counts = {path: int(np.isnan(x).sum()) for path, x in arrays.items() if _may_be_nan(x)}
    texts = [
        f"{paths.show(path)} ({n} of {plural(int(np.size(arrays[path])), 'value')})"
        for path, n in counts.items()
        if n
    ]
    if texts:
        yield f"values of the source are NaN: {_shorten(texts)}"


def _may_be_nan(x: Any) -> bool:
    return x is not None and jnp.issubdtype(x.dtype, jnp.inexact)


def _find_unverified(layers: list[LayerValues], source: NamedSource) -> Iterator[str]:
    """Yield settings that change the outputs and that a source without types does not tell.

    Settings that differ from the defaults of the source's framework are settings to check instead.
    """
    paths_by_setting: dict[str, list[str]] = {}
    for layer in (x.match.layer for x in layers if x.match.source_layer is None):
        for text in _unverified(layer, source.layout.defaults.get(layer.kind, {})):
            paths_by_setting.setdefault(text, []).append(paths.show(layer.path))
    for text, names in paths_by_setting.items():
        yield f"not verified, since weights do not tell it: {text} of {_shorten(names)}"


def _unverified(layer: TypedLayer, defaults: Mapping[str, Any]) -> Iterator[str]:
    """Yield the settings of a layer that change its outputs and equal the default, if any."""
    for name in _SETTINGS:
        value, default = layer.settings.get(name), defaults.get(name)
        known_from_shapes = (layer.kind, name) == ("conv", "groups")
        if value is None or known_from_shapes:
            continue
        if default is None or math.isclose(value, default, rel_tol=1e-6):
            yield f"{name}={format_value(value)}"


def _shorten(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
