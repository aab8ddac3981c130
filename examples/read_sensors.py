"""Print the readings of some sensors of a device, or of all.

The simplest way to use a device: connect, read, print, stop.
"""

import argparse
import sys

from katcp import BlockingClient, KatcpClientError, KatcpSensorError


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="localhost")
    parser.add_argument("port", nargs="?", type=int, default=7147)
    parser.add_argument("sensors", nargs="*", help="names or patterns; default: all")
    parser.add_argument("--timeout", type=float, default=5, help="seconds")
    options = parser.parse_args()

    # "with" connects, and stops the client at the end, whatever happens. The timeout is
    # that of the connection, and of each request.
    with BlockingClient(options.host, options.port, timeout=options.timeout) as client:
        for pattern in options.sensors or ["*"]:
            try:
                readings = client.sensors.read(pattern)
            except KatcpSensorError as error:
                # The device has no such sensor.
                print(f"{pattern:20} {error}")
                continue
            for name, (_, status, value) in readings.items():
                units = client.sensors[name].units
                print(f"{name:20} {status:10} {value} {units}".rstrip())


if __name__ == "__main__":
    try:
        main()
    except KatcpClientError as error:
        # No connection, or a device that does not answer in time.
        sys.exit(f"read_sensors: {error}")
