"""Models as nested basic containers: `state`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ModelError
from .._tree.leaves import BASIC, isarray
from .._tree.nodes import kind, static_fields, to_basic
from .._tree.opaque import check_opened
from .._tree.walk import walk


def state(x: Any, /) -> Any:
    """Return the same nested structure in basic containers only.

    Named fields become a dict, sequences become a list or a tuple, and a box around one array
    becomes the array. Arrays are kept as they are, and so are bool, int, float, complex, str, bytes
    and None. Static fields of dataclasses, Equinox and NNX modules are included if they consist of
    these. Any other leaf, such as a function or a dtype, becomes `()`.

    Args:
      x: any pytree.

    Returns:
      Nested dicts, lists and tuples, such that `loadmodel(model, state(model))` is the model.

    Raises:
      ModelError: the tree cannot be walked, or arrays are in an object that JAX does not open.

    Example:
      >>> state({"layers": [(jnp.ones(1), jnp.tanh)], "rate": 0.1})
      {'layers': [(Array([1.], dtype=float32), ())], 'rate': 0.1}

    Source: `state` of Flux.jl.
    """
    return check_opened(walk(x)).check().fold(_leaf_state, _node_state)


def ordered_state(x: Any, /) -> Any:
    """Return the state, with the keys of each dict in the order of `x`, which JAX sorts."""
    return check_opened(walk(x)).check().fold(_leaf_state, _ordered_node_state)


def _ordered_node_state(node: Any, names: list[Any], results: list[Any]) -> Any:
    values = _node_state(node, names, results)
    return {key: values[key] for key in node} if type(node) is dict else values


def _leaf_state(leaf: Any) -> Any:
    return leaf if isarray(leaf) or isinstance(leaf, (*BASIC, np.generic)) else ()


def _node_state(node: Any, names: list[Any], results: list[Any]) -> Any:
    children = dict(zip(names, results, strict=True))
    if type(node) is dict:
        return children
    if kind(node).hidden:
        return _HIDDEN
    if kind(node).box:
        return results[0] if results else ()
    values = to_basic(node, {name: x for name, x in children.items() if x is not _HIDDEN})
    if not isinstance(values, dict):
        return values
    fields = {name: (x, _isbasic(x)) for name, x in static_fields(node).items()}
    return values | {
        name: state(x) if basic else ()
        for name, (x, basic) in fields.items()
        if basic or kind(node).all_fields
    }


_HIDDEN = object()


def _isbasic(x: Any) -> bool:
    """Return whether a static field consists of basic leaves and containers only."""
    if not isinstance(x, (*BASIC, dict, list, tuple)):
        return False
    try:
        walked = walk(x)
    except ModelError:  # a static field may be a dict that no model may contain
        return False
    leaves = all(type(slot.value) in BASIC for slot in walked.slots)
    return leaves and all(isinstance(node, dict | list | tuple) for _, node in walked.nodes)
