"""Verification: every array of a checkpoint, read and compared with its checksum."""

from __future__ import annotations

import os
from collections.abc import Iterable

from .._arguments import check_flag
from .._errors import CheckpointError
from .._progress import progress_bar
from .._tree.lazy import LazyArray, batches, read_all
from ._checkpoint import Checkpoint
from ._open import open_checkpoint
from ._orbax.api import quiet
from ._storage.paths import as_path


def verify(path: str | os.PathLike[str], /, *, progress: bool = True) -> dict[str, str]:
    """Read all of a checkpoint, compare every checksum, and return the faults by path.

    Args:
      path: a checkpoint. One that Orbax wrote alone has no checksums: it is read only.
      progress: False shows no progress bar.

    Returns:
      A message for each faulty array, by path; empty where all is well. The path of a fault of the
      whole checkpoint is `""`.

    Raises:
      CheckpointError: nothing is at the path.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     jtree.save(f"{directory}/model", {"w": jnp.ones(2)})
      ...     jtree.verify(f"{directory}/model")
      {}
    """
    check_flag("progress", progress)
    if not as_path(path).exists():
        open_checkpoint(path)  # raises, unless a killed overwrite left the old checkpoint
    try:
        checkpoint = open_checkpoint(path, shown=False)
    except CheckpointError as error:
        return {"": str(error)}
    faults: dict[str, str] = {}
    with quiet(), progress_bar("verifying", checkpoint.nbytes, shown=progress) as bar:
        for batch in batches(set(checkpoint.values())):
            try:
                read_all((x, None) for x in batch)
            except CheckpointError:
                faults |= _read_one_by_one(checkpoint, batch)
            bar.advance(sum(x.nbytes for x in batch))
    return {path: faults[path] for path in checkpoint if path in faults}


def _read_one_by_one(checkpoint: Checkpoint, batch: Iterable[LazyArray]) -> dict[str, str]:
    """Return the fault of each array, by every path that it is at."""
    paths: dict[LazyArray, list[str]] = {}
    for path, x in checkpoint.items():
        paths.setdefault(x, []).append(path)
    faults: dict[str, str] = {}
    for x in batch:
        try:
            x.read()
        except CheckpointError as error:
            faults |= dict.fromkeys(paths[x], str(error))
    return faults
