"""Draw ``katcp watch`` as SVG, from a real run: ``python docs/watch_picture.py > watch.svg``."""

from __future__ import annotations

import contextlib
import fcntl
import io
import math
import os
import pty
import random
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Iterator

import pyte
from docutils import nodes
from docutils.parsers.rst import Directive
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from katcp.simdevice import Sensor, SimulatedDevice

WIDTH = 78
# From the first reading to Ctrl-C.
SECONDS = 3
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
    "PYTHONIOENCODING": "utf-8",
    "TERM": "xterm-256color",
    "NO_COLOR": "",
}
# The table has the screen to itself; this gives the screen back.
END_OF_SCREEN = b"\x1b[?1049l"
# What rich writes by default loads fonts from the network.
SVG = """\
<svg class="terminal" role="img" aria-label="Sensors, as katcp watch shows them" \
viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px monospace }}
.{unique_id}-title {{ font: 16px sans-serif }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def wind_speed(now: float) -> float:
    return round(9 + 2 * math.sin(2.5 * now) + random.random(), 2)


def temperature(now: float) -> float:
    return round(21.4 + 1.4 * math.exp(-(now % 4)) * math.cos(6 * now), 3)


def azimuth(now: float) -> float:
    return round(10 * now % 360, 3)


SENSORS = [
    Sensor("wind.speed", "float", "Wind", "m/s", (0, 5, 0, 15), source=wind_speed, interval=0.05),
    Sensor("rx.temp", "float", "Receiver", "K", source=temperature, interval=0.05),
    Sensor("azimuth", "float", "Azimuth", "deg", source=azimuth, interval=0.05),
    Sensor("mode", "string", value="tracking", timestamp=time.time()),
]


def read_chunks(terminal: int) -> Iterator[bytes]:
    """Yield what is written to a terminal, until nobody has it open any more."""
    # On Linux this is an error.
    with contextlib.suppress(OSError):
        while data := os.read(terminal, 65536):
            yield data


def run_watch() -> pyte.Screen:
    """Return the screen of a terminal in which ``katcp watch`` runs."""
    # Title, headings and foot take a line each.
    screen = pyte.Screen(WIDTH, len(SENSORS) + 3)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", screen.lines, WIDTH, 0, 0))
    with SimulatedDevice(sensors=SENSORS) as device:
        command = [sys.executable, "-m", "katcp", "watch", "{}:{}".format(*device.address)]
        watch = subprocess.Popen(
            [*command, *(sensor.name for sensor in SENSORS)],
            env=ENVIRONMENT,
            stdin=theirs,
            stdout=theirs,
            # A process in the background may have inherited that it is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        os.close(theirs)
        end = threading.Timer(SECONDS, watch.send_signal, [signal.SIGINT])
        for data in read_chunks(ours):
            shown, is_end, _ = data.partition(END_OF_SCREEN)
            stream.feed(shown)
            if is_end:
                break
            if "nominal" in screen.display[2] and end.ident is None:
                end.start()
        watch.wait()
    os.close(ours)
    return screen


def text_of(screen: pyte.Screen) -> Text:
    """Return what is on a screen, in its colours."""
    text = Text()
    for row in range(screen.lines):
        for column in range(screen.columns):
            cell = screen.buffer[row][column]
            colour = {"default": "", "brown": "yellow"}.get(cell.fg, cell.fg)
            text.append(cell.data, f"{'bold ' if cell.bold else ''}{colour}".strip())
        text.append("\n")
    text.rstrip()
    return text


def draw() -> str:
    """Return the picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    names = " ".join(sensor.name for sensor in SENSORS)
    console.print(f"[green]$[/] katcp watch antenna:7147 {names}", highlight=False)
    console.print(text_of(run_watch()))
    return console.export_svg(title="", theme=MONOKAI, code_format=SVG, unique_id="watch")


class WatchPicture(Directive):
    """``.. watch-picture::``"""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", f"<figure>{draw()}</figure>", format="html")]


if __name__ == "__main__":
    print(draw())
