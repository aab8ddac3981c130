"""``katcp demo``: a client that talks to a simulated device, with every line shown."""

from __future__ import annotations

import argparse
import queue
from typing import Any, Optional

from ..._wire.text import shorten
from ...client import BlockingClient
from ...core import Message
from ...simdevice import SimulatedDevice
from ..connect import reason_of, started
from ..output import FAILED, OK, CommandError, printable

# The timeout of every step, in seconds. It is never needed.
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
    with SimulatedDevice() as device, started(_DemoClient(*device.address)) as client:
        _Demo(device, client).run()
    print("   The client and the device have stopped. That is all.")
    return OK


class _DemoClient(BlockingClient):
    """A client that records its traffic, and the updates of sensors."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port, timeout=PATIENCE)
        self.traffic: queue.Queue[tuple[str, Message]] = queue.Queue()
        self.updates: queue.Queue[Message] = queue.Queue()

    def send_message(self, msg: Message) -> Any:
        """Record a message, and send it."""
        self.traffic.put(("-->", msg))
        return super().send_message(msg)

    def handle_message(self, msg: Message) -> Any:
        """Record a message from the device, and handle it."""
        self.traffic.put(("<--", msg))
        return super().handle_message(msg)

    def inform_sensor_status(self, msg: Message) -> None:
        """Handle an update of a sampled sensor."""
        self.updates.put(msg)


class _Demo:
    """The steps of ``katcp demo``; in the main thread."""

    def __init__(self, device: SimulatedDevice, client: _DemoClient) -> None:
        self._device = device
        self._client = client

    def run(self) -> None:
        """Run all steps."""
        host, port = self._device.address
        print(f"A simulated device listens on {host}:{port}. Nothing leaves this computer.")
        print("Lines after --> go to the device, lines after <-- come from it.")
        steps = (
            (
                "Connect, and wait until the device has said which protocol it speaks.",
                self._connect,
            ),
            ("Ask for the versions: one inform for each, then the reply.", self._ask_for_versions),
            ("Ask which requests the device knows.", self._ask_for_help),
            ("List the sensors, and read them all.", self._read_sensors),
            (
                "Sample the sensor 'counter': its changes come by themselves, as informs.",
                self._sample_a_sensor,
            ),
            (
                "Write bytes to the memory, and read them back. The client escapes them.",
                self._use_memory,
            ),
            ("Ask for something that the device cannot do.", self._be_refused),
            ("Ask a device that does not answer. The client replies itself.", self._time_out),
            ("Stop the client, then the device.", lambda: None),
        )
        for number, (title, step) in enumerate(steps, 1):
            print(f"\n{number}. {title}", flush=True)
            step()

    def _connect(self) -> None:
        if not self._client.wait_protocol(PATIENCE):
            raise CommandError("the device did not say which protocol it speaks", FAILED)
        direction, msg = "", None
        # The greeting has no end; this device sends this line last.
        while msg is None or msg.arguments[:1] != [b"katcp-device"]:
            direction, msg = self._next(self._client.traffic, "the greeting")
            _show_line(direction, msg)
        print(f"   The protocol is {self._client.protocol_flags}. Its I means message ids, like")
        print("   [1]: a reply and its informs carry the id of their request.")

    def _ask_for_versions(self) -> None:
        for inform in self._ask("version-list")[1]:
            print(f"   {printable(inform.arguments[0])} is {printable(inform.arguments[1])}.")

    def _ask_for_help(self) -> None:
        reply, _ = self._ask("help", show=3)
        print(f"   It knows {printable(reply.arguments[1])} requests.")

    def _read_sensors(self) -> None:
        _, descriptions = self._ask("sensor-list", show=2)
        _, readings = self._ask("sensor-value", show=2)
        units = {inform.arguments[0]: inform.arguments[2] for inform in descriptions}
        for inform in readings:
            name, status, value, unit = map(
                printable, [*inform.arguments[2:5], units[inform.arguments[2]]]
            )
            print(f"   {name:<12} {status:<8} {value} {unit}".rstrip())

    def _sample_a_sensor(self) -> None:
        self._ask("sensor-sampling", "counter", "event")
        for _ in range(UPDATES):
            update = self._next(self._client.updates, "an update of the sensor")
            self._show_traffic()
            print(f"   inform_sensor_status(): {printable(update.arguments[4])}")
        self._ask("sensor-sampling", "counter", "none")

    def _use_memory(self) -> None:
        data = b"any bytes: \0 \n \\"
        self._ask("write", "bram", 0, data)
        reply, _ = self._ask("read", "bram", 0, len(data))
        print(f"   Written: {data!r}")
        print(f"   Read:    {reply.arguments[1]!r}")

    def _be_refused(self) -> None:
        self._explain(self._try("read", "no-such-register")[0])
        print("   reply.local_error is None: the device itself said so.")

    def _time_out(self) -> None:
        self._device.faults = ["no-reply:watchdog"]
        reply, _ = self._try("watchdog", timeout=0.3)
        self._explain(reply)
        error = type(reply.local_error).__name__
        print(f"   reply.local_error is a {error}: no word from the device.")

    def _explain(self, reply: Message) -> None:
        print(f"   reply.reply_ok() is {reply.reply_ok()}, the reason: {reason_of(reply)}")

    def _ask(
        self, name: str, *arguments: Any, show: Optional[int] = None
    ) -> tuple[Message, list[Message]]:
        """Make a request that succeeds, and show the traffic."""
        reply, informs = self._try(name, *arguments, show=show)
        if not reply.reply_ok():
            raise CommandError(f"?{name} failed: {reason_of(reply)}", FAILED)
        return reply, informs

    def _try(
        self,
        name: str,
        *arguments: Any,
        timeout: Optional[float] = None,
        show: Optional[int] = None,
    ) -> tuple[Message, list[Message]]:
        """Make a request, and show the traffic."""
        request = Message.request(name, *arguments)
        answer = self._client.blocking_request(request, timeout=timeout)
        self._show_traffic(show)
        return answer

    def _show_traffic(self, informs: Optional[int] = None) -> None:
        """Print the new traffic; only the first few informs."""
        lines = [self._client.traffic.get() for _ in range(self._client.traffic.qsize())]
        of_informs = [line for line in lines if line[1].mtype == Message.INFORM]
        hidden = [] if informs is None else of_informs[informs:]
        for line in lines:
            if line not in hidden:
                _show_line(*line)
            elif line is hidden[-1]:
                print(f"   ... {len(hidden)} more")

    def _next(self, messages: queue.Queue[Any], what: str) -> Any:
        try:
            return messages.get(timeout=PATIENCE)
        except queue.Empty:
            late = f"{what} did not come within {PATIENCE:g} seconds"
            raise CommandError(late, FAILED) from None


def _show_line(direction: str, msg: Message) -> None:
    print(f"   {direction} {shorten(printable(str(msg)), LINE_WIDTH)}")
