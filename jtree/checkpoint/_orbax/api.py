"""The calls to Orbax: write a tree of arrays, list the arrays of a checkpoint, read some."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import numpy as np

from ..._errors import CheckpointError
from .._formats.describe import describe_path
from .._formats.limits import JSON_BYTES, check_json
from .._storage.paths import MARK, STAGING, Path

Parts: TypeAlias = tuple[str, ...]
T = TypeVar("T")

# Orbax 0.12.8 counts the operations of a process, and confuses those that two threads begin at
# once.
_LOCK = threading.RLock()
_CHUNK = 2**24  # bytes of an array that are encoded or decoded at a time
_SMALL = 2**26  # bytes of a checkpoint that a few files hold


class ForeignCheckpoint(NamedTuple):
    """A checkpoint of Orbax alone: its trees by the names that they were saved under."""

    version: str
    items: dict[str | None, Any]  # leaves with `shape` and `dtype` are arrays
    metadata: Any


def write(path: Path, arrays: Mapping[str, Any], metadata: Any, *, mapped: bool = False) -> Any:
    """Begin to write nested dicts of arrays; `result()` of the response waits for the end.

    Arrays in mapped memory take hardly any other memory.
    """
    ocp = _ocp()
    context = ocp.Context()
    context.asynchronous.create_directories_asynchronously = False
    context.array_options.saving.storage_options.chunk_byte_size = _CHUNK
    if mapped:
        _bound_memory(context, [x.nbytes for x in jax.tree.leaves(arrays)])
    logging.getLogger("absl").addFilter(_is_not_raised)
    with _LOCK, context:
        return ocp.save_async(path, arrays, custom_metadata=metadata)


def name_handlers(path: Path, metrics: Any = None) -> None:
    """Name the handlers of version 0 in a new checkpoint, so that both versions of Orbax read it.

    Version 1 knows its handlers and those of version 0, and version 0 its own only. The metrics are
    written where the managers of both have them.
    """
    metadata = json.loads((path / MARK).read_text())
    metadata["item_handlers"] = dict.fromkeys(metadata["item_handlers"], _HANDLER)
    if metrics is not None:
        (path / METRICS).mkdir()
        (path / METRICS / METRICS).write_text(json.dumps(metrics))
        metadata["item_handlers"][METRICS] = _METRICS_HANDLER
    (path / MARK).write_text(json.dumps(metadata))


METRICS = "metrics"  # the name of the item, and of the file in it
_HANDLERS = "orbax.checkpoint._src.handlers"
_HANDLER = f"{_HANDLERS}.pytree_checkpoint_handler.PyTreeCheckpointHandler"
_METRICS_HANDLER = f"{_HANDLERS}.json_checkpoint_handler.JsonCheckpointHandler"


def _bound_memory(context: Any, sizes: list[int]) -> None:
    """Make Orbax 0.12.8 copy nothing, and work on as many bytes at a time as one array has."""
    limit = max(_CHUNK, *sizes) + 1  # it refuses an array that has more
    context.memory.deepcopy_host_arrays = False
    context.memory.write_concurrent_bytes = limit
    context.memory.transfer_concurrent_bytes = limit
    if sum(sizes) > _SMALL:
        # OCDBT keeps much of what is written, compressed, in memory until the end.
        context.array_options.saving.use_ocdbt = False
        logging.getLogger("absl").addFilter(_is_relevant)


def _is_not_raised(record: logging.LogRecord) -> bool:
    """Leave out what a thread of Orbax logs of a failed save, which raises the same error."""
    message = record.getMessage()
    return "raised an exception" not in message or f"{STAGING}{os.sep}" not in message


def _is_relevant(record: logging.LogRecord) -> bool:
    return "Skipping merge of OCDBT" not in record.getMessage()  # without OCDBT nothing to merge


def read_mark(path: Path) -> str:
    """Return the text that identifies a checkpoint, and tells it from another at its path."""
    if not (path / MARK).exists():
        raise CheckpointError(f"{path}: {describe_path(path)}")
    try:
        return read_bounded(path / MARK)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def read_bounded(path: Path) -> str:
    """Return the text of a file of metadata, unless it is too long."""
    length = path.stat().length
    if length > JSON_BYTES:
        raise ValueError(f"{path.name} has {length:,} bytes; expected at most {JSON_BYTES:,}")
    return str(path.read_text())


def custom_metadata(path: Path) -> Any:
    """Return the metadata that a checkpoint has besides its arrays, without reading these."""
    try:
        text = read_mark(path)
        check_json(text.encode(errors="surrogatepass"))
        return json.loads(text)["custom_metadata"]
    except (RecursionError, ValueError, KeyError, TypeError) as error:
        raise unreadable(path, error) from error


def read_arrays(path: Path, targets: Mapping[Parts, Any]) -> dict[Parts, Any]:
    """Return arrays by their path in nested dicts; others are not read."""
    ocp = _ocp()
    nested: dict[str, Any] = {}
    for parts, x in targets.items():
        _insert(nested, parts, x)
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with _LOCK, context, quiet():
        arrays = _checked(path, lambda: ocp.load(path, nested))
        return _checked(path, lambda: _select(arrays, targets))


def _select(arrays: Any, targets: Mapping[Parts, Any]) -> dict[Parts, Any]:
    """Return the arrays of targets; Orbax 0.12.8 returns the target itself for a missing one."""
    selected = {parts: _at(arrays, parts) for parts in targets}
    for parts, target in targets.items():
        if selected[parts] is target:
            raise LookupError(f"it lacks the array {'/'.join(parts):.80}")
    return selected


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Orbax from printing tracebacks: the error that it raises is enough.

    When a read or a write fails, Orbax 0.12.8 leaves the others running on an event loop that it
    closes.
    """
    if _QUIET.get():
        yield
        return
    token, before = _QUIET.set(True), sys.unraisablehook
    loggers = logging.getLogger("asyncio"), logging.getLogger("absl")
    sys.unraisablehook = lambda args: None if _is_known(args.exc_value) else before(args)
    for logger in loggers:
        logger.addFilter(_is_new)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if _FAILED:
            _FAILED.clear()
            with warnings.catch_warnings(action="ignore"):
                gc.collect()  # tasks complain when they are deleted
        sys.unraisablehook = before
        for logger in loggers:
            logger.removeFilter(_is_new)
        _QUIET.reset(token)


_QUIET = contextvars.ContextVar("quiet", default=False)
_FAILED: list[Exception] = []


def _is_known(error: object) -> bool:
    return str(error) == "Event loop is closed"


def _is_new(record: logging.LogRecord) -> bool:
    orbax = record.name == "absl" and "orbax" in record.pathname
    return not orbax and not any(text in record.getMessage() for text in _LEFT_RUNNING)


_LEFT_RUNNING = "was never retrieved", "was destroyed but it is pending"


def open_foreign(path: Path) -> ForeignCheckpoint:
    """Return the trees of a checkpoint that Orbax wrote alone."""
    ocp = _ocp()
    if (path / "_METADATA").exists():  # a tree of version 0, which has no name
        try:
            tree = ocp.metadata(path, checkpointable_name=None).metadata
        except Exception:  # it does not know the shape of booleans
            tree = None
        return ForeignCheckpoint("v0", {None: tree}, custom_metadata(path) or {})
    metadata = _checked(path, lambda: ocp.checkpointables_metadata(path))
    version = "v1" if (path / "orbax.checkpoint").exists() else "v0"
    return ForeignCheckpoint(version, dict(metadata.metadata), metadata.custom_metadata or {})


def read_item(path: Path, name: str | None, target: Any) -> Any:
    """Return one tree of a checkpoint; `skip()` in the target leaves out an array."""
    ocp = _ocp()
    with _LOCK, quiet():
        if name is None:
            return _checked(path, lambda: ocp.load(path, target, checkpointable_name=None))
        return _checked(path, lambda: ocp.load_checkpointables(path, {name: target})[name])


def skip() -> Any:
    """Return what stands for an array that is not to be read."""
    return _ocp().PLACEHOLDER


def read_target(shape: tuple[int, ...], dtype: Any, sharding: Any = None) -> Any:
    """Return what tells Orbax to read an array: onto devices, or as NumPy's.

    Orbax reads in threads of its own, where `jax.enable_x64` of this one has no effect.
    """
    if sharding is not None and not _is_wide(dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    return np.broadcast_to(np.zeros((), dtype), shape)


def _is_wide(dtype: Any) -> bool:
    return np.dtype(dtype).name in ("int64", "uint64", "float64", "complex128")


def note_failure(error: Exception) -> None:
    """Make `quiet` delete what Orbax has left running before it ends."""
    _FAILED.append(error)


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """Return the error for a checkpoint that exists and cannot be read."""
    _FAILED.append(error)
    return CheckpointError(f"{path}: {describe_path(path)}: {reason(error)}")


def reason(error: BaseException | None) -> str:
    """Return the first line of an error, without what only its author understands."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(" [tensorstore_spec")[0][:300]


def _checked(path: Path, read: Callable[[], T]) -> T:
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
