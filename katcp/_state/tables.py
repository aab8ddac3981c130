"""Answers as tables, which IPython and Jupyter show: a row for each inform."""

from __future__ import annotations

import html
from itertools import zip_longest
from typing import Iterable, Sequence

from .._wire.message import Message, plain_repr

# More informs than this are counted, and more bytes of an argument.
MAX_INFORMS = 50
MAX_BYTES = 32

Row = Sequence[str]


def rows_of(arguments: Sequence[bytes], informs: Sequence[Message]) -> list[Row]:
    """Return the cells: positions of arguments above, and how to get to a row at its left."""
    rows = [_row("arguments", arguments)]
    shown = informs[:MAX_INFORMS]
    rows += [_row(f"informs[{number}]", msg.arguments) for number, msg in enumerate(shown)]
    heading = ["", *map(str, range(max(map(len, rows)) - 1))]
    left_out = len(informs) - len(shown)
    return [heading, *rows, *([[f"... and {left_out} more"]] if left_out else [])]


def _row(name: str, arguments: Iterable[bytes]) -> Row:
    return [name, *(plain_repr(argument, MAX_BYTES) for argument in arguments)]


def as_text_table(rows: Sequence[Row]) -> str:
    """Return lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


def as_html_table(rows: Sequence[Row], caption: str) -> str:
    """Return a table in HTML."""
    heading, *others = rows
    lines = ["<table>", f"<caption>{html.escape(caption)}</caption>"]
    lines.append(_html_row("".join(f"<th>{cell}</th>" for cell in heading)))
    for name, *cells in others:
        data = "".join(f'<td style="text-align: left">{html.escape(cell)}</td>' for cell in cells)
        lines.append(_html_row(f"<th>{name}</th>{data}"))
    return "\n".join([*lines, "</table>"])


def _html_row(cells: str) -> str:
    return f"<tr>{cells}</tr>"
