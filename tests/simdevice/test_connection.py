"""One client of the simulated device: greeting, sampling, reading, writing and the end."""

import re
import socket
import time

import pytest
from tornado.iostream import IOStream

from katcp._wire.flags import ProtocolFlags
from katcp._wire.message import Message
from katcp.simdevice import MAX_LINE_SIZE
from katcp.simdevice.sensors import Sensor
from tests.support.helpers import PATIENCE, RawClient, is_v5, simulated

# ---- the greeting and the log ----


@pytest.mark.parametrize(
    ("protocol", "announced"),
    [
        ("5.0", b"5.0"),
        ("5.0-IM", b"5.0-IM"),
        ("5.1-MIBT", b"5.1-BIMT"),
        (ProtocolFlags(6, 2, "X"), b"6.2-X"),
    ],
)
def test_greeting_of_version_5(protocol, announced):
    with simulated(protocol=protocol, name="dev") as (_device, client):
        assert client.line() == b"#version-connect katcp-protocol " + announced
        assert client.line().startswith(b"#version-connect katcp-library katcp-simdevice-")
        assert client.line().startswith(b"#version-connect katcp-device dev-1.0 dev-")


@pytest.mark.parametrize("protocol", ["4", "4.0", "4.9-M"])
def test_greeting_of_version_4(protocol):
    with simulated(protocol=protocol, name="dev") as (_device, client):
        assert client.line() == b"#version dev-1.0"
        assert client.line().startswith(b"#build-state dev-")


def test_log_informs_are_filtered(any_device):
    with RawClient(any_device.address) as client:
        client.ask(b"?watchdog")
        any_device.log("info", "not seen")
        any_device.log("error", "seen", "its.source")
        log, level, timestamp, source, text = client.line().split(b" ")
        assert (log, level, source, text) == (b"#log", b"error", b"its.source", b"seen")
        assert len(timestamp.partition(b".")[0]) == (10 if is_v5(any_device) else 13)
        any_device.log_level = "all"
        any_device.log("trace", "seen too")
        assert client.line().startswith(b"#log trace ")
        any_device.log_level = "off"
        any_device.log("fatal", "not seen")
        assert client.ask(b"?watchdog") == [b"!watchdog ok"]
    with pytest.raises(ValueError, match="no log level"):
        any_device.log_level = "loud"


# ---- sampling ----


@pytest.mark.parametrize("strategy", [b"auto", b"event", b"differential 1"])
def test_strategies_that_wait_for_a_change(any_device, strategy):
    any_device.add_sensor(Sensor("number", "integer", value=0))
    with RawClient(any_device.address) as client:
        client.ask(b"?sensor-sampling number " + strategy)
        for value in (5, 7, 10):
            any_device.set_sensor("number", value)
            assert client.line().endswith(b" 1 number nominal %d" % value)


@pytest.mark.parametrize(
    "strategy", [b"period 0.01", b"event-rate 0.001 0.01", b"differential-rate 1 0.001 0.01"]
)
def test_strategies_that_do_not_wait_for_a_change(strategy):
    with simulated(protocol="5.0") as (device, client):
        device.add_sensor(Sensor("number", "integer", value=3))
        client.ask(b"?sensor-sampling number " + strategy)
        for _ in range(3):
            client.until(b"#sensor-status")


def test_a_period_of_version_4_is_in_milliseconds():
    with simulated(protocol="4") as (_device, client):
        assert client.ask(b"?sensor-sampling label period 10") == [
            b"!sensor-sampling ok label period 10"
        ]
        for _ in range(3):
            assert client.line().endswith(b" 1 label nominal simulated\\_device")


def test_sensors_that_change_by_themselves(device, client):
    device.add_sensor(
        Sensor("uptime", "integer", source=lambda now: time.monotonic_ns(), interval=0.001)
    )
    client.ask(b"?sensor-sampling uptime event")
    values = [client.until(b"#sensor-status")[-1].split(b" ")[-1] for _ in range(3)]
    assert values == sorted(set(values), key=int)


def test_changes_within_the_shortest_period_are_told_together(device, client):
    client.ask(b"?sensor-sampling mode event-rate 0.05 100")
    device.set_sensor("mode", "track")
    device.set_sensor("mode", "slew")
    assert client.until(b"#sensor-status")[-1].endswith(b" mode nominal slew")


def test_a_sensor_that_is_removed_is_sampled_no_more(device, client):
    client.ask(b"?sensor-sampling label period 0.01")
    device.remove_sensor("label")
    client.until(b"#interface-changed")
    device.add_sensor(Sensor("label", "string"))
    client.until(b"#interface-changed")
    assert client.ask(b"?sensor-sampling label") == [b"!sensor-sampling ok label none"]


def test_sampling_ends_with_its_connection(device):
    sensors = [device.sensors[name] for name in ("counter", "label")]
    with RawClient(device.address) as client:
        client.ask(b"?sensor-sampling label auto")
        client.ask(b"?sensor-sampling counter auto")
        (connection,) = device.clients
        assert all(sensor.observed._observers for sensor in sensors)
        timer = connection.samplings["counter"]._timer
    device.wait_for_client(0)
    assert not any(sensor.observed._observers for sensor in sensors)
    assert timer.cancelled()


def test_nothing_is_paused_after_the_end_of_a_connection(device):
    device.faults = ["late-reply=3600"]
    with RawClient(device.address) as client:
        client.send(b"?watchdog\n")
        device.wait_for_request("watchdog")
        (connection,) = device.clients
        device.wait_until(lambda: connection._timers)
    device.wait_for_client(0)
    assert not connection._timers


def test_each_client_has_its_own_samplings(device, client):
    client.ask(b"?sensor-sampling label event")
    with RawClient(device.address) as other:
        assert other.ask(b"?sensor-sampling label") == [b"!sensor-sampling ok label none"]


# ---- reading ----


@pytest.mark.parametrize("line", [b"foo", b" ?foo", b"?foo \\q", b"?foo[0]", b"?foo_bar", b"\xff"])
def test_bad_lines_are_logged_and_not_answered(any_device, line):
    with RawClient(any_device.address) as client:
        client.ask(b"?watchdog")
        client.send(line + b"\n?watchdog\n")
        assert client.line().startswith(b"#log error ")
        assert client.line() == b"!watchdog ok"


def test_an_over_long_line_ends_the_connection(device, client):
    client.send(b"?" + b"x" * MAX_LINE_SIZE)
    assert re.match(
        rb"#log error \S+ simulated-device A\\_line\\_is\\_longer\S+\n#disconnect \S+\n\Z",
        client.rest(),
    )


def test_a_half_line_at_the_end_is_dropped(device):
    with RawClient(device.address) as client:
        client.send(b"?foo\n?bar")
        device.wait_for_request("foo")
    device.wait_for_client(0)
    assert [message.name for message in device.received] == ["foo"]


def test_pausing_the_reader():
    with simulated(receive_buffer_size=4096) as (device, client):
        client.ask(b"?watchdog")
        device.pause_reading()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.socket.settimeout(0.05)
        with pytest.raises(socket.timeout):
            client.send(b"?foo " + b"x" * 1_000_000)
        assert not device.received_requests("foo")
        device.resume_reading()
        client.socket.settimeout(PATIENCE)
        client.send(b"\n?bar\n")
        device.wait_for_request("bar")


def test_a_paused_device_sees_clients_come_and_go(device):
    device.pause_reading()
    with RawClient(device.address) as client:
        assert client.line().startswith(b"#version-connect")
        client.send(b"?foo\n")
        device.wait_for_client(1)
        assert device.received == []
    device.wait_for_client(0)


def test_a_paused_device_can_disconnect_its_clients(device, client):
    device.pause_reading()
    client.send(b"?foo\n")
    device.disconnect_clients()
    assert client.line().startswith(b"#disconnect")
    device.wait_for_client(0)


# ---- writing, and the end ----


def test_sending_to_all_or_to_one(device, client):
    with RawClient(device.address) as other:
        client.until(b"#client-connected")
        other.until(b"#version-connect katcp-device")
        device.inform(Message.inform("fpga", "ready"))
        assert client.line() == other.line() == b"#fpga ready"
        device.send_raw(b"half")
        device.send_raw(b" a line\n", client=device.clients[1])
        assert other.line() == b"half a line"
        device.send_raw(b" the rest\n", client=device.clients[0])
        assert client.line() == b"half the rest"


def test_what_is_sent_together_is_written_together(device, client, monkeypatch):
    writes = []
    real = IOStream.write
    monkeypatch.setattr(
        IOStream, "write", lambda stream, data: writes.append(len(data)) or real(stream, data)
    )
    client.send(b"?watchdog\n" * 1000)
    for _ in range(1000):
        assert client.line() == b"!watchdog ok"
    # The kernel may have delivered the requests in several pieces.
    assert len(writes) < 50


def test_disconnecting_clients(device, client):
    device.disconnect_clients(reason="go away")
    assert client.rest() == b"#disconnect go\\_away\n"
    device.wait_for_client(0)


def test_closing_clients(device, client):
    device.send_raw(b"last words")
    device.close_clients()
    assert client.rest() == b"last words"
    device.wait_for_client(0)


def test_resetting_clients(device, client):
    device.reset_clients()
    with pytest.raises(ConnectionResetError):
        client.rest()
    device.wait_for_client(0)
    device.reset_clients()


def test_a_client_that_does_not_read_is_dropped(logs):
    with simulated(memory={"a": 100_000}, max_write_buffer_size=300_000) as (device, client):
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(b"?read a 0 100000\n" * 200)
        device.wait_for_connection(1)
        device.wait_for_client(0)
    logs.expect("does not read: it is dropped with more than 300000 bytes")


def test_an_orderly_end_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr("katcp.simdevice.connection.CLOSE_TIMEOUT", 0.02)
    with simulated(memory={"a": 4_000_000}) as (device, client):
        client.send(b"?read a 0 4000000\n" * 3)
        device.wait_for_request("read", count=3)
        device.disconnect_clients()
        device.wait_for_client(0)
