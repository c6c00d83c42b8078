"""Opening: what a checkpoint or a file of another library holds, without reading its arrays."""

from __future__ import annotations

import os
from typing import Any

from .._arguments import check_flag
from .._errors import CheckpointError, JtreeError, ModelError
from .._state.sources import open_for, open_tree, resolve
from .._tree import paths
from ._checkpoint import Checkpoint
from ._formats.detect import open_file
from ._formats.file import FileContents
from ._orbax import api
from ._orbax.arrays import OrbaxArrays
from ._orbax.contained import check_contained
from ._orbax.decoding import KEY, decode
from ._orbax.foreign import ForeignArrays
from ._positional import assign_by_position
from ._storage import atomic
from ._storage.paths import MARK, Path, as_path

_MAX_PARTS = 200  # of a path: printing a tree visits all that is above each of its leaves


def open(path: str | os.PathLike[str], /, *, verify: bool = True) -> Checkpoint:
    """Open a checkpoint or a file of another library, without reading its arrays.

    The format is detected by content, not by name: Orbax, version 1 or a step directory of version
    0, with or without jtree's part; safetensors and PyTorch, one file or shards; msgpack of Flax;
    npz and npy; Keras and HDF5; Equinox, which has no names; BSON of Flux.jl. No code in a file is
    ever run.

    Args:
      path: a file or a directory.
      verify: False skips checksums when arrays are read, where the format has them.

    Returns:
      A `Checkpoint`: a mapping from paths to arrays, each of which is read on demand, into memory
      of its own. It prints as a tree, and stands for the checkpoint wherever a path does.

    Raises:
      CheckpointError: nothing at the path can be read; the message describes what is there
        instead.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     np.savez(f"{directory}/weights", kernel=np.ones((2, 3)))
      ...     checkpoint = jtree.open(f"{directory}/weights.npz")
      ...     print(checkpoint.format, dict(checkpoint), checkpoint["kernel"].read().sum())
      npz {'kernel': LazyArray(float64[2, 3])} 6.0
    """
    return open_checkpoint(path, verify=verify)


def open_checkpoint(path: object, *, verify: bool = True, shown: bool = True) -> Checkpoint:
    """Return an opened checkpoint; `shown` allows a progress bar when its arrays are read."""
    check_flag("verify", verify)
    check_flag("progress", shown)
    located = as_path(path)
    if not located.exists():
        located = atomic.locate(located)
    elif not (located / MARK).exists():
        contents = open_file(located, verify=verify)
        if contents is not None:
            return _open_contents(located, contents)
    if (located / MARK).exists():
        check_contained(located)
    metadata = api.custom_metadata(located)
    if isinstance(metadata, dict) and KEY in metadata:
        return _open_jtree(located, metadata[KEY], verify, shown)
    with api.quiet():
        return _open_foreign(located)


def _open_foreign(path: Path) -> Checkpoint:
    """Return a checkpoint that Orbax wrote alone."""
    try:
        foreign = api.open_foreign(path)
        source = ForeignArrays(path, foreign.items)
        tree = source.tree()
    except JtreeError:
        raise
    except Exception as error:  # Orbax trusts what it reads
        raise api.unreadable(path, error) from error
    name = f"Orbax {foreign.version}"
    return _as_checkpoint(path, name, tree, foreign.metadata, (), source)


def _open_contents(path: Path, contents: FileContents) -> Checkpoint:
    """Return the contents of a file of another library as a checkpoint."""
    name, tree, metadata, source, ties, types = contents
    return _as_checkpoint(path, name, tree, metadata, ties, source, types)


def _as_checkpoint(
    path: Path, name: str, tree: Any, metadata: Any, ties: Any, source: Any, *types: Any
) -> Checkpoint:
    """Return a checkpoint; names that jtree did not write must be text that can be printed."""
    try:
        checkpoint = Checkpoint(str(path), name, tree, metadata, ties, source, *types)
        for entry in checkpoint:
            entry.encode(errors="surrogatepass" if name == "jtree" else "strict")
            if entry.count(paths.SEPARATOR) > _MAX_PARTS:
                raise CheckpointError(
                    f"{path}: {entry:.80} has more than {_MAX_PARTS} parts, which a path cannot"
                )
    except (ModelError, UnicodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot use the names in it: {error}") from error
    return checkpoint


def _open_jtree(path: Path, structure: Any, verify: bool, shown: bool) -> Checkpoint:
    source = OrbaxArrays(path, verify=verify, shown=shown)
    try:
        tree, ties = decode(structure, source.add)
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error
    checkpoint = _as_checkpoint(path, "jtree", tree, structure["metadata"], ties, source)
    _check_ties(checkpoint)
    for name, x in reversed(list(checkpoint.items())):
        source.paths[x.name] = name
    return checkpoint


def _check_ties(checkpoint: Checkpoint) -> None:
    """Refuse ties to leaves that are not arrays, and one array at paths that are not tied."""
    tied = {path: i for i, group in enumerate(checkpoint.ties) for path in group}
    group_of: dict[Any, int | None] = {}
    for path, x in checkpoint.items():
        group = tied.pop(path, None)
        if x in group_of and (group is None or group_of[x] != group):
            raise CheckpointError(
                f"{checkpoint.path}: malformed structure of the state: {path:.80} has the array of "
                "another path without a tie"
            )
        group_of[x] = group
    if tied:
        raise CheckpointError(
            f"{checkpoint.path}: malformed structure of the state: a tie to {min(tied):.80}, where "
            "there is no array"
        )


@open_for.register
def _(checkpoint: Checkpoint, dst: Any) -> Any:
    if checkpoint.format != "Equinox":
        return checkpoint.tree
    return assign_by_position(checkpoint.path, list(checkpoint.values()), dst)


@resolve.register(str)
@resolve.register(os.PathLike)
def _(path: Any) -> Any:
    return open_checkpoint(path)


@open_tree.register(str)
@open_tree.register(os.PathLike)
def _(path: Any) -> Any:
    return open_checkpoint(path).tree
