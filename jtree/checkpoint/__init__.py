"""Checkpoints: states on disk, written and read through Orbax."""

from ._orbax import load as load
from ._orbax import save as save
