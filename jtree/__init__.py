"""JAX models, nested and flat: vectors, states and checkpoints, with nothing lost on the way.

One vector:      destructure, Restructure
What is in it:   trainables, modules, children, count, isnumeric, trainable, walk
Printed:         summary, Summary
Precision:       f16, bf16, f32, f64
Numbers across:  state, loadmodel, diff, Diff
Files:           save, save_async, save_as, load, open, verify, Checkpoint, Saving
Shapes:          outputsize
Second order:    curvature
Modules:         layers, init, callbacks, migrate
Pictures:        plot
Errors:          JtreeError, and those that derive from it
"""

from typing import TYPE_CHECKING, Any

from ._errors import ArgumentError as ArgumentError
from ._errors import ArgumentTypeError as ArgumentTypeError
from ._errors import CheckpointError as CheckpointError
from ._errors import ChecksumError as ChecksumError
from ._errors import CurvatureError as CurvatureError
from ._errors import DeletedArrayError as DeletedArrayError
from ._errors import ExtraError as ExtraError
from ._errors import JtreeError as JtreeError
from ._errors import LoadError as LoadError
from ._errors import ModelError as ModelError
from ._errors import PathError as PathError
from ._errors import RuleError as RuleError
from ._errors import VectorError as VectorError
from ._errors import VectorTypeError as VectorTypeError
from ._state.diff import Diff as Diff
from ._state.load import diff as diff
from ._state.load import loadmodel as loadmodel
from ._state.load import state as state
from ._summary.summary import Summary as Summary
from ._summary.summary import summary as summary
from ._tree.cast import bf16 as bf16
from ._tree.cast import f16 as f16
from ._tree.cast import f32 as f32
from ._tree.cast import f64 as f64
from ._tree.leaves import isnumeric as isnumeric
from ._tree.nodes import children as children
from ._tree.nodes import trainable as trainable
from ._tree.query import count as count
from ._tree.query import modules as modules
from ._tree.query import trainables as trainables
from ._tree.walk import walk as walk
from ._vector.destructure import destructure as destructure
from ._vector.restructure import Restructure as Restructure
from .checkpoint import Checkpoint as Checkpoint
from .checkpoint import Saving as Saving
from .checkpoint import load as load
from .checkpoint import open as open
from .checkpoint import save as save
from .checkpoint import save_as as save_as
from .checkpoint import save_async as save_async
from .checkpoint import verify as verify
from .layers._outputsize import outputsize as outputsize

if TYPE_CHECKING:
    from . import callbacks as callbacks
    from . import curvature as curvature
    from . import init as init
    from . import layers as layers
    from . import migrate as migrate
    from . import plot as plot

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the modules that not everybody needs when they are first asked for."""
    if name in ("callbacks", "curvature", "init", "layers", "migrate", "plot"):
        from importlib import import_module

        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
