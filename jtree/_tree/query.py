"""Queries on a model: its parameters, their number, its modules."""

from __future__ import annotations

import math
from typing import Any, Literal, overload

from .._arguments import check_flag
from .leaves import isarray
from .nodes import kind
from .opaque import check_opened
from .ties import Ties
from .walk import walk


def trainables(model: Any, /, *, ties: Ties = "references") -> dict[str, Any]:
    """Return the parameters of a model by path; a tied parameter has the path of its first leaf.

    Args:
      model: any pytree.
      ties: which leaves are one parameter; see `jtree.destructure`.

    Returns:
      A dict from paths to arrays, in JAX's leaf order. It can be differentiated through.

    Raises:
      ModelError: the model cannot be walked; the message says where and why.

    Example:
      >>> import jax.numpy as jnp
      >>> list(trainables({"w": jnp.ones(2), "steps": jnp.arange(3), "b": jnp.zeros(2)}))
      ['b', 'w']

    Source: `trainables` of Optimisers.jl.
    """
    slots = check_opened(walk(model, ties=ties)).slots
    return {
        slot.path: slot.value
        for index, slot in enumerate(slots)
        if slot.trainable and slot.tie == index
    }


def count(model: Any, /, *, ties: Ties = "references") -> int:
    """Return the number of trainable elements in a model, counting tied parameters once.

    Args:
      model: any pytree, which may be abstract.
      ties: which leaves are one parameter; see `jtree.destructure`.

    Returns:
      An int: the length of the vector that `destructure` returns for the model.

    Example:
      >>> import jax.numpy as jnp
      >>> count({"w": jnp.ones((2, 3)), "b": jnp.zeros(3), "step": 0})
      9
    """
    return sum(math.prod(x.shape) for x in trainables(model, ties=ties).values())


@overload
def modules(model: Any, /, *, path: Literal[False] = False) -> list[Any]: ...
@overload
def modules(model: Any, /, *, path: Literal[True]) -> list[tuple[str, Any]]: ...
def modules(model: Any, /, *, path: bool = False) -> list[Any] | list[tuple[str, Any]]:
    """Return the inner nodes of a model, the root first, depth first, each object once.

    Tuples of arrays or scalars are left out, and so are boxes around one array such as
    `nnx.Variable`. The nodes hold the model's own arrays, so they can be differentiated through.

    Args:
      model: any pytree.
      path: whether to return (path, node) pairs.

    Returns:
      A list of nodes, or of (path, node) pairs.

    Example:
      >>> modules({"layers": [{"w": 1.0}], "stride": (1, 1)})
      [{'layers': [{'w': 1.0}], 'stride': (1, 1)}, [{'w': 1.0}], {'w': 1.0}]
      >>> [path for path, _ in modules({"layers": [{"w": 1.0}]}, path=True)]
      ['', 'layers', 'layers/0']

    Source: `modules` of Flux.jl.
    """
    check_flag("path", path)
    pairs: dict[int, tuple[str, Any]] = {}
    for node_path, node in walk(model).nodes:
        if _ismodule(node):
            pairs.setdefault(id(node), (node_path, node))
    return list(pairs.values()) if path else [node for _, node in pairs.values()]


def _ismodule(node: Any) -> bool:
    scalars = type(node) is tuple and all(
        isarray(x) or isinstance(x, complex | float | int) for x in node
    )
    return not scalars and not kind(node).box
