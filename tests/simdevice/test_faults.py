"""What the simulated device does wrong, seen by a client that knows only bytes."""

import logging
import re
from pathlib import Path

import pytest

from katcp._wire.message import Message
from katcp.simdevice import SimulatedDevice
from katcp.simdevice.faults import _KINDS, Fault, list_faults
from katcp.simdevice.sensors import Sensor
from tests.support.helpers import RawClient, simulated

HELP = b"Tell\\_that\\_the\\_device\\_is\\_alive\\_(?watchdog)."
INFORM = b"#help[5] watchdog " + HELP
REPLY = b"!help[5] ok 1"


def converse(*faults, protocol="5.1-MIB", requests=b"?help[5] watchdog\n?halt[6]\n"):
    """Send requests to a device with these faults; return all that it says, without greeting."""
    with simulated(protocol=protocol, faults=faults) as (device, client):
        client.send(requests)
        return device, client.rest()


def answer_to_help(*faults):
    """Return the lines that answer ``?help[5] watchdog``."""
    _, data = converse(*faults)
    lines = data.split(b"\n")
    end = next(n for n, line in enumerate(lines) if line.startswith(b"!halt"))
    return lines[3:end]


def test_no_fault():
    assert answer_to_help() == [INFORM, REPLY]


# ---- the value ----


@pytest.mark.parametrize(
    ("text", "name", "request_name", "value"),
    [
        ("no-reply", "no-reply", None, None),
        ("no-reply:foo", "no-reply", "foo", None),
        ("late-reply=2", "late-reply", None, 2.0),
        ("late-reply:foo=0.25", "late-reply", "foo", 0.25),
        ("late-reply:foo", "late-reply", "foo", 0.5),
        ("over-long-line=100", "over-long-line", None, 100),
        ("bad-version=9.0=x", "bad-version", None, "9.0=x"),
    ],
)
def test_faults_as_text(text, name, request_name, value):
    fault = Fault.parse(text)
    assert (fault.name, fault.request, fault.value) == (name, request_name, value)
    assert fault == Fault(name, value, request=request_name)
    assert hash(fault) == hash(Fault(name, value, request=request_name))
    assert fault != text
    assert Fault.parse(str(fault)) == fault
    assert repr(fault) == f"<Fault {fault}>"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nothing", "no fault 'nothing': use one of bad-escape, "),
        ("no-reply=1", "has no parameter"),
        ("late-reply=x", "could not convert"),
        ("over-long-line=1.5", "invalid literal"),
        ("no-greeting:foo", "cannot be limited to a request"),
        ("crlf:foo", "cannot be limited to a request"),
    ],
)
def test_faults_that_make_no_sense(text, error):
    with pytest.raises(ValueError, match=error):
        Fault.parse(text)
    with pytest.raises(ValueError, match=error):
        SimulatedDevice(faults=[text])


def test_one_text_is_no_sequence_of_faults():
    with pytest.raises(TypeError, match="must be a sequence"):
        SimulatedDevice(faults="no-reply")


def test_every_fault_has_a_description_and_a_test():
    described = list_faults()
    assert list(described) == sorted(described)
    assert all(re.fullmatch(r"[A-Z].*\.", text) for text in described.values())
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in _KINDS if f'"{name}' not in source] == []


def test_faults_change_at_run_time_and_are_limited_to_a_request():
    with simulated() as (device, client):
        client.until(b"#version-connect katcp-device")
        device.faults = [Fault("no-code", request="watchdog"), "unknown-code:help=maybe"]
        assert device.faults == (
            Fault.parse("no-code:watchdog"),
            Fault.parse("unknown-code:help=maybe"),
        )
        assert client.ask(b"?watchdog") == [b"!watchdog"]
        assert client.ask(b"?help watchdog")[-1] == b"!help maybe 1"
        assert client.ask(b"?log-level") == [b"!log-level ok warn"]
        device.faults = ()
        assert client.ask(b"?watchdog") == [b"!watchdog ok"]


def test_faults_combine_in_order():
    assert answer_to_help("duplicate-reply", "no-code", "no-ids") == [
        INFORM.replace(b"[5]", b""),
        b"!help",
        b"!help",
    ]


# ---- the connection ----


def test_stall():
    with simulated(faults=["stall"]) as (device, client):
        client.send(b"?watchdog\n")
        device.wait_for_request("watchdog")
        device.close_clients()
        assert client.rest() == b""


def test_stall_from_a_request_on():
    with simulated(faults=["stall:foo"]) as (device, client):
        assert client.ask(b"?watchdog") == [b"!watchdog ok"]
        client.send(b"?foo\n?watchdog\n")
        device.wait_for_request("watchdog", count=2)
        device.close_clients()
        assert client.rest() == b""


@pytest.mark.parametrize(
    ("protocol", "other"),
    [("5.1-MIB", b"#version "), ("4", b"#version-connect katcp-protocol 5.0-IM")],
)
def test_other_version(protocol, other):
    with SimulatedDevice(protocol=protocol, faults=["other-version"]) as device:
        greetings = []
        for _ in range(3):
            with RawClient(device.address) as client:
                greetings.append(client.line())
                answer = client.ask(b"?version-list")[-1]
                is_v4 = greetings[-1].startswith(b"#version ")
                assert answer.startswith(b"!version-list " + (b"invalid" if is_v4 else b"ok"))
            device.wait_for_client(0)
        assert greetings[0] == greetings[2]
        assert not greetings[0].startswith(other)
        assert greetings[1].startswith(other)


def test_close_on_request():
    device, data = converse("close-on-request:help", protocol="4")
    assert re.fullmatch(rb"#version \S+\n#build-state \S+\n", data)
    assert [message.name for message in device.received] == ["help"]


def test_reset_on_request():
    with simulated(faults=["reset-on-request:foo"]) as (_device, client):
        assert client.ask(b"?watchdog") == [b"!watchdog ok"]
        client.send(b"?foo\n")
        with pytest.raises(ConnectionResetError):
            client.rest()


# ---- the greeting ----


@pytest.mark.parametrize("protocol", ["4", "5.1-MIB"])
def test_no_greeting(protocol):
    _, data = converse("no-greeting", protocol=protocol)
    assert data.startswith(INFORM + b"\n" + REPLY)


@pytest.mark.parametrize(("protocol", "count"), [("4", 2), ("5.1-MIB", 3)])
def test_late_greeting(protocol, count):
    with simulated(protocol=protocol, faults=["late-greeting=0.02"]) as (_device, client):
        client.send(b"?watchdog\n")
        assert client.line() == b"!watchdog ok"
        assert all(client.line().startswith(b"#version") for _ in range(count - 1))
        assert client.line().startswith((b"#build-state", b"#version-connect katcp-device"))


def test_protocol_last():
    _, data = converse("protocol-last")
    roles = [line.split(b" ")[1] for line in data.split(b"\n")[:3]]
    assert roles == [b"katcp-library", b"katcp-device", b"katcp-protocol"]


@pytest.mark.parametrize("protocol", ["4.0", "5.1-BIM"])
def test_both_greetings(protocol):
    _, data = converse("both-greetings", protocol=protocol)
    lines = data.split(b"\n")[:5]
    assert {line.split(b" ")[0] for line in lines} == {
        b"#version",
        b"#build-state",
        b"#version-connect",
    }
    assert b"#version-connect katcp-protocol " + protocol.encode() in lines


@pytest.mark.parametrize(
    ("fault", "version"), [("bad-version", b"five"), ("bad-version=9.0-IM", b"9.0-IM")]
)
def test_bad_version(fault, version):
    _, data = converse(fault)
    assert data.startswith(b"#version-connect katcp-protocol " + version + b"\n")


# ---- ids, replies and lines ----


@pytest.mark.parametrize(
    ("fault", "lines"),
    [
        ("no-ids", [INFORM.replace(b"[5]", b""), b"!help ok 1"]),
        ("wrong-id", [INFORM.replace(b"5", b"6"), b"!help[6] ok 1"]),
        ("unknown-id", [INFORM.replace(b"5", b"2147483647"), b"!help[2147483647] ok 1"]),
        ("unknown-id=77", [INFORM.replace(b"5", b"77"), b"!help[77] ok 1"]),
        ("duplicate-id", [INFORM, REPLY]),
        ("no-reply:help", [INFORM]),
        ("duplicate-reply", [INFORM, REPLY, REPLY]),
        ("wrong-name:help", [INFORM, b"!wrong-name[5] ok 1"]),
        ("wrong-name:help=foo", [INFORM, b"!foo[5] ok 1"]),
        ("reply-before-informs", [REPLY, INFORM]),
        ("no-code", [INFORM, b"!help[5]"]),
        ("unknown-code", [INFORM, b"!help[5] partial 1"]),
        ("wrong-count", [INFORM, b"!help[5] ok 2"]),
        ("wrong-count=-1", [INFORM, b"!help[5] ok 0"]),
        ("bad-escape:help", [INFORM, REPLY + b" \\q"]),
        ("not-utf8", [INFORM + b" \xff\xfe\x80", REPLY + b" \xff\xfe\x80"]),
        ("over-long-line:help=50", [INFORM, REPLY + b" " + b"x" * 35]),
        ("request-to-client:help", [INFORM, b"?surprise are\\_you\\_there?", REPLY]),
        ("unknown-inform:help", [INFORM, b"#surprise out\\_of\\_the\\_blue", REPLY]),
    ],
)
def test_answers(fault, lines):
    assert answer_to_help(fault) == lines


def test_wrong_id_of_a_request_without_id():
    _, data = converse("wrong-id:watchdog", requests=b"?watchdog\n?halt\n")
    assert b"\n!watchdog[1] ok\n" in data


def test_duplicate_id():
    _, data = converse(
        "duplicate-id", requests=b"?watchdog[3]\n?watchdog[4]\n?watchdog\n?halt[1]\n"
    )
    replies = [line for line in data.split(b"\n") if line.startswith(b"!watchdog")]
    assert replies == [b"!watchdog[3] ok", b"!watchdog[3] ok", b"!watchdog ok"]


def test_reordered_replies():
    _, data = converse(
        "reordered-replies:watchdog",
        requests=b"?watchdog[1]\n?help[2] watchdog\n?watchdog[3]\n?watchdog[4]\n?halt[5]\n",
    )
    replies = [line for line in data.split(b"\n") if line.startswith(b"!")]
    assert replies == [b"!help[2] ok 1", b"!watchdog[3] ok", b"!watchdog[1] ok", b"!halt[5] ok"]


def test_a_reply_that_is_held_back_goes_to_no_other_client():
    with SimulatedDevice(faults=["reordered-replies"]) as device:
        with RawClient(device.address) as client:
            client.send(b"?watchdog[1]\n")
            device.wait_for_request("watchdog")
        device.wait_for_client(0)
        with RawClient(device.address) as client:
            client.send(b"?watchdog[2]\n?watchdog[3]\n")
            assert client.until(b"!")[-1] == b"!watchdog[3] ok"
            assert client.line() == b"!watchdog[2] ok"


def test_wrong_count_leaves_other_replies_alone():
    _, data = converse("wrong-count", requests=b"?log-level\n?halt\n")
    assert b"!log-level ok warn\n" in data


def test_late_reply_delays_nothing_else():
    with SimulatedDevice(faults=["late-reply:foo=0.02"]) as device:
        device.add_request(lambda request: "ok", "foo")
        with RawClient(device.address) as client:
            client.send(b"?foo[1]\n?foo[2]\n?watchdog\n")
            assert client.until(b"!")[-1] == b"!watchdog ok"
            assert [client.line(), client.line()] == [b"!foo[1] ok", b"!foo[2] ok"]


def test_a_late_reply_is_forgotten_with_its_connection():
    with SimulatedDevice(faults=["late-reply:foo=100"]) as device:
        with RawClient(device.address) as client:
            client.send(b"?foo\n")
            device.wait_for_request("foo")
            (connection,) = device.clients
        device.wait_for_client(0)
        assert not connection._timers


def test_half_line_then_close():
    _, data = converse("half-line-then-close:help")
    assert data.endswith(INFORM + b"\n" + REPLY[: len(REPLY) // 2])


def test_disconnect_on_request():
    _, data = converse("disconnect-on-request:help")
    assert data.endswith(b"\n#disconnect No\\_more\\_of\\_?help.\n")
    assert INFORM not in data


@pytest.mark.parametrize(("request_name", "position"), [(b"sensor-list", 1), (b"sensor-value", 3)])
def test_prefix_matching(request_name, position):
    sensors = [Sensor(name, "integer") for name in ("a", "a.b", "a.b.c", "a-b", "b.a.b")]
    with simulated(sensors=sensors, faults=["prefix-matching"]) as (_device, client):

        def names(arguments):
            *informs, reply = client.ask(b"?" + request_name + arguments)
            assert reply == b"!" + request_name + b" ok %d" % len(informs)
            return [inform.split(b" ")[position] for inform in informs]

        assert names(b" a.b") == [b"a.b", b"a.b.c"]
        assert names(b" a") == [b"a", b"a-b", b"a.b", b"a.b.c"]
        assert names(b" b.") == [b"b.a.b"]
        assert len(names(b"")) == len(names(b" \\@")) == 5
        assert client.ask(b"?" + request_name + b" c")[0].endswith(b" fail Unknown\\_sensor\\_'c'.")
        assert client.ask(b"?help watch")[0].startswith(b"!help fail")


def sample(*faults):
    """Return the answers of a device with these faults about its sensor "mode"."""
    with simulated(faults=faults) as (device, client):
        device.set_sensor("mode", "idle", timestamp=1.0)
        client.send(b"?sensor-list mode\n?sensor-sampling mode period 2\n")
        return [client.until(b"!sensor-list")[-2], *client.until(b"!sensor-sampling")]


@pytest.mark.parametrize(
    ("fault", "position", "line"),
    [
        ("unknown-status", 1, b"#sensor-status 1.000000 1 mode odd idle"),
        ("unknown-status=meh", 1, b"#sensor-status 1.000000 1 mode meh idle"),
        ("wrong-triples", 1, b"#sensor-status 1.000000 2 mode nominal idle"),
        ("normalised-parameters", 2, b"!sensor-sampling ok mode period 2.000000"),
        (
            "unknown-type",
            0,
            b"#sensor-list mode Mode\\_of\\_operation \\@ odd idle track slew",
        ),
    ],
)
def test_odd_sensors(fault, position, line):
    healthy = sample()
    odd = sample(fault)
    assert odd[position] == line
    healthy[position] = line
    assert odd == healthy


@pytest.mark.parametrize("fault", ["unknown-status", "wrong-triples", "unknown-type"])
def test_odd_sensors_leave_other_informs_alone(fault):
    assert answer_to_help(fault) == [INFORM, REPLY]


def test_informs_that_belong_to_no_request_are_not_held():
    names = [line.split(b" ")[0] for line in sample("reply-before-informs")]
    assert names[-2:] == [b"#sensor-status", b"!sensor-sampling"]


# ---- bytes ----


@pytest.mark.parametrize(
    ("fault", "end"), [("cr", b"\r"), ("crlf", b"\r\n"), ("blank-lines", b"\n\n \t \n")]
)
def test_line_ends(fault, end):
    _, data = converse(fault)
    lines = data.split(end)
    assert lines[3:5] == [INFORM, REPLY]
    assert lines[-1] == b""
    assert b"\n" not in b"".join(lines)


def test_byte_by_byte_keeps_the_order():
    _, plain = converse()
    _, data = converse("byte-by-byte")
    assert data == plain


def test_byte_by_byte_sends_single_bytes():
    fault = Fault("byte-by-byte")
    assert fault.hook("output")(b"!ok\n", None) == [b"!", b"o", b"k", b"\n"]


def test_coalesce():
    with simulated(faults=["coalesce=0.02"]) as (device, client):
        # One piece that ends with a whole line, whatever came before it.
        greeting = client.socket.recv(65536)
        assert greeting.count(b"\n") == 3
        client.send(b"?watchdog\n")
        device.wait_for_request("watchdog")
        device.inform(Message.inform("one"))
        device.inform(Message.inform("two"))
        assert client.socket.recv(65536) == b"!watchdog ok\n#one\n#two\n"


def test_coalesced_lines_come_before_the_end():
    _, data = converse("coalesce=0.01")
    assert data.endswith(b"!halt[6] ok\n#disconnect The\\_device\\_is\\_halting.\n")


def test_pieces_and_ends_keep_their_order():
    _, data = converse("coalesce=0.01", "half-line-then-close:help")
    assert data.endswith(INFORM + b"\n" + REPLY[: len(REPLY) // 2])
    with simulated(faults=["coalesce=0.01"]) as (device, client):
        device.wait_for_client(1)
        device.close_clients()
        assert client.rest().count(b"\n") == 3


def test_a_fault_that_fails_is_logged(logs):
    with simulated(faults=["wrong-name=no name"]) as (device, client):
        client.send(b"?watchdog\n")
        device.wait_for_connection(1)
        device.wait_for_client(0)
    logs.expect("The handler of ?watchdog failed.", logging.ERROR)
    logs.expect("A task of the simulated device failed.", logging.ERROR)
