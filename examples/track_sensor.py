"""Keep the smallest and the largest value of a sensor, with a subclass of a client.

A subclass suits a program that is a client for its whole life: handlers are
methods that are named after the messages.
"""

import argparse
import threading

from katcp import BlockingClient, Message


class Tracker(BlockingClient):
    """A client that samples a sensor, on every connection anew."""

    def __init__(self, host, port, sensor, count):
        super().__init__(host, port)
        self.sensor = sensor
        self.count = count
        self.values = []
        self.complete = threading.Event()

    def notify_connected(self, connected):
        """Set the sampling, which the device forgets with each connection."""
        print("connected" if connected else "disconnected")
        if connected:
            # This runs in the thread of the client, which must not wait: so no ask().
            self.callback_request(
                Message.request("sensor-sampling", self.sensor, "event"), reply_cb=self.on_sampling
            )

    def on_sampling(self, reply):
        """Look whether the sampling was set."""
        if not reply.reply_ok():
            print("no sampling:", reply)
            self.complete.set()

    def inform_sensor_status(self, msg):
        """Take a new reading; called for every #sensor-status."""
        self.values.append(msg.get_float(4))
        if len(self.values) >= self.count:
            self.complete.set()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="localhost")
    parser.add_argument("port", nargs="?", type=int, default=7147)
    parser.add_argument("--sensor", default="counter")
    parser.add_argument("--count", type=int, default=10, help="how many readings")
    options = parser.parse_args()

    with Tracker(options.host, options.port, options.sensor, options.count) as tracker:
        tracker.complete.wait()
    if tracker.values:
        print(f"{options.sensor} from {min(tracker.values):g} to {max(tracker.values):g}")


if __name__ == "__main__":
    main()
