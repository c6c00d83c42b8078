"""An opened checkpoint: what is in it, and its arrays when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from .._errors import CheckpointError, ChecksumError, ModelError
from .._tree import paths
from .._tree.lazy import LazyArray, Source
from .._tree.walk import walk
from ._formats.detect import open_file
from ._formats.file import Opened
from ._orbax import api
from ._orbax.arrays import Arrays
from ._orbax.encoding import Ties, decode
from ._orbax.foreign import PlainArrays
from ._storage import atomic

_STEPS = 200  # of a path: what prints a tree goes through all that are above a place
NAME = "jtree"  # where jtree's part is in the checkpoint's metadata


class Checkpoint(Mapping[str, LazyArray]):
    """A checkpoint without its numbers: a mapping from paths to arrays that are read when asked.

    Attributes:
      path: where it is.
      format: what wrote it: `"jtree"`, `"Orbax v1"`, `"Orbax v0"`, `"safetensors"`, `"PyTorch"`,
        `"msgpack"`, `"npz"`, `"npy"`, `"Equinox"` or `"Keras"`.
      tree: the state that was saved, with a `LazyArray` in the place of each array.
      metadata: the JSON that was given to `save`, or what another format has of the kind.
      ties: the paths of places that hold one array.
      checksums: whether there is a checksum for each array.
      packed: whether small arrays are stored as one.
      nbytes: the bytes of all arrays in memory, tied ones counted once.

    Example:
      >>> import tempfile
      >>> from jtree import save
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     save(f"{directory}/model", {"w": jnp.ones((2, 3))}, metadata={"step": 7})
      ...     found = jtree.open(f"{directory}/model")
      ...     print(list(found), found.metadata, np.asarray(found["w"]).sum())
      ['w'] {'step': 7} 6.0
    """

    def __init__(
        self, path: str, format: str, tree: Any, metadata: Any, ties: Ties, source: Source
    ) -> None:
        self.path = path
        self.format = format
        self.tree = tree
        self.metadata = metadata
        self.ties = ties
        self.source = source
        slots = walk(tree, ties=()).slots
        self._arrays = {x.path: x.value for x in slots if isinstance(x.value, LazyArray)}

    @property
    def checksums(self) -> bool:
        """Whether there is a checksum for each array."""
        return self.source.verified

    @property
    def packed(self) -> bool:
        """Whether small arrays are stored as one."""
        return self.source.packed

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays in memory, tied ones counted once."""
        return sum(x.nbytes for x in set(self._arrays.values()))

    def __getitem__(self, path: str) -> LazyArray:
        return self._arrays[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"Checkpoint({self.path!r}, {self.format}, {len(self)} arrays)"

    def __str__(self) -> str:
        from ._show import as_text

        return as_text(self)

    def __rich__(self) -> Any:
        from ._show import as_tree

        return as_tree(self)


def open_checkpoint(path: object, *, verify: bool = True, shown: bool = True) -> Checkpoint:
    """Return an opened checkpoint; `verify` says whether what is read later is checked."""
    place = atomic.locate(atomic.as_path(path))
    found_file = open_file(place, verify=verify)
    if found_file is not None:
        return _as_checkpoint(place, found_file)
    metadata = api.custom_metadata(place)
    if isinstance(metadata, dict) and NAME in metadata:
        return _open_jtree(place, metadata[NAME], Arrays(place, verify=verify, shown=shown))
    with api.quiet():
        found = api.find(place)
        source = PlainArrays(place, found.items)
        tree = source.tree()
    return Checkpoint(str(place), f"Orbax {found.version}", tree, found.metadata, (), source)


def _as_checkpoint(place: atomic.Path, found: Opened) -> Checkpoint:
    """Return what is in a file of another library as a checkpoint."""
    try:
        opened = Checkpoint(
            str(place), found.format, found.tree, found.metadata, found.ties, found.source
        )
        for path in opened:
            path.encode()  # text that can be printed
            if path.count(paths.SEPARATOR) > _STEPS:
                raise CheckpointError(
                    f"{place}: its names cannot be used: {path:.80} has more than {_STEPS} steps"
                )
    except (ModelError, UnicodeError, RecursionError) as error:
        raise CheckpointError(f"{place}: its names cannot be used: {error}") from error
    return opened


def _open_jtree(place: atomic.Path, structure: Any, source: Arrays) -> Checkpoint:
    try:
        tree, ties = decode(structure, source.add)
    except ChecksumError as error:
        raise ChecksumError(f"{place}: {error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{place}: {error}") from error
    opened = Checkpoint(str(place), "jtree", tree, structure["metadata"], ties, source)
    for path, x in reversed(list(opened.items())):
        source.paths[x.name] = path
    return opened


def open(path: str | os.PathLike[str], /, *, verify: bool = True) -> Checkpoint:
    """Return what is in a checkpoint or a file of another library, as a mapping to lazy arrays.

    The format is found by content, not by name: Orbax and jtree's own; safetensors and PyTorch, one
    file or shards; msgpack of Flax; npz and npy; Keras and HDF5; Equinox, which has no names. No
    code in a file is ever run.

    Args:
      path: a file or a directory.
      verify: False skips checksums when arrays are read, where the format has them.

    Returns:
      A `Checkpoint`: a mapping from paths to arrays, each of which is read when it is asked for,
      into memory of its own. It can be given to `jtree.loadmodel` and `jtree.diff` as it is.

    Raises:
      CheckpointError: there is nothing, or nothing that can be read; the message says what it is.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     np.savez(f"{directory}/weights", kernel=np.ones((2, 3)))
      ...     found = jtree.open(f"{directory}/weights.npz")
      ...     print(found.format, dict(found), found["kernel"].read().sum())
      npz {'kernel': LazyArray(float64[2, 3])} 6.0
    """
    return open_checkpoint(path, verify=verify)
