"""Loading: the state that was saved, or a model with its numbers; and checking all of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax

from .._errors import ArgumentError, ArgumentTypeError, CheckpointError
from .._progress import progress_bar
from .._state.load import ShardingFunction, load_into
from .._state.read import read_tree, select_leaves
from .._state.sources import open_tree, recorded_ties
from .._tree import paths as _path
from .._tree.lazy import LazyArray, batches, read_all
from .._tree.leaves import canonical, describe, isnumeric
from .._tree.paths import Where
from .._tree.ties import Ties
from ._checkpoint import Checkpoint, open_checkpoint
from ._orbax.api import quiet
from ._orbax.arrays import OverwrittenError
from ._positional import assign_by_position
from ._storage.atomic import as_path


def load(
    path: str | os.PathLike[str],
    into: Any = None,
    /,
    *,
    where: Where = None,
    sharding: Any = None,
    verify: bool = True,
    strict: bool = True,
    filter: Callable[[Any], Any] | None = None,
    none: Literal["error", "zero", "keep"] = "error",
    ties: Ties = "references",
    progress: bool = True,
) -> Any:
    """Return the state that was saved, or a model like `into` with its numbers.

    Args:
      path: a checkpoint that `save` wrote, or Orbax by itself, or any file that `jtree.open` reads.
        The arrays of an Equinox file have no names: they are taken in the order of `into`.
      into: a model, which may be abstract; None returns the state, with NumPy arrays.
      where: a glob over paths, several, or a predicate `(path, leaf) -> bool`: only these places
        are read. The rest of `into` stays as it is; of a state only these places are returned.
      sharding: where arrays go: a `jax.sharding.Sharding`, a device, or a function from a path and
        a `jax.ShapeDtypeStruct` to one of these or None. By default each array goes where that of
        `into` is, and without `into` to the host.
      verify: False skips the checksums.
      strict: as in `loadmodel`: False loads what fits.
      filter: as in `loadmodel`: which children to compare.
      none: as in `loadmodel`: what `None` in the checkpoint means.
      ties: as in `loadmodel`: what is one parameter in the model.
      progress: False shows no bar. There is one on a terminal only, above 1 GB or after 2 seconds.

    Returns:
      The state, tuples and all; or `loadmodel(into, state)`.

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be read.
      ChecksumError: arrays are not what was written; the message names them.
      LoadError: the checkpoint does not fit the model.
      PathError: `where` matches nothing.
      ArgumentError: arrays cannot be on this sharding as they are.

    Example:
      >>> import tempfile
      >>> from jtree import save
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     save(f"{directory}/model", {"w": jnp.ones(2), "b": jnp.ones(1)})
      ...     load(f"{directory}/model", {"w": jnp.zeros(2, jnp.bfloat16), "b": jnp.zeros(1)})
      ...     load(f"{directory}/model", where="b")
      {'b': Array([1.], dtype=float32), 'w': Array([1, 1], dtype=bfloat16)}
      {'b': array([1.], dtype=float32)}
    """
    options: dict[str, Any] = {"strict": strict, "filter": filter, "none": none, "ties": ties}

    def attempt() -> Any:
        found = open_checkpoint(path, verify=verify, shown=progress)
        return _read(found, into, where=where, sharding=sharding, **options)

    for _ in range(RETRIES):
        with contextlib.suppress(OverwrittenError):
            return attempt()
    return attempt()


RETRIES = 5  # while somebody else overwrites the checkpoint that is being loaded


def _read(found: Checkpoint, into: Any, *, where: Where, sharding: Any, **options: Any) -> Any:
    """Return the state of an opened checkpoint, or a model with its numbers."""
    place = None if sharding is None else _placement(sharding)
    if into is None:
        tree = select_leaves(found.tree, where)
        return read_tree(tree) if place is None else read_tree(tree, _exact(place))
    tree = found.tree
    if found.format == "Equinox":
        tree = assign_by_position(found.path, list(found.values()), into)
    return load_into(into, tree, where=where, sharding=place, **options)


def verify(path: str | os.PathLike[str], /, *, progress: bool = True) -> dict[str, str]:
    """Read all of a checkpoint, check every checksum, and return what is wrong.

    Args:
      path: a checkpoint. One that Orbax wrote by itself has no checksums: it is read only.
      progress: False shows no bar.

    Returns:
      What is wrong, by path; empty where nothing is. The path of what concerns the checkpoint as a
      whole is `""`.

    Raises:
      CheckpointError: there is no checkpoint.

    Example:
      >>> import tempfile
      >>> from jtree import save
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     save(f"{directory}/model", {"w": jnp.ones(2)})
      ...     verify(f"{directory}/model")
      {}
    """
    if not as_path(path).exists():
        open_checkpoint(path)  # says that there is nothing
    try:
        found = open_checkpoint(path, shown=False)
    except CheckpointError as error:
        return {"": str(error)}
    arrays = set(found.values())
    wrong: dict[str, str] = {}
    with quiet(), progress_bar("verifying", found.nbytes, shown=progress) as bar:
        for batch in batches(arrays):
            try:
                read_all((x, None) for x in batch)
            except CheckpointError:
                wrong |= _one_by_one(found, batch)
            bar.advance(sum(x.nbytes for x in batch))
    return {place: wrong[place] for place in found if place in wrong}


def _one_by_one(found: Checkpoint, batch: Iterable[LazyArray]) -> dict[str, str]:
    """Return what is wrong with each array, by every path that it is at."""
    paths: dict[LazyArray, list[str]] = {}
    for path, x in found.items():
        paths.setdefault(x, []).append(path)
    wrong: dict[str, str] = {}
    for x in batch:
        try:
            x.read()
        except CheckpointError as error:
            wrong |= dict.fromkeys(paths[x], str(error))
    return wrong


def _placement(sharding: Any) -> ShardingFunction:
    """Return a function from a path and an array to a sharding, checked."""
    fixed = isinstance(sharding, jax.sharding.Sharding | jax.Device)
    if not (fixed or callable(sharding)):
        raise ArgumentTypeError(
            "sharding: expected a jax.sharding.Sharding, a device, or a function of (path, "
            f"ShapeDtypeStruct), found {describe(sharding)}"
        )

    def place(path: str, x: Any) -> Any:
        abstract = jax.ShapeDtypeStruct(x.shape, x.dtype)
        chosen = sharding if fixed else sharding(path, abstract)
        if isinstance(chosen, jax.Device):
            chosen = jax.sharding.SingleDeviceSharding(chosen)
        if chosen is None:
            return None
        if not isinstance(chosen, jax.sharding.Sharding):
            raise ArgumentTypeError(
                f"sharding: {_path.show(path)}: expected a jax.sharding.Sharding, a device or "
                f"None, found {describe(chosen)}"
            )
        try:
            chosen.shard_shape(tuple(x.shape))
        except Exception as error:  # JAX raises IndexError too
            raise ArgumentError(
                f"sharding: {_path.show(path)}: {describe(x)} cannot be on {chosen}: {error}"
            ) from error
        return chosen

    return place


def _exact(place: ShardingFunction) -> ShardingFunction:
    """Return a placement that refuses what JAX cannot hold as it is."""

    def checked(path: str, x: Any) -> Any:
        chosen = place(path, x)
        if chosen is not None and canonical(x.dtype) != x.dtype:
            raise ArgumentError(
                f"sharding: {_path.show(path)}: {describe(x)} would lose numbers on a device while "
                'x64 is off; turn it on with jax.config.update("jax_enable_x64", True), load '
                "without sharding, or into a model of another dtype"
            )
        return chosen

    return checked


@open_tree.register(str)
@open_tree.register(os.PathLike)
def _(path: Any) -> Any:
    return open_checkpoint(path).tree


@open_tree.register
def _(found: Checkpoint) -> Any:
    return found.tree


@recorded_ties.register(str)
@recorded_ties.register(os.PathLike)
def _(path: Any) -> Any:
    return recorded_ties(open_checkpoint(path))


@recorded_ties.register
def _(found: Checkpoint) -> Any:
    return tuple(group for group in found.ties if isnumeric(found[group[0]]))
