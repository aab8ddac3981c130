"""One client in virtual time, its device, and the judge of what it does."""

from __future__ import annotations

import contextlib
import itertools
import logging
from typing import Any, Callable, Optional

import katcp
from katcp import Message
from katcp._state.lifecycle import State
from tests.property.judge import Ask, Judge, Waiting
from tests.property.peer import Peer, PeerResolver
from tests.support.helpers import PATIENCE
from tests.support.peek import virtual_world
from tests.support.virtual import ROUNDING, ThreadCall, VirtualLoop

# Whose records are judged, with those of the client itself.
LOGGERS = ("tornado.application", "asyncio")


class PlayedClient(katcp.BlockingClient):
    """A client that tells the judge what happens to it."""

    def __init__(self, judge: Judge, **kwargs: Any) -> None:
        self.judge = judge
        self.on_connect: Callable[[], None] = lambda: None
        # Lines that arrived together are handled in one turn, however slow the machine is.
        self.MAX_LOOP_LATENCY = 3600.0
        super().__init__("device.example", 7147, **kwargs)

    def notify_connected(self, connected: bool) -> None:
        self.judge.guard(self.judge.on_connected, connected)
        if connected:
            self.on_connect()

    def handle_message(self, msg: Message) -> Any:
        owner = self.judge.guard(self.judge.before_message, msg)
        result = super().handle_message(msg)
        self.judge.guard(self.judge.after_message, msg, owner)
        return result

    def unhandled_reply(self, msg: Message) -> None:
        self.judge.on_unhandled(msg)

    def unhandled_inform(self, msg: Message) -> None:
        self.judge.on_unhandled(msg)


class World:
    """What the rules act on."""

    def __init__(self, *, auto_reconnect: bool) -> None:
        self._open = contextlib.ExitStack()
        self._open.enter_context(virtual_world(PeerResolver))
        self.loop = VirtualLoop()
        self.ioloop = self.loop.make_ioloop()
        self._open.callback(self.ioloop.close)
        self.judge = Judge(self.loop, renews=auto_reconnect)
        self.peer = Peer(self.judge.on_line_read, lambda: self.judge.expect_record("BAD COMMAND"))
        self._open.callback(self.peer.close)
        self.client = PlayedClient(
            self.judge,
            timeout=None,
            auto_reconnect=auto_reconnect,
            logger=self._make_logger(),
        )
        self.client.set_ioloop(self.ioloop)
        self.judge.watch(self.client, self.peer)
        # A client that ends by itself may have done so before it hears of stop(): who asks it
        # then is told either.
        self.stops_in_callbacks = auto_reconnect
        self._nonces = itertools.count(1)
        # Not so after an invariant was found broken: the end then only cleans up.
        self.is_sound = True

    def _make_logger(self) -> logging.Logger:
        """Return the client's logger; it and the loop's tell the judge, and nobody else."""
        own = logging.Logger("played")
        own.addHandler(self.judge)
        for logger in map(logging.getLogger, LOGGERS):
            logger.addHandler(self.judge)
            logger.propagate = False
            self._open.callback(logger.removeHandler, self.judge)
            self._open.callback(setattr, logger, "propagate", True)
        return own

    @property
    def state(self) -> State:
        return self.judge.peek.state

    def check(self) -> None:
        """Hold the client to all invariants, when it has done all it does without waiting."""
        self.settle()
        self.is_sound = False
        self.judge.check()
        self.is_sound = True

    # Time.

    def settle(self) -> None:
        """Let client and device do all that they do without waiting."""
        while True:
            self.loop.run_until_idle()
            if self.judge.errors:
                self.is_sound = False
                raise self.judge.errors[0]
            if not self.peer.pump():
                return

    def pass_time(self, seconds: float) -> None:
        """Let the clock go on, from timer to timer."""
        end = self.loop.now + seconds
        while True:
            self.check()
            timer = self.loop.next_timer
            if timer is None or timer > end + ROUNDING:
                break
            self.loop.now = timer
        self.loop.now = max(end, self.loop.now)

    def in_loop(self, function: Callable[..., Any], *args: Any) -> None:
        """Call *function* in the loop."""
        self.loop.call_soon(self.judge.guard, function, *args)
        self.settle()

    def leave_unread(self) -> None:
        """Let the client send what the device never reads: closing resets the connection then."""
        self.judge.on_dropped()  # what was on the way may be lost
        self.loop.call_soon(self.client.send_message, Message.inform("unread"))
        self.loop.run_until_idle()

    def in_thread(self, function: Callable[..., Any], *args: Any) -> ThreadCall:
        """Call *function* in a thread, and let the loop do what it hands over."""
        return ThreadCall(self.loop, function, *args)

    # The program.

    def start(self) -> None:
        self.judge.was_started = True
        self.judge.stop_was_called = False
        self.client.start()

    def stop(self) -> None:
        """Stop, in the loop or in a thread."""
        self.judge.stop_was_called = True
        self.judge.on_dropped()
        self.client.stop(PATIENCE)

    def disconnect(self) -> None:
        if self.client.is_connected():
            self.judge.on_dropped()
        self.client.disconnect()

    @property
    def asks(self) -> list[Ask]:
        """All requests, in their order."""
        return list(self.judge.asks.values())

    def ask_again(self, ask: Ask) -> Ask:
        """Return a request with the message of another one, not made yet."""
        way = "callback" if ask.way == "unclaimed" else ask.way
        again = self.new_ask(ask.name, way, timeout=ask.timeout)
        again.message, again.chosen_mid = ask.message, ask.chosen_mid
        again.message.arguments = [again.nonce]
        return again

    def new_ask(self, name: str, way: str, **kwargs: Any) -> Ask:
        """Return a request of the program, not made yet."""
        nonce = b"n%d" % next(self._nonces)
        ask = Ask(nonce, Message.request(name, nonce, mid=kwargs.get("chosen_mid")), way, **kwargs)
        if way == "unclaimed":
            ask.has_reply_callback = ask.has_inform_callback = False
        self.judge.asks[nonce] = ask
        return ask

    def ask_in_loop(self, ask: Ask) -> None:
        """Make a request; in the loop."""
        judge = self.judge
        ask.began = self.loop.time()
        ask.verdict = judge.verdict_on(ask)
        error: Optional[Exception] = None
        try:
            self._call(ask)
        except (katcp.KatcpClientError, katcp.KatcpUsageError) as raised:
            error = raised
        if ask.verdict == "sent":
            assert error is None, repr(error)
            judge.on_sent(ask, ask.message.mid)
        elif ask.verdict == "held":
            assert error is None, repr(error)
            judge.on_held(ask)
        if ask.way == "unclaimed":
            judge.check_unclaimed(ask, error)
        elif ask.verdict == "misuse":
            assert isinstance(error, katcp.KatcpUsageError), repr(error)
            ask.has_ended = True
        else:
            assert error is None, repr(error)

    def ask_in_thread(self, ask: Ask) -> None:
        """Make a request in a thread of its own."""
        ask.began = self.loop.time()
        ask.verdict = self.judge.verdict_on(ask)
        if ask.verdict == "held":
            self.judge.on_held(ask)
        ask.thread = self.in_thread(self._call, ask)
        self.settle()

    def _call(self, ask: Ask) -> Any:
        """Make a request, as programs do."""
        client, msg = self.client, ask.message
        if ask.way == "unclaimed":
            return client.send_request(msg) if ask.use_mid is False else client.request(msg)
        if ask.way == "blocking":
            return client.blocking_request(msg, timeout=ask.timeout, use_mid=ask.use_mid)
        if ask.way == "future":
            ask.future = client.future_request(msg, timeout=ask.timeout, use_mid=ask.use_mid)
            return None
        return client.callback_request(
            msg,
            reply_cb=self._on_reply if ask.has_reply_callback else None,
            inform_cb=self._on_inform if ask.has_inform_callback else None,
            user_data=(ask,),
            timeout=ask.timeout,
            use_mid=ask.use_mid,
        )

    def _on_inform(self, inform: Message, ask: Ask) -> None:
        ask.informs.append(inform)

    def _on_reply(self, reply: Message, ask: Ask) -> None:
        self.judge.guard(self.judge.on_reply, ask, reply)
        self.judge.guard(self.react, ask.reaction, ask.name)
        if ask.reaction == "raise":
            self.judge.expect_record(f"{ask.name} FAIL")
            raise ValueError("a program's callback")

    def react(self, reaction: str, name: str) -> None:
        """Do what the program does in a callback."""
        if reaction == "ask":
            self.ask_in_loop(self.new_ask(name, "callback", timeout=2.0))
        elif reaction == "disconnect":
            self.disconnect()
        elif reaction == "stop" and self.stops_in_callbacks and self.state is not State.STOPPED:
            self.stop()
        elif reaction == "cancel":
            for other in self.asks:
                self.cancel(other)

    def react_on_connect(self, reaction: str) -> None:
        """Let the program do something when the next connection is made."""

        def react() -> None:
            self.client.on_connect = lambda: None
            if reaction == "raise":
                self.judge.expect_record("Notify connect failed. Disconnecting.")
                self.judge.on_dropped()
                raise ValueError("a program's callback")
            self.react(reaction, "read")

        self.client.on_connect = react

    def cancel(self, ask: Ask) -> None:
        if ask.future is not None and ask.future.cancel():
            ask.was_cancelled = True

    def wait_in_thread(self, event: str, timeout: Optional[float]) -> None:
        wait = getattr(self.client, f"wait_{event}")
        deadline = None if timeout is None else self.loop.time() + timeout
        self.judge.waiters.append(Waiting(event, deadline, thread=self.in_thread(wait, timeout)))
        self.settle()

    def wait_in_loop(self, event: str, timeout: Optional[float]) -> None:
        deadline = None if timeout is None else self.loop.time() + timeout
        future = getattr(self.client, f"until_{event}")(timeout)
        self.judge.waiters.append(Waiting(event, deadline, future=future))

    # The end.

    def end(self) -> None:
        """Stop the client: nothing may be left of it."""
        try:
            if self.is_sound:
                if self.state is not State.STOPPED:
                    self.in_loop(self.stop)
                self.check()
                self.judge.check_nothing_left()
        finally:
            if self.state is not State.STOPPED:
                self.loop.call_soon(self.client.stop)
                self.loop.run_until_idle()
            self._open.close()
