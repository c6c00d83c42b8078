"""A progress bar, on a terminal only."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
_open: list[tuple[Any, Any]] = []  # the bars that compiled code may advance


@contextmanager
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
