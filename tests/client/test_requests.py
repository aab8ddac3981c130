"""Requests of an AsyncClient: callback, future and blocking ones, ids, timeouts, ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import threading
import time

import pytest

import katcp
from katcp import (
    AsyncClient,
    BlockingClient,
    CallbackClient,
    KatcpClientDisconnected,
    KatcpClientError,
    KatcpClientOverflow,
    KatcpClientStopped,
    KatcpClientTimeout,
    KatcpThreadError,
    KatcpTypeError,
    KatcpUsageError,
    KatcpVersionError,
    Message,
    ProtocolFlags,
)
from tests.support.helpers import (
    PATIENCE,
    Recorder,
    TestDevice,
    closed_port,
    in_loop,
    start_client,
    texts,
    until_answered,
)
from tests.support.peek import Peek


def assert_made_up(reply, reason, error_class):
    """The reply was made up by the client, for this reason."""
    assert reply.mtype == Message.REPLY
    assert not reply.reply_ok()
    assert reply.arguments[0] == Message.FAIL
    assert re.fullmatch(reason, reply.arguments[1].decode())
    assert isinstance(reply.local_error, error_class)
    assert isinstance(reply.local_error, KatcpClientError)


def pending_count(client):
    return len(Peek(client).pending)


# ---- the three kinds of request ----


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M", "4"])
def test_blocking_request_returns_reply_and_informs(protocol):
    with TestDevice(protocol=protocol) as device:
        client = start_client(device)
        reply, informs = client.blocking_request(Message.request("count", 3))
        assert texts([reply]) == ["!count ok 3"]
        assert texts(informs) == ["#count 0", "#count 1", "#count 2"]
        assert reply.local_error is None
        assert (reply.mid is not None) == ("I" in protocol)


@pytest.mark.parametrize("protocol", ["5.1-MIB", "4"])
def test_future_request_resolves_with_reply_and_informs(protocol):
    with TestDevice(protocol=protocol) as device:
        client = start_client(device)
        reply, informs = in_loop(client, client.future_request, Message.request("count", 2))
        assert texts([reply, *informs]) == ["!count ok 2", "#count 0", "#count 1"]


@pytest.mark.parametrize("protocol", ["5.1-MIB", "4"])
def test_callback_request_calls_back_in_the_ioloop(protocol):
    threads = []
    with TestDevice(protocol=protocol) as device:
        client = start_client(device, CallbackClient)
        replies, informs = Recorder(), Recorder()

        def reply_cb(*args):
            threads.append(threading.get_ident())
            replies(*args)

        client.callback_request(Message.request("count", 2), reply_cb, informs)
        replies.wait()
        assert texts(informs.messages) == ["#count 0", "#count 1"]
        assert texts(replies.messages) == ["!count ok 2"]
        assert threads == [client.ioloop_thread_id]


@pytest.mark.parametrize(
    ("user_data", "expected"),
    [((1, "x"), (1, "x")), ([1, 2], (1, 2)), ((), ()), (None, ()), ("ab", ("a", "b"))],
)
def test_user_data_is_splatted(device, user_data, expected):
    client = start_client(device)
    replies, informs = Recorder(), Recorder()
    client.callback_request(Message.request("count", 1), replies, informs, user_data)
    replies.wait()
    assert replies.calls[0][1:] == expected
    assert informs.calls[0][1:] == expected


@pytest.mark.parametrize("user_data", [5, 0])
def test_user_data_that_cannot_be_splatted_is_logged_with_each_callback(device, logs, user_data):
    client = start_client(device)
    calls = Recorder()
    request = Message.request("count", 1)
    assert client.callback_request(request, calls, calls, user_data) is None
    for kind in ("inform", "reply"):
        text = logs.expect(f"Callback {kind} count FAIL: Traceback", logging.ERROR)
        assert "TypeError: " in text
        assert "must be an iterable, not int" in text
    assert calls.calls == []


def test_user_data_is_taken_as_it_is_when_the_callback_is_called(device):
    client = start_client(device)
    replies, user_data = Recorder(), [1]
    client.callback_request(Message.request("hold"), replies, user_data=user_data)
    held = device.next_held()
    user_data.append(2)
    held.reply("ok")
    assert replies.wait()[0][1:] == (1, 2)


def test_without_callbacks_reply_and_informs_go_to_the_handlers(device):
    replies, informs = Recorder(), Recorder()

    class Client(CallbackClient):
        def reply_count(self, msg):
            replies(msg)

        def inform_count(self, msg):
            informs(msg)

    client = start_client(device, Client)
    client.callback_request(Message.request("count", 1))
    client.callback_request(Message.request("count", 2), inform_cb=lambda msg: None)
    client.request(Message.request("count", 3))
    assert texts(m for (m,) in replies.wait(3)) == ["!count ok 1", "!count ok 2", "!count ok 3"]
    assert len(informs.calls) == 1 + 0 + 3
    assert pending_count(client) == 0


def test_a_handler_is_not_called_for_the_reply_of_a_blocking_request(device):
    replies = Recorder()

    class Client(BlockingClient):
        def reply_echo(self, msg):
            replies(msg)

    client = start_client(device, Client)
    client.blocking_request(Message.request("echo"))
    in_loop(client, client.future_request, Message.request("echo"))
    assert replies.calls == []


def test_a_failing_device_is_told_from_a_lost_cable(device):
    client = start_client(device)
    reply, _ = client.blocking_request(Message.request("refuse"))
    assert texts([reply]) == [r"!refuse fail not\_today"]
    assert reply.local_error is None


# ---- timeouts ----


@pytest.mark.parametrize("protocol", ["5.1-MIB", "4"])
def test_a_timeout_makes_up_a_proper_reply(protocol):
    with TestDevice(protocol=protocol) as device:
        client = start_client(device)
        request = Message.request("silent")
        reply, informs = client.blocking_request(request, timeout=0.05)
        assert_made_up(
            reply, r"Request silent timed out after 0\.\d{6} seconds\.", KatcpClientTimeout
        )
        assert reply.name == "silent"
        assert reply.mid == request.mid
        assert informs == []
        assert pending_count(client) == 0


def test_informs_before_the_timeout_are_returned(device):
    client = start_client(device)

    @device.request
    def stall(request):
        request.inform("half")

    reply, informs = client.blocking_request(Message.request("stall"), timeout=0.3)
    assert isinstance(reply.local_error, KatcpClientTimeout)
    assert texts(informs) == ["#stall half"]


@pytest.mark.parametrize("timeout", [0, -1])
def test_timeout_zero_or_less_fails_at_once_and_the_request_is_sent(device, timeout):
    client = start_client(device)
    reply, _ = client.blocking_request(Message.request("silent"), timeout=timeout)
    assert_made_up(reply, r"Request silent timed out after .*", KatcpClientTimeout)
    device.wait_for_request("silent")


def test_the_default_timeout_is_that_of_the_constructor(device):
    client = start_client(device, timeout=0.05)
    reply, _ = client.blocking_request(Message.request("silent"))
    assert isinstance(reply.local_error, KatcpClientTimeout)
    assert Peek(AsyncClient("localhost", 1)).request_timeout == 5.0


def test_timeout_none_in_the_constructor_waits_for_the_reply(device):
    client = start_client(device, timeout=None)
    replies = Recorder()
    client.callback_request(Message.request("hold"), replies)
    held = device.next_held()
    assert in_loop(client, lambda: Peek(client).timer) is None
    held.reply("ok")
    assert texts([replies.wait()[0][0]]) == ["!hold ok"]


def test_timeouts_end_in_the_order_of_their_deadlines(device):
    client = start_client(device)
    ended = Recorder()
    for timeout in (0.09, 0.03, 0.06):
        client.callback_request(
            Message.request("silent"), ended, user_data=(timeout,), timeout=timeout
        )
    assert [timeout for _, timeout in ended.wait(3)] == [0.03, 0.06, 0.09]


def test_the_rest_after_a_look_at_deadlines_ends_with_the_connection(device, monkeypatch):
    monkeypatch.setattr("katcp.client._requester._REST_PER_REQUEST", 100.0)
    client = start_client(device, timeout=None)
    ended = Recorder()
    client.callback_request(Message.request("silent"), ended)
    client.callback_request(Message.request("silent"), ended, timeout=0)
    ended.wait()
    client.disconnect()
    ended.wait(2)
    assert client.wait_connected(PATIENCE)
    client.callback_request(Message.request("silent"), ended, timeout=0)
    ended.wait(3)


def test_user_data_without_callbacks_is_not_looked_at(device):
    client = start_client(device)
    client.callback_request(Message.request("echo"), user_data=5)
    until_answered(client)


def test_there_is_one_timer_for_all_pending_requests(device):
    client = start_client(device)

    def ask_often():
        for _ in range(50):
            client.callback_request(Message.request("hold"), lambda msg: None, timeout=60)
        scheduled = client.ioloop.asyncio_loop._scheduled
        return len([handle for handle in scheduled if not handle.cancelled()])

    assert in_loop(client, ask_often) == 1


def test_a_look_at_many_deadlines_is_followed_by_a_rest(device, monkeypatch):
    """Else n requests that end one after another would cost n times n."""
    monkeypatch.setattr("katcp.client._requester._REST_PER_REQUEST", 100.0)
    client = start_client(device, timeout=None)
    ended = Recorder()

    def end_one(beside=0):
        for _ in range(beside):
            client.callback_request(Message.request("silent"))
        client.callback_request(Message.request("silent"), ended, timeout=0)
        asyncio_loop = client.ioloop.asyncio_loop
        return asyncio_loop.time(), Peek(client).timer.when()

    began, _ = in_loop(client, end_one, 3)
    ended.wait()
    assert in_loop(client, end_one)[1] >= began + 300


@pytest.mark.parametrize("informs", [False, True])
def test_late_answers_with_ids_go_to_the_handlers(device, informs):
    seen = Recorder()

    class Client(BlockingClient):
        def unhandled_reply(self, msg):
            seen(msg)

        def unhandled_inform(self, msg):
            if msg.name == "hold":
                seen(msg)

    client = start_client(device, Client)
    request = Message.request("hold")
    client.blocking_request(request, timeout=0.01)
    held = device.next_held()
    if informs:
        held.inform("late")
    held.reply("ok", "late")
    seen.wait(2 if informs else 1)
    assert {msg.mid for msg in seen.messages} == {request.mid}


# ---- ids ----


def test_ids_count_from_one_and_go_on_over_reconnects(device):
    client = start_client(device)
    assert [client.request(Message.request("echo")) for _ in range(3)] == [b"1", b"2", b"3"]
    device.close_clients()
    device.wait_for_connection(2)
    until_answered(client)
    assert int(client.request(Message.request("echo"))) > 3


def test_ids_wrap_and_skip_pending_ones(device):
    client = start_client(device)
    client.callback_request(Message.request("hold", mid=1), lambda msg: None)
    Peek(client).pending._last_mid = 2**31 - 2
    assert client.request(Message.request("echo")) == b"2147483647"
    assert client.request(Message.request("echo")) == b"2"


def test_a_request_without_id_returns_none(device, device_v4):
    assert start_client(device_v4).request(Message.request("echo")) is None
    assert start_client(device).request(Message.request("echo"), use_mid=False) is None
    assert device.wait_for_request("echo").mid is None


def test_before_the_protocol_is_known_requests_go_without_id():
    with TestDevice(faults=["no-greeting"]) as device:
        client = start_client(device, wait="connected")
        assert client.request(Message.request("echo")) is None
        reply, _ = client.blocking_request(Message.request("echo", "x"))
        assert str(reply) == "!echo ok x"


def test_a_reply_without_id_is_matched_although_ids_come_into_use_in_between():
    with TestDevice(faults=["late-greeting=0.1"]) as device:
        client = start_client(device, wait="connected")
        replies = Recorder()
        client.callback_request(Message.request("hold"), replies)
        held = device.next_held()
        assert client.wait_protocol(PATIENCE)
        held.reply("ok")
        assert str(replies.wait()[0][0]) == "!hold ok"


def test_the_greeting_may_come_late():
    with TestDevice(faults=["late-greeting=0.1"]) as device:
        client = start_client(device, wait=None)
        assert client.wait_connected(PATIENCE)
        assert client.wait_protocol(PATIENCE)
        assert client.blocking_request(Message.request("echo"))[0].mid == b"1"


@pytest.mark.parametrize("use_mid", [None, True])
def test_an_id_that_the_program_chose_is_used(device, use_mid):
    client = start_client(device)
    reply, _ = client.blocking_request(Message.request("echo", mid=77), use_mid=use_mid)
    assert reply.mid == b"77"
    assert client.request(Message.request("echo", mid=78), use_mid=False) == b"78"


@pytest.mark.parametrize(("mid", "use_mid"), [(77, None), (None, True), (77, True), (77, False)])
def test_ids_that_the_server_does_not_support_are_refused(device_v4, mid, use_mid):
    client = start_client(device_v4)
    text = "Message IDs not supported by server"
    with pytest.raises(KatcpVersionError, match=text):
        client.request(Message.request("echo", mid=mid), use_mid)
    request = Message.request("echo", mid=mid)
    reply, informs = client.blocking_request(request, use_mid=use_mid)
    assert_made_up(reply, text, KatcpVersionError)
    assert informs == []
    if mid is not None:
        with pytest.raises(KatcpVersionError, match=text):
            client.send_request(Message.request("echo", mid=mid))
    client.send_message(Message.request("echo", mid=5))
    device_v4.wait_for_request("echo")
    assert [str(msg) for msg in device_v4.received_requests("echo")] == ["?echo[5]"]


def test_the_message_is_given_the_id_and_keeps_it_when_sent_again(device):
    client = start_client(device)
    request = Message.request("echo")
    client.blocking_request(request)
    assert request.mid == b"1"
    reply, _ = client.blocking_request(request)
    assert (request.mid, reply.mid) == (b"1", b"1")


def test_a_message_sent_again_while_pending_gets_its_own_id(device):
    client = start_client(device)
    request = Message.request("hold")
    replies = Recorder()
    client.callback_request(request, replies, user_data=("first",))
    first = device.next_held()
    client.callback_request(request, replies, user_data=("second",))
    second = device.next_held()
    second.reply("ok", 2)
    first.reply("ok", 1)
    assert [(who, msg.arguments[1]) for msg, who in replies.wait(2)] == [
        ("second", b"2"),
        ("first", b"1"),
    ]


def test_a_message_sent_again_after_its_timeout_is_not_given_the_late_reply(device):
    client = start_client(device)
    request = Message.request("hold")
    assert client.blocking_request(request, timeout=0.01)[0].local_error
    late = device.next_held()
    replies = Recorder()
    client.callback_request(request, replies)
    retried = device.next_held()
    late.reply("ok", "late")
    retried.reply("ok", "retried")
    assert replies.wait()[0][0].arguments == [b"ok", b"retried"]


def test_a_reply_that_nobody_awaits_answers_no_later_request_of_its_id(device):
    """Found by tests/property: sent again, a message kept the id of its first sending."""
    client = start_client(device)
    request = Message.request("hold")
    client.request(request)
    replies = Recorder()
    client.callback_request(request, replies)
    # Nor is an id given out that the program has used.
    client.send_request(Message.request("hold", mid=3))
    client.callback_request(Message.request("hold"), replies)
    for number in range(4):
        device.next_held().reply("ok", number)
    assert [call[0].arguments[1] for call in replies.wait(2)] == [b"1", b"3"]


def test_an_explicit_id_that_is_pending_is_refused_where_it_is_used(device):
    client = start_client(device)
    replies = Recorder()
    client.callback_request(Message.request("hold", mid=7), replies)
    held = device.next_held()
    for use in (
        lambda: client.callback_request(Message.request("echo", mid=7), replies),
        lambda: client.blocking_request(Message.request("echo", mid=7)),
        lambda: client.request(Message.request("echo", mid="7")),
        lambda: in_loop(client, client.future_request, Message.request("echo", mid=7)),
    ):
        with pytest.raises(KatcpUsageError, match="id 7 is used by a pending request"):
            use()
    held.reply("ok")
    assert str(replies.wait()[0][0]) == "!hold[7] ok"
    assert client.blocking_request(Message.request("echo", mid=7))[0].reply_ok()


def test_an_explicit_id_that_two_threads_use_at_once_ends_both_requests(device, logs):
    client = start_client(device)
    replies = Recorder()

    def use_it_twice_while_the_loop_is_busy():
        def use_it():
            for _ in range(2):
                client.callback_request(Message.request("echo", mid=7), replies)

        thread = threading.Thread(target=use_it)
        thread.start()
        thread.join()

    in_loop(client, use_it_twice_while_the_loop_is_busy)
    outcomes = {str(msg) for (msg,) in replies.wait(2)}
    assert "!echo[7] ok" in outcomes
    assert any("id_7_is_used_by_a_pending_request" in text.replace("\\_", "_") for text in outcomes)
    logs.expect("Exception in callback", logging.ERROR)


def test_a_reply_without_id_does_not_disarm_a_request_sent_with_one(device):
    client = start_client(device)
    device.faults = ["no-ids:hold"]
    replies = Recorder()
    client.callback_request(Message.request("hold"), replies, timeout=0.3)
    device.next_held().reply("ok", "who am I for")
    assert_made_up(replies.wait()[0][0], "Request hold timed out after .*", KatcpClientTimeout)
    assert len(replies.calls) == 1
    assert pending_count(client) == 0


def test_a_reply_of_another_name_is_not_accepted(device, logs):
    client = start_client(device)
    replies = Recorder()
    client.callback_request(Message.request("hold"), replies)
    held = device.next_held()
    device.send_raw(b"#other[1] x\n!other[1] ok\n")
    held.reply("ok")
    assert str(replies.wait()[0][0]) == "!hold[1] ok"
    for line in ("#other[1] x", "!other[1] ok"):
        logs.expect(f"Ignoring the id of {line}: the pending request with this id is ?hold.")


def test_a_second_reply_goes_to_the_handlers(device):
    seen = Recorder()

    class Client(BlockingClient):
        def unhandled_reply(self, msg):
            seen(msg)

    client = start_client(device, Client)
    device.faults = ["duplicate-reply"]
    assert client.blocking_request(Message.request("echo"))[0].reply_ok()
    assert texts([seen.wait()[0][0]]) == ["!echo ok"]


def test_replies_out_of_order_go_each_to_its_own_request(device):
    client = start_client(device)
    replies = Recorder()
    for position in range(20):
        client.callback_request(Message.request("hold"), replies, user_data=(position,))
    held = [device.next_held() for _ in range(20)]
    for position, request in reversed(list(enumerate(held))):
        request.reply("ok", position)
    assert [int(msg.arguments[1]) - position for msg, position in replies.wait(20)] == [0] * 20


# ---- without ids ----


def test_without_ids_answers_go_first_in_first_out(device_v4):
    client = start_client(device_v4)
    replies = Recorder()
    for position in range(3):
        client.callback_request(Message.request("hold"), replies, user_data=(position,))
    for position in range(3):
        device_v4.next_held().reply("ok", position)
    assert [(who, int(msg.arguments[1])) for msg, who in replies.wait(3)] == [
        (0, 0),
        (1, 1),
        (2, 2),
    ]


def test_without_ids_a_late_reply_never_answers_a_later_request(device_v4):
    seen = Recorder()

    class Client(BlockingClient):
        def unhandled_reply(self, msg):
            seen(msg)

        def unhandled_inform(self, msg):
            if msg.name == "hold":
                seen(msg)

    client = start_client(device_v4, Client)
    assert client.blocking_request(Message.request("hold", "first"), timeout=0.01)[0].local_error
    first = device_v4.next_held()
    replies, informs = Recorder(), Recorder()
    client.callback_request(Message.request("hold", "second"), replies, informs)
    second = device_v4.next_held()
    for request, text in ((first, "first"), (second, "second")):
        request.inform(text)
        request.reply("ok", text)
    assert str(replies.wait()[0][0]) == "!hold ok second"
    assert texts(informs.messages) == ["#hold second"]
    assert texts(seen.messages) == ["#hold first", "!hold ok first"]


class Strays(CallbackClient):
    """A client that notes what it hands to nobody."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.strays = Recorder()

    def unhandled_reply(self, msg):
        self.strays(msg)


def hold_one(client, device, *args):
    """Make a request that is held; return its replies, and the request at the device."""
    replies = Recorder()
    client.callback_request(Message.request("hold", *args), replies, timeout=60)
    return replies, device.next_held()


def let_time_out(client, name="hold"):
    in_loop(client, Peek(client).let_time_out, name)


def lose_a_reply(client, device):
    hold_one(client, device, "lost")
    let_time_out(client)


def time_out_though_a_reply_comes(client, device):
    """Make a request whose reply is taken for that of an earlier one; return how it ends."""
    replies, request = hold_one(client, device)
    seen = len(client.strays.calls)
    request.reply("ok")
    client.strays.wait(seen + 1)
    let_time_out(client)
    ((reply,),) = replies.wait()
    return reply


TIMED_OUT = r"Request hold timed out after [0-9.]+ seconds\."
BEHIND = (
    "?hold: replies come, but to earlier requests, since one was lost or all are "
    "slower than the timeout; without message ids only a new connection settles that"
)


@pytest.mark.parametrize("late", [1, 2, 3, 20])
def test_without_ids_any_number_of_late_replies_answers_no_later_request(device_v4, late):
    client = start_client(device_v4, Strays)
    held = []
    for number in range(late):
        _, request = hold_one(client, device_v4, number)
        held.append(request)
        let_time_out(client)
    for number in range(late, 40):
        replies, request = hold_one(client, device_v4, number)
        for earlier in (*held, request):
            earlier.inform(*earlier.message.arguments)
            earlier.reply("ok", *earlier.message.arguments)
        held = []
        assert str(replies.wait()[0][0]) == f"!hold ok {number}"
    assert texts(client.strays.messages) == [f"!hold ok {number}" for number in range(late)]


@pytest.mark.parametrize("auto_reconnect", [True, False])
@pytest.mark.parametrize("timeout", [0, 0.001, 0.01])
def test_without_ids_a_device_slower_than_the_timeout_gives_no_wrong_answer(
    device_v4, logs, timeout, auto_reconnect
):
    client = start_client(device_v4, BlockingClient, auto_reconnect=auto_reconnect)
    client.auto_reconnect_max_delay = client.auto_reconnect_delay
    late = []

    @device_v4.request
    def slow(request, *args):
        """Answer the request before."""
        late.append(request)
        if len(late) > 1:
            late[-2].reply("ok", *late[-2].message.arguments)

    for number in range(100):
        reply, _ = client.blocking_request(Message.request("slow", number), timeout=timeout)
        assert isinstance(reply.local_error, (KatcpClientTimeout, KatcpClientDisconnected)), reply
        assert client.wait_connected(PATIENCE)
    assert device_v4.connection_count == 1 or auto_reconnect
    client.stop()
    for _ in logs.matching("closed with error"):
        logs.expect("?slow: replies come, but to earlier requests")


def test_without_ids_the_connection_is_renewed_after_three_signs_of_a_lost_reply(device_v4, logs):
    client = start_client(device_v4, Strays)
    lose_a_reply(client, device_v4)
    for _ in range(2):
        reply = time_out_though_a_reply_comes(client, device_v4)
        assert_made_up(reply, TIMED_OUT, KatcpClientTimeout)
    assert client.is_connected()
    pending = Recorder()
    client.callback_request(Message.request("silent"), pending, timeout=60)
    reply = time_out_though_a_reply_comes(client, device_v4)
    assert_made_up(reply, f"{TIMED_OUT} {re.escape(BEHIND)}", KatcpClientTimeout)
    assert_made_up(
        pending.wait()[0][0],
        re.escape(f"Connection closed before reply was received: {BEHIND}"),
        KatcpClientDisconnected,
    )
    logs.expect(
        f"Client stream for server {client.bind_address_string} closed with error "
        f"KatcpClientDisconnected('{BEHIND}')"
    )
    device_v4.wait_for_connection(2)
    assert client.wait_protocol(PATIENCE)
    replies, request = hold_one(client, device_v4)
    request.reply("ok", "new")
    assert str(replies.wait()[0][0]) == "!hold ok new"


def test_without_ids_what_a_callback_asks_when_the_connection_is_renewed_is_not_sent(
    device_v4, logs
):
    client = start_client(device_v4, Strays)
    lose_a_reply(client, device_v4)
    for _ in range(2):
        time_out_though_a_reply_comes(client, device_v4)
    again = Recorder()
    _, request = hold_one(client, device_v4)
    request.reply("ok")
    client.strays.wait(3)
    client.callback_request(
        Message.request("hold"),
        lambda reply: client.callback_request(Message.request("set"), again),
        timeout=60,
    )
    let_time_out(client)
    assert_made_up(
        again.wait()[0][0],
        f"Not connected to device {re.escape(client.bind_address_string)}",
        KatcpClientDisconnected,
    )
    logs.expect(BEHIND)
    device_v4.wait_for_connection(2)
    until_answered(client)
    assert "set" not in [message.name for message in device_v4.received]


def test_without_ids_and_without_auto_reconnect_the_timeouts_say_what_is_wrong(device_v4):
    client = start_client(device_v4, Strays, auto_reconnect=False)
    _, first = hold_one(client, device_v4)
    let_time_out(client)
    reasons = []
    for _ in range(4):
        reply = time_out_though_a_reply_comes(client, device_v4)
        assert isinstance(reply.local_error, KatcpClientTimeout)
        reasons.append(reply.arguments[1].decode())
    assert [bool(re.fullmatch(TIMED_OUT, reason)) for reason in reasons] == [
        True,
        True,
        False,
        False,
    ]
    assert all(reason.endswith(f"seconds. {BEHIND}") for reason in reasons[2:])
    assert client.is_connected()
    # It was not lost after all, only very late.
    replies, request = hold_one(client, device_v4)
    first.reply("ok", "late")
    request.reply("ok", "own")
    assert str(replies.wait()[0][0]) == "!hold ok own"
    lose_a_reply(client, device_v4)
    reply = time_out_though_a_reply_comes(client, device_v4)
    assert_made_up(reply, TIMED_OUT, KatcpClientTimeout)


def test_with_ids_lost_and_late_replies_never_renew_the_connection(device):
    client = start_client(device, Strays)
    lose_a_reply(client, device)
    for _ in range(5):
        replies, _ = hold_one(client, device)
        other, request = hold_one(client, device)
        request.reply("ok")
        other.wait()
        let_time_out(client)
        assert_made_up(replies.wait()[0][0], TIMED_OUT, KatcpClientTimeout)
    assert client.is_connected()


@pytest.mark.parametrize("protocol", ["5.1-MIB", "4"])
@pytest.mark.parametrize("way", ["future", "concurrent", "async"])
def test_the_reply_of_a_cancelled_request_answers_no_other_one(protocol, way):
    with TestDevice(protocol=protocol) as device:
        client = start_client(device, Strays)
        msg = Message.request("hold", "cancelled")

        async def cancel():
            task = asyncio.ensure_future(client.async_request(msg))
            held = await asyncio.get_running_loop().run_in_executor(None, device.next_held)
            task.cancel()
            return held

        if way == "async":
            cancelled = asyncio.run(cancel())
        elif way == "concurrent":
            future = client.concurrent_request(msg)
            cancelled = device.next_held()
            assert future.cancel()
        else:
            future = in_loop(client, lambda: [client.future_request(msg)])[0]
            cancelled = device.next_held()
            in_loop(client, future.cancel)
        replies, request = hold_one(client, device, "own")
        for held in (cancelled, request):
            held.reply("ok", *held.message.arguments)
        assert str(replies.wait()[0][0].copy()) == "!hold ok own"


def test_without_ids_the_reply_of_request_answers_no_other_one(device_v4):
    client = start_client(device_v4)
    client.request(Message.request("hold", "unclaimed"))
    client.send_request(Message.request("hold", "unclaimed"))
    replies = Recorder()
    client.callback_request(Message.request("hold", "claimed"), replies)
    for _ in range(3):
        request = device_v4.next_held()
        request.reply("ok", *request.message.arguments)
    assert str(replies.wait()[0][0]) == "!hold ok claimed"


@pytest.mark.parametrize("mid", [None, 7])
def test_the_reply_to_what_send_message_sent_answers_no_other_request(device_v4, mid):
    """A device without ids may ignore one that it is sent."""
    client = start_client(device_v4, Strays)
    client.send_message(Message.request("hold", "by hand", mid=mid))
    by_hand = device_v4.next_held()
    replies, request = hold_one(client, device_v4, "own")
    by_hand.send_raw(b"!hold ok by\\_hand\n")
    request.reply("ok", "own")
    if mid is None:
        assert str(replies.wait()[0][0]) == "!hold ok own"
        client.strays.wait()
    else:
        # It could be that of the other one, too, if the device repeated ids.
        client.strays.wait(2)
    assert texts(client.strays.messages) == ["!hold ok by\\_hand", "!hold ok own"][: 1 + bool(mid)]
    replies, request = hold_one(client, device_v4)
    request.reply("ok", "next")
    assert str(replies.wait()[0][0]) == "!hold ok next"


def test_a_device_that_announces_ids_and_ignores_them_gives_no_wrong_answer(device):
    client = start_client(device, Strays)
    with_id, ignored = hold_one(client, device, "with id")
    without = Recorder()
    client.callback_request(Message.request("hold"), without, timeout=60, use_mid=False)
    device.next_held()
    for text in (b"first", b"second"):
        ignored.send_raw(b"#hold " + text + b"\n!hold ok " + text + b"\n")
    client.strays.wait(2)
    # All have been answered now: the next answer can only be that to the next request.
    again = Recorder()
    client.callback_request(Message.request("hold"), again, timeout=60, use_mid=False)
    device.next_held().reply("ok", "third")
    assert str(again.wait()[0][0]) == "!hold ok third"
    assert with_id.calls == without.calls == []


class Overriding(Strays):
    """A client whose send_message() is the program's own."""

    how = ""
    kept = ()

    def send_message(self, msg):
        if self.how == "refuse":
            raise ValueError("refused")
        if self.how == "keep":
            self.kept = (*self.kept, msg)
            return None
        if self.how == "copy":
            msg = Message.request(msg.name, *msg.arguments)
        sent = super().send_message(msg)
        if self.how == "fail":
            raise ValueError("failed after it was sent")
        if self.how == "interrupt":
            raise KeyboardInterrupt
        return sent


@pytest.mark.parametrize("how", ["", "refuse", "fail", "interrupt", "keep", "copy"])
@pytest.mark.parametrize("way", ["callback", "request"])
def test_without_ids_whatever_an_own_send_message_does_nobody_gets_a_wrong_reply(
    device_v4, how, way
):
    client = start_client(device_v4, Overriding)
    replies = Recorder()

    def ask():
        client.how = how
        try:
            if way == "callback":
                client.callback_request(Message.request("hold", "first"), replies, timeout=60)
            else:
                client.request(Message.request("hold", "first"))
        except (ValueError, KeyboardInterrupt) as error:
            return error
        finally:
            client.how = ""
        return None

    error = in_loop(client, ask)
    assert (error is not None) == (how in ("refuse", "fail", "interrupt"))
    for msg in client.kept:
        in_loop(client, client.send_message, msg)
    held = [device_v4.next_held()] if how != "refuse" else []
    own, request = hold_one(client, device_v4, "own")
    for earlier in (*held, request):
        earlier.reply("ok", *earlier.message.arguments)
    assert str(own.wait()[0][0]) == "!hold ok own"
    assert texts(replies.messages) == ["!hold ok first"] * (way == "callback" and error is None)
    assert (pending_count(client), Peek(client).names_awaited) == (0, set())


# ---- how requests end without a reply ----


def test_not_connected_fails_with_a_proper_reply():
    port = closed_port()
    client = BlockingClient("127.0.0.1", port, logger=logging.getLogger("quiet"))
    logging.getLogger("quiet").setLevel(logging.CRITICAL)
    client.start()
    try:
        text = f"Not connected to device 127.0.0.1:{port}"
        reply, informs = client.blocking_request(Message.request("echo"))
        assert_made_up(reply, text, KatcpClientDisconnected)
        assert (reply.name, reply.mid, informs) == ("echo", None, [])
        reply, _ = in_loop(client, client.future_request, Message.request("echo"))
        assert_made_up(reply, text, KatcpClientDisconnected)
        replies = Recorder()
        client.callback_request(Message.request("echo"), replies)
        assert_made_up(replies.wait()[0][0], text, KatcpClientDisconnected)
        for call in (client.request, client.send_request, client.send_message):
            with pytest.raises(KatcpClientDisconnected, match=text):
                call(Message.request("echo"))
        reply, _ = client.blocking_request(Message.request("echo", mid=5))
        assert_made_up(reply, "Message IDs not supported by server", KatcpVersionError)
        assert pending_count(client) == 0
    finally:
        client.stop()


class Hooked(AsyncClient):
    """A client with an overridden handle_reply(), which does as it is told."""

    def __init__(self, *args, hook, **kwargs):
        super().__init__(*args, **kwargs)
        self.hook = hook
        self.unhandled = Recorder()

    def handle_reply(self, msg):
        return self.hook(super().handle_reply, msg)

    def unhandled_reply(self, msg):
        self.unhandled(msg)


@pytest.fixture
def hooked(logs):
    clients = []

    def start(hook):
        client = Hooked("127.0.0.1", closed_port(), hook=hook)
        client.auto_reconnect_delay = 1000
        clients.append(client)
        client.start()
        logs.expect("Failed to connect")
        return client

    yield start
    for client in clients:
        client.stop()


def ask_in_loop(client, *args, **kwargs):
    in_loop(client, client.callback_request, Message.request("echo"), *args, **kwargs)


def test_what_handle_reply_keeps_for_itself_reaches_nobody(hooked):
    kept, replies = Recorder(), Recorder()
    client = hooked(lambda handle, msg: kept(msg))
    ask_in_loop(client, replies)
    (reply,) = kept.wait()[0]
    assert isinstance(reply.local_error, KatcpClientDisconnected)
    assert replies.calls == client.unhandled.calls == []


def test_a_hook_that_keeps_replies_does_not_keep_a_caller_waiting(hooked):
    client = hooked(lambda handle, msg: None)
    reply, _ = client.blocking_request(Message.request("echo"))
    assert isinstance(reply.local_error, KatcpClientDisconnected)
    reply, _ = in_loop(client, client.future_request, Message.request("echo"))
    assert isinstance(reply.local_error, KatcpClientDisconnected)


def test_a_reply_that_is_handled_twice_calls_back_once(hooked):
    replies = Recorder()
    client = hooked(lambda handle, msg: (handle(msg), handle(msg)))
    ask_in_loop(client, replies)
    assert replies.wait()[0] == client.unhandled.wait()[0]
    assert len(replies.calls) == len(client.unhandled.calls) == 1


def test_what_handle_reply_raises_for_a_request_that_was_not_sent_is_logged(hooked, logs):
    def fail(handle, msg):
        raise ValueError("odd")

    async def fail_later(handle, msg):
        raise ValueError("later")

    for hook, error in ((fail, "odd"), (fail_later, "later")):
        client = hooked(hook)
        ask_in_loop(client)
        text = logs.expect("Unhandled exception in handle_message()", logging.ERROR)
        assert f"ValueError: {error}" in text


def test_what_was_not_sent_is_not_taken_for_what_was(device_v4):
    """Without ids replies are matched by name, but not this one."""
    client = start_client(device_v4)
    sent, refused = Recorder(), Recorder()
    client.callback_request(Message.request("hold"), sent)
    held = device_v4.next_held()
    client.callback_request(Message.request("hold"), refused, use_mid=True)
    assert_made_up(refused.wait()[0][0], "Message IDs not supported by server", KatcpVersionError)
    held.reply("ok")
    assert sent.wait()[0][0].reply_ok()
    assert len(refused.calls) == 1


def test_a_callback_that_tries_again_when_not_connected_does_not_recurse():
    client = AsyncClient("127.0.0.1", closed_port(), logger=logging.getLogger("quiet"))
    logging.getLogger("quiet").setLevel(logging.CRITICAL)
    client.start()
    tries = Recorder()

    def try_again(msg):
        tries(msg)
        if len(tries.calls) < 2000:
            client.callback_request(Message.request("echo"), try_again)

    client.ioloop.add_callback(client.callback_request, Message.request("echo"), try_again)
    tries.wait(2000)
    client.stop()


@pytest.mark.parametrize("end", ["close_clients", "reset_clients", "disconnect"])
def test_a_lost_connection_fails_what_is_pending_at_once(device, logs, end):
    client = start_client(device)
    outcomes = Recorder()

    def ask():
        outcomes(*client.blocking_request(Message.request("stream"), timeout=60))

    @device.request
    def stream(request):
        request.inform("one")

    thread = threading.Thread(target=ask)
    thread.start()
    device.wait_for_request("stream")
    replies = Recorder()
    client.callback_request(Message.request("hold"), replies, timeout=60)
    device.next_held()
    # What was sent before this answer has arrived.
    client.blocking_request(Message.request("echo"))
    getattr(client if end == "disconnect" else device, end)()
    reply, informs = outcomes.wait()[0]
    thread.join()
    reason = "Connection closed before reply was received"
    assert_made_up(reply, reason, KatcpClientDisconnected)
    assert texts(informs) == ["#stream one"]
    assert_made_up(replies.wait()[0][0], reason, KatcpClientDisconnected)
    if end == "reset_clients":
        logs.expect("closed with error ConnectionResetError(104, 'Connection reset by peer')")
        assert isinstance(reply.local_error.__cause__, ConnectionResetError)


@pytest.mark.parametrize(
    ("line", "announced"),
    [
        (b"#disconnect Shutting\\_down. later", ", as the device announced: Shutting down."),
        (
            b"#disconnect \xff" + b"x" * 2000,
            ", as the device announced: \\xff" + "x" * 996 + "... (2004 characters)",
        ),
        (b"#disconnect", ""),
        (b"!disconnect ok", ""),
    ],
)
def test_a_lost_connection_that_the_device_announced_names_its_reason(device, line, announced):
    client = start_client(device)
    for reason in (announced, ""):
        replies = Recorder()
        client.callback_request(Message.request("hold"), replies, timeout=60)
        device.next_held()
        if reason == announced:
            device.send_raw(line + b"\n")
        device.close_clients()
        assert_made_up(
            replies.wait()[0][0],
            re.escape(f"Connection closed before reply was received{reason}"),
            KatcpClientDisconnected,
        )
        # What one connection announced is nothing to the next.
        until_answered(client)


def test_stop_fails_what_is_pending(device):
    client = start_client(device)
    outcomes, replies = Recorder(), Recorder()
    threads = [
        threading.Thread(
            target=lambda: outcomes(*client.blocking_request(Message.request("hold"), timeout=60))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for _ in range(8):
        client.callback_request(Message.request("hold"), replies, timeout=60)
    device.wait_for_request("hold", count=16)
    client.stop()
    assert len(outcomes.wait(8)) == len(replies.wait(8)) == 8
    for thread in threads:
        thread.join()
    for reply in [*outcomes.messages, *replies.messages]:
        assert_made_up(reply, "Client stopped before reply was received", KatcpClientStopped)


def test_a_request_that_overflows_the_buffer_names_the_limit(device, logs):
    client = start_client(device, max_write_buffer_size=1000)
    text = (
        f"Could not send to device {client.bind_address_string}: more than "
        r"MAX_WRITE_BUFFER_SIZE (1000 bytes) would wait to be sent"
    )
    reply, _ = client.blocking_request(Message.request("echo", b"x" * 2000))
    assert_made_up(reply, re.escape(text), KatcpClientOverflow)
    logged = logs.expect(text)
    assert len(logged) < 1500
    logs.expect("closed with error KatcpClientOverflow")
    for send in (client.request, client.send_message):
        until_answered(client)
        with pytest.raises(KatcpClientOverflow, match="MAX_WRITE_BUFFER_SIZE"):
            send(Message.request("echo", b"x" * 2000))
        logs.expect("MAX_WRITE_BUFFER_SIZE (1000 bytes)")
        logs.expect("closed with error KatcpClientOverflow")


def test_a_loop_that_is_busy_does_not_hang_the_thread_and_sends_nothing_late(device):
    class Client(BlockingClient):
        busy = threading.Event()
        go_on = threading.Event()

        def inform_busy(self, msg):
            self.busy.set()
            assert self.go_on.wait(PATIENCE)

    client = start_client(device, Client)
    device.inform(Message.inform("busy"))
    assert client.busy.wait(PATIENCE)
    reply, _ = client.blocking_request(Message.request("echo"), timeout=0.01)
    assert_made_up(reply, "Request echo timed out after .*", KatcpClientTimeout)
    client.go_on.set()
    assert client.blocking_request(Message.request("echo", "next"))[0].reply_ok()
    assert [str(msg.copy()) for msg in device.received_requests("echo")] == ["?echo next"]


# ---- misuse ----


@pytest.mark.parametrize(
    "msg",
    [Message.reply("echo", "ok"), Message.inform("echo"), "?echo", None, b"?echo"],
    ids=["reply", "inform", "str", "None", "bytes"],
)
def test_a_message_of_the_wrong_type_raises_in_the_caller_at_once(device, msg):
    client = start_client(device)
    for method in (client.callback_request, client.blocking_request, client.request):
        with pytest.raises(KatcpTypeError):
            method(msg)
    with pytest.raises(KatcpTypeError):
        client.send_request(msg)
    with pytest.raises(KatcpTypeError):
        in_loop(client, client.future_request, msg)
    assert pending_count(client) == 0


def test_arguments_that_are_not_bytes_raise_in_the_caller_and_leave_nothing(device):
    client = start_client(device)
    msg = Message.request("echo")
    msg.arguments.append("text")
    for method in (client.callback_request, client.blocking_request, client.request):
        with pytest.raises(KatcpTypeError, match="Argument 1 of 'echo' is of type str, not bytes"):
            method(msg)
    assert pending_count(client) == 0
    assert in_loop(client, lambda: Peek(client).pending.next_deadline()) is None


def test_a_timeout_that_is_no_number_raises_in_the_caller_and_leaves_nothing(device):
    client = start_client(device)
    text = "A timeout must be a number of seconds, not '5'"
    for method in (client.callback_request, client.blocking_request):
        with pytest.raises(KatcpTypeError, match=text):
            method(Message.request("echo"), timeout="5")
    with pytest.raises(KatcpTypeError, match=text):
        in_loop(client, lambda: client.future_request(Message.request("echo"), timeout="5"))
    assert pending_count(client) == 0


@pytest.mark.parametrize("name", ["reply_cb", "inform_cb"])
def test_a_callback_that_cannot_be_called_raises_in_the_caller(device, name):
    client = start_client(device)
    with pytest.raises(KatcpTypeError, match="A callback must be callable, not 'print'"):
        client.callback_request(Message.request("echo"), **{name: "print"})
    assert pending_count(client) == 0


def test_blocking_request_in_the_ioloop_is_refused(device):
    client = start_client(device)
    with pytest.raises(KatcpThreadError, match=r"Cannot call blocking_request\(\) in ioloop"):
        in_loop(client, client.blocking_request, Message.request("echo"))
    with pytest.raises(AssertionError, match=r"Cannot call blocking_request\(\) in ioloop"):
        in_loop(client, client.blocking_request, Message.request("echo"))


def test_future_request_in_another_thread_is_refused(device):
    client = start_client(device)
    with pytest.raises(KatcpThreadError, match="must be called in the thread of the ioloop"):
        client.future_request(Message.request("echo"))


def test_a_plain_async_client_says_how_to_be_used_from_other_threads(device):
    client = start_client(device, AsyncClient)
    for method in (client.callback_request, client.request, client.send_message):
        with pytest.raises(KatcpThreadError, match=r"Call enable_thread_safety\(\) before start"):
            method(Message.request("echo"))
    assert client.blocking_request(Message.request("echo"))[0].reply_ok()


@pytest.mark.parametrize(
    "name", ["callback_request", "blocking_request", "future_request", "request", "send_message"]
)
@pytest.mark.parametrize("cls", [AsyncClient, CallbackClient])
def test_requests_before_start_and_after_stop_say_so(device, cls, name):
    client = cls(*device.address)
    with pytest.raises(RuntimeError, match=rf"Call start\(\) before {name}\(\)"):
        getattr(client, name)(Message.request("echo"))
    client.start()
    client.stop()
    with pytest.raises(RuntimeError, match=rf"client is stopped: call start\(\) before {name}"):
        getattr(client, name)(Message.request("echo"))


# ---- callbacks that fail, futures that are cancelled ----


def test_what_callbacks_raise_is_logged_and_survived(device, logs):
    client = start_client(device)

    def fail(msg):
        raise ValueError(f"no {msg.mtype}")

    client.callback_request(Message.request("count", 1), fail, fail)
    text = logs.expect("Callback inform count FAIL: Traceback", logging.ERROR)
    assert "ValueError: no 2" in text
    assert "ValueError: no 1" in logs.expect("Callback reply count FAIL:", logging.ERROR)
    client.callback_request(Message.request("silent"), fail, timeout=0)
    text = logs.expect("Callback reply during failure Request silent timed out", logging.ERROR)
    assert "seconds., silent FAIL: Traceback" in text
    assert client.blocking_request(Message.request("echo"))[0].reply_ok()


def test_what_coroutine_callbacks_raise_is_logged(device, logs):
    client = start_client(device)

    async def fail(msg):
        await asyncio.sleep(0)
        raise ValueError("later")

    client.callback_request(Message.request("count", 1), fail, fail)
    logs.expect("Callback inform count FAIL:", logging.ERROR)
    logs.expect("Callback reply count FAIL:", logging.ERROR)


def test_a_cancelled_future_forgets_the_request(device):
    client = start_client(device)

    async def cancel():
        future = client.future_request(Message.request("hold"))
        future.cancel()
        await asyncio.sleep(0)
        return pending_count(client)

    assert in_loop(client, cancel) == 0
    device.next_held().reply("ok")
    assert client.blocking_request(Message.request("echo"))[0].reply_ok()


def test_finished_requests_leave_nothing_behind(device):
    client = start_client(device)
    for _ in range(300):
        client.blocking_request(Message.request("echo"))
    client.blocking_request(Message.request("silent"), timeout=0)
    pending = Peek(client).pending
    assert (len(pending), Peek(client).names_awaited) == (0, set())
    device.clear_received()
    gc.collect()
    assert sum(isinstance(obj, Message) for obj in gc.get_objects()) < 50


# ---- threads ----


def test_eight_threads_on_one_client_get_their_own_answers(device):
    client = start_client(device)
    wrong = []

    def ask(who):
        for number in range(40):
            nonce = b"%d-%d" % (who, number)
            reply, _ = client.blocking_request(Message.request("echo", nonce))
            if reply.arguments != [b"ok", nonce]:
                wrong.append((nonce, reply))

    threads = [threading.Thread(target=ask, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_eight_clients_at_once(device):
    clients = [start_client(device) for _ in range(8)]
    for number, client in enumerate(clients):
        reply, _ = client.blocking_request(Message.request("echo", number))
        assert reply.arguments == [b"ok", b"%d" % number]


# ---- request_check ----


def test_request_check_returns_reply_and_informs(device):
    client = start_client(device)
    reply, informs = katcp.request_check(client, ValueError, "count", 1, timeout=5, mid=9)
    assert str(reply) == "!count[9] ok 1"
    assert [str(inform) for inform in informs] == ["#count[9] 0"]


def test_request_check_raises_what_it_is_told_to(device):
    client = start_client(device)
    with pytest.raises(ValueError, match="Unexpected failure reply") as caught:
        katcp.client.request_check(client, ValueError, "refuse")
    assert str(caught.value) == (
        'Unexpected failure reply "!refuse[1] fail not\\_today"\n'
        f" with device at {client.bind_address_string}, request \n"
        '"?refuse[1]"'
    )


def test_request_check_survives_bytes_that_are_not_text(device):
    client = start_client(device)

    @device.request
    def garble(request, data):
        return "fail", b"\xff\xfe"

    with pytest.raises(ValueError, match=r"!garble\[1\] fail \\xff\\xfe"):
        katcp.request_check(client, ValueError, "garble", b"\xfd")


def test_request_check_refuses_unknown_keywords(device):
    with pytest.raises(TypeError, match=r"unexpected keyword argument\(s\) \['use_mid'\]"):
        katcp.request_check(start_client(device), ValueError, "echo", use_mid=True)


# ---- flags ----


def test_preset_flags_decide_whether_ids_are_used(device, logs):
    class Preset(BlockingClient):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.preset_protocol_flags(ProtocolFlags(5, 1, "M"))

    client = start_client(device, Preset)
    assert client.request(Message.request("echo")) is None
    logs.expect("Ignoring inform received from server indicating a katcp protocol revision")


def test_requests_time_out_by_the_monotonic_clock(device, monkeypatch):
    client = start_client(device)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    reply, _ = client.blocking_request(Message.request("silent"), timeout=0.01)
    assert isinstance(reply.local_error, KatcpClientTimeout)
