"""A server made of aiokatcp, run by the Python of its own virtualenv.

    python aiokatcp_server.py PORT

With PORT 0 the system chooses one. The port is printed; the server ends when
its standard input does, however that came about.
"""

import asyncio
import os
import sys
import threading

import aiokatcp


class Server(aiokatcp.DeviceServer):
    """What the tests ask of every peer."""

    VERSION = "interop-api-1.0"
    BUILD_STATE = "interop-build-2.3"

    def __init__(self, host, port):
        super().__init__(host, port)
        self.releases = asyncio.Queue()
        # A queue may serve the one that comes last first; a lock does not.
        self.in_turn = asyncio.Lock()
        for name in ("a.count", "b.count"):
            self.sensors.add(
                aiokatcp.Sensor(
                    int,
                    name,
                    "How many",
                    "things",
                    default=0,
                    initial_status=aiokatcp.Sensor.Status.NOMINAL,
                )
            )

    async def request_echo(self, ctx, *args: bytes):
        """Reply the arguments."""
        return args

    async def request_count(self, ctx, number: int) -> int:
        """Send as many informs."""
        for position in range(number):
            ctx.inform(position)
        return number

    async def request_every_byte(self, ctx, count: int) -> bytes:
        """Reply an argument of every byte, so many times over."""
        return bytes(range(256)) * count

    async def request_hold(self, ctx, *args: bytes):
        """Be answered when there is a release to be had."""
        ctx.inform("held", *args)
        async with self.in_turn:
            await self.releases.get()
        return args

    async def request_release(self, ctx) -> None:
        """Let one hold be answered."""
        self.releases.put_nowait(None)

    async def request_set(self, ctx, name: str, value: int) -> None:
        """Set a sensor."""
        self.sensors[name].value = value

    async def request_refuse(self, ctx) -> None:
        """Fail."""
        raise aiokatcp.FailReply("not today")

    async def request_crash(self, ctx) -> None:
        """Raise an exception."""
        raise ValueError("crashed on purpose")


async def main():
    server = Server("127.0.0.1", int(sys.argv[1]))
    await server.start()
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.join()


def end_with_standard_input():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_standard_input, daemon=True).start()
asyncio.run(main())
