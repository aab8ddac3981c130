"""Draw ``katcp watch`` as SVG, from a real run: ``python docs/watch_picture.py > watch.svg``."""

from __future__ import annotations

import contextlib
import io
import math
import os
import pty
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Iterator

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
    "COLUMNS": str(WIDTH),
    "LINES": "24",
}
# The table has the screen to itself. This gives the screen back; then comes the last table.
END_OF_SCREEN = "\x1b[?1049l"
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


def read_lines(terminal: io.TextIOBase) -> Iterator[str]:
    """Yield what is written to a terminal, until nobody has it open any more."""
    # On Linux this is an error.
    with contextlib.suppress(OSError):
        yield from terminal


def run_watch() -> str:
    """Return the table that ``katcp watch`` leaves in a terminal after Ctrl-C."""
    ours, theirs = pty.openpty()
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
        with open(ours, encoding="utf-8") as terminal:
            lines = read_lines(terminal)
            next(line for line in lines if "nominal" in line)
            threading.Timer(SECONDS, watch.send_signal, [signal.SIGINT]).start()
            output = "".join(lines)
        watch.wait()
    return output.rpartition(END_OF_SCREEN)[2]


def draw() -> str:
    """Return the picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    names = " ".join(sensor.name for sensor in SENSORS)
    console.print(f"[green]$[/] katcp watch antenna:7147 {names}", highlight=False)
    console.print(Text.from_ansi(run_watch().rstrip()))
    return console.export_svg(title="", theme=MONOKAI, code_format=SVG, unique_id="watch")


class WatchPicture(Directive):
    """``.. watch-picture::``"""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", f"<figure>{draw()}</figure>", format="html")]


if __name__ == "__main__":
    print(draw())
