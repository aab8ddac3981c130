"""Which request a reply or an inform belongs to: the rules, one by one and in random play."""

import functools
import logging
import random
import sys

import pytest

from katcp._state import requests as pending
from katcp._state.requests import MAX_ABANDONED_MIDS, Fate, PendingRequest, PendingRequests
from katcp._wire.message import MAX_MID, Message

LOGGER = logging.getLogger("tests.pending")


@pytest.fixture
def requests():
    return PendingRequests(LOGGER)


def make(name, mid=None, deadline=None, on_reply=None, on_inform=None):
    """Return a request of *name* that is not pending yet."""
    return PendingRequest(Message.request(name, mid=mid), on_reply, on_inform, 0.0, deadline)


def sent(requests, name, mid=None, deadline=None):
    """Return a request of *name* that is pending."""
    request = make(name, mid, deadline)
    requests.add(request)
    return request


def reply(name, mid=None):
    return Message.reply(name, "ok", mid=mid)


def inform(name, mid=None):
    return Message.inform(name, mid=mid)


def tables(requests):
    """Return the sizes of all that is kept of requests."""
    return {
        "pending": len(requests._pending),
        "by_name": len(requests._by_name),
        "queued": sum(len(queue.requests) for queue in requests._by_name.values()),
        "abandoned_mids": len(requests._abandoned_mids),
    }


NOTHING = dict.fromkeys(["pending", "by_name", "queued", "abandoned_mids"], 0)


# A request.


def test_a_request_keeps_what_is_needed_to_end_it():
    request = PendingRequest(Message.request("foo", "x", mid=7), print, repr, 1.5, 2.5)
    assert (request.name, request.mid, request.number) == ("foo", b"7", 7)
    assert (request.started, request.deadline, request.fate) == (1.5, 2.5, Fate.PENDING)
    assert (request.on_reply, request.on_inform) == (print, repr)
    assert make("foo").mid is None
    assert make("foo").number is None


def test_the_callbacks_of_a_request_are_given_away_once():
    request = make("foo", on_reply=print, on_inform=repr)
    request.more = ("user data",)
    assert request.take_callback() is print
    assert (request.on_inform, request.more) == (None, ())
    assert request.take_callback() is None


# With ids.


def test_a_reply_with_an_id_ends_the_request_with_that_id(requests):
    one, two = sent(requests, "foo", 1), sent(requests, "foo", 2)
    assert len(requests) == 2
    assert requests.match_reply(reply("foo", 2)) is two
    assert (two.fate, one.fate) == (Fate.ENDED, Fate.PENDING)
    assert requests.match_reply(reply("foo", 2)) is None
    assert requests.match_reply(reply("foo", 1)) is one
    assert tables(requests) == NOTHING


def test_ids_are_compared_as_numbers(requests):
    request = sent(requests, "foo", "7")
    assert request.mid == b"7"
    assert requests.match_inform(inform("foo", 7)) is request
    changed = reply("foo", 8)
    changed.mid = 7
    assert requests.match_reply(changed) is request


def test_informs_with_an_id_belong_to_the_request_with_that_id(requests):
    one, two = sent(requests, "foo", 1), sent(requests, "foo", 2)
    assert requests.match_inform(inform("foo", 2)) is two
    assert requests.match_inform(inform("foo", 1)) is one
    assert requests.match_inform(inform("foo", 3)) is None
    assert one.fate is two.fate is Fate.PENDING


@pytest.mark.parametrize("mid", [None, 9], ids=["no-id", "other-id"])
def test_messages_without_its_id_do_not_touch_a_request_with_one(requests, mid):
    request = sent(requests, "foo", 1, deadline=5.0)
    assert requests.match_reply(reply("foo", mid)) is None
    assert requests.match_inform(inform("foo", mid)) is None
    assert request.fate is Fate.PENDING
    assert requests.take_expired(5.0) == [request]


def test_messages_with_an_id_do_not_touch_a_request_without_one(requests):
    request = sent(requests, "foo")
    assert requests.match_reply(reply("foo", 1)) is None
    assert requests.match_inform(inform("foo", 1)) is None
    assert requests.match_reply(reply("foo")) is request


def test_another_name_is_not_accepted_and_the_request_stays_pending(requests, logs):
    request = sent(requests, "foo", 5)
    assert requests.match_reply(reply("bar", 5)) is None
    logs.expect("Ignoring the id of !bar[5] ok: the pending request with this id is ?foo.")
    assert requests.match_inform(inform("bar", 5)) is None
    logs.expect("Ignoring the id of #bar[5]: the pending request with this id is ?foo.")
    assert request.fate is Fate.PENDING
    assert requests.match_reply(reply("foo", 5)) is request


def test_the_report_of_another_name_is_short(requests, logs):
    sent(requests, "foo", 5)
    requests.match_reply(Message.reply("bar", "x" * 10**6, mid=5))
    assert len(logs.expect("Ignoring the id of !bar[5] xxx")) < 1200


def test_a_request_with_an_id_that_timed_out_is_forgotten_but_its_id_is_not(requests):
    request = sent(requests, "foo", 1, deadline=1.0)
    assert not requests.may_be_answered_late(1)
    assert requests.take_expired(1.0) == [request]
    assert request.fate is Fate.ABANDONED
    assert not requests.is_mid_pending(1)
    assert requests.may_be_answered_late(1)
    assert requests.match_inform(inform("foo", 1)) is None
    assert requests.may_be_answered_late(1)
    assert requests.match_reply(reply("foo", 1)) is None
    assert not requests.may_be_answered_late(1)
    assert tables(requests) == NOTHING


# Ids.


def test_ids_count_up_from_1(requests):
    assert [requests.next_mid() for _ in range(3)] == [1, 2, 3]


def test_after_the_last_id_comes_1_again(requests):
    requests._last_mid = MAX_MID - 1
    assert [requests.next_mid() for _ in range(3)] == [2147483647, 1, 2]


def test_pending_ids_are_skipped(requests):
    for mid in (1, 2, 4, MAX_MID):
        sent(requests, "foo", mid)
    assert [requests.next_mid() for _ in range(2)] == [3, 5]
    requests._last_mid = MAX_MID - 1
    assert requests.next_mid() == 3


def test_ids_that_may_be_answered_late_are_skipped(requests):
    requests.abandon(sent(requests, "foo", 1))
    assert requests.next_mid() == 2
    requests._last_mid = 0
    requests.match_reply(reply("foo", 1))
    assert requests.next_mid() == 1


def test_an_id_that_a_program_chose_is_known_while_it_is_pending(requests):
    request = sent(requests, "foo", 77)
    assert requests.is_mid_pending(77)
    assert not requests.is_mid_pending(78)
    requests.end(request)
    assert not requests.is_mid_pending(77)


def test_only_the_latest_ids_of_unanswered_requests_are_remembered(requests):
    for mid in range(1, MAX_ABANDONED_MIDS + 11):
        requests.abandon(sent(requests, "foo", mid))
    assert tables(requests) == {**NOTHING, "abandoned_mids": MAX_ABANDONED_MIDS}
    assert not requests.may_be_answered_late(10)
    assert requests.may_be_answered_late(11)
    assert requests.may_be_answered_late(MAX_ABANDONED_MIDS + 10)


# Without ids.


def test_without_ids_the_first_of_a_name_is_answered_first(requests):
    one, other, two = (sent(requests, name) for name in ("foo", "bar", "foo"))
    assert requests.match_inform(inform("foo")) is one
    assert requests.match_reply(reply("foo")) is one
    assert requests.match_inform(inform("foo")) is two
    assert requests.match_reply(reply("bar")) is other
    assert requests.match_reply(reply("foo")) is two
    assert requests.match_reply(reply("foo")) is None
    assert requests.match_inform(inform("foo")) is None
    assert tables(requests) == NOTHING


def test_a_late_reply_never_answers_a_later_request(requests):
    late = sent(requests, "foo")
    requests.abandon(late)
    assert late.fate is Fate.ABANDONED
    request = sent(requests, "foo")
    assert requests.match_inform(inform("foo")) is None
    assert requests.match_reply(reply("foo")) is None
    assert requests.match_inform(inform("foo")) is request
    assert requests.match_reply(reply("foo")) is request
    assert tables(requests) == NOTHING


def test_a_late_reply_is_its_own_even_if_nothing_follows(requests):
    requests.abandon(sent(requests, "foo"))
    assert tables(requests) == {**NOTHING, "by_name": 1}
    assert requests.match_reply(reply("foo")) is None
    assert tables(requests) == NOTHING
    request = sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is request


def test_requests_that_are_abandoned_behind_a_pending_one_keep_their_place(requests):
    first, second, third = (sent(requests, "foo") for _ in range(3))
    requests.abandon(second)
    assert requests.match_reply(reply("foo")) is first
    assert requests.match_inform(inform("foo")) is None
    assert requests.match_reply(reply("foo")) is None
    assert requests.match_reply(reply("foo")) is third


def test_a_request_that_ended_in_the_queue_takes_no_reply(requests):
    first, second, third = (sent(requests, "foo") for _ in range(3))
    requests.end(second)
    assert requests.match_reply(reply("foo")) is first
    assert requests.match_reply(reply("foo")) is third


def test_names_do_not_touch_each_other(requests):
    requests.abandon(sent(requests, "foo"))
    request = sent(requests, "bar")
    assert requests.match_reply(reply("foo-bar")) is None
    assert requests.match_reply(reply("bar")) is request


def test_one_lost_reply_costs_one_more_timeout_and_no_wrong_answer(requests):
    lost = sent(requests, "foo")
    requests.abandon(lost)
    # The reply of the second is taken for the lost one.
    second = sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is None
    requests.abandon(second)
    assert second.fate is Fate.ENDED
    assert tables(requests) == NOTHING
    third = sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is third


def test_two_late_replies_in_a_row_look_like_a_lost_one(requests):
    """The documented limit: the messages are the same, in the same order."""
    requests.abandon(sent(requests, "foo"))
    second = sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is None
    requests.abandon(second)
    third = sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is third  # it was for the second


def test_a_reply_taken_before_a_request_was_sent_does_not_heal(requests):
    requests.abandon(sent(requests, "foo"))
    requests.abandon(sent(requests, "foo"))
    assert requests.match_reply(reply("foo")) is None
    request = sent(requests, "foo")
    requests.abandon(request)
    assert request.fate is Fate.ABANDONED
    assert [requests.match_reply(reply("foo")) for _ in range(2)] == [None, None]
    request = sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is request


def test_a_reply_to_what_nobody_waits_for_answers_no_request(requests):
    requests.add_unclaimed(Message.request("foo"))
    request = sent(requests, "foo")
    requests.add_unclaimed(Message.request("foo"))
    assert len(requests) == 1
    assert requests.match_inform(inform("foo")) is None
    assert requests.match_reply(reply("foo")) is None
    assert requests.match_reply(reply("foo")) is request
    assert requests.match_reply(reply("foo")) is None
    assert tables(requests) == NOTHING


def test_the_id_of_what_nobody_waits_for_is_not_given_out_before_its_reply(requests):
    requests.add_unclaimed(Message.request("foo", mid=1))
    assert requests.may_be_answered_late(1)
    assert requests.next_mid() == 2
    assert requests.match_reply(reply("foo", 1)) is None
    assert tables(requests) == NOTHING


def test_unanswered_requests_cost_no_memory_each(requests):
    for _ in range(5000):
        requests.add_unclaimed(Message.request("foo"))
        requests.abandon(sent(requests, "foo"))
    assert tables(requests) == {**NOTHING, "by_name": 1}


# The end of a request.


@pytest.mark.parametrize("mid", [None, 5])
@pytest.mark.parametrize("end_again", [PendingRequests.end, PendingRequests.abandon])
@pytest.mark.parametrize(
    "end",
    [
        lambda requests, request: requests.match_reply(reply("foo", request.mid)),
        lambda requests, request: requests.end(request),
        lambda requests, request: requests.abandon(request),
        lambda requests, request: requests.take_all(),
        lambda requests, request: requests.take_expired(1.0),
    ],
    ids=["reply", "end", "abandon", "take_all", "take_expired"],
)
def test_a_request_ends_once(requests, end, end_again, mid):
    request = sent(requests, "foo", mid, deadline=1.0)
    end(requests, request)
    fate, before = request.fate, tables(requests)
    end_again(requests, request)
    assert request.fate is fate is not Fate.PENDING
    assert tables(requests) == before
    assert len(requests) == 0
    assert requests.take_expired(1.0) == requests.take_all() == []


@pytest.mark.parametrize("mid", [None, 5])
def test_ending_a_request_does_not_touch_a_later_one_of_the_same_kind(requests, mid):
    old = sent(requests, "foo", mid)
    requests.end(old)
    new = sent(requests, "foo", mid)
    requests.end(old)
    requests.abandon(old)
    assert requests.match_reply(reply("foo", mid)) is new


def test_all_are_taken_in_the_order_in_which_they_were_sent(requests):
    given = [sent(requests, f"name{i % 3}", i if i % 2 else None, 100.0 - i) for i in range(1, 20)]
    requests.end(given.pop(7))
    requests.abandon(given.pop(3))
    assert requests.take_all() == given
    assert {request.fate for request in given} == {Fate.ENDED}
    assert len(requests) == 0
    assert requests.take_all() == []


def test_when_all_are_taken_everything_of_them_is_forgotten(requests):
    for name in ("foo", "bar"):
        requests.abandon(sent(requests, name))
        sent(requests, name, deadline=1.0)
        requests.add_unclaimed(Message.request(name))
    requests.abandon(sent(requests, "foo", 1))
    sent(requests, "foo", 2, deadline=3.0)
    requests.take_all()
    assert tables(requests) == NOTHING
    assert requests.next_deadline() is None
    request = sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is request
    assert requests.match_reply(reply("foo", 2)) is None


def test_ids_go_on_after_all_are_taken(requests):
    sent(requests, "foo", requests.next_mid())
    requests.take_all()
    assert requests.next_mid() == 2


# Deadlines.


def test_the_earliest_deadline_is_the_next(requests):
    assert requests.next_deadline() is None
    sent(requests, "foo", 1)
    assert requests.next_deadline() is None
    sent(requests, "foo", 2, deadline=5.0)
    early = sent(requests, "foo", deadline=3.0)
    sent(requests, "foo", 4, deadline=4.0)
    assert requests.next_deadline() == 3.0
    requests.end(early)
    assert requests.next_deadline() == 4.0
    requests.match_reply(reply("foo", 4))
    assert requests.next_deadline() == 5.0


def test_requests_expire_in_the_order_of_their_deadlines(requests):
    three, one, two, one_more = (
        sent(requests, "foo", mid, deadline)
        for mid, deadline in ((1, 3.0), (2, 1.0), (None, 2.0), (4, 1.0))
    )
    endless = sent(requests, "foo", 5)
    assert requests.take_expired(0.9) == []
    assert requests.take_expired(1.0) == [one, one_more]
    assert requests.take_expired(1.0) == []
    assert requests.take_expired(9.0) == [two, three]
    assert len(requests) == 1
    assert endless.fate is Fate.PENDING


def test_finished_requests_do_not_expire(requests):
    answered, ended, cancelled, expired = (sent(requests, "foo", mid, 1.0) for mid in range(1, 5))
    requests.match_reply(reply("foo", 1))
    requests.end(ended)
    requests.abandon(cancelled)
    assert requests.take_expired(1.0) == [expired]
    assert answered.fate is Fate.ENDED
    assert requests.next_deadline() is None


@pytest.mark.parametrize("finish", ["abandon", "end", "add_unclaimed"])
def test_finished_requests_behind_one_that_is_never_answered_are_swept(requests, finish):
    first = sent(requests, "foo")
    for _ in range(3 * pending.SLACK):
        if finish == "add_unclaimed":
            requests.add_unclaimed(Message.request("foo"))
        else:
            getattr(requests, finish)(sent(requests, "foo"))
        assert tables(requests)["queued"] <= 2 * pending.SLACK + 3
    last = sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is first
    for _ in range(0 if finish == "end" else 3 * pending.SLACK):
        assert requests.match_inform(inform("foo")) is None
        assert requests.match_reply(reply("foo")) is None
    assert requests.match_reply(reply("foo")) is last
    assert tables(requests) == NOTHING


# Nothing costs more when more requests are pending.


def steps_of(call):
    """Return how many lines, calls and returns of Python *call* takes."""
    steps = 0

    def count(frame, event, arg):
        nonlocal steps
        steps += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        call()
    finally:
        sys.settrace(before)
    return steps


def filled(size, name_of, with_ids):
    requests = PendingRequests(LOGGER)
    given = [
        sent(requests, name_of(i), requests.next_mid() if with_ids else None, deadline=1000.0 + i)
        for i in range(size)
    ]
    return requests, given


@pytest.mark.parametrize("with_ids", [True, False], ids=["ids", "no-ids"])
@pytest.mark.parametrize(
    "name_of", [lambda i: "foo", lambda i: f"name{i}"], ids=["one-name", "many-names"]
)
def test_each_step_costs_the_same_with_few_and_with_many_pending(name_of, with_ids):
    def costs(size):
        requests, given = filled(size, name_of, with_ids)
        first, middle, last = given[0], given[size // 2], given[-1]
        matched = [first, last if with_ids else given[1]]
        # What goes in is made before the steps are counted.
        new = make("new", requests.next_mid() if with_ids else None, 5.0)
        first_inform = inform(first.name, first.mid)
        replies = [reply(request.name, request.mid) for request in matched]
        replies += [reply("unknown"), reply("unknown", MAX_MID)]
        calls = [
            requests.next_mid,
            lambda: requests.add(new),
            lambda: requests.match_inform(first_inform),
            *(functools.partial(requests.match_reply, message) for message in replies),
            lambda: requests.end(middle),
            lambda: requests.abandon(given[size // 2 + 1]),
            lambda: len(requests),
        ]
        return [steps_of(call) for call in calls]

    few = costs(10)
    assert costs(5000) == few
    assert sum(few) > 100


@pytest.mark.parametrize("with_ids", [True, False], ids=["ids", "no-ids"])
@pytest.mark.parametrize("order", ["in order", "in reverse", "shuffled", "all expire"])
def test_n_requests_of_one_name_cost_n_times_one(order, with_ids):
    def cost(size):
        requests, given = filled(size, lambda i: "foo", with_ids)

        def finish():
            if order == "all expire":
                assert requests.take_expired(10**6) == given
            for request in replies:
                requests.match_reply(request)
            assert requests.next_deadline() is None

        if order == "in reverse":
            given.reverse()
        elif order == "shuffled":
            random.Random(6).shuffle(given)
        replies = [reply(request.name, request.mid) for request in given]
        steps = steps_of(finish)
        assert tables(requests) == NOTHING
        return steps / size

    assert cost(2000) < 1.2 * cost(200)


# Random play, compared with a model that is too simple to be wrong.


class Model:
    """A list of requests in the order in which they were sent, searched from its beginning."""

    def __init__(self):
        self.entries = []
        self.late_mids = []
        self.last_mid = 0

    def find(self, name, mid):
        for entry in self.entries:
            if mid is not None and entry["mid"] == mid:
                return entry if entry["name"] == name else None
            if mid is None and entry["mid"] is None and entry["name"] == name:
                return entry
        return None

    def pending(self):
        return [entry for entry in self.entries if entry["request"] is not None]

    def next_mid(self):
        used = {entry["mid"] for entry in self.entries} | set(self.late_mids)
        while True:
            self.last_mid = 1 if self.last_mid == MAX_MID else self.last_mid + 1
            if self.last_mid not in used:
                return self.last_mid

    def add(self, request, name, mid, deadline):
        self.entries.append(
            {"request": request, "name": name, "mid": mid, "deadline": deadline, "healed": False}
        )

    def match_inform(self, name, mid):
        entry = self.find(name, mid)
        return entry and entry["request"]

    def match_reply(self, name, mid):
        entry = self.find(name, mid)
        if entry is None:
            if mid in self.late_mids:
                self.late_mids.remove(mid)
            return None
        self.entries.remove(entry)
        if entry["request"] is None:
            for other in self.entries:
                other["healed"] |= other["name"] == name and other["mid"] is None
        return entry["request"]

    def end(self, request):
        self.entries = [entry for entry in self.entries if entry["request"] is not request]

    def abandon(self, request):
        entry = next(entry for entry in self.entries if entry["request"] is request)
        if entry["mid"] is not None:
            self.late_mids = [*self.late_mids, entry["mid"]][-pending.MAX_ABANDONED_MIDS :]
        if entry["mid"] is not None or entry["healed"]:
            self.entries.remove(entry)
        entry["request"] = None

    def take_expired(self, now):
        timed = [entry for entry in self.pending() if entry["deadline"] is not None]
        expired = [entry for entry in timed if entry["deadline"] <= now]
        expired = [entry["request"] for entry in sorted(expired, key=lambda e: e["deadline"])]
        for request in expired:
            self.abandon(request)
        return expired

    def next_deadline(self):
        return min(
            (e["deadline"] for e in self.pending() if e["deadline"] is not None), default=None
        )

    def take_all(self):
        requests = [entry["request"] for entry in self.pending()]
        self.entries, self.late_mids = [], []
        return requests


class Play:
    """Does the same to the real thing and to the model, and compares what they say."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.now = 0.0
        self.real = PendingRequests(LOGGER)
        self.model = Model()

    def same(self, method, *args):
        real, model = getattr(self.real, method), getattr(self.model, method)
        found = real(*args)
        assert found == model(*args)
        return found

    def name(self):
        return self.rng.choice(["foo", "bar", "baz"])

    def send(self):
        name, mid, deadline = self.name(), None, None
        choice = self.rng.randrange(4)
        if choice < 2:
            mid = self.same("next_mid")
        elif choice == 2 and not self.rng.randrange(5):
            mid = self.rng.randrange(1, 30)
            if self.real.is_mid_pending(mid) or self.real.may_be_answered_late(mid):
                return
        if self.rng.randrange(5):
            deadline = self.now + self.rng.randrange(1, 8)
        request = sent(self.real, name, mid, deadline)
        self.model.add(request, name, mid, deadline)

    def send_unclaimed(self):
        name = self.name()
        self.real.add_unclaimed(Message.request(name))
        self.model.add(None, name, None, None)
        self.model.entries[-1]["healed"] = True

    def receive(self):
        names = [self.name()]
        mids = [None, self.rng.randrange(1, 30)]
        if self.model.entries:
            entry = self.rng.choice(self.model.entries)
            names += [entry["name"]] * 8
            mids += [entry["mid"]] * 8
        if self.model.late_mids:
            mids.append(self.rng.choice(self.model.late_mids))
        name, mid = self.rng.choice(names), self.rng.choice(mids)
        assert self.real.match_inform(inform(name, mid)) is self.model.match_inform(name, mid)
        if self.rng.randrange(3):
            assert self.real.match_reply(reply(name, mid)) is self.model.match_reply(name, mid)

    def finish(self):
        waiting = self.model.pending()
        if waiting:
            request = self.rng.choice(waiting)["request"]
            method = self.rng.choice(["end", "abandon"])
            self.same(method, request)

    def wait(self):
        self.now += self.rng.randrange(3)
        self.same("take_expired", self.now)

    def lose_connection(self):
        if not self.rng.randrange(10):
            self.same("take_all")

    def wrap(self):
        if not self.rng.randrange(10):
            self.real._last_mid = self.model.last_mid = MAX_MID - self.rng.randrange(3)

    def check(self):
        waiting = self.model.pending()
        assert len(self.real) == len(waiting)
        assert list(self.real._pending.values()) == [entry["request"] for entry in waiting]
        assert all(entry["request"].fate is Fate.PENDING for entry in waiting)
        assert list(self.real._pending) == [e["mid"] or e["request"] for e in waiting]
        assert list(self.real._abandoned_mids) == self.model.late_mids
        assert set(self.real._by_name) == {
            entry["name"] for entry in self.model.entries if entry["mid"] is None
        }
        self.same("next_deadline")

    def step(self):
        steps = [self.send] * 6 + [self.receive] * 6 + [self.finish, self.wait]
        steps += [self.send_unclaimed, self.lose_connection, self.wrap]
        self.rng.choice(steps)()
        self.check()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("slack", [0, 2, pending.SLACK])
def test_random_play_agrees_with_the_model(seed, slack, monkeypatch, logs):
    monkeypatch.setattr(pending, "MAX_ABANDONED_MIDS", 5)
    monkeypatch.setattr(pending, "SLACK", slack)
    play = Play(seed)
    for _ in range(700):
        play.step()
    reports = logs.matching("Ignoring the id of")
    for _ in reports:
        logs.expect("Ignoring the id of")
    assert reports
    play.same("take_all")
    assert tables(play.real) == NOTHING
