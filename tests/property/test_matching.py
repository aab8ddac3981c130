"""Requests and a device in every mixture of quick, late and lost replies: who is given what.

The device answers the requests of one name in their order. What is done to `PendingRequests` is
done to a model as well, and both must agree; what they say is held against the truth, which only
the device knows: katcp/_state/requests.py says what is promised.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, Optional

import hypothesis.strategies as st
import pytest
from hypothesis import event, given

from katcp import Message
from katcp._state.requests import PendingRequest
from tests.support.matching import Both

LOGGER = logging.getLogger("tests.matching")

NAMES = ("foo", "foo", "foo", "bar")
STEPS = st.sampled_from(
    ["send", "send", "send", "reply", "reply", "reply", "inform", "time out", "cancel", "unclaimed"]
)
# What is done, and to which of those to which it can be done.
GAMES = st.lists(st.tuples(STEPS, st.integers(0, 11)), max_size=80)


@dataclasses.dataclass(eq=False)
class Sent:
    """A request that the device has read."""

    number: int
    message: Message
    request: Optional[PendingRequest]
    # How many had been sent when it ended.
    ended_at: Optional[int] = None


class Game:
    """A client and a device, which decides what becomes of each request.

    Parameters
    ----------
    ids : str
        What becomes of ids: "none" are sent; the device "echoes" them, and answers what has one
        in any order; it echoes them "in order"; or it "ignores" them.
    """

    has_lost = False

    def __init__(self, ids: str) -> None:
        self.ids = ids
        self.both = Both(LOGGER)
        self.sent: list[Sent] = []
        self.unanswered: list[Sent] = []
        self.echoed = False
        self.wrong = 0

    def play(self, step: str, pick: int) -> None:
        getattr(self, step.replace(" ", "_"))(pick)
        self.both.check()

    # What the program does.

    def send(self, pick: int) -> None:
        message = self._message(pick)
        request = PendingRequest()
        self.both.add(request, message, 0.0, None)
        self._note(message, request)

    def unclaimed(self, pick: int) -> None:
        message = self._message(pick)
        self.both.note_sent(message)
        self._note(message, None)

    def time_out(self, pick: int) -> None:
        for sent in self._picked_pending(pick):
            self.both.model.entry_of(sent.request).deadline = sent.request.deadline = 0.0
            assert self.both.take_expired(0.0) == [sent.request]
            sent.ended_at = len(self.sent)

    def cancel(self, pick: int) -> None:
        for sent in self._picked_pending(pick):
            self.both.abandon(sent.request)
            sent.ended_at = len(self.sent)

    # What the device does.

    def reply(self, pick: int) -> Any:
        """Answer a request; return it, and whom the reply was given to."""
        for sent in self._picked_unanswered(pick):
            self.unanswered.remove(sent)
            reply = Message.reply(sent.message.name, "ok", mid=self._mid_of(sent))
            expected = self._expected(sent)
            self.echoed |= reply.mid is not None
            owner = self.both.match_reply(reply)
            self._judge(sent, owner, expected)
            for given_to in self.sent:
                if owner is not None and given_to.request is owner:
                    given_to.ended_at = len(self.sent)

    def inform(self, pick: int) -> None:
        for sent in self._picked_unanswered(pick):
            inform = Message.inform(sent.message.name, mid=self._mid_of(sent))
            self._judge(sent, self.both.match_inform(inform), None)

    def lose(self, pick: int) -> None:
        """Let a reply be lost for good."""
        for sent in self._picked_unanswered(pick):
            self.unanswered.remove(sent)

    # How.

    def _message(self, pick: int) -> Message:
        mid = self.both.next_mid() if self.ids != "none" and pick % 3 else None
        return Message.request(NAMES[pick % len(NAMES)], mid=mid)

    def _note(self, message: Message, request: Optional[PendingRequest]) -> None:
        sent = Sent(len(self.sent), message, request)
        self.sent.append(sent)
        self.unanswered.append(sent)

    def _picked_pending(self, pick: int) -> list[Sent]:
        pending = [s for s in self.sent if s.request is not None and s.ended_at is None]
        return pending and [pending[pick % len(pending)]]

    def _picked_unanswered(self, pick: int) -> list[Sent]:
        """Return the request that the device speaks of next, if there is one."""
        heads: dict[Any, Sent] = {}
        for sent in self.unanswered:
            is_free = self.ids == "echoes" and sent.message.mid is not None
            heads.setdefault(sent if is_free else sent.message.name, sent)
        choice = list(heads.values())
        return choice and [choice[pick % len(choice)]]

    def _mid_of(self, sent: Sent) -> Optional[bytes]:
        return None if self.ids == "ignores" else sent.message.mid

    def _expected(self, sent: Sent) -> Optional[PendingRequest]:
        """Return the request that the reply to *sent* must be given to; None: perhaps to none."""
        if sent.ended_at is not None:
            return None
        is_sure = sent.message.mid is not None or self.ids in ("none", "in order") or self.echoed
        return sent.request if is_sure and self.ids != "ignores" else None

    def _judge(
        self, sent: Sent, owner: Optional[PendingRequest], expected: Optional[PendingRequest]
    ) -> None:
        self.both.check()
        if owner is None:
            assert expected is None or self.has_lost, f"{sent} was given nothing"
        elif owner is not sent.request:
            self._judge_wrong(sent, next(s for s in self.sent if s.request is owner))

    def _judge_wrong(self, sent: Sent, given_to: Sent) -> None:
        raise AssertionError(f"what was for {sent} was given to {given_to}")


class LossyGame(Game):
    """Some replies are lost for good, before or after the request has ended."""

    has_lost = True

    def _judge_wrong(self, sent: Sent, given_to: Sent) -> None:
        """Only one that was sent before the end of the other may be given its reply."""
        self.wrong += 1
        assert given_to.message.mid is None
        assert given_to.number < sent.number
        assert given_to.ended_at is None, "the other was sent after its end"


@pytest.mark.parametrize("ids", ["none", "in order", "echoes", "ignores"])
@given(steps=GAMES)
def test_nobody_is_ever_given_what_is_for_another_one(ids: str, steps: list[Any]) -> None:
    game = Game(ids)
    for step in steps:
        game.play(*step)
    while game.unanswered:
        game.play("reply", 0)
    assert not game.both.real._by_name, "when all was answered, nothing is uncertain any more"
    event(f"{len(steps) // 20 * 20} steps and more")


@given(steps=GAMES, lost=st.sets(st.integers(0, 79), max_size=10))
def test_when_replies_are_lost_only_a_later_one_in_flight_can_be_mistaken(
    steps: list[Any], lost: set[int]
) -> None:
    game = LossyGame("none")
    for number, step in enumerate(steps):
        game.play(*step)
        if number in lost:
            game.lose(number)
    event("with wrong replies" if game.wrong else "without")


@given(
    fates=st.lists(st.sampled_from(["quick", "late", "later", "lost"]), max_size=40),
    ways=st.lists(st.sampled_from(["time out", "cancel", "unclaimed"]), min_size=1, max_size=5),
)
def test_one_by_one_nobody_is_given_a_wrong_reply_whatever_is_lost(
    fates: list[str], ways: list[str]
) -> None:
    game = LossyGame("none")
    late = []
    for number, fate in enumerate(fates):
        way = ways[number % len(ways)]
        if way == "unclaimed":
            game.unclaimed(0)
        else:
            game.send(0)
        if fate == "lost":
            game.unanswered.pop()
        elif fate == "quick":
            while game.unanswered:
                game.play("inform", 0)
                game.play("reply", 0)
        elif fate == "late" and late:
            game.play("reply", 0)
        late.append(number)
        if way != "unclaimed":
            game.play(way, 0)
    assert not game.wrong


@given(lost=st.integers(1, 3), late=st.integers(0, 5), informs=st.booleans())
def test_after_a_loss_three_requests_time_out_and_then_the_queue_is_behind(
    lost: int, late: int, informs: bool
) -> None:
    game = LossyGame("none")
    for number in range(lost + late):
        game.send(0)
        game.time_out(0)
        if number < lost:
            game.lose(0)
    is_behind = []
    for _ in range(5):
        game.send(0)
        while game.unanswered:
            if informs:
                game.play("inform", 0)
            game.play("reply", 0)
        game.play("time out", 0)
        is_behind.append(game.both.real.is_behind(game.sent[-1].request))
    assert is_behind == [False, False, True, True, True]
    assert not game.wrong
