"""The arrays of a checkpoint that jtree wrote: read together, and compared with checksums."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import CheckpointError, ChecksumError
from ..._progress import progress_bar
from ..._tree import paths
from ..._tree.lazy import LazyArray, Source, batches
from .._storage.memory import check_memory
from .._storage.paths import Path
from . import api
from .checksum import is_damaged, map_in_threads
from .decoding import StoredArray, aligned

SEARCHED = 100  # arrays that are read one by one to find those that cannot be read


class OverwrittenError(CheckpointError):
    """The checkpoint at a path was replaced after it was opened."""


class _ReadArray(NamedTuple):
    """An array that was read, and whether its checksum differs."""

    name: Hashable
    array: Any
    damaged: bool


class OrbaxArrays(Source):
    """The arrays that jtree wrote, by their names, which are (parts, offset)."""

    verified = True
    batch_bytes = 2**25  # Orbax takes long to begin

    def __init__(self, path: Path, *, verify: bool, shown: bool) -> None:
        self.path = path
        self.verify = verify
        self.shown = shown
        self.stored: dict[Hashable, StoredArray] = {}
        self.lazy: dict[Hashable, LazyArray] = {}
        self.paths: dict[Hashable, str] = {}
        self.end = 0  # of the packed arrays
        self.mark = api.read_mark(path)

    def add(self, stored: StoredArray) -> LazyArray:
        """Return the lazy array of a stored one."""
        name = stored.parts, stored.at
        self.stored[name] = stored
        if stored.packed:
            self.packed = True
            self.end = max(self.end, stored.at + aligned(stored.nbytes))
        shape, dtype = stored.shape, stored.dtype
        if stored.key:
            abstract = jax.eval_shape(lambda: jax.random.key(0, impl=stored.key))
            data = jax.eval_shape(jax.random.key_data, abstract)
            if stored.dtype != data.dtype or shape[len(shape) - data.ndim :] != data.shape:
                raise ValueError(f"keys of {stored.key} cannot have the shape {list(shape)}")
            shape, dtype = shape[: len(shape) - data.ndim], abstract.dtype
        self.lazy[name] = LazyArray(self, name, shape, dtype)
        return self.lazy[name]

    def cost(self, array: LazyArray, /) -> int:
        """Return the bytes that reading an array takes: none for a packed one beside others."""
        return 0 if self.stored[array.name].packed else array.nbytes

    def read(self, shardings: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        """Read arrays by name and verify them; return none if the checkpoint has been replaced."""
        try:
            arrays = self._read_all(shardings)
        except CheckpointError:
            self._check_current()
            raise
        self._check_current()
        return arrays

    def _check_current(self) -> None:
        with contextlib.suppress(CheckpointError):
            if api.read_mark(self.path) == self.mark:
                return
        raise OverwrittenError(
            f"{self.path} has been overwritten since it was opened; open it again"
        )

    def _read_all(self, shardings: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        arrays, damaged = {}, []
        total = sum(self.lazy[name].nbytes for name in shardings)
        on_host = (self.lazy[name].nbytes for name, x in shardings.items() if x is None)
        check_memory(sum(on_host), self.path)
        with progress_bar("reading", total, shown=self.shown) as bar:
            for batch in batches(self.lazy[name] for name in shardings):
                for x in self._read_batch([x.name for x in batch], shardings):
                    arrays[x.name] = _wrap_key(self.stored[x.name], x.array)
                    damaged += [self.paths[x.name]] if x.damaged else []
                bar.advance(sum(x.nbytes for x in batch))
        if damaged:
            raise ChecksumError(
                f"{self.path}: checksum mismatch in {paths.shorten(sorted(damaged))}; use another "
                "copy of this checkpoint, or pass verify=False to read it as it is"
            )
        return arrays

    def _read_batch(
        self, names: list[Hashable], shardings: Mapping[Hashable, Any]
    ) -> Iterator[_ReadArray]:
        """Yield some arrays, read together."""
        stored = [self.stored[name] for name in names]
        targets: dict[tuple[str, ...], Any] = {}
        for name, x in zip(names, stored, strict=True):
            if x.parts not in targets:
                targets[x.parts] = self._target(x, shardings[name])
        with api.quiet():
            values = self._read_targets(targets)
        arrays = [self._decode(name, values[self.stored[name].parts]) for name in names]
        if 2 * sum(x.nbytes for x in stored if x.packed) < self.end:
            # A few of many packed arrays do not keep the bytes of all.
            arrays = [a.copy() if x.packed else a for a, x in zip(arrays, stored, strict=True)]
        checks = [(y, x.crc32, x.description) for y, x in zip(arrays, stored, strict=True)]
        damaged = map_in_threads(lambda check: is_damaged(*check), checks if self.verify else ())
        yield from map(_ReadArray, names, arrays, damaged or [False] * len(names))

    def _decode(self, name: Hashable, x: Any) -> Any:
        try:
            return self.stored[name].decode(x)
        except CheckpointError as error:
            raise CheckpointError(
                f"{self.path}: cannot read {paths.shorten([self.paths[name]])}: {error}; use "
                "another copy of this checkpoint"
            ) from None

    def _read_targets(self, targets: dict[tuple[str, ...], Any]) -> dict[tuple[str, ...], Any]:
        """Return stored arrays; where that fails, name those that cannot be read."""
        try:
            return api.read_arrays(self.path, targets)
        except CheckpointError as error:
            reasons = dict(self._unreadable(list(targets.items())[:SEARCHED]))
            if len(targets) == 1:
                reasons = dict.fromkeys(targets, api.reason(error.__cause__))
            if not reasons:
                raise
            names = [self.paths[x] for x, s in self.stored.items() if s.parts in reasons]
            reason = next(iter(reasons.values()))
            raise CheckpointError(
                f"{self.path}: cannot read {paths.shorten(sorted(names))}: {reason}; use another "
                "copy of this checkpoint, or where= to read the rest"
            ) from None

    def _unreadable(self, targets: list[tuple[Any, Any]]) -> Iterator[tuple[Any, str]]:
        for parts, target in targets if len(targets) > 1 else ():
            try:
                api.read_arrays(self.path, {parts: target})
            except CheckpointError as error:
                yield parts, api.reason(error.__cause__)

    def _target(self, stored: StoredArray, sharding: Any) -> Any:
        if not stored.bytes:
            return api.read_target(stored.shape, stored.dtype, None if stored.key else sharding)
        if stored.packed:
            return api.read_target((self.end,), np.uint8)
        return api.read_target((max(stored.nbytes, 1),), np.uint8)


def _wrap_key(stored: StoredArray, x: Any) -> Any:
    return jax.random.wrap_key_data(jnp.asarray(x), impl=stored.key) if stored.key else x
