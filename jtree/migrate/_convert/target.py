"""A model whose layers are known by their types, and where their arrays are in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax

from ..._errors import ModelError
from ..._tree import paths
from ..._tree.leaves import isarray, isnumeric
from ..._tree.nodes import kind, loaded
from ..._tree.walk import Walk, walk
from .._layouts.spec import FrameworkLayout, KeyPath, TypedLayer, container_paths, recognise
from .names import key_path


@dataclass(frozen=True)
class Model:
    """A model, or the variables of one.

    Attributes:
      tree: what holds the arrays.
      layers: the layers whose types are known.
      places: for every array the path of its slot in the tree.
      optional: paths of slots that a source need not have, such as PRNG keys and caches.
      containers: what replaces steps below a container in other frameworks.
    """

    tree: Any
    layers: dict[KeyPath, TypedLayer]
    places: dict[KeyPath, str]
    optional: frozenset[str] = frozenset()
    containers: dict[KeyPath, Mapping[str, KeyPath]] = field(default_factory=dict)

    def names(self, path: KeyPath) -> list[KeyPath]:
        """Return the names that a place may have elsewhere.

        The first is its own, the last has no containers, and between them only some are left out,
        as where both frameworks have a Sequential within what is one here and a list there.
        """
        ways: list[KeyPath] = [()]
        for n, step in enumerate(path):
            inner = self.containers.get(path[:n], {}).get(step)
            kept = [(*way, step) for way in ways]
            ways = kept if inner is None else kept + [(*way, *inner) for way in ways]
        return list(dict.fromkeys(ways))


def model_of(tree: Any, layouts: tuple[FrameworkLayout, ...]) -> Model:
    """Return what is known of a pytree of modules: NNX, Equinox, jtree's own, or none."""
    state = _equinox_state(tree)
    prefix = "" if state is None else "0/"
    walked = walk(tree)
    nodes = {path: node for path, node in walked.nodes if f"{path}/".startswith(prefix)}
    layers: dict[KeyPath, TypedLayer] = {}
    containers: dict[KeyPath, Mapping[str, KeyPath]] = {}
    for path, node in nodes.items():
        place = key_path(path[len(prefix) :], layouts[0])
        if kind(node).box or any(place[:n] in layers for n in range(len(place))):
            continue
        found = recognise(node, layouts, path[len(prefix) :])
        if found is not None:
            layers.setdefault(place, found)
        elif inner := container_paths(node, layouts):
            containers[place] = inner
    held = [
        ((*key_path(path[len(prefix) :], layouts[0]), name), place)
        for path, names in _statistics(nodes, walked, state).items()
        for name, place in names.items()
    ]
    statistics = {place for _, place in held}
    own = [
        (key_path(path[len(prefix) :], layouts[0]), path)
        for path in _arrays(walked)
        if path.startswith(prefix) and path not in statistics
    ]
    return Model(tree, layers, unique([*own, *held]), _optional(walked), containers)


def unique(places: Iterable[tuple[KeyPath, str]]) -> dict[KeyPath, str]:
    """Return the paths of slots by their names elsewhere, and refuse two of one name."""
    found: dict[KeyPath, str] = {}
    for place, path in places:
        if place in found:
            raise ModelError(
                f"{found[place]} and {path}: expected a name of its own for each, found "
                f"{'/'.join(place)} for both, since `x_1` and `x/1` are one name, and collections "
                "of linen are no part of a name; call one of them something else in the model"
            )
        found[place] = path
    return found


def _arrays(walked: Walk) -> list[str]:
    return [slot.path for slot in walked.slots if isarray(slot.value)]


def _optional(walked: Walk) -> frozenset[str]:
    """Return the places that hold no numbers of the model: keys, counters, caches."""
    frozen = tuple(f"{path}/" for path, node in walked.nodes if _unsaved(node))
    exact = {path for path, node in walked.nodes if _unsaved(node)}
    return frozenset(
        slot.path
        for slot in walked.slots
        if not isnumeric(slot.value)
        or slot.path in exact
        or slot.path.startswith(frozen or ("\0",))
    )


def _unsaved(node: Any) -> bool:
    statistics = loaded("flax.nnx", "BatchStat")
    return kind(node).frozen and not (statistics and isinstance(node, statistics))


def _equinox_state(tree: Any) -> Any:
    """Return the state in a pair of an Equinox model and its state, or None."""
    cls = loaded("equinox.nn", "State")
    pair = isinstance(tree, tuple) and len(tree) == 2
    return tree[1] if pair and cls is not None and isinstance(tree[1], cls) else None


def _statistics(nodes: dict[str, Any], walked: Walk, state: Any) -> dict[str, dict[str, str]]:
    """Return where the running statistics of Equinox's BatchNorms are: in a state, or in them."""
    cls = loaded("equinox.nn", "BatchNorm")
    norms = {path: x for path, x in nodes.items() if cls is not None and isinstance(x, cls)}
    if state is not None:
        own = [slot.path for slot in walked.slots if slot.path.startswith("1/")]
        numbered = jax.tree.unflatten(jax.tree.structure(state), own)
        return {path: dict(_indexed(x, numbered.get)) for path, x in norms.items()}
    arrays = set(_arrays(walked))
    found = {path: _indexed(x, partial(_inside, path, x)) for path, x in norms.items()}
    return {path: {n: x for n, x in names if x in arrays} for path, names in found.items()}


def _indexed(norm: Any, get: Callable[[Any], Any]) -> list[tuple[str, str]]:
    """Return the names of the statistics of a BatchNorm, and what is found for each."""
    out: list[tuple[str, str]] = []
    for field_name, names in _INDICES.items():
        index = getattr(norm, field_name)
        if index is not None:
            held = get(index)
            out += zip(names, held if isinstance(held, tuple) else (held,), strict=True)
    return out


def _inside(path: str, norm: Any, index: Any) -> Any:
    """Return where the first value of a statistic is, in a model without a state beside it."""
    name = next(x for x in _INDICES if getattr(norm, x) is index)
    base = paths.join([*filter(None, [path]), name, "init"])
    return tuple(f"{base}/{n}" for n in range(2)) if len(_INDICES[name]) == 2 else base


_INDICES = {
    "ema_state_index": ("mean", "var"),
    "batch_state_index": ("mean", "var"),
    "batch_counter": ("counter",),
    "ema_first_time_index": ("first",),
}
