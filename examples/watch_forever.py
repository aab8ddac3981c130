"""Print the changes of some sensors until Ctrl-C, whatever becomes of the device.

The device may be down when this starts, and may be restarted at any time: the client
connects again, and the sampling is set again. Nobody has to look after it.
"""

import argparse
import contextlib
import logging
from datetime import datetime, timezone

from katcp import BlockingClient


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="localhost")
    parser.add_argument("port", nargs="?", type=int, default=7147)
    parser.add_argument("--sensors", nargs="+", default=["mode", "enabled"])
    options = parser.parse_args()
    # The client says at level WARNING why there is no connection, once.
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    client = BlockingClient(options.host, options.port)
    # Not "with", which raises if the device is not there: this client keeps trying.
    client.start()
    try:
        client.wait_connected()
        for name, (timestamp, status, value) in client.sensors.watch(*options.sensors):
            time = datetime.fromtimestamp(timestamp, timezone.utc)
            print(f"{time:%Y-%m-%d %H:%M:%S} {name} {status} {value}", flush=True)
    finally:
        client.stop()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
