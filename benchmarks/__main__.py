"""`python -m benchmarks`: measure, and print the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from . import curvature_rows as curvature_rows
from .rows import ROWS, Row


def main(
    rows: Annotated[
        list[int] | None, typer.Argument(help="Numbers of rows; all by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table for a page.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the scaling to this file.")] = None,
) -> None:
    """Measure jtree against ravel_pytree, copies of the bytes, and the nested model."""
    numbers = rows or sorted(ROWS)
    cases = list(dict.fromkeys(case for number in numbers for case in ROWS[number][0]))
    console = Console(stderr=True)
    measured = {case: run(case) for case in track(cases, "measuring", console=console)}
    ratios = [row for number in numbers for row in ROWS[number][1](measured)]
    if plot:
        from .plots import draw

        draw(run("scaling"), plot)
    if markdown:
        print(as_markdown(ratios))
    elif as_json:
        print(json.dumps({"measured": measured, "rows": [x._asdict() for x in ratios]}, indent=2))
    else:
        Console(width=110).print(table(ratios))


def run(case: str) -> Any:
    """Return what a case measures, in a fresh process: `name`, or `module:name`."""
    module, _, name = case.rpartition(":")
    module = module or "cases"
    code = f"import json; from benchmarks import {module}; print(json.dumps({module}.{name}()))"
    alone = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"} if name.endswith("_alone") else {}
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, env=os.environ | alone)
    if process.returncode:
        raise SystemExit(f"{case} failed:\n{process.stderr}")
    return json.loads(process.stdout.splitlines()[-1])


def as_markdown(ratios: list[Row]) -> str:
    """Return the table of ratios in Markdown."""
    lines = ["| row | work | against | ratio | target | met |", "|---|---|---|---|---|---|"]
    for x in ratios:
        target = "" if x.target is None else f"{x.target:.3g}"
        lines.append(
            f"| {x.number} | {x.work} | {x.against} | {x.ratio:.3g} | {target} | {x.verdict} |"
        )
    return "\n".join(lines)


def table(ratios: list[Row]) -> Table:
    """Return the table of ratios."""
    out = Table("row", "work", "against", "ratio", "target", "met")
    for x in ratios:
        target = "" if x.target is None else f"{x.target:.3g}"
        out.add_row(str(x.number), x.work, x.against, f"{x.ratio:.3g}", target, x.verdict)
    return out


if __name__ == "__main__":
    typer.run(main)
