"""Variables of Flax linen with the types of their layers, recorded in an abstract call."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..._errors import ArgumentTypeError
from ..._text import plural
from ..._tree.frameworks import loaded
from ..._tree.walk import walk
from .._layouts.registry import LINEN
from .._layouts.spec import TypedLayer
from .._layouts.transforms import KeyPath
from .stages import TypedModel
from .target import array_slots, container_paths, read_model, recognise


@dataclass(frozen=True, repr=False)
class Linen:
    """The variables of a linen module and the types of its layers, from `migrate.linen`."""

    variables: Any
    layers: Mapping[str, TypedLayer]
    containers: Mapping[str, Mapping[str, KeyPath]]

    def __repr__(self) -> str:
        return f"Linen({plural(len(self.layers), 'layer')})"


def linen(module: Any, variables: Any, /, *inputs: Any, **options: Any) -> Linen:
    """Return linen's variables with the types of the layers that they belong to.

    Variables are dicts, which do not tell the types of their layers. The module is therefore
    initialised abstractly, which computes nothing, and the type of every layer that is called is
    recorded: in `setup` or `compact`, and inside `nn.scan`, `nn.vmap` and `nn.remat`.

    Args:
      module: a linen module.
      variables: its variables, `{"params": ..., "batch_stats": ...}`, concrete or abstract; None
        for abstract ones.
      inputs: the arguments of a call; `jax.ShapeDtypeStruct` is enough for arrays.
      options: the keyword arguments of the call, such as `train=False`.

    Returns:
      A `Linen`, which `migrate.convert` takes as a model or as a source.

    Raises:
      ArgumentTypeError: the module is not a module of `flax.linen`.

    Example:
      >>> import flax.linen as nn
      >>> from jtree import migrate
      >>> module = nn.Dense(2)
      >>> migrate.linen(module, None, jax.ShapeDtypeStruct((1, 3), jnp.float32))
      Linen(1 layer)

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
        keys = ("params", *node.path)
        is_method = hasattr(type(node), context.method_name)  # not a function that linen lifts
        if is_method and not any(keys[:n] in layers for n in range(len(keys) + 1)):
            layer = recognise(node, (LINEN,), "/".join(node.path))
            if layer is not None:
                layers[keys] = layer
            elif below := container_paths(node, (LINEN,)):
                containers[keys] = below
        return call(*args, **kwargs)

    def init(*args: Any) -> Any:
        rngs = {name: jax.random.key(0) for name in ("params", "dropout")}
        return own.init(rngs, *args, **options)

    with sys.modules["flax.linen"].intercept_methods(record):
        abstract = _call(init, inputs)
    return Linen(
        abstract if variables is None else variables,
        {"/".join(keys): layer for keys, layer in layers.items()},
        {"/".join(keys): below for keys, below in containers.items()},
    )


def _call(init: Any, inputs: tuple[Any, ...]) -> Any:
    """Call a function abstractly; leaves that are not arrays, such as flags, stay as they are."""
    leaves, structure = jax.tree.flatten(inputs)
    arrays = {n: x for n, x in enumerate(leaves) if _is_abstractable(x)}

    def call(arrays: dict[int, Any]) -> Any:
        replaced = [arrays.get(n, x) for n, x in enumerate(leaves)]
        return init(*jax.tree.unflatten(structure, replaced))

    try:
        return jax.eval_shape(call, arrays)
    except Exception as error:  # whatever the code of the module raises
        reason = str(error).partition("\n")[0]
        raise ArgumentTypeError(
            f"linen: the module cannot be called with {plural(len(inputs), 'input')}; pass "
            "those of module.init after its key, as migrate.linen(module, variables, *inputs): "
            f"{type(error).__name__}: {reason}"
        ) from error


def _is_abstractable(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "dtype") and not isinstance(x, np.generic)


@read_model.register
def _(model: Linen) -> TypedModel:
    walked = walk(model.variables)
    paths = [slot.path for slot in array_slots(walked)]
    own = ("params/", "batch_stats/")
    optional = frozenset(path for path in paths if not path.startswith(own))
    names = {path: path for path in paths}
    return TypedModel(walked, LINEN, model.layers, model.containers, names, optional)
