"""How layers are described: their kind, the arrays that a framework stores, and its types."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from ..._tree.nodes import loaded
from .transforms import VECTOR, Transform

KeyPath: TypeAlias = tuple[str, ...]  # a path as its segments
FieldReader: TypeAlias = Callable[[Any], dict[str, Any]]


class ArraySpec(NamedTuple):
    """One array that a framework stores for a layer.

    Attributes:
      path: where it is below the layer.
      canonical: the names of the canonical arrays in it; several are packed one after another.
      transform: the transform between it, or each array packed in it, and the canonical layout.
      axis: the axis along which several arrays are packed.
      rows: the number of rows that the packed arrays are spread over; 0 where there are none.
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
    """A type of layer of a framework.

    Attributes:
      kind: the kind of layer, such as `"dense"`.
      spec: the arrays that it stores.
      options: reads from a layer what its transforms depend on.
      settings: reads from a layer what its weights do not tell, such as epsilon.
      accepts: whether a layer of this type is of this kind.
    """

    kind: str
    spec: LayerSpec
    options: FieldReader = lambda _: {}
    settings: FieldReader = lambda _: {}
    accepts: Callable[[Any], bool] = lambda _: True


class FrameworkLayout(NamedTuple):
    """How a framework stores layers.

    Attributes:
      name: the name of the layout in `convert`.
      separator: what joins the keys of its paths.
      specs: the arrays of each kind of layer.
      types: its types of layers, by module and name.
      containers: keys below containers that other frameworks lack, and what replaces them.
      defaults: the settings that layers have unless they are given others.
      substitutions: regular expressions for parts of paths, and what replaces each.
      channels_first: whether the channels of a flattened image come first.
    """

    name: str
    separator: str
    specs: Mapping[str, LayerSpec]
    types: Mapping[tuple[str, str], LayerType] = {}
    containers: Mapping[tuple[str, str], Mapping[str, KeyPath]] = {}
    defaults: Mapping[str, Mapping[str, Any]] = {}
    substitutions: Sequence[tuple[str, str]] = ()
    channels_first: bool = False

    def key_path(self, name: str) -> KeyPath:
        """Return a name as its keys; numbers at the end of a name are keys, as list indices are.

        >>> from jtree.migrate._layouts.registry import TORCH, LINEN
        >>> TORCH.key_path("blocks.10.fc.weight"), LINEN.key_path("blocks_10/fc")
        (('blocks', '10', 'fc', 'weight'), ('blocks', '10', 'fc'))
        """
        path = name.replace(self.separator, "/")
        for pattern, replacement in self.substitutions:
            path = re.sub(pattern, replacement, path)
        keys = (key for key in path.split("/") if key not in ("", "~"))
        return tuple(part for key in keys for part in _split_number(key))


_NUMBERED = re.compile(r"(.*?[A-Za-z0-9])((?:_(?:\d+|\*))+)")


def _split_number(key: str) -> KeyPath:
    match = _NUMBERED.fullmatch(key)
    return (match[1], *match[2][1:].split("_")) if match else (key,)


@dataclass(frozen=True)
class TypedLayer:
    """A layer of a model, known by its type."""

    kind: str
    layout: FrameworkLayout
    spec: LayerSpec
    type: str = ""
    path: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def recognise(node: Any, layouts: tuple[FrameworkLayout, ...], path: str = "") -> TypedLayer | None:
    """Return the layer that a node is by the nearest of its types that a layout lists, or None."""
    for cls in type(node).__mro__[:-1]:
        for layout in layouts:
            for (module, name), known in layout.types.items():
                if loaded(module, name) is cls and known.accepts(node):
                    return TypedLayer(
                        known.kind,
                        layout,
                        known.spec,
                        type(node).__name__,
                        path,
                        known.options(node),
                        known.settings(node),
                    )
    return None


def container_paths(node: Any, layouts: tuple[FrameworkLayout, ...]) -> Mapping[str, KeyPath]:
    """Return what replaces the keys below a container in frameworks that lack it."""
    for layout in layouts:
        for (module, name), replacements in layout.containers.items():
            cls = loaded(module, name)
            if cls is not None and isinstance(node, cls):
                return replacements
    return {}


def read_fields(**fields: str) -> FieldReader:
    """Return a function that reads fields of a node: our name for each, and the node's."""
    return lambda node: {name: getattr(node, field, None) for name, field in fields.items()}


def no_max_norm(_: Any) -> dict[str, Any]:
    """Return the settings of an embedding whose rows may have any norm, as outside of PyTorch."""
    return {"max_norm": False}
