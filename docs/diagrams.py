"""Draw the text of a ``.. diagram::`` as SVG, in the colours of the page.

``- | +`` are lines, ``< > ^ v`` at their ends arrowheads. A word in capitals gets a box,
which ``=`` on both sides makes wider. Everything else is text.
"""

from __future__ import annotations

import re
from html import escape
from typing import Iterator

from docutils import nodes
from docutils.parsers.rst import Directive

# The size of a character.
WIDTH, HEIGHT = 8.4, 20
# What a line may run into, in each direction: (columns, rows).
CONNECTED = {(-1, 0): "-+<|", (1, 0): "-+>|", (0, -1): "|+^-", (0, 1): "|+v-"}
ARMS = {"-": [(-1, 0), (1, 0)], "|": [(0, -1), (0, 1)], "+": list(CONNECTED)}
# The arrowheads, and from where their lines come.
HEADS = {">": (-1, 0), "<": (1, 0), "v": (0, -1), "^": (0, 1)}
BOX_RE = re.compile(r"(?:=+ )?[A-Z]{5,}(?: =+)?")


class Drawing:
    """A text as characters on a grid."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.width = max(map(len, self.lines))

    def at(self, x: int, y: int) -> str:
        """Return the character at a place, a blank outside of the text."""
        return self.lines[y][x] if 0 <= y < len(self.lines) and 0 <= x < len(self.lines[y]) else " "

    def arms(self, x: int, y: int) -> list[tuple[int, int]]:
        """Return the directions in which a line runs from a place."""
        mark = self.at(x, y)
        if mark in HEADS:
            dx, dy = HEADS[mark]
            return [(dx, dy)] if self.at(x + dx, y + dy) in CONNECTED[dx, dy][:2] else []
        found = [
            (dx, dy)
            for dx, dy in ARMS.get(mark, [])
            if self.at(x + dx, y + dy) in CONNECTED[dx, dy]
        ]
        # A dash between two lines that are drawn across.
        if mark == "|" and self.at(x - 1, y) == self.at(x + 1, y) == "-":
            found += ARMS["-"]
        return found

    def svg(self, label: str) -> str:
        """Return the drawing."""
        lines, heads, texts = [], [], []
        for y, line in enumerate(self.lines):
            rest = list(line)
            for x, mark in enumerate(line):
                arms = self.arms(x, y)
                if arms:
                    rest[x] = " "
                    lines += [segment(x, y, arm) for arm in arms]
                    heads += [arrowhead(x, y, arms[0])] if mark in HEADS else []
            texts += list(labels("".join(rest), y))
        # A box is a little larger than its text.
        width, height = (self.width + 2) * WIDTH, len(self.lines) * HEIGHT + 6
        return (
            f'<svg class="diagram" role="img" aria-label="{escape(label)}" '
            f'viewBox="{-WIDTH} -3 {width:g} {height}" style="width: {width / 16:g}rem">'
            f'<path class="line" d="{"".join(lines)}"/>{"".join(texts)}'
            f'<path class="head" d="{"".join(heads)}"/></svg>'
        )


def middle(x: float, y: float) -> tuple[float, float]:
    return (x + 0.5) * WIDTH, (y + 0.5) * HEIGHT


def segment(x: int, y: int, arm: tuple[int, int]) -> str:
    """Return the path from the middle of a place to its edge."""
    (x1, y1), (x2, y2) = middle(x, y), middle(x + arm[0] / 2, y + arm[1] / 2)
    return f"M{x1:g} {y1:g}L{x2:g} {y2:g}"


def arrowhead(x: int, y: int, arm: tuple[int, int]) -> str:
    """Return the path of a triangle that points away from its line."""
    dx, dy = -arm[0], -arm[1]
    tip_x, tip_y = middle(x + dx * 0.5, y + dy * 0.4)
    left, right = (
        f"L{tip_x - 9 * dx + side * dy:g} {tip_y - 9 * dy + side * dx:g}" for side in (4, -4)
    )
    return f"M{tip_x:g} {tip_y:g}{left}{right}z"


def labels(line: str, y: int) -> Iterator[str]:
    """Yield the texts of a line, and their boxes."""
    for found in re.finditer(r"\S+(?: \S+)*", line):
        x, text = found.start() * WIDTH, found[0]
        if BOX_RE.fullmatch(text):
            yield (
                f'<rect class="box" x="{x - 0.8 * WIDTH:g}" y="{y * HEIGHT - 2:g}" rx="4" '
                f'width="{(len(text) + 1.6) * WIDTH:g}" height="{HEIGHT + 4}"/>'
            )
            text = text.replace("=", " ")
        left = len(text) - len(text.lstrip())
        text = text.strip()
        yield (
            f'<text x="{x + left * WIDTH:g}" y="{y * HEIGHT + 14.5:g}" '
            f'textLength="{len(text) * WIDTH:g}">{escape(text)}</text>'
        )


class Diagram(Directive):
    """``.. diagram:: what it shows``, with the drawing as content."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        svg = Drawing("\n".join(self.content)).svg(self.arguments[0])
        return [nodes.raw("", f"<figure>{svg}</figure>", format="html")]
