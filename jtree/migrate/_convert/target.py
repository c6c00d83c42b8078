"""The model of a conversion: its layers, recognised by their types, and its arrays."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import partial, singledispatch
from typing import Any

import jax

from ..._errors import ArgumentTypeError
from ..._tree import paths
from ..._tree.frameworks import loaded
from ..._tree.leaves import isarray, isnumeric
from ..._tree.nodes import kind
from ..._tree.ties import Slot
from ..._tree.walk import Walk, walk
from .._layouts.registry import MODULES, NNX
from .._layouts.spec import FrameworkLayout, TypedLayer
from .._layouts.transforms import KeyPath
from .stages import TypedModel


def read_target(model: Any) -> TypedModel:
    """Return the typed layers and the arrays of the model that is converted into."""
    target = read_model(model)
    plain = isarray(model) or (isinstance(model, dict | list | tuple) and not target.layers)
    if plain or not target.names:
        raise ArgumentTypeError(
            "model: expected a module of NNX, Equinox or jtree.layers, found "
            f"{type(model).__name__}; for linen pass migrate.linen(module, variables, *inputs), "
            "for Equinox with running statistics pass (model, state)"
        )
    target.walked.check()
    return target


@singledispatch
def read_model(tree: Any) -> TypedModel:
    """Return the typed layers and the arrays of a pytree of modules of NNX, Equinox or jtree."""
    walked = walk(tree)
    state = equinox_state(tree)
    prefix = "" if state is None else "0/"
    nodes = {
        path[len(prefix) :]: node for path, node in walked.nodes if f"{path}/".startswith(prefix)
    }
    statistics, optional = _statistics(nodes, walked, state), _optional(walked)
    own = {
        slot.path: slot.path[len(prefix) :]
        for slot in array_slots(walked)
        if slot.path.startswith(prefix) and slot.path not in statistics
    }
    return TypedModel(walked, NNX, *_typed_nodes(nodes), own | statistics, optional)


def array_slots(walked: Walk) -> list[Slot]:
    """Return the slots that hold arrays."""
    return [slot for slot in walked.slots if isarray(slot.value)]


def _typed_nodes(
    nodes: Mapping[str, Any],
) -> tuple[dict[str, TypedLayer], dict[str, Mapping[str, KeyPath]]]:
    """Return the layers among the nodes of a model, and the containers above them, by path."""
    layers: dict[str, TypedLayer] = {}
    containers: dict[str, Mapping[str, KeyPath]] = {}
    for path, node in nodes.items():
        if kind(node).box or not layers.keys().isdisjoint(_above(path)):
            continue
        layer = recognise(node, MODULES, path)
        if layer is not None:
            layers[path] = layer
        elif below := container_paths(node, MODULES):
            containers[path] = below
    return layers, containers


def _above(path: str) -> list[str]:
    """Return the paths of all nodes above one, the root among them."""
    keys = path.split("/") if path else []
    return ["/".join(keys[:n]) for n in range(len(keys))]


def recognise(node: Any, layouts: tuple[FrameworkLayout, ...], path: str = "") -> TypedLayer | None:
    """Return the layer that a node is by the nearest of its types that a layout lists, or None."""
    for cls in type(node).__mro__[:-1]:
        for layout in layouts:
            for (module, name), known in layout.types.items():
                if loaded(module, name) is not cls or (known.accepts and not known.accepts(node)):
                    continue
                return TypedLayer(
                    known.kind,
                    layout,
                    known.spec,
                    type(node).__name__,
                    path,
                    known.options(node),
                    known.settings(node),
                    base=cls.__name__ if _overrides_call(type(node), cls) else "",
                )
    return None


def _overrides_call(cls: type, base: type) -> bool:
    """Return whether a class computes its outputs by code other than that of a base class."""
    between = cls.__mro__[: cls.__mro__.index(base)]
    own = ((name, vars(x)[name]) for x in between for name in _CALLS if name in vars(x))
    return any(_unwrap(method) is not _unwrap(getattr(base, name, None)) for name, method in own)


def _unwrap(method: Any) -> Any:
    """Return a method without the wrappers of frameworks, such as those of `nn.vmap`."""
    return inspect.unwrap(method) if callable(method) else method


_CALLS = ("__call__", "forward", "_conv_forward")


def container_paths(node: Any, layouts: tuple[FrameworkLayout, ...]) -> Mapping[str, KeyPath]:
    """Return what replaces the keys below a container in frameworks that lack it."""
    for layout in layouts:
        for (module, name), replacements in layout.containers.items():
            cls = loaded(module, name)
            if cls is not None and isinstance(node, cls):
                return replacements
    return {}


def _optional(walked: Walk) -> frozenset[str]:
    """Return the paths of leaves that are not trained, such as PRNG keys, counters and caches."""
    unsaved = {path for path, node in walked.nodes if _is_unsaved(node)}
    below = tuple(f"{path}/" for path in unsaved)
    return frozenset(
        slot.path
        for slot in walked.slots
        if not isnumeric(slot.value) or slot.path in unsaved or slot.path.startswith(below)
    )


def _is_unsaved(node: Any) -> bool:
    statistics = loaded("flax.nnx", "BatchStat")
    return kind(node).frozen and not (statistics and isinstance(node, statistics))


def equinox_state(tree: Any) -> Any:
    """Return the state of a pair (model, state) of Equinox, or None."""
    cls = loaded("equinox.nn", "State")
    pair = isinstance(tree, tuple) and len(tree) == 2
    return tree[1] if pair and cls is not None and isinstance(tree[1], cls) else None


def _statistics(nodes: Mapping[str, Any], walked: Walk, state: Any) -> dict[str, str]:
    """Return the names of the running statistics of Equinox's BatchNorms, by path.

    They are in a state or in the model.
    """
    cls = loaded("equinox.nn", "BatchNorm")
    norms = {path: x for path, x in nodes.items() if cls is not None and isinstance(x, cls)}
    own = [slot.path for slot in walked.slots if slot.path.startswith("1/")]
    by_index = None if state is None else jax.tree.unflatten(jax.tree.structure(state), own)
    arrays = {slot.path for slot in array_slots(walked)}
    names: dict[str, str] = {}
    for path, norm in norms.items():
        get = partial(_path_inside, path, norm) if by_index is None else by_index.get
        names |= {x: f"{path}/{name}" for name, x in _indexed(norm, get) if x in arrays}
    return names


def _indexed(norm: Any, get: Any) -> Iterator[tuple[str, str]]:
    """Yield the path and the name of each statistic of a BatchNorm."""
    for field, names in _INDICES.items():
        index = getattr(norm, field)
        if index is not None:
            one_or_two = get(index)
            several = one_or_two if isinstance(one_or_two, tuple) else (one_or_two,)
            yield from zip(names, several, strict=True)


def _path_inside(path: str, norm: Any, index: Any) -> Any:
    """Return the path of the initial value of a statistic, or the paths of a pair of them."""
    field = next(x for x in _INDICES if getattr(norm, x) is index)
    base = paths.join([*filter(None, [path]), field, "init"])
    return tuple(f"{base}/{n}" for n in range(2)) if len(_INDICES[field]) == 2 else base


_INDICES = {
    "ema_state_index": ("mean", "var"),
    "batch_state_index": ("mean", "var"),
    "batch_counter": ("counter",),
    "ema_first_time_index": ("first",),
}
