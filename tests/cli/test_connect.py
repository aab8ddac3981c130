"""Connecting to a device, asking it, and what is told when that fails."""

import asyncio
import re
import socket
import threading

import pytest

from katcp import Message
from katcp.cli import connect, output
from katcp.cli.connect import (
    CommandClient,
    answers,
    ask_all,
    check_reply,
    connected,
    make_ssl_context,
    reason_of,
)
from katcp.cli.devices import Address
from katcp.cli.options import Parser, add_device_options
from katcp.cli.output import CommandError
from katcp.errors import KatcpClientDisconnected, KatcpClientTimeout


def parse(*arguments):
    parser = Parser(prog="katcp test")
    add_device_options(parser)
    return parser.parse_args(arguments)


def client_of(address, *arguments, **kwargs):
    return CommandClient(parse(*arguments), Address(*address[:2]), **kwargs)


def failure_of(client):
    """Return why a client does not connect."""
    with pytest.raises(CommandError) as failure, connected(client):
        pytest.fail("connected")
    return str(failure.value), failure.value.code


def ask(client, *words):
    """Return the reply to a request that succeeds."""
    request = Message.request(*words)
    *_, reply = answers(client, request)
    check_reply(client, request, reply)
    return reply


def test_connected(device):
    with connected(client_of(device.address)) as client:
        assert client.protocol_flags.major == 5
        assert client.is_connected()
    assert not client.running()


@pytest.mark.parametrize("auto_reconnect", [False, True])
def test_nobody_listens(refused_address, auto_reconnect):
    client = client_of(refused_address, auto_reconnect=auto_reconnect)
    where = "{}:{}".format(*refused_address[:2])
    assert failure_of(client) == (f"cannot connect to {where}: Connection refused", 3)


def test_nicknames_and_defaults_are_told(refused_address):
    device = Address(*refused_address[:2], "lab", True)
    reason, _ = failure_of(CommandClient(parse(), device))
    assert reason.startswith(f"cannot connect to lab ({device.location}): ")
    assert reason.endswith("; this is the default device, -d names another")


@pytest.mark.parametrize(("timeout", "shown"), [("0.2", "0.2 seconds"), ("1", "1 second")])
def test_nobody_answers(silent_address, timeout, shown):
    client = client_of(silent_address, "--timeout", timeout)
    reason, code = failure_of(client)
    assert code == output.NOT_CONNECTED
    assert reason.endswith(f": no answer within {shown}")


def test_one_who_closes_at_once():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        reason, code = failure_of(client_of(listener.getsockname()))
        thread.join()
    assert code == output.NOT_CONNECTED
    assert reason.endswith(": it closed the connection at once")


def test_device_without_greeting(device, monkeypatch):
    monkeypatch.setattr(connect, "GREETING_PATIENCE", 0.1)
    device.faults = ["no-greeting"]
    with connected(client_of(device.address)) as client:
        assert client.protocol_flags.major == 4
        assert [*answers(client, Message.request("echo", "there"))][-1].arguments[1:] == [b"there"]


def test_a_silent_device_takes_no_longer_than_the_timeout(device):
    """The time in which it did not greet counts, and only for the first request."""
    device.faults = ["no-greeting", "no-reply"]
    with connected(client_of(device.address, "--timeout", "0.6")) as client:
        assert client.first_patience == pytest.approx(0.3)
        with pytest.raises(CommandError, match="no reply within 0.6 seconds$"):
            ask_all(client, "help")
        assert client.first_patience is None


def test_a_long_answer_may_take_longer_than_the_timeout(device):
    """Only silence counts."""

    @device.request("slow")
    async def slow(request):
        """Answer step by step."""
        for _ in range(6):
            request.inform("step")
            await asyncio.sleep(0.2)
        return "ok"

    with connected(client_of(device.address, "--timeout", "0.8")) as client:
        assert len(ask_all(client, "slow")) == 6


def test_certificates_that_are_not_there():
    with pytest.raises(CommandError, match=r"cannot use the certificates in '/no/such\.pem'") as e:
        make_ssl_context(parse("--ca", "/no/such.pem"))
    assert e.value.code == output.USAGE


def test_tls():
    assert make_ssl_context(parse()) is None
    assert make_ssl_context(parse("--tls")).check_hostname


# ---- sizes ----

ZEROS = b"\0" * (1 << 20)


def test_a_megabyte_of_zeros_is_read(device):
    device.request(lambda request: ("ok", ZEROS), name="zeros")
    with connected(client_of(device.address)) as client:
        assert [*answers(client, Message.request("zeros"))][-1].arguments[1] == ZEROS


def test_a_line_that_is_too_long(device, capsys):
    device.request(lambda request: ("ok", ZEROS), name="zeros")
    with (
        connected(client_of(device.address, "--max-msg-size", "1M")) as client,
        pytest.raises(CommandError) as failure,
    ):
        ask_all(client, "zeros")
    assert str(failure.value) == (
        f"{client.device} ?zeros: Connection closed before reply was received: "
        "a line was longer than --max-msg-size (1048576 bytes)"
    )
    # What the library logs of it shows the beginning of the line.
    assert capsys.readouterr().err == ""


def test_a_request_that_is_too_long(device):
    with (
        connected(client_of(device.address, "--max-msg-size", "1M")) as client,
        pytest.raises(CommandError) as failure,
    ):
        ask(client, "write", "bram", "0", ZEROS)
    reason = "the request has 2097167 bytes, and --max-msg-size allows 1048576"
    shown = r"?write bram 0 \0\0\0\0"
    assert str(failure.value).startswith(f"{client.device} {shown}")
    assert str(failure.value).endswith(reason)
    assert len(str(failure.value)) < 200
    assert failure.value.code == output.USAGE


def test_a_request_that_is_too_long_for_the_device(device):
    """The simulated device takes lines of up to 2 MiB."""
    with connected(client_of(device.address)) as client, pytest.raises(CommandError) as failure:
        ask(client, "write", "bram", "0", 2 * ZEROS)
    text = r" \?write bram 0 .*; the request has 41943\d\d bytes, perhaps too many for it"
    assert re.fullmatch(re.escape(str(client.device)) + text, str(failure.value))
    assert failure.value.code == output.NOT_CONNECTED


# ---- replies ----


def made_up(error):
    reply = Message.reply("foo", "fail", str(error))
    reply.local_error = error
    return reply


def reset_by_peer():
    error = KatcpClientDisconnected("gone")
    error.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    return error


@pytest.mark.parametrize(
    ("reply", "code", "reason"),
    [
        (Message.reply("foo", "fail", "not\ntoday"), output.REFUSED, r"not\ntoday"),
        (Message.reply("foo", "invalid"), output.REFUSED, "refused, and no reason was given"),
        (Message.reply("foo"), output.REFUSED, "refused, and no reason was given"),
        (made_up(KatcpClientTimeout("too late")), output.TIMED_OUT, "too late"),
        (made_up(KatcpClientDisconnected("gone")), output.NOT_CONNECTED, "gone"),
        (made_up(reset_by_peer()), output.NOT_CONNECTED, "gone: Connection reset by peer"),
    ],
)
def test_replies(reply, code, reason, refused_address):
    client = client_of(refused_address)
    request = Message.request("foo", "two words", b"\xff")
    with pytest.raises(CommandError) as failure:
        check_reply(client, request, reply)
    assert str(failure.value) == f'{client.device} ?foo "two words" \\xff: {reason}'
    assert failure.value.code == code
    assert reason_of(reply) == reason


def test_good_reply(refused_address):
    check_reply(client_of(refused_address), Message.request("foo"), Message.reply("foo", "ok"))


def test_what_the_library_logs(device, capsys):
    """One line each, and not much of it."""
    with connected(client_of(device.address)) as client:
        device.send_raw(b"#bad\x1b\x01" + b"x" * 5000 + b"\n")
        ask_all(client, "echo")
    errors = capsys.readouterr().err
    where = f"katcp: {client.device}: BAD COMMAND: katcp.errors.KatcpSyntaxError: "
    assert errors.startswith(where)
    assert errors.count("\n") == 1
    assert errors[:-1].isprintable()
    assert len(errors) < 400
