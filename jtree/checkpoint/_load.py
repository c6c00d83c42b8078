"""Loading: the state that was saved, or a model with its values."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any, Literal

import jax

from .._errors import ArgumentError, ArgumentTypeError
from .._state.load import ShardingFunction, load_into
from .._state.read import read_tree, select_leaves
from .._state.sources import scalars_of
from .._tree import paths as _path
from .._tree.leaves import canonical, describe
from .._tree.paths import Where
from .._tree.ties import Ties
from ._checkpoint import Checkpoint
from ._open import open_checkpoint
from ._orbax.arrays import OverwrittenError

RETRIES = 5  # while another process overwrites the checkpoint that is being loaded


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
    """Load the state that was saved, or a model like `into` with the saved values.

    Every leaf of `into` is restored: arrays, and numbers, bools, text and bytes too. Static fields,
    functions and types are configuration, and stay those of `into`. A Python number takes a saved
    number or 0-d array of its kind, and a 0-d array takes a saved number of its kind; another kind
    is a mismatch, and so is a number that a checkpoint lacks, unless its format holds arrays only.

    Args:
      path: a checkpoint, or any file that `jtree.open` reads. The arrays of an Equinox file have
        no names: they are assigned to the leaves of `into` in order.
      into: a model, which may be abstract; None returns the state, with NumPy arrays.
      where: a glob over paths, several, or a predicate `(path, leaf) -> bool`: only these paths
        are read. The rest of `into` stays as it is; of a state only these paths are returned.
      sharding: a `jax.sharding.Sharding`, a device, or a function from a path and a
        `jax.ShapeDtypeStruct` to one of these or None. By default each array has the sharding of
        the one in `into`, and without `into` stays on the host.
      verify: False skips the checksums.
      strict: as in `loadmodel`: False loads what fits.
      filter: as in `loadmodel`: which children to compare.
      none: as in `loadmodel`: what `None` in the checkpoint means.
      ties: as in `loadmodel`: what is one parameter in the model.
      progress: False shows no progress bar. A bar appears on a terminal only, for more than 1 GB
        or after 2 seconds.

    Returns:
      The state, tuples and all; or `loadmodel(into, state, scalars=True)`.

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be read.
      ChecksumError: arrays differ from what was written; the message names them.
      LoadError: the checkpoint does not fit the model.
      PathError: `where` matches nothing.
      ArgumentError: an array cannot have this sharding.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     jtree.save(f"{directory}/model", {"w": jnp.ones(2), "b": jnp.ones(1)})
      ...     jtree.load(f"{directory}/model", {"w": jnp.zeros(2, jnp.bfloat16), "b": jnp.zeros(1)})
      ...     jtree.load(f"{directory}/model", where="b")
      {'b': Array([1.], dtype=float32), 'w': Array([1, 1], dtype=bfloat16)}
      {'b': array([1.], dtype=float32)}
    """
    options: dict[str, Any] = {"strict": strict, "filter": filter, "none": none, "ties": ties}

    def attempt() -> Any:
        checkpoint = open_checkpoint(path, verify=verify, shown=progress)
        return _read(checkpoint, into, where=where, sharding=sharding, **options)

    for _ in range(RETRIES):
        with contextlib.suppress(OverwrittenError):
            return attempt()
    return attempt()


def _read(checkpoint: Checkpoint, into: Any, *, where: Where, sharding: Any, **options: Any) -> Any:
    """Return the state of an opened checkpoint, or a model with its values."""
    get_sharding = None if sharding is None else _sharding_function(sharding)
    if into is None:
        tree = select_leaves(checkpoint.tree, where)
        return read_tree(tree) if get_sharding is None else read_tree(tree, _lossless(get_sharding))
    options |= {"where": where, "sharding": get_sharding, "scalars": scalars_of(checkpoint)}
    return load_into(into, checkpoint, **options)


def _sharding_function(sharding: Any) -> ShardingFunction:
    """Return a function from a path and an array to a sharding, checked."""
    fixed = isinstance(sharding, jax.sharding.Sharding | jax.Device)
    if not (fixed or callable(sharding)):
        raise ArgumentTypeError(
            "sharding: expected a jax.sharding.Sharding, a device, or a function of (path, "
            f"ShapeDtypeStruct), found {describe(sharding)}"
        )

    def get_sharding(path: str, x: Any) -> Any:
        abstract = jax.ShapeDtypeStruct(x.shape, x.dtype)
        selected = sharding if fixed else sharding(path, abstract)
        if isinstance(selected, jax.Device):
            selected = jax.sharding.SingleDeviceSharding(selected)
        if selected is None:
            return None
        if not isinstance(selected, jax.sharding.Sharding):
            raise ArgumentTypeError(
                f"sharding: {_path.show(path)}: expected a jax.sharding.Sharding, a device or "
                f"None, found {describe(selected)}"
            )
        try:
            selected.shard_shape(tuple(x.shape))
        except Exception as error:  # JAX raises IndexError too
            raise ArgumentError(
                f"sharding: {_path.show(path)}: {describe(x)} cannot have {selected}: {error}"
            ) from error
        return selected

    return get_sharding


def _lossless(get_sharding: ShardingFunction) -> ShardingFunction:
    """Return a placement that refuses dtypes that JAX cannot hold as they are."""

    def checked(path: str, x: Any) -> Any:
        sharding = get_sharding(path, x)
        if sharding is not None and canonical(x.dtype) != x.dtype:
            raise ArgumentError(
                f"sharding: {_path.show(path)}: {describe(x)} would lose precision on a device "
                'while x64 is off; turn it on with jax.config.update("jax_enable_x64", True), load '
                "without sharding, or into a model of another dtype"
            )
        return sharding

    return checked
