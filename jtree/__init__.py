"""JAX models, nested and flat: vectors, states and checkpoints, with nothing lost on the way.

Vectors:      destructure, Restructure
Queries:      trainables, count, modules, children, trainable, isnumeric, walk, Walk, Slot
Summaries:    summary, Summary, outputsize
Precision:    f16, bf16, f32, f64
Loading:      state, loadmodel, diff, Diff
Checkpoints:  save, save_async, load, open, verify, Checkpoint, Manager,
              Saving
Modules:      callbacks, curvature, init, layers, migrate, plot
Errors:       JtreeError and its subclasses
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._errors import (
    ArgumentError,
    ArgumentTypeError,
    CheckpointError,
    ChecksumError,
    CurvatureError,
    DeletedArrayError,
    ExtraError,
    JtreeError,
    LoadError,
    ModelError,
    PathError,
    RuleError,
    VectorError,
    VectorTypeError,
)
from ._public import publish
from ._state.diff import diff
from ._state.load import loadmodel
from ._state.mismatch import Diff
from ._state.state import state
from ._summary.summary import Summary, summary
from ._tree.cast import bf16, f16, f32, f64
from ._tree.leaves import isnumeric
from ._tree.nodes import children, trainable
from ._tree.query import count, modules, trainables
from ._tree.ties import Slot
from ._tree.walk import Walk, walk
from ._vector.destructure import destructure
from ._vector.restructure import Restructure
from .checkpoint import Checkpoint, Manager, Saving, load, open, save, save_async, verify

if TYPE_CHECKING:
    from . import callbacks, curvature, init, layers, migrate, plot
    from .layers import outputsize

__version__ = "0.1.0"
__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "Checkpoint",
    "CheckpointError",
    "ChecksumError",
    "CurvatureError",
    "DeletedArrayError",
    "Diff",
    "ExtraError",
    "JtreeError",
    "LoadError",
    "Manager",
    "ModelError",
    "PathError",
    "Restructure",
    "RuleError",
    "Saving",
    "Slot",
    "Summary",
    "VectorError",
    "VectorTypeError",
    "Walk",
    "bf16",
    "callbacks",
    "children",
    "count",
    "curvature",
    "destructure",
    "diff",
    "f16",
    "f32",
    "f64",
    "init",
    "isnumeric",
    "layers",
    "load",
    "loadmodel",
    "migrate",
    "modules",
    "open",
    "outputsize",
    "plot",
    "save",
    "save_async",
    "state",
    "summary",
    "trainable",
    "trainables",
    "verify",
    "walk",
]

_MODULES = ("callbacks", "curvature", "init", "layers", "migrate", "plot")


def __getattr__(name: str) -> Any:
    """Import the modules that not every program needs when they are first used."""
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name == "outputsize":
        return import_module(".layers", __name__).outputsize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


publish(globals())
