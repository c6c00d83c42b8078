"""The walk: a tree as a flat list of slots, and a way back. The only recursion over trees.

Everything that jtree does to a model is a few lines on this: read the slots, choose new values,
rebuild.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
from jax.tree_util import FlattenedIndexKey, PyTreeDef, SequenceKey

from . import paths
from . import ties as _ties
from .leaves import check_alive, isnumeric
from .nodes import Key, entries, name, trainable
from .structure import Branch, Plan, Structure, explore
from .ties import Groups, Slot, Ties


@dataclass(frozen=True, eq=False)
class Walk:
    """A walked tree: `slots` in JAX's order, inner `nodes` with their paths, and `rebuild`."""

    structure: Structure
    visited: list[Any]
    values: list[Any]
    ties: str | Groups
    classes: Sequence[int]  # for every slot the first one under the same reference objects
    plan: Plan

    @cached_property
    def slots(self) -> list[Slot]:
        """The places that hold leaves, or None."""
        places = zip(
            self.structure.paths, self.values, self.structure.free, self.classes, strict=True
        )
        slots = [Slot(path, x, free and isnumeric(x), tie) for path, x, free, tie in places]
        return slots if self.simple else _ties.tie(slots, self.ties)

    @property
    def simple(self) -> bool:
        """Whether no two slots are tied, as the structure alone tells."""
        return isinstance(self.classes, range) and self.ties in ("references", ())

    @property
    def keys(self) -> tuple[tuple[Key, ...], ...]:
        """Where each slot is, in JAX's own words."""
        return self.structure.keys

    @property
    def nodes(self) -> list[tuple[str, Any]]:
        """The inner nodes, the root first, with their paths."""
        return [(path, self.visited[number]) for path, number in self.structure.nodes]

    def check(self) -> Walk:
        """Return this, or refuse an array that is deleted or that can be changed in place."""
        for path, x in zip(self.structure.paths, self.values, strict=True):
            check_alive(path, x)
        return self

    def rebuild(self, values: Sequence[Any]) -> Any:
        """Return the tree with these values, one per slot; tied slots take the first one's."""
        if len(values) != len(self.slots):
            raise ValueError(f"expected {len(self.slots)} values, found {len(values)}")
        return assemble(self.plan, [values[slot.tie] for slot in self.slots])

    def fold(
        self, leaf: Callable[[Any], Any], node: Callable[[Any, list[Any], list[Any]], Any]
    ) -> Any:
        """Return the tree folded from below: `leaf(value)`, and `node(value, names, results)`."""
        leaves = list(map(leaf, self.values))

        def visit(place: Branch) -> Any:
            below = [leaves[x] if isinstance(x, int) else visit(x) for x in place.children]
            return node(self.visited[place.number], place.names, below)

        root = self.structure.root
        return leaves[root] if isinstance(root, int) else visit(root)

    def labels(self, keep: Callable[[Any], Any] | None = None) -> Labels:
        """Return the paths of slots and nodes where `keep(child)` drops children at every level.

        A sequence that loses a child closes up: what was at `2` is found at `1`.
        """
        found = Labels({}, {})

        def visit(place: Branch | int, parts: tuple[str, ...]) -> None:
            if isinstance(place, int):
                found.slots[paths.join(parts)] = place
                return
            found.nodes[paths.join(parts)] = self.visited[place.number]
            dropped = 0
            for key, child in zip(place.keys, place.children, strict=True):
                number = child if isinstance(child, int) else child.number
                value = (self.values if isinstance(child, int) else self.visited)[number]
                if keep is not None and not keep(value):
                    dropped += 1
                    continue
                if dropped and isinstance(key, SequenceKey | FlattenedIndexKey):
                    key = SequenceKey(int(str(name(key))) - dropped)
                visit(child, parts if place.kind.box else (*parts, paths.text(key)))

        visit(self.structure.root, ())
        return found


class Labels(NamedTuple):
    """The paths of a tree: those of its slots, with their numbers, and those of its nodes."""

    slots: dict[str, int]
    nodes: dict[str, Any]


def walk(tree: Any, /, *, ties: Ties = "references") -> Walk:
    """Walk a tree: return its leaves as slots, its inner nodes, and a way to rebuild it.

    Args:
      tree: any pytree, or a leaf.
      ties: `"references"` ties what is under one reference object (an NNX module or variable)
        met twice; `"arrays"` also ties parameters that are the same array object; a list of
        tuples of paths states ties in addition to those of references; `()` has none.

    Returns:
      A `Walk`.

    Raises:
      ModelError: the tree contains itself, has two places with one path, or a dict whose keys
        cannot be sorted; a registered `trainable` returns something else than children.

    Example:
      >>> walked = walk({"w": 1.5, "layers": [None, "relu"]})
      >>> [slot.path for slot in walked.slots]
      ['layers/0', 'layers/1', 'w']
      >>> walked.rebuild([7, 8, 9])
      {'layers': [7, 8], 'w': 9}
    """
    stated = _ties.read(ties)
    return _walk_again(tree, stated) or _explore(tree, stated)


def assemble(plan: Plan, values: Sequence[Any]) -> Any:
    """Return the tree that a plan builds from one value per slot."""
    made: list[Any] = []
    for treedef, inputs in plan:
        made.append(treedef.unflatten([values[i] if i >= 0 else made[~i] for i in inputs]))
    return made[-1]


_STRUCTURES: dict[PyTreeDef, Structure] = {}
_MOST = 512  # structures to remember


def _walk_again(tree: Any, ties: str | Groups) -> Walk | None:
    """Walk a tree whose structure is known; return None where it is not."""
    flat = _flatten(tree)
    structure = _remembered(flat[2]) if flat else None
    if flat is None or structure is None:
        return None
    visited, values, treedef = flat
    classes = range(len(values))
    return Walk(structure, visited, values, ties, classes, ((treedef, tuple(classes)),))


def _flatten(tree: Any) -> tuple[list[Any], list[Any], PyTreeDef] | None:
    """Return all that JAX visits, the leaves and the treedef; None where a node is met twice.

    A node that contains itself is met twice, so JAX never opens it again.
    """
    visited, again, ids = list[Any](), dict[int, Any](), set[int]()

    def stop(x: Any) -> bool:
        visited.append(x)
        if id(x) in ids:
            again[id(x)] = x
            return True
        ids.add(id(x))
        return x is None

    try:
        values, treedef = jax.tree.flatten(tree, is_leaf=stop)
        if any(entries(x) is not None for x in again.values()):
            return None
    except Exception:  # the careful walk says where and why
        return None
    return visited, values, treedef


def _remembered(treedef: PyTreeDef) -> Structure | None:
    try:
        structure = _STRUCTURES.get(treedef)
    except Exception:  # static fields that cannot be hashed or compared
        return None
    default = trainable.dispatch(object)
    if structure and all(trainable.dispatch(cls) is default for cls in structure.types):
        return structure
    return None


def _explore(tree: Any, ties: str | Groups) -> Walk:
    """Walk a tree node by node, and remember its structure if it depends on the treedef only."""
    found = explore(tree, same_objects=ties != ())
    if not found.repeated and (flat := _flatten(tree)):
        _remember(flat[2], found.structure)
    classes = found.tie if found.repeated else range(len(found.values))
    return Walk(found.structure, found.visited, found.values, ties, classes, found.plan)


def _remember(treedef: PyTreeDef, structure: Structure) -> None:
    if len(_STRUCTURES) >= _MOST:
        _STRUCTURES.clear()
    try:
        _STRUCTURES[treedef] = structure
    except Exception:  # static fields that cannot be hashed
        return
