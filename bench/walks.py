"""Count the calls of ours that a request or an inform passes, from the caller and back.

python -m bench.walks            # how many calls
python -m bench.walks --show     # each of them, in order
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Iterator

import katcp
from katcp import BlockingClient, DeviceClient, Message
from katcp.simdevice import SimulatedDevice

OURS = str(Path(katcp.__file__).parent) + os.sep
SIMULATED = OURS + "simdevice" + os.sep


class Calls:
    """The functions of ours that are called meanwhile, in any thread but the device's."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def note(self, frame: Any, event: str, arg: Any) -> None:
        """Note a call; for sys.setprofile."""
        code = frame.f_code
        path = code.co_filename
        is_ours = path.startswith(OURS) and not path.startswith(SIMULATED)
        if event == "call" and is_ours and not code.co_name.startswith("<"):
            self.names.append(f"{path[len(OURS) :]}:{code.co_name}")


def count_blocking(address: tuple[str, int]) -> list[str]:
    """Return the calls of one blocking request."""
    with BlockingClient(*address) as client:
        messages = [Message.request("watchdog") for _ in range(4)]
        return _noted(client, lambda: client.blocking_request(messages.pop()))


def count_future(address: tuple[str, int]) -> list[str]:
    """Return the calls of one awaited request."""

    async def main() -> list[str]:
        async with BlockingClient(*address) as client:
            for _ in range(3):
                await client.future_request(Message.request("watchdog"))
            calls = Calls()
            msg = Message.request("watchdog")
            sys.setprofile(calls.note)
            await client.future_request(msg)
            sys.setprofile(None)
            return calls.names

    return asyncio.run(main())


def count_inform(address: tuple[str, int], tell: Callable[[Message], None]) -> list[str]:
    """Return the calls of one inform to its handler."""
    told = threading.Event()

    class Client(DeviceClient):
        def inform_news(self, msg: Message) -> None:
            told.set()

    with Client(*address) as client:

        def hear_news() -> None:
            told.clear()
            tell(Message.inform("news"))
            told.wait(5)

        calls = _noted(client, hear_news)
        # Those of the device, which is in this thread, come first.
        return calls[calls.index("_net/stream.py:_handle_events") :]


def _noted(client: DeviceClient, call: Callable[[], Any]) -> list[str]:
    """Return the calls that *call* makes, here and in the loop of *client*."""
    calls = Calls()
    assert client.ioloop is not None
    for _ in range(3):
        call()
    _in_loop(client, lambda: sys.setprofile(calls.note))
    sys.setprofile(calls.note)
    call()
    sys.setprofile(None)
    _in_loop(client, lambda: sys.setprofile(None))
    return calls.names


def _in_loop(client: DeviceClient, function: Callable[[], Any]) -> None:
    done = threading.Event()
    assert client.ioloop is not None
    client.ioloop.add_callback(function)
    client.ioloop.add_callback(done.set)
    done.wait(5)


def walks() -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each walk and its calls."""
    with SimulatedDevice() as device:
        yield "blocking_request", count_blocking(device.address)
        yield "future_request", count_future(device.address)
        yield "inform to its handler", count_inform(device.address, device.inform)


def main() -> None:
    """Print the walks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--show", action="store_true", help="show each call")
    options = parser.parse_args()
    for name, calls in walks():
        print(f"{name}: {len(calls)} calls")
        if options.show:
            print("".join(f"    {call}\n" for call in calls))


if __name__ == "__main__":
    main()
