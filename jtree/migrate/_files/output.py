"""Output of a file conversion: the tree and metadata to write, and the check of the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..._errors import CheckpointError, RuleError
from ..._progress import progress_bar
from ..._tree import paths as _paths
from ..._tree.lazy import LazyArray, batches, read_all, read_batch_bytes
from ..._tree.leaves import describe
from ...checkpoint._orbax.checksum import checksum
from ...checkpoint._storage.staging import Staged

_DIFFERENT = "expected the values that were computed, found others"


def is_key(x: LazyArray) -> bool:
    """Return whether an array holds PRNG keys."""
    return bool(jnp.issubdtype(x.dtype, jax.dtypes.extended))


def check_nesting(arrays: Mapping[str, LazyArray]) -> None:
    """Refuse an array whose path is above that of another, since one tree cannot hold both."""
    for path in arrays:
        for ancestor in _paths.ancestors(path):
            if ancestor in arrays and ancestor != path:
                raise RuleError(
                    f"{_paths.show(ancestor)} is an array, so {path} cannot be below it; rename "
                    "one of them"
                )


def nest(values: Mapping[str, Any]) -> Any:
    """Return nested dicts of values, whose paths are these; the value alone where it is the root.

    >>> nest({"layers/0/w": 1, "layers/0/b": 2})
    {'layers': {'0': {'w': 1, 'b': 2}}}
    """
    if set(values) == {""}:
        return values[""]
    tree: dict[str, Any] = {}
    for path, x in values.items():
        *outer, last = path.split(_paths.SEPARATOR)
        node = tree
        for segment in outer:
            node = node.setdefault(segment, {})
        node[last] = x
    return tree


def convert_metadata(metadata: Any, format: str) -> dict[str, Any] | None:
    """Return what a format can hold of the metadata of a source."""
    if not isinstance(metadata, dict) or not metadata or format == "npz":
        return None
    if format == "orbax":
        return metadata
    return {key: x if isinstance(x, str) else json.dumps(x) for key, x in metadata.items()}


def find_problems(
    written: Mapping[str, LazyArray], arrays: Mapping[str, LazyArray], staged: Staged, shown: bool
) -> dict[str, str]:
    """Read what was written, and return how it differs from the staged arrays, by path."""
    expected = {x: staged.checksums[n] for n, x in enumerate(staged.arrays)}
    pairs = {path: (written.get(path), x) for path, x in arrays.items()}
    problems = {path: text for path, pair in pairs.items() if (text := _compare_types(*pair))}
    checksums: dict[LazyArray, dict[str, int]] = {}
    for path, x in arrays.items():
        if path not in problems and x in expected:  # PRNG keys are not staged
            checksums.setdefault(written[path], {})[path] = expected[x]
    with progress_bar("verifying", sum(x.nbytes for x in checksums), shown=shown) as bar:
        for batch in batches(checksums, read_batch_bytes(checksums)):
            for x, crc32 in _checksums(batch).items():
                different = [path for path, n in checksums[x].items() if n != crc32]
                text = _DIFFERENT if isinstance(crc32, int) else crc32
                problems |= dict.fromkeys(different, text)
            bar.advance(sum(x.nbytes for x in batch))
    extra = sorted(written.keys() - arrays.keys())
    return problems | dict.fromkeys(extra, "expected nothing, found an array")


def _compare_types(written: LazyArray | None, x: LazyArray) -> str | None:
    if written is not None and describe(written) == describe(x):
        return None
    return f"expected {describe(x)}, found {'nothing' if written is None else describe(written)}"


def _checksums(batch: list[LazyArray]) -> dict[LazyArray, Any]:
    """Return the checksum of each array, or the text of the error where it cannot be read."""
    try:
        return {x: checksum(array) for x, array in read_all((x, None) for x in batch).items()}
    except CheckpointError:
        return {x: _checksum(x) for x in batch}


def _checksum(x: LazyArray) -> Any:
    try:
        return checksum(x.read())
    except CheckpointError as error:
        return str(error)
