"""Servers of the subcommands ``katcp record`` and ``katcp replay``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from typing import Awaitable, Callable

from .devices import Address
from .output import FAILED, CommandError, on_signal

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Serves clients until Ctrl-C, SIGTERM or `fail`."""

    def __init__(self, address: Address, handler: Handler) -> None:
        self._address = address
        self._handler = handler

    async def run(self, announce: Callable[[Address], None]) -> None:
        """Listen, pass the address to *announce*, and serve until the end."""
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Where this is unsupported, Ctrl-C raises KeyboardInterrupt.
        for number in (signal.SIGINT, signal.SIGTERM):
            on_signal(number, self._end)
        try:
            server = await asyncio.start_server(self._serve, *self._address[:2])
        except OSError as error:
            raise cannot_listen(self._address, error) from None
        try:
            announce(Address(*server.sockets[0].getsockname()[:2]))
            await self._ended
        finally:
            server.close()

    def fail(self, error: CommandError) -> None:
        """Make `run` end with an error."""
        if not self._ended.done():
            self._ended.set_exception(error)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # At the end `asyncio.run` cancels it: that is no error.
        with contextlib.suppress(asyncio.CancelledError):
            try:
                await self._handler(reader, writer)
            finally:
                writer.close()


def cannot_listen(address: Address, error: OSError) -> CommandError:
    """Return the error that says why listening failed."""
    # asyncio's own text is long; the error number gives a short one.
    reason = os.strerror(error.errno) if error.errno else str(error)
    return CommandError(f"cannot listen on {address}: {reason}; --listen chooses a port", FAILED)


def peer_of(writer: asyncio.StreamWriter) -> Address:
    """Return the address of the other side."""
    return Address(*writer.get_extra_info("peername")[:2])


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
