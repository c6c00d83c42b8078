"""Progress bars: on a terminal only, at once for many bytes, after a while for anything else."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import rich.console

from jtree._progress import advance_innermost, progress_bar, tracked


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Make standard error a terminal, and keep what rich prints on it."""
    out = io.StringIO()

    class Console(rich.console.Console):
        def __init__(self, **_: Any) -> None:
            super().__init__(file=out, force_terminal=True, width=80)

    monkeypatch.setattr(rich.console, "Console", Console)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    return out


@pytest.mark.parametrize("shown", [True, False])
def test_a_bar_for_many_bytes_appears_at_once(terminal: io.StringIO, shown: bool) -> None:
    started = threading.Event()

    def measure() -> int:
        started.set()
        return 5 * 10**8

    with progress_bar("reading", 10**9, shown=shown, measure=measure) as bar:
        assert bool(bar) == shown
        assert not shown or started.wait(10)
        bar.advance(7 * 10**8)
    assert ("reading" in terminal.getvalue()) == shown


def test_nothing_is_drawn_where_there_is_no_terminal(
    terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with progress_bar("reading", 10**9) as bar:
        bar.advance(1)
        assert not bar
    assert terminal.getvalue() == ""


def test_short_work_draws_nothing(terminal: io.StringIO) -> None:
    with progress_bar("reading", 10):
        advance_innermost(10)
    assert "reading" not in terminal.getvalue()


@pytest.mark.usefixtures("terminal")
def test_tracked_yields_every_item() -> None:
    assert list(tracked(iter(range(3)), "trace")) == [0, 1, 2]
    assert list(tracked(range(3), "trace", shown=False)) == [0, 1, 2]
