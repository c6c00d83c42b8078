"""Checkpoints: states on disk, written and read through Orbax."""

from ._checkpoint import Checkpoint as Checkpoint
from ._checkpoint import open as open
from ._compare import Difference as Difference
from ._compare import differences as differences
from ._export import save_as as save_as
from ._load import load as load
from ._load import verify as verify
from ._save import Saving as Saving
from ._save import save as save
from ._save import save_async as save_async
from ._stats import Stats as Stats
from ._stats import stats as stats
