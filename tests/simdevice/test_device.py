"""The simulated device, over real sockets and with a client that knows only bytes."""

import asyncio
import logging
import re
import signal
import socket
import threading
from unittest import mock

import pytest
from tornado.ioloop import IOLoop

from katcp import simdevice
from katcp._wire.message import Message
from katcp.errors import KatcpThreadError, KatcpUsageError
from katcp.simdevice import SimulatedDevice, main
from katcp.simdevice import connection as simconnection
from katcp.simdevice.sensors import Sensor
from tests.support.helpers import PATIENCE, RawClient, is_v5, simulated
from tests.support.process import PythonProcess


def test_the_public_names_are_found_in_the_package():
    assert all(hasattr(simdevice, name) for name in simdevice.__all__)
    assert simdevice.ClientConnection is simconnection.ClientConnection
    assert simdevice.ClientConnection.__module__ == "katcp.simdevice"


# ---- protocols and clients ----


@pytest.mark.parametrize("protocol", ["", "five", "5.x", "5.1MIB"])
def test_a_protocol_that_is_none_is_refused(protocol):
    with pytest.raises(ValueError, match="no protocol"):
        SimulatedDevice(protocol=protocol)


def test_another_protocol_holds_for_the_next_connections(device, client):
    device.protocol = "4"
    with RawClient(device.address) as other:
        assert other.line().startswith(b"#version ")
        assert other.ask(b"?version-list")[0].startswith(b"!version-list invalid")
    assert client.ask(b"?version-list")[-1] == b"!version-list ok 3"


@pytest.mark.parametrize("protocol", ["4", "5.0-M"])
def test_several_clients(protocol):
    with SimulatedDevice(protocol=protocol) as device, RawClient(device.address) as first:
        first.ask(b"?watchdog")
        with RawClient(device.address) as second:
            assert first.line() == b"#client-connected " + second.address
            assert second.ask(b"?client-list") == [
                b"#client-list " + first.address,
                b"#client-list " + second.address,
                b"!client-list ok 2",
            ]
            assert device.client_count == 2
        device.wait_for_client(1)
        assert first.ask(b"?watchdog") == [b"!watchdog ok"]
        assert device.connection_count == 2


def test_without_m_a_newcomer_evicts_the_client_before():
    with SimulatedDevice(protocol="5.0-I") as device, RawClient(device.address) as first:
        first.ask(b"?watchdog")
        with RawClient(device.address) as second:
            reason = b"New\\_client\\_connected\\_from\\_" + second.address
            assert first.rest() == b"#disconnect " + reason + b"\n"
            device.wait_for_client(1)
            assert second.ask(b"?watchdog") == [b"!watchdog ok"]
            assert second.ask(b"?client-list")[0].startswith(b"!client-list invalid")


# ---- sensors and requests ----


def test_no_default_sensors():
    with simulated(sensors=()) as (_device, client):
        assert client.ask(b"?sensor-list") == [b"!sensor-list ok 0"]


def test_setting_an_unknown_sensor_raises_here(device):
    with pytest.raises(KeyError):
        device.set_sensor("nothing", 1)
    with pytest.raises(ValueError, match="no value for the"):
        device.set_sensor("counter", "x")


@pytest.mark.parametrize("set_it", ["set_value", "set_sensor"])
def test_a_sensor_is_set_from_the_thread_of_the_test(device, client, set_it):
    threads = []
    sensor = device.sensors["temperature"]
    sensor.observed.attach(mock.Mock(update=lambda *_: threads.append(threading.current_thread())))
    client.ask(b"?sensor-sampling temperature event")
    if set_it == "set_value":
        sensor.set_value(40)
    else:
        device.set_sensor("temperature", 40)
    assert client.until(b"#sensor-status")[-1].endswith(b" temperature warn 40.0")
    assert client.ask(b"?sensor-value temperature")[0].endswith(b" temperature warn 40.0")
    assert threading.current_thread() not in threads
    assert len(set(threads)) == 1


def test_a_sensor_of_a_device_that_has_stopped_is_set_too(device):
    sensor = device.sensors["mode"]
    device.stop()
    sensor.set_value("slew", timestamp=1.0)
    device.start()
    with RawClient(device.address) as client:
        assert client.ask(b"?sensor-value mode")[0].endswith(b" 1.000000 1 mode nominal slew")


def test_interface_changed(any_device):
    with RawClient(any_device.address) as client:
        client.ask(b"?watchdog")
        any_device.add_sensor(Sensor("new", "integer"))
        any_device.add_sensor(Sensor("new", "float"))
        any_device.remove_sensor("new")
        any_device.add_request(lambda request: "ok", "extra")
        any_device.add_request(lambda request: "ok", "extra")
        any_device.remove_request("extra")
        client.send(b"?watchdog\n")
        seen = client.until(b"!watchdog")[:-1]
    assert seen == (
        [
            b"#interface-changed sensor new added",
            b"#interface-changed sensor new modified",
            b"#interface-changed sensor new removed",
            b"#interface-changed request extra added",
            b"#interface-changed request extra modified",
            b"#interface-changed request extra removed",
        ]
        if is_v5(any_device)
        else []
    )


# ---- what tests look at ----


def test_received_and_waiting(device, client):
    client.send(b"?foo 1\n?bar\n?foo 2\n")
    assert device.wait_for_request("foo", count=2) == Message.request("foo", 2)
    assert device.wait_for_request("foo") == Message.request("foo", 1)
    assert [message.name for message in device.received] == ["foo", "bar", "foo"]
    device.clear_received()
    with pytest.raises(TimeoutError, match=r"1 x \?foo did not come within 0.01 s; clients: 1"):
        device.wait_for_request("foo", timeout=0.01)
    client.send(b"?foo 3\n")
    assert device.wait_for_request("foo") == Message.request("foo", 3)


def test_what_was_asked_is_asserted(device, client):
    client.send(b"?foo[7] 1 a\\_b\n?foo[8] 2\n?bar\n")
    first, second = device.assert_asked("foo", count=2, timeout=PATIENCE)
    device.assert_asked("bar", timeout=PATIENCE)
    assert (first.mid, second.mid) == (b"7", b"8")
    assert device.assert_asked("foo", 1, "a b") == [first]
    assert device.assert_asked("foo") == [first, second]
    assert device.assert_asked("foo", 3, count=0) == []
    assert device.assert_asked("baz", count=0, timeout=0.01) == []


@pytest.mark.parametrize(
    ("args", "kwargs", "verdict"),
    [
        (("foo", 3), {}, r"\?foo 3 was not asked"),
        (("baz",), {"timeout": 0.01}, r"\?baz was not asked"),
        (("foo",), {"count": 1}, r"\?foo was asked 2 x, not 1 x"),
        (("foo", 2), {"count": 2}, r"\?foo 2 was asked 1 x, not 2 x"),
        (("bar",), {"count": 0}, r"\?bar was asked 1 x, not 0 x"),
    ],
)
def test_the_error_shows_what_was_asked_instead(device, client, args, kwargs, verdict):
    client.send(b"?foo[7] 1 a\\_b\n?foo[8] 2\n#foo 3\n?bar\n")
    device.wait_for_request("bar")
    with pytest.raises(AssertionError) as caught:
        device.assert_asked(*args, **kwargs)
    asked = "\n    ?foo 1 a\\_b\n    ?foo 2\n    ?bar"
    assert re.fullmatch(verdict + "; asked were:" + re.escape(asked), str(caught.value))


def test_the_error_is_short(device, client):
    with pytest.raises(AssertionError, match=r"^\?foo was not asked; nothing was asked\.$"):
        device.assert_asked("foo")
    client.send(b"?" + b"x" * 10_000 + b"\n" + b"?bar\n" * 25)
    device.wait_for_request("bar", count=25)
    with pytest.raises(AssertionError, match="the last of 26 requests were:(\n    .bar){20}$"):
        device.assert_asked("foo")
    device.clear_received()
    client.send(b"?" + b"x" * 10_000 + b"\n")
    device.wait_until(lambda: device.received)
    with pytest.raises(AssertionError) as caught:
        device.assert_asked("foo")
    assert len(str(caught.value)) < 200


def test_repr(device, client):
    device.wait_for_client()
    host, port = device.address
    assert repr(device) == f"<SimulatedDevice {host}:{port} 5.1-BIMT 1 connected>"
    device.stop()
    assert repr(device) == f"<SimulatedDevice {host}:{port} 5.1-BIMT stopped>"


def test_replies_and_informs_from_the_client_are_received_only(device, client):
    client.send(b"!foo ok\n#bar\n")
    assert client.ask(b"?watchdog") == [b"!watchdog ok"]
    assert [str(message) for message in device.received] == ["!foo ok", "#bar", "?watchdog"]


def test_waiting_for_clients(device):
    device.wait_for_client(0)
    with RawClient(device.address):
        device.wait_for_client()
        device.wait_for_connection(1)
        with pytest.raises(TimeoutError, match="2 clients did not come"):
            device.wait_for_client(2, timeout=0.01)
    device.wait_for_client(0)
    with pytest.raises(TimeoutError, match="connection number 2"):
        device.wait_for_connection(2, timeout=0.01)


def test_a_condition_may_ask_the_device(device, client):
    device.wait_until(lambda: client.ask(b"?watchdog") == [b"!watchdog ok"])


def test_waiting_in_the_loop_is_refused(device, client, logs):
    device.add_request(lambda request: device.wait_for_request("x"), "foo")
    assert b" fail Do\\_not\\_block" in client.ask(b"?foo")[0]
    assert KatcpThreadError.__name__ in logs.expect("The handler of ?foo", logging.ERROR)


# ---- three ways to run ----


def test_start_and_stop():
    device = SimulatedDevice()
    device.stop()
    assert not device.running
    device.start()
    assert device.running
    with pytest.raises(KatcpUsageError, match="runs already"):
        device.start()
    with RawClient(device.address) as client:
        client.ask(b"?watchdog")
        device.stop()
        assert client.rest() == b"#disconnect The\\_device\\_is\\_stopping.\n"
    device.stop()
    assert not device.running


def test_stop_during_a_restart():
    with simulated() as (device, client):
        client.send(b"?restart\n")
        client.rest()
        device.stop()
        assert not device.listening


def test_killed_and_brought_back_on_the_same_port(device):
    address = device.address
    for _ in range(3):
        with RawClient(address) as client:
            client.until(b"#version-connect katcp-device")
            device.stop(orderly=False)
            assert client.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        device.start()
        assert device.address == address


def test_what_was_set_and_received_outlives_a_restart(device, client):
    device.add_request(lambda request: "ok", "foo")
    client.ask(b"?foo")
    device.stop()
    device.set_sensor("mode", "slew")
    device.start()
    assert device.received_requests("foo")
    with RawClient(device.address) as other:
        assert other.ask(b"?foo") == [b"!foo ok"]
        assert other.ask(b"?sensor-value mode")[0].endswith(b"slew")


def test_a_port_that_is_taken(device):
    other = SimulatedDevice(port=device.address[1])
    with pytest.raises(OSError, match="in use"):
        other.start()
    assert not other.running


def test_in_a_given_loop():
    async def converse():
        device = SimulatedDevice()
        device.start_in(IOLoop.current())
        reader, writer = await asyncio.open_connection(*device.address)
        writer.write(b"?watchdog\n")
        await device.until(lambda: device.received_requests("watchdog"))
        device.set_sensor("mode", "slew")
        device.stop()
        data = await reader.read()
        writer.close()
        await writer.wait_closed()
        await device.until_stopped()
        assert not device.running
        return data

    lines = asyncio.run(converse()).split(b"\n")
    assert lines[-3:] == [b"!watchdog ok", b"#disconnect The\\_device\\_is\\_stopping.", b""]


def test_as_an_asynchronous_context_manager():
    async def run():
        async with SimulatedDevice() as device:
            assert device.running
        assert not device.running

    asyncio.run(run())


def test_in_a_loop_that_runs_only_now_and_then():
    ioloop = IOLoop(make_current=False)
    device = SimulatedDevice()
    device.start_in(ioloop)
    with RawClient(device.address) as client:
        client.send(b"?sensor-sampling mode event\n")
        ioloop.run_sync(lambda: device.until(lambda: device.received_requests("sensor-sampling")))
        device.set_sensor("mode", "slew")
        assert client.until(b"#sensor-status")[-1].endswith(b"nominal idle")
        assert client.until(b"#sensor-status")[-1].endswith(b"nominal slew")
    assert len(device.memory("bram")) == 65536
    device.stop()
    assert not device.running
    ioloop.close()


def test_handlers_may_stop_the_device(device, client):
    device.add_request(lambda request: device.stop(), "foo")
    client.send(b"?foo\n")
    assert client.rest().endswith(b"#disconnect The\\_device\\_is\\_stopping.\n")


# ---- as a process ----


class Process(PythonProcess):
    """The device as a process of its own; it listens when the block begins."""

    def __init__(self, *arguments):
        super().__init__("-m", "katcp.simdevice", *arguments)

    def __enter__(self):
        self.greeting = self.line()
        host, _, port = self.greeting.split()[-1].rpartition(":")
        self.address = host, int(port)
        return self


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_as_a_process(number):
    arguments = ["--protocol", "5.1-MIBT", "--name", "dev", "--fault", "no-reply:foo"]
    with Process(*arguments) as process, RawClient(process.address) as client:
        assert re.fullmatch(r"dev listens on 127\.0\.0\.1:\d+\n", process.greeting)
        assert client.line() == b"#version-connect katcp-protocol 5.1-BIMT"
        client.send(b"?foo\n?watchdog\n")
        assert client.until(b"!")[-1] == b"!watchdog ok"
        process.send_signal(number)
        assert client.rest() == b"#disconnect The\\_device\\_is\\_stopping.\n"
        assert process.end() == (0, "", "")


def test_a_process_ends_after_halt():
    with Process("--protocol", "4") as process, RawClient(process.address) as client:
        client.send(b"?halt\n")
        assert b"!halt ok\n" in client.rest()
        assert process.end() == (0, "", "")


def test_the_command_line_refuses_what_makes_no_sense(capsys, device):
    assert main(["--protocol", "x"]) == 2
    assert main(["--fault", "x"]) == 2
    assert main(["--port", str(device.address[1])]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert "no protocol" in errors[0]
    assert "no fault 'x'" in errors[1]
    assert "cannot listen" in errors[2]


def test_the_command_line_lists_the_faults(capsys):
    assert main(["--list-faults"]) == 0
    assert re.search("^no-reply +Never send the reply.$", capsys.readouterr().out, re.MULTILINE)
