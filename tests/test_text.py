"""Counts, sizes and tables as text."""

from __future__ import annotations

from jtree._text import align, format_bytes, plural, render, table


def test_bytes_have_units() -> None:
    sizes = [0, 1, 1023, 1024, 1536, 2**20 - 1, 2**20, 5 * 2**30, 2**80]
    assert [format_bytes(n) for n in sizes] == [
        *("0 bytes", "1 byte", "1_023 bytes", "1.000 KiB", "1.500 KiB", "1023.999 KiB"),
        *("1.000 MiB", "5.000 GiB", "1048576.000 EiB"),
    ]


def test_one_is_singular_and_nothing_is_plural() -> None:
    assert [plural(n, "leaf", "leaves") for n in (0, 1, 2)] == ["0 leaves", "1 leaf", "2 leaves"]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [("name", "size", "note"), ("layers/0", "12", ""), ("w", "3", "tied")]
    assert list(align(rows, right={1})) == [
        "name      size  note",
        "layers/0    12",
        "w            3  tied",
    ]


def test_a_table_shows_brackets_as_they_are_and_separates_sections() -> None:
    drawn = table(("path", "size"), [("a[b]", "1")], [], [("c", "2")], right=("size",))
    assert render(drawn, width=40).splitlines() == [
        "┏━━━━━━┳━━━━━━┓",
        "┃ path ┃ size ┃",
        "┡━━━━━━╇━━━━━━┩",
        "│ a[b] │    1 │",
        "├──────┼──────┤",
        "│ c    │    2 │",
        "└──────┴──────┘",
    ]


def test_a_table_without_titles_has_no_header() -> None:
    assert render(table((), [("a", "1"), ("bb", "2")], border=False)).splitlines() == [
        "a   1",
        "bb  2",
    ]
