"""What the demo prints: a few lines for each step, and at the end what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text


@dataclass
class DemoStep:
    """One step of the demo: what it measured, by name, and how long it took."""

    measured: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class DemoReport:
    """The steps so far. When quiet, nothing is printed but the table at the end."""

    quiet: bool = False
    steps: list[DemoStep] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.console = Console(quiet=self.quiet, highlight=False)

    @contextmanager
    def step(self, title: str, code: str) -> Iterator[DemoStep]:
        """Print what comes next, and time it; it has a section in the table."""
        self.steps.append(DemoStep())
        self.console.rule(f"[bold]{len(self.steps)}. {title}", align="left")
        self.console.print(Text(code, style="cyan"))
        begin = perf_counter()
        yield self.steps[-1]
        self.steps[-1].seconds = perf_counter() - begin
        self.console.print()

    def say(self, *things: Any) -> None:
        """Print text as it is, or whatever rich can render."""
        for thing in things:
            self.console.print(Text(thing) if isinstance(thing, str) else thing)

    def track(self, number: int, doing: str) -> Iterable[int]:
        """Yield numbers beside a progress bar, which only a terminal shows, and only meanwhile."""
        shown = self.console.is_terminal and not self.quiet
        return track(range(number), doing, console=self.console, transient=True, disable=not shown)

    def conclude(self, files: dict[str, str]) -> None:
        """Print the table: what was measured, how long it took, and where the files are."""
        table = Table(title="What was measured", title_justify="left")
        table.add_column("what", no_wrap=True)
        table.add_column("measured", overflow="fold")
        table.add_column("time", justify="right", min_width=7, no_wrap=True)
        for step in self.steps:
            _add_section(table, step.measured, step.seconds)
        _add_section(table, {"all steps": ""}, sum(step.seconds for step in self.steps))
        _add_section(table, files)
        Console(highlight=False).print(table)


def _add_section(table: Table, rows: dict[str, str], seconds: float | None = None) -> None:
    """Add rows between two lines, with the time that they took beside the first."""
    time = "" if seconds is None else f"{seconds:.1f} s"
    for what, text in rows.items():
        table.add_row(Text(what), Text(text), time)
        time = ""
    table.add_section()
