"""The output of the demo: a few lines for each step, and a table of measurements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.text import Text

from .._text import table


@dataclass
class DemoStep:
    """A step of the demo: its measurements by name, and how long it took."""

    measured: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class DemoReport:
    """The steps of the demo so far. If quiet, only the table at the end is printed."""

    quiet: bool = False
    steps: list[DemoStep] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.console = Console(quiet=self.quiet, highlight=False)

    @contextmanager
    def step(self, title: str, code: str) -> Iterator[DemoStep]:
        """Print the title and the code of a step, and time the block."""
        self.steps.append(DemoStep())
        self.console.rule(f"[bold]{len(self.steps)}. {title}", align="left")
        self.console.print(Text(code, style="cyan"))
        start = perf_counter()
        yield self.steps[-1]
        self.steps[-1].seconds = perf_counter() - start
        self.console.print()

    def say(self, *renderables: Any) -> None:
        """Print text without markup, or anything else that rich can render."""
        for x in renderables:
            self.console.print(Text(x) if isinstance(x, str) else x)

    def track(self, count: int, title: str) -> Iterable[int]:
        """Yield `range(count)` beside a progress bar, which is shown on a terminal only."""
        shown = self.console.is_terminal and not self.quiet
        return track(range(count), title, console=self.console, transient=True, disable=not shown)

    def conclude(self, files: dict[str, str]) -> None:
        """Print the table of measurements, durations and files."""
        total = sum(step.seconds for step in self.steps)
        sections = [_rows(step.measured, f"{step.seconds:.1f} s") for step in self.steps]
        sections += [_rows({"all steps": ""}, f"{total:.1f} s"), _rows(files, "")]
        titles = ("what", "measured", "time")
        drawn = table(titles, *sections, right=("time",), title="Measurements")
        drawn.title_justify = "left"
        for column, no_wrap in zip(drawn.columns, (True, False, True), strict=True):
            column.no_wrap = no_wrap
        Console(highlight=False).print(drawn)


def _rows(measured: dict[str, str], time: str) -> list[tuple[str, str, str]]:
    """Return the rows of a section, with its time in the first one."""
    rows = enumerate(measured.items())
    return [(name, text, "" if i else time) for i, (name, text) in rows]
