"""Arrays in files with values that a cast would make infinite or NaN."""

from __future__ import annotations

from typing import Any

from .._tree.lazy import LazyArray
from .._tree.leaves import describe
from .casts import cast_problem, narrows, target_dtype
from .mismatch import Mismatch, mismatch


def cast_mismatch(path: str, expected: Any, found: Any, array: Any) -> Mismatch | None:
    """Return the mismatch of a lazy array whose values do not fit, or None.

    Args:
      path: the path of the leaf.
      expected: the leaf of the destination.
      found: the lazy array.
      array: its values, or the lazy array itself, which is read where the cast may lose values.
    """
    dtype = target_dtype(expected)
    if not narrows(dtype, found.dtype):
        return None
    problem = cast_problem(path, dtype, array.read() if isinstance(array, LazyArray) else array)
    if problem is None:
        return None
    wrong = mismatch(path, "dtype", describe(expected), describe(found), f"; {problem}")
    return wrong._replace(expected=expected.dtype, found=found.dtype)
