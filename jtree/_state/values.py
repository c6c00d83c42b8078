"""Compare the values of arrays that are in both of two trees, some at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import ModelError
from .._progress import progress_bar
from .._tree.lazy import LazyArray, batches, read_all
from .._tree.leaves import check_alive, describe, isnumber
from .._tree.paths import show
from .dtypes import isreadable
from .mismatch import Mismatch

Pairs: TypeAlias = Mapping[str, tuple[Any, Any]]

_CHUNK = 2**20  # elements that are compared at a time


class ValueDifference(NamedTuple):
    """The largest difference between the values of two arrays.

    Attributes:
      absolute: the largest absolute difference; infinite where only one of two values is finite.
      relative: the largest difference relative to the larger of the two values.
    """

    absolute: float
    relative: float

    def __str__(self) -> str:
        return f"differences up to {self.absolute:.3g}, relative {self.relative:.3g}"


def compare_values(pairs: Pairs, *, shown: bool) -> Iterator[Mismatch]:
    """Yield a mismatch for each pair of arrays of one shape whose values differ.

    NaN equals NaN. Lazy arrays are read some at a time.

    Args:
      pairs: arrays by path, expected and found.
      shown: whether a progress bar may be shown.
    """
    pairs = {path: pair for path, pair in pairs.items() if _is_comparable(*pair)}
    for path, pair in pairs.items():
        _check_readable(path, pair)
    lazy: dict[LazyArray, list[str]] = {}
    for path, pair in pairs.items():
        if first := next((x for x in pair if isinstance(x, LazyArray)), None):
            lazy.setdefault(first, []).append(path)
        else:
            yield from _compare(path, *map(_to_numpy, pair))
    with progress_bar("comparing", sum(x.nbytes for x in lazy), shown=shown) as bar:
        for batch in batches(lazy):
            yield from _compare_batch({path: pairs[path] for x in batch for path in lazy[x]})
            bar.advance(sum(x.nbytes for x in batch))


def _is_comparable(a: Any, b: Any) -> bool:
    """Return whether two arrays of one shape hold numbers, or PRNG keys of one kind."""
    if any(jnp.issubdtype(x.dtype, jax.dtypes.extended) for x in (a, b)):
        return bool(a.dtype == b.dtype)
    return isnumber(a.dtype) and isnumber(b.dtype)


def _check_readable(path: str, pair: Iterable[Any]) -> None:
    for x in pair:
        check_alive(path, x)
        if not isreadable(x):
            raise ModelError(
                f"{show(path)}: values=True compares values, and this {describe(x)} has none yet; "
                "use concrete arrays, or leave out values=True"
            )


def _compare_batch(pairs: Pairs) -> Iterator[Mismatch]:
    lazy = [x for pair in pairs.values() for x in pair if isinstance(x, LazyArray)]
    values = read_all((x, None) for x in lazy)
    for path, pair in pairs.items():
        arrays = (values[x] if isinstance(x, LazyArray) else x for x in pair)
        yield from _compare(path, *map(_to_numpy, arrays))


def _compare(path: str, expected: Any, found: Any) -> Iterator[Mismatch]:
    difference = _largest_difference(expected, found)
    if any(difference):
        text = f"{show(path)}: expected equal values, found {difference}"
        yield Mismatch(path, "values", "equal values", difference, text)


def _to_numpy(x: Any) -> np.ndarray[Any, Any]:
    key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.extended)
    return np.asarray(jax.random.key_data(x) if key else x)


def _largest_difference(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> ValueDifference:
    largest = np.zeros(2)
    for start in range(0, a.size, _CHUNK):
        x, y = (_widen(side.reshape(-1)[start : start + _CHUNK]) for side in (a, b))
        with np.errstate(all="ignore"):
            size = np.maximum(np.abs(x), np.abs(y))
            gap = np.where((x == y) | ((x != x) & (y != y)), 0, np.abs(x - y))
            gap = np.where(np.isnan(gap), np.inf, gap)
            relative = np.where(gap == 0, 0, np.where(np.isinf(gap), np.inf, gap / size))
        largest = np.maximum(largest, [gap.max(), relative.max()])
    return ValueDifference(*map(float, largest))


def _widen(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return values in the widest dtype, which holds every integer exactly."""
    return x.astype(np.clongdouble if x.dtype.kind == "c" else np.longdouble)
