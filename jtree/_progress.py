"""Progress bars for long work, on a terminal only."""

from __future__ import annotations

import contextlib
import operator
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_open: list[tuple[Any, Any]] = []  # the bars that compiled code may advance
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


@contextlib.contextmanager
def bar(name: str, progress: bool) -> Iterator[bool]:
    """Show a bar that `advance` moves, and tell whether it is shown."""
    if not (progress and sys.stderr.isatty()):
        yield False
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as shown:
        _open.append((shown, shown.add_task(name, total=1.0)))
        try:
            yield True
        finally:
            _open.pop()


def advance(share: Any) -> None:
    """Move the bar by a share of the whole, where one is open."""
    if _open:
        shown, task = _open[-1]
        shown.advance(task, float(share))


def tracked(items: Iterable[T], name: str, progress: bool) -> Iterator[T]:
    """Yield items beside a bar."""
    if not (progress and sys.stderr.isatty()):
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as shown:
        total = operator.length_hint(items) or None
        yield from shown.track(items, total=total, description=name)
