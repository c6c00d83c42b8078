"""Descriptions of the layers of a framework: kinds, types, settings and containers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .fields import FieldReader, read_fields
from .transforms import KeyPath, LayerSpec


class LayerType(NamedTuple):
    """A type of layer of a framework.

    Attributes:
      kind: the kind of layer, such as `"dense"`.
      spec: the arrays that it stores.
      options: reads from a layer what its transforms depend on.
      settings: reads from a layer what its weights do not tell, such as epsilon.
      accepts: whether a layer of this type is of this kind; None if all are.
    """

    kind: str
    spec: LayerSpec
    options: FieldReader = read_fields()
    settings: FieldReader = read_fields()
    accepts: Callable[[Any], bool] | None = None


class FrameworkLayout(NamedTuple):
    """The storage of layers in a framework.

    Attributes:
      name: the name of the layout in `convert`.
      separator: what joins the keys of its paths.
      specs: the arrays of each kind of layer.
      types: its types of layers, by module and name.
      containers: keys below containers that other frameworks lack, and what replaces them.
      defaults: the settings that layers have unless they are given others.
      substitutions: regular expressions for parts of paths, and what replaces each.
      channels_first: whether the channels of a flattened image come first.
      notes: for a kind of layer, what the report of a conversion says about it.
    """

    name: str
    separator: str
    specs: Mapping[str, LayerSpec]
    types: Mapping[tuple[str, str], LayerType] = {}
    containers: Mapping[tuple[str, str], Mapping[str, KeyPath]] = {}
    defaults: Mapping[str, Mapping[str, Any]] = {}
    substitutions: Sequence[tuple[str, str]] = ()
    channels_first: bool = False
    notes: Mapping[str, str] = {}


@dataclass(frozen=True)
class TypedLayer:
    """A layer of a model, known by its type.

    The type overrides the call of `base`, unless that is empty: what it computes is unknown.
    """

    kind: str
    layout: FrameworkLayout
    spec: LayerSpec
    type: str = ""
    path: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    guessed: bool = False  # whether the type is guessed from names, and yields to the model's
    base: str = ""
