"""The walk: a tree as a flat list of slots, and a way to rebuild it.

This is the only recursion over trees. Everything else that jtree does to a model reads the slots,
computes new values, and rebuilds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
from jax.tree_util import FlattenedIndexKey, PyTreeDef, SequenceKey

from .._arguments import check_callable, unexpected
from .._errors import ArgumentError
from . import paths
from .cache import Cache
from .leaves import check_alive, isnumeric
from .nodes import Key, entries, key_name, trainable
from .structure import Branch, Plan, Structure, explore
from .ties import Groups, Slot, Ties, check_ties, tie_slots


class Labels(NamedTuple):
    """The paths of a tree.

    Attributes:
      slots: the index of the slot at each path.
      nodes: the inner node at each path.
    """

    slots: dict[str, int]
    nodes: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Walk:
    """The leaves and inner nodes of a tree, and a way to rebuild it: the result of `jtree.walk`.

    Attributes:
      slots: a `Slot` for every leaf, None included, in JAX's order.
      nodes: (path, node) pairs for every inner node, the root first.

    Example:
      >>> walked = jtree.walk({"w": 1.5, "layers": [None, "relu"]})
      >>> [slot.path for slot in walked.slots], [path for path, _ in walked.nodes]
      (['layers/0', 'layers/1', 'w'], ['', 'layers'])
    """

    structure: Structure
    visited: list[Any]
    values: list[Any]
    ties: str | Groups
    references: Sequence[int]  # the first slot of each slot under the same reference objects
    plan: Plan

    @cached_property
    def slots(self) -> list[Slot]:
        structure = self.structure
        rows = zip(structure.paths, self.values, structure.free, self.references, strict=True)
        slots = [Slot(path, x, free and isnumeric(x), tie) for path, x, free, tie in rows]
        return slots if self.untied else tie_slots(slots, self.ties)

    @property
    def nodes(self) -> list[tuple[str, Any]]:
        return [(path, self.visited[index]) for path, index in self.structure.nodes]

    @property
    def keys(self) -> tuple[tuple[Key, ...], ...]:
        """JAX's key entries for each slot."""
        return self.structure.keys

    @property
    def untied(self) -> bool:
        """Whether the structure alone shows that no two slots are tied."""
        return isinstance(self.references, range) and self.ties in ("references", ())

    def check(self) -> Walk:
        """Return this walk; raise an error if an array was deleted or is a mutable reference."""
        for path, x in zip(self.structure.paths, self.values, strict=True):
            check_alive(path, x)
        return self

    def rebuild(self, values: Sequence[Any]) -> Any:
        """Return the tree with other values.

        Args:
          values: one value per slot. Tied slots take the value of the first one.

        Returns:
          A new tree, in which objects of Flax NNX that occurred twice are shared again.

        Example:
          >>> jtree.walk({"w": 1.5, "layers": [None, "relu"]}).rebuild([7, 8, 9])
          {'layers': [7, 8], 'w': 9}
        """
        if not isinstance(values, Sequence):
            raise unexpected("values", "a sequence with one value per slot", values)
        if len(values) != len(self.slots):
            raise ArgumentError(f"values: expected {len(self.slots)}, found {len(values)}")
        return assemble(self.plan, [values[slot.tie] for slot in self.slots])

    def fold(
        self, leaf: Callable[[Any], Any], node: Callable[[Any, list[Any], list[Any]], Any]
    ) -> Any:
        """Return the result of `node(value, names, results)` at the root, from the leaves up.

        Args:
          leaf: a function of a leaf, called in the order of the slots.
          node: a function of a node, the names of its children, and the results for them.
        """
        leaves = list(map(check_callable("leaf", leaf), self.values))
        check_callable("node", node)

        def visit(branch: Branch) -> Any:
            below = [leaves[x] if isinstance(x, int) else visit(x) for x in branch.children]
            return node(self.visited[branch.index], branch.names, below)

        root = self.structure.root
        return leaves[root] if isinstance(root, int) else visit(root)

    def labels(self, keep: Callable[[Any], Any] | None = None) -> Labels:
        """Return the paths of slots and nodes, without the children that `keep` is false for.

        Sequences close up: where the child at `1` is dropped, `2` becomes `1`.
        """
        labels = Labels({}, {})
        if keep is not None:
            check_callable("keep", keep)

        def visit(branch: Branch | int, segments: tuple[str, ...]) -> None:
            if isinstance(branch, int):
                labels.slots[paths.join(segments)] = branch
                return
            labels.nodes[paths.join(segments)] = self.visited[branch.index]
            dropped = 0
            for key, child in zip(branch.keys, branch.children, strict=True):
                if keep is not None and not keep(self._value(child)):
                    dropped += 1
                    continue
                if dropped and isinstance(key, SequenceKey | FlattenedIndexKey):
                    key = SequenceKey(int(str(key_name(key))) - dropped)
                below = segments if branch.kind.box else (*segments, paths.segment(key))
                visit(child, below)

        visit(self.structure.root, ())
        return labels

    def _value(self, child: Branch | int) -> Any:
        return self.values[child] if isinstance(child, int) else self.visited[child.index]


def walk(tree: Any, /, *, ties: Ties = "references") -> Walk:
    """Return the leaves of a tree as slots, its inner nodes, and a way to rebuild it.

    Args:
      tree: any pytree, or a leaf.
      ties: which leaves are one parameter. `"references"` ties the leaves of a reference object
        (an NNX module or variable) that occurs twice. `"arrays"` also ties parameters that are
        the same array object. A list of tuples of paths states ties in addition to references.
        `()` ties nothing.

    Returns:
      A `Walk`.

    Raises:
      ModelError: the tree contains itself, has two leaves with one path, or has dict keys that
        cannot be sorted; or a registered `trainable` does not return children.

    Example:
      >>> walked = jtree.walk({"w": 1.5, "layers": [None, "relu"]})
      >>> [slot.path for slot in walked.slots]
      ['layers/0', 'layers/1', 'w']
      >>> walked.rebuild([7, 8, 9])
      {'layers': [7, 8], 'w': 9}
    """
    checked = check_ties(ties)
    return _walk_cached(tree, checked) or _walk_uncached(tree, checked)


def assemble(plan: Plan, values: Sequence[Any]) -> Any:
    """Return the tree that a plan builds from one value per slot."""
    results: list[Any] = []
    for treedef, inputs in plan:
        leaves = [values[i] if i >= 0 else results[~i] for i in inputs]
        results.append(treedef.unflatten(leaves))
    return results[-1]


_STRUCTURES: Cache[Structure] = Cache()


def _walk_cached(tree: Any, ties: str | Groups) -> Walk | None:
    """Walk a tree with a known structure; return None for any other."""
    flat = _flatten(tree)
    structure = _STRUCTURES.get(flat[2]) if flat else None
    if flat is None or structure is None or _any_registered(structure.types):
        return None
    visited, values, treedef = flat
    references = range(len(values))
    return Walk(structure, visited, values, ties, references, ((treedef, tuple(references)),))


def _any_registered(types: frozenset[type]) -> bool:
    """Return whether `trainable` depends on the values of a node, so that it must be called."""
    default = trainable.dispatch(object)
    return any(trainable.dispatch(cls) is not default for cls in types)


def _flatten(tree: Any) -> tuple[list[Any], list[Any], PyTreeDef] | None:
    """Return what JAX visits, the leaves and the treedef, or None if a node occurs twice.

    A model that contains itself can crash the interpreter in `jax.tree.flatten`, so a node that
    occurs a second time is a leaf here.
    """
    visited, repeated, ids = list[Any](), dict[int, Any](), set[int]()

    def is_leaf(x: Any) -> bool:
        visited.append(x)
        if id(x) in ids:
            repeated[id(x)] = x
            return True
        ids.add(id(x))
        return x is None

    try:
        values, treedef = jax.tree.flatten(tree, is_leaf=is_leaf)
        if any(entries(x) is not None for x in repeated.values()):
            return None
    except Exception:  # `explore` raises it again, with the path
        return None
    return visited, values, treedef


def _walk_uncached(tree: Any, ties: str | Groups) -> Walk:
    """Walk a tree node by node, and cache its structure if that depends on the treedef only."""
    explored = explore(tree, tie_references=ties != ())
    if not explored.repeated and (flat := _flatten(tree)):
        _STRUCTURES.put(flat[2], explored.structure)
    references = explored.tie if explored.repeated else range(len(explored.values))
    structure, visited, values = explored.structure, explored.visited, explored.values
    return Walk(structure, visited, values, ties, references, explored.plan)
