"""Files of Equinox: arrays in the format of NumPy, one after another, without names.

Before them there may be JSON, such as the line of hyperparameters in Equinox's tutorials.
"""

from __future__ import annotations

from typing import Any

from ..._tree.lazy import LazyArray
from .file import Entries, File, FileContents, Path
from .limits import Budget, parse_json
from .npy_array import MAGIC, lazy_array, read_header

_JSON_STARTS = b"{["
_MAX_JSON = 2**20  # bytes that are searched for the end of the JSON


def is_equinox(path: Path) -> bool:
    """Return whether a file is Equinox's: by its suffix, or by more than one array in it."""
    file = File(path)
    header = read_header(file, 0)
    return str(path).endswith(".eqx") or header.size + header.nbytes < file.size


def json_size(file: File) -> int | None:
    """Return how many bytes of JSON are before the first array; None if an array is not next."""
    start = file.read(0, min(file.size, _MAX_JSON))
    if start.startswith(MAGIC):
        return 0
    end = start.find(b"\n" + MAGIC) + 1 if start.lstrip()[:1] in _JSON_STARTS else 0
    return end or None


def open_equinox(path: Path, **_: Any) -> FileContents:
    """Return the arrays as a list under the name `leaf`, and the JSON before them as metadata."""
    file = File(path)
    source, budget = Entries(file), Budget(file.size)
    leaves: list[LazyArray] = []
    start = json_size(file) or 0
    metadata = parse_json(file.read(0, start), file.size) if start else {}
    while start < file.size:
        budget.spend()
        header = read_header(file, start)
        leaves.append(lazy_array(source, f"leaf/{len(leaves)}", header, start))
        start += header.size + header.nbytes
    return FileContents("Equinox", {"leaf": leaves}, metadata, source)
