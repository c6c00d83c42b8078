"""The public names of jtree, which are imported together when the first of them is used."""

from ._public import publish
from ._state.diff import diff as diff
from ._state.load import loadmodel as loadmodel
from ._state.mismatch import Diff as Diff
from ._state.state import state as state
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
from ._tree.ties import Slot as Slot
from ._tree.walk import Walk as Walk
from ._tree.walk import walk as walk
from ._vector.destructure import destructure as destructure
from ._vector.restructure import Restructure as Restructure
from .checkpoint._background import Saving as Saving
from .checkpoint._checkpoint import Checkpoint as Checkpoint
from .checkpoint._load import load as load
from .checkpoint._manager import Manager as Manager
from .checkpoint._open import open as open
from .checkpoint._save import save as save
from .checkpoint._save import save_async as save_async
from .checkpoint._verify import verify as verify
from .migrate._flux.from_flux import from_flux as from_flux

_NAMES = [name for name in globals() if name != "publish"]
publish({**globals(), "__name__": __package__, "__all__": _NAMES})
