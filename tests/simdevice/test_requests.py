"""The requests of the simulated device: the standard ones, the memory's, and the user's own."""

import asyncio
import logging
import socket

import pytest

from katcp._wire.message import Message
from katcp.errors import FailReply
from katcp.simdevice import LOG_LEVELS, ClientConnection, DeviceRequest, SimulatedDevice
from tests.support.helpers import RawClient, is_v5, simulated

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
    timestamp = b"1000.500000" if is_v5(any_device) else b"1000500"
    with RawClient(any_device.address) as client:
        assert client.ask(b"?sensor-value label") == [
            b"#sensor-value " + timestamp + b" 1 label warn two\\_words",
            b"!sensor-value ok 1",
        ]
        assert client.ask(b"?sensor-value")[-1] == b"!sensor-value ok 8"
        assert client.ask(b"?sensor-value nothing")[0].startswith(b"!sensor-value fail")


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


# ---- ?sensor-sampling ----


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


# ---- ids and wrong usage ----


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
