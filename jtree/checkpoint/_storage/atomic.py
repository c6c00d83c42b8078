"""Files and directories that appear complete or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

from ..._errors import CheckpointError
from .durable import make_directories, sync_directory, sync_tree
from .paths import MARK, STAGING, UNFINISHED, Path, is_local


def check_free(target: Path, overwrite: bool) -> None:
    """Refuse a target that exists, unless it is a checkpoint that may be replaced."""
    if UNFINISHED in target.name:
        raise CheckpointError(
            f"{target}: names with {UNFINISHED} are for unfinished checkpoints; use another name"
        )
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise already_exists(target)
    _check_checkpoint(target)


def already_exists(target: Path) -> CheckpointError:
    """Return the error for a target that exists and is not to be replaced."""
    return CheckpointError(f"{target} already exists; pass overwrite=True to replace it")


def _check_checkpoint(target: Path) -> None:
    if not (target / MARK).exists():
        raise CheckpointError(
            f"{target} exists and is not a jtree checkpoint; refusing to overwrite it"
        )


@contextlib.contextmanager
def staging_directory(target: Path) -> Iterator[Path]:
    """Make a directory beside the target to write in, removed at the end, whatever happens.

    It is locked as long as this process lives, so that `sweep` knows those that nobody needs.
    """
    make_directories(target.parent)
    with contextlib.ExitStack() as stack:
        directory = _claim(target, stack)
        try:
            yield directory
        finally:
            _remove(directory)


@contextlib.contextmanager
def local_staging_directory(target: Path) -> Iterator[pathlib.Path]:
    """Make a directory on this machine: beside the target where that is local."""
    if is_local(target):
        with staging_directory(target) as directory:
            yield pathlib.Path(directory)
    else:
        with tempfile.TemporaryDirectory() as name:
            yield pathlib.Path(name)


def _claim(target: Path, stack: contextlib.ExitStack) -> Path:
    """Make and lock a directory; again, where another process swept it away in between."""
    while True:
        directory = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}{STAGING}"
        directory.mkdir()
        with contextlib.suppress(FileNotFoundError):
            stack.enter_context(lock(directory, wait=True))
        if directory.exists():
            return directory


@contextlib.contextmanager
def without_brackets(path: Path) -> Iterator[Path]:
    """Give an equivalent path without brackets, which Orbax 0.12.8 takes for globs."""
    if not is_local(path) or "[" not in str(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as name:
        link = type(path)(name) / "link"
        os.symlink(path.parent, link)
        yield link / path.name


def sweep(target: Path) -> None:
    """Remove the staging directories that killed processes have left beside a target."""
    if not is_local(target) or not target.parent.exists():
        return
    for directory in _staging_directories(target):
        with contextlib.suppress(OSError), lock(directory, wait=False):
            _recover(target, directory)
            _remove(directory)


def install(new: Path, target: Path, *, overwrite: bool) -> None:
    """Move a complete directory to the target, in one step where the system has one.

    What the directory holds is on the disk before it has its name, and its name afterwards, so that
    a power failure leaves the old checkpoint or the new one, too.
    """
    if is_local(new):
        sync_tree(new)
    _rename(new, target, overwrite)
    sync_directory(target.parent)


def _rename(new: Path, target: Path, overwrite: bool) -> None:
    if not overwrite or not target.exists() or not any(target.iterdir()):
        try:
            os.rename(new, target) if is_local(target) else new.rename(target)
        except OSError as error:
            if target.exists() and any(target.iterdir()):
                raise already_exists(target) from error
            raise
        return
    _check_checkpoint(target)
    if not _exchange(new, target):
        old = new.parent / "old"
        target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            old.rename(target)
            raise


@contextlib.contextmanager
def new_file(target: Path, overwrite: bool) -> Iterator[Any]:
    """Open a file beside the target, and move it there when all is written."""
    if not is_local(target):
        with target.open("wb") as file:
            yield file
        return
    sweep(target)
    with staging_directory(target) as directory:
        with open(directory / "new", "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _install_file(directory / "new", target, overwrite)
        sync_directory(target.parent)


def check_free_file(target: Path, overwrite: bool) -> None:
    """Refuse a target that is a directory, or a file that is not to be replaced."""
    if target.is_dir():
        raise CheckpointError(f"{target} is a directory; refusing to replace it with a file")
    if target.exists() and not overwrite:
        raise already_exists(target)


def _install_file(new: Path, target: Path, overwrite: bool) -> None:
    """Move a complete file to the target, in one step."""
    if overwrite:
        os.replace(new, target)
        return
    try:
        os.link(new, target)  # fails where a file exists, which a rename does not
    except FileExistsError as error:
        raise already_exists(target) from error
    except OSError:  # a file system without links
        os.replace(new, target)


def _recover(target: Path, directory: Path) -> None:
    """Put an old checkpoint back, where its replacement was killed between two renames."""
    if (directory / "old").exists() and not target.exists():
        (directory / "old").rename(target)
        sync_directory(target.parent)


def locate(target: Path) -> Path:
    """Return the path to read where a target is missing: a killed overwrite leaves the old one."""
    if target.parent.exists():
        for directory in _staging_directories(target):
            if (directory / "old").exists():
                return directory / "old"
    return target


def _staging_directories(target: Path) -> list[Path]:
    name = re.compile(re.escape(f".{target.name}.") + "[0-9a-f]{8}" + re.escape(STAGING))
    return [x for x in target.parent.iterdir() if name.fullmatch(x.name)]


def _remove(path: Path) -> None:
    if is_local(path):
        for _ in range(3):  # Orbax's threads may still write after one of them has failed
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                break
    elif path.exists():
        path.rmtree()


@contextlib.contextmanager
def lock(directory: Path, *, wait: bool) -> Iterator[None]:
    """Lock a local directory; where another process has the lock, wait or raise BlockingIOError."""
    if not is_local(directory) or sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two directories in one step; return False where this system cannot."""
    if not is_local(a):
        return False
    names = os.fsencode(a), os.fsencode(b)
    libc = ctypes.CDLL(None, use_errno=True)
    at_fdcwd, swap = -100, 2  # RENAME_EXCHANGE on Linux, RENAME_SWAP on macOS
    if hasattr(libc, "renameat2"):
        return bool(libc.renameat2(at_fdcwd, names[0], at_fdcwd, names[1], swap) == 0)
    return hasattr(libc, "renamex_np") and bool(libc.renamex_np(*names, swap) == 0)
