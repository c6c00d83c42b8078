"""Print a model of layers, one line per layer, with sizes as comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from .._text import format_bytes
from .._tree.leaves import describe, isarray
from .._tree.nodes import children, kind
from .._tree.ties import Ties
from .._tree.walk import walk
from .sizes import end_of_total, plural, remark, sizes, value_notes

COLUMN = 40  # of comments; a single layer has its comment at half of it
LONGEST = 200  # characters of a repr that is printed in full


_NO_LAYER = object()


class _Line(NamedTuple):
    depth: int
    text: str
    layer: Any = _NO_LAYER  # the layer that the comment describes


class _OpenContainer(NamedTuple):
    """A container of layers: its first and last line, and its (name, layer) items."""

    start: str
    end: str
    items: list[tuple[str, Any]]


def layers_text(model: Any, /, *, ties: Ties = "references") -> str:
    """Return a model of layers as text, with every layer on its own line.

    Args:
      model: a layer, a container of layers, or a list, tuple or dict of them.
      ties: which parameters are one and count once in the total; see `jtree.destructure`.

    Returns:
      A str of one line for a layer, and of several lines for a container. Comments give the sizes,
      and the last one gives the total if there are more than two trainable arrays.

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
    """Yield the lines of a model. The stack holds what remains, including closing brackets."""
    stack: list[tuple[int, str, Any]] = [(0, "", model)]
    while stack:
        depth, name, item = stack.pop()
        opened = None if isinstance(item, _Line) else _open_container(item, top=depth == 0)
        if isinstance(item, _Line):
            yield item
        elif opened is None:
            yield _Line(depth, name + _one_line(item), item)
        else:
            yield _Line(depth, name + opened.start)
            stack.append((depth, "", _Line(depth, opened.end)))
            stack += [(depth + 1, below, x) for below, x in reversed(opened.items)]


def _line(line: _Line) -> str:
    starts = line.layer is _NO_LAYER and line.text[-1] in "([{"
    comma = "," if line.depth and not starts else ""
    return _comment("  " * line.depth + line.text + comma, COLUMN, _about(line.layer))


def _comment(text: str, column: int, about: str) -> str:
    return f"{text}{' ' * max(2, column - len(text))}# {about}" if about else text


def _about(layer: Any, end: str = "") -> str:
    """Return the comment on a layer: `128 parameters, plus 128`, and a remark on its values."""
    slots = walk(layer).slots
    trainable, rest, _ = sizes(enumerate(slots))
    if not trainable.arrays + rest.arrays:
        return ""
    text = plural(trainable.parameters, "parameter")
    if rest.arrays:
        text += f", plus {rest.parameters:_}{end}"
    note = remark(value_notes([slot.value for slot in slots if slot.trainable]))
    return f"{text}  {note}" if note else text


def _total(model: Any, ties: Ties) -> str:
    """Return the comment on the last line, unless there are too few arrays to sum up."""
    trainable, rest, tied = sizes(enumerate(walk(model, ties=ties).slots))
    if trainable.arrays <= 2 and not tied:
        return ""
    end = end_of_total(tied)
    text = f"{plural(trainable.arrays, 'trainable array' if rest.arrays else 'array')}, "
    text += f"{plural(trainable.parameters, 'parameter')}, {format_bytes(trainable.bytes)}"
    if not rest.arrays:
        return f"{' ' * 19}# Total: {text}{end}"
    more = f"{rest.arrays:_} non-trainable, {plural(rest.parameters, 'parameter')}, "
    more += f"{format_bytes(rest.bytes)}{end}"
    return f"{' ' * 9}# Total: {text},\n{' ' * 10}# plus {more}"


def _open_container(x: Any, *, top: bool) -> _OpenContainer | None:
    """Return the items of a container, or None for a layer, a function or an array."""
    if isarray(x) or kind(x).one_line or not children(x):
        return None
    basic = BRACKETS.get(type(x))
    items = _items(x) if basic else list(_spliced(x))
    if not any(not _leaflike(child) for _, child in items) and not (basic and top):
        return None
    start, end = basic or (f"{type(x).__name__}(", ")")
    return _OpenContainer(start, end, items)


BRACKETS: dict[type, tuple[str, str]] = {list: ("[", "]"), tuple: ("(", ")"), dict: ("{", "}")}


def _spliced(x: Any) -> Iterator[tuple[str, Any]]:
    """Yield the items of a container, including those of a tuple or dict that it holds."""
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
    """Return whether `x` needs no line of its own: a leaf, a box or a tuple of leaves."""
    if isarray(x) or kind(x).box or kind(x).hidden:
        return True
    below = children(x)
    return not below or (type(x) is tuple and not any(map(children, below.values())))


def _one_line(x: Any) -> str:
    """Return a layer, a function or an array on one line."""
    if isarray(x):
        return describe(x)
    if callable(x) and not children(x) and hasattr(x, "__name__"):
        return str(x.__name__)
    text = re.sub(" at 0x[0-9a-f]+", "", repr(x))
    return text if "\n" not in text and len(text) <= LONGEST else f"{type(x).__name__}(...)"
