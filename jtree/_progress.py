"""Progress bars for long work, on a terminal only."""

from __future__ import annotations

import contextlib
import operator
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Literal, TypeVar

T = TypeVar("T")
LARGE = 10**9  # bytes
DELAY = 2.0  # seconds


class Bar:
    """A progress bar, or one that is never drawn; it is true where it may be drawn."""

    def __init__(self, bar: Any = None, task: Any = None) -> None:
        self._bar = bar
        self._task = task

    def __bool__(self) -> bool:
        return self._bar is not None

    def advance(self, amount: float) -> None:
        """Move the bar by an amount of its total."""
        if self._bar is not None:
            self._bar.advance(self._task, amount)


@contextlib.contextmanager
def progress_bar(
    title: str,
    total: float | None,
    *,
    shown: bool = True,
    unit: Literal["bytes", "share"] = "bytes",
    measure: Callable[[], int] | None = None,
) -> Iterator[Bar]:
    """Show a bar on standard error while the block runs.

    A bar for less than `LARGE` bytes appears after `DELAY` seconds, any other one at once.

    Args:
      title: the text beside the bar.
      total: the amount that makes it full, or None where that is unknown.
      shown: False shows nothing.
      unit: whether bytes or a percentage are printed beside the bar.
      measure: a function that returns how much has been done, for work that cannot call `advance`.

    Yields:
      A `Bar`.
    """
    if not (shown and sys.stderr.isatty()):
        yield Bar()
        return
    drawn, task = _draw(title, total, unit)
    if unit == "share" or (total or 0) >= LARGE:
        drawn.start()
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(drawn, task, measure, ended), daemon=True)
    thread.start()
    _OPEN.append(Bar(drawn, task))
    try:
        yield _OPEN[-1]
    finally:
        _OPEN.pop()
        ended.set()
        thread.join()
        drawn.stop()


_OPEN: list[Bar] = []


def advance_innermost(amount: Any) -> None:
    """Advance the bar that was opened last, for compiled code, which cannot keep a bar."""
    if _OPEN:
        _OPEN[-1].advance(float(amount))


def tracked(items: Iterable[T], title: str, *, shown: bool = True) -> Generator[T, None, None]:
    """Yield items, and advance a bar after each."""
    total = operator.length_hint(items) or None
    with progress_bar(title, total, shown=shown, unit="share") as bar:
        for item in items:
            yield item
            bar.advance(1)


def _draw(title: str, total: float | None, unit: str) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    amount = DownloadColumn() if unit == "bytes" else TaskProgressColumn()
    columns = TextColumn(title), BarColumn(), amount, TimeRemainingColumn()
    drawn = Progress(*columns, console=Console(stderr=True), transient=True)
    return drawn, drawn.add_task(title, total=total)


def _watch(
    drawn: Any, task: Any, measure: Callable[[], int] | None, ended: threading.Event
) -> None:
    """Show the bar after a delay, and keep it current."""
    start = time.monotonic()
    while not ended.wait(0.1):
        if time.monotonic() - start > DELAY:
            drawn.start()
        if measure:
            drawn.update(task, completed=measure())
