"""``katcp log``."""

import contextlib
import json

import pytest

from katcp import Message, ProtocolFlags, cli
from katcp.cli.loglines import parse_log, show_log
from tests.support.helpers import TestDevice
from tests.support.process import KatcpProcess

V4, V5 = ProtocolFlags(4, 0, ""), ProtocolFlags(5, 1, "I")


@contextlib.contextmanager
def log(device, *arguments):
    host, port = device.address
    with KatcpProcess("log", f"{host}:{port}", *arguments) as process:
        # It is ready when it has said so.
        process.told = process.error_line()
        yield process


def lost(device):
    where = "{}:{}".format(*device.address)
    return [
        f"katcp: {where}: connection lost; reconnecting\n",
        f"katcp: {where}: connected again\n",
    ]


@pytest.mark.parametrize("protocol", ["5.1-MIB", "4"])
def test_log(protocol):
    with TestDevice(protocol=protocol) as device, log(device) as process:
        device.log("warn", "It is hot.", "rack1.power")
        line = process.line()
        date, time, rest = line.split(" ", 2)
        assert rest == "WARN  rack1.power: It is hot.\n"
        assert len(f"{date} {time}") == len("2026-11-22 19:38:41.250Z")
        process.interrupt()
        assert process.end() == (130, "", "")
        where = "{}:{}".format(*device.address)
        assert process.told == f"katcp: {where} sends warn and above. Ctrl-C ends.\n"


@pytest.mark.parametrize(
    ("arguments", "protocol", "text"),
    [
        (["info", "1700000000.5", "a.b", "text"], V5, "2023-11-14 22:13:20.500Z INFO  a.b: text"),
        (["INFO", "1700000000500", "a", "text"], V4, "2023-11-14 22:13:20.500Z INFO  a: text"),
        (["WARN", "1322206610270", "text"], None, "2011-11-25 07:36:50.270Z WARN  text"),
        (["odd", "now", b"\xff", b"\xfe\x1b[2J"], V5, r"now ODD   \xff: \xfe\x1b[2J"),
        (
            ["fatal", "1700000000", "a", "one\n\ttwo\n"],
            V5,
            "2023-11-14 22:13:20.000Z FATAL a: one\n            two",
        ),
        (["info", "1700000000"], V5, "2023-11-14 22:13:20.000Z INFO  "),
        (["info"], V5, "- INFO  "),
    ],
)
def test_lines(arguments, protocol, text):
    msg = Message.inform("log", *arguments)
    assert show_log(parse_log(msg, protocol)) == text


def test_level():
    with TestDevice(log_level="all") as device, log(device, "--level", "warn") as process:
        for level in ("trace", "debug", "info", "warn", "error", "fatal"):
            device.log(level, level)
        device.inform(Message.inform("log", "notice", 1, "power", "odd"))
        device.inform(Message.inform("log"))
        assert [process.line().split()[2] for _ in range(4)] == ["WARN", "ERROR", "FATAL", "NOTICE"]
        assert process.line() == "- ?     \n"


def test_level_that_the_device_does_not_send(device):
    with log(device, "--level", "info") as process:
        where = "{}:{}".format(*device.address)
        assert process.told == (
            f"katcp: {where} sends warn and above; --set-level info changes that, "
            "for all its clients. Ctrl-C ends.\n"
        )


def test_set_level_and_lost_connection(device):
    with log(device, "--set-level", "debug") as process:
        assert process.told.endswith(" sends debug and above. Ctrl-C ends.\n")
        device.log_level = "off"
        device.close_clients()
        assert [process.error_line() for _ in range(2)] == lost(device)
        device.wait_for_request("log-level", count=2)
        device.wait_until(lambda: device.log_level == "debug")
        device.log("debug", "back")
        assert process.line().endswith("back\n")


def test_level_that_is_refused_after_a_reconnect(device):
    with log(device, "--set-level", "debug") as process:
        device.faults = ["unknown-code:log-level"]
        device.close_clients()
        assert [process.error_line() for _ in range(2)] == lost(device)
        assert " ?log-level debug: " in process.error_line()


def test_level_that_is_refused(device, capsys):
    device.faults = ["unknown-code:log-level"]
    host, port = device.address
    assert cli.main(["log", f"{host}:{port}", "--set-level", "debug"]) == 1
    assert capsys.readouterr().err.startswith(f"katcp: {host}:{port} ?log-level debug: ")


def test_nobody_listens(refused_address, capsys):
    host, port = refused_address
    assert cli.main(["log", f"{host}:{port}"]) == 3
    assert capsys.readouterr().err.startswith(f"katcp: cannot connect to {host}:{port}: ")


def test_reader_goes_away(device):
    with log(device) as process:
        device.log("warn", "first")
        assert process.line().endswith("first\n")
        process.close_output()
        device.log("warn", "second")
        code, _, errors = process.end()
    assert (code, errors) == (1, "")


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_for_programs(form, device):
    with log(device, "-o", form) as process:
        if form == "csv":
            assert process.line() == "timestamp,level,logger,message\n"
        device.inform(Message.inform("log", "warn", "1700000000.5", "a.b", "two\nlines"))
        line = process.line()
    if form == "csv":
        assert line == "1700000000.5,warn,a.b,two\\nlines\n"
    else:
        assert json.loads(line) == {
            "timestamp": 1700000000.5,
            "level": "warn",
            "logger": "a.b",
            "message": "two\nlines",
        }


def test_several_devices(device, refused_address):
    """One that is not there is told of, and the others are shown."""
    with TestDevice() as other:
        names = ["{}:{}".format(*it[:2]) for it in (device.address, other.address, refused_address)]
        with KatcpProcess("log", *names) as process:
            other.wait_for_request("log-level")
            other.log("warn", "here")
            line = process.line()
            process.interrupt()
            code, _, errors = process.end()
    assert line.startswith(f"{names[1]} ")
    assert line.endswith("here\n")
    assert code == 130
    assert f"katcp: cannot connect to {names[2]}: Connection refused; trying again\n" in errors


def test_a_silent_device_is_told_of(device):
    device.faults = ["no-reply"]
    with log(device, "--timeout", "0.3") as process:
        where = "{}:{}".format(*device.address)
        assert process.told == (
            f"katcp: {where} ?log-level: no reply within 0.3 seconds; "
            "waiting for log messages nevertheless\n"
        )
        device.log("error", "after all")
        assert process.line().endswith("after all\n")
