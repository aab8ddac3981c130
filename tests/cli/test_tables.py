"""Tables that fit the terminal."""

import os
import shutil

import pytest

from katcp.cli import tables
from katcp.cli.tables import Column, fit, line, natural_widths, print_table, shorten_cell

COLUMNS = (
    Column("NAME", least=6),
    Column("STATUS"),
    Column("VALUE", least=5, is_right=True),
    Column("TYPE", is_optional=True),
    Column("TEXT", least=4, is_optional=True),
)
ROWS = [
    ["temperature", "nominal", "21.5", "float", "Temperature of the room"],
    ["x", "error", "1" * 20, "integer", ""],
]


@pytest.mark.parametrize(
    ("text", "width", "cell"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "ab..."),
        ("abcdef", 2, ".."),
        ("\u6e29\u5ea6\u8a08", 6, "\u6e29\u5ea6\u8a08"),
        ("\u6e29\u5ea6\u8a08", 5, "\u6e29..."),
        ("e\u0301e\u0301", 2, "e\u0301e\u0301"),
    ],
)
def test_cells(text, width, cell):
    assert shorten_cell(text, width) == cell


@pytest.mark.parametrize(
    ("available", "widths"),
    [
        (200, [11, 7, 20, 7, 23]),
        (76, [11, 7, 20, 7, 23]),
        (75, [11, 7, 20, 7, 22]),
        (57, [11, 7, 20, 7, 4]),
        (56, [11, 7, 20, 7, -1]),
        (45, [11, 7, 20, -1, -1]),
        (40, [11, 7, 18, -1, -1]),
        (20, [6, 7, 5, -1, -1]),
        (1, [6, 7, 5, -1, -1]),
    ],
)
def test_widths(available, widths):
    assert fit(COLUMNS, natural_widths(COLUMNS, ROWS), available) == widths


def test_wide_characters_are_counted():
    columns = (Column("A"), Column("B"))
    widths = natural_widths(columns, [["\u6e29\u5ea6", "x"]])
    assert widths == [4, 1]
    assert line(columns, ["ab", "y"], widths) == "ab    y"


def test_a_pipe_gets_all(capsys):
    """And a wide cell makes no other line wider."""
    print_table(COLUMNS[:2], [["a" * 100, "ok"], ["b", "ok"]])
    assert capsys.readouterr().out == (f"NAME{' ' * 38}STATUS\n{'a' * 100}  ok\nb{' ' * 41}ok\n")


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_a_terminal_gets_what_fits(columns, capsys, monkeypatch):
    monkeypatch.setattr(tables, "is_terminal", lambda stream: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
    print_table(COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert ("TEXT" in lines[0]) == (columns > 56)
