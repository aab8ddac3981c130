"""Use clients for a long time and watch whether the process grows.

::

    python -m tests.system.soak                        # a minute
    python -m tests.system.soak --seconds 86400        # a day
    python -m tests.system.soak --seconds 3600 --requests 1000000 --informs 10000000

A simulated device runs in a process of its own. In every cycle one client, which
lives as long as the run, makes requests of all kinds and gets a flood of informs;
then the device closes its connection and it connects again. Every few cycles it is
stopped and started again, and another client is made, used and stopped.

At the end of each cycle, when all is quiet, the memory, the descriptors, the
threads and the pending requests of this process are sampled. The first samples
are warm-up: those of the first ten thousand requests, at least a tenth and at most a
third of all. Of the others, the median of the last third is compared with that of
the first third. The run fails, with exit code 1, if one of them has grown by more
than its margin, which the table at the end shows.

The run ends after ``--seconds``, or as soon as it has made so many ``--requests``
and got so many ``--informs``, if these are given.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence

import katcp
from katcp import Message
from katcp.client._sinks import CallbackSink
from katcp.simdevice import DeviceRequest, SimulatedDevice
from tests.support.peek import Peek

WARM_UP_REQUESTS = 10_000
FLOOD = 10_000
THREADS = 4
# How many of each kind a cycle makes: by all threads together, and by the others each.
BLOCKING, CALLBACK, FUTURE = 200, 500, 300
CYCLES_PER_RESTART = 10

# Something that must come takes longer than this on no machine.
PATIENCE = 60.0


class Sample(NamedTuple):
    """What the process holds at a moment; memory is in KiB."""

    memory: float
    traced: float
    descriptors: int
    threads: int
    pending: int


# By how much the last third may exceed the first.
MARGINS = Sample(memory=4096, traced=256, descriptors=0, threads=0, pending=0)


# ---- the device, in a process of its own ----


def run_device() -> None:
    """Be a device until standard input ends, which it does when the soak ends."""
    device = SimulatedDevice(sensors=())

    def echo(request: DeviceRequest, *arguments: bytes) -> Any:
        """Reply the arguments."""
        return ("ok", *arguments)

    def flood(request: DeviceRequest, number: bytes) -> Any:
        """Send as many informs that belong to no request."""
        lines = [b"#flood %d some-text 3.14159\n" % position for position in range(int(number))]
        request.send_raw(b"".join(lines))
        return "ok", number

    def silent(request: DeviceRequest) -> None:
        """Be never answered."""

    def drop(request: DeviceRequest) -> None:
        """Close the connection instead of a reply."""
        request.connection.end(None)

    for function in (echo, flood, silent, drop):
        device.request(function)
    with device:
        print(*device.address, flush=True)
        sys.stdin.read()


@contextlib.contextmanager
def device_process() -> Iterator[tuple[str, int]]:
    """Run the device; give its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.system.soak", "--device"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    # Leaving it closes its standard input, and waits.
    with process:
        assert process.stdout is not None
        host, port = process.stdout.readline().split()
        yield host, int(port)


# ---- what the clients do ----


class SoakClient(katcp.BlockingClient):
    """A client that counts the informs of a flood."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, timeout=PATIENCE)
        self.auto_reconnect_delay = 0.001
        self.informs = 0

    def inform_flood(self, msg: Message) -> None:
        """Count it."""
        self.informs += 1

    @katcp.make_threadsafe_blocking
    async def ask_in_loop(self, number: int) -> None:
        """Make requests by futures, all at once."""
        futures = [self.future_request(Message.request("echo", n)) for n in range(number)]
        for position, future in enumerate(futures):
            _check((await future)[0], position)


def _check(reply: Message, argument: int) -> None:
    if reply.arguments != [b"ok", b"%d" % argument]:
        raise RuntimeError(f"A wrong answer: {reply}")


class Soak:
    """The clients, and what they have done so far."""

    def __init__(self, address: tuple[str, int], leak: Optional[str] = None) -> None:
        self._address = address
        self._leak = leak
        self._leaked: list[Any] = []
        self.requests = self.informs = self.cycles = 0
        self.client = SoakClient(*address)
        self.client.start()
        self._until_usable(self.client)

    def run_cycle(self) -> None:
        """Let everything happen that happens to a client."""
        self._use(self.client)
        self.client.blocking_request(Message.request("silent"), timeout=0.001)
        self.client.blocking_request(Message.request("drop"))
        if self.cycles % CYCLES_PER_RESTART == 0:
            self.client.stop()
            self.client.start()
            other = SoakClient(*self._address)
            other.start()
            self._until_usable(other)
            self._use(other)
            other.stop()
        self._until_usable(self.client)
        if self._leak is not None:
            LEAKS[self._leak](self)
        self.cycles += 1

    def sample(self) -> Sample:
        """Return what the process holds, after what is garbage was collected."""
        gc.collect()
        return Sample(
            memory=_resident_kib(),
            traced=tracemalloc.get_traced_memory()[0] / 1024,
            descriptors=len(os.listdir("/proc/self/fd")),
            threads=threading.active_count(),
            pending=len(Peek(self.client).pending),
        )

    def _use(self, client: SoakClient) -> None:
        """Make requests of all kinds, and be flooded."""
        self._ask_in_threads(client)
        self._ask_by_callbacks(client)
        client.ask_in_loop(FUTURE, timeout=PATIENCE)
        # Its reply comes after the informs.
        before = client.informs
        reply, _ = client.blocking_request(Message.request("flood", FLOOD))
        _check(reply, FLOOD)
        if client.informs - before != FLOOD:
            raise RuntimeError(f"{client.informs - before} of {FLOOD} informs have arrived.")
        self.requests += BLOCKING + CALLBACK + FUTURE
        self.informs += FLOOD

    def _ask_in_threads(self, client: SoakClient) -> None:
        failures: list[BaseException] = []

        def ask() -> None:
            try:
                for number in range(BLOCKING // THREADS):
                    _check(client.blocking_request(Message.request("echo", number))[0], number)
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=ask) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for failure in failures:
            raise failure

    def _ask_by_callbacks(self, client: SoakClient) -> None:
        replies: list[Message] = []
        done = threading.Event()

        def on_reply(reply: Message) -> None:
            replies.append(reply)
            if len(replies) == CALLBACK:
                done.set()

        for number in range(CALLBACK):
            client.callback_request(Message.request("echo", number), on_reply)
        if not done.wait(PATIENCE):
            raise RuntimeError(f"{len(replies)} of {CALLBACK} callbacks were called.")
        for number, reply in enumerate(replies):
            _check(reply, number)

    def _until_usable(self, client: SoakClient) -> None:
        if not (client.wait_connected(PATIENCE) and client.wait_protocol(PATIENCE)):
            raise RuntimeError("The client does not connect.")
        while not client.blocking_request(Message.request("echo"))[0].reply_ok():
            pass

    # To show that each growth is found.

    def _leak_memory(self) -> None:
        self._leaked.append(os.urandom(4 * 1024 * 1024))

    def _leak_descriptor(self) -> None:
        self._leaked.append(os.dup(0))

    def _leak_thread(self) -> None:
        threading.Thread(target=threading.Event().wait, daemon=True).start()

    def _leak_pending(self) -> None:
        self._leaked.append(CallbackSink(None, None, None, None))
        # A connection that ends takes what is pending along.
        for request in self._leaked:
            Peek(self.client).pending.add(request, Message.request("silent"), 0.0, None)


LEAKS: dict[str, Callable[[Soak], None]] = {
    "memory": Soak._leak_memory,
    "descriptors": Soak._leak_descriptor,
    "threads": Soak._leak_thread,
    "pending": Soak._leak_pending,
}


def _resident_kib() -> float:
    """Return how much memory of the machine this process takes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


# ---- how it is judged ----


class Growth(NamedTuple):
    """One line of the table."""

    name: str
    first: float
    last: float
    highest: float
    margin: float

    @property
    def is_too_large(self) -> bool:
        """Whether it has grown by more than its margin."""
        return self.last - self.first > self.margin


def after_warm_up(samples: Sequence[tuple[int, Sample]]) -> Sequence[tuple[int, Sample]]:
    """Leave out the samples of the warm-up; each comes with the requests made by then."""
    cold = sum(requests < WARM_UP_REQUESTS for requests, _ in samples)
    number = len(samples)
    return samples[max(min(cold, number // 3), number // 10) :]


def growths(samples: Sequence[Sample]) -> list[Growth]:
    """Compare the first third with the last."""
    third = max(len(samples) // 3, 1)
    return [
        Growth(
            name,
            statistics.median(values[:third]),
            statistics.median(values[-third:]),
            max(values),
            margin,
        )
        for name, values, margin in zip(Sample._fields, zip(*samples), MARGINS)
    ]


def format_table(lines: Sequence[Growth]) -> str:
    """Return the table."""
    table = [f"{'':12}{'first third':>12}{'last third':>12}{'highest':>12}{'margin':>10}"]
    for line in lines:
        table.append(
            f"{line.name:12}{line.first:12.0f}{line.last:12.0f}{line.highest:12.0f}"
            f"{line.margin:10.0f}  {'GROWS' if line.is_too_large else 'ok'}"
        )
    return "\n".join(table)


def run(options: argparse.Namespace) -> int:
    """Soak, print the table, and return the exit code."""
    samples: list[tuple[int, Sample]] = []
    with device_process() as address:
        soak = Soak(address, options.leak)
        deadline = time.monotonic() + options.seconds
        while time.monotonic() < deadline and not _is_enough(soak, options):
            soak.run_cycle()
            samples.append((soak.requests, soak.sample()))
        soak.client.stop()
    judged = after_warm_up(samples)
    if len(judged) < 3:
        print(f"{len(samples)} cycles are too few: let it run longer.", file=sys.stderr)
        return 2
    lines = growths([sample for _, sample in judged])
    (warm, first), (_, last) = judged[0], judged[-1]
    print(
        f"{soak.cycles} cycles, {soak.requests} requests, {soak.informs} informs; memory "
        f"after {warm} requests: {first.memory:.0f} KiB, at the end: {last.memory:.0f} KiB"
    )
    print(format_table(lines))
    return 1 if any(line.is_too_large for line in lines) else 0


def _is_enough(soak: Soak, options: argparse.Namespace) -> bool:
    """Return whether the counts that were wanted are reached."""
    if options.requests is None and options.informs is None:
        return False
    return soak.requests >= (options.requests or 0) and soak.informs >= (options.informs or 0)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.soak",
        description="Use clients for a long time; fail if the process grows.",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (%(default)s)")
    parser.add_argument("--requests", type=int, help="end after so many requests")
    parser.add_argument("--informs", type=int, help="end after so many informs")
    parser.add_argument(
        "--tracemalloc", action="store_true", help="sample what Python allocates, too (slow)"
    )
    parser.add_argument("--device", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--leak", choices=LEAKS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device:
        run_device()
        return 0
    # A device that closes the connection is part of the game.
    logging.getLogger("katcp").setLevel(logging.CRITICAL)
    if options.tracemalloc:
        tracemalloc.start()
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
