"""A client is played with at random, in virtual time; after each step all invariants hold.

The invariants are numbered in docs/explanation/states.rst; `judge` checks them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Optional

import hypothesis
import hypothesis.strategies as st
import pytest
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from katcp._state.lifecycle import State
from tests.property.judge import Ask
from tests.property.world import World

EXAMPLES = {"ci": 500, "long": 20_000}
STEPS = 50

# What stands more often in a list is played more often.
NAMES = st.sampled_from(["read", "read", "set"])
TIMEOUTS = st.sampled_from([2.0, None, 0.5, 1.0, 2.0, 5.0, 0.0])
CHOSEN_MIDS = st.sampled_from([None] * 8 + [b"1", b"2", b"3", b"7"])
USE_MID = st.sampled_from([None] * 6 + [True, False])
REACTIONS = st.sampled_from(["none"] * 6 + ["ask", "ask", "raise", "disconnect", "stop", "cancel"])
HAS_CALLBACKS = st.sampled_from([(True, True)] * 4 + [(False, True), (True, False)])
FAULTS = st.sampled_from(["none"] * 8 + ["name", "no id", "id"])
HOLD = st.sampled_from([False, False, True])
PICK = st.integers(0, 7)

V5 = b"#version-connect katcp-protocol "
WITH_IDS = [V5 + b"5.0-IM"]
WITHOUT_IDS = [V5 + b"5.1-M"]
V4 = [b"#version x-1.0", b"#build-state y-1"]
GREETINGS = [
    *[WITH_IDS, WITHOUT_IDS, V4] * 3,
    [b"#version-connect katcp-device x-1", V5 + b"5.1-MIB", b"#build-state y-1"],
    [b"#build-state y-1", V5 + b"5.1-I"],
    [V5 + b"gibberish"],
    [V5 + b"6.0-I"],
    [],
]
# So many steps a client may be without connection; then it is helped to get one.
ALONE = 4
GARBAGE = [
    b"garbage",
    b"?",
    b"!9x",
    b"!read\\q",
    b"#a b\\",
    b"!read[0] ok",
    b"?\xff\xfe",
    b"!read[ ok",
]
UNAWAITED = [
    b"#log warn 1.0 x y",
    b"!read ok",
    b"!other ok",
    b"#read",
    b"!set[3] ok",
    b"#set[2] x",
    b"?who x",
    b"?who[77] x",
]
CUTS = ["end", "end", "said", "half line", "reset", "disconnect", "disconnect in a thread"]


class ClientMachine(RuleBasedStateMachine):
    """Plays with one client that shares a loop."""

    world: World
    steps_alone = 0
    # Of all games.
    replies_given: ClassVar[int] = 0

    @initialize(
        greeting=st.sampled_from(GREETINGS),
        auto_reconnect=st.sampled_from([True] * 4 + [False]),
    )
    def begin(self, greeting: list[bytes], auto_reconnect: bool) -> None:
        self.world = World(auto_reconnect=auto_reconnect)
        self.world.peer.greeting = greeting
        self.world.start()

    # The life of the client, and of its connection.

    @rule(in_thread=st.booleans(), seconds=st.sampled_from([0.0, 0.3, 20.0]))
    def stop_or_start(self, in_thread: bool, seconds: float) -> None:
        world = self.world
        world.pass_time(seconds)
        if world.state is State.STOPPED:
            world.start()
        elif in_thread:
            call = world.in_thread(world.stop)
            world.settle()
            call.wait()
        else:
            world.in_loop(world.stop)

    @precondition(lambda self: self._is_connected())
    @rule(how=st.sampled_from(CUTS))
    def end_connection(self, how: str) -> None:
        world = self.world
        if how == "disconnect in a thread":
            world.in_thread(world.disconnect).wait()
        elif how == "disconnect":
            world.in_loop(world.disconnect)
        else:
            self._cut(how)

    @rule(seconds=st.sampled_from([0.1, 0.5, 0.6, 1.0, 1.5, 2.5]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(
        greeting=st.sampled_from(GREETINGS),
        listens=st.booleans(),
        hangs=st.sampled_from([False, False, True]),
        reaction=st.sampled_from(["none", "ask", "ask", "disconnect", "raise"]),
    )
    def change_next_connection(
        self, greeting: list[bytes], listens: bool, hangs: bool, reaction: str
    ) -> None:
        peer = self.world.peer
        peer.greeting, peer.name_server_hangs = greeting, hangs
        if listens != peer.is_listening:
            (peer.listen if listens else peer.refuse)()
        self.world.react_on_connect(reaction)

    @precondition(lambda self: self.world.state is not State.STOPPED)
    @rule(
        event=st.sampled_from(["running", "connected", "disconnected", "protocol"]),
        timeout=st.sampled_from([None, 1.0, 0]),
        in_thread=st.booleans(),
    )
    def wait(self, event: str, timeout: Optional[float], in_thread: bool) -> None:
        if in_thread:
            self.world.wait_in_thread(event, timeout)
        else:
            self.world.in_loop(self.world.wait_in_loop, event, timeout)

    # Requests.

    @rule(
        name=NAMES,
        in_thread=st.booleans(),
        timeout=TIMEOUTS,
        use_mid=USE_MID,
        chosen_mid=CHOSEN_MIDS,
        reaction=REACTIONS,
        has_callbacks=HAS_CALLBACKS,
    )
    def callback_request(
        self, in_thread: bool, has_callbacks: tuple[bool, bool], **kwargs: Any
    ) -> None:
        replies, informs = has_callbacks
        kwargs.update(has_reply_callback=replies, has_inform_callback=informs)
        self._ask(in_thread, way="callback", **kwargs)

    @rule(name=NAMES, timeout=TIMEOUTS, use_mid=USE_MID, chosen_mid=CHOSEN_MIDS)
    def future_request(self, **kwargs: Any) -> None:
        self._ask(in_thread=False, way="future", **kwargs)

    @rule(name=NAMES, timeout=TIMEOUTS, use_mid=USE_MID, chosen_mid=CHOSEN_MIDS)
    def blocking_request(self, **kwargs: Any) -> None:
        self._ask(in_thread=True, way="blocking", **kwargs)

    @rule(
        name=NAMES,
        in_thread=st.booleans(),
        use_mid=st.sampled_from([None, False]),
        chosen_mid=CHOSEN_MIDS,
    )
    def request_without_claim(self, in_thread: bool, **kwargs: Any) -> None:
        self._ask(in_thread, way="unclaimed", **kwargs)

    @rule(pick=PICK, in_thread=st.booleans())
    def ask_again(self, pick: int, in_thread: bool) -> None:
        """Send a message that was sent before, and keeps the id it had."""
        asks = [ask for ask in self.world.asks if ask.wire is not None]
        if asks:
            self._make(in_thread, self.world.ask_again(asks[-1 - pick % len(asks)]))

    @rule(pick=PICK)
    def cancel_future(self, pick: int) -> None:
        futures = [ask for ask in self.world.asks if ask.way == "future" and not ask.has_ended]
        if futures:
            self.world.in_loop(self.world.cancel, futures[pick % len(futures)])

    # The device.

    @precondition(lambda self: self._is_connected())
    @rule(hold=HOLD)
    def reply_to_oldest(self, hold: bool) -> None:
        self._answer(b"!", 0, "none", hold)

    @precondition(lambda self: self._is_connected())
    @rule(pick=PICK, fault=FAULTS, hold=HOLD)
    def reply(self, pick: int, fault: str, hold: bool) -> None:
        """Reply: in time, late, a second time, in another order, or not as it should be."""
        self._answer(b"!", pick, fault, hold)

    @precondition(lambda self: self._is_connected())
    @rule(pick=PICK)
    def lose_reply(self, pick: int) -> None:
        """Let a request never be answered."""
        asks = self._unanswered()
        if asks:
            asks[pick % len(asks)].is_lost = True

    @precondition(lambda self: self._is_connected())
    @rule(name=NAMES, count=st.integers(1, 5), lost=st.booleans())
    def lose_reply_and_go_on(self, name: str, count: int, lost: bool) -> None:
        """Lose a reply and answer the next ones in time, or be late with each of them."""
        for number in range(count + 1):
            ask = self.world.new_ask(name, "callback", timeout=1.0, use_mid=False)
            self._make(False, ask)
            if number == 0:
                ask.is_lost = lost
            else:
                due = [ask for ask in self._unanswered() if ask.name == name]
                for ask in due[-1:] if lost else due[:1]:
                    self._say_of(ask, b"!")
            self.world.pass_time(1.0)

    @precondition(lambda self: self._is_connected())
    @rule(pick=PICK, fault=FAULTS, hold=HOLD)
    def inform(self, pick: int, fault: str, hold: bool) -> None:
        self._answer(b"#", pick, fault, hold)

    @precondition(lambda self: self._is_connected())
    @rule(line=st.sampled_from([*UNAWAITED, *GARBAGE]), hold=HOLD)
    def say_what_nobody_awaits(self, line: bytes, hold: bool) -> None:
        self.world.peer.say(line, hold=hold, is_message=line not in GARBAGE)

    @precondition(lambda self: self._is_connected())
    @rule(greeting=st.sampled_from(GREETINGS))
    def greet_again(self, greeting: list[bytes]) -> None:
        for line in greeting:
            self.world.peer.say(line)

    # After each step.

    @invariant()
    def all_invariants_hold(self) -> None:
        self.world.check()
        self.steps_alone = 0 if self._is_connected() else self.steps_alone + 1
        if self.steps_alone > ALONE:
            self._help()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            ClientMachine.replies_given += sum(ask.due is not None for ask in self.world.asks)
            self.world.end()

    def _is_connected(self) -> bool:
        return self.world.peer.connection is not None

    def _help(self) -> None:
        """Let the client get a connection: without one, little can happen."""
        world = self.world
        world.peer.name_server_hangs = False
        if not world.peer.is_listening:
            world.peer.listen()
        if world.state is State.STOPPED:
            world.start()
        world.pass_time(10.0)
        world.check()

    def _cut(self, how: str) -> None:
        """Let the device end the connection."""
        peer = self.world.peer
        if how == "said":
            peer.say(b"#disconnect bye")
        elif how == "half line":
            peer.flush(b"!read ok half")
        elif how == "reset":
            self.world.leave_unread()
        peer.cut()

    def _ask(self, in_thread: bool, **kwargs: Any) -> None:
        if kwargs["chosen_mid"] is not None:
            kwargs["use_mid"] = None
        self._make(in_thread, self.world.new_ask(**kwargs))

    def _make(self, in_thread: bool, ask: Ask) -> None:
        if ask.way == "blocking" or (in_thread and ask.way != "future"):
            self.world.ask_in_thread(ask)
        else:
            self.world.in_loop(self.world.ask_in_loop, ask)

    def _read_asks(self) -> list[Ask]:
        """Return those that the device has read, but for those whose replies are lost."""
        wire = self.world.judge.wire
        asks = self.world.asks
        return [ask for ask in asks if ask.wire is wire and ask.was_read and not ask.is_lost]

    def _unanswered(self) -> list[Ask]:
        return [ask for ask in self._read_asks() if not ask.was_answered]

    def _answer(self, kind: bytes, pick: int, fault: str, hold: bool) -> None:
        """Say something of a request that was read; such as were not answered come first."""
        asks = self._read_asks()
        asks.sort(key=lambda ask: ask.was_answered)
        if asks:
            self._say_of(asks[pick % len(asks)], kind, fault, hold)

    def _say_of(self, ask: Ask, kind: bytes, fault: str = "none", hold: bool = False) -> None:
        name, mid = ask.name.encode(), ask.mid
        if fault == "name":
            name = b"set" if name == b"read" else b"read"
        elif fault == "no id":
            mid = None
        elif fault == "id":
            mid = b"%d" % (int(mid or 0) + 1)
        code = b" ok" if kind == b"!" else b""
        id_text = b"" if mid is None else b"[" + mid + b"]"
        self.world.peer.say(kind + name + id_text + code + b" " + ask.nonce, hold=hold)


@pytest.mark.timeout(0)
def test_all_invariants_hold_whatever_happens() -> None:
    profile = hypothesis.settings.get_current_profile_name()
    run_state_machine_as_test(
        ClientMachine,
        settings=hypothesis.settings(max_examples=EXAMPLES[profile], stateful_step_count=STEPS),
    )
    # Where nothing is answered, nothing is played.
    assert ClientMachine.replies_given > EXAMPLES[profile] // 5
