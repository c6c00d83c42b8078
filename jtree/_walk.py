"""The walk: a tree as a flat list of slots, and a way back. The only recursion over trees.

Everything that jtree does to a model is a few lines on this: read the slots, choose new values,
rebuild.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
from jax.tree_util import FlattenedIndexKey, PyTreeDef, SequenceKey

from . import _path, _ties
from ._errors import ModelError, did_you_mean
from ._kinds import Entries, Key, children, entries, kind, name, trainable
from ._leaves import isnumeric
from ._ties import Slot, Ties

# How a tree is put together again: unflatten each treedef in turn. A number that is not negative
# stands for a slot's value; `~i` for what step i made, which is how one object gets two places.
Plan: TypeAlias = tuple[tuple[PyTreeDef, tuple[int, ...]], ...]


@dataclass(eq=False)
class Branch:
    """An inner node of a walked tree: its children are branches, or the numbers of slots."""

    path: str
    value: Any
    keys: list[Key] = field(default_factory=list)
    children: list[Branch | int] = field(default_factory=list)
    first: int = 0  # the slots below it are range(first, last)
    last: int = 0

    @property
    def isbox(self) -> bool:
        return kind(self.value).box

    @property
    def ishidden(self) -> bool:
        return kind(self.value).hidden


@dataclass(frozen=True, eq=False)
class Walk:
    """A walked tree: `slots` in JAX's order, inner `nodes` with their paths, and `rebuild`."""

    slots: list[Slot]
    keys: list[tuple[Key, ...]]  # where each slot is, in JAX's own words
    nodes: list[tuple[str, Any]]
    plan: Plan
    root: Branch | int

    def rebuild(self, values: Sequence[Any]) -> Any:
        """Return the tree with these values, one per slot; tied slots take the first one's."""
        if len(values) != len(self.slots):
            raise ValueError(f"expected {len(self.slots)} values, found {len(values)}")
        return assemble(self.plan, [values[slot.tie] for slot in self.slots])

    def fold(
        self, leaf: Callable[[Any], Any], node: Callable[[Any, list[Key], list[Any]], Any]
    ) -> Any:
        """Return the tree folded from below: `leaf(value)`, and `node(value, keys, results)`."""

        def visit(place: Branch | int) -> Any:
            if isinstance(place, int):
                return leaf(self.slots[place].value)
            return node(place.value, place.keys, [visit(child) for child in place.children])

        return visit(self.root)

    def labels(self, keep: Callable[[Any], Any] | None = None) -> Labels:
        """Return the paths of slots and nodes where `keep(child)` drops children at every level.

        A sequence that loses a child closes up: what was at `2` is found at `1`.
        """
        found = Labels({}, {})

        def visit(place: Branch | int, parts: tuple[str, ...]) -> None:
            if isinstance(place, int):
                found.slots[_path.join(parts)] = place
                return
            found.nodes[_path.join(parts)] = place.value
            dropped = 0
            for key, child in zip(place.keys, place.children, strict=True):
                value = self.slots[child].value if isinstance(child, int) else child.value
                if keep is not None and not keep(value):
                    dropped += 1
                    continue
                if dropped and isinstance(key, SequenceKey | FlattenedIndexKey):
                    key = SequenceKey(int(str(name(key))) - dropped)
                visit(child, parts if place.isbox else (*parts, _path.text(key)))

        visit(self.root, ())
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
    walker = _Walker(same_objects=stated != ())
    root = walker.visit(tree, (), (), True)
    _check_paths(walker)
    slots = _ties.tie(walker.slots, stated)
    return Walk(slots, walker.keys, walker.nodes, tuple(_plan(root, walker.shared())), root)


def assemble(plan: Plan, values: Sequence[Any]) -> Any:
    """Return the tree that a plan builds from one value per slot."""
    made: list[Any] = []
    for treedef, inputs in plan:
        made.append(treedef.unflatten([values[i] if i >= 0 else made[~i] for i in inputs]))
    return made[-1]


class _Walker:
    """What a walk has met so far."""

    def __init__(self, same_objects: bool) -> None:
        self.slots: list[Slot] = []
        self.keys: list[tuple[Key, ...]] = []
        self.inner: list[tuple[str, tuple[Key, ...]]] = []  # where nodes are that are no boxes
        self.nodes: list[tuple[str, Any]] = []
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
        pairs = _open(value, parts)
        if pairs is None:
            return self._leaf(value, keys, parts, free)
        branch = Branch(_path.join(parts), value, first=len(self.slots))
        if not branch.ishidden:
            self.nodes.append((branch.path, value))
            if keys and not branch.isbox:
                self.inner.append((branch.path, keys))
        self.open[id(value)] = branch.path
        allowed = _trainable_names(value, branch.path) if free else set()
        for key, child in pairs:
            below = parts if branch.isbox else (*parts, _path.text(key))
            inside = free and (allowed is None or name(key) in allowed)
            branch.keys.append(key)
            branch.children.append(self.visit(child, (*keys, key), below, inside))
        del self.open[id(value)]
        branch.last = len(self.slots)
        self._tie_references(branch)
        return branch

    def _leaf(self, value: Any, keys: tuple[Key, ...], parts: tuple[str, ...], free: bool) -> int:
        number = len(self.slots)
        self.slots.append(Slot(_path.join(parts), value, free and isnumeric(value), number))
        self.keys.append(keys)
        return number

    def _tie_references(self, branch: Branch) -> None:
        if not (self.same_objects and kind(branch.value).reference):
            return
        first = self.references.setdefault(id(branch.value), branch)
        if first is not branch:
            self.repeated.add(id(branch.value))
            for offset in range(branch.last - branch.first):
                tie = self.slots[first.first + offset].tie
                slot = self.slots[branch.first + offset]
                self.slots[branch.first + offset] = slot._replace(tie=tie)

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
    places = [*walker.inner, *zip((x.path for x in walker.slots), walker.keys, strict=True)]
    seen: dict[str, tuple[Key, ...]] = {}
    for path, keys in places:
        first = seen.setdefault(path, keys)
        if first is not keys:
            one, two = sorted(jax.tree_util.keystr(place) for place in (first, keys))
            raise ModelError(
                f"{_path.show(path)}: two places have this path, {one} and {two}; "
                "rename one of the keys"
            )


def _plan(root: Branch | int, order: list[Branch]) -> Iterator[tuple[PyTreeDef, tuple[int, ...]]]:
    """Yield the steps that build a tree: its repeated objects, inner ones first, then the root."""
    steps = {id(branch.value): number for number, branch in enumerate(order)}

    def inputs(place: Branch | int, top: bool = False) -> Iterator[int]:
        if isinstance(place, int):
            yield place
        elif not top and id(place.value) in steps:
            yield ~steps[id(place.value)]
        else:
            for child in place.children:
                yield from inputs(child)

    for place in (*order, root):
        if isinstance(place, int):
            yield jax.tree.structure(0), (place,)
            return
        stop = steps.keys() - {id(place.value)}
        treedef = jax.tree.structure(place.value, is_leaf=partial(_stops, stop))
        yield treedef, tuple(inputs(place, top=True))


def _stops(ids: Set[int], x: Any) -> bool:
    return x is None or id(x) in ids
