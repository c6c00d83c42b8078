"""Types of frameworks, which the user imports and jtree does not.

They are looked up in modules that are loaded already.
"""

from __future__ import annotations

import sys


def loaded(module: str, name: str) -> type | None:
    """Return a type of a framework by its name, or None if the framework is not loaded."""
    cls = getattr(sys.modules.get(module), name, None)
    return cls if isinstance(cls, type) else None
