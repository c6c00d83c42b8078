"""Nodes of a tree: their children, their parameters, and what each framework means by them."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from functools import singledispatch
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.tree_util import tree_flatten_with_path

from .._errors import ModelError
from .frameworks import loaded

Key: TypeAlias = Any  # a key entry of JAX: DictKey, SequenceKey, GetAttrKey, FlattenedIndexKey
Entries: TypeAlias = list[tuple[Key, Any]]


class NodeKind(NamedTuple):
    """The meaning of a type of node.

    Attributes:
      box: it wraps one value and adds nothing to the path.
      reference: its identity matters, so that a node that occurs twice is tied.
      hidden: it is bookkeeping of a framework, which is rebuilt but never shown.
      attributes: its static fields are the entries of `vars(node)` that are not children.
      frozen: it contains no parameters, whatever its children are.
      all_fields: its state names every static field, with `()` for one that is not basic.
      one_line: it prints on one line, although it contains layers.
    """

    box: bool = False
    reference: bool = False
    hidden: bool = False
    attributes: bool = False
    frozen: bool = False
    all_fields: bool = False
    one_line: bool = False


def kind(node: object) -> NodeKind:
    """Return the kind of a node."""
    cls = type(node)
    return _KINDS.get(cls) or _KINDS.setdefault(cls, _find_kind(cls))


def declare_kind(cls: type, kind: NodeKind) -> None:
    """Declare the kind of a type of node, which its subclasses inherit."""
    _DECLARED[cls] = kind


_KINDS: dict[type, NodeKind] = {}
_DECLARED: dict[type, NodeKind] = {}


def _find_kind(cls: type) -> NodeKind:
    """Return the kind of a type: the declared one, or that of the framework it comes from."""
    for parent in cls.__mro__:
        if parent in _DECLARED:
            return _DECLARED[parent]

    def isa(module: str, *names: str) -> bool:
        parents = (loaded(module, name) for name in names)
        return any(parent is not None and issubclass(cls, parent) for parent in parents)

    if isa("flax.nnx", "Variable"):
        return NodeKind(box=True, reference=True, frozen=not isa("flax.nnx", "Param"))
    if isa("flax.nnx.pytreelib", "PytreeState"):
        return NodeKind(hidden=True)
    if isa("flax.nnx", "Pytree", "Module"):
        return NodeKind(reference=True, attributes=True)
    return NodeKind(box=isa("flax.core.meta", "AxisMetadata"))


def entries(node: object) -> Entries | None:
    """Return the (key, child) pairs one level down, in JAX's order; None for a leaf.

    JAX asks `is_leaf` of the root first, so a predicate that is false once opens the root only.
    `y is not node` would open the root again in a model that contains itself, and
    `flatten_one_level_with_keys` gives every field of a NamedTuple the key of the first one
    (jax issue 39297, open as of JAX 0.10.2).
    """
    if node is None or isinstance(node, jax.Array | np.ndarray):
        return None
    root = iter((False,))
    pairs, _ = tree_flatten_with_path(node, is_leaf=lambda _: next(root, True))
    if len(pairs) == 1 and not pairs[0][0]:
        return None
    return [(path[0], child) for path, child in pairs]


def key_name(key: Key) -> Hashable:
    """Return the value of a key entry: the name of a field, a dict key or an index."""
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return getattr(key, attribute)  # type: ignore[no-any-return]
    return str(key)


def children(node: object, /) -> dict[Any, Any]:
    """Return the children of a node, one level down, by name, key or index.

    Args:
      node: any pytree node, or a leaf.

    Returns:
      A dict in JAX's order. Its keys are field names for dataclasses and modules, dict keys for
      dicts, and indices for sequences. It is empty for a leaf.

    Example:
      >>> children({"w": 1, "b": (2, 3)})
      {'b': (2, 3), 'w': 1}
      >>> children((4, 5)), children(7)
      ({0: 4, 1: 5}, {})

    Source: `children` of Functors.jl.
    """
    try:
        pairs = entries(node) or []
    except ValueError as error:
        if isinstance(node, dict):
            raise unsorted_keys("(root)", node) from error
        raise
    return {key_name(key): child for key, child in pairs if not kind(child).hidden}


def unsorted_keys(path: str, node: Mapping[Any, Any]) -> ModelError:
    """Return the error for a dict whose keys JAX cannot sort."""
    names = sorted({type(key).__name__ for key in node})
    return ModelError(
        f"{path}: expected dict keys that sort, found keys of the types {', '.join(names)}; use "
        "keys of one type that can be compared, such as str"
    )


@singledispatch
def trainable(node: object, /) -> dict[Any, Any]:
    """Return the children of a node that may contain parameters.

    By default these are all children, except that among the variables of Flax NNX only
    `nnx.Param` contains parameters. Register a function for a type to narrow them.

    Args:
      node: a pytree node.

    Returns:
      A dict, which is a subset of `children(node)`: the same names with the same children.

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


def static_fields(node: object) -> dict[str, Any]:
    """Return the fields of a dataclass or an NNX module that are not children."""
    below = children(node)
    if isinstance(node, Mapping) or (below and all(isinstance(key, int) for key in below)):
        return {}  # without names, the fields that hold the children are unknown
    if kind(node).attributes:
        names = [field for field in vars(node) if not field.startswith(("_pytree__", "_object__"))]
    else:
        names = [field.name for field in _dataclass_fields(node)]
    return {
        field: getattr(node, field)
        for field in names
        if field not in below and hasattr(node, field)
    }


def _dataclass_fields(node: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(node) if dataclasses.is_dataclass(node) else ()


def to_basic(node: object, values: dict[Any, Any]) -> Any:
    """Return a list, tuple or dict with the structure of a node, and a value for each child.

    An entry of an NNX list that is not a child, such as a function, becomes `()`, so that the
    others keep their indices.
    """
    nnx_list = loaded("flax.nnx", "List")
    is_list = isinstance(node, list) or (nnx_list is not None and isinstance(node, nnx_list))
    if is_list and all(isinstance(key, int) for key in values):
        return [values.get(index, ()) for index in range(len(node))]  # type: ignore[arg-type]
    sequence = isinstance(node, tuple) and not hasattr(node, "_fields")
    if isinstance(node, Mapping) or (_has_fields(node) and not values):
        return values
    return tuple(values.values()) if sequence or list(values) == [*range(len(values))] else values


def _has_fields(node: object) -> bool:
    return hasattr(node, "_fields") or dataclasses.is_dataclass(node) or kind(node).attributes
