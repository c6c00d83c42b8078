"""The framework layouts by name."""

from __future__ import annotations

from .equinox import EQUINOX as EQUINOX
from .flax import LINEN as LINEN
from .flax import NNX as NNX
from .flux import FLUX as FLUX
from .haiku import HAIKU as HAIKU
from .jtree import JTREE as JTREE
from .keras import KERAS as KERAS
from .torch import TORCH as TORCH

LAYOUTS = {x.name: x for x in (TORCH, LINEN, NNX, EQUINOX, JTREE, HAIKU, KERAS, FLUX)}
MODULES = (NNX, EQUINOX, JTREE)  # the layouts whose models are pytrees of modules
