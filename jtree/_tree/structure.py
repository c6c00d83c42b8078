"""The careful walk: node by node, with every reason why a tree cannot be walked."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
from jax.tree_util import PyTreeDef

from .._errors import ModelError, did_you_mean
from . import paths as _path
from .nodes import Entries, Key, Kind, children, entries, kind, name, trainable

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


class Explored(NamedTuple):
    """All that the careful walk of one tree finds."""

    structure: Structure
    visited: list[Any]  # nodes and leaves, in the order in which JAX meets them
    values: list[Any]
    tie: list[int]  # for every slot the first one under the same reference objects
    repeated: bool  # whether an object is met more than once
    plan: Plan


def explore(tree: Any, *, same_objects: bool) -> Explored:
    """Walk a tree node by node; `same_objects` ties what is under a reference object met twice."""
    walker = _Walker(same_objects)
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
    plan = tuple(_plan(root, walker.visited, walker.shared()))
    repeated = bool(walker.repeated)
    return Explored(structure, walker.visited, walker.values, walker.tie, repeated, plan)


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
