"""Code that runs where nobody expects it: finalizers, signal handlers, injected exceptions.

None of it may lock the loop out, lose a request of somebody else or keep stop() from
returning.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import random
import subprocess
import sys
import threading
from typing import Any, Callable

import pytest

from katcp import BlockingClient, KatcpClientError, KatcpClientTimeout, KatcpUsageError, Message
from tests.support.helpers import PATIENCE, TestDevice, in_thread, start_client, until_answered
from tests.support.process import ENVIRONMENT
from tests.support.steps import AtStep


@pytest.fixture(params=["5.1-MIB", "4"])
def any_device(request):
    """A device with ids, and one without."""
    with TestDevice(protocol=request.param) as device:
        yield device


def assert_usable(client: BlockingClient) -> None:
    """Whatever ran before, the client answers and stops."""
    if not client.running():
        client.start()
    until_answered(client)
    reply, _ = client.blocking_request(Message.request("echo", "own"), PATIENCE)
    assert reply.arguments == [b"ok", b"own"]


# ---- finalizers ----


class Cycle:
    """Garbage that only the collector frees, which then runs *action*."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self.action = action
        self.itself = self

    def __del__(self) -> None:
        with contextlib.suppress(KatcpClientError, KatcpUsageError):
            self.action()


def collect_with_finalizer(action: Callable[[], Any]) -> None:
    """Run *action* as a finalizer, now."""
    Cycle(action)
    gc.collect()


def ask(client: BlockingClient) -> None:
    client.ask("echo", "finalizer", timeout=PATIENCE)


def blocking_request(client: BlockingClient) -> None:
    # It may meet a client that is not connected (yet), but never one that does not answer.
    reply, _ = client.blocking_request(Message.request("echo"), PATIENCE)
    assert not isinstance(reply.local_error, KatcpClientTimeout)


def send_request(client: BlockingClient) -> None:
    client.send_request(Message.request("echo", "finalizer"))


def stop(client: BlockingClient) -> None:
    client.stop(PATIENCE)


def callback_request(client: BlockingClient) -> None:
    client.callback_request(Message.request("echo"), lambda reply: None)


def read_informs(client: BlockingClient) -> None:
    with client.informs("tick", timeout=0.001) as stream:
        client.callback_request(Message.request("echo"))
        for _ in stream:
            break


def wait_connected(client: BlockingClient) -> None:
    client.wait_connected(PATIENCE)


def add_callbacks(client: BlockingClient) -> None:
    client.add_inform_callback("tick", print)
    client.remove_inform_callback("tick", print)


def start_and_stop(client: BlockingClient) -> None:
    client.stop(PATIENCE)
    client.join(PATIENCE)
    client.start(PATIENCE)


FINALIZERS = [ask, blocking_request, send_request, stop]
CALLS = [
    blocking_request,
    ask,
    callback_request,
    send_request,
    read_informs,
    wait_connected,
    add_callbacks,
    start_and_stop,
]


@pytest.mark.parametrize("finalizer", FINALIZERS)
@pytest.mark.parametrize("call", CALLS)
def test_a_finalizer_may_use_the_client_in_the_middle_of_any_call(device, call, finalizer, logs):
    client = start_client(device)
    step, stride = 0, 1 if call in (blocking_request, ask, add_callbacks) else 7
    while True:
        step += stride
        assert_usable(client)
        action = lambda: collect_with_finalizer(lambda: finalizer(client))  # noqa: E731
        with (
            AtStep(step, action) as at_step,
            contextlib.suppress(KatcpClientError, KatcpUsageError),
        ):
            call(client)
        if finalizer is stop:
            # In the middle of start() it could not wait for the end.
            client.stop(PATIENCE)
        if at_step.where is None:
            break
    assert step > 20
    assert_usable(client)


# ---- exceptions from another thread ----


class Injected(Exception):
    """What another thread raises here."""


def inject(thread: threading.Thread) -> None:
    """Raise `Injected` in another thread, at its next step."""
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(Injected)
    )


class Asker:
    """A thread that asks, until it is told to end; an injected exception ends it early."""

    def __init__(self, client: BlockingClient, is_over: threading.Event) -> None:
        self._client = client
        self._is_over = is_over
        self.wrong: list[Any] = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with contextlib.suppress(Injected):
            while not self._is_over.is_set():
                self._ask()

    def _ask(self) -> None:
        word = b"%d" % random.randrange(10**9)
        with contextlib.suppress(Injected):
            reply, _ = self._client.blocking_request(Message.request("echo", word), PATIENCE)
            if reply.arguments != [b"ok", word]:
                self.wrong.append(reply)


# 9000 exceptions, each of which ends a thread.
@pytest.mark.timeout(300)
def test_exceptions_injected_into_threads_that_ask(any_device, monkeypatch):
    # One that strikes a thread between two requests ends it.
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    client = start_client(any_device)
    is_over = threading.Event()
    askers = [Asker(client, is_over) for _ in range(4)]
    wrong: list[Any] = []
    for _ in range(300):
        for _ in range(30):
            position = random.randrange(len(askers))
            if not askers[position].thread.is_alive():
                wrong += askers[position].wrong
                askers[position] = Asker(client, is_over)
            inject(askers[position].thread)
        reply, _ = client.blocking_request(Message.request("echo", "main"), PATIENCE)
        assert reply.arguments == [b"ok", b"main"]
    is_over.set()
    for asker in askers:
        asker.thread.join(PATIENCE)
        assert not asker.thread.is_alive()
        wrong += asker.wrong
    assert wrong == []
    assert_usable(client)
    thread, outcome = in_thread(client.stop)
    thread.join(PATIENCE)
    assert outcome == [None]


# ---- signals ----

PROGRAM = """
import signal, sys, threading, time
from katcp import BlockingClient, Message

host, port, how, pause, count = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
client = BlockingClient(host, port, timeout=20)
client.start()
assert client.wait_protocol(20)
main, is_over, wrong, depth = threading.main_thread().ident, threading.Event(), [], 0

class Surprise(Exception):
    pass

def ask(word):
    reply, _ = client.blocking_request(Message.request("echo", word))
    if reply.arguments != [b"ok", word]:
        wrong.append((word, reply.arguments))

def is_asking(frame):
    code = ask_until_over.__code__
    return frame is not None and (frame.f_code is code or is_asking(frame.f_back))

def default(number, frame):
    if is_asking(frame):
        signal.default_int_handler(number, frame)

def raising(number, frame):
    if is_asking(frame):
        raise Surprise

def asking(number, frame):
    global depth
    if depth < 3:
        depth += 1
        try:
            ask(b"handler")
        finally:
            depth -= 1

def send():
    for _ in range(int(count)):
        until = time.perf_counter() + float(pause)
        signal.pthread_kill(main, signal.SIGINT)
        while time.perf_counter() < until:
            time.sleep(0 if float(pause) < 0.001 else float(pause))
    is_over.set()

def ask_on():
    number = 0
    while not is_over.is_set():
        number += 1
        ask(b"other%d" % number)

handlers = {"default": default, "raising": raising, "asking": asking}
threads = [threading.Thread(target=send), threading.Thread(target=ask_on)]
interrupted = 0

def ask_until_over():
    number = 0
    while not is_over.is_set():
        number += 1
        ask(b"main%d" % number)

signal.signal(signal.SIGINT, handlers[how])
for thread in threads:
    thread.start()
while not is_over.is_set():
    try:
        ask_until_over()
    except (KeyboardInterrupt, Surprise):
        interrupted += 1
for thread in threads:
    thread.join(20)
ask(b"after")
client.stop(20)
client.join(20)
print(wrong, [t.is_alive() for t in threads], client.running(), interrupted > 0)
"""


@pytest.mark.parametrize("pause", [0.001, 0.00002], ids=["each millisecond", "burst"])
@pytest.mark.parametrize("how", ["default", "raising", "asking"])
def test_signals_while_threads_ask(any_device, how, pause):
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, any_device.address), how, str(pause), "1500"],
        env=ENVIRONMENT,
        capture_output=True,
        timeout=3 * PATIENCE,
        text=True,
    )
    expected = f"[] [False, False] False {how != 'asking'}\n"
    assert (ended.stdout, ended.stderr, ended.returncode) == (expected, "", 0)


# ---- one message, several threads; a loop that is busy ----


def test_one_message_may_be_used_by_several_threads(any_device):
    client = start_client(any_device)
    message = Message.request("echo", "shared")
    begun = threading.Barrier(6)

    def ask_often():
        begun.wait(PATIENCE)
        return [client.blocking_request(message, PATIENCE)[0].arguments for _ in range(200)]

    calls = [in_thread(ask_often) for _ in range(6)]
    for thread, _ in calls:
        thread.join(3 * PATIENCE)
    assert [outcome for _, outcome in calls] == [[[[b"ok", b"shared"]] * 200]] * 6


def test_a_timeout_holds_while_a_handler_keeps_the_loop_busy(device, monkeypatch):
    monkeypatch.setattr("katcp.client._session.BUSY_LOOP_MARGIN", 0.05)
    client = start_client(device)
    busy, is_over = threading.Event(), threading.Event()
    client.ioloop.add_callback(lambda: (busy.set(), is_over.wait(PATIENCE)))
    assert busy.wait(PATIENCE)
    reply, _ = client.blocking_request(Message.request("echo"), 0.05)
    assert not is_over.is_set()
    assert isinstance(reply.local_error, KatcpClientTimeout)
    is_over.set()
    assert_usable(client)
