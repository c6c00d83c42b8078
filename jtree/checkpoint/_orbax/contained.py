"""A checkpoint of Orbax holds all of its files itself; others are refused before they are read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..._errors import CheckpointError
from .._formats.limits import JSON_BYTES, array_nbytes, check_json
from .._storage.memory import check_memory
from .._storage.paths import Path, is_local

_METADATA = "_METADATA"  # names the arrays of a tree, which are files where there is no OCDBT
_ZARR = {"zarr.json", ".zarray"}  # describe one array
_MOST_CHUNKS = 100_000  # of an array
_JSON_FILES = {_METADATA, "_sharding", *_ZARR}


def check_contained(path: Path) -> None:
    """Refuse links, pipes and devices in a local checkpoint, and names that lead out of it."""
    if not is_local(path):
        return
    for entry in _entries(str(path)):
        if entry.is_symlink():
            raise CheckpointError(
                f"{path}: {_relative(entry, path)} is a link, and links in a checkpoint are not "
                "followed; copy the checkpoint with the files that its links name: cp -rL"
            )
        if not entry.is_file():
            raise CheckpointError(
                f"{path}: {_relative(entry, path)} is a pipe, a socket or a device; expected "
                "regular files; use another copy of this checkpoint"
            )
        if entry.name in _JSON_FILES:
            _check_metadata(entry, path)


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a directory and its subdirectories, other than directories."""
    stack = [directory]
    while stack:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                else:
                    yield entry


def _check_metadata(entry: os.DirEntry[str], path: Path) -> None:
    """Refuse metadata that is too long, or names an array outside of the checkpoint."""
    try:
        length = entry.stat().st_size
        if length > JSON_BYTES:
            raise ValueError(f"{length:,} bytes; expected at most {JSON_BYTES:,}")
        with open(entry.path, "rb") as file:
            text = file.read()
        check_json(text)
        content = json.loads(text)
        if entry.name in _ZARR and "shape" in content:
            check_memory(array_nbytes(content["shape"], np.uint8), path)
            _check_chunks(content)
        names = _array_names(content) if entry.name == _METADATA else ()
        for name in names:
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError(f"the name {name!r:.80} leads out of the checkpoint")
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: cannot read {_relative(entry, path)}: {error}; use another copy of this "
            "checkpoint"
        ) from error


def _check_chunks(content: Any) -> None:
    """Refuse an array of very many chunks, each of which takes time even if it is missing."""
    chunks = content.get("chunks") or content["chunk_grid"]["configuration"]["chunk_shape"]
    counts = (-(-n // max(step, 1)) for n, step in zip(content["shape"], chunks, strict=True))
    if (count := math.prod(counts)) > _MOST_CHUNKS:
        raise ValueError(f"{count:,} chunks of an array; expected at most {_MOST_CHUNKS:,}")


def _array_names(metadata: Any) -> Iterator[str]:
    """Yield the names of the arrays, and their parts: a part may be a path, too."""
    tree = metadata.get("tree_metadata") if isinstance(metadata, dict) else None
    for value in tree.values() if isinstance(tree, dict) else ():
        keys = value.get("key_metadata") if isinstance(value, dict) else None
        parts = [str(x.get("key")) for x in keys or () if isinstance(x, dict)]
        yield ".".join(parts)
        yield from (part for part in parts if part != "..")


def _relative(entry: os.DirEntry[str], path: Path) -> str:
    return repr(os.path.relpath(entry.path, str(path)))[1:-1]
