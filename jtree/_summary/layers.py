"""A model of layers as text: a line per layer, with what it holds in a comment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from .._text import format_bytes
from .._tree.leaves import describe, isarray
from .._tree.nodes import children, kind
from .._tree.ties import Ties
from .._tree.walk import walk
from .sizes import facts, plural, remark, sizes

COLUMN = 40  # where comments start, and for a layer on its own half as far
LONGEST = 200  # of a repr that is shown as it is


_NONE = object()  # no layer, which is a leaf that holds nothing


class _Line(NamedTuple):
    depth: int
    text: str
    layer: Any = _NONE  # what the comment is about


class _Open(NamedTuple):
    """A container: how it starts and ends, and what is in it, named or not."""

    start: str
    end: str
    items: list[tuple[str, Any]]


def layers_text(model: Any, /, *, ties: Ties = "references") -> str:
    """Return a model of layers as text: containers opened, every layer on a line of its own.

    Args:
      model: a layer, a container of layers, or a list, tuple or dict of them.
      ties: which parameters are one, and counted once in the total; see `jtree.destructure`.

    Returns:
      A str, several lines for a container, with the sizes as comments. The total is there where
      there are more than two trainable arrays.

    Example:
      >>> print(layers_text([jnp.ones((2, 3)), jnp.tanh, jnp.zeros(3), jnp.ones(1)]))
      [
        float32[2, 3],                        # 6 parameters
        tanh,
        float32[3],                           # 3 parameters  (all zero)
        float32[1],                           # 1 parameter
      ]                   # Total: 3 arrays, 10 parameters, 40 bytes.

    Source: `show` of Flux.jl's layers.
    """
    lines = list(_lines(model))
    if len(lines) == 1:
        return _comment(lines[0].text, COLUMN // 2, _about(model, " non-trainable"))
    last = f"{lines.pop().text}{_total(model, ties)}"
    return "\n".join([*map(_line, lines), last])


def _lines(model: Any) -> Iterator[_Line]:
    """Yield the lines of a model; what is still to come is on a stack, its end included."""
    stack: list[tuple[int, str, Any]] = [(0, "", model)]
    while stack:
        depth, name, item = stack.pop()
        opened = None if isinstance(item, _Line) else _open(item, top=depth == 0)
        if isinstance(item, _Line):
            yield item
        elif opened is None:
            yield _Line(depth, name + _one_line(item), item)
        else:
            yield _Line(depth, name + opened.start)
            stack.append((depth, "", _Line(depth, opened.end)))
            stack += [(depth + 1, below, x) for below, x in reversed(opened.items)]


def _line(line: _Line) -> str:
    starts = line.layer is _NONE and line.text[-1] in "([{"
    comma = "," if line.depth and not starts else ""
    return _comment("  " * line.depth + line.text + comma, COLUMN, _about(line.layer))


def _comment(text: str, column: int, about: str) -> str:
    return f"{text}{' ' * max(2, column - len(text))}# {about}" if about else text


def _about(layer: Any, end: str = "") -> str:
    """Return what a layer holds: `128 parameters, plus 128`, and what is odd about it."""
    slots = walk(layer).slots
    trainable, rest, _ = sizes(enumerate(slots))
    if not trainable.arrays + rest.arrays:
        return ""
    text = plural(trainable.parameters, "parameter")
    if rest.arrays:
        text += f", plus {rest.parameters:_}{end}"
    found = remark(facts([slot.value for slot in slots if slot.trainable]))
    return f"{text}  {found}" if found else text


def _total(model: Any, ties: Ties) -> str:
    """Return the comment after the last line, where there is enough to add up."""
    trainable, rest, tied = sizes(enumerate(walk(model, ties=ties).slots))
    if trainable.arrays <= 2 and not tied:
        return ""
    again = f"; {plural(tied, 'tied place')} not counted again." if tied else "."
    text = f"{plural(trainable.arrays, 'trainable array' if rest.arrays else 'array')}, "
    text += f"{plural(trainable.parameters, 'parameter')}, {format_bytes(trainable.bytes)}"
    if not rest.arrays:
        return f"{' ' * 19}# Total: {text}{again}"
    more = f"{rest.arrays:_} non-trainable, {plural(rest.parameters, 'parameter')}, "
    more += f"{format_bytes(rest.bytes)}{again}"
    return f"{' ' * 9}# Total: {text},\n{' ' * 10}# plus {more}"


def _open(x: Any, *, top: bool) -> _Open | None:
    """Return a container taken apart; None for a layer, a function, an array."""
    if isarray(x) or not children(x):
        return None
    basic = BRACKETS.get(type(x))
    items = _items(x) if basic else list(_spliced(x))
    if not any(not _leaflike(child) for _, child in items) and not (basic and top):
        return None
    start, end = basic or (f"{type(x).__name__}(", ")")
    return _Open(start, end, items)


BRACKETS: dict[type, tuple[str, str]] = {list: ("[", "]"), tuple: ("(", ")"), dict: ("{", "}")}


def _spliced(x: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a container holds; a tuple or a dict of layers counts as its own arguments."""
    for value in children(x).values():
        if isinstance(value, tuple | dict) and not _leaflike(value):
            yield from _items(value)
        else:
            yield "", value


def _items(x: Any) -> list[tuple[str, Any]]:
    if isinstance(x, dict):
        return [(f"{name}{': ' if type(x) is dict else '='}", child) for name, child in x.items()]
    return [("", child) for child in x]


def _leaflike(x: Any) -> bool:
    """Tell whether nothing in `x` is worth a line: a leaf, a box, a tuple of leaves."""
    if isarray(x) or kind(x).box or kind(x).hidden:
        return True
    held = children(x)
    return not held or (type(x) is tuple and not any(map(children, held.values())))


def _one_line(x: Any) -> str:
    """Return a layer, a function or an array as one line."""
    if isarray(x):
        return describe(x)
    if callable(x) and not children(x) and hasattr(x, "__name__"):
        return str(x.__name__)
    text = re.sub(" at 0x[0-9a-f]+", "", repr(x))
    return text if "\n" not in text and len(text) <= LONGEST else f"{type(x).__name__}(...)"
