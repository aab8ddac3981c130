"""What was observed of the old package beside the record in test_old_client.py.

Each test does what a program in the field does, and expects what katcp 0.9.3 did then.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading

import pytest
import tornado.gen
import tornado.ioloop
from packaging.specifiers import SpecifierSet

import katcp
import katcp.core
import katcp.ioloop_manager
import katcp.server
from katcp import Message, ProtocolFlags
from tests.support.helpers import (
    PATIENCE,
    Recorder,
    TestDevice,
    closed_port,
    start_client,
    until_answered,
)

# ---- the version ----


@pytest.mark.parametrize("pin", [">=0.9.3,<1", ">=0.9.3", "~=0.9"])
def test_the_version_is_one_that_programs_in_the_field_ask_for(pin):
    """Else pip puts 0.9.3 in its place: tests/interop/test_pins.py tries it."""
    assert SpecifierSet(pin).contains(katcp.__version__, prereleases=True)


# ---- messages and flags ----


@pytest.mark.parametrize(
    ("msg", "shown"),
    [
        (Message.reply("ok", ""), "<Message reply ok (b'')>"),
        (
            Message.reply("ok", " ", b"\0", ""),
            "<Message reply ok (b'\\\\_', b'\\\\0', b'')>",
        ),
    ],
    ids=["one", "between"],
)
def test_an_empty_argument_is_shown_as_no_bytes(msg, shown):
    assert repr(msg) == shown


def test_no_version_is_version_zero():
    flags = ProtocolFlags.parse_version(b"foo")
    assert flags == ProtocolFlags(None, None, set())
    assert (flags.major, flags.minor, flags.flags, str(flags)) == (0, 0, set(), "0.0")
    assert ProtocolFlags(5, None, set()).minor == 0


# ---- requests ----


class Overriding(katcp.CallbackClient):
    """A client that looks at each reply before it goes its way."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = Recorder()

    def handle_reply(self, msg):
        self.seen("handle_reply", msg.name)
        return super().handle_reply(msg)

    def reply_known(self, msg):
        self.seen("reply_known", msg.name)

    def unhandled_reply(self, msg):
        self.seen("unhandled_reply", msg.name)


def test_not_connected_is_a_reply_like_any_other(logs):
    port = closed_port()
    client = Overriding("127.0.0.1", port)
    client.start()
    logs.expect("Failed to connect")
    client.callback_request(
        Message.request("known"),
        lambda reply, *data: client.seen("reply_cb", reply, *data),
        None,
        "ab",
    )
    first, second = client.seen.wait(2)
    assert first == ("handle_reply", "known")
    assert second[0] == "reply_cb"
    assert second[1].arguments == [b"fail", b"Not connected to device 127.0.0.1:%d" % port]
    assert second[2:] == ("a", "b")
    client.callback_request(Message.request("known"))
    client.callback_request(Message.request("other"))
    assert client.seen.wait(6)[2:] == [
        ("handle_reply", "known"),
        ("reply_known", "known"),
        ("handle_reply", "other"),
        ("unhandled_reply", "other"),
    ]
    client.stop()


def test_user_data_that_is_no_sequence_is_logged(device, logger, records):
    client = start_client(device, logger=logger)
    replies = Recorder()
    assert client.callback_request(Message.request("echo"), replies, user_data=5) is None
    text = records.until("Callback reply echo FAIL: Traceback")[1]
    assert "must be an iterable, not int" in text
    assert replies.calls == []


def test_a_client_may_be_shown_before_it_is_made():
    class Client(katcp.DeviceClient):
        def __init__(self):
            self.shown = repr(self)
            super().__init__("localhost", 7147)

    assert "Client object at 0x" in Client().shown


@pytest.mark.parametrize("make", [Message.inform, Message.request], ids=["inform", "request"])
def test_a_request_is_answered_by_a_reply_only(device, logger, records, make):
    class Client(katcp.CallbackClient):
        def request_odd(self, msg):
            return make("odd", "ok")

    client = start_client(device, Client, logger=logger)
    device.send_raw(b"?odd[3] x\n")
    level = records.until("Request odd FAIL: Traceback")[0]
    assert level == "ERROR"
    until_answered(client)
    assert [msg.name for msg in device.received] == ["echo"]


# ---- coroutines and deadlines ----


class Host:
    """A class of a program, with a logger, as `log_coroutine_exceptions` wants it."""

    def __init__(self, logger):
        self._logger = logger
        self.began = []

    @katcp.core.log_coroutine_exceptions
    @tornado.gen.coroutine
    def work(self, number):
        self.began.append(number)
        yield tornado.gen.moment
        if number == 2:
            raise ValueError(number)
        raise tornado.gen.Return(number)


def test_a_logged_coroutine_runs_when_it_is_called(ioloop, logger, records):
    async def main():
        host = Host(logger)
        first, second = host.work(1), host.work(2)
        assert host.began == [1, 2]
        assert await first == 1
        with pytest.raises(ValueError, match="2"):
            await second

    ioloop.run_sync(main)
    level, text, has_exception = records.until("Unhandled exception calling coroutine <function")
    assert (level, has_exception) == ("ERROR", True)
    assert "Host.work" in text


def test_a_timeout_manager_tells_what_remains_and_zero_is_no_limit(ioloop):
    async def main():
        future = asyncio.get_running_loop().create_future()
        for timeout in (None, 0):
            maybe_timeout = katcp.core.future_timeout_manager(timeout)
            assert maybe_timeout(future) is future
            assert maybe_timeout.remaining() is None
        maybe_timeout = katcp.core.future_timeout_manager(0.01)
        assert 0 < maybe_timeout.remaining() <= 0.01
        with pytest.raises(tornado.gen.TimeoutError):
            await maybe_timeout(future)
        assert maybe_timeout.remaining() < 0

    ioloop.run_sync(main)


# ---- loops and threads ----


@pytest.mark.parametrize("cls", [katcp.DeviceClient, katcp.AsyncClient])
def test_disconnect_needs_no_thread_safety(device, cls):
    client = cls(*device.address)
    assert client.disconnect() is None
    client.start()
    assert client.wait_connected(PATIENCE)
    assert client.disconnect() is None
    device.wait_for_connection(2)
    client.stop()
    assert client.disconnect() is None


def test_the_loop_of_a_manager_may_be_made_current():
    manager = katcp.ioloop_manager.IOLoopManager()
    ioloop = manager.get_ioloop()
    ioloop.make_current()
    try:
        assert tornado.ioloop.IOLoop.current() is ioloop
    finally:
        asyncio.set_event_loop(None)
        ioloop.close()


def test_an_object_of_the_loop_is_used_from_another_thread(device):
    class Counter:
        count = 0

        def add(self, number):
            self.count += number
            return threading.current_thread()

    client = start_client(device)
    wrapper = katcp.ioloop_manager.IOLoopThreadWrapper(client.ioloop)
    counter = katcp.ioloop_manager.ThreadSafeMethodAttrWrapper(Counter(), wrapper)
    assert isinstance(counter, katcp.ioloop_manager.ObjectWrapper)
    thread = counter.add(2)
    assert thread.ident == client.ioloop_thread_id
    assert counter.count == 2
    in_loop_of_client = Recorder()

    def call():
        try:
            counter.add(1)
        except RuntimeError as error:
            in_loop_of_client(str(error))

    client.ioloop.add_callback(call)
    assert in_loop_of_client.wait() == [("Cannot call a thread-wrapped object from the ioloop",)]


# ---- log records ----


class Records(logging.Handler):
    """What a program's handler is given: casperfpga's print ``record.msg``."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.texts = queue.Queue()

    def emit(self, record):
        self.texts.put((record.levelname, record.msg, record.args, bool(record.exc_info)))

    def until(self, start):
        """Return the next record whose text begins with *start*; skip those before."""
        while True:
            level, text, args, has_exception = self.texts.get(timeout=PATIENCE)
            if text.startswith(start):
                assert args == ()
                return level, text, has_exception


@pytest.fixture
def records():
    return Records()


@pytest.fixture
def logger(records):
    logger = logging.Logger("observed", logging.DEBUG)
    logger.addHandler(records)
    return logger


def test_records_hold_their_complete_text(device, logger, records):
    class Client(katcp.CallbackClient):
        def inform_bad(self, msg):
            raise ValueError("in the handler")

        def handle_message(self, msg):
            if msg.name == "worse":
                raise ValueError("in the hook")
            return super().handle_message(msg)

    def fail(reply):
        raise ValueError("in the callback")

    client = start_client(device, Client, logger=logger)
    server = client.bind_address_string
    assert records.until("Connected")[:2] == (
        "DEBUG",
        f"Connected to {server} with client addr {client.sockname_string}",
    )
    client.callback_request(Message.request("echo", "a b"), fail)
    assert records.until("Sending")[1] == f"Sending to {server}: b'?echo[1] a\\\\_b\\n'"
    assert records.until("received")[1] == f"received from {server}: '!echo[1] ok a\\\\_b'"
    level, text, has_exception = records.until("Callback")
    assert (level, has_exception) == ("ERROR", False)
    assert text.startswith("Callback reply echo FAIL: Traceback (most recent call last):\n\n  File")
    assert text.endswith("\n\nValueError: in the callback\n")
    device.send_raw(b"#bad x\n#worse ' a\\_b\nnothing known\n")
    text = records.until("Inform")[1]
    assert text.startswith("Inform bad FAIL: Traceback")
    assert text.endswith("ValueError: in the handler\n")
    assert records.until("Unhandled") == (
        "ERROR",
        f'Unhandled exception in handle_message() from {server} for message "#worse \' a\\\\_b"',
        True,
    )
    assert "Bad type character 'n'." in records.until("BAD COMMAND: Traceback")[1]
    client.stop()
    assert records.until("Client connect")[:2] == (
        "INFO",
        f"Client connect loop for {client.bind_address!r} finished.",
    )


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (rb"#nu \n\r\t\e\0\\", r"'#nu \\n\\r\\t\\e\\0\\\\'"),
        (b"#nu ' \" % %s \x01\x7f", r"""'#nu \' " % %s \x01\x7f'"""),
        ("#nu é €".encode(), "'#nu é €'"),
        (rb"#nu[5] a \@", r"'#nu[5] a \\@'"),
        (b"#nu a\tb  c", "'#nu a b c'"),
    ],
    ids=["escapes", "quotes", "text", "empty", "blanks"],
)
def test_received_messages_are_shown_as_python_shows_text(device, logger, records, line, shown):
    client = start_client(device, logger=logger)
    device.send_raw(line + b"\n")
    server = client.bind_address_string
    assert records.until(f"received from {server}: {shown[:4]}")[1].endswith(shown)


def test_a_preset_protocol_is_defended_in_the_text_of_the_record(device, logger, records):
    client = start_client(device, logger=logger, wait="connected")
    client.stop()
    client.preset_protocol_flags(ProtocolFlags(5, 0, [b"M"]))
    client.start()
    level, text, _ = records.until("Protocol Version")
    assert (level, text) == (
        "WARNING",
        "Protocol Version Warning: Ignoring inform received from server indicating a katcp "
        "protocol revision inconsistent with the static configuration. Static configuration: "
        "'5.0-M'.Inform received: '#version-connect katcp-protocol 5.1-BIM'",
    )


@pytest.mark.parametrize("owner", [katcp, katcp.server], ids=["katcp", "katcp.server"])
def test_a_client_logs_what_its_device_logs(device, logger, records, owner):
    class Client(katcp.CallbackClient):
        def inform_log(self, msg):
            owner.DeviceLogger.log_to_python(logger, msg)

    start_client(device, Client)
    device.send_raw(rb"#log warn 1234567890.5 dev.part it\_is\_hot" + b"\n")
    level, text, _ = records.until("1234567890.5")
    assert (level, text) == ("WARNING", "1234567890.5 dev.part: it is hot")
    device.send_raw(b"#log fatal 1234567891.5 dev.part out\n")
    assert records.until("1234567891.5")[0] == "CRITICAL"


class WarnLogger:
    """A logger object, as programs make them: with ``warn``, and without ``warning``."""

    def __init__(self):
        self.texts = queue.Queue()

    def isEnabledFor(self, level):  # noqa: N802
        return level >= logging.WARNING

    def debug(self, text):
        raise AssertionError(text)

    info = debug

    def warn(self, text):
        self.texts.put(text)

    error = exception = warn


def test_a_logger_with_warn_is_enough():
    logger = WarnLogger()
    port = closed_port()
    client = katcp.BlockingClient("127.0.0.1", port, logger=logger)
    client.auto_reconnect_delay = 0.01
    client.start()
    assert logger.texts.get(timeout=PATIENCE).startswith(
        f"Failed to connect to ('127.0.0.1', {port}): "
    )
    with TestDevice(port=port) as device:
        assert client.wait_protocol(PATIENCE)
        device.send_raw(b"nothing known\n")
        assert until_answered(client)
        client.stop()
    assert "BAD COMMAND: Traceback" in logger.texts.get(timeout=PATIENCE)
