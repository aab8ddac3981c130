"""``katcp record``: a proxy that records the traffic between a device and its clients.

Strategy
--------
Each client has its own connection to the device. Bytes are passed on unchanged in both directions,
and so is the end: of one direction, of both, or a reset.

Rules
-----
- Lines that arrive together have the same time in the recording.
- The proxy connects to the device only when a client comes: a device that serves only one client
  would drop its present one.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from typing import Any, Callable, Optional

from ..connect import make_ssl_context
from ..devices import Address, split_devices
from ..listen import Server, peer_of, reset
from ..options import DEVICE_HELP, add_device_options, add_listen_option
from ..output import FAILED, OK, USAGE, CommandError, count, is_terminal, printable, show_seconds
from ..recording import (
    CONNECTED,
    ENDED,
    REMARK,
    SAID,
    SENT,
    Event,
    RecordingWriter,
    show_event,
    split_lines,
)

# Next to the port of devices, so that one on this computer can be recorded.
DEFAULT_LISTEN = Address("127.0.0.1", 7148)
# How many characters of a line are shown if the width of the terminal is unknown.
SHOWN_WIDTH = 200

_READ_SIZE = 64 * 1024

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

EXAMPLES = """
record night.txt
record correlator:7147 night.txt --listen 7148
"""


def add_subcommand(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "record",
        help="record the traffic of a device, as a proxy",
        description="Listen, pass on the traffic between clients and the device, show it, and\n"
        "write it with its times to a file, until Ctrl-C. 'katcp replay' plays it again.",
        usage="[DEVICE] FILE",
        words=f"{DEVICE_HELP}\nFILE        the new file",
        examples=EXAMPLES,
    )
    add_listen_option(parser, DEFAULT_LISTEN)
    parser.add_argument("-q", "--quiet", action="store_true", help="do not show the traffic")
    add_device_options(parser, has_limit=False)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    *words, file = options.words or [""]
    devices, _ = split_devices([*options.device, *words], [])
    if not file or len(devices) > 1:
        raise CommandError("which FILE? see katcp record --help", USAGE)
    recorder = _Recorder(options, devices[0], file)
    try:
        asyncio.run(recorder.run())
    finally:
        recorder.close()
    print(f"Recorded {count(recorder.connections, 'connection')} in {file}.")
    return OK


def _open(path: str) -> RecordingWriter:
    try:
        return RecordingWriter(path)
    except FileExistsError:
        raise CommandError(f"{path} exists: record to a new file", USAGE) from None
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}", USAGE) from None


class _Recorder:
    """The proxy, for all clients."""

    def __init__(self, options: argparse.Namespace, device: Address, file: str) -> None:
        self.connections = 0
        self._device = device
        self._timeout: float = options.timeout
        self._is_quiet: bool = options.quiet
        self._file = file
        self._ssl_context = make_ssl_context(options)
        self._recording: Optional[RecordingWriter] = None
        self._server = Server(options.listen, self._serve)

    async def run(self) -> None:
        """Serve clients until Ctrl-C."""
        await self._server.run(self._begin)

    def close(self) -> None:
        if self._recording is not None:
            self._recording.close()

    def _begin(self, address: Address) -> None:
        """Create the file, now that a client can connect."""
        self._recording = _open(self._file)
        print(f"recorder of {self._device.full} listens on {address}", flush=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number, peer = self.connections, str(peer_of(writer))
        try:
            device = await self._connect()
        except (OSError, asyncio.TimeoutError) as error:
            why = printable(str(error)) or f"no answer within {show_seconds(self._timeout)}"
            self._note(number, REMARK, f"{peer} sent away, cannot connect: {why}".encode())
            return
        self._note(number, CONNECTED, peer.encode())
        from_client = asyncio.ensure_future(
            _pump(reader, device[1], lambda data: self._note(number, SENT, data))
        )
        from_device = asyncio.ensure_future(
            _pump(device[0], writer, lambda data: self._note(number, SAID, data))
        )
        from_device.add_done_callback(
            lambda ending: self._on_device_ended(number, ending, from_client.done())
        )
        try:
            await asyncio.gather(from_client, from_device)
        finally:
            device[1].close()

    async def _connect(self) -> _Streams:
        connecting = asyncio.open_connection(
            self._device.host, self._device.port, ssl=self._ssl_context
        )
        return await asyncio.wait_for(connecting, self._timeout)

    def _on_device_ended(
        self, number: int, ending: asyncio.Future[str], is_client_gone: bool
    ) -> None:
        """Note how the device closed the connection, if it was the first to do so."""
        if not is_client_gone and not ending.cancelled():
            self._note(number, ENDED, ending.result().encode())

    def _note(self, number: int, kind: str, data: bytes) -> None:
        """Record an event, and show it; if that fails, end everything."""
        assert self._recording is not None
        now = time.time()
        width = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else SHOWN_WIDTH
        try:
            events = [Event(now, number, kind, part) for part in split_lines(data)]
            self._recording.write(events)
            if not self._is_quiet:
                print("\n".join(show_event(event, width) for event in events), flush=True)
        except OSError as error:
            self._server.fail(CommandError(f"cannot write {self._file}: {error.strerror}", FAILED))


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[bytes], None]
) -> str:
    """Pass on data, and its end; return how it ended."""
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
        # An error of the reading side, or of the other, which its own pump handles.
        reset(writer)
        return f"reset ({type(error).__name__})"
    except OSError as error:
        reset(writer)
        return f"reset ({error.strerror})"
    return "eof"
