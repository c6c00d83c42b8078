"""Numbers about the numbers of a checkpoint, read some arrays at a time."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from .._progress import progress_bar
from .._tree.lazy import batches, read_all
from .._tree.leaves import isnumber
from ._checkpoint import open_checkpoint

_CHUNK = 2**20  # numbers that are looked at a time


class Stats(NamedTuple):
    """About one array; of complex numbers the magnitudes. None where there is no finite number."""

    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    nan: int
    inf: int

    @property
    def flag(self) -> str:
        """What is to be looked at: `"not finite"`, `"all zero"`, or nothing."""
        if self.nan or self.inf:
            return "not finite"
        return "all zero" if self.min == self.max == 0 else ""


def stats(path: str | os.PathLike[str], /, *, progress: bool = True) -> dict[str, Stats]:
    """Return minimum, maximum, mean and standard deviation of every array, and NaN and Inf counts.

    Args:
      path: a checkpoint. Arrays are read some at a time.
      progress: False shows no bar.

    Returns:
      Stats by path. Arrays that hold no numbers, such as PRNG keys, are left out.

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be read.

    Example:
      >>> import tempfile
      >>> from jtree import save
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     save(f"{directory}/model", {"w": np.array([1.0, 3.0, np.nan])})
      ...     stats(f"{directory}/model")["w"]
      Stats(min=1.0, max=3.0, mean=2.0, std=1.0, nan=1, inf=0)
    """
    opened = open_checkpoint(path, shown=False)
    paths = {x: place for place, x in reversed(list(opened.items())) if isnumber(x.dtype)}
    found: dict[str, Stats] = {}
    with progress_bar("reading", opened.nbytes, shown=progress) as bar:
        for batch in batches(paths):
            for x, numbers in read_all((x, None) for x in batch).items():
                found[paths[x]] = _stats(numbers)
                bar.advance(x.nbytes)
    return {place: found[place] for place in opened if place in found}


def _stats(x: np.ndarray[Any, Any]) -> Stats:
    """Return the stats of one array: those of its chunks, put together as they come."""
    low, high, count, mean, squares, nan, inf = np.inf, -np.inf, 0, 0.0, 0.0, 0, 0
    flat = x.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        numbers = _real(flat[start : start + _CHUNK])
        nan += int(np.isnan(numbers).sum())
        inf += int(np.isinf(numbers).sum())
        numbers = numbers[np.isfinite(numbers)]
        if numbers.size:
            low, high = min(low, numbers.min()), max(high, numbers.max())
            count += numbers.size
            shift = numbers.mean() - mean  # Chan, Golub and LeVeque, 1983
            mean += shift * numbers.size / count
            rest = shift**2 * numbers.size * (count - numbers.size) / count
            squares += ((numbers - numbers.mean()) ** 2).sum() + rest
    if not count:
        return Stats(None, None, None, None, nan, inf)
    std = float(np.sqrt(squares / count))
    return Stats(float(low), float(high), float(mean), std, nan, inf)


def _real(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return numbers as float64; of complex ones the magnitudes."""
    return np.abs(x) if x.dtype.kind == "c" else x.astype(np.float64)
