"""The live table of ``katcp watch``; needs ``rich``.

It has the screen to itself, so that nothing is left over when the terminal changes
its size, and leaves the last table behind when it ends.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any, Iterator, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ..output import wants_colour
from ..readings import STATUS_COLOURS, Reading, show_age
from .outputs import (
    ASCII_PLOT_LEVELS,
    PLOT_LEVELS,
    PLOTTED_READINGS,
    Output,
    WatchedSensor,
    extent,
    plot,
)

# From this width of the terminal on there is room for the extent of each plot.
WIDE = 100
# Below this width there is no room for a plot.
NARROW = 60
LEAST_PLOT_WIDTH = 10
# What these columns hold is short, and of little use when it is cut.
LEAST_WIDTHS = {"STATUS": len("nominal"), "UNITS": len("UNITS"), "AGE": len("119 min")}
# What all columns but names and values need, mostly, with the gaps.
OTHERS_WIDTH = {"STATUS": 13, "UNITS": 7, "AGE": 9, "LOW": 14, "PLOT": 12, "HIGH": 12}
LEAST_CELL_WIDTH = 8


class LiveTable(Output):
    """A table that changes while one looks at it.

    Parameters
    ----------
    title : str
        What stands above it.
    sensors : sequence of WatchedSensor
        The rows.
    """

    def __init__(self, title: str, sensors: Sequence[WatchedSensor]) -> None:
        self._title = title
        self._sensors = sensors
        self._note = ""
        self._is_connected = True
        self._console = Console(
            file=sys.stdout, no_color=not wants_colour(sys.stdout), highlight=False
        )
        self._live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            get_renderable=lambda: self._page(self._console.size.height),
        )

    def __enter__(self) -> LiveTable:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the screen back, and leave the last table on it."""
        self._live.stop()
        self._console.print(self._table(self._sensors))

    def show(self, sensor: WatchedSensor, reading: Reading) -> None:
        """Do nothing: the next refresh shows what the sensors hold."""

    def tell(self, text: str) -> None:
        """Show a note below the table."""
        self._note = text

    def on_connection(self, connected: bool) -> None:
        """Show the state of the connection in the title and in each status."""
        self._is_connected = connected
        self._note = ""

    def refresh(self) -> None:
        """Draw the table."""
        self._live.refresh()

    def _page(self, height: int) -> Group:
        """Return what fills a screen; title, headings and foot take a line each."""
        shown = self._sensors[: max(height - 3, 1)]
        title = Text(self._title, "bold", no_wrap=True, overflow="ellipsis")
        if not self._is_connected:
            title.append("  connection lost, trying again", "red")
        return Group(title, self._table(shown), self._foot(len(self._sensors) - len(shown)))

    def _foot(self, hidden: int) -> Text:
        foot = Text(no_wrap=True, overflow="ellipsis")
        foot.append("Ctrl-C ends.", "dim")
        if hidden:
            foot.append(f"  {hidden} more need a higher terminal.", "yellow")
        if self._note:
            foot.append(f"  {self._note}", "red")
        return foot

    def _table(self, sensors: Sequence[WatchedSensor]) -> Table:
        headings = self._headings()
        widest = self._widest(headings)
        table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in headings:
            table.add_column(
                heading,
                no_wrap=True,
                overflow="ellipsis",
                justify="right" if heading in ("AGE", "LOW") else "left",
                min_width=LEAST_WIDTHS.get(heading),
                max_width=widest.get(heading),
                ratio=1 if heading == "PLOT" else None,
            )
        now = time.time()
        for sensor in sensors:
            cells = self._cells(sensor, now)
            table.add_row(*(cells[heading] for heading in headings))
        return table

    def _headings(self) -> list[str]:
        """Return the headings of the columns for which there is room."""
        headings = ["NAME", "STATUS", "VALUE", "UNITS", "AGE"]
        width = self._console.size.width
        if width >= WIDE:
            return [*headings, "LOW", "PLOT", "HIGH"]
        return headings if width < NARROW else [*headings, "PLOT"]

    def _widest(self, headings: Sequence[str]) -> dict[str, int]:
        """Return how wide names and values may be: they shall not push out the plot."""
        others = sum(OTHERS_WIDTH.get(heading, 2) for heading in headings)
        room = self._console.size.width - others
        longest_name = max(len(sensor.name) for sensor in self._sensors)
        name = max(min(longest_name, room * 2 // 3), LEAST_CELL_WIDTH)
        return {"NAME": name, "VALUE": max(room - name, LEAST_CELL_WIDTH)}

    def _cells(self, sensor: WatchedSensor, now: float) -> dict[str, Any]:
        """Return what stands in the row of a sensor, by heading."""
        reading = sensor.reading
        status = "waiting" if reading is None else reading.status
        if not self._is_connected:
            status = "unreachable"
        low, high = extent(sensor.numbers)
        return {
            "NAME": Text(sensor.name),
            "STATUS": Text(status, STATUS_COLOURS.get(status, "")),
            "VALUE": Text(sensor.shown_value, "" if self._is_connected else "dim"),
            "UNITS": Text(sensor.description.units),
            "AGE": "" if reading is None else show_age(now - reading.timestamp),
            "LOW": f"{low:.6g}" if math.isfinite(low) else "",
            "PLOT": _Plot(sensor),
            "HIGH": f"{high:.6g}" if math.isfinite(high) else "",
        }


class _Plot:
    """A plot that is as wide as its column."""

    def __init__(self, sensor: WatchedSensor) -> None:
        self._numbers = sensor.numbers

    def __rich_console__(self, console: Console, options: Any) -> Iterator[Segment]:
        is_unicode = options.encoding.startswith("utf")
        levels = PLOT_LEVELS if is_unicode else ASCII_PLOT_LEVELS
        yield Segment(plot(self._numbers, options.max_width, levels))

    def __rich_measure__(self, console: Console, options: Any) -> Measurement:
        return Measurement(LEAST_PLOT_WIDTH, PLOTTED_READINGS)
