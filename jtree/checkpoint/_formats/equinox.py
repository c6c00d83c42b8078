"""Files of Equinox: arrays in the format of NumPy, one after another, without names."""

from __future__ import annotations

from typing import Any

from ..._tree.lazy import LazyArray
from .file import Entries, File, FileContents, Path
from .limits import Budget
from .npy_array import lazy_array, read_header


def is_equinox(path: Path) -> bool:
    """Return whether a file is Equinox's: by its suffix, or by more than one array in it."""
    file = File(path)
    header = read_header(file, 0)
    return str(path).endswith(".eqx") or header.size + header.nbytes < file.size


def open_equinox(path: Path, **_: Any) -> FileContents:
    """Return the arrays as a list under the name `leaf`."""
    file = File(path)
    source, budget = Entries(file), Budget(file.size)
    leaves: list[LazyArray] = []
    start = 0
    while start < file.size:
        budget.spend()
        header = read_header(file, start)
        leaves.append(lazy_array(source, f"leaf/{len(leaves)}", header, start))
        start += header.size + header.nbytes
    return FileContents("Equinox", {"leaf": leaves}, {}, source)
