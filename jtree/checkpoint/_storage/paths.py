"""Paths of checkpoints: local ones, `gs://` and `s3://`."""

from __future__ import annotations

import os
from typing import Any, TypeAlias
from urllib.request import url2pathname

from ..._errors import ArgumentError, ArgumentTypeError, CheckpointError

Path: TypeAlias = Any  # etils.epath.Path: a local path, gs:// or s3://

STAGING = ".jtree"  # ends the names of staging directories
MARK = "_CHECKPOINT_METADATA"  # the file that every checkpoint of Orbax has
UNFINISHED = ".orbax-checkpoint-tmp"  # a part of the names of what Orbax has not completed


def as_path(path: object) -> Path:
    """Return a path, absolute where it is local: `~` is expanded, and `file://` taken off."""
    from etils import epath

    if not isinstance(path, str | os.PathLike):
        raise ArgumentTypeError(
            f"expected a path as the first argument, found {type(path).__name__}; write "
            "save(path, tree) or load(path)"
        )
    name = os.fsdecode(path)
    if "\0" in name:
        raise ArgumentError(f"invalid path {name!r}: it contains a NUL character")
    name = local_name(name)
    if is_local(name):
        return epath.Path(os.path.realpath(name))
    try:
        remote = epath.Path(name)
        remote.exists()
    except Exception as error:  # the store is reached through a package of its own
        raise CheckpointError(f"{name} cannot be reached: {error}") from error
    return remote


def local_name(name: str) -> str:
    """Return a name with `~` expanded; of a `file://` URL, the path."""
    scheme, separator, rest = name.partition("://")
    if separator and scheme.lower() == "file":
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost") or not slash:
            raise ArgumentError(
                f"{name}: a file:// URL names a path of this machine; write file:///path"
            )
        return url2pathname(f"/{path}")
    return os.path.expanduser(name)


def check_names(path: Path) -> None:
    """Refuse a local path that TensorStore would write elsewhere."""
    if os.sep == "/" and is_local(path) and "\\" in str(path):
        raise ArgumentError(
            f"{path}: Orbax takes a backslash in a path for a slash; use another name, or a "
            "format of one file"
        )


def is_local(path: Path) -> bool:
    """Return whether a path is in this machine's file system."""
    return "://" not in str(path)
