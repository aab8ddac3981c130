"""Servers that go away and come back, while somebody waits for them."""

from __future__ import annotations

import pytest

from katcp import KatcpClientDisconnected, Message
from tests.interop.peers import AIOKATCP, KATCP_V4, KATCP_V51, Kind
from tests.support.helpers import PATIENCE, Recorder, texts, until_answered


def take_out_records_of_outage(logs):
    """The first failed attempt is logged; what else is depends on when the server went."""
    logs.expect("Failed to connect")
    for text in ("closed with error", "Failed to connect", "Reconnected to"):
        for record in logs.matching(text):
            logs.expect(text, record.levelno)


def assert_disconnected(reply, text):
    """The client made the reply up, and says why."""
    assert not reply.reply_ok()
    assert isinstance(reply.local_error, KatcpClientDisconnected)
    assert text in reply.arguments[1].decode()


def test_a_server_that_is_killed_and_started_again(own_peer, start_peer, connect, logs):
    client = connect(own_peer)
    in_flight = [Recorder() for _ in range(8)]
    informs = Recorder()
    for replies in in_flight:
        client.callback_request(Message.request("hold"), reply_cb=replies, inform_cb=informs)
    informs.wait(1)
    own_peer.kill()
    for replies in in_flight:
        ((reply,),) = replies.wait(1)
        assert_disconnected(reply, "Connection closed before reply was received")
    assert client.wait_disconnected(PATIENCE)
    reply, _ = client.blocking_request(Message.request("echo"))
    assert_disconnected(reply, "Not connected to device 127.0.0.1")
    start_peer(own_peer.kind, own_peer.port)
    until_answered(client)
    assert str(client.protocol_flags) == own_peer.kind.flags
    assert client.versions == own_peer.kind.versions
    reply, _ = client.blocking_request(Message.request("sensor-sampling", "a.count", "event"))
    assert reply.reply_ok()
    client.sensor_updates.wait(1)
    assert client.connections.messages == [True, False, True]
    assert all(len(replies.calls) == 1 for replies in in_flight)
    take_out_records_of_outage(logs)


@pytest.mark.parametrize(
    ("before", "after"),
    [(KATCP_V4, AIOKATCP), (AIOKATCP, KATCP_V4), (KATCP_V4, KATCP_V51)],
    ids=lambda kind: kind.name,
)
def test_a_server_that_comes_back_as_another(before: Kind, after: Kind, start_peer, connect, logs):
    peer = start_peer(before)
    client = connect(peer)
    peer.kill()
    assert client.wait_disconnected(PATIENCE)
    start_peer(after, peer.port)
    until_answered(client)
    assert str(client.protocol_flags) == after.flags
    reply, informs = client.blocking_request(Message.request("count", 2))
    assert texts([*informs, reply]) == ["#count 0", "#count 1", "!count ok 2"]
    assert (reply.mid is not None) == after.has_ids
    assert client.versions == after.versions
    take_out_records_of_outage(logs)


def test_a_server_that_is_halted_answers_first(own_peer, start_peer, connect, logs):
    client = connect(own_peer)
    reply, _ = client.blocking_request(Message.request("halt"))
    assert reply.reply_ok()
    assert client.wait_disconnected(PATIENCE)
    own_peer.end()
    start_peer(own_peer.kind, own_peer.port)
    until_answered(client)
    take_out_records_of_outage(logs)


def test_a_client_that_disconnects_is_welcome_again(peer, connect):
    client = connect(peer)
    client.disconnect()
    client.connections.wait(3)
    until_answered(client)
    assert client.connections.messages == [True, False, True]
    assert client.versions == peer.kind.versions
