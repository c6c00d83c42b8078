"""Pickles of tensors, understood without running anything.

A pickle is a program for a small machine. This machine builds dicts, lists, tuples and basic
values; the names of classes and functions stay names. Nothing is imported, called or set on an
object: what a name stands for when it is called is decided by a table of the caller's.

Source: `pickletools` of Python's standard library, which documents every instruction.
"""

from __future__ import annotations

import io
import pickletools
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol


class Global:
    """The name of a class or a function, which is all that is kept of it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Inert:
    """What an object of a class that is not known here is: its class's name, and its state."""

    __slots__ = ("name", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Any = None


class Policy(Protocol):
    """What is made of names; each refuses those that have no place in a file of tensors."""

    def name(self, name: str, /) -> Any:
        """Return what a name is as a value."""

    def call(self, name: str, args: tuple[Any, ...], /) -> Any:
        """Return what calling a name gives."""

    def load(self, identity: Any, /) -> Any:
        """Return what a persistent identity stands for."""


MARK: Final = object()
_BITS = 4096  # of an integer
_LONGEST = 1000  # letters of a name of a class or a function
_KEYS = (str, int, float, bool, bytes, type(None))
_VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
)


class Machine:
    """The stack, the memo, and what instructions do to them.

    Args:
      policy: what is made of names.
      most: the most instructions.
    """

    def __init__(self, policy: Policy, most: int) -> None:
        self.policy = policy
        self.most = most
        self.steps = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        """Return what a pickle builds."""
        arg: Any
        for code, arg, _ in pickletools.genops(io.BytesIO(program)):
            self.spend(1)
            if code.name == "FRAME" and arg > len(program):
                raise ValueError("its pickle has a frame that is longer than itself")
            if code.name in _VALUES:
                if isinstance(arg, int) and arg.bit_length() > _BITS:
                    raise ValueError("its pickle has an integer that is too long to be printed")
                self.stack.append(bytes(arg) if isinstance(arg, bytearray) else arg)
            else:
                step = _STEPS.get(code.name)
                if step is None:
                    raise ValueError(f"its pickle has the instruction {code.name}")
                step(self, arg)
        found = self.pop()
        if self.stack:
            raise ValueError("its pickle builds more than one value")
        return found

    def spend(self, steps: int) -> None:
        """Count steps: instructions, and the values that a call goes through."""
        self.steps += steps
        if self.steps > self.most:
            raise ValueError("its pickle has more instructions than a file of this size should")

    def pop(self) -> Any:
        """Return the top of the stack, removed."""
        found = self.stack.pop()
        if found is MARK:
            raise ValueError("its pickle takes a mark for a value")
        return found

    def pop_mark(self) -> list[Any]:
        """Return what is above the last mark, removed."""
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is MARK:
                found = self.stack[at + 1 :]
                del self.stack[at:]
                return found
        raise ValueError("its pickle misses a mark")

    def top(self, cls: type) -> Any:
        """Return the top of the stack, which must be of this type."""
        found = self.stack[-1]
        if not isinstance(found, cls):
            raise ValueError(f"its pickle takes a {type(found).__name__} for a {cls.__name__}")
        return found


def _set(machine: Machine, pairs: list[Any]) -> None:
    target = machine.top(object)
    if len(pairs) % 2:
        raise ValueError("its pickle has a key without a value")
    if isinstance(target, Inert):  # what a class that derives from dict holds
        return
    if not isinstance(target, dict):
        raise ValueError(f"its pickle takes a {type(target).__name__} for a dict")
    fill(target, zip(pairs[::2], pairs[1::2], strict=True))


def fill(target: dict[Any, Any], pairs: Iterable[tuple[Any, Any]]) -> None:
    """Put values into a dict, each under a key of its own.

    Keys other than text become text, but for integers of a machine word: of all others, an
    attacker can find many with one hash.
    """
    for key, x in pairs:
        if not _iskey(key):
            name = key.name if isinstance(key, Global | Inert) else type(key).__name__
            raise ValueError(
                f"its pickle has a key of a dict that is a {name:.80}; expected text or a number"
            )
        plain = type(key) is str or (type(key) is int and abs(key) < sys.hash_info.modulus)
        known = key if plain else str(key)
        if known in target:
            raise ValueError(f"its pickle has the key {known!r:.80} of a dict twice")
        target[known] = x


def _iskey(key: Any) -> bool:
    if type(key) is tuple:
        return len(key) < 10 and all(type(x) in _KEYS for x in key)
    return type(key) in _KEYS


def _extend(machine: Machine, values: list[Any]) -> None:
    target = machine.top(object)
    if not isinstance(target, Inert):
        machine.top(list).extend(values)


def _append(machine: Machine, _: Any) -> None:
    value = machine.pop()
    _extend(machine, [value])


def _set_item(machine: Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    _set(machine, [key, value])


def _tuple(count: int) -> Callable[[Machine, Any], None]:
    def step(machine: Machine, _: Any) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.stack.append(tuple(reversed(values)))

    return step


def _dict(machine: Machine, _: Any) -> None:
    pairs = machine.pop_mark()
    machine.stack.append({})
    _set(machine, pairs)


def _global(machine: Machine, arg: str) -> None:
    module, _, name = arg.partition(" ")
    machine.stack.append(_named(machine, module, name))


def _stack_global(machine: Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise ValueError("its pickle has a name that is no text")
    machine.stack.append(_named(machine, module, name))


def _named(machine: Machine, module: str, name: str) -> Any:
    if len(module) + len(name) > _LONGEST:
        raise ValueError(f"its pickle has a name that is too long: {module:.40}.{name:.40}")
    return machine.policy.name(f"{module}.{name}")


def _reduce(machine: Machine, _: Any) -> None:
    args, function = machine.pop(), machine.pop()
    if not isinstance(function, Global) or not isinstance(args, tuple):
        raise ValueError(f"its pickle calls a {type(function).__name__}")
    machine.spend(sum(len(x) for x in (args, *args) if isinstance(x, list | tuple | dict)))
    machine.stack.append(machine.policy.call(function.name, args))


def _new(machine: Machine, _: Any) -> None:
    machine.pop()
    machine.stack.append(_instance(machine.pop()))


def _new_ex(machine: Machine, _: Any) -> None:
    machine.pop()
    _new(machine, _)


def _obj(machine: Machine, _: Any) -> None:
    machine.stack.append(_instance(machine.pop_mark()[0]))


def _inst(machine: Machine, arg: str) -> None:
    machine.pop_mark()
    module, _, name = arg.partition(" ")
    machine.stack.append(_instance(_named(machine, module, name)))


def _instance(cls: Any) -> Inert:
    """Return an object of a class, made without calling it."""
    if not isinstance(cls, Global):
        raise ValueError(f"its pickle makes an object of a {type(cls).__name__}")
    return Inert(cls.name)


def _build(machine: Machine, _: Any) -> None:
    """Keep a state without setting it: `__setstate__` is never called."""
    state, target = machine.pop(), machine.top(object)
    if isinstance(target, Inert):
        target.state = state


def _put(machine: Machine, arg: int) -> None:
    if arg >= 2**32:  # of larger numbers, many have one hash
        raise ValueError(f"its pickle has a memo of {arg:,} entries")
    machine.memo[arg] = machine.top(object)


def _memoize(machine: Machine, _: Any) -> None:
    machine.memo[len(machine.memo)] = machine.top(object)


def _get(machine: Machine, arg: int) -> None:
    machine.stack.append(machine.memo[arg])


def _pop(machine: Machine, _: Any) -> None:
    machine.stack.pop()


def _pop_mark(machine: Machine, _: Any) -> None:
    machine.pop_mark()


def _push(value: Any) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.stack.append(value)


_STEPS: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda *_: None),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    "MEMOIZE": _memoize,
    "MARK": _push(MARK),
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.top(object)),
    "NONE": _push(None),
    "NEWTRUE": _push(True),
    "NEWFALSE": _push(False),
    "EMPTY_TUPLE": _push(()),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_SET": lambda machine, _: machine.stack.append(Inert("builtins.set")),
    "ADDITEMS": _pop_mark,
    "FROZENSET": lambda m, _: m.stack.append((m.pop_mark(), Inert("builtins.frozenset"))[1]),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_mark())),
    **{f"TUPLE{n}": _tuple(n) for n in (1, 2, 3)},
    "LIST": lambda machine, _: machine.stack.append(machine.pop_mark()),
    "DICT": _dict,
    "APPEND": _append,
    "APPENDS": lambda machine, _: _extend(machine, machine.pop_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: _set(machine, machine.pop_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _new,
    "NEWOBJ_EX": _new_ex,
    "OBJ": _obj,
    "INST": _inst,
    "BUILD": _build,
    "BINPERSID": lambda machine, _: machine.stack.append(machine.policy.load(machine.pop())),
}
