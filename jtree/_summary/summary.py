"""A table of what is in a model: for every array its place, shape, dtype and size."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from .._errors import ArgumentError
from .._text import align, format_bytes
from .._text import table as rich_table
from .._tree import paths
from .._tree.leaves import isarray, istracer
from .._tree.structure import Branch
from .._tree.ties import Slot, Ties
from .._tree.walk import Walk, walk
from .layers import layers_text as layers_text
from .sizes import Fact, Sizes, facts, plural, remark, sizes

if TYPE_CHECKING:
    from rich.table import Table


class Row(NamedTuple):
    """A line of a summary: a node with all that is below it, or one array."""

    path: str
    type: str  # of a node; empty for an array
    shape: tuple[int, ...] | None
    dtype: str
    sizes: Sizes
    sharding: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Summary:
    """What is in a model, as a table: of text, of rich, or of HTML in a notebook.

    Attributes:
      rows: a `Row` for every node that holds arrays, and for every array, in JAX's order.
      total: the sizes of all arrays, tied ones once: `total.trainable.parameters`, for one.

    Example:
      >>> import jax.numpy as jnp
      >>> from jtree import summary
      >>> found = summary({"w": jnp.ones(2), "step": jnp.array(3)})
      >>> found.total.trainable
      Size(arrays=1, parameters=2, bytes=8)
      >>> [row.path for row in found.rows]
      ['', 'step', 'w']
    """

    rows: tuple[Row, ...]
    total: Sizes

    def __repr__(self) -> str:
        table = self._table()
        right = {i for i, title in enumerate(table[0]) if title in _RIGHT}
        return "\n".join([*align(table, right), self.total_line()])

    def __rich__(self) -> Table:
        from rich.text import Text

        head, *body = self._table()
        caption = Text(self.total_line())
        table = rich_table(head, body, right=_RIGHT, caption=caption, caption_justify="left")
        for column in table.columns:
            column.no_wrap = column.header in _RIGHT
        for row, line in zip(table.rows, self.rows, strict=True):
            row.style = "bold" if line.type else ""
        return table

    def _repr_html_(self) -> str:
        head, *body = self._table()
        lines = [_html_row("th", head, head)]
        for row, cells in zip(self.rows, body, strict=True):
            lines.append(_html_row("th" if row.type else "td", head, cells))
        caption = f"<caption>{html.escape(self.total_line())}</caption>"
        return "\n".join(["<table>", caption, *lines, "</table>"])

    def total_line(self) -> str:
        """Return the sizes of all arrays as a sentence."""
        trainable, rest, tied = self.total
        kind = "trainable array" if rest.arrays else "array"
        text = f"Total: {plural(trainable.arrays, kind)}, "
        text += f"{plural(trainable.parameters, 'parameter')}, {format_bytes(trainable.bytes)}"
        if rest.arrays:
            text += f", plus {plural(rest.arrays, 'non-trainable array')}, "
            text += f"{plural(rest.parameters, 'parameter')}, {format_bytes(rest.bytes)}"
        return text + (f"; {plural(tied, 'tied place')} not counted again." if tied else ".")

    def _table(self) -> list[tuple[str, ...]]:
        """Return the columns' names and the cells, without the columns that are empty."""
        head = ("path", "shape", "dtype", "parameters", "bytes", "sharding", "remarks")
        table = [head, *map(_cells, self.rows)]
        kept = [i for i in range(len(head)) if i in (0, 1, 3) or any(row[i] for row in table[1:])]
        return [tuple(row[i] for i in kept) for row in table]


def summary(model: Any, /, *, ties: Ties = "references", max_depth: int | None = None) -> Summary:
    """Return a table of what is in a model: paths, shapes, dtypes, parameters and bytes.

    A node is named by its type and stands for all that is below it. Arrays that are not trainable
    count apart, as in `20, plus 4`. Remarks say what is tied, deleted, all zero, NaN or infinite;
    for them numbers are read where they are, and never those of abstract models or tracers.

    Args:
      model: any pytree, abstract ones included.
      ties: which parameters are one, and counted once; see `jtree.destructure`.
      max_depth: how many steps of paths to go down; nodes there stand for what is below.

    Returns:
      A `Summary`: text when printed, a table of rich's on a console of rich's, HTML in a notebook.

    Raises:
      ModelError: the model cannot be walked; the message says where and why.
      ArgumentError: `max_depth` is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> print(summary({"layer": {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}}))
      path     shape   dtype    parameters     bytes  remarks
      (root)   dict                      9  36 bytes
      layer    dict                      9  36 bytes
      layer/b  (3,)    float32           3  12 bytes  (all zero)
      layer/w  (2, 3)  float32           6  24 bytes
      Total: 2 arrays, 9 parameters, 36 bytes.

    Source: the printed models of Flux.jl.
    """
    if max_depth is not None and max_depth < 0:
        raise ArgumentError(f"max_depth: expected None, 0 or more, found {max_depth}")
    walked = walk(model, ties=ties)
    slots = walked.slots
    places = list(_places(walked, max_depth))
    arrays = [slots[place] for place in places if isinstance(place, int)]
    found = iter(facts([slot.value for slot in arrays]))
    rows = [
        _array(place, slots, next(found)) if isinstance(place, int) else _node(place, walked)
        for place in places
    ]
    return Summary(tuple(rows), sizes(enumerate(slots)))


def _places(walked: Walk, max_depth: int | None) -> Iterator[Branch | int]:
    """Yield the nodes that hold arrays, and the arrays' numbers, from the root down."""
    open_: list[tuple[Branch | int, int]] = [(walked.structure.root, 0)]
    while open_:
        place, depth = open_.pop()
        if isinstance(place, int):
            if isarray(walked.values[place]):
                yield place
            continue
        if not any(map(isarray, walked.values[place.first : place.last])):
            continue
        shown = not (place.kind.box or place.kind.hidden)
        if shown:
            yield place
        if not shown or max_depth is None or depth < max_depth:
            below = depth + (not place.kind.box)
            open_ += [(child, below) for child in reversed(place.children)]


def _node(place: Branch, walked: Walk) -> Row:
    inside = [(number, walked.slots[number]) for number in range(place.first, place.last)]
    node = walked.visited[place.index]
    return Row(place.path, type(node).__name__, None, "", sizes(inside))


def _array(number: int, slots: Sequence[Slot], fact: Fact | None) -> Row:
    slot = slots[number]
    x = slot.value
    remarks = [
        f"tied to {paths.show(slots[slot.tie].path)}" if slot.tie != number else "",
        "" if slot.trainable else "non-trainable",
        "(deleted)" if not istracer(x) and getattr(x, "is_deleted", bool)() else "",
        remark([fact]),
    ]
    dtype = "float0" if x.dtype == jax.dtypes.float0 else str(x.dtype)
    measured = sizes([(number, slot)])
    return Row(slot.path, "", x.shape, dtype, measured, _sharding(x), tuple(filter(None, remarks)))


def _sharding(x: Any) -> str:
    """Return how an array is spread, where it is over more than one device."""
    sharding = None if istracer(x) else getattr(x, "sharding", None)
    if isinstance(sharding, jax.sharding.NamedSharding):
        axes = ", ".join(f"{name}={length}" for name, length in sharding.mesh.shape.items())
        spec = str(sharding.spec).replace("PartitionSpec", "P")
        return f"{spec} over {axes}" if sharding.mesh.size > 1 else ""
    return str(sharding) if sharding is not None and len(sharding.device_set) > 1 else ""


def _cells(row: Row) -> tuple[str, ...]:
    trainable, rest, tied = row.sizes
    parameters = f"{trainable.parameters:_}"
    if row.type and rest.arrays:
        parameters += f", plus {rest.parameters:_}"
    elif rest.arrays:
        parameters = f"{rest.parameters:_}"
    counted = trainable.arrays + rest.arrays > 0 or not tied
    return (
        paths.show(row.path),
        row.type or str(row.shape),
        row.dtype,
        parameters if counted else "",
        format_bytes(trainable.bytes + rest.bytes) if counted else "",
        row.sharding,
        ", ".join(row.remarks),
    )


_RIGHT = ("parameters", "bytes")  # columns justified to the right


def _html_row(tag: str, head: Sequence[str], cells: Sequence[str]) -> str:
    sides = ("right" if title in _RIGHT else "left" for title in head)
    inside = (
        f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>'
        for side, cell in zip(sides, cells, strict=True)
    )
    return f"<tr>{''.join(inside)}</tr>"
