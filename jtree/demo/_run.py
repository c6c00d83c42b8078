"""The demo, which needs packages of its own."""

from __future__ import annotations

import pathlib

from .._arguments import Path, check_integer, check_path
from .._errors import ArgumentError
from .._extras import check_extra


def run(out: Path, /, *, seed: int = 0, quiet: bool = False) -> None:
    """Run the demo: print its results, and write its files to a folder.

    Args:
      out: the folder, which is created if it is missing. Files of an earlier run are replaced.
      seed: the seed of the order of the images and of the initial networks.
      quiet: whether to print only the table at the end.

    Raises:
      ExtraError: matplotlib, optax or scikit-learn is not installed.
      ArgumentError: the folder is a file.
    """
    folder = pathlib.Path(check_path("out", out)).expanduser()
    check_integer("seed", seed, least=0)
    check_extra("jtree.demo", "demo", "matplotlib", "optax", "sklearn")
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"out: expected a folder, found the file {folder}")
    from ._steps import run_steps

    run_steps(folder, seed, quiet)
