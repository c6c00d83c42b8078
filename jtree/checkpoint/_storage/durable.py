"""Files that survive a power failure: synced before they are renamed, their directories after."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator

from ..._errors import CheckpointError
from ..._text import plural
from .paths import Path, is_local

_UNSUPPORTED = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES}
_FULL = {errno.ENOSPC, errno.EDQUOT}


def sync_tree(directory: Path) -> None:
    """Wait until all files of a directory, and all directories in it, are on the disk."""
    for folder, _, names in os.walk(directory, topdown=False):
        for name in names:
            _sync(os.path.join(folder, name))
        sync_directory(folder)


def sync_directory(directory: Path) -> None:
    """Wait until the names in a directory are on the disk, where the system can."""
    if sys.platform == "win32" or not is_local(directory):
        return
    try:
        _sync(directory)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def make_directories(directory: Path) -> None:
    """Make a directory and those above it, and wait until their names are on the disk."""
    missing = [x for x in (directory, *directory.parents) if not x.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in missing if is_local(directory) else ():
        sync_directory(path.parent)


def is_full(error: BaseException | None) -> bool:
    """Return whether an error, or a cause of it, is that a disk or a quota is full."""
    return any(
        getattr(x, "errno", None) in _FULL or "No space left" in str(x) for x in _chain(error)
    )


def full_error(target: Path, nbytes: int) -> CheckpointError:
    """Return the error for a target that does not fit on the disk."""
    folder = next((x for x in target.parents if x.exists()), target.parent)
    free = plural(shutil.disk_usage(folder).free, "byte")
    return CheckpointError(
        f"{target} cannot be written: no space left on the device; the arrays take "
        f"{plural(nbytes, 'byte')}, and {free} are free; free some space, or use another path"
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
