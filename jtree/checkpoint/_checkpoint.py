"""An opened checkpoint: what is in it, and its arrays when they are asked for."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import _path
from .._errors import CheckpointError, ChecksumError, ModelError
from .._lazy import LazyArray
from .._walk import walk
from . import _files, _orbax
from ._checksum import in_threads, is_damaged
from ._encoding import PACK, Stored, Ties, aligned, decode
from ._formats import open_file
from ._progress import progress
from ._reading import Opened

NAME = "jtree"  # where jtree's part is in the checkpoint's metadata
logger = logging.getLogger("jtree")

BATCH = 2**28  # bytes that are read at a time
LOOKED_AT = 100  # arrays that are read one by one to find those that cannot be read


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
      ...     found = inspect(f"{directory}/model")
      ...     print(list(found), found.metadata, np.asarray(found["w"]).sum())
      ['w'] {'step': 7} 6.0
    """

    def __init__(
        self, path: str, format: str, tree: Any, metadata: Any, ties: Ties, source: Any
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
        return bool(getattr(self.source, "checksums", False))

    @property
    def packed(self) -> bool:
        """Whether small arrays are stored as one."""
        stored = getattr(self.source, "stored", {})
        return any(x.parts == (PACK,) for x in stored.values())

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


def batches(arrays: Iterable[LazyArray]) -> Iterator[list[LazyArray]]:
    """Yield arrays some at a time: those that are packed first, since one read brings them all."""
    batch: list[LazyArray] = []
    size = 0
    for x in sorted(arrays, key=_unpacked):
        if batch and size + x.nbytes > BATCH:
            yield batch
            batch, size = [], 0
        batch.append(x)
        size += x.nbytes
    if batch:
        yield batch


def _unpacked(x: LazyArray) -> bool:
    return not (isinstance(x.name, tuple) and x.name[0] == (PACK,))


class OverwrittenError(CheckpointError):
    """What is at a path is another checkpoint than the one that was opened."""


class Read(NamedTuple):
    """An array that was read, as it is stored, and whether it is what was written."""

    name: Hashable
    array: Any
    damaged: bool


class Arrays:
    """The arrays that jtree wrote, by their names, which are (parts, offset)."""

    checksums = True

    def __init__(self, path: _files.Path, *, verify: bool, shown: bool) -> None:
        self.path = path
        self.verify = verify
        self.shown = shown
        self.stored: dict[Hashable, Stored] = {}
        self.lazy: dict[Hashable, LazyArray] = {}
        self.paths: dict[Hashable, str] = {}
        self.end = 0  # of what is packed
        self.mark = _orbax.mark(path)

    def add(self, stored: Stored) -> LazyArray:
        """Return a lazy array for what is stored."""
        name = stored.parts, stored.at
        self.stored[name] = stored
        if stored.parts == (PACK,):
            self.end = max(self.end, stored.at + aligned(stored.nbytes))
        shape, dtype = stored.shape, stored.dtype
        if stored.key:
            abstract = jax.eval_shape(lambda: jax.random.key(0, impl=stored.key))
            shape, dtype = shape[:-1], abstract.dtype
        self.lazy[name] = LazyArray(self, name, shape, dtype)
        return self.lazy[name]

    def read(self, wanted: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        """Return arrays by name, checked; none where the checkpoint is another one by now."""
        try:
            found = self._read_all(wanted)
        except CheckpointError:
            self._check_current()
            raise
        self._check_current()
        return found

    def _check_current(self) -> None:
        with contextlib.suppress(CheckpointError):
            if _orbax.mark(self.path) == self.mark:
                return
        raise OverwrittenError(
            f"{self.path} has been overwritten since it was opened; open it again"
        )

    def _read_all(self, wanted: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        found, damaged, done = {}, [], 0
        total = sum(self.lazy[name].nbytes for name in wanted)
        with progress("reading", total, shown=self.shown) as advance:
            for batch in batches(self.lazy[name] for name in wanted):
                for x in self._read([x.name for x in batch], wanted):
                    found[x.name] = _finish(self.stored[x.name], x.array)
                    damaged += [self.paths[x.name]] if x.damaged else []
                done += sum(x.nbytes for x in batch)
                advance(done)
        if damaged:
            raise ChecksumError(
                f"{self.path}: the bytes of {_path.shorten(sorted(damaged))} are not those that "
                "were written; use another copy of this checkpoint, or verify=False to see what "
                "is left"
            )
        return found

    def _read(self, names: list[Hashable], wanted: Mapping[Hashable, Any]) -> Iterator[Read]:
        """Yield some arrays as they are stored, read together."""
        stored = [self.stored[name] for name in names]
        targets: dict[tuple[str, ...], Any] = {}
        for name, x in zip(names, stored, strict=True):
            if x.parts not in targets:
                targets[x.parts] = self._target(x, wanted[name])
        with _orbax.quiet():
            held = self._held(targets)
        arrays = [x.decode(held[x.parts]) for x in stored]
        if 2 * sum(x.nbytes for x in stored if x.parts == (PACK,)) < self.end:
            alone = [x.parts == (PACK,) for x in stored]  # do not keep the whole pack for a few
            arrays = [x.copy() if own else x for x, own in zip(arrays, alone, strict=True)]
        pairs = [(array, x.crc32) for array, x in zip(arrays, stored, strict=True)]
        damaged = in_threads(lambda pair: is_damaged(*pair), pairs if self.verify else ())
        yield from map(Read, names, arrays, damaged or [False] * len(names))

    def _held(self, targets: dict[tuple[str, ...], Any]) -> dict[tuple[str, ...], Any]:
        """Return stored arrays; where that fails, say which of them cannot be read."""
        try:
            return _orbax.read_dicts(self.path, targets)
        except CheckpointError as error:
            reasons = dict(self._unreadable(list(targets.items())[:LOOKED_AT]))
            if len(targets) == 1:
                reasons = dict.fromkeys(targets, _orbax.reason(error.__cause__))
            if not reasons:
                raise
            names = [self.paths[x] for x, s in self.stored.items() if s.parts in reasons]
            reason = next(iter(reasons.values()))
            raise CheckpointError(
                f"{self.path}: {_path.shorten(sorted(names))} cannot be read: {reason}; use "
                "another copy of this checkpoint, or where= to read the rest"
            ) from None

    def _unreadable(self, targets: list[tuple[Any, Any]]) -> Iterator[tuple[Any, str]]:
        for parts, target in targets if len(targets) > 1 else ():
            try:
                _orbax.read_dicts(self.path, {parts: target})
            except CheckpointError as error:
                yield parts, _orbax.reason(error.__cause__)

    def _target(self, stored: Stored, sharding: Any) -> Any:
        if not stored.bytes:
            return _orbax.target(stored.shape, stored.dtype, None if stored.key else sharding)
        if stored.parts != (PACK,):
            return _orbax.target((max(stored.nbytes, 1),), np.uint8)
        return _orbax.target((self.end,), np.uint8)


class PlainArrays:
    """The arrays of a checkpoint that Orbax wrote by itself, by (item, number of the leaf)."""

    def __init__(self, path: _files.Path, items: dict[str | None, Any]) -> None:
        self.path = path
        self.flat = {name: jax.tree.flatten(tree, is_leaf=_isarray) for name, tree in items.items()}

    def tree(self) -> Any:
        """Return the state, with lazy arrays, and every other leaf as it was saved."""
        found: dict[str | None, Any] = {}
        for name in self.flat:
            try:
                found[name] = self._tree(name)
            except CheckpointError as error:
                if len(self.flat) == 1:
                    raise
                logger.warning("%s: left out, since Orbax cannot read it: %s", name, error)
        return next(iter(found.values())) if len(self.flat) == 1 else found

    def read(self, wanted: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        """Return arrays by name."""
        found: dict[Hashable, Any] = {}
        for item, (leaves, _) in self.flat.items():
            chosen = {n: wanted[item, n] for n in range(len(leaves)) if (item, n) in wanted}
            if chosen:
                targets = [
                    _orbax.target(x.shape, x.dtype, chosen[n]) if n in chosen else _orbax.skip()
                    for n, x in enumerate(leaves)
                ]
                arrays = self._leaves(item, targets)
                found |= {(item, n): arrays[n] for n in chosen}
        return found

    def _tree(self, item: str | None) -> Any:
        leaves, treedef = self.flat[item]
        if all(map(_isarray, leaves)) and leaves:
            values: list[Any] = [None] * len(leaves)
        elif any(map(_isarray, leaves)):
            targets = [_orbax.skip() if _isarray(x) else type(x) for x in leaves]
            values = self._leaves(item, targets)
        else:
            return self._unknown(item)
        lazy = [
            LazyArray(self, (item, n), x.shape, np.dtype(x.dtype)) if _isarray(x) else values[n]
            for n, x in enumerate(leaves)
        ]
        return jax.tree.unflatten(treedef, lazy)

    def _unknown(self, item: str | None) -> Any:
        """Return a tree of which Orbax does not say what is in it, as where there are booleans.

        So it is read: once to know the places, once more for arrays without loss of precision.
        """
        leaves, treedef = jax.tree.flatten(_orbax.read_item(self.path, item, None))
        if any(map(_isarray, leaves)):
            kinds = [np.ndarray if _isarray(x) else type(x) for x in leaves]
            tree = _orbax.read_item(self.path, item, jax.tree.unflatten(treedef, kinds))
            held = Held(jax.tree.leaves(tree))
            leaves = [held.lazy(n) if _isarray(x) else x for n, x in enumerate(held.arrays)]
        return jax.tree.unflatten(treedef, leaves)

    def _leaves(self, item: str | None, targets: list[Any]) -> list[Any]:
        tree = jax.tree.unflatten(self.flat[item][1], targets)
        return jax.tree.leaves(_orbax.read_item(self.path, item, tree))


class Held:
    """Arrays that are in memory already."""

    def __init__(self, arrays: list[Any]) -> None:
        self.arrays = arrays

    def lazy(self, number: int) -> LazyArray:
        """Return one of them as a lazy array."""
        x = self.arrays[number]
        return LazyArray(self, number, x.shape, x.dtype)

    def read(self, wanted: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        """Return copies of arrays by number."""
        return {number: self.arrays[number].copy() for number in wanted}  # type: ignore[call-overload]


def inspect(path: str | os.PathLike[str], /) -> Checkpoint:
    """Return what is in a checkpoint, without reading its arrays.

    Args:
      path: a checkpoint that `save` wrote, or Orbax by itself: version 1, or a step directory of
        version 0; or a file of another library, as `jtree.open` reads them.

    Returns:
      A `Checkpoint`: a mapping from paths to lazy arrays, which prints as a tree. It can be given
      to `jtree.diff` and `jtree.loadmodel` as it is.

    Raises:
      CheckpointError: there is no checkpoint; the message says what is there instead.

    Example:
      >>> import tempfile
      >>> from jtree import save
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     save(f"{directory}/model", {"w": jnp.ones((2, 3)), "rate": 0.1})
      ...     found = inspect(f"{directory}/model")
      >>> found["w"].shape, found.nbytes, found.tree
      ((2, 3), 24, {'rate': 0.1, 'w': LazyArray(float32[2, 3])})
    """
    return open_checkpoint(path)


def open_checkpoint(path: object, *, verify: bool = True, shown: bool = True) -> Checkpoint:
    """Return an opened checkpoint; `verify` says whether what is read later is checked."""
    place = _files.locate(_files.as_path(path))
    found_file = open_file(place, verify=verify)
    if found_file is not None:
        return _as_checkpoint(place, found_file)
    metadata = _orbax.custom_metadata(place)
    if isinstance(metadata, dict) and NAME in metadata:
        return _open_jtree(place, metadata[NAME], Arrays(place, verify=verify, shown=shown))
    with _orbax.quiet():
        found = _orbax.find(place)
        source = PlainArrays(place, found.items)
        tree = source.tree()
    return Checkpoint(str(place), f"Orbax {found.version}", tree, found.metadata, (), source)


def _as_checkpoint(place: _files.Path, found: Opened) -> Checkpoint:
    """Return what is in a file of another library as a checkpoint."""
    try:
        opened = Checkpoint(
            str(place), found.format, found.tree, found.metadata, found.ties, found.source
        )
        for path in opened:
            path.encode()  # text that can be printed
    except (ModelError, UnicodeError, RecursionError) as error:
        raise CheckpointError(f"{place}: its names cannot be used: {error}") from error
    return opened


def _open_jtree(place: _files.Path, structure: Any, source: Arrays) -> Checkpoint:
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


def _finish(stored: Stored, x: Any) -> Any:
    return jax.random.wrap_key_data(jnp.asarray(x), impl=stored.key) if stored.key else x


def _isarray(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "dtype")
