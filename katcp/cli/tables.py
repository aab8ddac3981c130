"""Tables for people: aligned columns that fit the terminal."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from typing import Mapping, NamedTuple, Sequence

from .output import is_terminal, paint

GAP = "  "
# Where nothing limits the width, a wider cell shifts those to its right, in its line only.
MAX_CELL_WIDTH = 40

_NO_COLOURS: Mapping[str, str] = {}


class Column(NamedTuple):
    """A column.

    Attributes
    ----------
    heading : str
        The heading.
    least : int
        The minimum width, to which it may be cut. 0: never cut.
    is_optional : bool
        Whether it may be left out if space is short.
    is_right : bool
        Whether it is right-aligned.
    colours : mapping
        The colours of cells by their text.
    """

    heading: str
    least: int = 0
    is_optional: bool = False
    is_right: bool = False
    colours: Mapping[str, str] = _NO_COLOURS


def text_width(text: str) -> int:
    """Return the width of a text on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.combining(character)
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )


def shorten_cell(text: str, width: int) -> str:
    """Return *text*, cut to *width* cells, with dots for the rest."""
    if text_width(text) <= width:
        return text
    while text and text_width(text) > max(width - 3, 0):
        text = text[:-1]
    return f"{text}..."[:width]


def pad(text: str, width: int, is_right: bool = False) -> str:
    """Return *text*, padded with blanks to *width* cells."""
    blanks = " " * (width - text_width(text))
    return blanks + text if is_right else text + blanks


def natural_widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the widths of columns if nothing limits them."""
    cells = zip(*([column.heading for column in columns], *rows))
    return [max(map(text_width, column)) for column in cells]


def fit(columns: Sequence[Column], widths: Sequence[int], available: int) -> list[int]:
    """Return widths so that a table fits, or is as narrow as allowed; -1 for left out.

    The last columns are cut first, then left out, if allowed.
    """
    fitted = list(widths)

    def excess() -> int:
        shown = [width for width in fitted if width >= 0]
        return sum(shown) + len(GAP) * (len(shown) - 1) - available

    for index in reversed(range(len(columns))):
        column = columns[index]
        if excess() > 0 and column.least:
            fitted[index] = min(fitted[index], max(fitted[index] - excess(), column.least))
        if excess() > 0 and column.is_optional:
            fitted[index] = -1
    return fitted


def line(
    columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int], cut: bool = True
) -> str:
    """Return cells as a line of a table, coloured if the standard output shows colours.

    The last column is padded, too.
    """
    shown = []
    for column, cell, width in zip(columns, cells, widths):
        if width >= 0:
            text = pad(shorten_cell(cell, width) if cut else cell, width, column.is_right)
            shown.append(paint(text, column.colours.get(cell)))
    return GAP.join(shown)


def heading(columns: Sequence[Column], widths: Sequence[int]) -> str:
    """Return the headings as a line."""
    names = [column.heading for column in columns]
    return paint(line(columns, names, widths).rstrip(), "bold")


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: complete into a pipe, on a terminal as much as fits."""
    widths = natural_widths(columns, rows)
    cut = is_terminal(sys.stdout)
    if cut:
        widths = fit(columns, widths, shutil.get_terminal_size().columns)
    else:
        widths = [min(width, MAX_CELL_WIDTH) for width in widths]
    print(heading(columns, widths).rstrip())
    for row in rows:
        print(line(columns, row, widths, cut).rstrip())
