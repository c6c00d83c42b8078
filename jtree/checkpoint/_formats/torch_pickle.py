"""Pickles of tensors, read without running anything.

A pickle is a program for a small machine. This machine builds dicts, lists, tuples and basic
values; the names of classes and functions stay names. Nothing is imported, called or set on an
object: a policy decides what calling a name gives.

Source: `pickletools` of Python's standard library, which documents every instruction.
"""

from __future__ import annotations

import io
import pickletools
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, TypeAlias


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
_VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
)


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

    def run(self, program: bytes) -> Any:
        """Return the value that a pickle builds."""
        arg: Any
        for code, arg, _ in pickletools.genops(io.BytesIO(program)):
            self.spend(1)
            if code.name == "FRAME" and arg > len(program):
                raise ValueError("invalid pickle: a frame is longer than the pickle")
            if code.name in _VALUES:
                self.push_value(arg)
            elif code.name in _INSTRUCTIONS:
                _INSTRUCTIONS[code.name](self, arg)
            else:
                raise ValueError(f"its pickle has the instruction {code.name}, which is refused")
        value = self.pop()
        if self.stack:
            raise ValueError("invalid pickle: it builds more than one value")
        return value

    def spend(self, steps: int) -> None:
        """Count steps: instructions, and the values that a call goes through."""
        self.steps += steps
        if self.steps > self.limit:
            raise ValueError(f"its pickle takes more than {self.limit:,} steps for a small file")

    def push_value(self, value: Any) -> None:
        """Push a basic value."""
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise ValueError("invalid pickle: an integer is too long to be printed")
        self.stack.append(bytes(value) if isinstance(value, bytearray) else value)

    def pop(self) -> Any:
        """Remove the top of the stack, and return it."""
        value = self.stack.pop()
        if value is MARK:
            raise ValueError("invalid pickle: expected a value, found a mark")
        return value

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


Instruction: TypeAlias = Callable[[PickleMachine, Any], None]


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


def _set_items(machine: PickleMachine, pairs: list[Any]) -> None:
    if len(pairs) % 2:
        raise ValueError("invalid pickle: a key lacks its value")
    if not isinstance(machine.top(), InertObject):  # a class that derives from dict
        fill(machine.top(dict), zip(pairs[::2], pairs[1::2], strict=True))


def _set_item(machine: PickleMachine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    _set_items(machine, [key, value])


def _dict(machine: PickleMachine, _: Any) -> None:
    pairs = machine.pop_mark()
    machine.stack.append({})
    _set_items(machine, pairs)


def _extend(machine: PickleMachine, values: list[Any]) -> None:
    if not isinstance(machine.top(), InertObject):
        machine.top(list).extend(values)


def _tuple(count: int) -> Instruction:
    def step(machine: PickleMachine, _: Any) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.stack.append(tuple(reversed(values)))

    return step


def _stack_global(machine: PickleMachine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push_name(module, name)


def _reduce(machine: PickleMachine, _: Any) -> None:
    args, function = machine.pop(), machine.pop()
    if not isinstance(function, GlobalName) or not isinstance(args, tuple):
        raise ValueError(f"invalid pickle: a call of a {type(function).__name__}")
    machine.spend(sum(len(x) for x in (args, *args) if isinstance(x, list | tuple | dict)))
    machine.stack.append(machine.policy.call(function.name, args))


def _new(count: int) -> Instruction:
    """Return the instruction that makes an object, whose arguments are not used."""

    def step(machine: PickleMachine, _: Any) -> None:
        for _ in range(count):
            machine.pop()
        machine.push_object(machine.pop())

    return step


def _inst(machine: PickleMachine, arg: str) -> None:
    machine.pop_mark()
    machine.push_name(*arg.split(" ", 1))
    machine.push_object(machine.pop())


def _frozenset(machine: PickleMachine, _: Any) -> None:
    machine.pop_mark()
    machine.stack.append(InertObject("builtins.frozenset"))


def _build(machine: PickleMachine, _: Any) -> None:
    """Keep a state without setting it: `__setstate__` is never called."""
    state, target = machine.pop(), machine.top()
    if isinstance(target, InertObject):
        target.state = state


def _put(machine: PickleMachine, arg: int) -> None:
    if arg >= 2**32:  # of larger numbers, many have one hash
        raise ValueError(f"invalid pickle: a memo of {arg:,} entries")
    machine.memo[arg] = machine.top()


def _pop(machine: PickleMachine, _: Any) -> None:
    machine.stack.pop()


def _pop_mark(machine: PickleMachine, _: Any) -> None:
    machine.pop_mark()


def _push(make: Callable[[], Any]) -> Instruction:
    return lambda machine, _: machine.stack.append(make())


_INSTRUCTIONS: dict[str, Instruction] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda *_: None),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, arg: m.stack.append(m.memo[arg])),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "MARK": _push(lambda: MARK),
    "POP": _pop,
    **dict.fromkeys(("POP_MARK", "ADDITEMS"), _pop_mark),
    "DUP": lambda machine, _: machine.stack.append(machine.top()),
    "NONE": _push(lambda: None),
    "NEWTRUE": _push(lambda: True),
    "NEWFALSE": _push(lambda: False),
    "EMPTY_TUPLE": _push(tuple),
    "EMPTY_LIST": _push(list),
    "EMPTY_DICT": _push(dict),
    "EMPTY_SET": _push(lambda: InertObject("builtins.set")),
    "FROZENSET": _frozenset,
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_mark())),
    **{f"TUPLE{n}": _tuple(n) for n in (1, 2, 3)},
    "LIST": lambda machine, _: machine.stack.append(machine.pop_mark()),
    "DICT": _dict,
    "APPEND": lambda machine, _: _extend(machine, [machine.pop()]),
    "APPENDS": lambda machine, _: _extend(machine, machine.pop_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: _set_items(machine, machine.pop_mark()),
    "GLOBAL": lambda machine, arg: machine.push_name(*arg.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _new(1),
    "NEWOBJ_EX": _new(2),
    "OBJ": lambda machine, _: machine.push_object(machine.pop_mark()[0]),
    "INST": _inst,
    "BUILD": _build,
    "BINPERSID": lambda machine, _: machine.stack.append(machine.policy.load(machine.pop())),
}
