"""What the old client did and the new one does too, in the order of the record of it.

The record (old_client.md) was made by watching the client of katcp 0.9.3 from
outside. Each test here names a section and a row of it; a row that is not
here is kept by a test of the room that it belongs to:

1, request timed out
  client/test_requests.py::test_a_timeout_makes_up_a_proper_reply
1, informs before the timeout
  client/test_requests.py::test_informs_before_the_timeout_are_returned
1, connection lost
  client/test_requests.py::test_a_lost_connection_fails_what_is_pending_at_once
1, mids not supported
  client/test_requests.py::test_ids_that_the_server_does_not_support_are_refused
1, mids not supported, not connected
  client/test_requests.py::test_not_connected_fails_with_a_proper_reply
1, timeout=0
  client/test_requests.py::test_timeout_zero_or_less_fails_at_once_and_the_request_is_sent
1, default timeout
  client/test_requests.py::test_the_default_timeout_is_that_of_the_constructor
1, timeout=None
  client/test_requests.py::test_timeout_none_in_the_constructor_waits_for_the_reply
1, late reply, no handler
  client/test_requests.py::test_late_answers_with_ids_go_to_the_handlers
2, join before start
  client/test_lifetime.py::test_before_start_everything_says_call_start_first
2, attributes before start
  client/test_lifetime.py::test_what_a_new_client_looks_like
2, after stop and join
  client/test_lifetime.py::test_start_and_stop_with_a_managed_ioloop
3, explicit mid, mid with use_mid=False
  client/test_requests.py::test_an_id_that_the_program_chose_is_used
3, use_mid=True, mid=77, send_message
  client/test_requests.py::test_ids_that_the_server_does_not_support_are_refused
3, the object keeps its mid
  client/test_requests.py::test_the_message_is_given_the_id_and_keeps_it_when_sent_again
3, automatic mids
  client/test_requests.py::test_ids_count_from_one_and_go_on_over_reconnects
3, before protocol info
  client/test_requests.py::test_before_the_protocol_is_known_requests_go_without_id
3, ... banner in between
  client/test_requests.py::test_a_reply_without_id_is_matched_although_ids_come_into_use_in_between
3, ... in notify_connected
  client/test_lifetime.py::test_requests_from_notify_connected_go_out_without_id
4, duplicate reply
  client/test_requests.py::test_a_second_reply_goes_to_the_handlers
4, replies out of order
  client/test_requests.py::test_replies_out_of_order_go_each_to_its_own_request
4, v4: first in, first out
  client/test_requests.py::test_without_ids_answers_go_first_in_first_out
4, no reply_cb
  client/test_requests.py::test_without_callbacks_reply_and_informs_go_to_the_handlers
4, no handler for blocking, future
  client/test_requests.py::test_a_handler_is_not_called_for_the_reply_of_a_blocking_request
4, user_data
  client/test_requests.py::test_user_data_is_splatted
4, callbacks in the ioloop thread
  client/test_requests.py::test_callback_request_calls_back_in_the_ioloop
4, n same-name requests
  state/test_requests.py::test_n_requests_of_one_name_cost_n_times_one
5, Connected to, Reconnected to
  client/test_messages.py::test_logs_show_traffic_and_never_much_of_one_message
5, ... after five failures
  client/test_lifetime.py::test_failing_to_connect_is_logged_once_per_reason
5, auto_reconnect=False, lost
  client/test_lifetime.py::test_without_auto_reconnect_the_client_ends_by_itself
5, disconnect()
  client/test_lifetime.py::test_disconnect_closes_and_reconnects
5, disconnect(), not connected
  client/test_lifetime.py::test_disconnect_when_not_connected_does_nothing
5, preset_protocol_flags
  client/test_lifetime.py::test_preset_flags_hold_before_start_and_over_restarts
5, ... after start
  client/test_lifetime.py::test_preset_flags_after_start_and_of_the_wrong_type
5, 6.0-IMZ
  client/test_messages.py::test_a_newer_major_version_is_accepted_with_a_warning
5, fewer than two arguments
  client/test_messages.py::test_a_greeting_with_too_few_arguments_is_ignored
5, #version, #build-state
  client/test_messages.py::test_what_greetings_tell
5, versions
  client/test_messages.py::test_versions_may_be_got_as_attributes_and_are_native_text
5, no host
  client/test_lifetime.py::test_no_host_means_every_address
5, last_connect_time
  compat/test_habits.py::test_last_connect_time_is_the_loops_time_at_connecting
5, TCP_NODELAY
  client/test_lifetime.py::test_socket_options
6, start() twice
  client/test_lifetime.py::test_a_second_start_is_refused_however_soon_it_comes
6, stop() right after start()
  client/test_lifetime.py::test_stop_right_after_start
6, stop() in the managed loop's thread
  client/test_lifetime.py::test_stop_in_the_managed_ioloops_own_thread
6, join() in the managed loop's thread
  client/test_lifetime.py::test_join_in_the_managed_ioloops_own_thread_is_refused
6, stop, join, start; managed
  client/test_lifetime.py::test_start_after_stop_makes_a_new_ioloop_and_thread
6, stop, join, start; unmanaged
  client/test_lifetime.py::test_start_and_stop_in_a_shared_ioloop
6, join(0.3)
  client/test_lifetime.py::test_join_with_a_timeout_returns_while_the_client_runs
6, set_ioloop()
  client/test_lifetime.py::test_set_ioloop_without_argument_takes_the_current_one_at_start
6, set_ioloop twice, or after start
  client/test_lifetime.py::test_set_ioloop_twice_or_after_start_is_refused
6, start(0.5), loop does not run
  client/test_lifetime.py::test_start_in_a_shared_ioloop_that_does_not_run_times_out
6, wait_*
  client/test_lifetime.py::test_wait_x_returns_whether_it_is_so
6, wait_* on timeout
  client/test_lifetime.py::test_wait_x_returns_false_after_its_timeout_and_leaves_nothing
6, until_* on timeout
  client/test_lifetime.py::test_until_x_fails_after_its_timeout
6, exit with setDaemon(True)
  client/test_lifetime.py::test_with_a_daemon_thread_the_interpreter_exits_at_once
6, fork: the parent, a new client
  client/test_lifetime.py::test_a_client_is_refused_in_a_forked_child
6, 20 cycles
  client/test_lifetime.py::test_a_hundred_cycles_leave_no_thread_and_no_descriptor
7, order
  client/test_lifetime.py::test_the_order_of_events_on_a_connection
7, order, on stop()
  client/test_lifetime.py::test_stop_notifies_too
7, raises on True
  client/test_lifetime.py::test_notify_that_raises_on_connect_closes_and_tries_again
7, raises on False
  client/test_lifetime.py::test_notify_that_raises_on_disconnect_is_logged_and_survived
8, names
  client/test_messages.py::test_messages_go_to_the_handler_of_their_name_else_to_unhandled
8, tables of the class
  state/test_handlers.py::test_methods_of_plain_mixin_classes_count
8, exception in reply_cb, inform_cb
  client/test_requests.py::test_what_callbacks_raise_is_logged_and_survived
8, the reply of a request handler
  client/test_messages.py::test_the_reply_of_a_request_handler_is_sent_with_the_requests_id
8, wrong reply name: nothing sent
  client/test_messages.py::test_a_wrong_reply_of_a_request_handler_is_logged_and_not_sent
8, when reading pauses
  client/test_messages.py::test_when_reading_pauses_for_a_handler_is_as_in_the_old_client
8, 8 threads
  client/test_requests.py::test_eight_threads_on_one_client_get_their_own_answers
9, unparsable
  client/test_messages.py::test_a_bad_line_is_logged_once_and_nothing_else_is_lost
9, empty line, \\n \\r\\n \\r, blanks
  client/test_messages.py::test_empty_and_blank_lines_are_ignored_and_each_terminator_ends_a_line
9, bytes that are not UTF-8
  client/test_messages.py::test_bytes_that_are_not_text_are_delivered_at_every_log_level
9, partial line at EOF
  client/test_messages.py::test_a_half_line_at_the_end_is_dropped_and_logged_once
9, byte by byte; 1000 in one segment
  client/test_messages.py::test_byte_by_byte_and_a_thousand_in_one_segment
9, a line as long as the limit
  client/test_messages.py::test_a_line_as_long_as_the_limit_is_delivered
9, a longer line
  client/test_messages.py::test_a_longer_line_closes_the_connection_and_names_the_limit
10, server does not read
  client/test_messages.py::test_writes_that_pile_up_hit_the_limit
10, one request above the limit
  client/test_requests.py::test_a_request_that_overflows_the_buffer_names_the_limit
10, send_message in the loop
  client/test_messages.py::test_send_message_in_the_loop_returns_a_future_and_send_request_none
11, arguments
  wire/test_message.py::test_what_an_argument_becomes
11, a list of bytes
  wire/test_message.py::test_arguments_are_a_list_of_ones_own
11, lone surrogate
  wire/test_message.py::test_a_lone_surrogate_is_replaced_and_reported
11, name of bytes
  wire/test_message.py::test_a_name_that_is_not_text_is_refused
11, mid
  wire/test_message.py::test_an_id_is_kept_as_bytes
11, mid refused
  wire/test_message.py::test_a_bad_id_is_refused
11, names refused
  wire/test_message.py::test_a_bad_name_is_refused
11, bytes(m)
  wire/test_message.py::test_serialise_vector
11, repr(m), cut at 1000
  wire/test_message.py::test_repr_shows_the_id_and_cuts_long_arguments
11, eq
  wire/test_message.py::test_messages_are_equal_if_all_their_parts_are
11, hash
  wire/test_message.py::test_a_message_is_not_hashable
11, __slots__
  wire/test_message.py::test_a_message_has_no_other_attributes
11, copy()
  wire/test_message.py::test_copy_drops_the_id_and_shares_nothing
11, reply_ok
  wire/test_message.py::test_only_a_reply_with_ok_is_ok
11, constants
  wire/test_message.py::test_the_constants_and_tables_are_those_of_the_old_package
11, unknown keyword
  wire/test_message.py::test_an_unknown_keyword_is_refused
12, make_threadsafe
  runtime/test_portal.py::test_a_threadsafe_method_returns_none_at_once_and_runs_in_the_loop
12, make_threadsafe_blocking
  runtime/test_portal.py::test_a_blocking_method_returns_what_it_returns_in_the_loop
12, ... raises
  runtime/test_portal.py::test_a_blocking_method_raises_what_it_raises_in_the_loop
12, ... default timeout
  runtime/test_portal.py::test_a_blocking_method_waits_5_seconds_if_not_told_otherwise
12, ... timeout=None
  runtime/test_portal.py::test_timeout_none_is_no_limit
12, in the loop
  runtime/test_portal.py::test_a_blocking_method_in_the_loop_is_called_directly
12, enable_thread_safety
  client/test_lifetime.py::test_thread_safety_is_enabled_before_start_only
12, blocking_request in the ioloop
  client/test_requests.py::test_blocking_request_in_the_ioloop_is_refused
12, request_check
  client/test_requests.py::test_request_check_raises_what_it_is_told_to

Rows marked "!" there, and what else is different on purpose, stand on the page
"Differences from katcp 0.9", with their tests.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import random
import re
import socket
import subprocess
import sys
import threading

import pytest

import katcp
from katcp import (
    AsyncClient,
    BlockingClient,
    CallbackClient,
    DeviceClient,
    KatcpClientDisconnected,
    Message,
    ProtocolFlags,
    make_threadsafe,
    make_threadsafe_blocking,
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

CLASSES = [DeviceClient, AsyncClient, CallbackClient, BlockingClient]


class Debugged(logging.Logger):
    """A logger at DEBUG that keeps its records to itself."""

    def __init__(self):
        super().__init__("debugged", logging.DEBUG)
        self.lines = []

    def handle(self, record):
        self.lines.append((record.levelname, record.getMessage()))


class Listener(BlockingClient):
    """Notes what its handlers of ``foo``, or the fallbacks, are called with."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = Recorder()

    def reply_foo(self, msg):
        self.seen("reply_foo", str(msg))

    def inform_foo(self, msg):
        self.seen("inform_foo", str(msg))

    def unhandled_reply(self, msg):
        self.seen("unhandled_reply", str(msg))

    def unhandled_inform(self, msg):
        if msg.name not in ("client-connected", "interface-changed"):
            self.seen("unhandled_inform", str(msg))


def until_echoed(client):
    """What the device sent before has been handled."""
    assert client.blocking_request(Message.request("echo"))[0].reply_ok()


def start_without_greeting(device, cls=BlockingClient, greeting=b"", **kwargs):
    """Start a client of a device that says only *greeting*."""
    client = start_client(device, cls, wait="connected", **kwargs)
    device.wait_for_client()
    device.send_raw(greeting)
    until_echoed(client)
    return client


# ---- 1. Replies that the client makes up itself ----


def test_1_stop_with_a_hundred_pending_of_each_kind(device):
    """1, stop(): 100 of 100 pending blocking and callback requests got their reply."""
    client = start_client(device)
    blocking, callback = Recorder(), Recorder()
    threads = [
        threading.Thread(
            target=lambda: blocking(*client.blocking_request(Message.request("silent"), timeout=60))
        )
        for _ in range(100)
    ]
    for thread in threads:
        thread.start()
    for _ in range(100):
        client.callback_request(Message.request("silent"), callback, timeout=60)
    device.wait_for_request("silent", count=200)
    client.stop()
    client.join()
    assert len(callback.calls) == 100
    for thread in threads:
        thread.join()
    assert len(blocking.calls) == 100
    text = r"!silent fail Client\_stopped\_before\_reply\_was\_received"
    assert set(texts([*blocking.messages, *callback.messages])) == {text}


def test_1_stop_while_four_threads_keep_asking(device):
    """1, stop() while 4 threads keep asking: none hangs, each is told why."""
    for _ in range(10):
        client = start_client(device)
        outcomes = Recorder()

        def keep_asking(client=client, outcomes=outcomes):
            try:
                while True:
                    reply, _ = client.blocking_request(Message.request("echo"), timeout=60)
                    if not reply.reply_ok():
                        return outcomes(reply.arguments[1].decode())
            except RuntimeError as error:
                return outcomes(str(error))

        threads = [threading.Thread(target=keep_asking) for _ in range(4)]
        for thread in threads:
            thread.start()
        device.wait_for_request("echo", count=4)
        client.stop()
        for thread in threads:
            thread.join()
        for (outcome,) in outcomes.calls:
            assert outcome in (
                "Client stopped before reply was received",
                "Connection closed before reply was received",
                f"Not connected to device {client.bind_address_string}",
                "The client is stopped: call start() before blocking_request()",
            )
        assert len(outcomes.calls) == 4


def test_1_stop_while_four_threads_keep_asking_with_callbacks(device):
    """1, stop() while 4 threads keep asking: each callback is called exactly once."""
    for _ in range(5):
        client = start_client(device)
        replies, asked = Recorder(), Recorder()
        slots = threading.Semaphore(20)

        def on_reply(msg, replies=replies, slots=slots):
            replies(msg)
            slots.release()

        def keep_asking(client=client, asked=asked, slots=slots, on_reply=on_reply):
            while slots.acquire(timeout=PATIENCE):
                try:
                    client.callback_request(Message.request("echo"), on_reply, timeout=60)
                except RuntimeError as error:
                    asked(str(error))
                    slots.release()
                    return
                asked("asked")

        threads = [threading.Thread(target=keep_asking) for _ in range(4)]
        for thread in threads:
            thread.start()
        replies.wait(4)
        client.stop()
        for thread in threads:
            thread.join()
        outcomes = [outcome for (outcome,) in asked.calls]
        refused = "The client is stopped: call start() before callback_request()"
        assert outcomes.count(refused) == 4
        assert len(replies.calls) == outcomes.count("asked") == len(outcomes) - 4


def test_1_late_answers_go_to_the_handlers_of_their_name(device):
    """1, late reply and informs of a timed-out request, with mids: to reply_NAME, inform_NAME."""
    held = Recorder()
    device.request(held, name="foo")
    client = start_client(device, Listener)
    assert client.blocking_request(Message.request("foo"), timeout=0.01)[0].local_error
    request = held.wait()[0][0]
    request.inform("late")
    request.reply("ok", "late")
    assert client.seen.wait(2) == [
        ("inform_foo", "#foo[1] late"),
        ("reply_foo", "!foo[1] ok late"),
    ]


@pytest.mark.parametrize("end", ["hang up", "disconnect", "stop", "stop in the loop"])
def test_1_order_at_disconnect(device, end):
    """1, order at disconnect: notify_connected(False), reply callbacks, then blocking callers.

    At stop() the reply callbacks come first.
    """
    order = []

    class Client(BlockingClient):
        def notify_connected(self, connected):
            order.append(connected)

    client = start_client(device, Client)
    client.auto_reconnect_delay = 1000
    order.clear()

    def ask():
        client.blocking_request(Message.request("hold"), timeout=60)
        order.append("blocking")

    thread = threading.Thread(target=ask)
    thread.start()
    device.next_held()
    for number in range(50):
        client.callback_request(
            Message.request("silent"), lambda msg, n: order.append(n), None, (number,), 60
        )
    device.wait_for_request("silent", count=50)
    ends = {
        "hang up": device.close_clients,
        "disconnect": client.disconnect,
        "stop": client.stop,
        "stop in the loop": lambda: client.ioloop.add_callback(client.stop),
    }
    ends[end]()
    thread.join()
    client.stop()
    if end in ("hang up", "disconnect"):
        assert order == [False, *range(50), "blocking"]
    else:
        assert order[:50] == [*range(50)]
        assert set(order[50:]) == {False, "blocking"}


# ---- 2. Requests when not connected / not started ----


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("name", ["request", "send_request", "send_message"])
def test_2_not_connected(logs, cls, name):
    """2, request, send_request, send_message, not connected: KatcpClientDisconnected."""
    port = closed_port()
    client = cls("127.0.0.1", port)
    client.auto_reconnect_delay = 1000
    client.start()
    logs.expect("Failed to connect")
    method = getattr(client, name)
    calls = [lambda msg: in_loop(client, method, msg)]
    if client.threadsafe:
        calls.append(method)
    for call in calls:
        with pytest.raises(KatcpClientDisconnected) as caught:
            call(Message.request("foo"))
        assert repr(caught.value) == (
            f"KatcpClientDisconnected('Not connected to device 127.0.0.1:{port}')"
        )
    client.stop()


@pytest.mark.parametrize("how", ["refused", "stopped"])
def test_2_join_again_after_the_end(device, logs, how):
    """2, after stop+join: join again returns None; versions and protocol_flags are kept."""
    client = start_client(device)
    if how == "stopped":
        client.stop()
    else:
        client._auto_reconnect = False
        device.close_clients()
    for _ in range(2):
        assert client.join(PATIENCE) is None
    assert client.running() is client.is_connected() is False
    assert str(client.protocol_flags) == "5.1-BIM"
    assert set(client.versions) == {"katcp-protocol", "katcp-library", "katcp-device"}


# ---- 3. Message ids ----


def test_3_use_mid_false(device):
    """3, use_mid=False on a server with ids: sent and matched without mid."""
    client = start_client(device)
    request = Message.request("count", 2)
    reply, informs = client.blocking_request(request, use_mid=False)
    assert [str(msg) for msg in (reply, *informs)] == ["!count ok 2", "#count 0", "#count 1"]
    assert device.wait_for_request("count").mid is request.mid is None


def test_3_automatic_mids_are_never_reset(device):
    """3, automatic mids: 1, 2, 3... per client object; the counter is never reset."""
    client = start_client(device)
    assert [client.request(Message.request("echo")) for _ in range(3)] == [b"1", b"2", b"3"]
    client.stop()
    client.start()
    assert client.wait_protocol(PATIENCE)
    assert client.request(Message.request("echo")) == b"4"
    assert start_client(device).request(Message.request("echo")) == b"1"


def test_3_the_message_is_mutated(device):
    """3, msg object: is mutated, msg.mid set; by each kind of request."""
    client = start_client(device)
    messages = [Message.request("echo") for _ in range(4)]
    client.request(messages[0])
    client.blocking_request(messages[1])
    in_loop(client, client.future_request, messages[2])
    replies = Recorder()
    client.callback_request(messages[3], replies)
    replies.wait()
    assert [msg.mid for msg in messages] == [b"1", b"2", b"3", b"4"]


# ---- 4. Matching replies and informs ----


def test_4_replies_that_nobody_asked_for(device):
    """4, unsolicited reply, unknown mid: reply_NAME handler else unhandled_reply."""
    client = start_client(device, Listener)
    device.send_raw(b"!foo ok\n!foo[99] ok\n!bar ok\n!bar[99] ok\n")
    assert client.seen.wait(4) == [
        ("reply_foo", "!foo ok"),
        ("reply_foo", "!foo[99] ok"),
        ("unhandled_reply", "!bar ok"),
        ("unhandled_reply", "!bar[99] ok"),
    ]


def test_4_informs_that_do_not_fit(device):
    """4, inform with unknown mid, or without while the request had one: handlers."""
    held = Recorder()
    device.request(held, name="foo")
    client = start_client(device, Listener)
    replies, informs = Recorder(), Recorder()
    client.callback_request(Message.request("foo"), replies, informs)
    client.callback_request(Message.request("hold"), replies, informs)
    held.wait()
    device.next_held()
    device.send_raw(b"#foo[99] 1\n#foo 2\n#hold[99] 3\n#hold 4\n#foo[1] 5\n!foo[1] ok\n")
    assert str(replies.wait()[0][0]) == "!foo[1] ok"
    assert [str(msg) for msg in informs.messages] == ["#foo[1] 5"]
    assert client.seen.calls == [
        ("inform_foo", "#foo[99] 1"),
        ("inform_foo", "#foo 2"),
        ("unhandled_inform", "#hold[99] 3"),
        ("unhandled_inform", "#hold 4"),
    ]


def test_4_v4_informs_go_to_the_oldest(device_v4):
    """4, v4, two same-name requests in flight: first in, first out; informs to the oldest."""
    client = start_client(device_v4)
    replies, informs = Recorder(), Recorder()
    for who in ("first", "second"):
        client.callback_request(Message.request("hold"), replies, informs, (who,))
    requests = [device_v4.next_held() for _ in range(2)]
    for request in requests:
        # Whichever request the device means: the oldest is the one that gets it.
        requests[1].inform("x")
        request.reply("ok")
    assert [who for _, who in replies.wait(2)] == ["first", "second"]
    assert [who for _, who in informs.calls] == ["first", "second"]


@pytest.mark.parametrize("arguments", [b"", b" fail", b" invalid word"])
def test_4_reply_with_few_arguments(device, arguments):
    """4 and 14, reply without arguments, fail without reason, invalid with a word: delivered."""
    client = start_client(device)

    @device.request
    def terse(request):
        request.send_raw(b"!terse[1]" + arguments + b"\n")

    reply, _ = client.blocking_request(Message.request("terse"))
    assert str(reply) == "!terse[1]" + arguments.decode()
    assert reply.reply_ok() is False
    assert reply.local_error is None


# ---- 5. Connecting, reconnecting ----


def test_5_log_at_the_end_of_the_connection(device, logs):
    """5, log, server EOF: nothing at INFO or above."""
    client = start_client(device)
    before = len(logs.records)
    for number in (2, 3):
        device.close_clients()
        device.wait_for_connection(number)
        until_answered(client)
    ours = [r for r in logs.records[before:] if r.name.startswith("katcp")]
    assert [logs.text_of(r) for r in ours if not r.name.startswith("katcp.simdevice")] == []


def test_5_log_of_a_reset(device, logs):
    """5, log, RST: WARNING "Client stream for server HOST:PORT closed with error ..."."""
    client = start_client(device)
    device.reset_clients()
    device.wait_for_connection(2)
    text = logs.expect("Client stream for server")
    assert text == (
        f"Client stream for server {client.bind_address_string} closed with error "
        "ConnectionResetError(104, 'Connection reset by peer')"
    )


def test_5_log_of_traffic(device):
    """5, log, connected and traffic: DEBUG, in these words."""
    logger = Debugged()
    client = start_client(device, Listener, logger=logger)
    client.blocking_request(Message.request("echo", "a b"))
    server, local = client.bind_address_string, client.sockname_string
    device.send_raw(b"#foo 1\n")
    client.seen.wait()
    for text in (
        f"Connected to {server} with client addr {local}",
        f"Sending to {server}: b'?echo[1] a\\\\_b\\n'",
        f"received from {server}: '!echo[1] ok a\\\\_b'",
        f"received from {server}: '#foo 1'",
    ):
        assert ("DEBUG", text) in logger.lines


def test_5_log_of_the_end(device, logs):
    """5, log, end: INFO of katcp.client and katcp.ioloop_manager."""
    client = start_client(device)
    loop = client.ioloop
    client.stop()
    found = [
        (record.name, record.levelname, record.msg)
        for record in logs.records
        if record.name in ("katcp.client", "katcp.ioloop_manager")
    ]
    assert found[-3:] == [
        (
            "katcp.client",
            "INFO",
            f"Client connect loop for ('127.0.0.1', {client.bind_address[1]}) finished.",
        ),
        ("katcp.ioloop_manager", "INFO", f"Stopping ioloop {loop!r}"),
        ("katcp.ioloop_manager", "INFO", f"Managed tornado IOloop {loop!r} stopped"),
    ]


def test_5_the_same_protocol_inform_twice():
    """5, protocol inform: the same inform twice is harmless."""
    greeting = b"#version-connect katcp-protocol 5.0-IM\n"
    with TestDevice(faults=["no-greeting"]) as device:
        client = start_without_greeting(device, greeting=2 * greeting)
        assert str(client.protocol_flags) == "5.0-IM"
        assert client.is_connected()
        assert device.connection_count == 1


def test_5_preset_flags_warning(logs):
    """5, preset_protocol_flags: other informs are ignored with this WARNING."""
    with TestDevice(faults=["no-greeting"]) as device:
        client = start_client(device, wait="connected")
        client.preset_protocol_flags(ProtocolFlags(5, 0, [b"M"]))
        device.wait_for_client()
        device.send_raw(b"#version-connect katcp-protocol 5.0-IM\n")
        until_echoed(client)
        assert logs.expect("Protocol Version Warning") == (
            "Protocol Version Warning: Ignoring inform received from server indicating a katcp "
            "protocol revision inconsistent with the static configuration. Static configuration: "
            "'5.0-M'.Inform received: '#version-connect katcp-protocol 5.0-IM'"
        )
        assert str(client.protocol_flags) == "5.0-M"
        assert client.versions == {"katcp-protocol": ("5.0-IM",)}


@pytest.mark.parametrize("host", ["", None])
def test_5_no_host(device, host):
    """5, host '' or None: ('0.0.0.0', port), and it connects; port as str works."""
    client = BlockingClient(host, str(device.address[1]))
    client.start()
    assert client.wait_protocol(PATIENCE)
    assert client.bind_address == ("0.0.0.0", device.address[1])
    assert client.bind_address_string == f"0.0.0.0:{device.address[1]}"
    client.stop()


# ---- 6. start, stop, join, wait_*, until_* ----


def test_6_start_with_a_timeout_and_no_server(logs):
    """6, start(timeout=1), no server: waits for running, not connected; returns None."""
    client = BlockingClient("127.0.0.1", closed_port())
    client.auto_reconnect_delay = 1000
    assert client.start(timeout=PATIENCE) is None
    assert client.running()
    assert not client.is_connected()
    logs.expect("Failed to connect")
    client.stop()


def test_6_stop_in_the_unmanaged_loop(device, ioloop):
    """6, stop() in the unmanaged loop: returns at once, running() still True."""
    client = AsyncClient(*device.address)
    client.set_ioloop(ioloop)

    async def use():
        client.start()
        await client.until_protocol()
        assert client.stop() is None
        assert client.running() is True
        assert await client.until_stopped() is True
        assert client.running() is False
        # The loop goes on.
        client.start()
        await client.until_protocol()
        client.stop()
        await client.until_stopped()

    ioloop.run_sync(use, timeout=PATIENCE)
    assert client.join() is None


def test_6_stop_of_an_unmanaged_client_leaves_the_loop(device):
    """6, stop() from another thread, unmanaged loop: the loop goes on; join() returns None."""
    owner = start_client(device)
    client = CallbackClient(*device.address)
    client.set_ioloop(owner.ioloop)
    client.start()
    assert client.wait_protocol(PATIENCE)
    client.stop()
    assert client.join() is None
    assert not client.running()
    until_echoed(owner)


def test_6_exit_without_stop(device):
    """6, interpreter exit without stop(): a running client keeps the interpreter alive."""
    program = f"""
import katcp, sys, threading

class Client(katcp.BlockingClient):
    def inform_bye(self, msg):
        # The main thread has ended, and the client is still here.
        threading.main_thread().join()
        self.send_message(katcp.Message.inform("main-thread-ended"))
        self.stop()

client = Client({device.address[0]!r}, {device.address[1]})
client.start()
assert client.wait_protocol({PATIENCE})
client.blocking_request(katcp.Message.request("echo"))
sys.exit(0)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    try:
        device.wait_for_request("echo")
        device.send_raw(b"#bye\n")
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (0, b"")
    assert "#main-thread-ended" in [str(msg) for msg in device.received]


def test_6_set_daemon(device):
    """6, setDaemon: on CallbackClient and BlockingClient only; after start silently no effect."""
    assert [hasattr(cls, "setDaemon") for cls in CLASSES] == [False, False, True, True]
    client = start_client(device)
    (thread,) = (t for t in threading.enumerate() if t.ident == client.ioloop_thread_id)
    assert client.setDaemon(True) is None
    assert thread.daemon is False


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system has no /proc")
def test_6_cycles_leave_nothing(device):
    """6, 20 start/stop cycles: no thread or fd left."""
    start_client(device).stop()
    device.wait_until(lambda: device.client_count == 0)
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        client = start_client(device)
        client.stop()
        client.join()
    device.wait_until(lambda: device.client_count == 0)
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


# ---- 7. notify_connected ----


def test_7_notify_that_blocks(device):
    """7, notify_connected blocks: delays everything."""

    class Client(BlockingClient):
        entered, go_on = threading.Event(), threading.Event()

        def notify_connected(self, connected):
            self.entered.set()
            assert self.go_on.wait(PATIENCE)

    client = start_client(device, Client, wait=None)
    device.wait_for_client()
    assert client.entered.wait(PATIENCE)
    assert client.is_connected()
    assert client.protocol_flags is None
    client.go_on.set()
    assert client.wait_protocol(PATIENCE)


def test_7_in_the_ioloop_thread(device):
    """7, order: notify_connected runs in the ioloop thread; is_connected is True, then False."""
    calls = []

    class Client(BlockingClient):
        def notify_connected(self, connected):
            calls.append((connected, self.is_connected(), threading.get_ident()))

    client = start_client(device, Client)
    ident = client.ioloop_thread_id
    client.stop()
    assert calls == [(True, True, ident), (False, False, ident)]


# ---- 8. Handlers ----


def test_8_names(device):
    """8, names: attributes set on an instance do not count; class dicts hold the handlers."""
    client = start_client(device, Listener)
    client.inform_bar = client.reply_bar = lambda msg: client.seen("of the instance")
    device.send_raw(b"#bar 1\n!bar ok\n#foo 1\n")
    assert client.seen.wait(3) == [
        ("unhandled_inform", "#bar 1"),
        ("unhandled_reply", "!bar ok"),
        ("inform_foo", "#foo 1"),
    ]
    assert Listener._inform_handlers["foo"] is Listener.inform_foo
    assert Listener._reply_handlers["foo"] is Listener.reply_foo
    assert {"version-connect", "version", "build-state"} <= set(DeviceClient._inform_handlers)
    assert DeviceClient._reply_handlers == DeviceClient._request_handlers == {}


def test_8_exceptions_of_handlers(device, logs):
    """8, exception in a handler or unhandled_*: ERROR "Inform NAME FAIL: TRACEBACK"."""

    class Client(BlockingClient):
        def fail(self, msg):
            raise ValueError(f"of {msg.name}")

        inform_bad = reply_bad = request_bad = fail
        unhandled_reply = unhandled_request = fail

        def unhandled_inform(self, msg):
            if msg.name == "worse":
                self.fail(msg)

    client = start_client(device, Client)
    device.send_raw(b"#bad\n!bad ok\n?bad\n#worse\n!worse ok\n?worse\n")
    for kind in ("Inform", "Reply", "Request"):
        for name in ("bad", "worse"):
            text = logs.expect(f"{kind} {name} FAIL: ", logging.ERROR)
            # A blank line after each frame.
            assert re.fullmatch(
                rf"{kind} {name} FAIL: Traceback \(most recent call last\):\n"
                r'(\n  File ".*", line \d+, in \w+\n    .*\n(    [ ~^]+\n)?)+'
                rf"\nValueError: of {name}\n",
                text,
            ), text
    until_echoed(client)
    # The connection survived, and no reply was sent.
    assert device.connection_count == 1
    assert [str(msg.copy()) for msg in device.received] == ["?echo"]


def test_8_eight_threads_and_a_device_that_takes_its_time(device):
    """8, 8 threads x 50 blocking requests with random server delays: 400 right answers."""
    client = start_client(device)
    seeded = random.Random(8)

    @device.request
    async def jumble(request, nonce):
        await asyncio.sleep(seeded.random() / 500)
        return "ok", nonce

    right = Recorder()

    def ask(who):
        for number in range(50):
            nonce = b"%d-%d" % (who, number)
            reply, _ = client.blocking_request(Message.request("jumble", nonce), timeout=60)
            right(reply.arguments == [b"ok", nonce])

    threads = [threading.Thread(target=ask, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right.calls == [(True,)] * 400


# ---- 9. Lines from the server ----


def test_9_names(device, logs):
    """9, names: upper case and trailing dash accepted, _ refused."""
    client = start_client(device, Listener)
    device.send_raw(b"#UPPER\n#dash-\n#under_score\n#last\n")
    assert [text for _, text in client.seen.wait(3)] == ["#UPPER", "#dash-", "#last"]
    text = logs.expect("BAD COMMAND: Traceback (most recent call last):", logging.ERROR)
    assert "Bad message name (and possibly id) 'under_score'." in text


def test_9_bad_lines_and_pending_requests(device, logs):
    """9, unparsable: connection and other requests unharmed."""
    client = start_client(device)
    replies = Recorder()
    client.callback_request(Message.request("hold"), replies)
    held = device.next_held()
    device.send_raw(b"!hold[1] \\q\n")
    logs.expect("KatcpSyntaxError: Invalid escape character b'q'.", logging.ERROR)
    held.reply("ok")
    assert str(replies.wait()[0][0]) == "!hold[1] ok"
    assert device.connection_count == 1


# ---- 10. Writing ----


def test_10_a_request_just_below_the_limit():
    """10, one request to a reading server: 3.9 MiB passes."""
    msg = Message.request("large", b"x" * int(3.9 * 2**20))
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = CallbackClient(*server.getsockname())
        client.start()
        peer, _ = server.accept()
        assert client.wait_connected(PATIENCE)
        replies = Recorder()
        client.callback_request(msg, replies, timeout=60)
        with peer, peer.makefile("rb") as lines:
            assert len(lines.readline()) == len(bytes(msg)) + 1
            peer.sendall(b"!large ok\n")
            assert str(replies.wait()[0][0]) == "!large ok"
            client.stop()


# ---- 12. Threads; request_check ----


class Worker(CallbackClient):
    """Methods that want to run in the loop."""

    @make_threadsafe
    def fail(self):
        raise ValueError("in the loop")

    @make_threadsafe_blocking
    def never(self):
        return self.until_disconnected()


def test_12_make_threadsafe_exception(device, logs):
    """12, make_threadsafe: returns None at once; tornado.application ERROR."""
    client = start_client(device, Worker)
    assert client.fail() is None
    in_loop(client, lambda: None)
    (record,) = logs.matching("Exception in callback")
    assert record.name == "tornado.application"
    logs.expect("ValueError: in the loop", logging.ERROR)


def test_12_make_threadsafe_blocking_timeout(device):
    """12, make_threadsafe_blocking: after the timeout concurrent.futures.TimeoutError('')."""
    client = start_client(device, Worker)
    with pytest.raises(concurrent.futures.TimeoutError) as caught:
        client.never(timeout=0.01)
    assert str(caught.value) == ""


def test_12_decorated_methods_of_the_base_classes(device):
    """12, enable_thread_safety: request, send_message, callback_request, disconnect."""
    client = AsyncClient(*device.address)
    client.enable_thread_safety()
    client.start()
    assert client.wait_protocol(PATIENCE)
    assert client.request(Message.request("echo")) == b"1"
    assert client.send_message(Message.request("echo")) is None
    replies = Recorder()
    assert client.callback_request(Message.request("echo"), replies) is None
    replies.wait()
    assert client.disconnect() is None
    device.wait_for_connection(2)
    client.stop()


def test_12_blocking_request_in_the_ioloop(device):
    """12, blocking_request in the ioloop: AssertionError, which begins with these words."""
    client = start_client(device)
    with pytest.raises(AssertionError) as caught:
        in_loop(client, client.blocking_request, Message.request("echo"))
    assert str(caught.value).startswith("Cannot call blocking_request() in ioloop")


def test_12_request_check(device, logs):
    """12, request_check: the text of the exception; timeout and not-connected likewise."""
    client = start_client(device)
    server = client.bind_address_string

    @device.request
    def bad(request, *args):
        return "fail", "it is bad"

    for name, args, kwargs, reply, request in [
        ("bad", ("a b", 1), {}, r"!bad[1] fail it\_is\_bad", r"?bad[1] a\_b 1"),
        (
            "silent",
            (),
            {"timeout": 0},
            r"!silent[2] fail Request\_silent\_timed\_out",
            "?silent[2]",
        ),
    ]:
        with pytest.raises(ValueError, match="Unexpected failure reply") as caught:
            katcp.request_check(client, ValueError, name, *args, **kwargs)
        text = str(caught.value)
        assert text.startswith(f'Unexpected failure reply "{reply}')
        assert text.endswith(f'"\n with device at {server}, request \n"{request}"')
    absent = closed_port()
    client = BlockingClient("127.0.0.1", absent)
    client.auto_reconnect_delay = 1000
    client.start()
    logs.expect("Failed to connect")
    with pytest.raises(ValueError, match="Unexpected failure reply") as caught:
        katcp.request_check(client, ValueError, "bad")
    assert str(caught.value) == (
        rf'Unexpected failure reply "!bad fail Not\_connected\_to\_device\_127.0.0.1:{absent}"'
        f'\n with device at 127.0.0.1:{absent}, request \n"?bad"'
    )
    client.stop()


# ---- 14. Real servers with this client ----


@pytest.mark.parametrize(
    ("greeting", "flags", "roles"),
    [
        (
            b"#version-connect katcp-protocol 5.0-IM\n"
            b"#version-connect katcp-library katcp-python-0.9.3 katcp-python-0.9.3\n"
            b"#version-connect katcp-device deviceapi-1.0 device-1.0\n",
            "5.0-IM",
            {"katcp-protocol", "katcp-library", "katcp-device"},
        ),
        (b"#version deviceapi-1.0\n#build-state device-1.0\n", "4.0", set()),
        (b"#version-connect katcp-protocol 5.1-IMT\n", "5.1-IMT", {"katcp-protocol"}),
        (b"#version-connect katcp-protocol 5.1-MIB\n", "5.1-BIM", {"katcp-protocol"}),
        (
            b"#version-connect mylabel 0.1\n"
            b"#version-connect katcp-library katcp_devel-4.9\n"
            b"#version-connect katcp-protocol 5.0-M\n"
            b"#version-connect kernel 6.1\n",
            "5.0-M",
            {"mylabel", "katcp-library", "katcp-protocol", "kernel"},
        ),
    ],
    ids=["katcp-0.9.3", "katcp-v4", "katcp-5.1-IMT", "aiokatcp", "katcp_devel-5.0"],
)
def test_14_greetings(greeting, flags, roles):
    """14, real servers: flags and versions of their greetings."""
    with TestDevice(faults=["no-greeting"]) as device:
        client = start_without_greeting(device, greeting=greeting)
        assert client.wait_protocol(PATIENCE)
        assert str(client.protocol_flags) == flags
        assert set(client.versions) == roles
        reply, _ = client.blocking_request(Message.request("echo", "x"))
        assert reply.arguments == [b"ok", b"x"]
        assert (reply.mid is not None) == ("I" in flags)


@pytest.mark.parametrize("request_name", ["restart", "halt"])
def test_14_katcp_ends(device, request_name):
    """14, katcp 0.9.3 restart and halt: !x ok, then #disconnect, then EOF."""
    client = start_client(device, Listener)

    @device.request(name=f"{request_name}-like-katcp")
    def end(request):
        request.reply("ok")
        device.send_raw(b"#disconnect Device\\_server\\_shutting\\_down.\n")
        device.close_clients()

    reply, _ = client.blocking_request(Message.request(f"{request_name}-like-katcp"))
    assert reply.reply_ok()
    text = r"#disconnect Device\_server\_shutting\_down."
    assert client.seen.wait() == [("unhandled_inform", text)]
    device.wait_for_connection(2)
    until_answered(client)


def test_14_a_server_without_ids_that_echoes_one(device_v4):
    """14, katcp v4: echoes a mid all the same if one is sent."""
    client = start_client(device_v4, Listener)

    @device_v4.request
    def foo(request):
        request.send_raw(b"!foo[5] ok\n")

    client.send_message(Message.request("foo", mid=5))
    assert client.seen.wait() == [("reply_foo", "!foo[5] ok")]


@pytest.mark.parametrize("protocol", ["5.0-M", "5.1-MIB"])
def test_14_log_informs_in_between(protocol):
    """14, C katcp_devel: #log informs mixed in go to their handler, not to the request."""

    class Client(Listener):
        def inform_log(self, msg):
            self.seen(str(msg))

    with TestDevice(protocol=protocol) as device:
        client = start_client(device, Client)

        @device.request
        def noisy(request):
            request.inform("first")
            device.send_raw(b"#log info 1.0 dev between\n")
            request.inform("second")
            return "ok", 2

        reply, informs = client.blocking_request(Message.request("noisy"))
        assert texts([*informs, reply]) == ["#noisy first", "#noisy second", "!noisy ok 2"]
        assert client.seen.wait() == [("#log info 1.0 dev between",)]


def test_14_a_server_that_closes_on_what_it_cannot_read(device):
    """14, C katcp_devel: a request that the server refuses to read closes the connection."""
    client = start_client(device)

    @device.request
    def unreadable(request):
        device.close_clients()

    reply, _ = client.blocking_request(Message.request("unreadable"), timeout=60)
    assert texts([reply]) == [r"!unreadable fail Connection\_closed\_before\_reply\_was\_received"]
    device.wait_for_connection(2)
    until_answered(client)
