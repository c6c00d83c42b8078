"""Saving as a file in the format of another library, complete or not at all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from .._arguments import unexpected
from .._errors import ArgumentError, ArgumentTypeError, CheckpointError, JtreeError
from .._tree import paths
from .._tree.leaves import BASIC, isarray
from .._tree.walk import Walk, walk
from ._formats.registry import FILE_FORMATS
from ._storage import atomic
from ._storage.durable import full_error, is_full
from ._storage.paths import Path, is_local

logger = logging.getLogger("jtree")


def begin_file(
    target: Path,
    tree: Any,
    state: Any,
    name: str,
    *,
    overwrite: bool,
    metadata: Any,
    copy: bool,
    types: Mapping[str, str],
) -> Callable[[], None]:
    """Check everything, and return a function that writes the file.

    Args:
      target: the path of the file.
      tree: any pytree.
      state: the same in basic containers.
      name: the name of the format.
      overwrite: whether a file at the target is replaced.
      metadata: a dict from str to str, for a format that holds it.
      copy: whether arrays are copied, since they may change before they are written.
      types: the Julia types of what was opened.
    """
    file_format = FILE_FORMATS[name]
    _check_metadata(name, metadata)
    walked = walk(tree).check()
    content = state if file_format.nested else _arrays(walked)
    file_format.check(content)
    atomic.check_free_file(target, overwrite)
    if not file_format.nested:
        _warn_of_omissions(name, walked)
    if copy:
        content = walk(content, ties=()).fold(_copy, _copy_node)

    beside = types if file_format.ordered else metadata or {}
    size = sum(getattr(x, "nbytes", 0) for x in jax.tree.leaves(content))

    def finish() -> None:
        try:
            with atomic.new_file(target, overwrite) as file:
                file_format.write(file, content, beside)
        except JtreeError:
            raise
        except OSError as error:
            if is_full(error) and is_local(target):
                raise full_error(target, size) from error
            raise CheckpointError(f"{target} cannot be written: {error}") from error
        except UnicodeError as error:
            raise CheckpointError(f"{target} cannot be written: {error}") from error

    return finish


def _arrays(walked: Walk) -> dict[str, Any]:
    return {slot.path: slot.value for slot in walked.slots if isarray(slot.value)}


def _copy(x: Any) -> Any:
    return np.array(x) if isinstance(x, np.ndarray | jax.Array) else x


def _copy_node(node: Any, names: list[Any], copies: list[Any]) -> Any:
    """Return a container of copies; a dict keeps its order, which `jax.tree.map` sorts."""
    if not isinstance(node, dict):
        return type(node)(copies)
    by_name = dict(zip(names, copies, strict=True))
    return {key: by_name[key] for key in node}


def _check_metadata(name: str, metadata: Any) -> None:
    if metadata is not None and not isinstance(metadata, dict):
        raise unexpected("metadata", "a dict", metadata)
    if not metadata:
        return
    if not FILE_FORMATS[name].metadata:
        raise ArgumentError(
            f"metadata: {name} files do not hold any; use format='safetensors' or 'orbax'"
        )
    for key, x in metadata.items():
        if not (isinstance(key, str) and isinstance(x, str)):
            wrong = x if isinstance(key, str) else key
            raise ArgumentTypeError(
                f"{name} metadata maps str to str; found {type(wrong).__name__} for {key!r}; use "
                "str(...) or json.dumps(...)"
            )


def _warn_of_omissions(name: str, walked: Walk) -> None:
    """Warn of leaves that are left out and may be data: numbers and text in plain containers."""
    nodes = dict(walked.nodes)
    omitted = [
        slot.path
        for slot in walked.slots
        if isinstance(slot.value, BASIC)
        and slot.value is not None
        and not isinstance(slot.value, bool)
        and type(nodes.get(slot.path.rpartition(paths.SEPARATOR)[0])) in (dict, list, tuple)
    ]
    if omitted:
        logger.warning(
            "%s files hold arrays only; left out: %s; keep them with metadata= or format='orbax'",
            name,
            paths.shorten(omitted),
        )
