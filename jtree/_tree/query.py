"""What is in a model: its parameters, its modules, how many numbers it has."""

from __future__ import annotations

import math
from typing import Any, Literal, overload

from .leaves import isarray
from .nodes import kind
from .ties import Ties
from .walk import walk


def trainables(model: Any, /, *, ties: Ties = "references") -> dict[str, Any]:
    """Return the parameters of a model by path, a tied one once, under its first path.

    Args:
      model: any pytree.
      ties: which parameters are one; see `jtree.destructure`.

    Returns:
      A dict from paths to arrays, in JAX's leaf order. It is a pytree: differentiate through it.

    Raises:
      ModelError: the model cannot be walked; the message says where and why.

    Example:
      >>> import jax.numpy as jnp
      >>> list(trainables({"w": jnp.ones(2), "steps": jnp.arange(3), "b": jnp.zeros(2)}))
      ['b', 'w']

    Source: `trainables` of Optimisers.jl.
    """
    slots = walk(model, ties=ties).slots
    return {
        slot.path: slot.value
        for number, slot in enumerate(slots)
        if slot.trainable and slot.tie == number
    }


def count(model: Any, /, *, ties: Ties = "references") -> int:
    """Return the number of trainable numbers in a model, tied ones counted once.

    Args:
      model: any pytree, abstract ones included.
      ties: which parameters are one; see `jtree.destructure`.

    Returns:
      An int: the length of the vector that `destructure` makes of the model.

    Example:
      >>> import jax.numpy as jnp
      >>> count({"w": jnp.ones((2, 3)), "b": jnp.zeros(3), "step": 0})
      9
    """
    slots = walk(model, ties=ties).slots
    return sum(
        math.prod(slot.value.shape)
        for number, slot in enumerate(slots)
        if slot.trainable and slot.tie == number
    )


@overload
def modules(model: Any, /, *, path: Literal[False] = False) -> list[Any]: ...
@overload
def modules(model: Any, /, *, path: Literal[True]) -> list[tuple[str, Any]]: ...
def modules(model: Any, /, *, path: bool = False) -> list[Any] | list[tuple[str, Any]]:
    """Return the inner nodes of a model, the root first, depth first, each object once.

    Tuples of arrays or numbers do not count, nor do boxes around one array such as
    `nnx.Variable`. What is returned holds arrays that can be differentiated.

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
    found: dict[int, tuple[str, Any]] = {}
    for where, node in walk(model).nodes:
        if _ismodule(node):
            found.setdefault(id(node), (where, node))
    return list(found.values()) if path else [node for _, node in found.values()]


def _ismodule(node: Any) -> bool:
    numbers = type(node) is tuple and all(
        isarray(x) or isinstance(x, complex | float | int) for x in node
    )
    return not numbers and not kind(node).box
