"""The command `jtree`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from . import __version__

app = typer.Typer(name="jtree", no_args_is_help=True, add_completion=False)

EXTRA = {"matplotlib": "matplotlib", "optax": "optax", "sklearn": "scikit-learn"}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jtree {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it, exit."),
    ] = False,
) -> None:
    """JAX models, nested and flat: vectors, states and checkpoints."""


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
