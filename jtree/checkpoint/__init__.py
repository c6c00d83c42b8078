"""Checkpoints: states on disk, written and read through Orbax."""

from .._public import publish
from ._checkpoint import Checkpoint, open
from ._compare import Difference, differences
from ._export import save_as
from ._load import load, verify
from ._save import Saving, save, save_async
from ._stats import Stats, stats

__all__ = [
    "Checkpoint",
    "Difference",
    "Saving",
    "Stats",
    "differences",
    "load",
    "open",
    "save",
    "save_as",
    "save_async",
    "stats",
    "verify",
]

publish(globals())
