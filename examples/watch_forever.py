"""Print the changes of some sensors until Ctrl-C, whatever becomes of the device.

The device may be down when this starts, and may be restarted at any time: the client
connects again, and the sampling is set again. Nobody has to look after it.
"""

import argparse
import contextlib
import logging
from datetime import datetime, timezone

from katcp import BlockingClient, Message


def sample(client, names):
    """Let the device send each change of the sensors; runs in the client's thread."""

    def on_reply(reply):
        # A lost connection fails the request, too; then it is set again on the next one.
        if not reply.reply_ok() and reply.local_error is None:
            print("the device refuses:", reply, flush=True)

    for name in names:
        client.callback_request(
            Message.request("sensor-sampling", name, "event"), reply_cb=on_reply
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="localhost")
    parser.add_argument("port", nargs="?", type=int, default=7147)
    parser.add_argument("--sensors", nargs="+", default=["mode", "enabled"])
    options = parser.parse_args()
    # The client says at level WARNING why there is no connection, once.
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    client = BlockingClient(options.host, options.port)

    def on_connection(connected):
        print("connected" if connected else "disconnected", flush=True)
        if connected:
            sample(client, options.sensors)

    client.add_connection_callback(on_connection)
    # Before the start, or the first changes would be missed.
    updates = client.informs("sensor-status")
    # Not "with", which raises if the device is not there: this client keeps trying.
    client.start()
    try:
        for update in updates:
            time = datetime.fromtimestamp(update.get_timestamp(0), timezone.utc)
            name, status, value = (update.get_text(position) for position in (2, 3, 4))
            print(f"{time:%Y-%m-%d %H:%M:%S} {name} {status} {value}", flush=True)
    finally:
        client.stop()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
