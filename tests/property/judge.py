"""The reference model: what a client must have done, judged while it plays.

The judge is told of everything in the order in which it happens: what the program asks, what
arrives, what ends. It knows no more of the client than a program and a device do. After each step
`Judge.check` holds the client to the invariants of docs/explanation/states.rst, which are numbered
there and here.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import re
from typing import Any, Callable, Optional

import katcp
from katcp import Message
from katcp._state.lifecycle import EVENT_NAMES, EVENTS, State
from tests.property.peer import Peer
from tests.support.matching import Model
from tests.support.peek import Peek
from tests.support.virtual import ThreadCall, VirtualLoop

# What may be logged without having been announced, because its cause stands in the log already.
EXPLAINED = re.compile(
    "Failed to connect to|Protocol Version Warning|closed with error|Dropped a line of"
    "|Reconnected to"
)


@dataclasses.dataclass(eq=False)
class Ask:
    """One request of the program.

    Attributes
    ----------
    nonce : bytes
        Its argument, which its informs and its reply carry.
    way : str
        "callback", "future", "blocking"; "unclaimed" if nobody waits for its reply.
    verdict : str
        What must become of it: "sent", or why not; "held" if it waits for the greeting first.
    held_on : Wire or None
        The connection whose greeting it waits for, or did.
    """

    nonce: bytes
    message: Message
    way: str
    timeout: Optional[float] = None
    use_mid: Optional[bool] = None
    chosen_mid: Optional[bytes] = None
    reaction: str = "none"
    has_reply_callback: bool = True
    has_inform_callback: bool = True
    verdict: str = ""
    began: float = 0.0
    wire: Optional[Wire] = None
    held_on: Optional[Wire] = None
    mid: Optional[bytes] = None
    was_read: bool = False
    has_ended: bool = False
    was_cancelled: bool = False
    was_answered: bool = False
    was_spoken_of: bool = False
    is_lost: bool = False
    was_behind: bool = False
    is_reckless: bool = False
    due: Optional[Message] = None
    due_informs: list[Message] = dataclasses.field(default_factory=list)
    replies: list[Message] = dataclasses.field(default_factory=list)
    informs: list[Message] = dataclasses.field(default_factory=list)
    future: Any = None
    thread: Optional[ThreadCall] = None

    @property
    def name(self) -> str:
        return self.message.name

    @property
    def number(self) -> int:
        """The larger, the later it was made."""
        return int(self.nonce[1:])

    @property
    def deadline(self) -> Optional[float]:
        return None if self.timeout is None else self.began + self.timeout

    @property
    def is_pending(self) -> bool:
        return self.wire is not None and self.way != "unclaimed" and not self.has_ended

    @property
    def wants_mid(self) -> bool:
        return self.chosen_mid is not None or self.use_mid is True


@dataclasses.dataclass
class Talk:
    """What device and client say of the requests of one name that were sent without id."""

    asks: list[Ask] = dataclasses.field(default_factory=list)
    # Whether the device has spoken as none does that answers in order.
    has_lied: bool = False

    def is_in_order(self, ask: Ask) -> bool:
        """Whether the device has not spoken of those after *ask*."""
        return not any(later.was_spoken_of for later in self.asks[self.asks.index(ask) + 1 :])

    def is_complete(self, ask: Ask) -> bool:
        """Whether those before *ask* have had their replies: else some may be lost."""
        return all(earlier.was_answered for earlier in self.asks[: self.asks.index(ask)])


def says_behind(reply: Message) -> bool:
    """Whether a made-up reply says that no request of a name can be answered any more."""
    return b"replies come, but to earlier requests" in reply.arguments[1]


class Wire:
    """One connection, as the client should see it."""

    def __init__(self, wait_ends: Optional[float] = None) -> None:
        # Until when requests wait for the greeting; None: they do not.
        self.wait_ends = wait_ends
        self.held: list[Ask] = []
        self.last_read: Optional[Ask] = None
        self.is_over = False
        # Whether the client ended it, and need not handle what had arrived.
        self.was_dropped = False
        # Whether the client has closed it to make a new one, since its replies were behind.
        self.is_renewed = False
        self.requests = Model()
        self.talks: dict[str, Talk] = collections.defaultdict(Talk)
        self.announced: Optional[katcp.ProtocolFlags] = None
        self.is_v4 = False

    @property
    def has_ids(self) -> bool:
        """Whether requests were sent with ids."""
        return any(entry.mid is not None for entry in self.requests.entries)

    @property
    def flags(self) -> Optional[katcp.ProtocolFlags]:
        if self.announced is None and self.is_v4:
            return katcp.ProtocolFlags(4, 0)
        return self.announced


class Judge(logging.Handler):
    """Knows what the client must do, and holds it to that."""

    def __init__(self, loop: VirtualLoop, *, renews: bool) -> None:
        super().__init__(logging.WARNING)
        self.loop = loop
        # Whether the client makes a new connection when the replies of one are behind.
        self.renews = renews
        self.client: Any = None
        self.peek: Any = None
        self.peer: Any = None
        self.asks: dict[bytes, Ask] = {}
        self.wire: Optional[Wire] = None
        # Whether the device had ids when it last said what it speaks.
        self.had_ids = False
        self.was_started = False
        self.stop_was_called = False
        self.due_answers: list[tuple[str, Optional[bytes]]] = []
        self.waiters: list[Waiting] = []
        # What was found in the loop, whose callbacks cannot raise.
        self.errors: list[BaseException] = []
        self._unhandled: list[Message] = []
        self._records: list[str] = []
        self._due_records: list[str] = []

    def watch(self, client: Any, peer: Peer) -> None:
        self.client, self.peer = client, peer
        self.peek = Peek(client)

    def guard(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call *function*; what it raises fails the step, though it is raised in the loop."""
        try:
            return function(*args)
        except BaseException as error:
            self.errors.append(error)
            raise

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += " " + repr(record.exc_info[1])
        self._records.append(text)

    # What the program does.

    def verdict_on(self, ask: Ask) -> str:
        """Return what must become of *ask* if it is made now."""
        if self.peek.state is State.STOPPED:
            return "misuse" if self.stop_was_called or not self.was_started else "offline"
        if self._must_wait(ask):
            return "held"
        flags = self.client.protocol_flags
        ids = flags is not None and flags.message_ids
        if ask.chosen_mid is not None:
            if not ids:
                return "no ids"
            if self._is_mid_pending(int(ask.chosen_mid)):
                return "misuse"
        elif ask.use_mid and not ids:
            return "no ids"
        if self.wire is not None and self.wire.is_renewed:
            return "offline"
        return "sent" if self.client.is_connected() else "offline"

    def _must_wait(self, ask: Ask) -> bool:
        """Return whether *ask* is held back: to know about ids, or behind one that is."""
        if self.wire is None or not self.client.is_connected():
            return False
        # In the middle of a turn, only the client knows whether the wait is over.
        if not self.peek.waits_for_greeting():
            return False
        if ask.way == "unclaimed":
            return bool(self.wire.held) and not ask.wants_mid
        return bool(self.wire.held) or ask.use_mid is not False or ask.chosen_mid is not None

    def on_held(self, ask: Ask) -> None:
        """Note that *ask* waits for the greeting."""
        assert self.wire is not None
        ask.held_on = self.wire
        self.wire.held.append(ask)

    def _is_held(self, ask: Ask) -> bool:
        """Return whether *ask* has to wait still, when the client is idle."""
        wire = ask.held_on
        return wire is not None and ask.wire is None and self._has_to_greet(wire)

    def _has_to_greet(self, wire: Wire) -> bool:
        """Return whether requests on *wire* wait, when the client is idle."""
        if wire.is_over or wire.flags is not None or wire.wait_ends is None:
            return False
        return self.loop.time() < wire.wait_ends

    def _is_mid_pending(self, mid: int) -> bool:
        wire = self.wire
        return wire is not None and not wire.is_over and wire.requests.is_mid_pending(mid)

    def on_sent(self, ask: Ask, mid: Optional[bytes]) -> None:
        """Note that *ask* is on its way, with this id."""
        wire = ask.wire = self.wire
        assert wire is not None
        ask.mid = mid
        if mid is not None:
            self._check_new_mid(ask, wire, int(mid))
        else:
            wire.talks[ask.name].asks.append(ask)
        message = Message.request(ask.name, mid=mid)
        if ask.way == "unclaimed":
            wire.requests.note_sent(message)
        else:
            wire.requests.add(ask, message, ask.began, ask.deadline)

    def _check_new_mid(self, ask: Ask, wire: Wire, mid: int) -> None:
        """Invariant 7: no id is given out that another request may still be answered with."""
        assert not wire.requests.is_mid_pending(mid), f"id {mid} is used twice"
        if mid in wire.requests.late_mids:
            # A program may choose such an id, and has to know what it does.
            ask.is_reckless = True
            assert ask.chosen_mid is not None, f"id {mid} may still be answered"

    def on_cancelled(self, ask: Ask) -> None:
        ask.was_cancelled = True

    def on_reply(self, ask: Ask, reply: Message) -> None:
        """Invariant 1: a request ends once, and for a reason that holds."""
        ask.replies.append(reply)
        assert len(ask.replies) == 1, f"a request ended twice: {ask.replies}"
        assert reply.name == ask.name
        assert not ask.has_ended, f"a request that is over was given {reply}"
        error = reply.local_error
        if error is None:
            assert reply is ask.due, f"{ask.nonce!r} was given {reply}, not {ask.due}"
        elif isinstance(error, katcp.KatcpClientTimeout):
            assert ask.deadline is not None
            assert abs(self.loop.time() - ask.deadline) < 1e-6, "a timeout at the wrong time"
            self._check_timeout(ask, reply)
        elif isinstance(error, katcp.KatcpClientStopped):
            # stop() ends them before it closes the connection.
            assert self.stop_was_called or self.peek.state is State.STOPPED
            assert self.stop_was_called or ask.wire is None or ask.wire.is_over
        elif isinstance(error, katcp.KatcpClientDisconnected):
            wire = ask.wire or ask.held_on
            assert wire.is_over if wire else ask.verdict == "offline"
            assert says_behind(reply) == (wire is not None and wire.is_renewed), reply
        else:
            assert isinstance(error, katcp.KatcpVersionError), repr(error)
            assert ask.verdict == "no ids" or self._was_held_in_vain(ask)
        ask.has_ended = True

    def _was_held_in_vain(self, ask: Ask) -> bool:
        """Return whether *ask* waited for an id, and the greeting told of none."""
        wire = ask.held_on
        if wire is None or not ask.wants_mid or self._has_to_greet(wire):
            return False
        return wire.flags is None or not wire.flags.message_ids

    def _check_timeout(self, ask: Ask, reply: Message) -> None:
        """Check that the reason tells of replies that are behind if, and only if, they are."""
        if ask.wire is None and ask.held_on is None:
            # Of another thread, and the device has not read it yet.
            self.on_sent(ask, reply.mid)
        self._expire()
        assert says_behind(reply) == ask.was_behind, reply

    def _expire(self) -> None:
        """Let those be over whose time is, all at once.

        If the replies are behind then, the client makes a new connection.
        """
        wire = self.wire
        assert wire is not None
        for ask in wire.requests.take_expired(self.loop.time()):
            ask.was_behind = wire.requests.is_behind(ask)
            if ask.was_behind and self.renews and not wire.is_renewed:
                wire.is_renewed = True
                self.on_dropped()
                self.expect_record(f"?{ask.name}: replies come, but to earlier requests")

    # What the network does.

    def on_connected(self, connected: bool) -> None:
        if connected:
            assert self.wire is None or self.wire.is_over, "connected twice"
            wait = self.client.GREETING_TIMEOUT
            self.wire = Wire(self.loop.time() + wait if self.had_ids else None)
        else:
            assert self.wire is not None
            assert not self.wire.is_over, "disconnected twice"
            cut = self.peer.connection is None
            assert self.wire.was_dropped or cut, "the client closed the connection"
            self.wire.is_over = True

    def on_dropped(self) -> None:
        """Note that the program ends the connection."""
        if self.wire is not None and not self.wire.is_over:
            self.wire.was_dropped = True

    def on_line_read(
        self, kind: bytes, name: bytes, mid: Optional[bytes], arguments: bytes
    ) -> None:
        """Invariant 9: each request is written once, each request of the device answered."""
        if kind == b"!":
            assert arguments.startswith(b"invalid "), arguments
            self.due_answers.remove((name.decode(), mid))
            return
        if kind == b"#":
            return
        ask = self.asks[arguments]
        assert not ask.was_read, f"{ask.nonce!r} was sent twice"
        ask.was_read = True
        assert ask.verdict in ("sent", "held"), f"{ask.nonce!r} was sent, though {ask.verdict}"
        self._check_order(ask)
        if ask.held_on is not None:
            assert not self._has_to_greet(ask.held_on), f"{ask.nonce!r} did not wait"
            assert not ask.was_cancelled, f"{ask.nonce!r} was sent, though it was cancelled"
            assert not ask.has_ended or ask.way == "unclaimed"
            self.on_sent(ask, mid)
        elif ask.wire is None:
            # Of another thread: nothing arrived since, but it may be over if its timeout was 0.
            self.on_sent(ask, mid)
        assert ask.mid == mid, f"sent with id {mid!r}, not {ask.mid!r}"

    def _check_order(self, ask: Ask) -> None:
        """Invariant 9: requests are written in the order in which they were made."""
        assert self.wire is not None
        last, self.wire.last_read = self.wire.last_read, ask
        assert last is None or last.number < ask.number, f"{last.nonce!r} was overtaken"

    # What arrives.

    def before_message(self, msg: Message) -> Optional[Ask]:
        """Return the request that *msg* must be given to."""
        assert self.wire is not None
        assert not self.wire.is_over, f"handled after the end: {msg}"
        line = self.peer.said.popleft()
        assert bytes(msg) == line, f"invariant 6: {msg} was handled, {line!r} was said"
        self._unhandled = []
        if msg.mtype == Message.REQUEST:
            self.due_answers.append((msg.name, msg.mid))
            return None
        if msg.mtype == Message.REPLY:
            return self._owner_of_reply(self.wire, msg)
        self._learn(self.wire, msg)
        return self._owner_of_inform(self.wire, msg)

    def after_message(self, msg: Message, owner: Optional[Ask]) -> None:
        """Invariant 6: what nobody awaits goes to the handlers, and nothing else does."""
        if msg.mtype == Message.REPLY:
            self._check_replied(msg, owner)
        elif msg.mtype == Message.INFORM:
            claimed = owner is not None and owner.has_inform_callback
            known = msg.name in ("version-connect", "version", "build-state")
            assert self._unhandled == ([] if claimed or known else [msg])

    def on_unhandled(self, msg: Message) -> None:
        self._unhandled.append(msg)

    def _check_replied(self, msg: Message, owner: Optional[Ask]) -> None:
        if owner is not None and owner.was_cancelled:
            # Cancelled in this turn of the loop; nobody waits.
            owner.has_ended = True
            return
        if owner is None or not owner.has_reply_callback:
            assert self._unhandled == [msg], f"{msg} went to {owner and owner.nonce!r}"
            if owner is not None:
                owner.has_ended = True
            return
        assert self._unhandled == [], f"{msg} belongs to {owner.nonce!r}"
        if owner.way == "callback":
            assert owner.replies == [msg], f"{msg} belongs to {owner.nonce!r}"
        elif owner.way == "future":
            assert owner.future.done(), f"{msg} belongs to {owner.nonce!r}"

    def _owner_of_reply(self, wire: Wire, msg: Message) -> Optional[Ask]:
        subject = self._subject_of(msg)
        is_honest = self._note_conduct(wire, msg, subject)
        owner = wire.requests.match_reply(msg)
        self._judge_owner(wire, msg, subject, owner, is_honest)
        if subject is not None and is_honest:
            subject.was_answered = True
        if owner is not None:
            owner.due = msg
        return owner

    def _owner_of_inform(self, wire: Wire, msg: Message) -> Optional[Ask]:
        subject = self._subject_of(msg)
        is_honest = self._note_conduct(wire, msg, subject)
        owner = wire.requests.match_inform(msg)
        self._judge_owner(wire, msg, subject, owner, is_honest)
        if owner is not None and owner.has_inform_callback:
            owner.due_informs.append(msg)
        return owner

    def _note_conduct(self, wire: Wire, msg: Message, subject: Optional[Ask]) -> bool:
        """Note how the device behaves; return whether it speaks as it should.

        Informs and reply of a request without id come in its turn. What it likes it may leave out.
        """
        is_honest = (
            subject is not None and not subject.was_answered and self._is_of(subject, wire, msg)
        )
        if msg.mid is None:
            talk = wire.talks[msg.name]
            if subject is None or not is_honest:
                talk.has_lied |= msg.mtype == Message.REPLY
            else:
                talk.has_lied |= not talk.is_in_order(subject)
                subject.was_spoken_of = True
        return is_honest

    def _judge_owner(
        self,
        wire: Wire,
        msg: Message,
        subject: Optional[Ask],
        owner: Optional[Ask],
        is_honest: bool,
    ) -> None:
        """Invariant 5: nobody is given what belongs to another."""
        if msg.mid is not None and owner is None and wire.requests.is_mid_pending(int(msg.mid)):
            self.expect_record("Ignoring the id of")
        if not is_honest or subject is None or subject.is_reckless:
            return
        if msg.mid is not None:
            assert owner is None or owner is subject or owner.is_reckless, f"{msg}: {owner}"
            return
        talk = wire.talks[msg.name]
        if talk.has_lied:
            return
        if talk.is_complete(subject):
            # As long as no id has come back, those with ids may be in the way.
            is_certain = subject.is_pending and not subject.was_cancelled and not wire.has_ids
            assert owner is subject or (owner is None and not is_certain), f"{msg}: {owner}"
        elif owner is not None:
            # Some are lost: one may be given what is for a later one, never for an earlier one.
            assert talk.asks.index(owner) <= talk.asks.index(subject), f"{msg}: {owner}"

    def _subject_of(self, msg: Message) -> Optional[Ask]:
        """Return the request that the device speaks of."""
        return self.asks.get(bytes(msg.arguments[-1])) if msg.arguments else None

    @staticmethod
    def _is_of(subject: Optional[Ask], wire: Wire, msg: Message) -> bool:
        """Return whether *msg* looks as the device should have made it for *subject*."""
        return (
            subject is not None
            and subject.wire is wire
            and subject.mid == msg.mid
            and subject.name == msg.name
        )

    def _learn(self, wire: Wire, msg: Message) -> None:
        """Take in what a greeting tells."""
        if msg.name in ("version", "build-state"):
            wire.is_v4 = True
            self.had_ids &= wire.announced is not None
        elif msg.name == "version-connect" and msg.arguments[0] == b"katcp-protocol":
            flags = katcp.ProtocolFlags.parse_version(msg.arguments[1])
            if flags.major:
                wire.announced = flags
                self.had_ids = flags.message_ids

    # What is logged.

    def expect_record(self, text: str) -> None:
        """Let one log record with *text* be due."""
        self._due_records.append(text)

    # After each step.

    def check(self) -> None:
        """Hold the client, which is idle, to all invariants."""
        self._look_at_ended()
        self._check_requests()
        self._check_entries()
        self._check_held()
        self._check_events()
        self._check_connection()
        self._check_all_was_handled()
        self._check_protocol()
        self._check_waiters()
        self._check_records()

    def _look_at_ended(self) -> None:
        for ask in self.asks.values():
            if ask.has_ended:
                continue
            if ask.future is not None and ask.future.done():
                self._look_at_future(ask)
            elif ask.thread is not None:
                self._look_at_thread(ask, ask.thread)
            if ask.way == "callback" and not ask.has_reply_callback and not ask.has_ended:
                self._look_at_unheard(ask)

    def _look_at_unheard(self, ask: Ask) -> None:
        """Note the end of a request whose made-up reply nobody hears."""
        wire = ask.wire or ask.held_on
        if wire is None or wire.is_over or self._was_held_in_vain(ask):
            ask.has_ended = True
        elif ask.deadline is not None and ask.deadline <= self.loop.time():
            self._expire()
            ask.has_ended = True

    def _look_at_future(self, ask: Ask) -> None:
        if ask.future.cancelled():
            if ask.wire is not None and not ask.wire.is_over:
                ask.wire.requests.abandon(ask)
            ask.has_ended = True
            return
        reply, ask.informs = ask.future.result()
        self.on_reply(ask, reply)

    def _look_at_thread(self, ask: Ask, thread: ThreadCall) -> None:
        deadline_over = ask.deadline is not None and ask.deadline <= self.loop.time()
        if (
            ask.due is not None
            or ask.verdict not in ("sent", "held")
            or ask.way != "blocking"
            or (ask.wire is None and not self._is_held(ask))
            or (ask.wire is not None and ask.wire.is_over)
            or deadline_over
        ):
            thread.wait()
        if not thread.has_ended:
            return
        if ask.verdict == "misuse":
            assert isinstance(thread.error, katcp.KatcpUsageError), repr(thread.error)
            ask.has_ended = True
        elif ask.way == "blocking":
            assert thread.error is None, repr(thread.error)
            reply, ask.informs = thread.result
            self.on_reply(ask, reply)
        elif ask.way == "unclaimed":
            self.check_unclaimed(ask, thread.error)
        else:
            assert thread.error is None, repr(thread.error)

    def check_unclaimed(self, ask: Ask, error: Optional[BaseException]) -> None:
        """Invariant 1, of a request whose reply nobody awaits: it is sent, or raises why not."""
        ask.has_ended = True
        expected = {
            "sent": type(None),
            "held": type(None),
            "misuse": katcp.KatcpUsageError,
            "no ids": katcp.KatcpVersionError,
            "offline": katcp.KatcpClientDisconnected,
        }[ask.verdict]
        assert isinstance(error, expected), f"{error!r}, not {expected}"

    def _check_requests(self) -> None:
        """Invariant 1: each request has ended, or is pending with a deadline still to come."""
        for ask in self.asks.values():
            if ask.has_ended:
                assert ask.informs == ask.due_informs or ask.was_cancelled, ask
                continue
            if self._is_held(ask):
                assert ask.deadline is None or ask.deadline > self.loop.time(), "an old deadline"
                continue
            assert ask.is_pending, f"{ask.nonce!r} was neither sent nor ended"
            assert ask.wire is self.wire, f"{ask.nonce!r} cannot be answered any more"
            assert not ask.wire.is_over, f"{ask.nonce!r} cannot be answered any more"
            assert ask.was_read, f"{ask.nonce!r} was never sent"
            assert ask.deadline is None or ask.deadline > self.loop.time(), "an old deadline"

    def _check_entries(self) -> None:
        """Invariant 2: what the client holds as pending is what is pending."""
        asks = [ask for ask in self.asks.values() if not ask.has_ended]
        held = [ask.name for ask in asks if self._is_held(ask)]
        pending = [(a.name, a.mid, a.deadline) for a in asks if not self._is_held(a)]
        assert sorted(self.peek.sent(), key=repr) == sorted(pending, key=repr)
        assert self.peek.held() == held

    def _check_held(self) -> None:
        """Invariant 13: requests wait only for the greeting of a device that had ids."""
        waits = self.wire is not None and self._has_to_greet(self.wire)
        assert self.peek.waits_for_greeting() == waits

    def _check_events(self) -> None:
        """Invariant 3: the events are those of the state."""
        state = self.peek.state
        events = {name for name in EVENT_NAMES if self.peek.events[name].is_set()}
        assert events == EVENTS[state], f"{events} in {state}"
        assert self.client.running() == ("running" in events)
        assert self.client.is_connected() == ("connected" in events)

    def _check_connection(self) -> None:
        """Invariant 4: the client is connected exactly when the device is."""
        connected = self.peek.state is State.CONNECTED
        assert connected == (self.peer.connection is not None), self.peek.state
        assert connected == (self.wire is not None and not self.wire.is_over)
        if self.stop_was_called:
            assert self.peek.state is State.STOPPED, "stop() was not heard"

    def _check_all_was_handled(self) -> None:
        """Invariant 6: every line that arrived was handled, unless the program closed."""
        if self.wire is None or self.wire.was_dropped:
            self.peer.said.clear()
            self.due_answers.clear()
        assert not self.peer.said, f"not handled: {list(self.peer.said)}"
        if self.wire is not None and self.wire.is_over:
            self.due_answers.clear()
        assert not self.due_answers, f"invariant 9: not answered: {self.due_answers}"

    def _check_protocol(self) -> None:
        """Invariant 8: the protocol is what the device said on this connection."""
        if self.peek.state is State.CONNECTED:
            assert self.wire is not None
            assert self.client.protocol_flags == self.wire.flags
            assert self.peek.events["protocol"].is_set() == (self.wire.flags is not None)
        elif self.peek.state is State.STOPPED:
            assert not self.peek.events["protocol"].is_set()

    def _check_waiters(self) -> None:
        """Invariant 10: nobody waits for what has come, or cannot come any more."""
        for waiting in list(self.waiters):
            if waiting.must_have_ended(self):
                waiting.wait()
                self.waiters.remove(waiting)

    def _check_records(self) -> None:
        """Invariant 11: what is logged has a cause, and what must be logged is, once."""
        dropped = self.wire is None or self.wire.was_dropped
        due, self._due_records = self._due_records, []
        records, self._records = self._records, []
        for record in records:
            text = next((text for text in due if text in record), None)
            if text is not None:
                due.remove(text)
            else:
                assert EXPLAINED.search(record), f"logged without a cause: {record}"
        assert not due or dropped, f"not logged: {due}"

    def check_nothing_left(self) -> None:
        """Invariant 12: a client that has stopped leaves nothing behind."""
        assert all(ask.has_ended for ask in self.asks.values())
        assert not self.waiters
        assert self.peek.leftovers() == {}
        assert asyncio.all_tasks(self.loop) == set()
        assert self.loop.next_timer is None, "a timer is left"
        assert self.peer.connection is None, "the connection is left open"


@dataclasses.dataclass(eq=False)
class Waiting:
    """A coroutine or a thread that waits for an event."""

    event: str
    deadline: Optional[float]
    future: Any = None
    thread: Optional[ThreadCall] = None

    def must_have_ended(self, judge: Judge) -> bool:
        return (
            judge.peek.events[self.event].is_set()
            or judge.peek.state is State.STOPPED
            or (self.deadline is not None and self.deadline <= judge.loop.time())
            or (self.thread is not None and self.thread.has_ended)
        )

    def wait(self) -> None:
        if self.thread is not None:
            self.thread.wait()
            error = self.thread.error
            assert error is None or isinstance(error, katcp.KatcpUsageError), repr(error)
        else:
            assert self.future.done(), f"waits for {self.event}, which is not to come"
