"""Connecting to a device, and what is told when it fails."""

import argparse
import re

import pytest

from katcp import Message
from katcp.cli import connect, output
from katcp.cli.connect import CommandClient, check_reply, connected, make_ssl_context
from katcp.cli.options import add_device_arguments
from katcp.cli.output import CommandError
from katcp.errors import KatcpClientDisconnected, KatcpClientTimeout
from tests.support.helpers import PATIENCE


def parse(*arguments):
    parser = argparse.ArgumentParser(prog="katcp test")
    add_device_arguments(parser)
    return parser.parse_args(arguments)


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
    assert failure.value.code == output.NOT_CONNECTED


def test_nobody_answers(silent_address):
    host, port = silent_address
    connection = connected(parse(f"{host}:{port}", "--timeout", "0.2"), CommandClient)
    with pytest.raises(CommandError, match="cannot connect to ") as failure, connection:
        pytest.fail("connected")
    assert failure.value.code == output.NOT_CONNECTED


def test_device_without_greeting(device, monkeypatch):
    monkeypatch.setattr(connect, "GREETING_PATIENCE", 0.1)
    device.faults = ["no-greeting"]
    host, port = device.address
    with connected(parse(f"{host}:{port}"), CommandClient) as client:
        assert client.protocol_flags is None
        reply, _ = client.blocking_request(Message.request("echo", "there"))
    assert reply.arguments == [b"ok", b"there"]


def test_certificates_that_are_not_there():
    with pytest.raises(CommandError, match=r"cannot use the certificates in '/no/such\.pem'") as e:
        make_ssl_context(parse("host:1", "--ca", "/no/such.pem"))
    assert e.value.code == output.USAGE


def test_tls():
    assert make_ssl_context(parse("host:1")) is None
    assert make_ssl_context(parse("host:1", "--tls")).check_hostname


def made_up(error):
    reply = Message.reply("foo", "fail", str(error))
    reply.local_error = error
    return reply


@pytest.mark.parametrize(
    ("reply", "code", "reason"),
    [
        (Message.reply("foo", "fail", "not\ntoday"), output.REFUSED, r"not\ntoday"),
        (Message.reply("foo", "invalid"), output.REFUSED, "refused, and no reason was given"),
        (Message.reply("foo"), output.REFUSED, "refused, and no reason was given"),
        (made_up(KatcpClientTimeout("too late")), output.TIMED_OUT, "too late"),
        (made_up(KatcpClientDisconnected("gone")), output.NOT_CONNECTED, "gone"),
    ],
)
def test_replies(reply, code, reason):
    with pytest.raises(CommandError) as failure:
        check_reply(reply, "?foo")
    assert (str(failure.value), failure.value.code) == (f"?foo: {reason}", code)


def test_good_reply():
    check_reply(Message.reply("foo", "ok"), "?foo")
