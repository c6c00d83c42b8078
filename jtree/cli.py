"""The command `jtree`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from . import __version__
from ._errors import JtreeError
from ._text import table

app = typer.Typer(name="jtree", no_args_is_help=True, add_completion=False)

EXTRA = {"matplotlib": "matplotlib", "optax": "optax", "sklearn": "scikit-learn"}

Checkpoint = Annotated[
    str, typer.Argument(metavar="CKPT", help="A checkpoint.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Command = TypeVar("Command", bound=Callable[..., None])


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jtree {__version__}")
        raise typer.Exit


def _command(function: Command) -> Command:
    """Register a command; what jtree refuses is one line, and exit code 2."""

    @app.command()
    @wraps(function)
    def run(*args: Any, **options: Any) -> None:
        try:
            function(*args, **options)
        except (JtreeError, OSError) as error:
            typer.echo(f"jtree: {error}", err=True)
            raise typer.Exit(2) from error

    return run  # type: ignore[return-value]


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it, exit."),
    ] = False,
) -> None:
    """JAX models, nested and flat: vectors, states and checkpoints."""
    del version
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may be in any script


@_command
def show(
    checkpoint: Checkpoint,
    where: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Show these paths only, as encoder/**.")
    ] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Count what is deeper.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show other leaves too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what a checkpoint holds: shapes, dtypes, bytes, ties, metadata. No array is read."""
    from . import checkpoint as _checkpoints
    from .checkpoint import _show

    found = _checkpoints.open(checkpoint)
    _print(
        _show.as_json(found, where) if as_json else _show.as_tree(found, where, depth, everything)
    )


@_command
def diff(
    expected: Annotated[str, typer.Argument(metavar="A", help="A checkpoint.", show_default=False)],
    found: Annotated[str, typer.Argument(metavar="B", help="Another.", show_default=False)],
    values: Annotated[bool, typer.Option("--values", help="Compare values, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print how two checkpoints differ; exit code 1 if they do."""
    from ._state.diff import diff as compare

    different = compare(Path(expected), Path(found), values=values).differences
    rows = [(x.path, x.kind, str(x.expected), str(x.found)) for x in different]
    if as_json:
        _print([dict(zip(("path", "kind", "expected", "found"), row, strict=True)) for row in rows])
    elif rows:
        _print_table(("path", "kind", expected, found), rows)
    else:
        typer.echo("no differences" + ("" if values else "; values were not compared"))
    raise typer.Exit(bool(rows))


@_command
def verify(checkpoint: Checkpoint, as_json: AsJson = False) -> None:
    """Read all of a checkpoint and check every checksum; exit code 1 if something is wrong."""
    from . import checkpoint as _checkpoints

    wrong = _checkpoints.verify(checkpoint)
    checked = not wrong and _checkpoints.open(checkpoint).checksums
    if as_json:
        _print({"wrong": wrong, "checksums": checked})
    elif wrong:
        _print_table(("path", "wrong"), wrong.items())
    else:
        how = "every checksum is right" if checked else "readable, but there are no checksums"
        typer.echo(f"{checkpoint}: {how}")
    raise typer.Exit(bool(wrong))


@_command
def stats(checkpoint: Checkpoint, as_json: AsJson = False) -> None:
    """Print minimum, maximum, mean, deviation, NaN and Inf counts of every array."""
    from .checkpoint import stats as stats_of

    found = stats_of(checkpoint)
    if as_json:
        _print({path: x._asdict() | {"flag": x.flag} for path, x in found.items()})
        return
    rows = [(path, *map(_number, x), x.flag) for path, x in found.items()]
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
        str | None, typer.Option(metavar="DTYPE", help="Convert floating arrays, as to bf16.")
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
    typer.echo(json.dumps(report.to_json(), indent=2) if as_json else str(report))
    raise typer.Exit(bool(report.problems))


@app.command()
def demo(
    out: Annotated[
        Path,
        typer.Option(file_okay=False, writable=True, help="The folder to write to; it may exist."),
    ] = Path("jtree-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seeds the split and the networks.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the final table only.")] = False,
) -> None:
    """Train on real digits through one vector; draw a Hessian; save, load and compare."""
    _require_extra()
    from .demo import run

    run(out, seed=seed, quiet=quiet)


def _print(found: Any) -> None:
    """Print JSON as one document, and anything else as rich does."""
    from rich.console import Console

    if isinstance(found, dict | list):
        typer.echo(json.dumps(found, indent=2))
    else:
        console = Console()
        if not console.is_terminal:
            console.width = 160
        console.print(found)


def _print_table(titles: Any, rows: Any) -> None:
    cells = ((str(path) or "(root)", *map(str, others)) for path, *others in rows)
    _print(table(titles, cells, border=False))


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:,}" if isinstance(x, int) else f"{x:.4g}"


def _require_extra() -> None:
    """Exit with one line where a package of the extra `demo` is missing."""
    missing = [package for module, package in EXTRA.items() if not _importable(module)]
    if missing:
        names = ", ".join(missing)
        typer.echo(f'jtree demo needs {names}; run: pip install "jtree[demo]"', err=True)
        raise typer.Exit(1)


def _importable(module: str) -> bool:
    try:
        import_module(module)
    except ModuleNotFoundError:
        return False
    return True
