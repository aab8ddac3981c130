"""Keep the smallest and the largest value of a sensor, in a class of its own.

The sensor is watched by a callback, across restarts of the device: the client sets the
sampling again.
"""

import argparse
import threading

from katcp import BlockingClient


class Range:
    """The smallest and the largest value among some readings."""

    def __init__(self, count):
        self.count = count
        self.values = []
        self.complete = threading.Event()

    def update(self, name, reading):
        """Take a reading; called in the thread of the client, which must not wait."""
        if reading.status.is_usable:
            self.values.append(reading.value)
        if len(self.values) >= self.count:
            self.complete.set()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="localhost")
    parser.add_argument("port", nargs="?", type=int, default=7147)
    parser.add_argument("--sensor", default="counter")
    parser.add_argument("--count", type=int, default=10, help="how many readings")
    options = parser.parse_args()

    found = Range(options.count)
    with (
        BlockingClient(options.host, options.port) as client,
        client.sensors[options.sensor].watch(callback=found.update),
    ):
        found.complete.wait()
    print(f"{options.sensor} from {min(found.values):g} to {max(found.values):g}")


if __name__ == "__main__":
    main()
