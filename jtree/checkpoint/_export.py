"""Saving in the formats of other libraries: one file, complete or not there."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

from .._errors import ArgumentError, ArgumentTypeError, CheckpointError, JtreeError
from .._state.sources import open_tree
from .._tree import paths
from .._tree.leaves import BASIC, isarray
from .._tree.walk import Walk, walk
from ._checkpoint import Checkpoint, open_checkpoint
from ._formats import write as _write
from ._save import save
from ._storage import atomic

Format: TypeAlias = Literal["orbax", "safetensors", "npz", "npy", "msgpack"]

logger = logging.getLogger("jtree")
FORMATS = ("orbax", "safetensors", "npz", "npy", "msgpack")


def save_as(
    path: str | os.PathLike[str],
    tree: Any,
    /,
    *,
    format: Format | None = None,
    overwrite: bool = False,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Save a tree's arrays in the format of another library, one array in memory at a time.

    What is at `path` is at every moment the old file or the new one, complete.

    - safetensors, npz and npy hold arrays by their paths, and nothing else. Fields of a model that
      are no arrays are left out; so are numbers and text in dicts and lists, with a warning that
      names them.
    - msgpack holds what `jtree.state` returns; sequences become dicts, as Flax has it.
    - What is tied is stored at each of its places, so that any library finds it there.
    - orbax is `jtree.save`, which holds everything, and keeps what is tied. What is in files
      goes through another one beside `path`, which takes as much space as its arrays for as long.

    Args:
      path: a file that does not exist yet.
      tree: any pytree, an opened checkpoint, or the path of one.
      format: one of these; None goes by the end of `path`, and without one it is orbax.
      overwrite: True replaces a file that is there, once the new one is complete beside it.
      metadata: for safetensors a dict of text, for orbax any JSON.

    Raises:
      CheckpointError: something is at `path` already, or it cannot be written.
      ModelError: the format cannot hold an array; the message names it.
      ArgumentError: there is no such format, or it has no place for metadata.

    Example:
      >>> import tempfile
      >>> from jtree import load
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     save_as(f"{directory}/model.safetensors", {"layers": [{"w": jnp.ones(2)}]})
      ...     load(f"{directory}/model.safetensors")
      {'layers/0/w': array([1., 1.], dtype=float32)}
    """
    target = atomic.as_path(path)
    chosen = _chosen(target, format)
    if chosen == "orbax":
        save(path, _source(tree), overwrite=overwrite, metadata=metadata)
        return
    held = open_tree(tree)
    _check_metadata(chosen, metadata)
    walked = walk(held).check()
    write = _writer(chosen, walked, held, metadata or {})
    with _new_file(target, overwrite) as file:
        write(file)


def _source(tree: Any) -> Any:
    """Return what `save` saves with its ties: an opened checkpoint, or the tree."""
    if isinstance(tree, str | os.PathLike):
        return open_checkpoint(tree, shown=False)
    return tree if isinstance(tree, Checkpoint) else open_tree(tree)


def _chosen(target: Any, format: str | None) -> str:
    """Return the format that is asked for, or that the end of a path says."""
    suffix = target.suffix.removeprefix(".")
    found = format if format is not None else suffix or "orbax"
    if found not in FORMATS:
        wanted = ", ".join(map(repr, FORMATS))
        raise ArgumentError(f"format: expected one of {wanted}, found {found!r}; give format=")
    return found


def _check_metadata(format: str, metadata: Any) -> None:
    if not metadata:
        return
    if format != "safetensors":
        raise ArgumentError(
            f"metadata: {format} has no place for it; use format='safetensors' or 'orbax'"
        )
    pairs = metadata.items() if isinstance(metadata, dict) else [(None, metadata)]
    wrong = [key for key, x in pairs if not (isinstance(key, str) and isinstance(x, str))]
    if wrong:
        raise ArgumentTypeError(
            f"metadata: safetensors holds a dict of text; {wrong[0]!r} is none; write "
            "str(...) or json.dumps(...) of it"
        )


def _writer(
    format: str, walked: Walk, tree: Any, metadata: dict[str, str]
) -> Callable[[Any], None]:
    """Return a function that writes into a file."""
    if format == "msgpack":
        return lambda file: _write.write_msgpack(file, tree)
    arrays = {slot.path: slot.value for slot in walked.slots if isarray(slot.value)}
    _report(format, walked)
    write = {
        "safetensors": _write.write_safetensors,
        "npz": _write.write_npz,
        "npy": _write.write_npy,
    }[format]
    return lambda file: write(file, arrays, metadata)


def _report(format: str, walked: Walk) -> None:
    """Warn of what is left out that may be data: numbers and text in plain containers."""
    nodes = dict(walked.nodes)
    lost = [
        slot.path
        for slot in walked.slots
        if isinstance(slot.value, BASIC)
        and slot.value is not None
        and not isinstance(slot.value, bool)
        and type(nodes.get(slot.path.rpartition(paths.SEPARATOR)[0])) in (dict, list, tuple)
    ]
    if lost:
        logger.warning(
            "%s holds arrays only; left out: %s; keep them with metadata= or format='orbax'",
            format,
            paths.shorten(lost),
        )


@contextlib.contextmanager
def _new_file(target: atomic.Path, overwrite: bool) -> Iterator[Any]:
    """Open a file beside the target, and put it in its place when all is written."""
    _check_free(target, overwrite)
    try:
        if not atomic.is_local(target):
            with target.open("wb") as file:
                yield file
            return
        atomic.sweep(target)
        with atomic.workplace(target) as work:
            with open(work / "new", "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _install(work / "new", target, overwrite)
    except JtreeError:
        raise
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written: {error}") from error


def _check_free(target: atomic.Path, overwrite: bool) -> None:
    if target.is_dir():
        raise CheckpointError(f"{target} is a directory, and is not replaced; use another path")
    if target.exists() and not overwrite:
        raise CheckpointError(f"{target} exists already; use overwrite=True to replace it")


def _install(new: Any, target: Any, overwrite: bool) -> None:
    """Put a complete file in its place, in one step; what is there stays unless asked."""
    if overwrite:
        os.replace(new, target)
        return
    try:
        os.link(new, target)  # fails where something is, which a rename does not
    except FileExistsError as error:
        raise CheckpointError(
            f"{target} exists already; use overwrite=True to replace it"
        ) from error
    except OSError:  # a file system without links
        os.replace(new, target)
