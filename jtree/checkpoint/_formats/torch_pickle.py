"""Pickles of tensors, read without running anything.

A pickle is a program for a small machine. Run by this module, it builds dicts, lists, tuples and
basic values; the names of classes and functions stay names.

Source: `pickletools` of Python's standard library, which documents every instruction.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from .torch_machine import MARK, GlobalName, InertObject, PickleMachine, PicklePolicy, fill

Instruction: TypeAlias = Callable[[PickleMachine, Any], None]

_VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
)


def run_pickle(program: bytes, policy: PicklePolicy, limit: int) -> Any:
    """Return the value that a pickle builds.

    Args:
      program: the pickle.
      policy: the meaning of names.
      limit: the largest number of instructions.
    """
    machine = PickleMachine(policy, limit)
    for name, arg in _read_instructions(program):
        machine.spend(1)
        if name == "FRAME" and arg > len(program):
            raise ValueError("invalid pickle: a frame is longer than the pickle")
        if name in _VALUES:
            machine.push_value(arg)
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](machine, arg)
        else:
            raise ValueError(f"its pickle has the instruction {name}, which is refused")
    value = machine.pop()
    if machine.stack:
        raise ValueError("invalid pickle: it builds more than one value")
    return value


def _read_instructions(program: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the instructions of a pickle by name, with their arguments."""
    try:
        for code, arg, _ in pickletools.genops(io.BytesIO(program)):
            yield code.name, arg
    except ValueError as error:
        raise ValueError(f"invalid pickle: {str(error).partition(';')[0]}") from error


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


def _get(machine: PickleMachine, arg: int) -> None:
    if arg not in machine.memo:
        raise ValueError(f"invalid pickle: memo {arg:,} is empty")
    machine.stack.append(machine.memo[arg])


def _put(machine: PickleMachine, arg: int) -> None:
    if arg >= 2**32:  # of larger numbers, many have one hash
        raise ValueError(f"invalid pickle: a memo of {arg:,} entries")
    machine.memo[arg] = machine.top()


def _pop(machine: PickleMachine, _: Any) -> None:
    machine.top()
    machine.stack.pop()


def _pop_mark(machine: PickleMachine, _: Any) -> None:
    machine.pop_mark()


def _push(make: Callable[[], Any]) -> Instruction:
    return lambda machine, _: machine.stack.append(make())


_INSTRUCTIONS: dict[str, Instruction] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda *_: None),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
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
