"""Counts, sizes and tables as text."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def plural(count: int, noun: str, nouns: str = "", *, separator: str = ",") -> str:
    """Return a count with its noun, in the singular or in the plural.

    >>> plural(1, "array"), plural(50240, "parameter")
    ('1 array', '50,240 parameters')
    >>> plural(2, "leaf", "leaves"), plural(50240, "parameter", separator="_")
    ('2 leaves', '50_240 parameters')
    """
    number = f"{count:,}".replace(",", separator)
    return f"{number} {noun if count == 1 else nouns or noun + 's'}"


def printable(text: str) -> str:
    r"""Return text with escapes for characters that would control a terminal, or break a line.

    >>> printable("red: \x1b[31m"), printable("größe")
    ('red: \\x1b[31m', 'größe')
    """
    if text.isprintable():
        return text
    return "".join(x if x.isprintable() else repr(x)[1:-1] for x in text)


def format_bytes(count: int) -> str:
    """Return a number of bytes in the largest unit that it reaches.

    >>> format_bytes(20), format_bytes(204072), format_bytes(3 * 2**30)
    ('20 bytes', '199.289 KiB', '3.000 GiB')
    """
    if count < 1024:
        return plural(count, "byte", separator="_")
    power = min((count.bit_length() - 1) // 10, len(_UNITS))
    return f"{count / 1024**power:.3f} {_UNITS[power - 1]}"


def format_value(x: Any) -> str:
    """Return a value as text, a float with six digits.

    >>> format_value(1 / 3), format_value((1, 2)), format_value("SAME")
    ('0.333333', '(1, 2)', 'SAME')
    """
    return f"{x:.6g}" if isinstance(x, float) else str(x)


def align(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> Iterator[str]:
    """Yield rows of cells as lines of text with aligned columns.

    >>> list(align([("name", "size"), ("w", "12")], right={1}))
    ['name  size', 'w       12']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    pads = [str.rjust if i in right else str.ljust for i in range(len(widths))]
    for row in rows:
        cells = (pad(cell, width) for pad, cell, width in zip(pads, row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def table(
    titles: Sequence[str],
    *sections: Iterable[Sequence[str]],
    right: Collection[str] = (),
    dim: Collection[int] = (),
    border: bool = True,
    **options: Any,
) -> Table:
    """Return a table of rich, whose cells are plain text that folds where it is too long.

    Args:
      titles: the titles of the columns; without any the table has no header.
      *sections: rows of cells; a line separates the sections where there is a border.
      right: the titles of the columns that are justified to the right.
      dim: the indices of the sections that are printed dimly.
      border: whether lines are drawn around the cells.
      **options: passed on to `rich.table.Table`.
    """
    from rich.table import Table
    from rich.text import Text

    if not border:
        options = {"box": None, "pad_edge": False, "header_style": "bold"} | options
    rows = [(i, tuple(cells)) for i, section in enumerate(sections) for cells in section]
    drawn = Table(show_header=bool(titles), **options)
    for title in titles or [""] * max((len(cells) for _, cells in rows), default=0):
        drawn.add_column(title, justify="right" if title in right else "left", overflow="fold")
    last = {i: k for k, (i, _) in enumerate(rows)}
    for k, (i, cells) in enumerate(rows):
        style = "dim" if i in dim else ""
        drawn.add_row(
            *(Text(printable(x)) for x in cells), style=style, end_section=border and k == last[i]
        )
    return drawn


def render(renderable: Any, width: int = 100) -> str:
    """Return what rich would print, as plain text of at most this width."""
    from rich.console import Console

    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(renderable)
    return file.getvalue().rstrip()
