"""Saving and loading through Orbax."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from .._errors import ArgumentTypeError, CheckpointError
from .._leaves import describe
from .._state import loadmodel, state
from .._ties import Ties
from ._encoding import decode, encode

_NAME = "jtree"  # where jtree's part is in the checkpoint's metadata


def save(
    path: str | os.PathLike[str],
    tree: Any,
    /,
    *,
    overwrite: bool = False,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Save the state of a tree as an Orbax checkpoint, with a checksum for every array.

    Args:
      path: a directory that does not exist yet.
      tree: any pytree; `jtree.state(tree)` is saved.
      overwrite: True replaces what is there, once the new checkpoint is complete beside it.
      metadata: JSON of your own, kept with the checkpoint.

    Raises:
      CheckpointError: something is at `path` already, or it cannot be written.
      ModelError: the state holds what cannot be saved.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     save(f"{directory}/model", {"w": np.arange(3), "rates": (0.1, None)})
      ...     load(f"{directory}/model")
      {'rates': (0.1, None), 'w': array([0, 1, 2])}
    """
    target = _path_of(path)
    _check_free(target, overwrite)
    structure, arrays = encode(state(tree))
    beside = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        _write(beside, arrays, {_NAME: structure, "user": metadata or {}})
        _swap(beside, target)
    except Exception as error:
        raise CheckpointError(f"{target} cannot be written: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def load(
    path: str | os.PathLike[str],
    into: Any = None,
    /,
    *,
    verify: bool = True,
    strict: bool = True,
    filter: Callable[[Any], Any] | None = None,
    none: Literal["error", "zero", "keep"] = "error",
    ties: Ties = "references",
) -> Any:
    """Return the state that was saved, or a model like `into` with its numbers.

    Args:
      path: a checkpoint that `save` wrote.
      into: a model, which may be abstract; None returns the state, with NumPy arrays.
      verify: False skips the checksums.
      strict: as in `loadmodel`: False loads what fits.
      filter: as in `loadmodel`: which children to compare.
      none: as in `loadmodel`: what `None` in the checkpoint means.
      ties: as in `loadmodel`: what is one parameter in the model.

    Returns:
      The state, tuples and all; or `loadmodel(into, state)`.

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be read.
      ChecksumError: arrays are not what was written.
      LoadError: the checkpoint does not fit the model.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     save(f"{directory}/model", {"w": jnp.ones(2)})
      ...     load(f"{directory}/model", {"w": jnp.zeros(2, jnp.bfloat16)})
      {'w': Array([1, 1], dtype=bfloat16)}
    """
    source = _path_of(path)
    structure, arrays = _read(source)
    found = decode(structure, arrays, verify=verify)
    if into is None:
        return found
    return loadmodel(into, found, strict=strict, filter=filter, none=none, ties=ties)


def _check_free(target: Path, overwrite: bool) -> None:
    """Refuse a target that is there, unless it is a checkpoint that may be replaced."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise CheckpointError(f"{target} exists already; use overwrite=True to replace it")
    if not (target / "_CHECKPOINT_METADATA").is_file():
        raise CheckpointError(
            f"{target} is there and is no checkpoint, so it is not replaced; use another path"
        )


def _path_of(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise ArgumentTypeError(
            f"expected a path first, found {describe(path)}; write save(path, tree), load(path)"
        )
    if "://" in os.fspath(path):
        raise CheckpointError(f"{os.fspath(path)}: only local paths can be written and read so far")
    return Path(path).resolve()


def _write(path: Path, arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
    from orbax.checkpoint import v1 as ocp

    ocp.save(path, arrays, custom_metadata=metadata)


def _read(path: Path) -> tuple[Any, Any]:
    """Return the structure and the arrays of a checkpoint, these as NumPy arrays."""
    from orbax.checkpoint import v1 as ocp

    if not path.exists():
        raise CheckpointError(f"{path}: there is nothing here")
    try:
        found = ocp.metadata(path)
        target = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), found.metadata)
        arrays = ocp.load(path, target)
    except Exception as error:
        raise CheckpointError(
            f"{path} is there, but it cannot be read as a checkpoint: {error}"
        ) from error
    if _NAME not in (found.custom_metadata or {}):
        raise CheckpointError(f"{path} was not written by jtree.save; read it with Orbax itself")
    return found.custom_metadata[_NAME], arrays


def _swap(beside: Path, target: Path) -> None:
    """Put what is complete beside the target in its place."""
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()
    if not target.exists():
        beside.rename(target)
        return
    old = beside.with_name(beside.name + ".old")
    target.rename(old)
    try:
        beside.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old)
