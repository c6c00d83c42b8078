"""Files of JLD2.jl: what `jldsave` and `@save` write, read and written without Julia."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

from ..._errors import ModelError
from .array_bytes import check_dtype, to_bytes
from .file import Entries, File, FileContents, Path
from .hdf5_objects import Hdf5Objects
from .jld2_datasets import Datasets
from .jld2_values import Jld2Values
from .jld2_writer import Jld2Writer
from .julia import METADATA, julia_tree
from .julia_state import as_document
from .julia_values import COMPLEX_NAMES, NAMES
from .limits import Budget

# How a file begins, in every version of JLD2.jl.
STARTS = b"HDF5-based Julia Data Format", b"Julia data file (HDF5)"


def open_jld2(
    path: Path,
    *,
    verify: bool = True,
    fields: Mapping[str, Sequence[str]] | None = None,
    **_: object,
) -> FileContents:
    """Return the values of a file by their names; `fields` names the fields of further structs."""
    file = File(path)
    source = Entries(file)
    objects = Hdf5Objects(file, verify=verify)
    values = Jld2Values(objects, Datasets(objects, file, source)).root()
    tree, types, ties = julia_tree(values, fields, budget=Budget(file.size))
    return FileContents("JLD2", tree, dict(METADATA), source, ties, types)


def check_jld2(state: Any) -> None:
    """Refuse values and keys that Julia cannot hold."""
    as_document(state, _check_array)


def write_jld2(file: IO[bytes], state: Any, _: Any) -> None:
    """Write a state as `jldsave("model.jld2"; model_state)` does of a `Flux.state`."""
    try:
        Jld2Writer(to_bytes).write(file, as_document(state, _check_array))
    except RecursionError as error:
        raise ModelError("the tree is nested too deeply for JLD2; use format='orbax'") from error


def _check_array(path: str, x: Any) -> None:
    check_dtype(path, x, {*NAMES, *COMPLEX_NAMES}, "Julia")
