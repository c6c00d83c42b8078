"""Writing an Orbax checkpoint: beside the target, and moved into place when it is complete."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from ..._errors import ArgumentTypeError, CheckpointError, JtreeError
from ..._progress import progress_bar
from ..._tree.leaves import describe
from .._storage import atomic
from .._storage.durable import full_error, is_full
from .._storage.paths import Path, check_names, is_local
from .._storage.staging import stage
from . import api
from .decoding import KEY, Ties
from .encoding import encode


def begin_write(
    target: Path,
    state: Any,
    ties: Ties,
    *,
    overwrite: bool,
    packed: bool | None,
    metadata: dict[str, Any] | None,
    shown: bool,
    copy: bool,
    metrics: Any = None,
) -> Callable[[], None]:
    """Check everything, begin to write, and return a function that waits and installs.

    Args:
      target: the path of the checkpoint.
      state: nested dicts, lists and tuples.
      ties: the paths of each array that is at several.
      overwrite: whether a checkpoint at the target is replaced.
      packed: whether small arrays are stored as one; None decides by their number.
      metadata: JSON of the user.
      shown: whether a progress bar may be shown.
      copy: whether NumPy arrays are copied, since they may change while they are written.
      metrics: JSON of a training step, which the managers of Orbax read.
    """
    _check_metadata(metadata)
    check_names(target)
    atomic.check_free(target, overwrite)
    size = sum(getattr(x, "nbytes", 0) for x in jax.tree.leaves(state))
    with contextlib.ExitStack() as stack, _as_checkpoint_error(target, size):
        atomic.sweep(target)
        copied = jax.tree.map(_copy, state) if copy else state
        staged = stack.enter_context(stage(copied, target, shown=shown))
        structure, arrays = encode(
            staged.state,
            ties=ties,
            packed=packed,
            metadata=metadata,
            checksums=staged.checksums,
        )
        new = _new_path(target, stack)
        path = stack.enter_context(atomic.without_brackets(new))
        with api.quiet():
            response = api.write(path, arrays, {KEY: structure}, mapped=bool(staged.checksums))
        until_installed = stack.pop_all()
    total = sum(x.nbytes for x in jax.tree.leaves(arrays))

    def finish() -> None:
        with _as_checkpoint_error(target, size), until_installed:
            with progress_bar("writing", total, shown=shown, measure=lambda: _size(new.parent)):
                _wait(response)
            api.name_handlers(path, metrics)
            _check_structure(path, target, structure)
            if new != target:
                atomic.install(new, target, overwrite=overwrite)

    return finish


def _wait(response: Any) -> None:
    """Wait until everything is written; where that fails, one error is enough."""
    with api.quiet():
        try:
            response.result()
        except Exception as error:
            api.note_failure(error)
            raise


def _check_structure(path: Path, target: Path, structure: Any) -> None:
    """Read back what the metadata says of the state, which holds all checksums."""
    if api.custom_metadata(path) != {KEY: structure}:
        raise CheckpointError(
            f"{target} cannot be written: its metadata differs from what was written; check the "
            "disk, or use another path"
        )


def _new_path(target: Path, stack: contextlib.ExitStack) -> Path:
    """Return the path to write to: the target itself in object stores, which cannot rename."""
    if not is_local(target) and not target.exists():
        return target
    return stack.enter_context(atomic.staging_directory(target)) / "new"


@contextlib.contextmanager
def _as_checkpoint_error(target: Path, nbytes: int) -> Iterator[None]:
    """Turn whatever fails into an error of jtree that names the target."""
    try:
        yield
    except (JtreeError, RecursionError):
        raise
    except Exception as error:
        if is_full(error) and is_local(target):
            raise full_error(target, nbytes) from error
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{target} cannot be written: {reason[0][:300]}") from error


def _copy(x: Any) -> Any:
    return np.array(x) if isinstance(x, np.ndarray) else x


def _check_metadata(metadata: Any) -> None:
    """Refuse metadata that JSON would change."""
    expected = "metadata: expected a dict of JSON values with str keys"
    try:
        same = metadata is None or json.loads(json.dumps(metadata)) == metadata
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentTypeError(f"{expected}; {error}") from error
    if not same or not isinstance(metadata, dict | None):
        raise ArgumentTypeError(f"{expected}, found {describe(metadata)}: {metadata!r:.100}")


def _size(directory: Any) -> int:
    size = 0
    for file in pathlib.Path(directory).rglob("*"):
        with contextlib.suppress(OSError):
            size += file.stat().st_size
    return size
