"""Plot a sensor while it changes: in the terminal, or in a window with matplotlib.

The device samples the sensor: it sends the reading every tenth of a second by itself.
"""

import argparse
import contextlib
from itertools import islice

from katcp import BlockingClient

WIDTH = 60


def plot_in_terminal(points, low, high):
    """Print a line for each reading: the further to the right, the larger the value."""
    for _, value in points:
        share = min(max((value - low) / (high - low), 0), 1)
        print(f"{value:10.3f} {' ' * round(share * WIDTH)}*", flush=True)


def plot_in_window(points, name):
    """Draw a curve that grows."""
    from matplotlib import pyplot

    _, axes = pyplot.subplots()
    axes.set_xlabel("time (s)")
    axes.set_ylabel(name)
    (curve,) = axes.plot([], [], ".-")
    times, values = [], []
    for time, value in points:
        times.append(time)
        values.append(value)
        curve.set_data([time - times[0] for time in times], values)
        axes.relim()
        axes.autoscale_view()
        pyplot.pause(0.01)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="localhost")
    parser.add_argument("port", nargs="?", type=int, default=7147)
    parser.add_argument("--sensor", default="temperature")
    parser.add_argument("--low", type=float, default=10, help="left end of the plot")
    parser.add_argument("--high", type=float, default=30, help="right end of the plot")
    parser.add_argument("--period", type=float, default=0.1, help="seconds")
    parser.add_argument("--count", type=int, help="stop after this many readings")
    parser.add_argument("--window", action="store_true", help="use matplotlib")
    options = parser.parse_args()

    with (
        BlockingClient(options.host, options.port) as client,
        client.sensors[options.sensor].watch(("period", options.period)) as updates,
    ):
        # A reading with another status ("unknown", "failure", ...) has no value.
        points = (
            (reading.timestamp, reading.value) for _, reading in updates if reading.status.is_usable
        )
        points = islice(points, options.count)
        if options.window:
            plot_in_window(points, options.sensor)
        else:
            plot_in_terminal(points, options.low, options.high)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
