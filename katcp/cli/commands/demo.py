"""``katcp demo``: a client that talks to a simulated device, with every line shown."""

from __future__ import annotations

import argparse
import queue
import sys
from typing import Any, Optional

from ..._wire.message import Message
from ..._wire.text import shorten
from ...client import BlockingClient
from ...simdevice import SimulatedDevice

# How long the demo waits for anything, in seconds. It never takes so long.
PATIENCE = 5.0

# How many updates of a sensor the demo shows, and how many characters of a line.
UPDATES = 4
LINE_WIDTH = 88


def add_subcommand(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="show a client that talks to a simulated device",
        description="Start a simulated device on this computer, let a client talk to it, and\n"
        "show every line that goes over the connection. Takes about a second.",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        with SimulatedDevice() as device:
            client = _DemoClient(*device.address)
            client.start()
            try:
                _Demo(device, client).run()
            finally:
                client.stop()
    except _DemoFailed as error:
        print(f"katcp demo: {error}", file=sys.stderr)
        return 1
    print("   The client and the device have stopped. That is all.")
    return 0


class _DemoFailed(Exception):
    """Something did not happen that always should."""


class _DemoClient(BlockingClient):
    """A client that notes what is sent and received.

    Attributes
    ----------
    traffic : queue.Queue
        Pairs of a direction, ``-->`` or ``<--``, and a message.
    updates : queue.Queue
        The ``#sensor-status`` informs.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.traffic: queue.Queue[tuple[str, Message]] = queue.Queue()
        self.updates: queue.Queue[Message] = queue.Queue()

    def send_message(self, msg: Message) -> Any:
        """Note a message, and send it."""
        self.traffic.put(("-->", msg))
        return super().send_message(msg)

    def handle_message(self, msg: Message) -> Any:
        """Note a message from the device, and handle it."""
        self.traffic.put(("<--", msg))
        return super().handle_message(msg)

    def inform_sensor_status(self, msg: Message) -> None:
        """Handle an update of a sampled sensor."""
        self.updates.put(msg)


class _Demo:
    """The steps of ``katcp demo``; they run in the main thread and print."""

    def __init__(self, device: SimulatedDevice, client: _DemoClient) -> None:
        self._device = device
        self._client = client
        self._steps = 0

    def run(self) -> None:
        """Take all steps."""
        host, port = self._device.address
        print(f"A simulated device listens on {host}:{port}. Nothing leaves this computer.")
        print("Lines after --> go to the device, lines after <-- come from it.")
        for step in (
            self._connect,
            self._ask_for_versions,
            self._ask_for_help,
            self._read_sensors,
            self._sample_a_sensor,
            self._use_memory,
            self._be_refused,
            self._time_out,
        ):
            step()
        self._begin("Stop the client, then the device.")

    def _connect(self) -> None:
        self._begin("Connect, and wait until the device has said which protocol it speaks.")
        client = self._client
        if not client.wait_protocol(PATIENCE):
            raise _DemoFailed("the device did not say which protocol it speaks")
        msg = self._next(client.traffic, "the greeting")[1]
        # The greeting has no end; this device says last what it is.
        while msg.arguments[:1] != [b"katcp-device"]:
            self._show_line("<--", msg)
            msg = self._next(client.traffic, "the greeting")[1]
        self._show_line("<--", msg)
        print(f"   The protocol is {client.protocol_flags}. Its I means message ids, like [1]:")
        print("   a reply and its informs carry the id of their request.")

    def _ask_for_versions(self) -> None:
        self._begin("Ask for the versions: one inform for each, then the reply.")
        _, informs = self._ask("version-list")
        for inform in informs:
            print(f"   {_text(inform.arguments[0])} is {_text(inform.arguments[1])}.")

    def _ask_for_help(self) -> None:
        self._begin("Ask which requests the device knows.")
        reply, _ = self._ask("help", show=3)
        print(f"   It knows {_text(reply.arguments[1])} requests.")

    def _read_sensors(self) -> None:
        self._begin("List the sensors, and read them all.")
        _, descriptions = self._ask("sensor-list", show=2)
        _, readings = self._ask("sensor-value", show=2)
        units = {inform.arguments[0]: inform.arguments[2] for inform in descriptions}
        for inform in readings:
            name, status, value = inform.arguments[2:5]
            line = f"{_text(name):<12} {_text(status):<8} {_text(value)} {_text(units[name])}"
            print(f"   {line.rstrip()}")

    def _sample_a_sensor(self) -> None:
        self._begin("Sample the sensor 'counter': its changes come by themselves, as informs.")
        self._ask("sensor-sampling", "counter", "event")
        for _ in range(UPDATES):
            update = self._next(self._client.updates, "an update of the sensor")
            self._show_traffic()
            print(f"   inform_sensor_status(): {_text(update.arguments[4])}")
        self._ask("sensor-sampling", "counter", "none")

    def _use_memory(self) -> None:
        self._begin("Write bytes to the memory, and read them back. The client escapes them.")
        data = b"any bytes: \0 \n \\"
        self._ask("write", "bram", 0, data)
        reply, _ = self._ask("read", "bram", 0, len(data))
        print(f"   Written: {data!r}")
        print(f"   Read:    {reply.arguments[1]!r}")

    def _be_refused(self) -> None:
        self._begin("Ask for something that the device cannot do.")
        self._explain(self._try("read", "no-such-register")[0])

    def _time_out(self) -> None:
        self._begin("Ask a device that does not answer. The client makes up a reply.")
        self._device.faults = ["no-reply:watchdog"]
        self._explain(self._try("watchdog", timeout=0.3)[0])

    def _ask(
        self, name: str, *arguments: Any, show: Optional[int] = None
    ) -> tuple[Message, list[Message]]:
        """Make a request that succeeds, and show what went over the connection."""
        reply, informs = self._try(name, *arguments, show=show)
        if not reply.reply_ok():
            raise _DemoFailed(f"?{name} failed: {_reason(reply)}")
        return reply, informs

    def _try(
        self,
        name: str,
        *arguments: Any,
        timeout: Optional[float] = None,
        show: Optional[int] = None,
    ) -> tuple[Message, list[Message]]:
        """Make a request, and show what went over the connection."""
        request = Message.request(name, *arguments)
        answer = self._client.blocking_request(request, timeout=timeout or PATIENCE)
        self._show_traffic(show)
        return answer

    def _explain(self, reply: Message) -> None:
        print(f"   reply.reply_ok() is {reply.reply_ok()}, the reason: {_reason(reply)}")
        cause = reply.local_error
        if cause is None:
            print("   reply.local_error is None: the device itself said so.")
        else:
            print(f"   reply.local_error is a {type(cause).__name__}: no word from the device.")

    def _begin(self, title: str) -> None:
        self._steps += 1
        print(f"\n{self._steps}. {title}", flush=True)

    def _show_traffic(self, informs: Optional[int] = None) -> None:
        """Print the traffic since the last time; of the informs only the first ones."""
        hidden = 0
        while not self._client.traffic.empty():
            direction, msg = self._client.traffic.get()
            if msg.mtype == Message.INFORM and informs is not None:
                informs -= 1
                if informs < 0:
                    hidden += 1
                    continue
            if hidden:
                print(f"   ... {hidden} more")
                hidden = 0
            self._show_line(direction, msg)

    def _show_line(self, direction: str, msg: Message) -> None:
        printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(msg))
        print(f"   {direction} {shorten(printable, LINE_WIDTH)}")

    def _next(self, messages: queue.Queue[Any], what: str) -> Any:
        try:
            return messages.get(timeout=PATIENCE)
        except queue.Empty:
            raise _DemoFailed(f"{what} did not come within {PATIENCE:g} seconds") from None


def _reason(reply: Message) -> str:
    return " ".join(_text(argument) for argument in reply.arguments[1:2]) or "no reason was given"


def _text(argument: bytes) -> str:
    return argument.decode("utf-8", "backslashreplace")
