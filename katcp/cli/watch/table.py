"""The live table of ``katcp watch``; needs ``prompt_toolkit``.

It uses the whole screen, and restores it at the end. Only the visible rows are laid out, however
many sensors there are.
"""

from __future__ import annotations

import asyncio
import math
import signal
import sys
import time
from typing import Any, Callable, Iterable, NamedTuple, Sequence

from prompt_toolkit import Application
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.layout import FormattedTextControl, Layout, Window

from ..output import count, exit_at_sigterm, on_signal, paint
from ..readings import STATUS_COLOURS, show_age
from ..tables import GAP, Column, fit, heading, line, natural_widths, shorten_cell
from .outputs import REFRESH_INTERVAL, Output
from .plot import ASCII_LEVELS, LEVELS, extent, plot
from .sampling import WatchClient, WatchedSensor

# Title, headings and foot take one line each.
OTHER_LINES = 3
LEAST_PLOT_WIDTH = 12
# How many seconds a note is shown.
NOTE_DURATION = 10.0
KEYS = "arrows scroll, s sorts, r reverses, Ctrl-C ends"

COLUMNS = (
    Column("DEVICE", least=8),
    Column("NAME", least=12),
    Column("STATUS", colours=STATUS_COLOURS),
    Column("VALUE", least=8),
    Column("UNITS"),
    Column("AGE", is_right=True),
    Column("LOW", is_right=True, is_optional=True),
    Column("HIGH", is_right=True, is_optional=True),
)


class Order(NamedTuple):
    """A way to sort sensors."""

    name: str
    key: Callable[[WatchedSensor], Any]


def _value_key(sensor: WatchedSensor) -> tuple[bool, float, str]:
    """Sort numbers before texts, and both before missing values."""
    is_number = not math.isnan(sensor.number)
    return not is_number, sensor.number if is_number else 0, sensor.shown_value


def _time_key(sensor: WatchedSensor) -> float:
    """Sort by time, the latest reading first."""
    timestamp = sensor.reading.timestamp if sensor.reading else math.nan
    return math.inf if math.isnan(timestamp) else -timestamp


ORDERS = (
    Order("name", lambda sensor: sensor.key),
    Order("status", lambda sensor: str(sensor.reading.status) if sensor.reading else "~"),
    Order("value", _value_key),
    Order("age", _time_key),
)


class LiveTable(Output):
    """A table that is updated while the user looks at it."""

    def __init__(self, clients: Sequence[WatchClient]) -> None:
        self._clients = clients
        self._sensors: list[WatchedSensor] = []
        self._note = ""
        self._note_ends = 0.0
        self._top = 0
        self._order = 0
        self._is_reversed = False
        self._app: Application[None] = Application(
            Layout(Window(FormattedTextControl(self._page, show_cursor=False))),
            key_bindings=self._key_bindings(),
            full_screen=True,
        )

    def run(self, handle_events: Callable[[float], None]) -> None:
        """Show the table until Ctrl-C."""

        async def handle_for_ever() -> None:
            try:
                while True:
                    handle_events(0.0)
                    self._sort()
                    self._app.invalidate()
                    await asyncio.sleep(REFRESH_INTERVAL)
            except Exception as error:
                self._app.exit(exception=error)

        def pre_run() -> None:
            exit_at_sigterm(self._app)
            # A signal of kill is not a key.
            on_signal(signal.SIGINT, self._end)
            self._app.create_background_task(handle_for_ever())

        self._app.run(pre_run)

    def find(self, sensors: Iterable[WatchedSensor]) -> None:
        """Update the list of sensors."""
        self._sensors = list(sensors)

    def tell(self, text: str) -> None:
        """Show a note below the table for some time."""
        self._note = text
        self._note_ends = time.monotonic() + NOTE_DURATION

    # ---- keys ----

    def _key_bindings(self) -> KeyBindings:
        bindings = KeyBindings()

        def bind(keys: Sequence[str], do: Callable[[], Any]) -> None:
            for key in keys:
                bindings.add(key)(lambda event: do())

        bind(["c-c", "q", "c-d"], self._end)
        bind(["up", "k"], lambda: self._scroll(-1))
        bind(["down", "j"], lambda: self._scroll(1))
        bind(["pageup"], lambda: self._scroll(-self._height()))
        bind(["pagedown", " "], lambda: self._scroll(self._height()))
        bind(["home", "g"], lambda: self._scroll(-len(self._sensors)))
        bind(["end", "G"], lambda: self._scroll(len(self._sensors)))
        bind(["s"], self._sort_by_next)
        bind(["r"], self._reverse)
        return bindings

    def _end(self) -> None:
        # Do not wait for more keys: the user may be in a hurry.
        if not self._app.is_done:
            self._app.exit()

    def _scroll(self, lines: int) -> None:
        self._top = max(min(self._top + lines, len(self._sensors) - self._height()), 0)

    def _sort_by_next(self) -> None:
        self._order = (self._order + 1) % len(ORDERS)
        self._sort()

    def _reverse(self) -> None:
        self._is_reversed = not self._is_reversed
        self._sort()

    def _sort(self) -> None:
        self._sensors.sort(key=ORDERS[self._order].key, reverse=self._is_reversed)

    # ---- layout ----

    def _height(self) -> int:
        """Return the number of visible sensors."""
        rows: int = self._app.output.get_size().rows
        return max(rows - OTHER_LINES, 1)

    def _page(self) -> ANSI:
        """Return the content of the screen."""
        width = self._app.output.get_size().columns
        self._scroll(0)
        shown = self._sensors[self._top : self._top + self._height()]
        lines = [self._title(width), *self._table(shown, width)]
        blank = [""] * (self._height() - len(shown))
        return ANSI("\n".join([*lines, *blank, self._foot(len(shown), width)]))

    def _title(self, width: int) -> str:
        names = ", ".join(str(client.device) for client in self._clients)
        lost = [str(client.device) for client in self._clients if not client.is_connected()]
        what = f"  not connected: {', '.join(lost)}; trying again" if lost else ""
        title = shorten_cell(names, max(width - len(what), 8))
        return paint(title, "bold") + paint(shorten_cell(what, width - len(title)), "red")

    def _foot(self, shown: int, width: int) -> str:
        order = f"by {ORDERS[self._order].name}{', reversed' if self._is_reversed else ''}"
        where = f"{self._top + 1}-{self._top + shown} of " if shown < len(self._sensors) else ""
        foot = f"{where}{count(len(self._sensors), 'sensor')} {order}   {KEYS}"
        if time.monotonic() < self._note_ends:
            return paint(shorten_cell(self._note, width), "red")
        return paint(shorten_cell(foot, width), "dim")

    def _table(self, sensors: Sequence[WatchedSensor], width: int) -> list[str]:
        """Return the headings and the rows; the plot gets the remaining width."""
        first = 0 if len(self._clients) > 1 else 1
        columns = COLUMNS[first:]
        now = time.time()
        rows = [_cells(sensor, now)[first:] for sensor in sensors]
        widths = natural_widths(columns, rows)
        widths = fit(columns, widths, width - len(GAP) - LEAST_PLOT_WIDTH)
        plot_width = width - sum(len(GAP) + it for it in widths if it >= 0)
        levels = LEVELS if (sys.stdout.encoding or "").lower().startswith("utf") else ASCII_LEVELS
        table = [heading(columns, widths) + (GAP + paint("PLOT", "bold") if plot_width > 3 else "")]
        for sensor, row in zip(sensors, rows):
            text = line(columns, row, widths)
            table.append(text + GAP + plot(sensor.numbers, plot_width, levels))
        return table


def _cells(sensor: WatchedSensor, now: float) -> list[str]:
    """Return the cells of a sensor's row, without the plot."""
    reading = sensor.reading
    low, high = extent(sensor.numbers)
    return [
        str(sensor.client.device),
        sensor.name,
        "waiting" if reading is None else str(reading.status),
        sensor.shown_value,
        sensor.units,
        "" if reading is None else show_age(reading.timestamp, now),
        f"{low:.6g}" if math.isfinite(low) else "",
        f"{high:.6g}" if math.isfinite(high) else "",
    ]
