"""The arrays of a checkpoint that jtree wrote: read together, and checked."""

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
from .._storage import atomic
from . import api
from .checksum import in_threads, is_damaged
from .encoding import PACK, Stored, aligned

LOOKED_AT = 100  # arrays that are read one by one to find those that cannot be read


class OverwrittenError(CheckpointError):
    """What is at a path is another checkpoint than the one that was opened."""


class Read(NamedTuple):
    """An array that was read, as it is stored, and whether it is what was written."""

    name: Hashable
    array: Any
    damaged: bool


class Arrays(Source):
    """The arrays that jtree wrote, by their names, which are (parts, offset)."""

    verified = True
    batch_bytes = 2**25  # Orbax takes long to begin

    def __init__(self, path: atomic.Path, *, verify: bool, shown: bool) -> None:
        self.path = path
        self.verify = verify
        self.shown = shown
        self.stored: dict[Hashable, Stored] = {}
        self.lazy: dict[Hashable, LazyArray] = {}
        self.paths: dict[Hashable, str] = {}
        self.end = 0  # of what is packed
        self.mark = api.mark(path)

    def add(self, stored: Stored) -> LazyArray:
        """Return a lazy array for what is stored."""
        name = stored.parts, stored.at
        self.stored[name] = stored
        if stored.parts == (PACK,):
            self.packed = True
            self.end = max(self.end, stored.at + aligned(stored.nbytes))
        shape, dtype = stored.shape, stored.dtype
        if stored.key:
            abstract = jax.eval_shape(lambda: jax.random.key(0, impl=stored.key))
            shape, dtype = shape[:-1], abstract.dtype
        self.lazy[name] = LazyArray(self, name, shape, dtype)
        return self.lazy[name]

    def cost(self, array: LazyArray, /) -> int:
        """Return the bytes that reading an array takes: none for a packed one beside others."""
        return 0 if self.stored[array.name].parts == (PACK,) else array.nbytes

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
            if api.mark(self.path) == self.mark:
                return
        raise OverwrittenError(
            f"{self.path} has been overwritten since it was opened; open it again"
        )

    def _read_all(self, wanted: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        found, damaged = {}, []
        total = sum(self.lazy[name].nbytes for name in wanted)
        with progress_bar("reading", total, shown=self.shown) as bar:
            for batch in batches(self.lazy[name] for name in wanted):
                for x in self._read([x.name for x in batch], wanted):
                    found[x.name] = _finish(self.stored[x.name], x.array)
                    damaged += [self.paths[x.name]] if x.damaged else []
                bar.advance(sum(x.nbytes for x in batch))
        if damaged:
            raise ChecksumError(
                f"{self.path}: the bytes of {paths.shorten(sorted(damaged))} are not those that "
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
        with api.quiet():
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
            return api.read_dicts(self.path, targets)
        except CheckpointError as error:
            reasons = dict(self._unreadable(list(targets.items())[:LOOKED_AT]))
            if len(targets) == 1:
                reasons = dict.fromkeys(targets, api.reason(error.__cause__))
            if not reasons:
                raise
            names = [self.paths[x] for x, s in self.stored.items() if s.parts in reasons]
            reason = next(iter(reasons.values()))
            raise CheckpointError(
                f"{self.path}: {paths.shorten(sorted(names))} cannot be read: {reason}; use "
                "another copy of this checkpoint, or where= to read the rest"
            ) from None

    def _unreadable(self, targets: list[tuple[Any, Any]]) -> Iterator[tuple[Any, str]]:
        for parts, target in targets if len(targets) > 1 else ():
            try:
                api.read_dicts(self.path, {parts: target})
            except CheckpointError as error:
                yield parts, api.reason(error.__cause__)

    def _target(self, stored: Stored, sharding: Any) -> Any:
        if not stored.bytes:
            return api.target(stored.shape, stored.dtype, None if stored.key else sharding)
        if stored.parts != (PACK,):
            return api.target((max(stored.nbytes, 1),), np.uint8)
        return api.target((self.end,), np.uint8)


def _finish(stored: Stored, x: Any) -> Any:
    return jax.random.wrap_key_data(jnp.asarray(x), impl=stored.key) if stored.key else x
