"""A state as Julia holds it: named tuples, tuples, vectors and plain values, checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._errors import ModelError
from ..._tree import paths
from .julia_values import STATE, named


def as_document(state: Any, check_array: Callable[[str, Any], None]) -> dict[str, Any]:
    """Return what a file holds by name: a state is `model_state`, unless it has that key itself.

    It is checked: Julia holds integers of 64 bits; `check_array` refuses arrays, given their path.
    """
    document = state if isinstance(state, dict) and STATE in state else {STATE: state}
    stack: list[tuple[tuple[str, ...], Any]] = [((), document)]
    while stack:
        parts, x = stack.pop()
        if isinstance(x, dict):
            stack += [((*parts, str(key)), child) for key, child in x.items()]
            _check_names(parts, x)
        elif isinstance(x, list | tuple):
            stack += [((*parts, str(n)), child) for n, child in enumerate(x)]
        elif hasattr(x, "dtype"):
            check_array(paths.join(parts), x)
        elif isinstance(x, int) and not -(2**63) <= x < 2**63:
            raise ModelError(
                f"{paths.show(paths.join(parts))}: Julia holds integers of 64 bits, found {x}; use "
                "format='orbax'"
            )
    return document


def _check_names(parts: tuple[str, ...], x: dict[Any, Any]) -> None:
    path = paths.show(paths.join(parts))
    if any("\0" in name for name in named(x)):
        raise ModelError(f"{path}: a name with a NUL, which Julia's names cannot have; rename it")
