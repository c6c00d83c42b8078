"""A bar for long work, on a terminal only."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

LARGE = 10**9  # bytes from which on a bar is shown at once
LATE = 2.0  # seconds after which it is shown in any case


@contextlib.contextmanager
def progress(
    work: str, total: int, *, shown: bool = True, measure: Callable[[], int] | None = None
) -> Iterator[Callable[[int], None]]:
    """Give a function that takes how many bytes are done, for a bar on standard error.

    Where nobody calls it, `measure` tells how many are done.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield lambda _: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(work), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(work, total=total)
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(bar, task, total, measure, ended), daemon=True)
    thread.start()
    try:
        yield lambda done: bar.update(task, completed=done)
    finally:
        ended.set()
        thread.join()
        bar.stop()


def _watch(
    bar: Any, task: Any, total: int, measure: Callable[[], int] | None, ended: threading.Event
) -> None:
    """Show the bar when it is due, and keep it current."""
    start = time.monotonic()
    while not ended.wait(0.1):
        if total >= LARGE or time.monotonic() - start > LATE:
            bar.start()
        if measure:
            bar.update(task, completed=measure())
