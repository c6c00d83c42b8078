"""JAX models, nested and flat: vectors, states and checkpoints, with nothing lost on the way.

Vectors:      destructure, Restructure
Queries:      trainables, count, modules, children, trainable, isnumeric, walk, Walk, Slot
Summaries:    summary, Summary, outputsize
Precision:    f16, bf16, f32, f64
Loading:      state, loadmodel, diff, Diff
Checkpoints:  save, save_async, load, open, verify, Checkpoint, Manager,
              Saving, from_flux
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

if TYPE_CHECKING:
    from . import callbacks, curvature, init, layers, migrate, plot
    from ._api import (
        Checkpoint,
        Diff,
        Manager,
        Restructure,
        Saving,
        Slot,
        Summary,
        Walk,
        bf16,
        children,
        count,
        destructure,
        diff,
        f16,
        f32,
        f64,
        from_flux,
        isnumeric,
        load,
        loadmodel,
        modules,
        open,
        save,
        save_async,
        state,
        summary,
        trainable,
        trainables,
        verify,
        walk,
    )
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
    "from_flux",
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

_MODULES = ("callbacks", "checkpoint", "curvature", "demo", "init", "layers", "migrate", "plot")


def __getattr__(name: str) -> Any:
    """Import the public names when the first of them is used, and each of the modules by itself.

    The command answers `jtree --version` without importing JAX.
    """
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = ".layers" if name == "outputsize" else "._api"
    globals()[name] = getattr(import_module(module, __name__), name)
    return globals()[name]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


publish(globals())
