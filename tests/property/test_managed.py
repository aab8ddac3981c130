"""A client with a thread of its own is played with at random, in real time.

There is little that can be known of it at a moment that is not made to stand still; so less is
checked than in `test_state_machine`: that each request ends, once, with its own reply or a true
cause; that the loop's thread finds the events as the state says; that nothing is left.
"""

from __future__ import annotations

import itertools
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import katcp
from katcp import Message
from katcp._state.lifecycle import EVENT_NAMES, EVENTS, State
from tests.conftest import Logs
from tests.support.helpers import PATIENCE, Recorder, TestDevice, in_loop, start_client
from tests.support.peek import Peek

EXAMPLES = {"ci": 60, "long": 1000}
STEPS = 20

# Long enough, or not even for the quickest of answers.
TIMEOUTS = st.sampled_from([PATIENCE, PATIENCE, 0.001, 0.0])
# Of what is never answered.
SHORT = st.sampled_from([0.02, 0.0])


class ManagedMachine(RuleBasedStateMachine):
    """Plays with one client that has a loop of its own."""

    @initialize(protocol=st.sampled_from(["5.1-MIB", "4"]))
    def begin(self, protocol: str) -> None:
        self.nonces = itertools.count(1)
        self.pool = ThreadPoolExecutor(8)
        self.in_threads: list[tuple[bytes, Future[Any]]] = []
        self.callbacks: list[tuple[bytes, Recorder]] = []
        self.device = TestDevice(protocol=protocol)
        self.device.__enter__()
        self.client = start_client(self.device)
        self.peek = Peek(self.client)

    @rule(count=st.integers(1, 4), timeout=TIMEOUTS)
    def ask_in_threads(self, count: int, timeout: float) -> None:
        for _ in range(count):
            nonce, msg = self._request("echo")
            future = self.pool.submit(self.client.blocking_request, msg, timeout)
            self.in_threads.append((nonce, future))

    @rule(name=st.sampled_from(["echo", "echo", "hold"]), timeout=TIMEOUTS)
    def ask_with_callback(self, name: str, timeout: float) -> None:
        nonce, msg = self._request(name)
        replies = Recorder()
        self.client.callback_request(msg, replies, timeout=timeout)
        self.callbacks.append((nonce, replies))

    @rule(timeout=SHORT)
    def ask_in_vain(self, timeout: float) -> None:
        nonce, msg = self._request("silent")
        self.in_threads.append(
            (nonce, self.pool.submit(self.client.blocking_request, msg, timeout))
        )

    @rule()
    def ask_and_wait(self) -> None:
        nonce, msg = self._request("echo")
        self._check_reply(nonce, self.client.blocking_request(msg)[0])

    @rule()
    def answer_what_is_held(self) -> None:
        while not self.device.held.empty():
            held = self.device.next_held()
            held.reply("ok", *held.message.arguments)

    @rule()
    def cut(self) -> None:
        self.device.disconnect_clients("cut")

    @rule()
    def disconnect(self) -> None:
        self.client.disconnect()

    @rule()
    def stop_and_start(self) -> None:
        self.client.stop(PATIENCE)
        assert self.peek.state is State.STOPPED
        self._check_all_ended()
        self.client.start()

    @rule()
    def wait_for_protocol(self) -> None:
        assert self.client.wait_protocol(PATIENCE)

    @invariant()
    def the_loop_finds_all_in_order(self) -> None:
        in_loop(self.client, self._check_in_loop)

    def teardown(self) -> None:
        if not hasattr(self, "device"):
            return
        try:
            self.client.stop(PATIENCE)
            self._check_all_ended()
            assert self.peek.leftovers() == {}
        finally:
            self.device.__exit__(None, None, None)
            self.pool.shutdown()

    def _request(self, name: str) -> tuple[bytes, Message]:
        nonce = b"n%d" % next(self.nonces)
        return nonce, Message.request(name, nonce)

    def _check_in_loop(self) -> None:
        """Invariant 3; in the loop's thread."""
        events = {name for name in EVENT_NAMES if self.peek.events[name].is_set()}
        assert events == EVENTS[self.peek.state]

    def _check_all_ended(self) -> None:
        """Invariants 1 and 5, of a client that has stopped."""
        for nonce, future in self.in_threads:
            # A thread may have come too late to ask at all.
            if not isinstance(future.exception(PATIENCE), katcp.KatcpUsageError):
                self._check_reply(nonce, future.result()[0])
        for nonce, replies in self.callbacks:
            assert len(replies.wait()) == 1, f"ended more than once: {replies.calls}"
            self._check_reply(nonce, replies.messages[0])
        self.in_threads, self.callbacks = [], []

    @staticmethod
    def _check_reply(nonce: bytes, reply: Message) -> None:
        if reply.local_error is None:
            assert reply.arguments == [b"ok", nonce]
        else:
            assert isinstance(reply.local_error, katcp.KatcpClientError)


@pytest.mark.timeout(0)
def test_every_request_ends_once_with_its_own_reply(logs: Logs) -> None:
    profile = hypothesis.settings.get_current_profile_name()
    run_state_machine_as_test(
        ManagedMachine,
        settings=hypothesis.settings(max_examples=EXAMPLES[profile], stateful_step_count=STEPS),
    )
    # The connections that were cut may be told of; the fixture looks at what is left.
    told = ("closed with error", "Reconnected to")
    logs.records = [r for r in logs.records if not any(text in r.getMessage() for text in told)]
