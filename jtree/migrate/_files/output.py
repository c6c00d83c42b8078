"""Staged arrays written in one of the formats, and what is in the way of that."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp

from ..._errors import ArgumentError, CheckpointError, RuleError
from ..._progress import progress_bar
from ..._tree import paths as _path
from ..._tree.lazy import LazyArray, batches, read_all, read_batch_bytes
from ..._tree.leaves import describe
from ..._tree.walk import walk
from ...checkpoint import save, save_as
from ...checkpoint._checkpoint import Checkpoint, open_checkpoint
from ...checkpoint._formats import write as _write
from ...checkpoint._orbax.checksum import checksum
from ...checkpoint._storage.staging import Staged
from .._rules.apply import Migrated

FORMATS: Final = ("orbax", "safetensors", "npz")


def chosen_format(target: Path, format: str | None) -> str:
    """Return the format that is asked for, or that the end of a path says."""
    found = format or target.suffix.removeprefix(".") or "orbax"
    if found not in FORMATS:
        wanted = ", ".join(FORMATS)
        raise ArgumentError(f"{target}: expected a format of {wanted}, found {found!r}; say which")
    return found


def iskey(x: LazyArray) -> bool:
    """Tell whether an array is one of PRNG keys."""
    return bool(jnp.issubdtype(x.dtype, jax.dtypes.extended))


def check_paths(found: Migrated, format: str) -> None:
    """Refuse what cannot be in one tree, or in a format."""
    for path in found:
        for above in _path.ancestors(path) if format == "orbax" else ():
            if above in found and above != path:
                raise RuleError(
                    f"{_path.show(above)} is an array, and {path} is below it: they cannot be in "
                    "one tree; rename one of them"
                )
    if format != "orbax":
        _write.check(format, found)


def left_out(opened: Checkpoint, found: Migrated, format: str) -> tuple[str, ...]:
    """Return the paths of leaves that are no arrays and will not be written."""
    if format == "orbax" and found.keys() == opened.keys():
        return ()
    return tuple(path for path, x in found.others.items() if x is not None)


def write(
    new: Path, opened: Checkpoint, found: Migrated, staged: Staged, format: str, shown: bool
) -> None:
    """Write staged arrays as a checkpoint."""
    lazy = dict(zip(staged.arrays, staged.lazy(), strict=True))
    arrays = {path: lazy.get(x, x) for path, x in found.items()}  # keys are not staged
    metadata = _metadata(opened, format)
    if format != "orbax":
        save_as(new, arrays, format=format, metadata=metadata)  # type: ignore[arg-type]
        return
    tree = Checkpoint(str(new), "staged", _tree(opened, arrays), metadata, found.ties, staged)
    save(new, tree, metadata=metadata, progress=shown)


def wrong_in(new: Path, found: Migrated, staged: Staged, shown: bool) -> dict[str, str]:
    """Read what was written, and return what is wrong with it, by path."""
    try:
        written = open_checkpoint(new, shown=False)
    except CheckpointError as error:
        return {"": str(error)}
    wrong = {path: text for path, x in found.items() if (text := _differs(written.get(path), x))}
    checksums = {x: staged.checksums[n] for n, x in enumerate(staged.arrays)}
    paths: dict[LazyArray, list[str]] = {}
    for path, x in found.items():
        if path not in wrong and x in checksums:  # keys have none
            paths.setdefault(written[path], []).append(path)
    with progress_bar("verifying", sum(x.nbytes for x in paths), shown=shown) as bar:
        for batch in batches(paths, read_batch_bytes(paths)):
            for x, crc32 in _checksums(batch).items():
                others = {path: crc32 for path in paths[x] if crc32 != checksums[found[path]]}
                wrong |= {path: _MADE if isinstance(y, int) else y for path, y in others.items()}
            bar.advance(sum(x.nbytes for x in batch))
    extra = written.keys() - found.keys()
    return wrong | dict.fromkeys(sorted(extra), "expected nothing, found an array")


_MADE = "expected the numbers that were made, found others"


def _differs(written: LazyArray | None, x: LazyArray) -> str | None:
    if written is not None and describe(written) == describe(x):
        return None
    return f"expected {describe(x)}, found {'nothing' if written is None else describe(written)}"


def _checksums(batch: list[LazyArray]) -> dict[LazyArray, Any]:
    """Return the checksum of each array, or text that says why it cannot be read."""
    try:
        return {x: checksum(array) for x, array in read_all((x, None) for x in batch).items()}
    except CheckpointError:
        return {x: _checksum(x) for x in batch}


def _checksum(x: LazyArray) -> Any:
    try:
        return checksum(x.read())
    except CheckpointError as error:
        return str(error)


def _metadata(opened: Checkpoint, format: str) -> dict[str, Any] | None:
    """Return what a format can keep of the source's metadata."""
    if not isinstance(opened.metadata, dict) or not opened.metadata or format == "npz":
        return None
    if format == "orbax":
        return opened.metadata
    return {k: x if isinstance(x, str) else json.dumps(x) for k, x in opened.metadata.items()}


def _tree(opened: Checkpoint, values: Mapping[str, Any]) -> Any:
    """Return the tree of the source with other arrays; where paths differ, nested dicts."""
    if values.keys() == opened.keys():
        walked = walk(opened.tree, ties=())
        return walked.rebuild([values.get(x.path, x.value) for x in walked.slots])
    if set(values) == {""}:
        return values[""]
    tree: dict[str, Any] = {}
    for path, x in values.items():
        *above, last = path.split(_path.SEPARATOR)
        node = tree
        for step in above:
            node = node.setdefault(step, {})
        node[last] = x
    return tree


def remove(path: Path) -> None:
    """Remove a file or a directory, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
