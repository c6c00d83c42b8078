"""Paths of checkpoints: local ones, `gs://` and `s3://`."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

from ..._errors import ArgumentError, ArgumentTypeError, CheckpointError

Path: TypeAlias = Any  # etils.epath.Path: a local path, gs:// or s3://

STAGING = ".jtree"  # ends the names of staging directories
MARK = "_CHECKPOINT_METADATA"  # the file that every checkpoint of Orbax has
UNFINISHED = ".orbax-checkpoint-tmp"  # a part of the names of what Orbax has not completed


def as_path(path: object) -> Path:
    """Return a path, absolute where it is local."""
    from etils import epath

    if not isinstance(path, str | os.PathLike):
        raise ArgumentTypeError(
            f"expected a path as the first argument, found {type(path).__name__}; write "
            "save(path, tree) or load(path)"
        )
    name = os.fsdecode(path)
    if "\0" in name:
        raise ArgumentError(f"invalid path {name!r}: it contains a NUL character")
    if is_local(name):
        return epath.Path(os.path.realpath(name))
    try:
        remote = epath.Path(name)
        remote.exists()
    except Exception as error:  # the store is reached through a package of its own
        raise CheckpointError(f"{name} cannot be reached: {error}") from error
    return remote


def is_local(path: Path) -> bool:
    """Return whether a path is in this machine's file system."""
    return "://" not in str(path)
