"""Where the numbers come from: the arrays of a source by their names, whatever it is."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import jax
import ml_dtypes
import numpy as np

from ..._errors import ArgumentError, LoadError
from ..._state.diff import Diff, Mismatch
from ..._state.sources import open_tree
from ..._tree.leaves import check_alive, isarray
from ..._tree.nodes import loaded
from ..._tree.walk import walk
from .._layouts.registry import LAYOUTS, MODULES
from .._layouts.spec import FrameworkLayout, KeyPath, TypedLayer, recognise
from .linen import Linen, model_of_linen
from .names import Rename, renamed
from .target import Model, model_of

T = TypeVar("T")


class SourceArray(NamedTuple):
    """An array of a source, what it is called there, and its place among the others."""

    name: str
    array: Any
    place: KeyPath


@dataclass(frozen=True)
class SourceArrays:
    """The arrays of a source by the names that the destination has for its layers.

    Attributes:
      layout: how its layers store them.
      entries: the arrays.
      layers: the layers, where the source is a model whose types say so.
      others: the types of modules with arrays of their own that no table names.
      aliases: names without containers that only some frameworks have, such as `layers`.
    """

    layout: FrameworkLayout
    entries: dict[KeyPath, SourceArray]
    layers: dict[KeyPath, TypedLayer] = field(default_factory=dict)
    others: dict[KeyPath, str] = field(default_factory=dict)
    aliases: dict[KeyPath, SourceArray] = field(default_factory=dict)

    def get(self, place: KeyPath) -> SourceArray | None:
        """Return the array of a name, or None."""
        return self.entries.get(place) or self.aliases.get(place)

    @cached_property
    def shapes(self) -> dict[KeyPath, tuple[int, ...]]:
        """The shape of each array, by all of its names."""
        found = {**self.aliases, **self.entries}
        return {place: tuple(entry.array.shape) for place, entry in found.items()}


class _Named(NamedTuple):
    arrays: dict[str, Any]
    layers: Mapping[str, TypedLayer] = {}
    others: Mapping[str, str] = {}
    shorter: Mapping[str, str] = {}  # names without containers


def source_of(
    source: Any, layout: FrameworkLayout, rename: Rename, rules: Callable[[Any], Any]
) -> SourceArrays:
    """Return what a source holds, after its rules and with the destination's names."""
    named = _named(source, layout)
    arrays = dict(rules(named.arrays).items())
    for name, x in arrays.items():
        check_alive(name, x)
    shorter = {} if callable(rename) else _unambiguous(named.shorter, arrays)
    every = renamed([*arrays, *shorter.values()], layout, rename)
    places = {name: every[name] for name in arrays}
    entries: dict[KeyPath, SourceArray] = {}
    for name, place in places.items():
        if place in entries:
            both = f"{entries[place].name} and {name}"
            text = f"{'/'.join(place)}: expected one array, found two in the source: {both}"
            mismatch = Mismatch("/".join(place), "unexpected", "one array", "two", text)
            raise LoadError(f"nothing was loaded: {text}", Diff((mismatch,)))
        entries[place] = SourceArray(name, arrays[name], place)
    aliases = {every[short]: entries[places[name]] for name, short in shorter.items()}
    known = {**places, **{short: every[short] for short in shorter.values()}}
    layers = dict(_moved(named.layers, known, layout))
    holding = {name.rpartition(layout.separator)[0] for name in arrays}
    own = {path: kind for path, kind in named.others.items() if path in holding}
    others = dict(_moved(own, known, layout))
    return SourceArrays(layout, entries, layers, others, aliases)


def _unambiguous(shorter: Mapping[str, str], arrays: Collection[str]) -> dict[str, str]:
    """Return the shorter names of arrays that no other array has."""
    times = Counter(x for name, x in shorter.items() if name in arrays)
    chosen = {x for x, number in times.items() if number == 1 and x not in arrays}
    return {name: x for name, x in shorter.items() if name in arrays and x in chosen}


def _moved(
    layers: Mapping[str, T], places: Mapping[str, KeyPath], layout: FrameworkLayout
) -> Iterable[tuple[KeyPath, T]]:
    """Yield layers at the names that the destination has for them: where their arrays went."""
    for path, layer in layers.items():
        prefix = f"{path}{layout.separator}" if path else ""
        below = {
            name: name[len(prefix) :].count(layout.separator) + 1
            for name in places
            if name.startswith(prefix)
        }
        if below:
            name = min(below, key=below.__getitem__)  # what is deeper may have a name of its own
            yield places[name][: max(0, len(places[name]) - below[name])], layer


def _named(source: Any, layout: FrameworkLayout) -> _Named:
    """Return the arrays of a source by their own names, and its layers where they are known."""
    if _isa(source, "torch.nn", "Module"):
        _check(layout, LAYOUTS["torch"], "a PyTorch module")
        return _torch(source)
    if _isa(source, "keras", "Model"):
        _check(layout, LAYOUTS["keras"], "a Keras model")
        return _Named({x.path: np.asarray(x.value) for x in source.weights})
    if isinstance(source, Linen):
        _check(layout, LAYOUTS["linen"], "a linen model")
        return _modules(model_of_linen(source))
    tree = open_tree(source)
    if not isinstance(tree, Mapping):
        model = model_of(tree, MODULES)
        if model.layers:
            for layer in model.layers.values():
                _check(layout, layer.layout, f"a model with a layer {layer.type}")
            return _modules(model)
    arrays = _mapping(tree)
    return _Named(arrays | _again(arrays, getattr(source, "metadata", None)))


def _again(arrays: Mapping[str, Any], metadata: Any) -> dict[str, Any]:
    """Return arrays at the other names that safetensors keeps of tied ones, from name to name."""
    found = metadata.items() if isinstance(metadata, Mapping) else ()
    return {
        other: arrays[name]
        for other, name in found
        if isinstance(name, str) and name in arrays and other not in arrays
    }


def _isa(x: Any, module: str, name: str) -> bool:
    cls = loaded(module, name)
    return cls is not None and isinstance(x, cls)


def _check(layout: FrameworkLayout, own: FrameworkLayout, what: str) -> None:
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
    modules = dict(module.named_modules())
    found = {name: recognise(x, (LAYOUTS["torch"],)) for name, x in modules.items()}
    holding = {name.rpartition(".")[0] for name in arrays}
    others = {x: type(modules[x]).__name__ for x in holding if x in found and found[x] is None}
    return _Named(arrays, {name: x for name, x in found.items() if x is not None}, others)


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
    short = {"/".join(place): "/".join(model.names(place)[-1]) for place in wanted}
    layers |= {"/".join(model.names(place)[-1]): x for place, x in model.layers.items()}
    shorter = {name: x for name, x in short.items() if name != x}
    found = {name: x for name, x in arrays.items() if name in chosen}
    return _Named(found, layers, shorter=shorter)


def _debias(counter: Any, momentum: float) -> Any:
    """Return what Equinox divides its running statistics by, in its own precision."""
    count = int(np.asarray(counter))
    return np.float32(1) if not count else np.float32(1 - np.float32(momentum) ** np.float32(count))
