"""All that is asked of Orbax: write a tree of arrays, say what is there, read some of it."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from ..._errors import CheckpointError
from .._formats.describe import looks_like
from .._storage.atomic import MARK, Path

Parts = tuple[str, ...]

# Orbax 0.12.8 counts what is done in a process, and mixes up what two threads begin at once.
_ONE = threading.RLock()


class OrbaxCheckpoint(NamedTuple):
    """What Orbax says of a checkpoint: its trees by the names they were saved under."""

    version: str
    items: dict[str | None, Any]  # leaves with `shape` and `dtype` are arrays
    metadata: Any


def write(path: Path, arrays: Mapping[str, Any], metadata: Any, *, mapped: bool = False) -> Any:
    """Begin to write nested dicts of arrays; `result()` of what is returned waits for the end.

    Where arrays are in memory that a file is mapped to, hardly any other memory is taken.
    """
    ocp = _ocp()
    context = ocp.Context()
    context.asynchronous.create_directories_asynchronously = False
    context.array_options.saving.storage_options.chunk_byte_size = _CHUNK
    if mapped:
        _bound(context, [x.nbytes for x in jax.tree.leaves(arrays)])
    with _ONE, context:
        return ocp.save_async(path, arrays, custom_metadata=metadata)


def _bound(context: Any, sizes: list[int]) -> None:
    """Have Orbax 0.12.8 copy nothing, and work on as many bytes at a time as one array has."""
    most = max(_CHUNK, *sizes) + 1  # it refuses an array that has more
    context.memory.deepcopy_host_arrays = False
    context.memory.write_concurrent_bytes = most
    context.memory.transfer_concurrent_bytes = most
    if sum(sizes) > _SMALL:
        context.array_options.saving.use_ocdbt = (
            False  # it keeps much of what is written, compressed, until the end
        )
        logging.getLogger("absl").addFilter(_isneeded)


_CHUNK = 2**24  # bytes of an array that are encoded, and when it is read decoded, at a time
_SMALL = 2**26  # bytes of a checkpoint that a few files hold


def _isneeded(record: logging.LogRecord) -> bool:
    return "Skipping merge of OCDBT" not in record.getMessage()  # there is nothing to merge


def mark(path: Path) -> str:
    """Return the text by which a checkpoint is known, and told from another at its path."""
    if not (path / MARK).exists():
        raise CheckpointError(f"{path}: {looks_like(path)}")
    try:
        return str((path / MARK).read_text())
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def custom_metadata(path: Path) -> Any:
    """Return what is kept with a checkpoint besides its arrays, without asking for these."""
    try:
        return json.loads(mark(path))["custom_metadata"]
    except (ValueError, KeyError, TypeError) as error:
        raise unreadable(path, error) from error


def read_dicts(path: Path, targets: Mapping[Parts, Any]) -> dict[Parts, Any]:
    """Return arrays by their place in nested dicts; others are not read."""
    ocp = _ocp()
    nested: dict[str, Any] = {}
    for parts, target in targets.items():
        _insert(nested, parts, target)
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    try:
        with _ONE, context, quiet():
            found = ocp.load(path, nested)
        return {parts: _at(found, parts) for parts in targets}
    except Exception as error:
        raise unreadable(path, error) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Orbax from printing tracebacks of its own: the error that it raises is enough.

    When a read fails, Orbax 0.12.8 leaves the others running on an event loop that it closes.
    """
    if _QUIET.get():
        yield
        return
    token, before = _QUIET.set(True), sys.unraisablehook
    loggers = logging.getLogger("asyncio"), logging.getLogger("absl")
    sys.unraisablehook = lambda found: None if _isknown(found.exc_value) else before(found)
    for logger in loggers:
        logger.addFilter(_isnew)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if _FAILED:
            _FAILED.clear()
            gc.collect()  # tasks complain when they are deleted
        sys.unraisablehook = before
        for logger in loggers:
            logger.removeFilter(_isnew)
        _QUIET.reset(token)


_QUIET = contextvars.ContextVar("quiet", default=False)
_FAILED: list[Exception] = []


def _isknown(error: object) -> bool:
    return str(error) == "Event loop is closed"


def _isnew(record: logging.LogRecord) -> bool:
    orbax = record.name == "absl" and "orbax" in record.pathname
    return not orbax and "was never retrieved" not in record.getMessage()


def find(path: Path) -> OrbaxCheckpoint:
    """Return what is in a checkpoint that Orbax wrote by itself."""
    ocp = _ocp()
    if (path / "_METADATA").exists():  # a tree of version 0, which has no name
        try:
            tree = ocp.metadata(path, checkpointable_name=None).metadata
        except Exception:  # of booleans it does not know the shape
            tree = None
        return OrbaxCheckpoint("v0", {None: tree}, custom_metadata(path) or {})
    found = _named(path, lambda: ocp.checkpointables_metadata(path))
    version = "v1" if (path / "orbax.checkpoint").exists() else "v0"
    return OrbaxCheckpoint(version, dict(found.metadata), found.custom_metadata or {})


def read_item(path: Path, name: str | None, target: Any) -> Any:
    """Return one tree of a checkpoint; `skip()` in the target leaves out an array."""
    ocp = _ocp()
    with _ONE, quiet():
        if name is None:
            return _named(path, lambda: ocp.load(path, target, checkpointable_name=None))
        return _named(path, lambda: ocp.load_checkpointables(path, {name: target})[name])


def skip() -> Any:
    """Return what stands for an array that is not to be read."""
    return _ocp().PLACEHOLDER


def target(shape: tuple[int, ...], dtype: Any, sharding: Any = None) -> Any:
    """Return what tells Orbax to read an array: onto devices, or as a NumPy array.

    Orbax reads in threads of its own, where `jax.enable_x64` of this one means nothing.
    """
    if sharding is not None and not _iswide(dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    return np.broadcast_to(np.zeros((), dtype), shape)


def _iswide(dtype: Any) -> bool:
    return np.dtype(dtype).name in ("int64", "uint64", "float64", "complex128")


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """Return the error for a checkpoint that is there and cannot be read."""
    _FAILED.append(error)
    return CheckpointError(f"{path}: {looks_like(path)}: {reason(error)}")


def reason(error: BaseException | None) -> str:
    """Return the first line of an error, without what only its author understands."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(" [tensorstore_spec")[0][:300]


def _named(path: Path, read: Any) -> Any:
    try:
        return read()
    except Exception as error:
        raise unreadable(path, error) from error


def _ocp() -> ModuleType:
    from orbax.checkpoint import v1

    return v1  # type: ignore[no-any-return]


def _insert(nested: dict[str, Any], parts: Parts, x: Any) -> None:
    *above, last = parts
    for part in above:
        nested = nested.setdefault(part, {})
    nested[last] = x


def _at(nested: Any, parts: Parts) -> Any:
    for part in parts:
        nested = nested[part]
    return nested
