"""The framework layouts by name."""

from __future__ import annotations

from ..._errors import ArgumentError, did_you_mean
from .equinox import EQUINOX as EQUINOX
from .flax import LINEN as LINEN
from .flax import NNX as NNX
from .haiku import HAIKU as HAIKU
from .jtree import JTREE as JTREE
from .keras import KERAS as KERAS
from .spec import FrameworkLayout
from .torch import TORCH as TORCH

LAYOUTS = {x.name: x for x in (TORCH, LINEN, NNX, EQUINOX, JTREE, HAIKU, KERAS)}
MODULES = (NNX, EQUINOX, JTREE)  # the layouts whose models are pytrees of modules


def framework_layout(name: object) -> FrameworkLayout:
    """Return the layout of a name, or refuse a name that no layout has."""
    if not isinstance(name, str) or name not in LAYOUTS:
        raise ArgumentError(
            f"layout: expected one of {', '.join(LAYOUTS)}, found {name!r}"
            + did_you_mean(str(name), LAYOUTS)
        )
    return LAYOUTS[name]
