"""Statistics of the arrays of a checkpoint, read some at a time."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from .._progress import progress_bar
from .._tree.lazy import batches, read_all
from .._tree.leaves import isnumber
from ._open import open_checkpoint

_CHUNK = 2**20  # elements that are in memory as float64 at a time


class Stats(NamedTuple):
    """Statistics of one array; of the magnitudes where it is complex.

    Attributes:
      min: the least finite value, or None where there is no finite value.
      max: the largest finite value, or None.
      mean: the mean of the finite values, or None.
      std: the standard deviation of the finite values, or None.
      nan: the number of NaN.
      inf: the number of infinities.
    """

    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    nan: int
    inf: int

    @property
    def flag(self) -> str:
        """A warning: `"not finite"`, `"all zero"`, or nothing."""
        if self.nan or self.inf:
            return "not finite"
        return "all zero" if self.min == self.max == 0 else ""


def stats(path: str | os.PathLike[str], /, *, progress: bool = True) -> dict[str, Stats]:
    """Return minimum, maximum, mean, standard deviation, NaN and Inf counts of every array.

    Args:
      path: a checkpoint. Its arrays are read some at a time.
      progress: False shows no progress bar.

    Returns:
      A `Stats` for each path. Arrays without numbers, such as PRNG keys, are left out.

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be read.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     jtree.save(f"{directory}/model", {"w": np.array([1.0, 3.0, np.nan])})
      ...     stats(f"{directory}/model")["w"]
      Stats(min=1.0, max=3.0, mean=2.0, std=1.0, nan=1, inf=0)
    """
    checkpoint = open_checkpoint(path, shown=False)
    paths = {x: path for path, x in reversed(list(checkpoint.items())) if isnumber(x.dtype)}
    by_path: dict[str, Stats] = {}
    with progress_bar("reading", checkpoint.nbytes, shown=progress) as bar:
        for batch in batches(paths):
            for x, values in read_all((x, None) for x in batch).items():
                by_path[paths[x]] = _stats(values)
                bar.advance(x.nbytes)
    return {path: by_path[path] for path in checkpoint if path in by_path}


def _stats(x: np.ndarray[Any, Any]) -> Stats:
    """Return the statistics of one array, merged from those of its chunks."""
    low, high, count, mean, squares, nan, inf = np.inf, -np.inf, 0, 0.0, 0.0, 0, 0
    flat = x.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        values = _real(flat[start : start + _CHUNK])
        nan += int(np.isnan(values).sum())
        inf += int(np.isinf(values).sum())
        values = values[np.isfinite(values)]
        if values.size:
            low, high = min(low, values.min()), max(high, values.max())
            count += values.size
            shift = values.mean() - mean  # Chan, Golub and LeVeque, 1983
            mean += shift * values.size / count
            rest = shift**2 * values.size * (count - values.size) / count
            squares += ((values - values.mean()) ** 2).sum() + rest
    if not count:
        return Stats(None, None, None, None, nan, inf)
    std = float(np.sqrt(squares / count))
    return Stats(float(low), float(high), float(mean), std, nan, inf)


def _real(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return values as float64; the magnitudes of complex ones."""
    return np.abs(x) if x.dtype.kind == "c" else x.astype(np.float64)
