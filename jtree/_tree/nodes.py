"""What a type of node means: its children, its parameters, a framework's box.

Frameworks are the user's to import: their types are looked up only where they are loaded already.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Hashable, Mapping
from functools import singledispatch
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.tree_util import tree_flatten_with_path

Key: TypeAlias = Any  # a key entry of JAX: DictKey, SequenceKey, GetAttrKey, FlattenedIndexKey
Entries: TypeAlias = list[tuple[Key, Any]]


class Kind(NamedTuple):
    """What jtree knows of a type of node."""

    box: bool = False  # holds one value and adds nothing to the path
    reference: bool = False  # an object whose identity means something: met twice, it is tied
    hidden: bool = False  # a framework's bookkeeping: rebuilt, never shown
    attributes: bool = False  # its static fields are whatever else is in `vars(node)`
    frozen: bool = False  # holds no parameters, whatever is in it
    whole: bool = False  # its state names every static field, those that are not basic as `()`


def kind(node: object) -> Kind:
    """Return what a node means."""
    return _KINDS.get(type(node)) or _KINDS.setdefault(type(node), _look_up(type(node)))


_KINDS: dict[type, Kind] = {}


def _look_up(cls: type) -> Kind:
    """Return what a type of node means: the one table of frameworks."""

    def isa(module: str, *names: str) -> bool:
        found = (loaded(module, name) for name in names)
        return any(parent is not None and issubclass(cls, parent) for parent in found)

    if isa("flax.nnx", "Variable"):
        return Kind(box=True, reference=True, frozen=not isa("flax.nnx", "Param"))
    if isa("flax.nnx.pytreelib", "PytreeState"):
        return Kind(hidden=True)
    if isa("flax.nnx", "Pytree", "Module"):
        return Kind(reference=True, attributes=True)
    if isa("jtree.layers._layer", "Layer"):
        return Kind(whole=True)
    return Kind(box=isa("flax.core.meta", "AxisMetadata") or isa("jtree.layers._layer", "Function"))


def loaded(module: str, name: str) -> type | None:
    """Return a type of a framework by its name, or None where the framework is not loaded."""
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else None


def entries(node: object) -> Entries | None:
    """Return the (key, child) pairs one level down, in JAX's order; None for a leaf.

    The predicate says no once, to the root, and yes to all below it. `y is not node` would not
    do: it opens the root again where a model contains itself. And `flatten_one_level_with_keys`
    gives every field of a NamedTuple the first field's key (jax issue 39297).
    """
    if node is None or isinstance(node, jax.Array | np.ndarray):
        return None
    root = iter((False,))
    pairs, _ = tree_flatten_with_path(node, is_leaf=lambda _: next(root, True))
    if len(pairs) == 1 and not pairs[0][0]:
        return None
    return [(path[0], child) for path, child in pairs]


def name(key: Key) -> Hashable:
    """Return what a key entry holds: a field's name, a dict's key, a position."""
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return getattr(key, attribute)  # type: ignore[no-any-return]
    return str(key)


def visible(pairs: Entries) -> Entries:
    """Drop what a framework keeps in its nodes for itself."""
    return [(key, child) for key, child in pairs if not kind(child).hidden]


def children(node: object, /) -> dict[Any, Any]:
    """Return the children of a node, one level down, by name, key or position.

    Args:
      node: any pytree node, or a leaf.

    Returns:
      A dict in JAX's order: field names for dataclasses and modules, keys for dicts, positions
      for sequences. Empty for a leaf.

    Example:
      >>> children({"w": 1, "b": (2, 3)})
      {'b': (2, 3), 'w': 1}
      >>> children((4, 5)), children(7)
      ({0: 4, 1: 5}, {})

    Source: `children` of Functors.jl.
    """
    return {name(key): child for key, child in visible(entries(node) or [])}


@singledispatch
def trainable(node: object, /) -> dict[Any, Any]:
    """Return the children of a node that hold its parameters; register a type to narrow them.

    By default these are all its children. Of the variables of Flax NNX, only `nnx.Param` holds
    parameters. A registered function returns a subset of `jtree.children(node)`, as a dict from
    the same names to the same children.

    Args:
      node: a pytree node.

    Returns:
      A dict, a subset of `children(node)`.

    Example:
      >>> from dataclasses import dataclass
      >>> import jax.numpy as jnp
      >>> @jax.tree_util.register_dataclass
      ... @dataclass
      ... class Affine:
      ...     weight: jax.Array
      ...     shift: jax.Array
      >>> @trainable.register(Affine)
      ... def _(node):
      ...     return {"weight": node.weight}
      >>> list(trainable(Affine(jnp.ones(2), jnp.zeros(2))))
      ['weight']

    Source: `trainable` of Optimisers.jl.
    """
    return {} if kind(node).frozen else children(node)


def static(node: object) -> dict[str, Any]:
    """Return the fields of a node that are no children: those of dataclasses and of NNX modules."""
    held = children(node)
    if isinstance(node, Mapping) or _unnamed(held):
        return {}  # which fields the children come from cannot be known
    if kind(node).attributes:
        names = [field for field in vars(node) if not field.startswith(("_pytree__", "_object__"))]
    else:
        names = [field.name for field in _dataclass_fields(node)]
    return {
        field: getattr(node, field) for field in names if field not in held and hasattr(node, field)
    }


def _unnamed(held: dict[Any, Any]) -> bool:
    return bool(held) and all(isinstance(key, int) for key in held)


def _dataclass_fields(node: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(node) if dataclasses.is_dataclass(node) else ()


def contain(node: object, found: dict[Any, Any]) -> Any:
    """Return what is found at a node's children in a basic container that has the same paths.

    Lists and tuples are lists and tuples; what an NNX list holds that is no child, such as a
    function, keeps its place as `()`. The rest are dicts by name.
    """
    if (isinstance(node, list) or _islist(node)) and all(isinstance(x, int) for x in found):
        length = len(node)  # type: ignore[arg-type]
        return [found.get(position, ()) for position in range(length)]
    sequence = isinstance(node, tuple) and not hasattr(node, "_fields")
    if isinstance(node, Mapping) or (_hasfields(node) and not found):
        return found
    return tuple(found.values()) if sequence or list(found) == [*range(len(found))] else found


def _hasfields(node: object) -> bool:
    return hasattr(node, "_fields") or dataclasses.is_dataclass(node) or kind(node).attributes


def _islist(node: object) -> bool:
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(node, nnx.List)
