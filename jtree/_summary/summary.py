"""Print a model as a table: the path, shape, dtype and size of every array."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from .._arguments import check_integer
from .._errors import ArgumentError
from .._text import align, format_bytes
from .._text import table as rich_table
from .._tree import paths
from .._tree.leaves import isarray, istracer
from .._tree.opaque import check_leaves
from .._tree.structure import Branch
from .._tree.ties import Slot, Ties
from .._tree.walk import Walk, walk
from .sizes import Sizes, ValueNotes, end_of_total, plural, remark, sizes, value_notes

if TYPE_CHECKING:
    from rich.table import Table


class Row(NamedTuple):
    """A row of a summary: one array, or a node with everything below it.

    Attributes:
      path: the path of the array or the node.
      type: the name of the node's type; empty for an array.
      shape: the shape of the array, or None.
      dtype: the dtype of the array; empty for a node.
      sizes: the sizes of the arrays.
      sharding: the sharding of an array on several devices, as text.
      remarks: remarks such as `(all zero)`.
    """

    path: str
    type: str
    shape: tuple[int, ...] | None
    dtype: str
    sizes: Sizes
    sharding: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Summary:
    """A table of the arrays in a model: the result of `jtree.summary`.

    It prints as text, as a table on a console of rich, and as HTML in a notebook.

    Attributes:
      rows: a row for every node that contains arrays, and for every array, in JAX's order.
      total: the sizes of all arrays, counting tied ones once, as in
        `total.trainable.parameters`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jtree import summary
      >>> table = summary({"w": jnp.ones(2), "step": jnp.array(3)})
      >>> table.total.trainable
      Size(arrays=1, parameters=2, bytes=8)
      >>> [row.path for row in table.rows]
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
        """Return the total as a sentence."""
        trainable, rest, tied = self.total
        kind = "trainable array" if rest.arrays else "array"
        text = f"Total: {plural(trainable.arrays, kind)}, "
        text += f"{plural(trainable.parameters, 'parameter')}, {format_bytes(trainable.bytes)}"
        if rest.arrays:
            text += f", plus {plural(rest.arrays, 'non-trainable array')}, "
            text += f"{plural(rest.parameters, 'parameter')}, {format_bytes(rest.bytes)}"
        return text + end_of_total(tied)

    def _table(self) -> list[tuple[str, ...]]:
        """Return the titles and the rows of cells, without empty columns."""
        head = ("path", "shape", "dtype", "parameters", "bytes", "sharding", "remarks")
        table = [head, *map(_cells, self.rows)]
        filled = [i for i in range(len(head)) if i in (0, 1, 3) or any(row[i] for row in table[1:])]
        return [tuple(row[i] for i in filled) for row in table]


def summary(model: Any, /, *, ties: Ties = "references", max_depth: int | None = None) -> Summary:
    """Return a table of the arrays in a model, with paths, shapes, dtypes, parameters and bytes.

    The row of a node gives its type and the sum of everything below it. Arrays that are not
    trainable are counted separately, as in `20, plus 4`. Remarks say which arrays are tied,
    deleted, all zero, or contain NaN or Inf. For these remarks values are read on their device;
    those of abstract models and tracers are not.

    Args:
      model: any pytree, which may be abstract.
      ties: which leaves are one parameter, and are counted once; see `jtree.destructure`.
      max_depth: the depth of the deepest rows. A node at this depth includes what is below it.

    Returns:
      A `Summary`.

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
    if max_depth is not None and check_integer("max_depth", max_depth) < 0:
        raise ArgumentError(f"max_depth: expected None, 0 or more, found {max_depth}")
    walked = check_leaves(walk(model, ties=ties))
    slots = walked.slots
    branches = list(_branches(walked, max_depth))
    arrays = [slots[branch].value for branch in branches if isinstance(branch, int)]
    notes = iter(value_notes(arrays))
    rows = [
        _array(branch, slots, next(notes)) if isinstance(branch, int) else _node(branch, walked)
        for branch in branches
    ]
    return Summary(tuple(rows), sizes(enumerate(slots)))


def _branches(walked: Walk, max_depth: int | None) -> Iterator[Branch | int]:
    """Yield the nodes that contain arrays and the indices of arrays, from the root down."""
    stack: list[tuple[Branch | int, int]] = [(walked.structure.root, 0)]
    while stack:
        branch, depth = stack.pop()
        if isinstance(branch, int):
            if isarray(walked.values[branch]):
                yield branch
            continue
        if not any(map(isarray, walked.values[branch.first : branch.last])):
            continue
        visible = not (branch.kind.box or branch.kind.hidden)
        if visible:
            yield branch
        if not visible or max_depth is None or depth < max_depth:
            below = depth + (not branch.kind.box)
            stack += [(child, below) for child in reversed(branch.children)]


def _node(branch: Branch, walked: Walk) -> Row:
    inside = [(index, walked.slots[index]) for index in range(branch.first, branch.last)]
    node = walked.visited[branch.index]
    return Row(branch.path, type(node).__name__, None, "", sizes(inside))


def _array(index: int, slots: Sequence[Slot], notes: ValueNotes | None) -> Row:
    slot = slots[index]
    x = slot.value
    remarks = [
        f"tied to {paths.show(slots[slot.tie].path)}" if slot.tie != index else "",
        "" if slot.trainable else "non-trainable",
        "(deleted)" if not istracer(x) and getattr(x, "is_deleted", bool)() else "",
        remark([notes]),
    ]
    dtype = "float0" if x.dtype == jax.dtypes.float0 else str(x.dtype)
    own_sizes = sizes([(index, slot)])
    return Row(slot.path, "", x.shape, dtype, own_sizes, _sharding(x), tuple(filter(None, remarks)))


def _sharding(x: Any) -> str:
    """Return the sharding of an array on several devices as text."""
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
