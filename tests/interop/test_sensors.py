"""What a server says of itself: its greeting, its requests, its sensors and their samples."""

from __future__ import annotations

import time

from katcp import Message
from tests.interop.peers import AIOKATCP, KATCP_V4, KATCP_V5, KATCP_V51, only
from tests.support.helpers import texts


def ask(client, *request):
    """Return the informs of a request that must succeed, and what its reply holds after ok."""
    reply, informs = client.blocking_request(Message.request(*request))
    assert reply.reply_ok(), reply
    return informs, reply.arguments[1:]


def readings(messages):
    """Return name, status and value of sensor-status and sensor-value informs."""
    assert all(message.arguments[1] == b"1" for message in messages)
    return [tuple(message.arguments[2:]) for message in messages]


def in_server_time(client, seconds):
    """Return seconds as the server writes them: as a number of its own unit."""
    return float(client.convert_seconds(seconds))


# ---- the greeting and the requests ----


def test_the_greeting_is_understood(peer, connect):
    client = connect(peer)
    assert str(client.protocol_flags) == peer.kind.flags
    # Whatever of the greeting follows what decided the protocol stands before the first reply.
    ask(client, "watchdog")
    assert client.versions == peer.kind.versions


@only([KATCP_V5, KATCP_V51, AIOKATCP])
def test_the_version_list_repeats_the_greeting(peer, connect):
    informs, (count,) = ask(connect(peer), "version-list")
    assert int(count) == len(informs) == 3
    listed = {inform.arguments[0].decode(): inform.arguments[1].decode() for inform in informs}
    assert listed == {role: texts[0] for role, texts in peer.kind.versions.items()}


def test_help_lists_the_requests(peer, connect):
    client = connect(peer)
    informs, (count,) = ask(client, "help")
    assert int(count) == len(informs)
    names = {inform.arguments[0] for inform in informs}
    assert {b"help", b"watchdog", b"sensor-list", b"echo", b"hold"} <= names
    assert (b"version-list" in names) == (peer.kind.major >= 5)
    informs, _ = ask(client, "help", "echo")
    assert texts(informs) == ["#help echo Reply\\_the\\_arguments."]


@only([KATCP_V51])
def test_timeout_hints(peer, connect):
    client = connect(peer)
    assert client.protocol_flags.request_timeout_hints
    informs, (count,) = ask(client, "request-timeout-hint", "echo")
    assert int(count) == len(informs) == 1
    assert texts(informs) == ["#request-timeout-hint echo 0.0"]


def test_clients_are_listed(peer, connect):
    client, other = connect(peer), connect(peer)
    informs, _ = ask(client, "client-list")
    addresses = {inform.arguments[0].decode() for inform in informs}
    assert {client.sockname_string, other.sockname_string} <= addresses


# ---- sensors ----


def test_sensors_are_listed(peer, connect):
    informs, (count,) = ask(connect(peer), "sensor-list")
    assert int(count) == 2
    assert texts(informs) == [
        "#sensor-list a.count How\\_many things integer",
        "#sensor-list b.count How\\_many things integer",
    ]


def test_sensor_values_bear_the_time_in_the_servers_unit(peer, connect):
    client = connect(peer)
    ask(client, "set", "a.count", -7)
    informs, _ = ask(client, "sensor-value", "a.count")
    assert readings(informs) == [(b"a.count", b"nominal", b"-7")]
    age = in_server_time(client, time.time()) - float(informs[0].arguments[0])
    assert abs(age) < in_server_time(client, 60)


def test_sensors_can_be_named_by_a_regular_expression(peer, connect):
    client = connect(peer)
    informs, (count,) = ask(client, "sensor-value", r"/^[b-z]\.count$/")
    assert int(count) == 1
    assert [name for name, _, _ in readings(informs)] == [b"b.count"]


# ---- samples ----


def test_samples_on_change_come_to_the_handler(peer, connect):
    client, other = connect(peer), connect(peer)
    ask(client, "set", "a.count", 1)
    _, parameters = ask(client, "sensor-sampling", "a.count", "event")
    assert parameters == [b"a.count", b"event"]
    # One says at once how it stands, then one for each change, whoever made it.
    client.sensor_updates.wait(1)
    ask(client, "set", "a.count", 2)
    ask(other, "set", "a.count", 3)
    client.sensor_updates.wait(3)
    values = [value for _, _, value in readings(client.sensor_updates.messages)]
    assert values == [b"1", b"2", b"3"]
    assert not other.sensor_updates.calls


def test_samples_end_when_they_are_no_longer_wanted(peer, connect):
    client = connect(peer)
    ask(client, "sensor-sampling", "a.count", "event")
    client.sensor_updates.wait(1)
    ask(client, "sensor-sampling", "a.count", "none")
    count = len(client.sensor_updates.calls)
    ask(client, "set", "a.count", 99)
    ask(client, "set", "a.count", 98)
    assert len(client.sensor_updates.calls) == count


def test_samples_of_a_period_come_while_requests_are_answered(peer, connect):
    client = connect(peer)
    period = client.convert_seconds(0.02)
    started = time.monotonic()
    _, parameters = ask(client, "sensor-sampling", "a.count", "period", period)
    assert parameters[:2] == [b"a.count", b"period"]
    assert float(parameters[2]) == period
    for number in range(50):
        assert ask(client, "echo", number) == ([], [b"%d" % number])
    client.sensor_updates.wait(5)
    # A period in the wrong unit ends much sooner, or never.
    assert time.monotonic() - started > 0.06
    assert {name for name, _, _ in readings(client.sensor_updates.messages)} == {b"a.count"}


@only([KATCP_V51, AIOKATCP])
def test_samples_of_several_sensors_are_asked_for_at_once(peer, connect):
    client = connect(peer)
    assert client.protocol_flags.bulk_set_sensor_sampling
    _, parameters = ask(client, "sensor-sampling", "a.count,b.count", "event")
    assert parameters == [b"a.count,b.count", b"event"]
    client.sensor_updates.wait(2)
    names = {name for name, _, _ in readings(client.sensor_updates.messages)}
    assert names == {b"a.count", b"b.count"}


@only([KATCP_V4])
def test_what_version_4_does_not_have_is_refused_by_name(peer, connect):
    reply, _ = connect(peer).blocking_request(Message.request("version-list"))
    assert reply.arguments[0] == Message.INVALID
    assert reply.local_error is None
