"""Print the readings of some sensors of a device, or of all.

The simplest way to use a device: connect, ask, print, stop.
"""

import argparse
import sys

from katcp import BlockingClient, KatcpClientError, KatcpReplyError


def print_reading(client, name):
    # The device answers with one inform for each sensor, and then with the reply:
    #     #sensor-value 1795375674.7 1 temperature nominal 21.2
    #     !sensor-value ok 1
    answer = client.ask("sensor-value", name)
    for inform in answer.informs:
        print(f"{inform.get_text(2):20} {inform.get_text(3):10} {inform.get_text(4)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="localhost")
    parser.add_argument("port", nargs="?", type=int, default=7147)
    parser.add_argument("sensors", nargs="*", help="names of sensors; default: all")
    parser.add_argument("--timeout", type=float, default=5, help="seconds")
    options = parser.parse_args()

    # "with" connects, and stops the client at the end, whatever happens. The timeout is
    # that of the connection, and of each request.
    with BlockingClient(options.host, options.port, timeout=options.timeout) as client:
        names = options.sensors
        if not names:
            names = [inform.get_text(0) for inform in client.ask("sensor-list").informs]
        for name in names:
            try:
                print_reading(client, name)
            except KatcpReplyError as error:
                # The device refuses, for example because there is no such sensor.
                print(f"{name:20} {error}")


if __name__ == "__main__":
    try:
        main()
    except KatcpClientError as error:
        # No connection, or a device that does not answer in time.
        sys.exit(f"read_sensors: {error}")
