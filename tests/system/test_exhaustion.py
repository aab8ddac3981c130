"""A process that has no descriptors left; it is one of its own, since nobody else could go on."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import resource
import subprocess
import sys
import threading
from typing import Any, Callable, Iterator

import pytest

from katcp import BlockingClient, Message
from tests.support.helpers import PATIENCE, Recorder, TestDevice, in_loop, until_answered
from tests.support.process import ENVIRONMENT

# How many descriptors a loop needs: for its selector and for both ends of its pipe.
LOOP_SIZE = 3


def run_in_process(function: Callable[..., None], *args: Any) -> None:
    """Call a function of this module in a process of its own; it must not fail."""
    program = f"from {__name__} import {function.__name__} as call; call(*{args!r})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT,
        capture_output=True,
        encoding="utf-8",
        timeout=3 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class Descriptors:
    """All descriptors that this process may have, taken so that none is left."""

    def __init__(self) -> None:
        self._held: list[int] = []

    def take_all(self, but: int = 0) -> int:
        """Take all that are free but a few; return how many that were."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        before = len(self._held)
        with contextlib.suppress(OSError):
            while True:
                self._held.append(os.dup(0))
        taken = len(self._held) - before
        for _ in range(but):
            os.close(self._held.pop())
        return taken

    def give_back(self) -> None:
        """Let all be free that were taken."""
        while self._held:
            os.close(self._held.pop())


@pytest.fixture
def address(device: TestDevice) -> Iterator[tuple[str, int]]:
    """The address of a device whose client is in another process."""
    yield device.address
    device.wait_for_client(0)


def test_a_start_without_descriptors_leaves_the_client_stopped_and_usable(address):
    run_in_process(start_without_descriptors, address)


def start_without_descriptors(address: tuple[str, int]) -> None:
    descriptors = Descriptors()
    client = BlockingClient(*address)
    for free in range(LOOP_SIZE):
        descriptors.take_all(but=free)
        with pytest.raises(OSError, match="Too many open files"):
            client.start()
        assert not client.running()
        client.stop()
        client.join()
        assert threading.active_count() == 1
        assert descriptors.take_all() == free
    descriptors.give_back()
    with client:
        assert until_answered(client).reply_ok()


def test_a_connected_client_without_descriptors_goes_on(address):
    run_in_process(go_on_without_descriptors, address)


def go_on_without_descriptors(address: tuple[str, int]) -> None:
    descriptors = Descriptors()
    failures: queue.Queue[str] = queue.Queue()

    class Client(BlockingClient):
        def notify_connected(self, connected: bool) -> None:
            if not connected:
                descriptors.take_all()

    class Failures(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("Failed to connect"):
                failures.put(record.getMessage())

    logger = logging.getLogger("tests.exhaustion")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(Failures())
    with Client(*address, logger=logger) as client:
        descriptors.take_all()
        for _ in range(3):
            ask_in_every_way(client)
        client.auto_reconnect_delay = client.auto_reconnect_max_delay = 0.02
        client.disconnect()
        for _ in range(3):
            assert "Too many open files" in failures.get(timeout=PATIENCE)
        descriptors.give_back()
        assert until_answered(client).reply_ok()
        ask_in_every_way(client)


def ask_in_every_way(client: BlockingClient) -> None:
    """Make requests of the kinds that need no loop of the caller's."""
    reply, informs = client.blocking_request(Message.request("count", 3))
    assert (reply.arguments, len(informs)) == ([b"ok", b"3"], 3)
    reply, informs = in_loop(client, client.future_request, Message.request("count", 3))
    assert (reply.arguments, len(informs)) == ([b"ok", b"3"], 3)
    reply, _ = client.concurrent_request(Message.request("echo", "x")).result(PATIENCE)
    assert reply.arguments == [b"ok", b"x"]
    on_reply = Recorder()
    client.callback_request(Message.request("echo", "x"), on_reply)
    [(reply,)] = on_reply.wait()
    assert reply.arguments == [b"ok", b"x"]
