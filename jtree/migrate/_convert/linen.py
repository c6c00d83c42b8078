"""Which layers linen's variables belong to: recorded while the module is traced."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from ..._errors import ArgumentTypeError
from ..._tree.leaves import isarray
from ..._tree.nodes import loaded
from ..._tree.walk import walk
from .._layouts.registry import LINEN
from .._layouts.spec import KeyPath, TypedLayer, container_paths, recognise
from .names import key_path
from .target import Model, unique


@dataclass(frozen=True, repr=False)
class Linen:
    """Variables of a linen module, and the types of its layers; made by `migrate.linen`."""

    variables: Any
    layers: Mapping[KeyPath, TypedLayer]
    containers: Mapping[KeyPath, Mapping[str, KeyPath]]

    def __repr__(self) -> str:
        return f"Linen({len(self.layers)} layers)"


def linen(module: Any, variables: Any, /, *inputs: Any, **options: Any) -> Linen:
    """Return linen's variables with the types of the layers that they belong to.

    Variables are dicts, which do not say what their arrays are for. So the module is initialised
    abstractly, which computes nothing, and every layer that is called is recorded at its path:
    with `setup` or `compact`, in `nn.scan`, `nn.vmap` and `nn.remat`.

    Args:
      module: a linen module.
      variables: its variables, `{"params": ..., "batch_stats": ...}`, abstract ones too; None for
        abstract ones.
      inputs: what the module is called with; shapes and dtypes are enough
        (`jax.ShapeDtypeStruct`).
      options: keyword arguments of the call, such as `train=False`.

    Returns:
      A `Linen`, as a model or as a source for `migrate.convert`.

    Raises:
      ArgumentTypeError: the module is none of linen's.

    Example:
      >>> import flax.linen as nn
      >>> from jtree import migrate
      >>> module = nn.Dense(2)
      >>> migrate.linen(module, None, jax.ShapeDtypeStruct((1, 3), jnp.float32))
      Linen(1 layers)

    Source: `flax.linen.intercept_methods`.
    """
    cls = loaded("flax.linen", "Module")
    if cls is None or not isinstance(module, cls):
        raise ArgumentTypeError(
            f"linen: expected a module of flax.linen, found {type(module).__name__}"
        )
    layers: dict[KeyPath, TypedLayer] = {}
    containers: dict[KeyPath, Mapping[str, KeyPath]] = {}

    own: Any = module

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        node = context.module
        path = key_path("/".join(("params", *node.path)), LINEN)
        called = hasattr(type(node), context.method_name)  # not a function that linen lifts
        if called and not any(path[:n] in layers for n in range(len(path) + 1)):
            found = recognise(node, (LINEN,), "/".join(node.path))
            if found is not None:
                layers[path] = found
            elif inner := container_paths(node, (LINEN,)):
                containers[path] = inner
        return call(*args, **kwargs)

    def init(*args: Any) -> Any:
        keys = {name: jax.random.key(0) for name in ("params", "dropout")}
        return own.init(keys, *args, **options)

    with sys.modules["flax.linen"].intercept_methods(record):
        abstract = jax.eval_shape(init, *inputs)
    return Linen(abstract if variables is None else variables, layers, containers)


def model_of_linen(found: Linen) -> Model:
    """Return where the arrays of linen's variables are."""
    slots = [slot for slot in walk(found.variables).slots if isarray(slot.value)]
    places = unique((key_path(slot.path, LINEN), slot.path) for slot in slots)
    own = ("params/", "batch_stats/")
    optional = frozenset(slot.path for slot in slots if not slot.path.startswith(own))
    return Model(found.variables, dict(found.layers), places, optional, dict(found.containers))
