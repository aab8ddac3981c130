"""The simulated device, over real sockets and with a client that knows only bytes."""

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from katcp.errors import FailReply, KatcpThreadError, KatcpUsageError
from katcp.message import Message
from katcp.protocol import ProtocolFlags
from katcp.simdevice import (
    LOG_LEVELS,
    MAX_LINE_SIZE,
    ClientConnection,
    DeviceRequest,
    SimulatedDevice,
    main,
)
from katcp.simsensor import Sensor

TIMEOUT = 5.0


class RawClient:
    """A blocking client that sends and receives lines as bytes."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=TIMEOUT)
        self.data = b""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.socket.close()

    @property
    def address(self):
        return b"%s:%d" % (self.socket.getsockname()[0].encode(), self.socket.getsockname()[1])

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        """Return the next line, without its end; b"" at the end of the stream."""
        while b"\n" not in self.data:
            more = self.socket.recv(65536)
            if not more:
                assert self.data == b""
                return b""
            self.data += more
        line, _, self.data = self.data.partition(b"\n")
        return line

    def until(self, start):
        """Return the lines up to the first that begins with *start*, which is the last."""
        lines = [self.line()]
        while not lines[-1].startswith(start):
            assert lines[-1] != b"", (start, lines)
            lines.append(self.line())
        return lines

    def ask(self, line):
        """Send a request, skip what came before, and return its informs and its reply."""
        self.send(line + b"\n")
        name = re.match(rb"\?([a-zA-Z0-9-]+(\[\d+\])?)", line)[1]
        return [answer for answer in self.until(b"!" + name) if answer[1:].split(b" ")[0] == name]

    def rest(self):
        """Return everything up to the end of the stream."""
        data = self.data
        while True:
            more = self.socket.recv(65536)
            if not more:
                return data
            data += more


@contextlib.contextmanager
def simulated(**options):
    """A device, and a client that is connected to it."""
    with SimulatedDevice(**options) as device, RawClient(device.address) as client:
        yield device, client


@pytest.fixture(params=["4", "5.0-IM", "5.1-MIBT"])
def any_device(request):
    with SimulatedDevice(protocol=request.param) as device:
        yield device


@pytest.fixture
def device():
    with SimulatedDevice(protocol="5.1-MIBT") as device:
        yield device


@pytest.fixture
def client(device):
    with RawClient(device.address) as client:
        client.until(b"#version-connect katcp-device")
        yield client


def is_v5(device):
    return device.protocol.major >= 5


# ---- greeting and clients ----


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


# ---- the standard requests ----


def test_help(any_device):
    any_device.add_request(lambda request: "ok", "undocumented")
    with RawClient(any_device.address) as client:
        *informs, reply = client.ask(b"?help")
        names = [inform.split(b" ")[1] for inform in informs]
        assert reply == b"!help ok %d" % len(informs)
        assert names == sorted(names)
        assert (b"version-list" in names) == is_v5(any_device)
        assert (b"request-timeout-hint" in names) == any_device.protocol.request_timeout_hints
        assert b"#help undocumented \\@" in informs
        assert all(client.ask(b"?help " + name)[1] == b"!help ok 1" for name in names)
        assert client.ask(b"?help nothing")[0].startswith(b"!help fail")


def test_watchdog(any_device):
    with RawClient(any_device.address) as client:
        assert client.ask(b"?watchdog") == [b"!watchdog ok"]


def test_version_list(any_device):
    with RawClient(any_device.address) as client:
        answer = client.ask(b"?version-list")
        if not is_v5(any_device):
            assert answer == [b"!version-list invalid Unknown\\_request\\_'version-list'."]
            return
        greeting = [line.replace(b"version-connect", b"version-list") for line in answer[:-1]]
        assert [line.split(b" ")[1] for line in greeting] == [
            b"katcp-protocol",
            b"katcp-library",
            b"katcp-device",
        ]
        assert answer[-1] == b"!version-list ok 3"


def test_log_level(any_device):
    with RawClient(any_device.address) as client, RawClient(any_device.address) as other:
        assert client.ask(b"?log-level") == [b"!log-level ok warn"]
        for level in LOG_LEVELS:
            answer = b"!log-level ok " + level.encode()
            assert client.ask(b"?log-level " + level.encode()) == [answer]
            assert other.ask(b"?log-level") == [answer]
        assert client.ask(b"?log-level WARN") == [
            b"!log-level fail Unknown\\_log\\_level\\_'WARN'."
        ]
    assert any_device.log_level == "off"


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


def test_sensor_list(any_device):
    with RawClient(any_device.address) as client:
        *informs, reply = client.ask(b"?sensor-list")
        assert reply == b"!sensor-list ok 8"
        assert {inform.split(b" ")[1].decode() for inform in informs} == set(any_device.sensors)
        shown = b"address" if is_v5(any_device) else b"string"
        assert client.ask(b"?sensor-list gateway") == [
            b"#sensor-list gateway Where\\_the\\_data\\_go \\@ " + shown,
            b"!sensor-list ok 1",
        ]
        assert client.ask(b"?sensor-list nothing") == [
            b"!sensor-list fail Unknown\\_sensor\\_'nothing'."
        ]


@pytest.mark.parametrize("name", [b"sensor-list", b"sensor-value"])
def test_regular_expressions(any_device, name):
    with RawClient(any_device.address) as client:
        *informs, reply = client.ask(b"?" + name + b" /^[eg].*a(b|y)/")
        assert reply == b"!" + name + b" ok 2"
        position = 1 if name == b"sensor-list" else 3
        assert [inform.split(b" ")[position] for inform in informs] == [b"enabled", b"gateway"]
        assert client.ask(b"?" + name + b" //")[-1] == b"!" + name + b" ok 8"
        assert client.ask(b"?" + name + b" /^x$/") == [b"!" + name + b" ok 0"]
        assert client.ask(b"?" + name + b" /(/")[0].startswith(b"!" + name + b" fail Bad\\_regular")
        assert client.ask(b"?" + name + b" /")[0].startswith(b"!" + name + b" fail Unknown")


def test_sensor_value(any_device):
    any_device.set_sensor("label", "two words", "warn", timestamp=1000.5)
    timestamp = b"1000.500000" if is_v5(any_device) else b"1000500.000"
    with RawClient(any_device.address) as client:
        assert client.ask(b"?sensor-value label") == [
            b"#sensor-value " + timestamp + b" 1 label warn two\\_words",
            b"!sensor-value ok 1",
        ]
        assert client.ask(b"?sensor-value")[-1] == b"!sensor-value ok 8"
        assert client.ask(b"?sensor-value nothing")[0].startswith(b"!sensor-value fail")


def test_sensors_that_change_by_themselves(device, client):
    device.add_sensor(
        Sensor("uptime", "integer", source=lambda now: time.monotonic_ns(), interval=0.001)
    )
    client.ask(b"?sensor-sampling uptime event")
    values = [client.until(b"#sensor-status")[-1].split(b" ")[-1] for _ in range(3)]
    assert values == sorted(set(values), key=int)


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


def test_timeout_hints(device, client):
    device.add_request(lambda request: "ok", "slow", timeout_hint=12.5)
    assert client.ask(b"?request-timeout-hint") == [
        b"#request-timeout-hint slow 12.5",
        b"!request-timeout-hint ok 1",
    ]
    assert client.ask(b"?request-timeout-hint help") == [
        b"#request-timeout-hint help 0.0",
        b"!request-timeout-hint ok 1",
    ]
    assert b" fail " in client.ask(b"?request-timeout-hint nothing")[0]


@pytest.mark.parametrize("protocol", ["4", "5.1-MIB"])
def test_timeout_hints_need_t(protocol):
    with simulated(protocol=protocol) as (_device, client):
        assert b" invalid " in client.ask(b"?request-timeout-hint")[0]


def test_restart(any_device):
    address = any_device.address
    with RawClient(address) as client, RawClient(address) as other:
        client.ask(b"?watchdog")
        other.ask(b"?watchdog")
        client.send(b"?restart\n")
        assert client.rest().endswith(b"!restart ok\n#disconnect The\\_device\\_is\\_restarting.\n")
        assert other.rest() == b"#disconnect The\\_device\\_is\\_restarting.\n"
    any_device.wait_until(lambda: any_device.listening)
    with RawClient(address) as client:
        assert client.ask(b"?watchdog") == [b"!watchdog ok"]


def test_halt(any_device):
    with RawClient(any_device.address) as client:
        client.send(b"?halt\n?watchdog\n")
        assert client.rest().endswith(b"!halt ok\n#disconnect The\\_device\\_is\\_halting.\n")
    any_device.wait_until(lambda: not any_device.running)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(any_device.address)


def test_stop_during_a_restart():
    with simulated() as (device, client):
        client.send(b"?restart\n")
        client.rest()
        device.stop()
        assert not device.listening


# ---- sampling ----


def test_the_sampling_of_a_sensor(any_device):
    any_device.set_sensor("mode", "track", timestamp=10.0)
    with RawClient(any_device.address) as client:
        client.ask(b"?watchdog")
        assert client.ask(b"?sensor-sampling mode") == [b"!sensor-sampling ok mode none"]
        client.send(b"?sensor-sampling mode event\n")
        if is_v5(any_device):
            assert client.line() == b"#sensor-status 10.000000 1 mode nominal track"
        assert client.line() == b"!sensor-sampling ok mode event"
        assert client.ask(b"?sensor-sampling mode") == [b"!sensor-sampling ok mode event"]
        any_device.set_sensor("mode", "slew", timestamp=11.0)
        assert client.line().endswith(b" 1 mode nominal slew")
        assert client.ask(b"?sensor-sampling mode none") == [b"!sensor-sampling ok mode none"]
        any_device.set_sensor("mode", "idle")
        client.send(b"?watchdog\n")
        assert client.line() == b"!watchdog ok"


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


def test_changes_within_the_shortest_period_are_told_together(device, client):
    client.ask(b"?sensor-sampling mode event-rate 0.05 100")
    device.set_sensor("mode", "track")
    device.set_sensor("mode", "slew")
    assert client.until(b"#sensor-status")[-1].endswith(b" mode nominal slew")


def test_bulk_sampling_is_all_or_nothing(device, client):
    answer = client.ask(b"?sensor-sampling mode,label,nothing event")
    assert answer == [b"!sensor-sampling fail Unknown\\_sensor\\_'nothing'."]
    answer = client.ask(b"?sensor-sampling counter,label differential 1")
    assert answer[0].startswith(b"!sensor-sampling fail")
    assert client.ask(b"?sensor-sampling counter") == [b"!sensor-sampling ok counter none"]
    client.send(b"?sensor-sampling mode,label event\n")
    *informs, reply = client.until(b"!")
    assert [inform.split(b" ")[3] for inform in informs] == [b"mode", b"label"]
    assert reply == b"!sensor-sampling ok mode,label event"
    assert b" fail " in client.ask(b"?sensor-sampling mode,label")[0]


def test_bulk_sampling_needs_b():
    with simulated(protocol="5.1-MI") as (_device, client):
        assert b" fail " in client.ask(b"?sensor-sampling mode,label event")[0]


@pytest.mark.parametrize(
    "arguments", [b"mode sometimes", b"mode period", b"mode period x", b"nothing event", b"nothing"]
)
def test_samplings_that_fail(any_device, arguments):
    with RawClient(any_device.address) as client:
        assert b" fail " in client.ask(b"?sensor-sampling " + arguments)[0]


def test_a_sensor_that_is_removed_is_sampled_no_more(device, client):
    client.ask(b"?sensor-sampling label period 0.01")
    device.remove_sensor("label")
    client.until(b"#interface-changed")
    device.add_sensor(Sensor("label", "string"))
    client.until(b"#interface-changed")
    assert client.ask(b"?sensor-sampling label") == [b"!sensor-sampling ok label none"]


def test_sampling_ends_with_its_connection(device):
    with RawClient(device.address) as client:
        client.ask(b"?sensor-sampling label period 0.01")
        (connection,) = device.clients
    device.wait_for_client(0)
    assert not connection._timers


def test_each_client_has_its_own_samplings(device, client):
    client.ask(b"?sensor-sampling label event")
    with RawClient(device.address) as other:
        assert other.ask(b"?sensor-sampling label") == [b"!sensor-sampling ok label none"]


def test_no_default_sensors():
    with simulated(sensors=()) as (_device, client):
        assert client.ask(b"?sensor-list") == [b"!sensor-list ok 0"]


def test_setting_an_unknown_sensor_raises_here(device):
    with pytest.raises(KeyError):
        device.set_sensor("nothing", 1)
    with pytest.raises(ValueError, match="no value for the"):
        device.set_sensor("counter", "x")


# ---- ids, bad lines, wrong usage ----


def test_ids_are_echoed_on_informs_and_replies(device, client):
    assert client.ask(b"?sensor-list[7] mode") == [
        b"#sensor-list[7] mode Mode\\_of\\_operation \\@ discrete idle track slew",
        b"!sensor-list[7] ok 1",
    ]
    assert client.ask(b"?unknown[8]")[0].startswith(b"!unknown[8] invalid")


@pytest.mark.parametrize(("echo_ids", "reply"), [(True, b"!help[7] ok 1"), (False, b"!help ok 1")])
def test_ids_where_the_protocol_has_none(echo_ids, reply):
    with simulated(protocol="4", echo_ids=echo_ids) as (_device, client):
        client.send(b"?help[7] watchdog\n")
        assert client.until(b"!")[-1] == reply


def test_unknown_requests_are_invalid(any_device):
    with RawClient(any_device.address) as client:
        assert client.ask(b"?foo a b") == [b"!foo invalid Unknown\\_request\\_'foo'."]


@pytest.mark.parametrize("line", [b"?watchdog now", b"?sensor-sampling", b"?help a b", b"?read"])
def test_wrong_numbers_of_arguments_are_invalid(any_device, line):
    with RawClient(any_device.address) as client:
        assert b" invalid Wrong\\_arguments" in client.ask(line)[0]


@pytest.mark.parametrize("line", [b"foo", b" ?foo", b"?foo \\q", b"?foo[0]", b"?foo_bar", b"\xff"])
def test_bad_lines_are_logged_and_not_answered(any_device, line):
    with RawClient(any_device.address) as client:
        client.ask(b"?watchdog")
        client.send(line + b"\n?watchdog\n")
        assert client.line().startswith(b"#log error ")
        assert client.line() == b"!watchdog ok"


def test_replies_and_informs_from_the_client_are_received_only(device, client):
    client.send(b"!foo ok\n#bar\n")
    assert client.ask(b"?watchdog") == [b"!watchdog ok"]
    assert [str(message) for message in device.received] == ["!foo ok", "#bar", "?watchdog"]


def test_an_over_long_line_ends_the_connection(device, client):
    client.send(b"?" + b"x" * MAX_LINE_SIZE)
    assert re.match(
        rb"#log error \S+ simulated-device A\\_line\\_is\\_longer\S+\n#disconnect \S+\n\Z",
        client.rest(),
    )


# ---- memory ----


def test_memory(any_device):
    with RawClient(any_device.address) as client:
        assert client.ask(b"?listdev") == [
            b"#listdev sys_board_id",
            b"#listdev sys_scratchpad",
            b"#listdev bram",
            b"!listdev ok 3",
        ]
        assert client.ask(b"?listdev size")[0] == b"#listdev sys_board_id 4"
        assert client.ask(b"?read sys_board_id 0 4") == [b"!read ok \\0\\0\xb0\x01"]
        assert client.ask(b"?write bram 2 a\\_\\0\\nb") == [b"!write ok"]
        assert client.ask(b"?read bram 1 7") == [b"!read ok \\0a\\_\\0\\nb\\0"]
        assert client.ask(b"?read bram 0 0") == [b"!read ok \\@"]
        assert client.ask(b"?wordwrite sys_scratchpad 0 0x12345678") == [b"!wordwrite ok"]
        assert client.ask(b"?wordread sys_scratchpad 0") == [b"!wordread ok 0x12345678"]
        assert client.ask(b"?read 4 1 2") == [b"!read ok 4V"]
        assert client.ask(b"?wordread 0x0 0 2") == [b"!wordread ok 0x0000b001 0x12345678"]
    assert any_device.memory("sys_scratchpad") == b"\x124Vx"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"?read bram 65536 1", b"1\\_bytes\\_at\\_65536\\_are\\_outside\\_of\\_register\\_'bram'"),
        (b"?read bram 0 65537", b"which\\_has\\_65536\\_bytes"),
        (b"?write sys_scratchpad 2 abc", b"outside"),
        (b"?wordread sys_scratchpad 1", b"outside"),
        (b"?wordwrite sys_scratchpad 0 1 2", b"outside"),
        (b"?read nothing 0 4", b"Unknown\\_register\\_'nothing'."),
        (b"?read 999999 0 4", b"outside"),
        (b"?read bram -1 4", b"'-1'\\_is\\_not\\_a\\_number."),
        (b"?read bram 0 1_0", b"not\\_a\\_number"),
    ],
)
def test_memory_failures(device, client, line, text):
    (answer,) = client.ask(line)
    assert b" fail " in answer
    assert text in answer


def test_a_memory_of_ones_own():
    with simulated(memory={"a": b"xyz", "b": 2}) as (_device, client):
        assert client.ask(b"?read a 0 3") == [b"!read ok xyz"]
        assert client.ask(b"?read b 0 2") == [b"!read ok \\0\\0"]


def test_a_megabyte_of_zeros_comes_back_whole():
    size = 1024 * 1024
    with simulated(memory={"a": size}) as (_device, client):
        client.until(b"#version-connect katcp-device")
        assert client.ask(b"?read a 0 %d" % size) == [b"!read ok " + b"\\0" * size]


# ---- requests of the user ----


def test_a_decorated_function(device, client):
    @device.request
    def add_numbers(request, a, b):
        """Add two numbers."""
        request.inform("working")
        return "ok", int(a) + int(b)

    client.until(b"#interface-changed")
    assert client.ask(b"?add-numbers[3] 1 2") == [
        b"#add-numbers[3] working",
        b"!add-numbers[3] ok 3",
    ]
    assert client.ask(b"?help add-numbers")[0] == b"#help add-numbers Add\\_two\\_numbers."
    assert client.ask(b"?add-numbers 1")[0].startswith(b"!add-numbers invalid")
    assert add_numbers.__name__ == "add_numbers"


def test_names_and_hints_of_decorated_functions(device, client):
    @device.request("first", timeout_hint=3)
    def whatever(request):
        return "ok"

    @device.request(name="second")
    def whatever_else(request):
        return b"ok"

    assert client.ask(b"?first") == [b"!first ok"]
    assert client.ask(b"?second") == [b"!second ok"]
    assert client.ask(b"?request-timeout-hint first")[0] == b"#request-timeout-hint first 3.0"
    with pytest.raises(ValueError, match="name"):
        device.request("no name")(whatever)


async def _later(request):
    await asyncio.sleep(0.001)
    return "ok", "later"


def _raise_fail_reply(request):
    raise FailReply("so not")


@pytest.mark.parametrize(
    ("handler", "reply"),
    [
        (lambda request: ("ok", 1, 2.5, True, b"\0"), b"!foo[1] ok 1 2.5 1 \\0"),
        (lambda request: ["ok"], b"!foo[1] ok"),
        (lambda request: "partial", b"!foo[1] partial"),
        (lambda request: (), b"!foo[1]"),
        (lambda request: Message.reply("foo", "scripted", mid=1), b"!foo[1] scripted"),
        (_later, b"!foo[1] ok later"),
        (lambda request: request.send_raw(b"!foo[1] raw\n"), b"!foo[1] raw"),
        (_raise_fail_reply, b"!foo[1] fail so\\_not"),
    ],
)
def test_what_handlers_may_return(device, client, handler, reply):
    device.add_request(handler, "foo")
    assert client.ask(b"?foo[1]") == [reply]


def test_no_reply_at_all(device, client):
    device.add_request(lambda request: None, "foo")
    client.send(b"?foo\n?watchdog\n")
    assert client.until(b"!")[-1] == b"!watchdog ok"


async def _fail_later(request):
    raise ValueError("broken")


def _fail(request):
    raise ValueError("broken")


@pytest.mark.parametrize("handler", [_fail, _fail_later])
def test_a_handler_that_fails_is_logged(device, client, handler, logs):
    device.add_request(handler, "foo")
    assert client.ask(b"?foo") == [b"!foo fail broken"]
    text = logs.expect("The handler of ?foo failed.", logging.ERROR)
    assert "ValueError: broken" in text


def test_a_handler_that_fails_without_a_text(device, client, logs):
    def fail(request):
        raise KeyError

    device.add_request(fail, "foo")
    assert client.ask(b"?foo") == [b"!foo fail KeyError"]
    logs.expect("The handler of ?foo failed.", logging.ERROR)


def test_replies_from_another_thread(device, client):
    requests = []
    device.add_request(requests.append, "foo")
    client.send(b"?foo[1]\n?foo[2]\n")
    device.wait_for_request("foo", count=2)
    first, second = requests
    assert isinstance(first, DeviceRequest)
    assert isinstance(first.client, ClientConnection)
    assert first.client is first.connection
    assert first.message == Message.request("foo", mid=1)
    second.reply("ok", "second")
    first.inform("inform")
    first.reply("ok", "first")
    first.reply("ok", "again")
    client.until(b"#interface-changed")
    assert [client.line() for _ in range(4)] == [
        b"!foo[2] ok second",
        b"#foo[1] inform",
        b"!foo[1] ok first",
        b"!foo[1] ok again",
    ]


def test_other_requests_are_served_while_a_handler_waits(device, client):
    @device.request
    async def wait(request):
        await device.until(lambda: device.received_requests("go"))
        return "ok"

    device.add_request(lambda request: "ok", "go")
    client.send(b"?wait\n?go\n")
    assert [line for line in client.until(b"!wait") if line[:1] == b"!"] == [
        b"!go ok",
        b"!wait ok",
    ]


def test_a_standard_request_can_be_replaced_and_removed(device, client):
    device.add_request(lambda request: ("ok", "mine"), "watchdog")
    assert client.ask(b"?watchdog") == [b"!watchdog ok mine"]
    device.remove_request("watchdog")
    assert client.ask(b"?watchdog")[0].startswith(b"!watchdog invalid")
    with SimulatedDevice() as other, RawClient(other.address) as other_client:
        assert other_client.ask(b"?watchdog") == [b"!watchdog ok"]


def test_a_reply_to_a_client_that_has_gone(device):
    requests = []
    device.add_request(requests.append, "foo")
    with RawClient(device.address) as client:
        client.send(b"?foo\n")
        device.wait_for_request("foo")
    device.wait_for_client(0)
    requests[0].reply("ok")


# ---- what tests look at and do ----


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


def test_waiting_in_the_loop_is_refused(device, client, logs):
    device.add_request(lambda request: device.wait_for_request("x"), "foo")
    assert b" fail Do\\_not\\_block" in client.ask(b"?foo")[0]
    assert KatcpThreadError.__name__ in logs.expect("The handler of ?foo", logging.ERROR)


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
        client.socket.settimeout(TIMEOUT)
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


def test_a_client_that_does_not_read_is_dropped(logs):
    with simulated(memory={"a": 100_000}, max_write_buffer_size=300_000) as (device, client):
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(b"?read a 0 100000\n" * 200)
        device.wait_for_connection(1)
        device.wait_for_client(0)
    logs.expect("does not read: it is dropped with more than 300000 bytes")


def test_an_orderly_end_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr("katcp.simdevice.CLOSE_TIMEOUT", 0.02)
    with simulated(memory={"a": 4_000_000}) as (device, client):
        client.send(b"?read a 0 4000000\n" * 3)
        device.wait_for_request("read", count=3)
        device.disconnect_clients()
        device.wait_for_client(0)


def test_a_half_line_at_the_end_is_dropped(device):
    with RawClient(device.address) as client:
        client.send(b"?foo\n?bar")
        device.wait_for_request("foo")
    device.wait_for_client(0)
    assert [message.name for message in device.received] == ["foo"]


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


class Process:
    """The device as a process of its own."""

    def __init__(self, *arguments):
        root = Path(__file__).resolve().parent.parent
        self.process = subprocess.Popen(
            [sys.executable, "-m", "katcp.simdevice", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(root)},
        )

    def __enter__(self):
        self.line = self.process.stdout.readline().decode()
        host, _, port = self.line.split()[-1].rpartition(":")
        self.address = host, int(port)
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.communicate()

    def end(self):
        """Return the exit status and what was printed since the address."""
        return self.process.wait(10), self.process.stdout.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_as_a_process(number):
    arguments = ["--protocol", "5.1-MIBT", "--name", "dev", "--fault", "no-reply:foo"]
    with Process(*arguments) as process, RawClient(process.address) as client:
        assert re.fullmatch(r"dev listens on 127\.0\.0\.1:\d+\n", process.line)
        assert client.line() == b"#version-connect katcp-protocol 5.1-BIMT"
        client.send(b"?foo\n?watchdog\n")
        assert client.until(b"!")[-1] == b"!watchdog ok"
        process.process.send_signal(number)
        assert client.rest() == b"#disconnect The\\_device\\_is\\_stopping.\n"
        assert process.end() == (0, b"")


def test_a_process_ends_after_halt():
    with Process("--protocol", "4") as process, RawClient(process.address) as client:
        client.send(b"?halt\n")
        assert b"!halt ok\n" in client.rest()
        assert process.end() == (0, b"")


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
