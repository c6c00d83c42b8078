"""Directories that appear complete or not at all, and what is at a path that is no checkpoint."""

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
from typing import Any, TypeAlias

from ..._errors import ArgumentError, ArgumentTypeError, CheckpointError
from ..._tree.leaves import describe

Path: TypeAlias = Any  # etils.epath.Path: a local path, gs:// or s3://

MARK = "_CHECKPOINT_METADATA"  # the file that every checkpoint of Orbax has
UNFINISHED = ".orbax-checkpoint-tmp"  # is in the names of what Orbax has not completed
_WORK = ".jtree"  # ends the name of a directory that a checkpoint is written in


def as_path(path: object) -> Path:
    """Return a path, absolute where it is local."""
    from etils import epath

    if not isinstance(path, str | os.PathLike):
        raise ArgumentTypeError(
            f"expected a path first, found {describe(path)}; write save(path, tree), load(path)"
        )
    name = os.fsdecode(path)
    if "\0" in name:
        raise ArgumentError(f"{name!r} is no path: it has a NUL in it")
    if is_local(name):
        return epath.Path(os.path.realpath(name))
    try:
        found = epath.Path(name)
        found.exists()
    except Exception as error:  # what reaches the store is a package of its own
        raise CheckpointError(f"{name} cannot be reached: {error}") from error
    return found


def is_local(path: Path) -> bool:
    """Tell whether a path is in this machine's file system."""
    return "://" not in str(path)


def check_free(target: Path, overwrite: bool) -> None:
    """Refuse a target that is there, unless it is a checkpoint that may be replaced."""
    if UNFINISHED in target.name:
        raise CheckpointError(f"{target}: such names are for what is unfinished; use another")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise _exists(target)
    _check_checkpoint(target)


def _check_checkpoint(target: Path) -> None:
    if not (target / MARK).exists():
        raise CheckpointError(
            f"{target} is there and is no checkpoint, so it is not replaced; use another path"
        )


@contextlib.contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """Make a directory beside the target to write in, removed at the end, whatever happens.

    It is locked as long as this process lives, so that `sweep` knows those that nobody needs.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        work = _claim(target, stack)
        try:
            yield work
        finally:
            _remove(work)


@contextlib.contextmanager
def scratch(target: Path) -> Iterator[pathlib.Path]:
    """Make a local directory for what is needed in between: beside a local target."""
    if is_local(target):
        with workplace(target) as work:
            yield pathlib.Path(work)
    else:
        with tempfile.TemporaryDirectory() as directory:
            yield pathlib.Path(directory)


def _claim(target: Path, stack: contextlib.ExitStack) -> Path:
    """Make and lock a directory; again, where another process swept it away in between."""
    while True:
        work = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}{_WORK}"
        work.mkdir()
        with contextlib.suppress(FileNotFoundError):
            stack.enter_context(_lock(work, wait=True))
        if work.exists():
            return work


@contextlib.contextmanager
def without_brackets(path: Path) -> Iterator[Path]:
    """Give a path that means the same, and has no brackets: Orbax 0.12.8 takes them for globs."""
    if not is_local(path) or "[" not in str(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as directory:
        link = type(path)(directory) / "link"
        os.symlink(path.parent, link)
        yield link / path.name


def sweep(target: Path) -> None:
    """Remove what processes that were killed have left beside a target."""
    if not is_local(target) or not target.parent.exists():
        return
    for work in _workplaces(target):
        with contextlib.suppress(OSError), _lock(work, wait=False):
            _recover(target, work)
            _remove(work)


def install(new: Path, target: Path, *, overwrite: bool) -> None:
    """Put a complete directory in the target's place, in one step where the system has one."""
    if not overwrite or not target.exists() or not any(target.iterdir()):
        try:
            os.rename(new, target) if is_local(target) else new.rename(target)
        except OSError as error:
            if target.exists() and any(target.iterdir()):
                raise _exists(target) from error
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


def _recover(target: Path, work: Path) -> None:
    """Put an old checkpoint back, where its replacement was killed between two renames."""
    if (work / "old").exists() and not target.exists():
        (work / "old").rename(target)


def locate(target: Path) -> Path:
    """Return where a checkpoint can be read: at its path, or where a killed overwrite left it."""
    if not target.exists() and target.parent.exists():
        for work in _workplaces(target):
            if (work / "old").exists():
                return work / "old"
    return target


def _workplaces(target: Path) -> list[Path]:
    name = re.compile(re.escape(f".{target.name}.") + "[0-9a-f]{8}" + re.escape(_WORK))
    return [x for x in target.parent.iterdir() if name.fullmatch(x.name)]


def _remove(path: Path) -> None:
    if is_local(path):
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.rmtree()


def _exists(target: Path) -> CheckpointError:
    return CheckpointError(f"{target} exists already; use overwrite=True to replace it")


@contextlib.contextmanager
def _lock(directory: Path, *, wait: bool) -> Iterator[None]:
    """Lock a local directory; where another process has it, wait, or raise OSError."""
    if not is_local(directory) or sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two directories in one step; return False where this system cannot."""
    if not is_local(a):
        return False
    names = os.fsencode(a), os.fsencode(b)
    libc = ctypes.CDLL(None, use_errno=True)
    here, swap = -100, 2  # AT_FDCWD; RENAME_EXCHANGE on Linux, RENAME_SWAP on macOS
    if hasattr(libc, "renameat2"):
        return bool(libc.renameat2(here, names[0], here, names[1], swap) == 0)
    return hasattr(libc, "renamex_np") and bool(libc.renamex_np(*names, swap) == 0)
