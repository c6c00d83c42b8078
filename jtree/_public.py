"""Public names: classes and functions name the package that users import them from."""

from __future__ import annotations

from types import FunctionType
from typing import Any


def publish(namespace: dict[str, Any]) -> None:
    """Make the classes and functions in `__all__` name this package as their module.

    Help, tracebacks and pickles then show the public name, and do not change when a private module
    is moved or renamed.

    Args:
      namespace: the `globals()` of a package, at the end of its `__init__.py`.
    """
    for name in namespace["__all__"]:
        x = namespace.get(name)
        if isinstance(x, type | FunctionType) and x.__module__.startswith("jtree."):
            x.__module__ = namespace["__name__"]
