"""Saving: written beside the target, and put in its place when it is complete."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._errors import ArgumentTypeError, CheckpointError, JtreeError, ModelError
from .._progress import progress_bar
from .._state.state import state
from .._tree.leaves import describe, isarray
from .._tree.walk import walk
from ._checkpoint import NAME, Checkpoint
from ._orbax import api
from ._orbax.encoding import Ties, encode
from ._storage import atomic
from ._storage.staging import in_file

logger = logging.getLogger("jtree")


def save(
    path: str | os.PathLike[str],
    tree: Any,
    /,
    *,
    overwrite: bool = False,
    packed: bool = False,
    metadata: dict[str, Any] | None = None,
    progress: bool = True,
) -> None:
    """Save the state of a tree as an Orbax checkpoint, with a checksum for every array.

    What is at `path` is at every moment the old checkpoint or the new one, complete, even if the
    process is killed. What is tied by reference is stored once.

    Args:
      path: a directory that does not exist yet; `gs://` and `s3://` are paths too.
      tree: any pytree; `jtree.state(tree)` is saved.
      overwrite: True replaces a checkpoint that is there, once the new one is complete beside it.
      packed: True stores all arrays of up to a mebibyte as one: thousands of them cost what one
        costs. Plain Orbax then finds their bytes only.
      metadata: JSON of your own, kept with the checkpoint; `jtree.open(path).metadata` returns it.
      progress: False shows no bar. There is one on a terminal only, above 1 GB or after 2 seconds.

    Raises:
      CheckpointError: something is at `path` already, or it cannot be written.
      ModelError: the state holds what cannot be saved.

    Example:
      >>> import tempfile
      >>> from jtree import load
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     save(f"{directory}/model", {"w": np.arange(3), "rates": (0.1, None)})
      ...     load(f"{directory}/model")
      {'rates': (0.1, None), 'w': array([0, 1, 2])}
    """
    _begin(path, tree, overwrite, packed, metadata, progress, lambda x: x)()


class Saving:
    """A checkpoint that is being written in the background.

    Attributes:
      path: where it will be.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     saving = save_async(f"{directory}/model", {"w": np.arange(3)})
      ...     saving.wait()
      ...     saving.done
      True
    """

    def __init__(self, path: str, finish: Callable[[], None]) -> None:
        self.path = path
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(finish,), name=f"saving {path}")
        self._thread.start()
        _UNDER_WAY[path] = self
        _wait_at_exit()

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return not self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> None:
        """Return when the checkpoint is in its place, or raise what went wrong.

        Args:
          timeout: the most seconds to wait.

        Raises:
          TimeoutError: it is still being written.
          CheckpointError: it could not be written.
        """
        self._thread.join(timeout)
        if not self.done:
            raise TimeoutError(f"{self.path} is still being written after {timeout} seconds")
        if self._error is not None:
            raise self._error

    def _run(self, finish: Callable[[], None]) -> None:
        try:
            finish()
        except BaseException as error:
            logger.error("not saved: %s", error)  # nobody may ever wait for it
            self._error = error

    def __repr__(self) -> str:
        return f"Saving({self.path!r}, {'done' if self.done else 'under way'})"


@cache
def _wait_at_exit() -> None:
    """Have the interpreter wait for all saves before it stops the threads that Orbax works with.

    `atexit` is too late: by then Orbax waits minutes for threads that cannot start.
    """
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        with contextlib.suppress(RuntimeError):  # the interpreter is stopping already
            register(_wait_for_all)


def _wait_for_all() -> None:
    for saving in list(_UNDER_WAY.values()):
        saving._thread.join()


def save_async(
    path: str | os.PathLike[str],
    tree: Any,
    /,
    *,
    overwrite: bool = False,
    packed: bool = False,
    metadata: dict[str, Any] | None = None,
) -> Saving:
    """Save as `save` does, in the background: training goes on while files are written.

    The numbers are those of now: NumPy arrays are copied, and arrays of JAX may be donated or
    deleted afterwards.

    Args: those of `save`.

    Returns:
      A handle; `wait()` returns when the checkpoint is in its place, and raises what went wrong.

    Raises:
      CheckpointError: something is at `path` already.
      ModelError: the state holds what cannot be saved.

    Example:
      >>> import tempfile
      >>> from jtree import load
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     saving = save_async(f"{directory}/model", {"w": np.arange(3)})
      ...     saving.wait()
      ...     load(f"{directory}/model")
      {'w': array([0, 1, 2])}
    """
    finish = _begin(path, tree, overwrite, packed, metadata, False, _own)
    return Saving(str(atomic.as_path(path)), finish)


# The last save in the background to each path: the next one to it comes after it. While a thread
# runs, it keeps its `Saving`.
_UNDER_WAY: weakref.WeakValueDictionary[str, Saving] = weakref.WeakValueDictionary()


def _begin(
    path: object,
    tree: Any,
    overwrite: bool,
    packed: bool,
    metadata: dict[str, Any] | None,
    shown: bool,
    own: Callable[[Any], Any],
) -> Callable[[], None]:
    """Check everything, begin to write, and return a function that waits and installs it."""
    target = atomic.as_path(path)
    if before := _UNDER_WAY.get(str(target)):
        before._thread.join()
    _check_metadata(metadata)
    atomic.check_free(target, overwrite)
    with contextlib.ExitStack() as stack, _named(target):
        atomic.sweep(target)
        whole, ties = _state(tree)
        held = stack.enter_context(in_file(jax.tree.map(own, whole), target, shown=shown))
        sums = held.checksums
        structure, arrays = encode(
            held.state, ties=ties, packed=packed, metadata=metadata, checksums=sums
        )
        new = _new_place(target, stack)
        place = stack.enter_context(atomic.without_brackets(new))
        response = api.write(place, arrays, {NAME: structure}, mapped=bool(sums))
        kept = stack.pop_all()
    total = sum(x.nbytes for x in jax.tree.leaves(arrays))

    def finish() -> None:
        with _named(target), kept:
            with progress_bar("writing", total, shown=shown, measure=lambda: _size(new.parent)):
                response.result()
            if new != target:
                atomic.install(new, target, overwrite=overwrite)

    return finish


def _new_place(target: atomic.Path, stack: contextlib.ExitStack) -> atomic.Path:
    """Return where to write: in object stores, where nothing is renamed, at the target itself."""
    if not atomic.is_local(target) and not target.exists():
        return target
    return stack.enter_context(atomic.workplace(target)) / "new"


@contextlib.contextmanager
def _named(target: atomic.Path) -> Iterator[None]:
    """Say in one way what fails."""
    try:
        yield
    except JtreeError:
        raise
    except RecursionError as error:
        raise ModelError(f"cannot save what is nested so deeply: {error}") from error
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{target} cannot be written: {reason[0][:300]}") from error


def _state(tree: Any) -> tuple[Any, Ties]:
    """Return a state, and what is tied in it; of a checkpoint those that it has."""
    if isinstance(tree, Checkpoint):
        return tree.tree, tree.ties
    return state(tree), _ties(tree)


def _own(x: Any) -> Any:
    return np.array(x) if isinstance(x, np.ndarray) else x


def _ties(tree: Any) -> Ties:
    """Return the paths of places that hold one array because one reference object holds it."""
    slots = walk(tree).slots
    groups: dict[int, list[str]] = {}
    for slot in slots:
        if isarray(slot.value):
            groups.setdefault(slot.tie, []).append(slot.path)
    return tuple(tuple(paths) for paths in groups.values() if len(paths) > 1)


def _check_metadata(metadata: Any) -> None:
    """Refuse what does not come back from JSON as it was."""
    wanted = "expected a dict of JSON: text as keys; dicts, lists, text, numbers, True, False, None"
    try:
        same = metadata is None or json.loads(json.dumps(metadata)) == metadata
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentTypeError(f"metadata: {wanted}; {error}") from error
    if not same or not isinstance(metadata, dict | None):
        raise ArgumentTypeError(
            f"metadata: {wanted}, found {describe(metadata)}: {metadata!r:.100}"
        )


def _size(directory: Any) -> int:
    found = 0
    for file in Path(directory).rglob("*"):
        with contextlib.suppress(OSError):
            found += file.stat().st_size
    return found
