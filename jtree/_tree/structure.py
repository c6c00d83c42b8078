"""The structure of a tree, found node by node, with an error for every tree that has none."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
from jax.tree_util import PyTreeDef

from .._errors import ModelError, did_you_mean
from . import paths as _path
from .nodes import (
    Entries,
    Key,
    NodeKind,
    children,
    entries,
    key_name,
    kind,
    trainable,
    unsorted_keys,
)

# The steps that build a tree: unflatten each treedef in turn. An index i >= 0 stands for the value
# of slot i, and ~i for the result of step i, which is how one object occurs twice.
Plan: TypeAlias = tuple[tuple[PyTreeDef, tuple[int, ...]], ...]


@dataclass(eq=False)
class Branch:
    """The position of an inner node; a child is another branch, or the index of a slot."""

    path: str
    index: int  # of the node, among all nodes and leaves in the order of the walk
    kind: NodeKind
    keys: list[Key] = field(default_factory=list)
    names: list[Any] = field(default_factory=list)  # the values of the keys
    children: list[Branch | int] = field(default_factory=list)
    first: int = 0  # the slots below it are range(first, last)
    last: int = 0


@dataclass(frozen=True, eq=False)
class Structure:
    """Everything about a tree that depends on its treedef only."""

    root: Branch | int
    paths: tuple[str, ...]
    keys: tuple[tuple[Key, ...], ...]
    free: tuple[bool, ...]  # whether no ancestor's `trainable` excludes the slot
    nodes: tuple[tuple[str, int], ...]  # the paths and indices of inner nodes
    types: frozenset[type]  # of inner nodes


class Explored(NamedTuple):
    """The result of walking one tree node by node."""

    structure: Structure
    visited: list[Any]  # nodes and leaves, in the order in which JAX meets them
    values: list[Any]
    tie: list[int]  # the first slot of each slot that is under the same reference objects
    repeated: bool  # whether an object occurs more than once
    plan: Plan


def explore(tree: Any, *, tie_references: bool) -> Explored:
    """Walk a tree node by node.

    Args:
      tree: any pytree.
      tie_references: whether to tie the leaves of a reference object that occurs twice.

    Raises:
      ModelError: the tree contains itself, has two leaves with one path, or cannot be flattened.
    """
    walker = _Walker(tie_references)
    root = walker.visit(tree, (), (), True)
    _check_paths(walker)
    structure = Structure(
        root=root,
        paths=tuple(walker.paths),
        keys=tuple(walker.keys),
        free=tuple(walker.free),
        nodes=tuple(walker.nodes),
        types=frozenset(type(walker.visited[index]) for _, index in walker.nodes),
    )
    plan = tuple(_plan(root, walker.visited, walker.shared()))
    repeated = bool(walker.repeated)
    return Explored(structure, walker.visited, walker.values, walker.tie, repeated, plan)


class _Walker:
    """The lists that a walk fills."""

    def __init__(self, tie_references: bool) -> None:
        self.visited: list[Any] = []  # nodes and leaves, in the order in which JAX meets them
        self.values: list[Any] = []  # of slots, like the four lists below
        self.paths: list[str] = []
        self.keys: list[tuple[Key, ...]] = []
        self.free: list[bool] = []
        self.tie: list[int] = []
        self.inner: list[tuple[str, tuple[Key, ...]]] = []  # the nodes that are not boxes
        self.nodes: list[tuple[str, int]] = []
        self.open: dict[int, str] = {}  # the ancestors of the current node, by id
        self.tie_references = tie_references
        self.references: dict[int, Branch] = {}
        self.repeated: set[int] = set()  # reference objects that occur more than once

    def visit(
        self, value: Any, keys: tuple[Key, ...], segments: tuple[str, ...], free: bool
    ) -> Branch | int:
        if id(value) in self.open:
            raise ModelError(
                f"{_path.show(_path.join(segments))}: the model contains itself: this is the "
                f"{type(value).__name__} at {_path.show(self.open[id(value)])}; replace it with "
                "an object that does not refer back"
            )
        self.visited.append(value)
        pairs = _flatten(value, segments)
        if pairs is None:
            return self._leaf(value, keys, segments, free)
        branch = Branch(_path.join(segments), len(self.visited) - 1, kind(value))
        branch.first = len(self.values)
        if not branch.kind.hidden:
            self.nodes.append((branch.path, branch.index))
            if keys and not branch.kind.box:
                self.inner.append((branch.path, keys))
        self._visit_children(branch, value, pairs, keys, segments, free)
        branch.last = len(self.values)
        self._tie_references(branch, value)
        return branch

    def _visit_children(
        self,
        branch: Branch,
        value: Any,
        pairs: Entries,
        keys: tuple[Key, ...],
        segments: tuple[str, ...],
        free: bool,
    ) -> None:
        self.open[id(value)] = branch.path
        allowed = _trainable_names(value, branch.path) if free else set()
        for key, child in pairs:
            below = segments if branch.kind.box else (*segments, _path.segment(key))
            child_free = free and (allowed is None or key_name(key) in allowed)
            branch.keys.append(key)
            branch.names.append(key_name(key))
            branch.children.append(self.visit(child, (*keys, key), below, child_free))
        del self.open[id(value)]

    def _leaf(
        self, value: Any, keys: tuple[Key, ...], segments: tuple[str, ...], free: bool
    ) -> int:
        index = len(self.values)
        self.values.append(value)
        self.paths.append(_path.join(segments))
        self.keys.append(keys)
        self.free.append(free)
        self.tie.append(index)
        return index

    def _tie_references(self, branch: Branch, value: Any) -> None:
        if not (self.tie_references and branch.kind.reference):
            return
        first = self.references.setdefault(id(value), branch)
        if first is not branch:
            self.repeated.add(id(value))
            self.tie[branch.first : branch.last] = self.tie[first.first : first.last]

    def shared(self) -> list[Branch]:
        """Return the objects that occur more than once, inner ones first."""
        return [branch for key, branch in self.references.items() if key in self.repeated]


def _flatten(value: Any, segments: tuple[str, ...]) -> Entries | None:
    """Return the children of a node; an error inside a tree gains its path."""
    try:
        return entries(value)
    except Exception as error:
        path = _path.show(_path.join(segments))
        if isinstance(value, dict):
            raise unsorted_keys(path, value) from error
        error.add_note(f"while flattening the {type(value).__name__} at {path}")
        raise


def _trainable_names(value: Any, path: str) -> set[Hashable] | None:
    """Return the names of the children that `trainable` of a node allows; None for all."""
    function = trainable.dispatch(type(value))
    if function is trainable.dispatch(object):
        return set() if kind(value).frozen else None
    subset, below = function(value), children(value)
    call = f"{_path.show(path)}: trainable({type(value).__name__})"
    if not isinstance(subset, dict):
        raise ModelError(
            f"{call} must return a dict, a subset of jtree.children(node), "
            f"but it returned {type(subset).__name__}"
        )
    for name, child in subset.items():
        if name not in below:
            near = did_you_mean(str(name), map(str, below))
            raise ModelError(
                f"{call} must return children of the node, but it returned {name!r}; "
                f"the children are {list(below)}{near}"
            )
        if child is not below[name] and children(value)[name] is below[name]:
            raise ModelError(
                f"{call} must return the children themselves, but it returned another object "
                f"for {name!r}; return {{name: jtree.children(node)[name]}}"
            )
    return set(subset)


def _check_paths(walker: _Walker) -> None:
    """Refuse a tree with two leaves at one path, such as {"a/b": 1, "a": {"b": 2}}.

    A box has the path of its value, and the root may contain an empty key.
    """
    positions = [*walker.inner, *zip(walker.paths, walker.keys, strict=True)]
    seen: dict[str, tuple[Key, ...]] = {}
    for path, keys in positions:
        first = seen.setdefault(path, keys)
        if first is not keys:
            one, two = sorted(jax.tree_util.keystr(x) for x in (first, keys))
            raise ModelError(
                f"{_path.show(path)}: {one} and {two} have the same path; rename one of the keys"
            )


def _plan(
    root: Branch | int, visited: list[Any], shared: list[Branch]
) -> Iterator[tuple[PyTreeDef, tuple[int, ...]]]:
    """Yield the steps that build a tree: its shared objects, inner ones first, then the root."""
    steps = {id(visited[branch.index]): step for step, branch in enumerate(shared)}

    def inputs(child: Branch | int, top: bool = False) -> Iterator[int]:
        if isinstance(child, int):
            yield child
        elif not top and id(visited[child.index]) in steps:
            yield ~steps[id(visited[child.index])]
        else:
            for below in child.children:
                yield from inputs(below)

    for branch in (*shared, root):
        node = visited[0 if isinstance(branch, int) else branch.index]
        is_leaf = partial(_is_leaf, steps.keys() - {id(node)})
        yield jax.tree.structure(node, is_leaf=is_leaf), tuple(inputs(branch, top=True))


def _is_leaf(ids: Set[int], x: Any) -> bool:
    return x is None or id(x) in ids
