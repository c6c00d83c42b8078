"""The command `jtree`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from . import __version__
from ._errors import JtreeError
from ._text import plural, printable, table

__all__ = ["app"]

app = typer.Typer(name="jtree", no_args_is_help=True, add_completion=False)

_OTHER_LINES = 8  # around the tree of a checkpoint: title, header, totals, prompt
_CHECKPOINT = "A checkpoint, or a file of another library."
CheckpointPath = Annotated[
    str, typer.Argument(metavar="CKPT", help=_CHECKPOINT, show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Command = TypeVar("Command", bound=Callable[..., None])


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"jtree {__version__}")
        raise typer.Exit


def _command(function: Command) -> Command:
    """Register a command that reports an error in one line, with exit code 2."""

    @app.command()
    @wraps(function)
    def run(*args: Any, **options: Any) -> None:
        try:
            function(*args, **options)
        except (JtreeError, OSError) as error:
            _echo(f"jtree: {error}", err=True)
            raise typer.Exit(2) from error

    return run  # type: ignore[return-value]


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """JAX models, nested and flat: vectors, states and checkpoints."""
    del version
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may be in any script


@_command
def show(
    path: CheckpointPath,
    where: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Show only these paths, such as encoder/**.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Show this many levels, and count what is deeper.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show leaves that are not arrays, too.")
    ] = False,
    lines: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Show this many lines of the tree, and count the rest; 0 shows all. By default a "
            "terminal shows a screenful, and a pipe or a file takes all.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the tree of a checkpoint: shapes, dtypes, bytes, ties, metadata. Reads no array."""
    from .checkpoint._open import open_checkpoint
    from .checkpoint._show import as_json as to_json
    from .checkpoint._show import as_tree

    checkpoint = open_checkpoint(path)
    if as_json:
        _print(to_json(checkpoint, where))
    else:
        height = _screenful() if lines is None else lines or None
        _print(as_tree(checkpoint, where, depth, everything, height))


@_command
def diff(
    expected: Annotated[str, typer.Argument(metavar="A", help=_CHECKPOINT, show_default=False)],
    found: Annotated[str, typer.Argument(metavar="B", help="Another one.", show_default=False)],
    values: Annotated[bool, typer.Option("--values", help="Compare values, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the differences between two checkpoints. Exits with 1 if there are any."""
    from ._state.diff import diff as compare
    from .checkpoint._open import open_checkpoint

    pair = (open_checkpoint(path, shown=False) for path in (expected, found))
    report = compare(*pair, values=values)
    rows = [(x.path, x.kind, str(x.expected), str(x.found)) for x in report.differences]
    if as_json:
        _print([dict(zip(("path", "kind", "expected", "found"), row, strict=True)) for row in rows])
    elif rows:
        _print_differences(report, (expected, found), rows)
    else:
        typer.echo("no differences" + ("" if values else "; values were not compared"))
    raise typer.Exit(bool(rows))


@_command
def verify(path: CheckpointPath, as_json: AsJson = False) -> None:
    """Read every array of a checkpoint and compare its checksum. Exits with 1 on a fault."""
    from .checkpoint._open import open_checkpoint
    from .checkpoint._verify import verify as find_faults

    faults = find_faults(path)
    checked = not faults and open_checkpoint(path).checksums
    if as_json:
        _print({"wrong": faults, "checksums": checked})
    elif faults:
        _print_table(("path", "fault"), faults.items())
    else:
        result = "all checksums match" if checked else "readable, without checksums to compare"
        _echo(f"{path}: {result}")
    raise typer.Exit(bool(faults))


@_command
def stats(path: CheckpointPath, as_json: AsJson = False) -> None:
    """Print minimum, maximum, mean, deviation, NaN and Inf counts of every array."""
    from .checkpoint._stats import stats as compute_stats

    by_path = compute_stats(path)
    if as_json:
        _print({path: x._asdict() | {"flag": x.flag} for path, x in by_path.items()})
        return
    rows = [(path, *map(_format_number, x), x.flag) for path, x in by_path.items()]
    _print_table(("path", "min", "max", "mean", "std", "NaN", "Inf", ""), rows)


@_command
def convert(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="The checkpoint to convert.", show_default=False)
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="DST", help="A path that does not exist yet.", show_default=False),
    ],
    rules: Annotated[
        str | None, typer.Option(metavar="FILE", help="Apply the rules in this TOML file.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Write only these of the resulting paths.")
    ] = None,
    cast: Annotated[
        str | None, typer.Option(metavar="DTYPE", help="Convert floating arrays, such as to bf16.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="orbax, safetensors or npz; by default the suffix of DST decides.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Convert a checkpoint to another format, dtype or layout, and verify the result.

    A run that was killed resumes when it is started again. Exit code 1 if the result is wrong; DST
    then does not exist.
    """
    from .checkpoint._storage import memory
    from .migrate._files.convert_file import convert_file, plan_file
    from .migrate._rules.toml import rules_from_toml

    given = rules_from_toml(Path(rules)) if rules else ()
    options: Any = {"rules": given, "where": where, "cast": cast}
    if dry_run:
        plan = plan_file(source, **options)
        _print(plan.to_json() if as_json else plan)
        return
    memory.return_freed_memory()
    report = convert_file(source, target, format=format, **options)  # type: ignore[arg-type]
    _print(report.to_json()) if as_json else _echo(str(report))
    raise typer.Exit(bool(report.problems))


@_command
def demo(
    out: Annotated[
        Path,
        typer.Option(file_okay=False, writable=True, help="The directory to write to."),
    ] = Path("jtree-demo"),
    seed: Annotated[int, typer.Option(min=0, help="The seed of the split and the networks.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the final table.")] = False,
) -> None:
    """Train on real digits through one vector, draw a Hessian, then save, load and compare."""
    from .demo import run

    run(out, seed=seed, quiet=quiet)


def _echo(text: str, *, err: bool = False) -> None:
    """Print lines of text, in which names of a file cannot control the terminal."""
    typer.echo("\n".join(map(printable, text.split("\n"))), err=err)


def _print(output: Any) -> None:
    """Print JSON as one document, and anything else as rich does."""
    from rich.console import Console

    if isinstance(output, dict | list):
        typer.echo(json.dumps(output, indent=2))
    else:
        console = Console()
        if not console.is_terminal:
            console.width = 160
        console.print(output)


def _screenful() -> int | None:
    """Return the number of lines of a tree that fit the terminal; None without a terminal."""
    from rich.console import Console

    console = Console()
    return max(console.height - _OTHER_LINES, 1) if console.is_terminal else None


def _print_differences(report: Any, names: tuple[str, str], rows: Any) -> None:
    """Print what many paths have in common in one line, and a table of the others."""
    for cause in report.causes:
        _echo(f"{plural(len(cause.paths), 'path')}: {cause.text}")
    explained = frozenset().union(*(cause.paths for cause in report.causes))
    others = [row for row in rows if row[0] not in explained]
    if others:
        _print_table(("path", "kind", *names), others)


def _print_table(titles: Any, rows: Any) -> None:
    cells = ((str(path) or "(root)", *map(str, others)) for path, *others in rows)
    _print(table(titles, cells, border=False))


def _format_number(x: float | None) -> str:
    return "-" if x is None else f"{x:,}" if isinstance(x, int) else f"{x:.4g}"
