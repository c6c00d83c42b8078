"""Two checkpoints, place by place: whether they hold the same."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._progress import progress_bar
from .._tree.lazy import LazyArray, batches, read_all
from .._tree.leaves import describe, isnumber
from .._tree.walk import walk
from .._vector.static import alike
from ._checkpoint import Checkpoint
from ._open import open_checkpoint

_CHUNK = 2**20  # numbers that are compared at a time


class Difference(NamedTuple):
    """Where two checkpoints differ, and what each of them has there.

    `kind` is missing, unexpected, shape, dtype, kind (an array against something else), value (of
    a leaf that is no array), ties or numbers.
    """

    path: str
    kind: str
    expected: str
    found: str


def differences(
    expected: str | os.PathLike[str] | Checkpoint,
    found: str | os.PathLike[str] | Checkpoint,
    /,
    *,
    values: bool = False,
    progress: bool = True,
) -> list[Difference]:
    """Return where two checkpoints differ, whether or not one could be loaded as the other.

    Args:
      expected: a checkpoint.
      found: another.
      values: True compares numbers too, some arrays at a time; NaN is equal to NaN.
      progress: False shows no bar.

    Returns:
      Differences, sorted by path, of arrays, and of other leaves that both have. Without `values`
      no arrays are read.

    Raises:
      CheckpointError: one of them cannot be read.

    Example:
      >>> import tempfile
      >>> from jtree import save
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     a, b = f"{directory}/a", f"{directory}/b"
      ...     save(a, {"w": np.array([1.0, 2.0]), "n": np.zeros(1)})
      ...     save(b, {"w": np.array([1.0, 2.5])})
      ...     found = differences(a, b, values=True)
      >>> for difference in found:
      ...     print(*difference, sep=" | ")
      n | missing | float64[1] | nothing
      w | numbers | max absolute difference 0.5 | max relative difference 0.2
    """
    ours, theirs = _opened(expected), _opened(found)
    left, right = _leaves(ours), _leaves(theirs)
    one_side = {path: (left | right)[path] for path in left.keys() ^ right.keys()}
    arrays = [path for path, x in one_side.items() if isinstance(x, LazyArray)]
    out = [_missing(path, left, right) for path in arrays]
    both = {path: (left[path], right[path]) for path in left if path in right}
    out += [x for path, pair in both.items() for x in _one(path, *pair)]
    if set(ours.ties) != set(theirs.ties):
        out += [Difference("", "ties", _groups(ours), _groups(theirs))]
    if values:
        alike = {path: pair for path, pair in both.items() if _comparable(*pair)}
        out += _numbers(alike, progress)
    return sorted(out)


def _opened(x: Any) -> Checkpoint:
    return x if isinstance(x, Checkpoint) else open_checkpoint(x, shown=False)


def _leaves(found: Checkpoint) -> dict[str, Any]:
    return {slot.path: slot.value for slot in walk(found.tree, ties=()).slots}


def _groups(found: Checkpoint) -> str:
    return "; ".join(" = ".join(group) for group in found.ties) or "none"


def _missing(path: str, left: Mapping[str, Any], right: Mapping[str, Any]) -> Difference:
    if path in left:
        return Difference(path, "missing", describe(left[path]), "nothing")
    return Difference(path, "unexpected", "nothing", describe(right[path]))


def _one(path: str, a: Any, b: Any) -> Iterator[Difference]:
    """Yield how two leaves differ, numbers aside."""
    arrays = isinstance(a, LazyArray), isinstance(b, LazyArray)
    if all(arrays):
        if a.shape != b.shape:
            yield Difference(path, "shape", describe(a), describe(b))
        elif a.dtype != b.dtype:
            yield Difference(path, "dtype", describe(a), describe(b))
    elif any(arrays):
        yield Difference(path, "kind", describe(a), describe(b))
    elif not alike(a, b):
        yield Difference(path, "value", describe(a), describe(b))


def _comparable(a: Any, b: Any) -> bool:
    arrays = isinstance(a, LazyArray) and isinstance(b, LazyArray)
    keys = arrays and any(jnp.issubdtype(x.dtype, jax.dtypes.extended) for x in (a, b))
    known = arrays and (keys or (isnumber(a.dtype) and isnumber(b.dtype)))
    return known and a.shape == b.shape and (not keys or a.dtype == b.dtype)


def _numbers(pairs: Mapping[str, tuple[LazyArray, LazyArray]], shown: bool) -> Iterator[Difference]:
    total = sum(a.nbytes for a, _ in pairs.values())
    with progress_bar("comparing", total, shown=shown) as bar:
        paths: dict[LazyArray, list[str]] = {}
        for path, (x, _) in pairs.items():
            paths.setdefault(x, []).append(path)
        for batch in batches(paths):
            both = {path: pairs[path] for x in batch for path in paths[x]}
            ours = read_all((x, None) for x, _ in both.values())
            theirs = read_all((y, None) for _, y in both.values())
            for path, (x, y) in both.items():
                yield from _largest_of(path, _data(ours[x]), _data(theirs[y]))
            bar.advance(sum(x.nbytes for x in batch))


def _largest_of(path: str, a: Any, b: Any) -> Iterator[Difference]:
    largest = _largest(a, b)
    if any(largest):
        found = (f"max {word} difference {x:.3g}" for word, x in zip(_WORDS, largest, strict=True))
        yield Difference(path, "numbers", *found)


_WORDS = ("absolute", "relative")


def _data(x: Any) -> np.ndarray[Any, Any]:
    return np.asarray(jax.random.key_data(x) if isinstance(x, jax.Array) else x)


def _largest(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return the largest difference, and the largest in parts of the larger of two numbers."""
    most = np.zeros(2)
    for start in range(0, a.size, _CHUNK):
        x, y = (_wide(side.reshape(-1)[start : start + _CHUNK]) for side in (a, b))
        with np.errstate(all="ignore"):
            size = np.maximum(np.abs(x), np.abs(y))
            gap = np.where((x == y) | ((x != x) & (y != y)), 0, np.abs(x - y))
            gap = np.where(np.isnan(gap), np.inf, gap)
            part = np.where(gap == 0, 0, np.where(np.isinf(gap), np.inf, gap / size))
        most = np.maximum(most, [gap.max(), part.max()])
    return float(most[0]), float(most[1])


def _wide(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return numbers in the widest dtype, in which every integer is itself."""
    return x.astype(np.clongdouble if x.dtype.kind == "c" else np.longdouble)
