"""``katcp record``: a proxy that records what a device and its clients say.

Strategy
--------
Each client has a connection of its own to the device. Bytes are passed on as they
come, both ways, and so is the end: an orderly one, of one direction or both, or
a reset. A `_Session` makes entries of a transcript of them.

Rules
-----
- An entry is what the client sent, and the first that the device said after that.
  What the device says more than `BURST` seconds later is an entry of its own, so
  the time of each byte is known that well.
- An entry is written when nothing can be added to it any more. What the client
  sent last is written at the end at the latest.
- The device is not connected to before a client comes: a device that serves one
  client would send away the one it has.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any, Callable, Optional

from ..connect import make_ssl_context
from ..listen import Server, add_listen_argument, peer_of, reset
from ..options import Address, add_device_arguments
from ..output import FAILED, USAGE, CommandError, printable
from ..transcript import ON_CONNECT, Entry, TranscriptWriter

# What comes within so many seconds belongs to one entry.
BURST = 0.01

_READ_SIZE = 64 * 1024

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def add_subcommand(subparsers: Any) -> None:
    """Add ``katcp record``."""
    parser = subparsers.add_parser(
        "record",
        help="record what a device and its clients say, as a proxy",
        description="Listen, pass on all that clients and the device say to each other, and "
        "record it with its times, each client as a connection of its own. Ctrl-C ends it. "
        "The file can be read at any time, and played again with 'katcp replay'.",
        allow_abbrev=False,
    )
    add_device_arguments(parser)
    parser.add_argument("file", metavar="FILE", help="the new file that is written")
    add_listen_argument(parser, "--listen")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    recorder = _Recorder(options)
    try:
        asyncio.run(recorder.run())
    finally:
        recorder.close()
    count = recorder.connections
    connections = "1 connection is" if count == 1 else f"{count} connections are"
    print(f"{connections} recorded in {options.file}.")
    return 0


def _open(path: str) -> TranscriptWriter:
    try:
        return TranscriptWriter(path)
    except FileExistsError:
        raise CommandError(f"{path} exists: record to a new file", USAGE) from None
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}", USAGE) from None


class _Recorder:
    """The proxy, for all clients."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.connections = 0
        self._device: Address = options.address
        self._timeout: float = options.timeout
        self._file: str = options.file
        self._ssl_context = make_ssl_context(options)
        self._transcript: Optional[TranscriptWriter] = None
        self._server = Server(options.listen, self._serve)

    async def run(self) -> None:
        """Serve clients until Ctrl-C."""
        await self._server.run(self._begin)

    def close(self) -> None:
        """Close the file."""
        if self._transcript is not None:
            self._transcript.close()

    def _begin(self, address: Address) -> None:
        """Make the file, now that somebody can connect."""
        self._transcript = _open(self._file)
        print(f"Recording {self._device} in {self._file}. Ctrl-C ends it.")
        print(f"Listening on {address}: connect there instead.", flush=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number, peer = self.connections, peer_of(writer)
        session = _Session(number, self._record)
        try:
            device = await self._connect()
        except (OSError, asyncio.TimeoutError) as error:
            why = printable(str(error)) or f"no answer within {self._timeout:g} seconds"
            print(f"{number}: {peer} is sent away, no connection to the device: {why}", flush=True)
            self._write(
                lambda file: file.write_remark(number, f"no connection: {why}", time.time())
            )
            return
        print(f"{number}: {peer} connected", flush=True)
        try:
            await session.run((reader, writer), device)
        finally:
            print(f"{number}: {peer} ended", flush=True)

    async def _connect(self) -> _Streams:
        connecting = asyncio.open_connection(*self._device, ssl=self._ssl_context)
        return await asyncio.wait_for(connecting, self._timeout)

    def _record(self, entry: Entry) -> None:
        self._write(lambda file: file.write(entry))

    def _write(self, write: Callable[[TranscriptWriter], None]) -> None:
        """Write to the file; if that fails, all ends."""
        assert self._transcript is not None
        try:
            write(self._transcript)
        except OSError as error:
            self._server.fail(CommandError(f"cannot write {self._file}: {error.strerror}", FAILED))


class _Session:
    """One client and its connection to the device, and the entries made of them."""

    def __init__(self, number: int, record: Callable[[Entry], None]) -> None:
        self._number = number
        self._record = record
        self._entry: Optional[Entry] = Entry(number, note=ON_CONNECT, time=time.time())
        self._timer: Optional[asyncio.TimerHandle] = None

    async def run(self, client: _Streams, device: _Streams) -> None:
        """Pass on and record what both say, until both have ended."""
        from_client = asyncio.ensure_future(_pump(client[0], device[1], self._on_sent))
        from_device = asyncio.ensure_future(_pump(device[0], client[1], self._on_received))
        from_device.add_done_callback(
            lambda future: self._on_device_ended(future, from_client.done())
        )
        try:
            await asyncio.gather(from_client, from_device)
        finally:
            self._finish()
            device[1].close()

    def _on_sent(self, data: bytes) -> None:
        """Note what the client sent."""
        entry = self._entry
        if entry is None or entry.received or time.time() - entry.time > BURST or entry.note:
            self._finish()
            entry = Entry(self._number, time=time.time())
        self._entry = entry._replace(sent=entry.sent + data)

    def _on_received(self, data: bytes) -> None:
        """Note what the device said."""
        now = time.time()
        entry = self._entry or Entry(self._number, time=now)
        if not entry.received:
            entry = entry._replace(delay=max(now - entry.time, 0.0))
            self._timer = asyncio.get_running_loop().call_later(BURST, self._finish)
        self._entry = entry._replace(received=entry.received + data)

    def _on_device_ended(self, ending: asyncio.Future[str], is_client_gone: bool) -> None:
        """Note how the device closed the connection, if it was the first to do so."""
        if is_client_gone or ending.cancelled():
            return
        entry = self._entry or Entry(self._number, time=time.time())
        self._entry = entry._replace(closed=ending.result())

    def _finish(self) -> None:
        """Write the entry; nothing is added to it any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._entry is not None:
            self._record(self._entry)
            self._entry = None


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[bytes], None]
) -> str:
    """Pass on what is said, and its end; return how it ended."""
    try:
        while data := await reader.read(_READ_SIZE):
            note(data)
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
    except ConnectionError as error:
        # Of the one who is read, or of the other, who is told by its own pump.
        reset(writer)
        return f"reset ({type(error).__name__})"
    except OSError as error:
        reset(writer)
        return f"reset ({error.strerror})"
    return "eof"
