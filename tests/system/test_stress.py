"""Many threads use one client while connections break and the client is stopped.

Each round has a device and a client of its own and 16 threads that make requests
of all kinds, while the test disconnects, resets, stops, starts again and replaces
the client. Every request carries a nonce that its reply and its informs must
carry. What must hold:

- no thread hangs: a wake-up that got lost would be a wait without end, since many
  of the requests have no timeout, or a timeout where none was due;
- a request is answered by its own reply or told truly why there is none;
- every request ends exactly once, and in the end nothing is pending.

With ids anything may be lost, late and out of order. Without ids the device
answers the requests of one name in their order, however late, and requests that
are never answered have a name of their own: where several are in flight when a
reply is lost, the client cannot know (docs/explanation/requests.rst).

``KATCP_STRESS_ROUNDS`` and ``KATCP_STRESS_SEED`` choose another number of rounds
(``tox -e stress``: many more) and repeat the choices, though not the timing, of an
earlier run.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import faulthandler
import functools
import os
import random
import secrets
import threading
from typing import Any, Iterator, Optional

import pytest

import katcp
from katcp import (
    KatcpClientDisconnected,
    KatcpClientStopped,
    KatcpClientTimeout,
    KatcpUsageError,
    KatcpVersionError,
    Message,
    ProtocolFlags,
)
from katcp.ioloop_manager import IOLoopManager
from katcp.simdevice import DeviceRequest
from tests.support.helpers import PATIENCE, TestDevice, in_loop
from tests.support.peek import Peek

THREADS = 16
CALLS = 6

ROUNDS = int(os.environ.get("KATCP_STRESS_ROUNDS", "200"))
SEED = os.environ.get("KATCP_STRESS_SEED") or secrets.token_hex(4)

# A round takes some hundredths of a second; one that takes this long hangs.
ROUND_LIMIT = 3 * PATIENCE

# What a client may log of connections that the device resets.
EXPECTED_LOGS = ("closed with error", "Failed to connect")


class StressDevice(TestDevice):
    """A device that answers ``?ask NONCE SECONDS INFORMS MANNER`` with the nonce.

    The manner is *answer*: after so many seconds; *silent*: never; or *late*:
    when the next request of this name comes. Without ids the answers keep the
    order of their requests.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._late: dict[Any, list[functools.partial[None]]] = {}
        self._due: dict[Any, float] = {}
        for name in ("ask", "never"):
            self.add_request(self.ask, name)

    def ask(
        self, request: DeviceRequest, nonce: bytes, seconds: bytes, informs: bytes, manner: bytes
    ) -> None:
        """Answer later, or never."""
        answer = functools.partial(self._answer, request, nonce, int(informs))
        key = request.connection, request.message.name
        if manner == b"late":
            self._late.setdefault(key, []).append(answer)
        if manner != b"answer":
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + float(seconds)
        for each in (*self._late.pop(key, ()), answer):
            if not self.protocol.message_ids:
                # Later than the one before, by what the timers of a loop can tell apart.
                due = self._due[key] = max(due, self._due.get(key, 0.0) + 1e-5)
            loop.call_at(due, each)

    def _answer(self, request: DeviceRequest, nonce: bytes, informs: int) -> None:
        for position in range(informs):
            request.inform(nonce, position)
        request.reply("ok", nonce, informs)


class StressClient(katcp.CallbackClient):
    """A client that notes the replies which nobody waited for."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, timeout=None)
        self.auto_reconnect_delay = 0.001
        self.auto_reconnect_max_delay = 0.002
        self.strays: list[bytes] = []

    def unhandled_reply(self, msg: Message) -> None:
        """Note a reply that was late, or that nobody wanted."""
        self.strays.append(msg.arguments[1])

    @katcp.make_threadsafe_blocking
    async def ask_in_loop(self, msg: Message, limit: Optional[float], use_mid: bool) -> Any:
        """Make a request by a future, for a thread that waits."""
        return await self.future_request(msg, limit, use_mid)


class Call:
    """One request: what was asked, and how it ended."""

    def __init__(self, rng: random.Random, number: int, ids: bool, worker: int) -> None:
        self.nonce = b"%d-%d" % (worker, number)
        self.informs = rng.choice((0, 0, 1, 3))
        # Without one the client has none either: only an answer, or an end, wakes the thread.
        self.timeout: Optional[float] = rng.choice((None, PATIENCE))
        self.manner, self.name, self.seconds = "answer", "ask", rng.choice((0.0, 0.0, 0.001, 0.003))
        self._choose_misfortune(rng, ids)
        self.may_time_out = self.timeout is not None and self.timeout < PATIENCE
        self.ended = threading.Event()
        self.answers: list[tuple[Message, list[Message]]] = []
        self.informs_so_far: list[Message] = []

    def _choose_misfortune(self, rng: random.Random, ids: bool) -> None:
        """Let some requests be answered late or never."""
        fortune = rng.random()
        if fortune < 0.1:
            self.manner, self.name = "silent", "never"
        elif fortune < 0.15 or (fortune < 0.2 and ids):
            self.seconds = 0.006
        elif fortune < 0.2:
            self.manner = "late"
        else:
            return
        self.timeout = rng.uniform(0.0005, 0.006)

    def message(self) -> Message:
        """Return the request."""
        return Message.request(self.name, self.nonce, self.seconds, self.informs, self.manner)

    def on_reply(self, reply: Message) -> None:
        """Take the end of a callback request."""
        self.end(reply, self.informs_so_far)

    def end(self, reply: Message, informs: list[Message]) -> None:
        """Note how it ended."""
        self.answers.append((reply, list(informs)))
        self.ended.set()

    def check(self) -> None:
        """The request ended once, by its own reply or for a reason that can be."""
        assert len(self.answers) == 1, f"{self.nonce!r} ended {len(self.answers)} times"
        reply, informs = self.answers[0]
        error = reply.local_error
        assert reply.name == self.name
        if error is None:
            assert reply.arguments == [b"ok", self.nonce, b"%d" % self.informs]
            assert [inform.arguments for inform in informs] == [
                [self.nonce, b"%d" % position] for position in range(self.informs)
            ]
        elif isinstance(error, KatcpClientTimeout):
            assert self.may_time_out, f"{self.nonce!r}: {reply}"
        else:
            # No ids, as long as the device has not greeted.
            allowed = KatcpClientDisconnected, KatcpClientStopped, KatcpVersionError
            assert isinstance(error, allowed), f"{self.nonce!r}: {reply}"


class Round:
    """One device, one client at a time, and the threads that use it."""

    def __init__(self, device: StressDevice, seed: str, manager: Optional[IOLoopManager]) -> None:
        self.rng = random.Random(seed)
        self.device = device
        self.ids = device.protocol.message_ids
        self._seed = seed
        self._manager = manager
        self.clients: list[StressClient] = []
        self.calls: list[Call] = []
        self.refused: list[Call] = []
        self._progress = threading.Condition()
        self._made = 0
        self._started = threading.Event()
        self._started.set()
        self.replace_client()

    @property
    def client(self) -> StressClient:
        """The client that is used now."""
        return self.clients[-1]

    def replace_client(self) -> None:
        """Start a client and let it be used from now on."""
        client = StressClient(*self.device.address)
        if self._manager is not None:
            client.set_ioloop(self._manager.get_ioloop())
        if self.rng.random() < 0.5:
            client.preset_protocol_flags(self._flags())
        client.start()
        self.clients.append(client)

    def work(self, worker: int) -> None:
        """Make requests of all kinds; the body of a thread."""
        rng = random.Random(f"{self._seed}-{worker}")
        kinds = (
            self._blocking,
            self._blocking,
            self._callback,
            self._future,
            self._unclaimed,
            self._wait,
        )
        for number in range(CALLS):
            call = Call(rng, number, self.ids, worker)
            client = self.client
            try:
                if rng.random() < 0.8:
                    # No limit: a device that has gone comes back, or the client stops.
                    client.wait_connected()
                    client.wait_protocol()
                rng.choice(kinds)(client, call, rng)
            except KatcpUsageError:
                # The client is stopped just now: do not rush through the rest meanwhile.
                self.refused.append(call)
                assert self._started.wait(PATIENCE)
            with self._progress:
                self._made += 1
                self._progress.notify_all()

    def disturb(self) -> None:
        """Disturb the threads, three times at random moments."""
        total = THREADS * CALLS
        for moment in sorted(self.rng.randrange(total) for _ in range(3)):
            with self._progress:
                arrived = self._progress.wait_for(lambda m=moment: self._made >= m, ROUND_LIMIT)
            assert arrived, "no progress"
            self.rng.choice(
                (
                    self.device.disconnect_clients,
                    self.device.close_clients,
                    self.device.reset_clients,
                    self._disconnect,
                    self._stop_and_start,
                    self._stop_and_start,
                    self._stop_in_loop_and_start,
                    self._stop_and_replace,
                )
            )()

    def check(self) -> None:
        """All has ended as promised."""
        for call in self.calls:
            assert call.ended.wait(PATIENCE), f"{call.nonce!r} has not ended"
        for client in self.clients:
            # A thread that has read its reply itself does not wait until the loop notes it.
            with contextlib.suppress(KatcpUsageError):
                in_loop(client, lambda: None)
            assert len(Peek(client).pending) == 0
        for client in self.clients:
            client.stop(PATIENCE)
            assert not client.running()
            assert len(Peek(client).pending) == 0
        for call in self.calls:
            call.check()
        assert not any(call.answers for call in self.refused), "a refused request was answered"
        strays = [nonce for client in self.clients for nonce in client.strays]
        assert len(strays) == len(set(strays)), "a reply came twice"
        answered = {call.nonce for call in self.calls if call.answers[0][0].local_error is None}
        assert not answered.intersection(strays), "a reply came to two"

    def _flags(self) -> ProtocolFlags:
        return ProtocolFlags.parse_version(str(self.device.protocol))

    # What the threads do.

    def _blocking(self, client: StressClient, call: Call, rng: random.Random) -> None:
        call.end(*client.blocking_request(call.message(), call.timeout, self.ids))
        self.calls.append(call)

    def _future(self, client: StressClient, call: Call, rng: random.Random) -> None:
        message = call.message()
        call.end(*client.ask_in_loop(message, call.timeout, self.ids, timeout=None))
        self.calls.append(call)

    def _callback(self, client: StressClient, call: Call, rng: random.Random) -> None:
        client.callback_request(
            call.message(),
            call.on_reply,
            call.informs_so_far.append,
            timeout=call.timeout,
            use_mid=self.ids,
        )
        self.calls.append(call)
        # Some are waited for in the end; not where the next of this name has to come after it.
        if rng.random() < 0.5 or call.name not in ("ask", "never"):
            assert call.ended.wait(PATIENCE), f"{call.nonce!r} has not ended"

    def _unclaimed(self, client: StressClient, call: Call, rng: random.Random) -> None:
        """Send a request whose reply goes to the handlers."""
        call.name, call.manner = "ask", "answer"
        with contextlib.suppress(KatcpClientDisconnected, KatcpVersionError):
            if rng.random() < 0.5:
                client.send_request(call.message())
            else:
                client.request(call.message(), self.ids)

    def _wait(self, client: StressClient, call: Call, rng: random.Random) -> None:
        """Wait for an event, which may come or not."""
        wait = rng.choice((client.wait_connected, client.wait_protocol, client.wait_disconnected))
        assert wait(0.003) in (True, False)

    # What happens to them.

    def _disconnect(self) -> None:
        self.client.disconnect()

    @contextlib.contextmanager
    def _pause(self) -> Iterator[None]:
        """Let threads that are refused wait until the client is started again."""
        self._started.clear()
        yield
        self._started.set()

    def _stop_and_start(self) -> None:
        with self._pause():
            self.client.stop()
            self.client.start()

    def _stop_in_loop_and_start(self) -> None:
        """Let the client be stopped by a callback of its own."""
        client = self.client
        stopped = threading.Event()

        def stop(reply: Message) -> None:
            client.stop()
            stopped.set()

        with self._pause():
            client.callback_request(Message.request("ask", "x", 0, 0, "answer"), stop)
            assert stopped.wait(PATIENCE)
            client.stop(PATIENCE)
            client.start()

    def _stop_and_replace(self) -> None:
        old = self.client
        self.replace_client()
        old.stop()


def run_round(
    seed: str,
    protocol: str,
    threads: concurrent.futures.Executor,
    manager: Optional[IOLoopManager],
) -> None:
    """Let the threads use a client while it is disturbed."""
    with StressDevice(protocol=protocol) as device:
        this = Round(device, seed, manager)
        device.started_clients = this.clients
        workers = [threads.submit(this.work, number) for number in range(THREADS)]
        this.disturb()
        for worker in concurrent.futures.as_completed(workers, ROUND_LIMIT):
            worker.result()
        this.check()


@contextlib.contextmanager
def told_of_failure(seed: str) -> Iterator[None]:
    """Say how to repeat a round that failed, and where all threads were."""
    try:
        yield
    except BaseException:
        print(f"\nKATCP_STRESS_SEED={SEED} (this round: {seed})")
        faulthandler.dump_traceback()
        raise


@pytest.fixture
def shared_loop() -> Iterator[IOLoopManager]:
    """A loop that runs in a thread of its own, for clients that share it."""
    manager = IOLoopManager()
    manager.start()
    yield manager
    manager.stop()
    manager.join(PATIENCE)


@pytest.fixture
def threads() -> Iterator[concurrent.futures.Executor]:
    with concurrent.futures.ThreadPoolExecutor(THREADS) as executor:
        yield executor


def run_rounds(
    name: str,
    protocol: str,
    number: int,
    threads: concurrent.futures.Executor,
    logs: Any,
    manager: Optional[IOLoopManager] = None,
) -> None:
    for position in range(number):
        seed = f"{SEED}-{name}-{position}"
        with told_of_failure(seed):
            run_round(seed, protocol, threads, manager)
            logs.records[:] = [
                record
                for record in logs.unexpected()
                if not any(text in logs.text_of(record) for text in EXPECTED_LOGS)
            ]
            assert not logs.records, logs.describe()


def test_threads_with_ids(threads, logs):
    run_rounds("ids", "5.1-MIB", 2 * ROUNDS // 5, threads, logs)


def test_threads_without_ids(threads, logs):
    run_rounds("no-ids", "4", 2 * ROUNDS // 5, threads, logs)


def test_threads_with_a_shared_loop(threads, logs, shared_loop):
    run_rounds("shared", "5.1-MIB", ROUNDS // 5, threads, logs, shared_loop)
