"""Where the numbers come from: the arrays of a source by their names, whatever it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np

from .._diff import Diff, Mismatch
from .._errors import ArgumentError, LoadError
from .._kinds import loaded
from .._leaves import check_alive, isarray
from .._opened import opened
from .._walk import walk
from ._layer import Layer, Layout, Steps, recognise
from ._layouts import LAYOUTS, MODULES
from ._linen import Linen, model_of_linen
from ._model import Model, model_of
from ._names import Rename, renamed


class Entry(NamedTuple):
    """An array of a source, and what it is called there."""

    name: str
    array: Any


@dataclass(frozen=True)
class Source:
    """The arrays of a source by the names that the destination has for its layers.

    Attributes:
      layout: how its layers store them.
      entries: the arrays.
      layers: the layers, where the source is a model whose types say so.
    """

    layout: Layout
    entries: dict[Steps, Entry]
    layers: dict[Steps, Layer] = field(default_factory=dict)


class _Named(NamedTuple):
    arrays: dict[str, Any]
    layers: dict[str, Layer]


def source_of(source: Any, layout: Layout, rename: Rename, rules: Callable[[Any], Any]) -> Source:
    """Return what a source holds, after its rules and with the destination's names."""
    named = _named(source, layout)
    arrays = dict(rules(named.arrays).items())
    for name, x in arrays.items():
        check_alive(name, x)
    places = renamed(arrays, layout, rename)
    entries: dict[Steps, Entry] = {}
    for name, place in places.items():
        if place in entries:
            both = f"{entries[place].name} and {name}"
            text = f"{'/'.join(place)}: expected one array, found two in the source: {both}"
            mismatch = Mismatch("/".join(place), "unexpected", "one array", "two", text)
            raise LoadError(f"nothing was loaded: {text}", Diff((mismatch,)))
        entries[place] = Entry(name, arrays[name])
    layers = dict(_moved(named.layers, places, layout))
    return Source(layout, entries, layers)


def _moved(
    layers: Mapping[str, Layer], places: Mapping[str, Steps], layout: Layout
) -> Iterable[tuple[Steps, Layer]]:
    """Yield layers at the names that the destination has for them: where their arrays went."""
    for path, layer in layers.items():
        prefix = f"{path}{layout.separator}" if path else ""
        for name, place in places.items():
            if name.startswith(prefix):
                inner = name[len(prefix) :].split(layout.separator)
                yield place[: len(place) - len(inner)], layer
                break


def _named(source: Any, layout: Layout) -> _Named:
    """Return the arrays of a source by their own names, and its layers where they are known."""
    if _isa(source, "torch.nn", "Module"):
        _check(layout, LAYOUTS["torch"], "a PyTorch module")
        return _torch(source)
    if _isa(source, "keras", "Model"):
        _check(layout, LAYOUTS["keras"], "a Keras model")
        return _Named({x.path: np.asarray(x.value) for x in source.weights}, {})
    if isinstance(source, Linen):
        _check(layout, LAYOUTS["linen"], "a linen model")
        return _modules(model_of_linen(source))
    tree = opened(source)
    if not isinstance(tree, Mapping):
        model = model_of(tree, MODULES)
        if model.layers:
            for layer in model.layers.values():
                _check(layout, layer.layout, f"a model with a layer {layer.type}")
            return _modules(model)
    return _Named(_mapping(tree), {})


def _isa(x: Any, module: str, name: str) -> bool:
    cls = loaded(module, name)
    return cls is not None and isinstance(x, cls)


def _check(layout: Layout, own: Layout, what: str) -> None:
    if layout.name != own.name:
        raise ArgumentError(
            f"layout: the source is {what}, so expected layout={own.name!r}, found {layout.name!r}"
        )


def _mapping(tree: Any) -> dict[str, Any]:
    """Return the arrays of a nested state, or of a mapping that JAX does not open."""
    opened_by_jax = not jax.tree_util.all_leaves([tree])
    nested = dict(tree) if isinstance(tree, Mapping) and not opened_by_jax else tree
    places = {slot.path: _array(slot.value) for slot in walk(nested, ties=()).slots}
    return {name: x for name, x in places.items() if isarray(x)}


def _torch(module: Any) -> _Named:
    arrays = {name: _array(x) for name, x in module.state_dict().items()}
    found = ((name, recognise(x, (LAYOUTS["torch"],))) for name, x in module.named_modules())
    return _Named(arrays, {name: layer for name, layer in found if layer is not None})


_VIEWS = {"bfloat16": "int16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}


def _array(x: Any) -> Any:
    """Return a tensor of PyTorch as an array, with the dtypes that NumPy lacks too."""
    if not _isa(x, "torch", "Tensor"):
        return x
    x = x.detach().cpu()
    name = str(x.dtype).removeprefix("torch.")
    if name not in _VIEWS:
        return x.numpy()
    view = x.view(getattr(sys.modules["torch"], _VIEWS[name]))
    return view.numpy().view(getattr(ml_dtypes, name))


def _modules(model: Model) -> _Named:
    """Return the arrays of a model by their places, running statistics among them."""
    values = {slot.path: slot.value for slot in walk(model.tree).slots}
    arrays = {"/".join(place): values[path] for place, path in model.places.items()}
    wanted = {place for place, path in model.places.items() if path not in model.optional}
    for place, layer in model.layers.items():
        held = {name: arrays.get("/".join((*place, name))) for name in ("mean", "var", "counter")}
        if layer.layout.name == "equinox" and held["counter"] is not None:
            scale = _debias(held["counter"], layer.settings["momentum"])
            changed = {name: np.asarray(held[name]) / scale for name in ("mean", "var")}
            arrays |= {"/".join((*place, name)): x for name, x in changed.items()}
    chosen = {"/".join(place) for place in wanted}
    layers = {"/".join(place): layer for place, layer in model.layers.items()}
    return _Named({name: x for name, x in arrays.items() if name in chosen}, layers)


def _debias(counter: Any, momentum: float) -> Any:
    """Return what Equinox divides its running statistics by, in its own precision."""
    count = int(np.asarray(counter))
    return np.float32(1) if not count else np.float32(1 - np.float32(momentum) ** np.float32(count))
