"""What the subcommands of ``katcp`` share."""

import argparse
import io
import re

import pytest

from katcp import Message
from katcp.cli import common as cli_common
from katcp.cli.common import (
    Address,
    CommandClient,
    CommandError,
    add_device_arguments,
    check_reply,
    connected,
    paint,
    parse_address,
    parse_seconds,
    printable,
    printable_lines,
)
from katcp.errors import KatcpClientDisconnected, KatcpClientTimeout
from tests.support.helpers import PATIENCE


def parse(*arguments):
    parser = argparse.ArgumentParser(prog="katcp test")
    add_device_arguments(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost:7147", "localhost", 7147),
        ("10.0.0.1:1", "10.0.0.1", 1),
        ("[::1]:65535", "::1", 65535),
        ("[fe80::1%eth0]:7147", "fe80::1%eth0", 7147),
    ],
)
def test_address(text, host, port):
    address = parse_address(text)
    assert address == Address(host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "localhost:", ":7147", "a b:7147", "host:0", "host:65536", "host:x", "[]:1"],
)
def test_no_address(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not an address like localhost:7147$"):
        parse_address(text)


def test_ipv6_address_without_brackets():
    with pytest.raises(argparse.ArgumentTypeError, match="put an IPv6 address in brackets"):
        parse_address("::1:7147")


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1s", ""])
def test_no_seconds(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number of seconds"):
        parse_seconds(text)


def test_connected(device):
    host, port = device.address
    with connected(parse(f"{host}:{port}"), CommandClient) as client:
        assert client.protocol_flags.major == 5
        assert client.is_connected()
    assert not client.running()


@pytest.mark.parametrize("auto_reconnect", [False, True])
def test_nobody_listens(refused_address, auto_reconnect):
    host, port = refused_address
    options = parse(f"{host}:{port}", "--timeout", str(PATIENCE))
    connection = connected(options, CommandClient, auto_reconnect=auto_reconnect)
    with pytest.raises(CommandError) as failure, connection:
        pytest.fail("connected")
    assert re.fullmatch(f"cannot connect to {host}:{port}: .*refused", str(failure.value))
    assert failure.value.code == cli_common.NOT_CONNECTED


def test_nobody_answers(silent_address):
    host, port = silent_address
    connection = connected(parse(f"{host}:{port}", "--timeout", "0.2"), CommandClient)
    with pytest.raises(CommandError, match="cannot connect to ") as failure, connection:
        pytest.fail("connected")
    assert failure.value.code == cli_common.NOT_CONNECTED


def test_device_without_greeting(device, monkeypatch):
    monkeypatch.setattr(cli_common, "GREETING_PATIENCE", 0.1)
    device.faults = ["no-greeting"]
    host, port = device.address
    with connected(parse(f"{host}:{port}"), CommandClient) as client:
        assert client.protocol_flags is None
        reply, _ = client.blocking_request(Message.request("echo", "there"))
    assert reply.arguments == [b"ok", b"there"]


def test_certificates_that_are_not_there():
    with pytest.raises(CommandError, match=r"cannot use the certificates in '/no/such\.pem'") as e:
        cli_common.make_ssl_context(parse("host:1", "--ca", "/no/such.pem"))
    assert e.value.code == cli_common.USAGE


def test_tls():
    assert cli_common.make_ssl_context(parse("host:1")) is None
    assert cli_common.make_ssl_context(parse("host:1", "--tls")).check_hostname


def made_up(error):
    reply = Message.reply("foo", "fail", str(error))
    reply.local_error = error
    return reply


@pytest.mark.parametrize(
    ("reply", "code", "reason"),
    [
        (Message.reply("foo", "fail", "not\ntoday"), cli_common.REFUSED, r"not\ntoday"),
        (Message.reply("foo", "invalid"), cli_common.REFUSED, "refused, and no reason was given"),
        (Message.reply("foo"), cli_common.REFUSED, "refused, and no reason was given"),
        (made_up(KatcpClientTimeout("too late")), cli_common.TIMED_OUT, "too late"),
        (made_up(KatcpClientDisconnected("gone")), cli_common.NOT_CONNECTED, "gone"),
    ],
)
def test_replies(reply, code, reason):
    with pytest.raises(CommandError) as failure:
        check_reply(reply, "?foo")
    assert (str(failure.value), failure.value.code) == (f"?foo: {reason}", code)


def test_good_reply():
    check_reply(Message.reply("foo", "ok"), "?foo")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain text", "plain text"),
        ("temp\u00e9rature".encode(), "temp\u00e9rature"),
        (b"\xff\x00", r"\xff\x00"),
        (b"\x1b[2J\n", r"\x1b[2J\n"),
        ("\u202e\udcff", r"\u202e\udcff"),
    ],
)
def test_printable(data, text):
    assert printable(data) == text


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", [""]),
        (b"one", ["one"]),
        (b"one\n\ttwo\r\n\nthree\n\n", ["one", "        two", "", "three"]),
        (b"bytes \xff\n\x00", [r"bytes \xff\n\x00"]),
        (b"bytes\n\x00", [r"bytes\n\x00"]),
        (b"\n", [r"\n"]),
    ],
)
def test_printable_lines(data, lines):
    assert printable_lines(data) == lines


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "coloured"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colours(stream, environment, coloured, monkeypatch):
    for name, value in {"NO_COLOR": "", "TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    assert paint("text", "red", stream) == ("\x1b[31mtext\x1b[0m" if coloured else "text")
    assert paint("text", None, stream) == "text"
