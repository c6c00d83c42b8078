"""Checkpoints: states on disk, through Orbax or in files of other libraries."""

from .._public import publish
from ._background import Saving
from ._checkpoint import Checkpoint
from ._load import load
from ._manager import Manager
from ._open import open
from ._save import save, save_async
from ._stats import Stats, stats
from ._verify import verify

__all__ = [
    "Checkpoint",
    "Manager",
    "Saving",
    "Stats",
    "load",
    "open",
    "save",
    "save_async",
    "stats",
    "verify",
]

publish(globals())
