"""Sensors are watched at random, in virtual time: the device samples what the consumers want.

The device answers when it is told to, so that what the client does meets requests that are
still open. After each step in which everything was answered:

1. the device samples each sensor that it has with the finest strategy that a consumer of it
   wants, and no other sensor;
2. each consumer has been given the reading that the device has sent last, if the connection
   is there, and *unreachable* if it is not;
3. a consumer that the device refused raised, and is given nothing.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import fnmatch
import logging
import re
from typing import Any, Optional

import hypothesis
import hypothesis.strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from katcp import AsyncClient, KatcpClientError, Status
from tests.property.peer import Peer, PeerResolver
from tests.support.peek import virtual_world
from tests.support.virtual import VirtualLoop

GREETINGS = {
    "4": [b"#version x-1.0", b"#build-state y-1"],
    "5": [b"#version-connect katcp-protocol 5.0-IM"],
    "bulk": [b"#version-connect katcp-protocol 5.1-IMB"],
}
NAMES = ["a1", "a2", "b1"]
PATTERNS = ["a1", "a2", "b1", "a*", "*"]
# The coarsest first; some devices refuse the last one.
STRATEGIES = ["period 10", "auto", "event"]


class Device:
    """What a device knows, and the requests that it has not answered yet."""

    def __init__(self, version: str, refused: str) -> None:
        self.version = version
        self.refused = refused
        self.peer = Peer(self.on_line, lambda: None)
        self.peer.greeting = GREETINGS[version]
        self.sensors = dict.fromkeys(NAMES, 0)
        self.sampled: dict[str, str] = {}
        self.requests: collections.deque[tuple[bytes, bytes, list[str]]] = collections.deque()

    def on_line(self, kind: bytes, name: bytes, mid: Optional[bytes], arguments: bytes) -> None:
        assert kind == b"?", (kind, name)
        head = name if mid is None else b"%s[%s]" % (name, mid)
        self.requests.append((name, head, arguments.decode().split()))

    def answer(self) -> None:
        """Answer the oldest request."""
        name, head, arguments = self.requests.popleft()
        method = getattr(self, name.decode().replace("-", "_"))
        informs, reply = method(*arguments)
        for inform in informs:
            self.peer.say(b"#%s %s" % (head, inform.encode()), hold=True)
        self.peer.say(b"!%s %s" % (head, reply.encode()))

    def forget_connection(self) -> None:
        self.sampled.clear()
        self.requests.clear()

    def sensor_list(self, name: str = "//") -> tuple[list[str], str]:
        if name.startswith("/"):
            names = [known for known in self.sensors if re.search(name[1:-1], known)]
        elif name in self.sensors:
            names = [name]
        else:
            return [], "fail Unknown\\_sensor"
        return [f"{found} a\\_sensor units integer" for found in names], f"ok {len(names)}"

    def sensor_value(self, name: str) -> tuple[list[str], str]:
        if name not in self.sensors:
            return [], "fail Unknown\\_sensor"
        return [self.reading(name)], "ok 1"

    def sensor_sampling(self, names: str, strategy: str, *params: str) -> tuple[list[str], str]:
        wanted = names.split(",")
        if strategy == self.refused or not all(name in self.sensors for name in wanted):
            return [], "fail no"
        for name in wanted:
            self.sampled[name] = strategy
            if strategy == "none":
                del self.sampled[name]
            elif self.version != "4":
                self.peer.say(b"#sensor-status " + self.reading(name).encode(), hold=True)
        return [], f"ok {names} {strategy}"

    def reading(self, name: str) -> str:
        time = "1000000000" if self.version == "4" else "1000000.0"
        return f"{time} 1 {name} nominal {self.sensors[name]}"

    def set_value(self, name: str) -> None:
        self.sensors[name] += 1
        if name in self.sampled:
            self.peer.say(b"#sensor-status " + self.reading(name).encode())

    def change_interface(self) -> None:
        self.peer.say(b"#interface-changed sensor-list")


class Watcher:
    """One consumer."""

    def __init__(self, client: AsyncClient, pattern: str, strategy: str) -> None:
        self.pattern = pattern
        self.strategy = strategy
        self.last: dict[str, Any] = {}
        self.updates = client.sensors.watch(pattern, strategy=strategy, callback=self.on_update)
        self.opening = asyncio.ensure_future(self.updates.async_open())
        self.is_closed = False

    def on_update(self, name: str, reading: Any) -> None:
        assert fnmatch.fnmatch(name, self.pattern)
        self.last[name] = reading

    @property
    def is_open(self) -> bool:
        return self.opening.done() and self.opening.exception() is None and not self.is_closed


class SubscriptionMachine(RuleBasedStateMachine):
    """Plays with the consumers of one client, and with its device."""

    @initialize(version=st.sampled_from(sorted(GREETINGS)), refused=st.sampled_from(["", "event"]))
    def begin(self, version: str, refused: str) -> None:
        self._open = contextlib.ExitStack()
        self._open.enter_context(virtual_world(PeerResolver))
        self.loop = VirtualLoop()
        ioloop = self.loop.make_ioloop()
        self._open.callback(ioloop.close)
        self.device = Device(version, refused)
        self._open.callback(self.device.peer.close)
        logger = logging.Logger("played")
        logger.addHandler(logging.NullHandler())
        self.client = AsyncClient("device.example", 7147, timeout=1e6, logger=logger)
        self.client.GREETING_TIMEOUT = 0.1
        self.client.set_ioloop(ioloop)
        self.client.start()
        self.watchers: list[Watcher] = []
        self.settle()
        self.loop.run_until_complete(self.client.until_protocol())

    # Steps.

    @rule(pattern=st.sampled_from(PATTERNS), strategy=st.sampled_from(STRATEGIES))
    def watch(self, pattern: str, strategy: str) -> None:
        self.in_loop(lambda: self.watchers.append(Watcher(self.client, pattern, strategy)))

    @precondition(lambda self: self.watchers)
    @rule(pick=st.integers(0, 20))
    def unwatch(self, pick: int) -> None:
        watcher = self.watchers[pick % len(self.watchers)]
        watcher.is_closed = True
        self.in_loop(watcher.updates.close)

    @rule(name=st.sampled_from(NAMES))
    def set_value(self, name: str) -> None:
        if name in self.device.sensors:
            self.device.set_value(name)
        self.settle()

    @rule(name=st.sampled_from(NAMES))
    def vanish_or_appear(self, name: str) -> None:
        if name in self.device.sensors:
            del self.device.sensors[name]
            self.device.sampled.pop(name, None)
        else:
            self.device.sensors[name] = 0
        self.device.change_interface()
        self.settle()

    @rule()
    def reconnect(self) -> None:
        self.device.peer.cut()
        self.device.forget_connection()
        self.settle()
        self.loop.now += 10.0
        self.settle()

    @rule(count=st.integers(1, 4))
    def answer(self, count: int) -> None:
        for _ in range(count):
            if self.device.requests:
                self.device.answer()
                self.settle()

    @rule()
    def answer_all(self) -> None:
        while self.device.requests:
            self.device.answer()
            self.settle()

    # What must hold.

    @invariant()
    def the_device_samples_what_is_wanted(self) -> None:
        if self.device.requests or not self.client.is_connected():
            return
        assert all(watcher.opening.done() for watcher in self.watchers)
        wanted = {}
        for name in self.device.sensors:
            finest = [w.strategy for w in self.watchers_of(name)]
            if finest:
                wanted[name] = max(finest, key=STRATEGIES.index).split()[0]
        assert self.device.sampled == wanted

    @invariant()
    def consumers_know_the_last_reading(self) -> None:
        if self.device.requests or not self.client.is_connected():
            return
        for name, value in self.device.sensors.items():
            for watcher in self.watchers_of(name):
                reading = watcher.last[name]
                assert (reading.status, reading.value) == (Status.NOMINAL, value), name

    @invariant()
    def who_was_refused_knows_why(self) -> None:
        for watcher in self.watchers:
            if watcher.opening.done() and not watcher.opening.cancelled():
                error = watcher.opening.exception()
                assert error is None or isinstance(error, KatcpClientError)
                assert error is not None or watcher.strategy != self.device.refused

    def watchers_of(self, name: str) -> list[Watcher]:
        return [
            watcher
            for watcher in self.watchers
            if watcher.is_open and fnmatch.fnmatch(name, watcher.pattern)
        ]

    def in_loop(self, function: Any) -> None:
        self.loop.call_soon(function)
        self.settle()

    def settle(self) -> None:
        """Let client and device do all that they do without waiting, but answer requests."""
        while True:
            self.loop.run_until_idle()
            if not self.device.peer.pump():
                return

    def teardown(self) -> None:
        self.client.stop()
        self.settle()
        for watcher in self.watchers:
            watcher.opening.cancel()
        self.loop.run_until_idle()
        for watcher in self.watchers:
            if not watcher.opening.cancelled():
                watcher.opening.exception()
        self._open.close()


def test_the_device_samples_what_the_consumers_want() -> None:
    run_state_machine_as_test(
        SubscriptionMachine,
        settings=hypothesis.settings(
            hypothesis.settings.get_profile("ci"), max_examples=100, stateful_step_count=30
        ),
    )
