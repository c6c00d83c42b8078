"""Bars for long work: on a terminal only, at once for much, after a while for little."""

from __future__ import annotations

import io
from typing import Any

import pytest
import rich.console

from jtree import _progress as _progress


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("shown", [True, False])
def test_a_bar_is_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, shown: bool
) -> None:
    out = io.StringIO()

    class Console(rich.console.Console):
        def __init__(self, **_: Any) -> None:
            super().__init__(file=out, force_terminal=terminal, width=80)

    monkeypatch.setattr(rich.console, "Console", Console)
    started = _progress.threading.Event()

    def measure() -> int:
        started.set()
        return 5 * 10**8

    with _progress.progress("reading", 10**9, shown=shown, measure=measure) as advance:
        if terminal and shown:
            assert started.wait(10)
        advance(7 * 10**8)
    assert ("reading" in out.getvalue()) == (terminal and shown)
