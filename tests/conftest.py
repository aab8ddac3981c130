"""What every test is held to: nothing is left behind, nothing is logged unannounced.

After each test the number of threads and of open sockets must be what it was,
and every log record of level WARNING or more must have been announced with
the fixture `logs`.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any, Callable, Iterator

import pytest
from tornado.ioloop import IOLoop

from tests.support.helpers import TestDevice

# Also where katcp is not installed, but run from the checkout.
pytest_plugins = ["pytest_katcp"]

# Seconds until a thread or a socket that is about to go counts as left behind.
GRACE = 5.0

# No loop is made in passing: tornado 6.1 asks asyncio for one, and nobody would close it.
asyncio.set_event_loop(None)

# A shell that runs us in the background lets us, and what we start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No dependencies: where one is missing, its tests do not exist.
collect_ignore = [
    path
    for package, path in [("numpy", "compat/test_numpy.py"), ("trustme", "net/test_tls.py")]
    if not importlib.util.find_spec(package)
]


class Logs(logging.Handler):
    """The records of one test that somebody should have expected."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self._arrived = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._arrived:
            self.records.append(record)
            self._arrived.notify_all()

    def expect(self, text: str, level: int = logging.WARNING, timeout: float = 5.0) -> str:
        """Wait for a record of *level* that holds *text*; take it out and return its message."""

        def found() -> logging.LogRecord | None:
            for record in self.records:
                if record.levelno == level and text in self.text_of(record):
                    return record
            return None

        with self._arrived:
            record = self._arrived.wait_for(found, timeout)
            assert record is not None, f"no record {text!r} in {self.describe()}"
            self.records.remove(record)
            return self.text_of(record)

    def matching(self, text: str) -> list[logging.LogRecord]:
        """Return all records so far that hold *text*, of any level."""
        return [record for record in self.records if text in self.text_of(record)]

    def unexpected(self) -> list[logging.LogRecord]:
        return [record for record in self.records if record.levelno >= logging.WARNING]

    def describe(self) -> str:
        return "\n".join(
            f"{record.levelname} {record.name}: {self.text_of(record)}" for record in self.records
        )

    @staticmethod
    def text_of(record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info))
        return text


def pytest_sessionfinish() -> None:
    gc.unfreeze()


@pytest.fixture
def logs() -> Iterator[Logs]:
    """The log records of the test; those that are expected are taken out with `expect`."""
    handler = Logs()
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.setLevel(before)
    root.removeHandler(handler)


@pytest.fixture(autouse=True)
def nothing_left_behind(logs: Logs) -> Iterator[None]:
    """Fail the test that leaves a thread, a socket or an unannounced log record."""
    # What is there already is not walked through again when the test is over.
    gc.freeze()
    threads, sockets = set(threading.enumerate()), _sockets()
    yield
    deadline = time.monotonic() + GRACE
    for thread in set(threading.enumerate()) - threads:
        thread.join(max(deadline - time.monotonic(), 0))
    left = set(threading.enumerate()) - threads
    assert not left, "threads left behind:\n" + "\n".join(map(_stack_of, left))
    # Futures and coroutines that were forgotten complain when they are collected.
    gc.collect()
    assert len(_sockets()) <= len(sockets), f"sockets left behind: {_sockets() - sockets}"
    unexpected = logs.unexpected()
    assert not unexpected, f"unannounced log records:\n{logs.describe()}"


@pytest.fixture
def device() -> Iterator[TestDevice]:
    """A device that speaks 5.1 with ids, several clients and bulk sampling."""
    with TestDevice(protocol="5.1-MIB") as device:
        yield device


@pytest.fixture
def device_v4() -> Iterator[TestDevice]:
    """A device that speaks version 4: no ids, milliseconds."""
    with TestDevice(protocol="4") as device:
        yield device


@pytest.fixture
def ioloop() -> Iterator[IOLoop]:
    """A loop of the test's own, which is run with ``ioloop.run_sync(coroutine_function)``."""
    loop = IOLoop(make_current=False)
    yield loop
    loop.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection: ours, and that of the device."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def resolve_to(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let every name have the given addresses."""

    def resolve_to(*addresses: Any) -> None:
        def getaddrinfo(
            host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
        ) -> Any:
            return [
                (socket.AF_INET6 if ":" in address[0] else socket.AF_INET, type, proto, "", address)
                for address in addresses
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return resolve_to


@pytest.fixture
def silent_address() -> Iterator[Any]:
    """An address that never answers: its backlog is full."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    yield listener.getsockname()
    for filler in (*fillers, listener):
        filler.close()


@pytest.fixture
def refused_address() -> Iterator[Any]:
    """An address where nobody listens."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    yield listener.getsockname()
    listener.close()


def _sockets() -> set[str]:
    """Return the sockets, pipes and selectors that this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith(("socket:", "pipe:", "anon_inode:")):
            found.add(target + (name if target.startswith("anon") else ""))
    return found


def _stack_of(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    stack: Any = traceback.format_stack(frame) if frame is not None else ["(ended)"]
    return f"{thread!r}\n{''.join(stack)}"


def pytest_unconfigure() -> None:
    """Let no thread that a failed test left behind keep the interpreter from exiting."""
    left = [thread for thread in threading.enumerate() if not thread.daemon]
    if left != [threading.main_thread()]:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
