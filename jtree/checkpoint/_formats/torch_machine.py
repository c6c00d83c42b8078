"""The stack and the memo of a pickle, and names that stay names.

What calling a name gives is decided by a policy; nothing is imported, called or set on an object.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Final, Protocol


class GlobalName:
    """The name of a class or a function, which is all that is kept of it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class InertObject:
    """An object of an unknown class: the name of its class, and its state."""

    __slots__ = ("name", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Any = None


class PicklePolicy(Protocol):
    """The meaning of names; each method refuses those that do not belong in a file of tensors."""

    def name(self, name: str, /) -> Any:
        """Return a name as a value."""

    def call(self, name: str, args: tuple[Any, ...], /) -> Any:
        """Return the result of calling a name."""

    def load(self, identity: Any, /) -> Any:
        """Return the object that a persistent id stands for."""


MARK: Final = object()
_MAX_BITS = 4096  # of an integer
_MAX_NAME = 1000  # characters of the name of a class or a function
_KEYS = (str, int, float, bool, bytes, type(None))


class PickleMachine:
    """The stack and the memo of a pickle, and what its instructions do to them.

    Args:
      policy: the meaning of names.
      limit: the largest number of instructions.
    """

    def __init__(self, policy: PicklePolicy, limit: int) -> None:
        self.policy = policy
        self.limit = limit
        self.steps = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def spend(self, steps: int) -> None:
        """Count steps: instructions, and the values that a call goes through."""
        self.steps += steps
        if self.steps > self.limit:
            raise ValueError(
                f"its pickle has more than {self.limit:,} instructions, which is too many for a "
                "file of this size"
            )

    def push_value(self, value: Any) -> None:
        """Push a basic value."""
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise ValueError("invalid pickle: an integer is too long to be printed")
        self.stack.append(bytes(value) if isinstance(value, bytearray) else value)

    def pop(self) -> Any:
        """Remove the top of the stack, and return it."""
        value = self.top()
        if value is MARK:
            raise ValueError("invalid pickle: expected a value, found a mark")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        """Remove what is above the last mark, and return it."""
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is MARK:
                values = self.stack[at + 1 :]
                del self.stack[at:]
                return values
        raise ValueError("invalid pickle: a mark is missing")

    def top(self, cls: type = object) -> Any:
        """Return the top of the stack, which must be of this type."""
        if not self.stack:
            raise ValueError("invalid pickle: the stack is empty")
        value = self.stack[-1]
        if not isinstance(value, cls):
            raise ValueError(
                f"invalid pickle: expected a {cls.__name__}, found a {type(value).__name__}"
            )
        return value

    def push_name(self, module: str, name: str) -> None:
        """Push the name of a class or a function."""
        if not (isinstance(name, str) and isinstance(module, str)):
            raise ValueError("invalid pickle: a name is not text")
        if len(module) + len(name) > _MAX_NAME:
            raise ValueError(f"invalid pickle: a name is too long: {module:.40}.{name:.40}")
        self.stack.append(self.policy.name(f"{module}.{name}"))

    def push_object(self, cls: Any) -> None:
        """Push an object of a class, made without calling it."""
        if not isinstance(cls, GlobalName):
            raise ValueError(f"invalid pickle: an object of a {type(cls).__name__}, not of a class")
        self.stack.append(InertObject(cls.name))


def fill(target: dict[Any, Any], pairs: Iterable[tuple[Any, Any]]) -> None:
    """Put values into a dict, each under a key of its own.

    Keys other than text become text, except for integers of a machine word: of all others, an
    attacker can find many with one hash.
    """
    for key, x in pairs:
        if not _is_key(key):
            named = isinstance(key, GlobalName | InertObject)
            name = key.name if named else type(key).__name__
            raise ValueError(f"keys of dicts must be text or numbers, found a {name:.80}")
        plain = type(key) is str or (type(key) is int and abs(key) < sys.hash_info.modulus)
        known = key if plain else str(key)
        if known in target:
            raise ValueError(f"duplicate key {known!r:.80} in a dict of its pickle")
        target[known] = x


def _is_key(key: Any) -> bool:
    if type(key) is tuple:
        return len(key) < 10 and all(type(x) in _KEYS for x in key)
    return type(key) in _KEYS
