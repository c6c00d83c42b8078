"""A bounded cache whose keys may refuse to be hashed."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

V = TypeVar("V")


class Cache(Generic[V]):
    """Values by key, all of which are dropped when there are `size` of them.

    A treedef hashes and compares the static fields of a model, which may be any objects. A key
    that raises is never stored.

    >>> cache = Cache(size=2)
    >>> cache.put("a", 1)
    >>> cache.get("a"), cache.get("b"), cache.get(["cannot be hashed"])
    (1, None, None)
    """

    def __init__(self, size: int = 512) -> None:
        self._size = size
        self._values: dict[Any, V] = {}

    def get(self, key: Any) -> V | None:
        """Return the value of a key, or None."""
        try:
            return self._values.get(key)
        except Exception:  # from the user's own __hash__ or __eq__
            return None

    def put(self, key: Any, value: V) -> None:
        """Store a value, unless its key cannot be hashed."""
        if len(self._values) >= self._size:
            self._values.clear()
        try:
            self._values[key] = value
        except Exception:  # from the user's own __hash__ or __eq__
            return
