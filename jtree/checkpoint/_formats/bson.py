"""Files of BSON.jl: what `BSON.@save` and `BSON.bson` write, read and written without Julia."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

from ..._errors import ModelError
from .array_bytes import check_dtype, to_bytes
from .bson_document import Document
from .bson_lowering import BsonArray, Lowering, encode
from .bson_values import BsonValues
from .file import Entries, File, FileContents, Path
from .julia import METADATA, julia_tree
from .julia_state import as_document
from .julia_values import COMPLEX_NAMES, NAMES
from .limits import Budget

_MOST = 2**31 - 1  # bytes of a document


def open_bson(
    path: Path, *, fields: Mapping[str, Sequence[str]] | None = None, **_: object
) -> FileContents:
    """Return the values of a file by their names; `fields` names the fields of further structs."""
    file = File(path)
    source = Entries(file)
    values = BsonValues(Document(file), source).root()
    tree, types, ties = julia_tree(values, fields, budget=Budget(file.size))
    return FileContents("BSON", tree, dict(METADATA), source, ties, types)


def check_bson(state: Any) -> None:
    """Refuse values and keys that Julia or BSON cannot hold, and 2 GiB or more."""
    size = sum(x.nbytes if isinstance(x, BsonArray) else len(x) for x in _encode(state, {}))
    if size > _MOST:
        raise ModelError(
            f"BSON holds less than 2 GiB, and this takes {size:,} bytes; save as .jld2, or use "
            "format='orbax'"
        )


def write_bson(file: IO[bytes], state: Any, types: Mapping[str, str]) -> None:
    """Write a state as `BSON.@save "model.bson" model_state` does of a `Flux.state`."""
    for x in _encode(state, types):
        file.write(to_bytes(x.values()) if isinstance(x, BsonArray) else x)


def _encode(state: Any, types: Mapping[str, str]) -> list[bytes | BsonArray]:
    return encode(Lowering(types).document(as_document(state, _check_array)))


def _check_array(path: str, x: Any) -> None:
    check_dtype(path, x, {*NAMES, *COMPLEX_NAMES}, "Julia")
