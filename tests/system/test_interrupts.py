"""Ctrl-C in whatever waits, and the end of the interpreter while clients run."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

import katcp
from katcp import BlockingClient, KatcpClientTimeout, Message
from katcp.ioloop_manager import IOLoopManager
from tests.support.helpers import PATIENCE, TestDevice, closed_port, start_client, until_answered
from tests.support.peek import Peek

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def nobody_polls(monkeypatch):
    """Let a waiting thread not wake by itself: the interrupt has to wake it."""
    monkeypatch.setattr("katcp._runtime.waiter.LOOP_CHECK_INTERVAL", 10 * PATIENCE)


@contextlib.contextmanager
def interrupted(function: Any) -> Iterator[None]:
    """Send SIGINT to this thread once it waits in *function*; KeyboardInterrupt must come."""
    code = function.__code__
    thread = threading.Thread(target=_interrupt_when_waiting, args=(threading.get_ident(), code))
    began = time.monotonic()
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    assert time.monotonic() - began < PATIENCE
    thread.join()


def _interrupt_when_waiting(thread_id: int, code: Any, number: int = signal.SIGINT) -> None:
    """Wait until a thread stands still in a function, then send it a signal."""
    last, looks = None, 0
    while looks < 3:
        frame = sys._current_frames()[thread_id]
        here = (id(frame), frame.f_lasti) if _is_in(frame, code) else None
        looks = looks + 1 if here is not None and here == last else 0
        last = here
        time.sleep(0.005)
    signal.pthread_kill(thread_id, number)


def _is_in(frame: Any, code: Any) -> bool:
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False


def reply_in_thread(device: TestDevice, number: int) -> None:
    """Answer the next so many ``?hold``, with their own arguments, when all have come."""

    def reply() -> None:
        for held in [device.next_held() for _ in range(number)]:
            held.reply("ok", *held.message.arguments)

    threading.Thread(target=reply).start()


def assert_usable(client: BlockingClient, device: TestDevice) -> None:
    """The client answers with what was asked, and its thread is known to run."""
    assert all(thread.is_alive() for thread in threading.enumerate())
    until_answered(client)
    reply, _ = client.blocking_request(Message.request("echo", "own"))
    assert reply.arguments == [b"ok", b"own"]


# ---- Ctrl-C ----


@pytest.fixture(params=["5.1-MIB", "4"])
def any_device(request):
    """A device with ids, and one without."""
    with TestDevice(protocol=request.param) as device:
        yield device


@pytest.mark.parametrize("timeout", [PATIENCE, None])
def test_an_interrupted_request_leaves_its_reply_to_nobody(any_device, timeout):
    client = start_client(any_device, timeout=timeout)
    with interrupted(BlockingClient.blocking_request):
        client.blocking_request(Message.request("hold", "interrupted"))
    until_answered(client)
    assert len(Peek(client).pending) == 0
    reply_in_thread(any_device, 2)
    reply, _ = client.blocking_request(Message.request("hold", "next"), PATIENCE)
    assert reply.arguments == [b"ok", b"next"]


def test_after_an_interrupted_request_that_is_never_answered_no_answer_is_wrong(device_v4):
    client = start_client(device_v4, timeout=None)
    with interrupted(BlockingClient.blocking_request):
        client.blocking_request(Message.request("hold", "interrupted"))
    device_v4.next_held()
    reply_in_thread(device_v4, 1)
    reply, _ = client.blocking_request(Message.request("hold", "second"), timeout=0.1)
    assert isinstance(reply.local_error, KatcpClientTimeout)
    # What the client does after three of these, the program may do before.
    client.disconnect()
    until_answered(client)
    reply_in_thread(device_v4, 1)
    reply, _ = client.blocking_request(Message.request("hold", "third"), PATIENCE)
    assert reply.arguments == [b"ok", b"third"]


def test_interrupted_again_and_again(any_device):
    client = start_client(any_device)
    for number in range(5):
        with interrupted(BlockingClient.blocking_request):
            client.blocking_request(Message.request("hold", number))
    reply_in_thread(any_device, 6)
    reply, _ = client.blocking_request(Message.request("hold", "last"), PATIENCE)
    assert reply.arguments == [b"ok", b"last"]


def test_an_interrupted_call_into_the_loop(device):
    class Client(BlockingClient):
        @katcp.make_threadsafe_blocking
        async def ask(self):
            return await self.future_request(Message.request("silent"), timeout=0.5)

    client = start_client(device, Client)
    with interrupted(Client.ask):
        client.ask()
    assert_usable(client, device)


def test_an_interrupted_send(device):
    client = start_client(device, max_write_buffer_size=64 * 1024 * 1024)
    device.pause_reading()
    with interrupted(katcp.DeviceClient.send_message):
        client.send_message(Message.request("echo", b"x" * 32 * 1024 * 1024), timeout=None)
    client.disconnect()
    assert client.wait_disconnected(PATIENCE)
    device.resume_reading()
    assert_usable(client, device)


@pytest.mark.parametrize("timeout", [PATIENCE, None])
def test_interrupted_wait_connected(timeout):
    port = closed_port()
    # What it logs depends on how often it tries meanwhile.
    quiet = logging.getLogger("katcp.quiet")
    quiet.setLevel(logging.CRITICAL)
    client = BlockingClient("127.0.0.1", port, logger=quiet)
    client.auto_reconnect_delay = client.auto_reconnect_max_delay = 0.02
    client.start()
    with interrupted(BlockingClient.wait_connected):
        client.wait_connected(timeout)
    with TestDevice(port=port) as device:
        device.started_clients.append(client)
        assert client.wait_connected(PATIENCE)
        assert_usable(client, device)


@pytest.mark.parametrize("timeout", [PATIENCE, None])
def test_interrupted_wait_protocol(timeout):
    with TestDevice(faults=["no-greeting"]) as device:
        client = start_client(device, wait=None)
        with interrupted(BlockingClient.wait_protocol):
            client.wait_protocol(timeout)
        device.faults = ()
        client.disconnect()
        assert_usable(client, device)


@pytest.mark.parametrize("timeout", [PATIENCE, None])
def test_interrupted_wait_disconnected(device, timeout):
    client = start_client(device)
    with interrupted(BlockingClient.wait_disconnected):
        client.wait_disconnected(timeout)
    assert_usable(client, device)


@pytest.mark.parametrize("timeout", [PATIENCE, None])
def test_interrupted_join(device, timeout):
    client = start_client(device)
    with interrupted(BlockingClient.join):
        client.join(timeout)
    assert_usable(client, device)


@contextlib.contextmanager
def busy(ioloop: Any) -> Iterator[None]:
    """Let a loop be busy meanwhile."""
    free = threading.Event()
    ioloop.add_callback(free.wait)
    try:
        yield
    finally:
        free.set()


@pytest.mark.parametrize("timeout", [PATIENCE, None])
def test_interrupted_stop(device, timeout):
    client = start_client(device)
    with busy(client.ioloop), interrupted(BlockingClient.stop):
        client.stop(timeout)
    # It stops as it was told; stop() and start() may be called again.
    client.stop(PATIENCE)
    client.start()
    assert_usable(client, device)


@pytest.fixture
def shared_loop():
    """A loop that runs in a thread of its own."""
    manager = IOLoopManager()
    manager.start()
    yield manager.get_ioloop()
    manager.stop()
    manager.join(PATIENCE)


@pytest.mark.parametrize("timeout", [PATIENCE, None])
def test_interrupted_wait_running(device, shared_loop, timeout):
    client = BlockingClient(*device.address)
    client.set_ioloop(shared_loop)
    with busy(shared_loop):
        client.start()
        with interrupted(BlockingClient.wait_running):
            client.wait_running(timeout)
    assert_usable(client, device)
    client.stop(PATIENCE)


def test_interrupted_start_with_a_timeout(device, shared_loop):
    client = BlockingClient(*device.address)
    client.set_ioloop(shared_loop)
    with busy(shared_loop), interrupted(BlockingClient.start):
        client.start(PATIENCE)
    assert_usable(client, device)
    client.stop(PATIENCE)


# ---- signal handlers of the program ----


@contextlib.contextmanager
def handling_while_waiting(handler: Any) -> Iterator[None]:
    """Let *handler* be called by a signal once this thread waits in `blocking_request`."""
    code = BlockingClient.blocking_request.__code__
    args = (threading.get_ident(), code, signal.SIGTERM)
    thread = threading.Thread(target=_interrupt_when_waiting, args=args)
    before = signal.signal(signal.SIGTERM, handler)
    try:
        thread.start()
        yield
        thread.join()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_handler_may_make_a_request(any_device):
    """It would wait for ever if the thread that it interrupts had to read its reply."""
    client = start_client(any_device)
    answers = []

    def handler(number: int, frame: Any) -> None:
        reply_in_thread(any_device, 2)
        answers.append(client.blocking_request(Message.request("hold", "inner"), PATIENCE)[0])

    with handling_while_waiting(handler):
        reply, _ = client.blocking_request(Message.request("hold", "outer"), PATIENCE)
    assert reply.arguments == [b"ok", b"outer"]
    assert [answer.arguments for answer in answers] == [[b"ok", b"inner"]]
    assert_usable(client, any_device)


def test_a_signal_handler_may_call_into_the_loop(device):
    client = start_client(device)
    results = []

    def handler(number: int, frame: Any) -> None:
        results.append(Peek(client).portal.call(lambda: "called", timeout=PATIENCE))
        reply_in_thread(device, 1)

    with handling_while_waiting(handler):
        reply, _ = client.blocking_request(Message.request("hold", "outer"), PATIENCE)
    assert reply.arguments == [b"ok", b"outer"]
    assert results == ["called"]
    assert_usable(client, device)


@pytest.mark.parametrize("timeout", [PATIENCE, None])
def test_a_signal_handler_may_stop_the_client(any_device, timeout):
    client = start_client(any_device, timeout=timeout)
    began = time.monotonic()

    def handler(number: int, frame: Any) -> None:
        client.stop(PATIENCE)
        client.join(PATIENCE)
        running.append(client.running())

    running = []
    with handling_while_waiting(handler):
        reply, _ = client.blocking_request(Message.request("hold"))
    assert isinstance(reply.local_error, katcp.KatcpClientStopped)
    assert running == [False]
    assert time.monotonic() - began < PATIENCE


# ---- the end of the interpreter ----

CLIENTS = """
import sys, threading, time
import katcp
from katcp import BlockingClient, Message

address = sys.argv[1], int(sys.argv[2])

def start(daemonic=True):
    client = BlockingClient(*address)
    {daemonic}
    client.start()
    assert client.wait_protocol(10)
    assert client.blocking_request(Message.request("echo"))[0].reply_ok()
    return client
"""

ENDINGS = {
    "idle": "client = start()",
    "several": "clients = [start() for _ in range(5)]",
    "no reference": "start()",
    "callbacks in flight": """
client = start()
for _ in range(50):
    client.callback_request(Message.request("silent"), print)
    client.callback_request(Message.request("count", 20), lambda reply: None)
""",
    "threads in flight": """
clients = [start() for _ in range(3)]
for client in clients:
    for _ in range(4):
        threading.Thread(
            target=client.blocking_request, args=[Message.request("silent"), 60], daemon=True
        ).start()
""",
    "threads that ask on": """
client = start()
def ask():
    while True:
        client.blocking_request(Message.request("count", 3))
for _ in range(4):
    threading.Thread(target=ask, daemon=True).start()
for _ in range(20):
    client.blocking_request(Message.request("echo"))
""",
    "connecting": """
client = BlockingClient("127.0.0.1", 1, logger=__import__("logging").getLogger("quiet"))
client._logger.disabled = True
client.daemon = True
client.start()
""",
    "looking up": """
import socket
asked = threading.Event()
socket.getaddrinfo = lambda *args, **kwargs: (asked.set(), time.sleep(60))
client = BlockingClient("a.name", 1)
client.daemon = True
client.start()
assert asked.wait(10)
""",
    "sys.exit": "client = start()\nsys.exit()",
}


def program(code: str, daemonic: str) -> str:
    return CLIENTS.format(daemonic=daemonic) + code


def run_program(device: TestDevice, code: str, **kwargs: Any) -> Any:
    """Run a program that gets the address of *device*; return how it ended."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, device.address)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "always"},
        capture_output=True,
        timeout=3 * PATIENCE,
        **kwargs,
    )


@pytest.mark.parametrize("daemonic", ["client.setDaemon(True)", "client.daemon = True"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_daemon_client_lets_the_interpreter_end_without_a_word(device, ending, daemonic):
    ended = run_program(device, program(ENDINGS[ending], daemonic))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_without_daemon_the_interpreter_runs_on_until_the_client_stops(device):
    code = program(
        """
class Client(BlockingClient):
    def inform_stop_now(self, msg):
        self.stop()

BlockingClient = Client
client = start()
print("main has ended", flush=True)
""",
        "",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, device.address)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        assert process.stdout.readline() == b"main has ended\n"
        # The client lives on: it reconnects, and answers what it is asked.
        count = device.connection_count
        device.close_clients()
        device.wait_for_connection(count + 1, PATIENCE)
        assert process.poll() is None
        device.inform(Message.inform("stop-now"))
        assert process.communicate(timeout=PATIENCE) == (b"", None)
        assert process.returncode == 0
