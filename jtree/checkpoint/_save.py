"""Saving: as an Orbax checkpoint, or as a file in the format of another library."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from typing import Any, Literal, TypeAlias

from .._arguments import check_flag
from .._errors import ArgumentError, ModelError
from .._state.sources import resolve
from .._state.state import ordered_state, state
from .._tree import paths
from .._tree.leaves import isarray
from .._tree.opaque import (
    basic_remedy,
    check_opened,
    describe_opaque,
    holds_arrays,
    ismasked,
    remedy,
    unstorable,
)
from .._tree.walk import walk
from ._background import Saving, run_in_background, wait_for
from ._checkpoint import Checkpoint
from ._export import begin_file
from ._formats.registry import (
    FILE_FORMATS,
    FLUX_STATE,
    FLUX_STATE_SUFFIXES,
    FORMAT_NAMES,
    READ_ONLY,
)
from ._orbax.decoding import Ties
from ._orbax.write import begin_write
from ._storage.paths import Path, as_path

_MOST = 10  # leaves that an error names in full

Format: TypeAlias = Literal["orbax", "safetensors", "npz", "npy", "msgpack", "flux-state"]


def save(
    path: str | os.PathLike[str],
    tree: Any,
    /,
    *,
    format: Format | None = None,
    overwrite: bool = False,
    packed: bool | None = None,
    metadata: dict[str, Any] | None = None,
    progress: bool = True,
) -> None:
    """Save a tree: as an Orbax checkpoint that holds all of its state, or as a file of arrays.

    What `path` holds is complete at every moment, the old checkpoint or the new one, even if the
    process is killed.

    The format follows the suffix of `path`:

    - `.safetensors`, `.npz` and `.npy` hold arrays by their paths. Fields of a model that are not
      arrays are left out; so are numbers and text in dicts and lists, with a warning that names
      them.
    - `.msgpack` holds what `jtree.state` returns, with sequences as dicts, as Flax writes them.
    - `.bson` and `.jld2` hold the same as named tuples under the name `model_state`, which
      `Flux.loadmodel!` of Julia reads; a dict with the key `model_state` is the file itself.
    - Any other path is an Orbax directory, with a checksum for every array. What is tied by
      reference is stored once; files store tied arrays at each of their paths.

    Args:
      path: a path that does not exist yet. For Orbax, `gs://` and `s3://` are paths too.
      tree: any pytree, an opened checkpoint, or the path of one.
      format: `"orbax"`, `"safetensors"`, `"npz"`, `"npy"`, `"msgpack"` or `"flux-state"`, whatever
        the suffix.
      overwrite: True replaces the checkpoint at `path` once the new one is complete beside it.
      packed: True stores all arrays of up to a mebibyte as one, so that thousands of them cost
        what one costs. Plain Orbax then sees their bytes only. False stores each by its path. By
        default more than 5,000 are packed.
      metadata: any JSON for Orbax, a dict from str to str for safetensors;
        `jtree.open(path).metadata` returns it.
      progress: False shows no progress bar. A bar appears on a terminal only, for more than 1 GB
        or after 2 seconds.

    Raises:
      ArgumentError: the format cannot be written or cannot hold the metadata.
      CheckpointError: something is at `path` already, or it cannot be written.
      ModelError: the tree holds something that cannot be saved; the message names every path.
        Functions and types are configuration, and are left out; other objects that JAX does not
        open are errors, and so are enums and other subclasses of basic types.

    Example:
      >>> import tempfile
      >>> directory = tempfile.mkdtemp()
      >>> jtree.save(f"{directory}/model", {"w": np.arange(3), "rates": (0.1, None)})
      >>> jtree.load(f"{directory}/model")
      {'rates': (0.1, None), 'w': array([0, 1, 2])}
      >>> jtree.save(f"{directory}/model.safetensors", {"layers": [{"w": np.ones(2)}]})
      >>> jtree.load(f"{directory}/model.safetensors")
      {'layers/0/w': array([1., 1.])}
    """
    options = overwrite, packed, metadata
    begin_save(path, tree, format, *options, shown=progress, copy=False)()


def save_async(
    path: str | os.PathLike[str],
    tree: Any,
    /,
    *,
    format: Format | None = None,
    overwrite: bool = False,
    packed: bool | None = None,
    metadata: dict[str, Any] | None = None,
) -> Saving:
    """Save in the background, as `save` does, while training continues.

    The values at the time of the call are saved: NumPy arrays are copied, and JAX arrays may be
    donated or deleted afterwards.

    Args: those of `save`.

    Returns:
      A `Saving`, which is a `concurrent.futures.Future`: `result()` waits until the checkpoint is
      in place, and raises what went wrong.

    Raises:
      ArgumentError: the format cannot be written or cannot hold the metadata.
      CheckpointError: something is at `path` already.
      ModelError: the tree holds something that cannot be saved; the message names its path.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     saving = jtree.save_async(f"{directory}/model", {"w": np.arange(3)})
      ...     saving.result()
      ...     jtree.load(f"{directory}/model")
      {'w': array([0, 1, 2])}
    """
    options = overwrite, packed, metadata
    finish = begin_save(path, tree, format, *options, shown=False, copy=True)
    return run_in_background(str(as_path(path)), finish)


def select_format(path: Path, format: str | None) -> str:
    """Return the given format, or the one that the suffix of the path names."""
    suffix = path.suffix.lower().removeprefix(".")
    if format is not None:
        if not isinstance(format, str) or format not in FORMAT_NAMES:
            expected = ", ".join(map(repr, FORMAT_NAMES))
            raise ArgumentError(f"format: expected one of {expected}, found {format!r}")
        if format != FLUX_STATE:
            return format
        return suffix if suffix in FLUX_STATE_SUFFIXES else FLUX_STATE_SUFFIXES[0]
    name = path.name.lower()
    for ending, library in READ_ONLY.items():
        if name.endswith(ending):
            raise ArgumentError(
                f"{path}: {library} files can be read but not written; save to a path that ends "
                "in .safetensors, or pass format='orbax' for a directory of this name"
            )
    return suffix if suffix in FILE_FORMATS else "orbax"


def begin_save(
    path: object,
    tree: Any,
    format: str | None,
    overwrite: bool,
    packed: bool | None,
    metadata: dict[str, Any] | None,
    *,
    shown: bool,
    copy: bool,
    metrics: Any = None,
) -> Callable[[], None]:
    """Check everything, begin to write, and return a function that waits for the end."""
    check_flag("overwrite", overwrite)
    check_flag("progress", shown)
    if packed is not None:
        check_flag("packed", packed)
    target = as_path(path)
    wait_for(str(target))
    name = select_format(target, format)
    if packed and name != "orbax":
        raise ArgumentError(
            f"packed=True is for Orbax directories, and {target} is saved as {name}; leave it out, "
            "or pass format='orbax'"
        )
    source = resolve(tree) if _is_path(tree) else tree
    content = source.tree if isinstance(source, Checkpoint) else source
    options: dict[str, Any] = {"overwrite": overwrite, "metadata": metadata, "copy": copy}
    try:
        _check_storable(content, name)
        if name != "orbax":
            as_state = ordered_state if FILE_FORMATS[name].ordered else state
            options["types"] = source.types if isinstance(source, Checkpoint) else {}
            return begin_file(target, content, as_state(content), name, **options)
        ties = source.ties if isinstance(source, Checkpoint) else _reference_ties(content)
        options |= {"packed": packed, "shown": shown, "metrics": metrics}
        return begin_write(target, state(content), ties, **options)
    except RecursionError as error:
        raise ModelError(f"{target} cannot be written: the tree is nested too deeply") from error


def _check_storable(tree: Any, name: str) -> None:
    """Refuse leaves that would be lost; functions and types are configuration, and are not."""
    walked = walk(tree, ties=())
    leaves = unstorable(walked)
    if name != "orbax":  # each format of a file has its own dtypes
        leaves = {p: x for p, x in leaves.items() if not isarray(x) or ismasked(x)}
    if len(leaves) == 1:
        ((path, x),) = leaves.items()
        raise ModelError(f"{paths.show(path)}: cannot save {describe_opaque(x)}; {_remedy(x)}")
    if leaves:
        lines = [
            f"  {paths.show(path)}: {describe_opaque(x)}; {_remedy(x)}"
            for path, x in islice(leaves.items(), _MOST)
        ]
        more = [f"  ... and {len(leaves) - _MOST:,} more"] if len(leaves) > _MOST else []
        raise ModelError("\n".join([f"cannot save {len(leaves):,} leaves", *lines, *more]))
    check_opened(walked)


def _remedy(x: Any) -> str:
    if isarray(x):
        return "save an array of a numeric dtype, without a mask"
    return remedy(x) if holds_arrays(x) else basic_remedy(x)


def _is_path(tree: object) -> bool:
    """Return whether a tree is the path of a checkpoint; other text is a leaf."""
    if isinstance(tree, str):
        return "://" in tree or ("\0" not in tree and os.path.exists(os.path.expanduser(tree)))
    return isinstance(tree, os.PathLike)


def _reference_ties(tree: Any) -> Ties:
    """Return the paths of each array that is at several, under one reference object."""
    groups: dict[int, list[str]] = {}
    for slot in walk(tree).slots:
        if isarray(slot.value):
            groups.setdefault(slot.tie, []).append(slot.path)
    return tuple(tuple(paths) for paths in groups.values() if len(paths) > 1)
