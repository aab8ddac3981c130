"""Which request a reply or an inform belongs to: the rules, one by one and in random play."""

import functools
import gc
import logging
import random
import sys

import pytest

from katcp._state import requests as pending
from katcp._state.requests import (
    MAX_ABANDONED_MIDS,
    SIGNS_OF_LOSS,
    PendingRequest,
    PendingRequests,
)
from katcp._wire.message import MAX_MID, Message
from tests.support.matching import Both

LOGGER = logging.getLogger("tests.pending")


@pytest.fixture
def requests():
    return PendingRequests(LOGGER)


@pytest.fixture
def echoing(requests):
    """Requests of a connection on which a reply has come with its id."""
    request = sent(requests, "first", MAX_MID)
    assert requests.match_reply(reply("first", MAX_MID)) is request
    return requests


def sent(requests, name, mid=None, deadline=None):
    """Return a request of *name* that is pending."""
    request = PendingRequest()
    requests.add(request, Message.request(name, mid=mid), 0.0, deadline)
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
        "abandoned_mids": len(requests._abandoned_mids),
    }


NOTHING = dict.fromkeys(["pending", "by_name", "abandoned_mids"], 0)


def is_pending(requests, request):
    return request in requests._pending.values()


def time_out(requests, *given):
    """Let the time of these requests be over, and of no other ones."""
    for request in given:
        request.deadline = 0.0
    assert requests.take_expired(0.0) == list(given)


# A request.


def test_a_request_keeps_what_is_needed_to_end_it(requests):
    request = PendingRequest()
    assert request.key is None
    requests.add(request, Message.request("foo", "x", mid=7), 1.5, 2.5)
    assert (request.name, request.mid, request.key) == ("foo", b"7", 7)
    assert (request.started, request.deadline) == (1.5, 2.5)


# With ids.


def test_a_reply_with_an_id_ends_the_request_with_that_id(requests):
    one, two = sent(requests, "foo", 1), sent(requests, "foo", 2)
    assert len(requests) == 2
    assert requests.match_reply(reply("foo", 2)) is two
    assert not is_pending(requests, two)
    assert is_pending(requests, one)
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
    assert len(requests) == 2


@pytest.mark.parametrize("mid", [None, 9], ids=["no-id", "other-id"])
def test_messages_without_its_id_do_not_touch_a_request_with_one(requests, mid):
    request = sent(requests, "foo", 1, deadline=5.0)
    assert requests.match_reply(reply("foo", mid)) is None
    assert requests.match_inform(inform("foo", mid)) is None
    assert is_pending(requests, request)
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
    assert is_pending(requests, request)
    assert requests.match_reply(reply("foo", 5)) is request


def test_the_report_of_another_name_is_short(requests, logs):
    sent(requests, "foo", 5)
    requests.match_reply(Message.reply("bar", "x" * 10**6, mid=5))
    assert len(logs.expect("Ignoring the id of !bar[5] xxx")) < 1200


def test_a_request_with_an_id_that_timed_out_is_forgotten_but_its_id_is_not(requests):
    request = sent(requests, "foo", 1, deadline=1.0)
    assert not requests.may_be_answered_late(1)
    assert requests.take_expired(1.0) == [request]
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
    requests.take_back(request)
    assert not requests.is_mid_pending(77)


def test_only_the_latest_ids_of_unanswered_requests_are_remembered(echoing):
    requests = echoing
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
    requests.abandon(sent(requests, "foo"))
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


def test_names_do_not_touch_each_other(requests):
    requests.abandon(sent(requests, "foo"))
    request = sent(requests, "bar")
    assert requests.match_reply(reply("foo-bar")) is None
    assert requests.match_reply(reply("bar")) is request


@pytest.mark.parametrize("count", [2, 3, 40])
def test_any_number_of_late_replies_in_a_row_answers_no_later_request(requests, count):
    for _ in range(count):
        time_out(requests, sent(requests, "foo"))
    request = sent(requests, "foo")
    for _ in range(count):
        assert requests.match_inform(inform("foo")) is None
        assert requests.match_reply(reply("foo")) is None
    assert requests.match_inform(inform("foo")) is request
    assert requests.match_reply(reply("foo")) is request
    assert tables(requests) == NOTHING


def test_a_device_that_is_always_slower_than_the_timeout_answers_nothing(requests):
    late = sent(requests, "foo")
    time_out(requests, late)
    for _ in range(40):
        request = sent(requests, "foo")
        assert requests.match_reply(reply("foo")) is None  # it was for the one before
        time_out(requests, request)
    assert requests.match_reply(reply("foo")) is None
    assert tables(requests) == NOTHING


def test_after_a_lost_reply_requests_time_out_rather_than_get_wrong_answers(requests):
    time_out(requests, sent(requests, "foo"))
    for _ in range(40):
        request = sent(requests, "foo")
        assert requests.match_inform(inform("foo")) is None
        assert requests.match_reply(reply("foo")) is None
        time_out(requests, request)
    requests.take_all()
    request = sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is request


def test_a_request_is_given_no_reply_of_one_that_ended_before_it_was_sent(requests):
    """Also not if it was lost: a reply is only ever taken for that of an earlier request."""
    first, second = sent(requests, "foo"), sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is first  # the second's: nobody can tell
    time_out(requests, second)
    third = sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is None  # the third's
    assert is_pending(requests, third)


# A queue that is behind.


def lose_one(requests):
    time_out(requests, sent(requests, "foo"))


def show_a_sign(requests):
    """Let a request time out though a reply comes; return it."""
    request = sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is None
    time_out(requests, request)
    return request


def test_a_queue_is_behind_after_three_timeouts_during_which_replies_came(requests):
    lose_one(requests)
    assert SIGNS_OF_LOSS == 3
    assert [requests.is_behind(show_a_sign(requests)) for _ in range(5)] == [
        *[False, False],
        *[True, True, True],
    ]
    other = sent(requests, "bar")
    time_out(requests, other)
    assert not requests.is_behind(other)


def test_a_timeout_without_any_reply_says_nothing(requests):
    lose_one(requests)
    for is_behind in (False, False, True):
        silent = sent(requests, "foo")
        time_out(requests, silent)
        assert not requests.is_behind(silent)
        # The reply of the silent one, late, before the next is sent.
        assert requests.match_reply(reply("foo")) is None
        assert requests.is_behind(show_a_sign(requests)) == is_behind


def test_a_reply_that_came_before_a_request_was_sent_is_no_sign(requests):
    lose_one(requests)
    for _ in range(2 * SIGNS_OF_LOSS):
        lose_one(requests)
        assert requests.match_reply(reply("foo")) is None
        request = sent(requests, "foo")
        time_out(requests, request)
        assert not requests.is_behind(request)


def test_a_reply_that_another_request_had_is_no_sign(requests):
    for _ in range(2 * SIGNS_OF_LOSS):
        answered, request = sent(requests, "foo"), sent(requests, "foo")
        assert requests.match_reply(reply("foo")) is answered
        time_out(requests, request)
        assert not requests.is_behind(request)
        assert requests.match_reply(reply("foo")) is None


def test_a_request_that_was_cancelled_is_no_sign(requests):
    lose_one(requests)
    for _ in range(2 * SIGNS_OF_LOSS):
        request = sent(requests, "foo")
        assert requests.match_reply(reply("foo")) is None
        requests.abandon(request)
        assert not requests.is_behind(request)


def test_when_all_had_their_replies_no_reply_was_lost_and_the_signs_are_forgotten(requests):
    lose_one(requests)
    for _ in range(3):
        for _ in range(SIGNS_OF_LOSS - 1):
            assert not requests.is_behind(show_a_sign(requests))
        # So it was only late.
        request = sent(requests, "foo")
        assert requests.match_reply(reply("foo")) is None
        assert requests.match_reply(reply("foo")) is request
        assert tables(requests) == NOTHING
        lose_one(requests)


def test_an_answer_to_one_of_several_in_flight_proves_nothing(requests):
    """It may be that of the other one."""
    lose_one(requests)
    for is_behind in (False, False, True):
        one, two = sent(requests, "foo"), sent(requests, "foo")
        assert requests.match_reply(reply("foo")) is None
        assert requests.match_reply(reply("foo")) is one
        time_out(requests, two)
        assert requests.is_behind(two) == is_behind


def test_signs_are_forgotten_with_the_connection(requests):
    lose_one(requests)
    for _ in range(SIGNS_OF_LOSS):
        show_a_sign(requests)
    requests.take_all()
    lose_one(requests)
    assert not requests.is_behind(show_a_sign(requests))


# What a program sends by itself.


def test_a_reply_to_what_nobody_waits_for_answers_no_request(requests):
    requests.note_sent(Message.request("foo"))
    request = sent(requests, "foo")
    requests.note_sent(Message.request("foo"))
    assert len(requests) == 1
    assert requests.match_inform(inform("foo")) is None
    assert requests.match_reply(reply("foo")) is None
    assert requests.match_reply(reply("foo")) is request
    assert requests.match_reply(reply("foo")) is None
    assert tables(requests) == NOTHING


def test_the_id_of_what_nobody_waits_for_is_not_given_out_before_its_reply(requests):
    requests.note_sent(Message.request("foo", mid=1))
    assert requests.may_be_answered_late(1)
    assert requests.next_mid() == 2
    assert requests.match_reply(reply("foo", 1)) is None
    assert tables(requests) == NOTHING


@pytest.mark.parametrize("mid", [None, 5])
def test_what_is_left_to_the_program_has_one_place_when_it_is_sent(requests, mid):
    request = sent(requests, "foo", mid)
    requests.leave_to_program(request)
    requests.note_sent(Message.request("foo", mid=mid))
    assert not requests.may_be_answered_late(5)
    assert requests.match_reply(reply("foo", mid)) is request
    assert tables(requests) == NOTHING


def test_what_is_left_to_the_program_may_be_sent_later_or_twice(requests):
    one, two = sent(requests, "foo"), sent(requests, "foo")
    for request in (one, two):
        requests.leave_to_program(request)
    for _ in range(3):
        requests.note_sent(Message.request("foo"))
    three = sent(requests, "foo")
    replies = [requests.match_reply(reply("foo")) for _ in range(4)]
    assert replies == [one, two, None, three]


@pytest.mark.parametrize("mid", [None, 5])
def test_what_could_not_be_sent_has_no_place(requests, mid):
    first = sent(requests, "foo", mid and 4)
    failed = sent(requests, "foo", mid)
    requests.take_back(failed)
    second = sent(requests, "foo", mid and 6)
    assert requests.match_reply(reply("foo", mid and 4)) is first
    assert requests.match_reply(reply("foo", mid and 6)) is second
    assert tables(requests) == NOTHING
    requests.take_back(sent(requests, "foo", mid))
    assert tables(requests) == NOTHING


@pytest.mark.parametrize("was_sent", [True, False])
def test_whether_the_program_sent_what_it_says_it_could_not_send_is_noted(requests, was_sent):
    failed = sent(requests, "foo")
    requests.leave_to_program(failed)
    if was_sent:
        requests.note_sent(Message.request("foo"))
    requests.take_back(failed, left_to_program=True)
    assert len(requests) == 0
    request = sent(requests, "foo")
    if was_sent:
        assert requests.match_reply(reply("foo")) is None
    assert requests.match_reply(reply("foo")) is request
    assert tables(requests) == NOTHING


def test_what_the_program_could_not_send_is_not_sent_later(requests):
    first, failed = sent(requests, "foo"), sent(requests, "foo")
    requests.leave_to_program(failed)
    requests.take_back(failed, left_to_program=True)
    requests.note_sent(Message.request("foo"))
    last = sent(requests, "foo")
    replies = [requests.match_reply(reply("foo")) for _ in range(3)]
    assert replies == [first, None, last]


def test_what_could_not_be_sent_leaves_no_doubt(requests):
    first = sent(requests, "foo")
    requests.take_back(sent(requests, "foo", 1))
    last = sent(requests, "foo")
    assert [requests.match_reply(reply("foo")) for _ in range(2)] == [first, last]


def test_what_could_not_be_sent_keeps_its_place_before_others(requests):
    """One place too many lets requests time out, one too few answers them wrongly."""
    first, failed, last = (sent(requests, "foo") for _ in range(3))
    requests.take_back(failed)
    replies = [requests.match_reply(reply("foo")) for _ in range(3)]
    assert replies == [first, None, last]


# A device that announces ids and ignores them, or has not shown yet that it does not.


def test_a_reply_without_id_to_a_request_with_one_answers_no_request_without(requests):
    with_id, request = sent(requests, "foo", 1), sent(requests, "foo")
    assert requests.match_inform(inform("foo")) is None
    assert requests.match_reply(reply("foo")) is None
    assert is_pending(requests, with_id)
    # To a device that repeats ids, but answers the second first, this is no reply of it.
    assert requests.match_reply(reply("foo")) is None
    time_out(requests, request)


def test_what_was_sent_before_the_first_id_is_matched_at_once(requests):
    request, with_id = sent(requests, "foo"), sent(requests, "foo", 1)
    assert requests.match_inform(inform("foo")) is request
    assert requests.match_reply(reply("foo")) is request
    assert requests.match_reply(reply("foo")) is None
    assert tables(requests) == {**NOTHING, "pending": 1}
    # All have been answered, though not all as they should be: nothing is uncertain any more.
    request = sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is request
    assert requests.match_reply(reply("foo", 1)) is with_id


@pytest.mark.parametrize("is_late", [False, True])
def test_the_first_reply_with_an_id_shows_that_requests_with_ids_have_no_place(requests, is_late):
    with_id, one, other = sent(requests, "foo", 1), sent(requests, "foo"), sent(requests, "bar", 2)
    two = sent(requests, "foo")
    if is_late:
        requests.abandon(other)
    assert requests.match_reply(reply("bar", 2)) is (None if is_late else other)
    assert requests.match_inform(inform("foo")) is one
    assert requests.match_reply(reply("foo")) is one
    requests.abandon(with_id)
    assert requests.match_reply(reply("foo")) is two
    assert tables(requests) == {**NOTHING, "abandoned_mids": 1}
    sent(requests, "foo", 3)
    request = sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is request


def test_a_reply_that_came_in_doubt_is_not_waited_for_any_more(requests):
    """The device repeats ids and answers others first: the reply went to nobody."""
    with_id, one, two = sent(requests, "foo", 1), sent(requests, "foo"), sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is None
    assert requests.match_reply(reply("foo", 1)) is with_id
    assert requests.match_reply(reply("foo")) is two
    assert requests._pending == {one: one}
    assert requests.take_all() == [one]


def test_what_ends_in_doubt_is_not_confused_with_what_comes_after_it(requests):
    """All places had replies, so that they are counted from 0 again."""
    with_id, doubtful = sent(requests, "foo", 1), sent(requests, "foo")
    for _ in range(2):
        assert requests.match_reply(reply("foo")) is None
    later = [sent(requests, "foo") for _ in range(3)]
    assert requests.match_reply(reply("foo", 1)) is with_id
    assert [requests.match_reply(reply("foo")) for _ in later] == later
    assert requests.take_all() == [doubtful]


def test_whether_a_device_repeats_ids_is_forgotten_with_the_connection(echoing):
    echoing.take_all()
    sent(echoing, "foo", 1)
    sent(echoing, "foo")
    assert echoing.match_reply(reply("foo")) is None


# Memory.


def test_unanswered_requests_cost_no_memory_each(requests):
    for _ in range(5000):
        requests.note_sent(Message.request("foo"))
        requests.abandon(sent(requests, "foo"))
        requests.abandon(sent(requests, "foo", requests.next_mid()))
    assert tables(requests) == {
        **NOTHING,
        "by_name": 1,
        "abandoned_mids": MAX_ABANDONED_MIDS,
    }


def test_nothing_is_kept_of_requests_behind_one_that_is_never_answered(requests):
    first = sent(requests, "foo")
    for _ in range(3000):
        requests.abandon(sent(requests, "foo"))
    assert sum(type(obj) is PendingRequest for obj in gc.get_objects()) < 10
    last = sent(requests, "foo")
    assert requests.match_reply(reply("foo")) is first
    for _ in range(3000):
        assert requests.match_inform(inform("foo")) is None
        assert requests.match_reply(reply("foo")) is None
    assert requests.match_reply(reply("foo")) is last
    assert tables(requests) == NOTHING


# A request that is held back.


def hold(requests, name, mid=None, deadline=None):
    """Return a request of *name* that is held back."""
    request = PendingRequest()
    requests.hold(request, Message.request(name, mid=mid), 0.0, deadline)
    return request


def test_nothing_answers_a_request_that_is_held_back(requests):
    held = hold(requests, "foo", mid=5)
    assert requests.match_inform(inform("foo")) is None
    assert requests.match_reply(reply("foo")) is None
    assert requests.match_reply(reply("foo", 5)) is None
    assert is_pending(requests, held)


def test_a_request_that_is_held_back_takes_no_place(requests):
    first, second = hold(requests, "foo"), sent(requests, "foo")
    assert requests.release(first, now=0.0)
    requests.add(first, Message.request("foo"), 0.0, None)
    assert requests.match_reply(reply("foo")) is second
    assert requests.match_reply(reply("foo")) is first
    assert tables(requests) == NOTHING


def test_an_echo_leaves_what_is_held_back_as_it_is(requests):
    with_id, held, doubtful = sent(requests, "foo", 1), hold(requests, "foo"), sent(requests, "foo")
    assert requests.match_reply(reply("foo", 1)) is with_id
    assert requests.match_reply(reply("foo")) is doubtful
    assert requests.release(held, now=0.0)
    assert tables(requests) == NOTHING


def test_a_request_that_was_abandoned_while_it_was_held_back_leaves_nothing(requests):
    held = hold(requests, "foo", mid=5)
    requests.abandon(held)
    assert not requests.release(held, now=0.0)
    assert tables(requests) == NOTHING


def test_a_request_whose_time_is_over_is_not_released_any_more(requests):
    held = hold(requests, "foo", deadline=1.0)
    assert not requests.release(held, now=1.0)
    assert requests.next_deadline() == 1.0
    assert requests.take_expired(1.0) == [held]
    assert not requests.is_behind(held)
    assert tables(requests) == NOTHING


def test_what_is_held_back_ends_with_the_others_in_the_order_of_the_requests(requests):
    one, two, three = sent(requests, "a"), hold(requests, "b"), sent(requests, "c", 1)
    assert requests.take_all() == [one, two, three]
    assert not requests.release(two, now=0.0)
    assert tables(requests) == NOTHING


# The end of a request.


@pytest.mark.parametrize("mid", [None, 5])
@pytest.mark.parametrize("end_again", [PendingRequests.take_back, PendingRequests.abandon])
@pytest.mark.parametrize(
    "end",
    [
        lambda requests, request: requests.match_reply(reply("foo", request.mid)),
        lambda requests, request: requests.take_back(request),
        lambda requests, request: requests.abandon(request),
        lambda requests, request: requests.take_all(),
        lambda requests, request: requests.take_expired(1.0),
    ],
    ids=["reply", "take_back", "abandon", "take_all", "take_expired"],
)
def test_a_request_ends_once(requests, end, end_again, mid):
    request = sent(requests, "foo", mid, deadline=1.0)
    end(requests, request)
    before = tables(requests)
    end_again(requests, request)
    assert tables(requests) == before
    assert request.key is None
    assert len(requests) == 0
    assert requests.take_expired(1.0) == requests.take_all() == []


@pytest.mark.parametrize("mid", [None, 5])
def test_ending_a_request_does_not_touch_a_later_one_of_the_same_kind(requests, mid):
    old = sent(requests, "foo", mid)
    requests.take_back(old)
    new = sent(requests, "foo", mid)
    requests.take_back(old)
    requests.abandon(old)
    assert requests.match_reply(reply("foo", mid)) is new


def test_all_are_taken_in_the_order_in_which_they_were_sent(requests):
    given = [sent(requests, f"name{i % 3}", i if i % 2 else None, 100.0 - i) for i in range(1, 20)]
    requests.take_back(given.pop(7))
    requests.abandon(given.pop(3))
    assert requests.take_all() == given
    assert {request.key for request in given} == {None}
    assert len(requests) == 0
    assert requests.take_all() == []


def test_when_all_are_taken_everything_of_them_is_forgotten(requests):
    for name in ("foo", "bar"):
        requests.abandon(sent(requests, name))
        sent(requests, name, deadline=1.0)
        requests.note_sent(Message.request(name))
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
    requests.take_back(early)
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
    assert is_pending(requests, endless)


def test_finished_requests_do_not_expire(requests):
    _, ended, cancelled, expired = (sent(requests, "foo", mid, 1.0) for mid in range(1, 5))
    requests.match_reply(reply("foo", 1))
    requests.take_back(ended)
    requests.abandon(cancelled)
    assert requests.take_expired(1.0) == [expired]
    assert requests.next_deadline() is None


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
    if with_ids:
        # The first reply with an id looks at all that are pending, once in a connection.
        requests.match_reply(reply("first", sent(requests, "first", requests.next_mid()).mid))
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
        new = Message.request("new", mid=requests.next_mid() if with_ids else None)
        first_inform = inform(first.name, first.mid)
        replies = [reply(request.name, request.mid) for request in matched]
        replies += [reply("unknown"), reply("unknown", MAX_MID)]
        calls = [
            requests.next_mid,
            lambda: requests.add(PendingRequest(), new, 0.0, 5.0),
            lambda: requests.match_inform(first_inform),
            *(functools.partial(requests.match_reply, message) for message in replies),
            lambda: requests.take_back(middle),
            lambda: requests.abandon(given[size // 2 + 1]),
            lambda: len(requests),
        ]
        return [steps_of(call) for call in calls]

    few = costs(10)
    assert costs(5000) == few
    assert sum(few) > 50


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


# Random play, compared with the model.


class Play(Both):
    """Does what programs and devices do, and what they should not do."""

    def __init__(self, seed):
        super().__init__(LOGGER)
        self.rng = random.Random(seed)
        self.now = 0.0

    def name(self):
        return self.rng.choice(["foo", "bar", "baz"])

    def send(self):
        mid, deadline = None, None
        choice = self.rng.randrange(4)
        if choice == 0:
            mid = self.next_mid()
        elif choice == 1 and not self.rng.randrange(5):
            mid = self.rng.randrange(1, 30)
            if self.real.is_mid_pending(mid) or self.real.may_be_answered_late(mid):
                return
        if self.rng.randrange(5):
            deadline = self.now + self.rng.randrange(1, 8)
        message = Message.request(self.name(), mid=mid)
        self.add(PendingRequest(), message, self.now, deadline)

    def send_unclaimed(self):
        mid = self.rng.choice([None, None, self.rng.randrange(1, 30)])
        self.note_sent(Message.request(self.name(), mid=mid))

    def receive(self):
        names = [self.name()]
        mids = [None, self.rng.randrange(1, 30)]
        pending = self.model.pending()
        if pending:
            entry = self.rng.choice(pending)
            names += [entry.name] * 8
            mids += [None, entry.mid] * 4
        if self.model.late_mids:
            mids.append(self.rng.choice(self.model.late_mids))
        name, mid = self.rng.choice(names), self.rng.choice(mids)
        self.match_inform(inform(name, mid))
        if self.rng.randrange(3):
            self.match_reply(reply(name, mid))

    def give_up(self):
        waiting = self.model.pending()
        if waiting:
            self.abandon(self.rng.choice(waiting).request)

    def wait(self):
        self.now += self.rng.randrange(3)
        self.take_expired(self.now)

    def lose_connection(self):
        if not self.rng.randrange(10):
            self.take_all()

    def wrap(self):
        if not self.rng.randrange(10):
            self.real._last_mid = self.model.last_mid = MAX_MID - self.rng.randrange(3)

    def step(self):
        steps = [self.send] * 6 + [self.receive] * 6 + [self.give_up, self.wait]
        steps += [self.send_unclaimed, self.lose_connection, self.wrap]
        self.rng.choice(steps)()
        self.check()


@pytest.mark.parametrize("seed", range(20))
def test_random_play_agrees_with_the_model(seed, monkeypatch, logs):
    monkeypatch.setattr(pending, "MAX_ABANDONED_MIDS", 5)
    play = Play(seed)
    for _ in range(700):
        play.step()
    reports = logs.matching("Ignoring the id of")
    for _ in reports:
        logs.expect("Ignoring the id of")
    play.take_all()
    assert tables(play.real) == NOTHING
