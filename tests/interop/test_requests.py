"""Requests of each kind, with ids and without: every one gets its own answer."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from tornado import gen

from katcp import AsyncClient, KatcpClientTimeout, KatcpVersionError, Message
from tests.interop.peers import AIOKATCP, KATCP_KINDS, KATCP_V4, only
from tests.support.helpers import PATIENCE, Recorder, in_loop, texts, until_answered

MEBIBYTE = 1024 * 1024
EVERY_BYTE = bytes(range(256))
EVERY_ASCII = bytes(range(128))
# Each of them takes two bytes on the wire.
ESCAPED_BYTES = b"\\ \0\n\r\x1b\t"
# Until a request that is not answered times out.
SHORT = 0.2


@pytest.fixture(params=[None, False], ids=["ids-as-announced", "without-ids"])
def use_mid(request):
    """Whether requests carry an id."""
    return request.param


def echo(client, *arguments, **kwargs):
    """Return what a ``?echo`` of the arguments is answered with."""
    reply, informs = client.blocking_request(Message.request("echo", *arguments), **kwargs)
    assert reply.reply_ok(), reply
    assert not informs
    return reply.arguments[1:]


# ---- the three kinds ----


def test_blocking_request(peer, connect, use_mid):
    client = connect(peer)
    reply, informs = client.blocking_request(Message.request("count", 3), use_mid=use_mid)
    assert texts([reply]) == ["!count ok 3"]
    assert texts(informs) == ["#count 0", "#count 1", "#count 2"]
    assert (reply.mid is not None) == (peer.kind.has_ids and use_mid is None)
    assert {inform.mid for inform in informs} == {reply.mid}


def test_callback_request(peer, connect, use_mid):
    client = connect(peer)
    calls = Recorder()
    client.callback_request(
        Message.request("count", 2),
        reply_cb=calls,
        inform_cb=calls,
        user_data=("mine",),
        use_mid=use_mid,
    )
    calls.wait(3)
    assert texts(calls.messages) == ["#count 0", "#count 1", "!count ok 2"]
    assert {user_data for _, user_data in calls.calls} == {"mine"}


def test_future_request(peer, connect, use_mid):
    client = connect(peer)
    request = Message.request("count", 2)
    reply, informs = in_loop(client, client.future_request, request, use_mid=use_mid)
    assert texts([reply, *informs]) == ["!count ok 2", "#count 0", "#count 1"]


@only([KATCP_V4])
def test_an_id_where_there_are_none_is_refused_before_it_is_sent(peer, connect):
    client = connect(peer)
    reply, _ = client.blocking_request(Message.request("echo"), use_mid=True)
    assert not reply.reply_ok()
    assert isinstance(reply.local_error, KatcpVersionError)
    assert echo(client, "next") == [b"next"]


def test_several_clients_share_an_ioloop(peer, ioloop):
    async def use_all():
        clients = [AsyncClient(*peer.address, timeout=PATIENCE) for _ in range(5)]
        for client in clients:
            client.set_ioloop(ioloop)
            client.start()
        await gen.multi([client.until_protocol(PATIENCE) for client in clients])
        answers = await gen.multi(
            [
                client.future_request(Message.request("echo", number, turn))
                for turn in range(20)
                for number, client in enumerate(clients)
            ]
        )
        for client in clients:
            client.stop()
        await gen.multi([client.until_stopped(PATIENCE) for client in clients])
        return [str(reply.copy()) for reply, _ in answers]

    expected = [f"!echo ok {number} {turn}" for turn in range(20) for number in range(5)]
    assert ioloop.run_sync(use_all, timeout=PATIENCE) == expected


# ---- many, and large ones ----


def ask_from_eight_threads(client, use_mid):
    """Let each thread see that its replies, and the informs before them, are its own."""

    def ask(thread):
        for turn in range(50):
            assert echo(client, thread, turn, use_mid=use_mid) == [b"%d" % thread, b"%d" % turn]
            request = Message.request("count", thread)
            reply, informs = client.blocking_request(request, use_mid=use_mid)
            assert texts([reply]) == [f"!count ok {thread}"]
            assert texts(informs) == [f"#count {number}" for number in range(thread)]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(8)))


def test_eight_threads(peer, connect):
    ask_from_eight_threads(connect(peer), use_mid=None)


# Not with aiokatcp: it answers in any order, which only ids can tell apart.
@only(KATCP_KINDS)
def test_eight_threads_without_ids(peer, connect):
    ask_from_eight_threads(connect(peer), use_mid=False)


@pytest.mark.parametrize(
    "argument",
    [
        pytest.param(EVERY_ASCII * (MEBIBYTE // len(EVERY_ASCII)), id="ascii"),
        pytest.param("°µé☉🛰".encode() * (MEBIBYTE // 13 + 1), id="utf-8"),
    ],
)
def test_a_mebibyte_there_and_back(peer, connect, argument, use_mid):
    client = connect(peer)
    assert echo(client, argument, use_mid=use_mid) == [argument]
    assert echo(client, "small", use_mid=use_mid) == [b"small"]


# Fewer, since katcp takes ten seconds to read a million of them.
def test_bytes_that_must_be_escaped_there_and_back(peer, connect, use_mid):
    argument = ESCAPED_BYTES * 10_000
    assert echo(connect(peer), argument, use_mid=use_mid) == [argument]


def test_a_mebibyte_of_every_byte_from_the_server(peer, connect, use_mid):
    count = MEBIBYTE // len(EVERY_BYTE)
    reply, _ = connect(peer).blocking_request(Message.request("every-byte", count), use_mid=use_mid)
    assert reply.arguments == [Message.OK, EVERY_BYTE * count]


@only([AIOKATCP])
def test_a_mebibyte_of_every_byte_there_and_back(peer, connect, use_mid):
    argument = EVERY_BYTE * (MEBIBYTE // len(EVERY_BYTE))
    assert echo(connect(peer), argument, use_mid=use_mid) == [argument]


# On Python 3 it stops to read a client that sends what is no UTF-8, and leaves it connected.
@only(KATCP_KINDS)
def test_a_katcp_server_that_reads_no_more_is_given_another_connection(peer, connect, use_mid):
    client = connect(peer)
    request = Message.request("echo", b"\xff")
    reply, _ = client.blocking_request(request, timeout=SHORT, use_mid=use_mid)
    assert isinstance(reply.local_error, KatcpClientTimeout)
    client.disconnect()
    client.connections.wait(3)
    assert until_answered(client)
    assert echo(client, "next", use_mid=use_mid) == [b"next"]


def test_many_arguments_some_of_them_empty(peer, connect):
    arguments = [b"", b"[1]", b"?", b"\\@", "é".encode(), b""] * 1000
    assert echo(connect(peer), *arguments) == arguments


# ---- late answers ----


def hold(client, name, use_mid, timeout=PATIENCE):
    """Send a ``?hold``; return its replies and its inform, which says that the server has it."""
    replies, informs = Recorder(), Recorder()
    client.callback_request(
        Message.request("hold", name),
        reply_cb=replies,
        inform_cb=informs,
        timeout=timeout,
        use_mid=use_mid,
    )
    return replies, informs


def release(client):
    """Let the server answer the oldest ``?hold`` that it has begun with, or the next one."""
    assert client.blocking_request(Message.request("release"))[0].reply_ok()


def test_a_reply_after_the_timeout_is_nobody_elses(peer, connect, use_mid):
    client, other = connect(peer), connect(peer)
    late, _ = hold(client, "late", use_mid, timeout=SHORT)
    ((reply,),) = late.wait(1)
    assert isinstance(reply.local_error, KatcpClientTimeout)
    assert "timed out after 0.2" in reply.arguments[1].decode()
    second, _ = hold(client, "second", use_mid)
    release(other)
    client.unclaimed.wait(1)
    release(other)
    second.wait(1)
    assert texts(second.messages) == ["!hold ok second"]
    assert texts(client.unclaimed.messages) == ["!hold ok late"]
    assert echo(client, "after", use_mid=use_mid) == [b"after"]
    assert len(late.calls) == 1


def test_a_quick_reply_is_not_taken_for_the_slow_one(peer, connect, use_mid):
    client, other = connect(peer), connect(peer)
    slow, informs = hold(client, "slow", use_mid)
    informs.wait(1)
    assert texts(informs.messages) == ["#hold held slow"]
    quick = Recorder()
    client.callback_request(Message.request("echo", "quick"), reply_cb=quick, use_mid=use_mid)
    # katcp answers one client's requests in turn, aiokatcp in any order.
    if peer.kind.is_concurrent:
        quick.wait(1)
        assert not slow.calls
    release(other)
    slow.wait(1)
    quick.wait(1)
    assert texts(slow.messages) == ["!hold ok slow"]
    assert texts(quick.messages) == ["!echo ok quick"]


def test_a_server_that_stands_still_for_a_while(own_peer, connect, use_mid):
    client = connect(own_peer)
    own_peer.process.send_signal(signal.SIGSTOP)
    reply, _ = client.blocking_request(
        Message.request("echo", "late"), timeout=SHORT, use_mid=use_mid
    )
    assert isinstance(reply.local_error, KatcpClientTimeout)
    own_peer.process.send_signal(signal.SIGCONT)
    assert echo(client, "next", use_mid=use_mid) == [b"next"]
    assert texts(client.unclaimed.messages) == ["!echo ok late"]


# ---- failures ----


def refused(client, *request, use_mid):
    """Return code and reason of a reply that the server refused a request with."""
    reply, _ = client.blocking_request(Message.request(*request), use_mid=use_mid)
    assert not reply.reply_ok()
    assert reply.local_error is None
    code, reason, *_ = reply.arguments
    return code, reason.decode()


def test_failures_come_as_the_server_put_them(peer, connect, use_mid):
    client = connect(peer)
    assert refused(client, "refuse", use_mid=use_mid) == (b"fail", "not today")
    code, _ = refused(client, "sensor-value", "nosuch", use_mid=use_mid)
    assert code == b"fail"
    code, reason = refused(client, "nosuch", use_mid=use_mid)
    assert code == b"invalid"
    assert "nknown request" in reason
    assert echo(client, "next", use_mid=use_mid) == [b"next"]


def test_a_traceback_of_many_lines_is_one_reason(peer, connect, use_mid):
    client = connect(peer)
    code, reason = refused(client, "crash", use_mid=use_mid)
    assert code == b"fail"
    assert reason.startswith("Traceback (most recent call last):\n")
    assert "ValueError: crashed on purpose\n" in reason
    assert echo(client, "next", use_mid=use_mid) == [b"next"]
