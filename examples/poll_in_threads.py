"""Poll sensors from several threads, each at its own pace, over one connection.

A BlockingClient may be used by any number of threads. Nothing has to be locked:
each gets the answers to its own requests.
"""

import argparse
import queue
import threading
import time

from katcp import BlockingClient, KatcpClientError

# What to read, and every how many seconds.
PLAN = {"temperature": 0.1, "counter": 0.15, "mode": 0.4}


def poll(client, name, period, texts, stopped):
    """Read a sensor again and again, until told to stop."""
    while not stopped.is_set():
        try:
            texts.put(f"{name}: {client.sensors[name].read(timeout=1).value}")
        except KatcpClientError as error:
            # One failure is no reason to give up: the client connects again by itself.
            texts.put(f"{name}: {error}")
        stopped.wait(period)


def print_until(end, texts):
    """Print what the threads have to say. One thread prints, so that no line is cut."""
    while time.monotonic() < end:
        try:
            print(texts.get(timeout=max(end - time.monotonic(), 0)), flush=True)
        except queue.Empty:
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="localhost")
    parser.add_argument("port", nargs="?", type=int, default=7147)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()

    texts = queue.Queue()
    stopped = threading.Event()
    with BlockingClient(options.host, options.port) as client:
        threads = [
            threading.Thread(target=poll, args=(client, name, period, texts, stopped))
            for name, period in PLAN.items()
        ]
        for thread in threads:
            thread.start()
        try:
            print_until(time.monotonic() + options.seconds, texts)
        finally:
            # Also after Ctrl-C: the threads have to end before the client does.
            stopped.set()
            for thread in threads:
                thread.join()


if __name__ == "__main__":
    main()
