"""States whose arrays all say which version they are, and what a loaded state is."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def version(number: int, size: int = 5_000) -> dict[str, Any]:
    """Return a state all of whose values say which version it is."""
    return {
        "arrays": [np.full(size, number, np.int32) for _ in range(8)],
        "small": [np.full(10, number, np.int32) for _ in range(20)],
        "number": number,
    }


def version_of(state: Any) -> int:
    """Return which version a state is, if it is all of one."""
    found = {int(x) for array in jax.tree.leaves(state) for x in np.unique(array)}
    assert len(found) == 1
    return found.pop()
