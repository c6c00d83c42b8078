"""The walk: a tree as a flat list of slots, and a way back. The only recursion over trees.

Everything that jtree does to a model is a few lines on this: read the slots, choose new values,
rebuild.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeAlias

import jax
from jax.tree_util import FlattenedIndexKey, PyTreeDef, SequenceKey

from . import _path, _ties
from ._errors import ModelError, did_you_mean
from ._kinds import Entries, Key, Kind, children, entries, kind, name, trainable
from ._leaves import check_alive, isnumeric
from ._ties import Groups, Slot, Ties

# How a tree is put together again: unflatten each treedef in turn. A number that is not negative
# stands for a slot's value; `~i` for what step i made, which is how one object gets two places.
Plan: TypeAlias = tuple[tuple[PyTreeDef, tuple[int, ...]], ...]


@dataclass(eq=False)
class Branch:
    """An inner node of a tree, without the node: its children are branches, or slots' numbers."""

    path: str
    number: int  # of the node, among all that a walk visits
    kind: Kind
    keys: list[Key] = field(default_factory=list)
    names: list[Any] = field(default_factory=list)  # what the keys hold
    children: list[Branch | int] = field(default_factory=list)
    first: int = 0  # the slots below it are range(first, last)
    last: int = 0


@dataclass(frozen=True, eq=False)
class Structure:
    """What a walk finds out that holds for every tree with the same treedef."""

    root: Branch | int
    paths: tuple[str, ...]
    keys: tuple[tuple[Key, ...], ...]
    free: tuple[bool, ...]  # whether every ancestor's `trainable` lets the slot through
    nodes: tuple[tuple[str, int], ...]  # the paths and numbers of inner nodes
    types: frozenset[type]  # of inner nodes


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
                found.slots[_path.join(parts)] = place
                return
            found.nodes[_path.join(parts)] = self.visited[place.number]
            dropped = 0
            for key, child in zip(place.keys, place.children, strict=True):
                number = child if isinstance(child, int) else child.number
                value = (self.values if isinstance(child, int) else self.visited)[number]
                if keep is not None and not keep(value):
                    dropped += 1
                    continue
                if dropped and isinstance(key, SequenceKey | FlattenedIndexKey):
                    key = SequenceKey(int(str(name(key))) - dropped)
                visit(child, parts if place.kind.box else (*parts, _path.text(key)))

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
    walker = _Walker(same_objects=ties != ())
    root = walker.visit(tree, (), (), True)
    _check_paths(walker)
    structure = Structure(
        root=root,
        paths=tuple(walker.paths),
        keys=tuple(walker.keys),
        free=tuple(walker.free),
        nodes=tuple(walker.nodes),
        types=frozenset(type(walker.visited[number]) for _, number in walker.nodes),
    )
    if not walker.repeated and (flat := _flatten(tree)):
        _remember(flat[2], structure)
    plan = tuple(_plan(root, walker.visited, walker.shared()))
    classes = walker.tie if walker.repeated else range(len(walker.values))
    return Walk(structure, walker.visited, walker.values, ties, classes, plan)


def _remember(treedef: PyTreeDef, structure: Structure) -> None:
    if len(_STRUCTURES) >= _MOST:
        _STRUCTURES.clear()
    try:
        _STRUCTURES[treedef] = structure
    except Exception:  # static fields that cannot be hashed
        return


class _Walker:
    """What a walk has met so far."""

    def __init__(self, same_objects: bool) -> None:
        self.visited: list[Any] = []  # nodes and leaves, in the order in which JAX meets them
        self.values: list[Any] = []  # of slots, as all the lists below
        self.paths: list[str] = []
        self.keys: list[tuple[Key, ...]] = []
        self.free: list[bool] = []
        self.tie: list[int] = []
        self.inner: list[tuple[str, tuple[Key, ...]]] = []  # where nodes are that are no boxes
        self.nodes: list[tuple[str, int]] = []
        self.open: dict[int, str] = {}  # the nodes that we are inside of, by id
        self.same_objects = same_objects
        self.references: dict[int, Branch] = {}
        self.repeated: set[int] = set()  # reference objects met more than once

    def visit(
        self, value: Any, keys: tuple[Key, ...], parts: tuple[str, ...], free: bool
    ) -> Branch | int:
        if id(value) in self.open:
            raise ModelError(
                f"{_path.show(_path.join(parts))}: the model contains itself: this is the "
                f"{type(value).__name__} at {_path.show(self.open[id(value)])}; replace it by "
                "something that does not point back"
            )
        self.visited.append(value)
        pairs = _open(value, parts)
        if pairs is None:
            return self._leaf(value, keys, parts, free)
        branch = Branch(_path.join(parts), len(self.visited) - 1, kind(value))
        branch.first = len(self.values)
        if not branch.kind.hidden:
            self.nodes.append((branch.path, branch.number))
            if keys and not branch.kind.box:
                self.inner.append((branch.path, keys))
        self._visit_children(branch, value, pairs, keys, parts, free)
        branch.last = len(self.values)
        self._tie_references(branch, value)
        return branch

    def _visit_children(
        self,
        branch: Branch,
        value: Any,
        pairs: Entries,
        keys: tuple[Key, ...],
        parts: tuple[str, ...],
        free: bool,
    ) -> None:
        self.open[id(value)] = branch.path
        allowed = _trainable_names(value, branch.path) if free else set()
        for key, child in pairs:
            below = parts if branch.kind.box else (*parts, _path.text(key))
            inside = free and (allowed is None or name(key) in allowed)
            branch.keys.append(key)
            branch.names.append(name(key))
            branch.children.append(self.visit(child, (*keys, key), below, inside))
        del self.open[id(value)]

    def _leaf(self, value: Any, keys: tuple[Key, ...], parts: tuple[str, ...], free: bool) -> int:
        number = len(self.values)
        self.values.append(value)
        self.paths.append(_path.join(parts))
        self.keys.append(keys)
        self.free.append(free)
        self.tie.append(number)
        return number

    def _tie_references(self, branch: Branch, value: Any) -> None:
        if not (self.same_objects and branch.kind.reference):
            return
        first = self.references.setdefault(id(value), branch)
        if first is not branch:
            self.repeated.add(id(value))
            self.tie[branch.first : branch.last] = self.tie[first.first : first.last]

    def shared(self) -> list[Branch]:
        """Return the objects met more than once, the inner ones first."""
        return [branch for met, branch in self.references.items() if met in self.repeated]


def _open(value: Any, parts: tuple[str, ...]) -> Entries | None:
    """Return the children of a node; an error inside a tree gains its path."""
    try:
        return entries(value)
    except Exception as error:
        path = _path.show(_path.join(parts))
        if isinstance(value, dict):
            types = sorted({type(key).__name__ for key in value})
            raise ModelError(
                f"{path}: expected dict keys that sort, found keys of the types "
                f"{', '.join(types)}; use keys of one type that can be compared, such as str"
            ) from error
        error.add_note(f"while opening the {type(value).__name__} at {path}")
        raise


def _trainable_names(value: Any, path: str) -> set[Hashable] | None:
    """Return the names of the children that a node's `trainable` lets through; None for all."""
    function = trainable.dispatch(type(value))
    if function is trainable.dispatch(object):
        return set() if kind(value).frozen else None
    chosen, held = function(value), children(value)
    owner = f"{_path.show(path)}: trainable({type(value).__name__})"
    if not isinstance(chosen, dict):
        raise ModelError(
            f"{owner} must return a dict, a subset of jtree.children(node), "
            f"but it returned {type(chosen).__name__}"
        )
    for child_name, child in chosen.items():
        if child_name not in held:
            near = did_you_mean(str(child_name), map(str, held))
            raise ModelError(
                f"{owner} must return children of the node, but it returned {child_name!r}; "
                f"the children are {list(held)}{near}"
            )
        if child is not held[child_name] and children(value)[child_name] is held[child_name]:
            raise ModelError(
                f"{owner} must return the children themselves, but what it returned for "
                f"{child_name!r} is another object; return {{name: jtree.children(node)[name]}}"
            )
    return set(chosen)


def _check_paths(walker: _Walker) -> None:
    """Refuse a tree with two places at one path, such as {"a/b": 1, "a": {"b": 2}}.

    A box has the path of what is in it; and the root may hold the empty key.
    """
    places = [*walker.inner, *zip(walker.paths, walker.keys, strict=True)]
    seen: dict[str, tuple[Key, ...]] = {}
    for path, keys in places:
        first = seen.setdefault(path, keys)
        if first is not keys:
            one, two = sorted(jax.tree_util.keystr(place) for place in (first, keys))
            raise ModelError(
                f"{_path.show(path)}: two places have this path, {one} and {two}; "
                "rename one of the keys"
            )


def _plan(
    root: Branch | int, visited: list[Any], order: list[Branch]
) -> Iterator[tuple[PyTreeDef, tuple[int, ...]]]:
    """Yield the steps that build a tree: its repeated objects, inner ones first, then the root."""
    steps = {id(visited[branch.number]): step for step, branch in enumerate(order)}

    def inputs(place: Branch | int, top: bool = False) -> Iterator[int]:
        if isinstance(place, int):
            yield place
        elif not top and id(visited[place.number]) in steps:
            yield ~steps[id(visited[place.number])]
        else:
            for child in place.children:
                yield from inputs(child)

    for place in (*order, root):
        node = visited[0 if isinstance(place, int) else place.number]
        stop = partial(_stops, steps.keys() - {id(node)})
        yield jax.tree.structure(node, is_leaf=stop), tuple(inputs(place, top=True))


def _stops(ids: Set[int], x: Any) -> bool:
    return x is None or id(x) in ids
