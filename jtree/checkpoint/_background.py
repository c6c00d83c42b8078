"""Saves that run in the background, and the wait for them when the interpreter exits."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from typing import Any

logger = logging.getLogger("jtree")


class Saving(Future[None]):
    """A save in the background, as `save_async` returns it: a `concurrent.futures.Future`.

    `result(timeout=None)` waits until the checkpoint is in place and returns None, or raises what
    went wrong; `done()` tells whether it has ended, well or not. It cannot be cancelled.

    Attributes:
      path: the path of the checkpoint.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     saving = jtree.save_async(f"{directory}/model", {"w": np.arange(3)})
      ...     saving.result()
      ...     saving.done()
      True
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def __repr__(self) -> str:
        return f"Saving({self.path!r}, {'done' if self.done() else 'running'})"


def run_in_background(path: str, finish: Callable[[], None]) -> Saving:
    """Start a thread that calls `finish`, and return the handle of it."""
    saving = Saving(path)
    saving.set_running_or_notify_cancel()
    thread = threading.Thread(target=_run, args=(saving, finish), name=f"saving {path}")
    thread.start()
    _RUNNING[path] = saving
    _wait_at_exit()
    return saving


def wait_for(path: str) -> None:
    """Wait for the last save in the background to a path, if one is running."""
    if saving := _RUNNING.get(path):
        saving.exception()


# The last save in the background to each path; the next one to it waits for it. A running thread
# keeps its `Saving` alive.
_RUNNING: weakref.WeakValueDictionary[str, Saving] = weakref.WeakValueDictionary()


def _run(saving: Saving, finish: Callable[[], None]) -> None:
    try:
        finish()
    except BaseException as error:
        logger.error("not saved: %s", error)  # nobody may ever ask for the result
        saving.set_exception(error)
    else:
        saving.set_result(None)


@cache
def _wait_at_exit() -> None:
    """Make the interpreter wait for all saves before it stops the threads that Orbax uses.

    `atexit` is too late: by then Orbax waits minutes for threads that cannot start.
    """
    register: Any = getattr(threading, "_register_atexit", None)
    if register is not None:
        with contextlib.suppress(RuntimeError):  # the interpreter is stopping already
            register(_wait_for_all)


def _wait_for_all() -> None:
    for saving in list(_RUNNING.values()):
        saving.exception()
