"""What is known of a layer: its kind, how its framework stores it, and what its type says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from ..._tree.nodes import loaded
from .transforms import VECTOR, Transform

KeyPath: TypeAlias = tuple[str, ...]  # a path, step by step
FieldReader: TypeAlias = Callable[[Any], dict[str, Any]]


class ArraySpec(NamedTuple):
    """One array that a framework stores for a layer.

    Attributes:
      path: where it is below the layer.
      canonical: what it is in the common form; several are packed one after another.
      transform: its way there, and back.
      axis: along which it is packed.
      rows: how many rows the packed arrays are in; 0 where they are in none.
    """

    path: str
    canonical: tuple[str, ...]
    transform: Transform = VECTOR
    axis: int = 0
    rows: int = 0

    @property
    def key_path(self) -> KeyPath:
        """The keys of its path below the layer."""
        return tuple(self.path.split("/"))


LayerSpec: TypeAlias = tuple[ArraySpec, ...]


class LayerType(NamedTuple):
    """What a type of layer is: its kind, and how to read its fields."""

    kind: str
    spec: LayerSpec
    options: FieldReader = lambda _: {}
    settings: FieldReader = lambda _: {}
    accepts: Callable[[Any], bool] = lambda _: True  # whether a node of the type is of the kind


class FrameworkLayout(NamedTuple):
    """How a framework stores layers.

    Attributes:
      name: what it is called in `convert`.
      separator: what is between the steps of its names.
      specs: the arrays of each kind of layer.
      types: what each type of layer is, by module and name.
      containers: steps of containers that other frameworks do not have, and what replaces them.
      defaults: the settings that layers have unless they are told others.
      split: names of arrays that hold more than a name, as steps.
      channels_first: whether a flattened image has its channels first.
    """

    name: str
    separator: str
    specs: Mapping[str, LayerSpec]
    types: Mapping[tuple[str, str], LayerType] = {}
    containers: Mapping[tuple[str, str], Mapping[str, KeyPath]] = {}
    defaults: Mapping[str, Mapping[str, Any]] = {}
    split: Callable[[KeyPath], KeyPath] = lambda steps: steps
    channels_first: bool = False


@dataclass(frozen=True)
class TypedLayer:
    """A layer of a model."""

    kind: str
    layout: FrameworkLayout
    spec: LayerSpec
    type: str = ""
    name: str = ""  # its path, as users know it
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def canonical(self) -> set[str]:
        """What the layer may hold, in the common form."""
        return {canonical_name for part in self.spec for canonical_name in part.canonical}


def recognise(node: Any, layouts: tuple[FrameworkLayout, ...], path: str = "") -> TypedLayer | None:
    """Return what a node is: the layer of the nearest of its types that a table names."""
    for cls in type(node).__mro__[:-1]:
        for layout in layouts:
            for (module, name), recipe in layout.types.items():
                if loaded(module, name) is cls and recipe.accepts(node):
                    options, settings = recipe.options(node), recipe.settings(node)
                    called = type(node).__name__, path
                    return TypedLayer(recipe.kind, layout, recipe.spec, *called, options, settings)
    return None


def container_paths(node: Any, layouts: tuple[FrameworkLayout, ...]) -> Mapping[str, KeyPath]:
    """Return what replaces the steps below a container in other frameworks."""
    for layout in layouts:
        for (module, name), steps in layout.containers.items():
            found = loaded(module, name)
            if found is not None and isinstance(node, found):
                return steps
    return {}


def read_fields(**names: str) -> FieldReader:
    """Return a function that reads fields of a node, by what they are called here."""
    return lambda node: {ours: getattr(node, theirs, None) for ours, theirs in names.items()}


def no_max_norm(_: Any) -> dict[str, Any]:
    """Return the settings of embeddings whose rows may be of any length, as outside of PyTorch."""
    return {"max_norm": False}


def per_axis(x: Any, dims: int) -> tuple[int, ...]:
    """Return one number for each axis of a window."""
    if x is None:
        return (1,) * dims
    return (x,) * dims if isinstance(x, int) else tuple(x)


def conv_settings(
    size: Any, *, stride: Any = 1, dilation: Any = 1, padding: Any = 0, groups: int = 1
) -> dict[str, Any]:
    """Return the settings of a convolution in one form for all frameworks."""
    dims = len(size)
    steps, spread = per_axis(stride, dims), per_axis(dilation, dims)
    pads = _pads(padding, size, spread, math.prod(steps) > 1)
    return {"strides": steps, "dilation": spread, "padding": pads, "groups": groups}


def conv_transpose_settings(
    size: Any, pads: Any, *, stride: Any = 1, dilation: Any = 1
) -> dict[str, Any]:
    """Return the settings of a transposed convolution: the padding is that of the spread input."""
    dims = len(size)
    steps, spread = per_axis(stride, dims), per_axis(dilation, dims)
    sizes = [d * (n - 1) + 1 for d, n in zip(spread, size, strict=True)]
    if isinstance(pads, str) and pads.upper() in ("SAME", "VALID"):
        pads = [_spread(pads.upper(), n, step) for n, step in zip(sizes, steps, strict=True)]
    if not isinstance(pads, str):
        found = (pads,) * dims if isinstance(pads, int) else pads
        pads = tuple((x, x) if isinstance(x, int) else tuple(x) for x in found)
    return {"strides": steps, "dilation": spread, "padding": pads}


def _spread(name: str, size: int, step: int) -> tuple[int, int]:
    """Return what `jax.lax.conv_transpose` pads for a name."""
    if name == "VALID":
        return size - 1, step - 1 + max(size - step, 0)
    total = size + step - 2
    before = size - 1 if step > size - 1 else -(-total // 2)
    return before, total - before


def transposed_conv_padding(size: Any, padding: Any, extra: Any, dilation: Any) -> Any:
    """Return what a transposed convolution pads, from the padding of the one it turns back."""
    if isinstance(padding, str):
        return padding
    dims = len(size)
    found = (padding,) * dims if isinstance(padding, int) else padding
    pairs = [(x, x) if isinstance(x, int) else tuple(x) for x in found]
    each = zip(size, pairs, per_axis(extra, dims), per_axis(dilation, dims), strict=True)
    return tuple((d * (n - 1) - a, d * (n - 1) - b + e) for n, (a, b), e, d in each)


def _pads(padding: Any, size: Any, dilation: tuple[int, ...], strided: bool) -> Any:
    """Return a pair for each axis, unless it depends on the input."""
    if isinstance(padding, str):
        name = padding.upper()
        if name == "VALID" or (name in ("SAME", "CAUSAL") and all(n == 1 for n in size)):
            return ((0, 0),) * len(size)
        if name != "SAME" or strided:
            return name
        totals = [d * (n - 1) for d, n in zip(dilation, size, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    found = (padding,) * len(size) if isinstance(padding, int) else padding
    return tuple((x, x) if isinstance(x, int) else tuple(x) for x in found)
