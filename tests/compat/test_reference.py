"""The API reference of the clients, sentence by sentence, in its order.

Each docstring begins with the sentence that the test proves. Signatures and
defaults are compared in test_habits.py; what goes beyond the reference is
tested in test_client*.py, which a docstring names where it says the same.
"""

from __future__ import annotations

import concurrent.futures
import functools
import inspect
import logging
import socket
import subprocess
import sys
import threading
import time

import pytest
import tornado.concurrent
from tornado.gen import TimeoutError as GenTimeoutError
from tornado.ioloop import IOLoop
from tornado.netutil import Resolver

import katcp
import katcp.client
import katcp.core
from katcp import (
    AsyncClient,
    BlockingClient,
    CallbackClient,
    DeviceClient,
    KatcpClientOverflow,
    KatcpClientTimeout,
    KatcpThreadError,
    KatcpVersionError,
    Message,
    ProtocolFlags,
)
from katcp.client import make_threadsafe, make_threadsafe_blocking, request_check
from tests.support.helpers import (
    PATIENCE,
    Recorder,
    TestDevice,
    closed_port,
    in_loop,
    start_client,
    texts,
)

CLASSES = [DeviceClient, AsyncClient, CallbackClient, BlockingClient]
REQUESTING = [AsyncClient, CallbackClient, BlockingClient]
THREADSAFE = [CallbackClient, BlockingClient]


def each(classes):
    return pytest.mark.parametrize("cls", classes, ids=lambda cls: cls.__name__)


@pytest.fixture
def device_mute():
    """A device that tells nothing of its protocol."""
    with TestDevice(faults=["no-greeting"]) as device:
        yield device


def run(ioloop, function):
    """Run a coroutine function in the loop."""
    return ioloop.run_sync(function, timeout=PATIENCE)


def shared(cls, device, ioloop, **kwargs):
    """Return a client, not started, in a loop that the test runs."""
    client = cls(*device.address, **kwargs)
    client.set_ioloop(ioloop)
    return client


def run_program(program):
    """Run a program, which must end by itself without complaint; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return done.stdout.decode().splitlines()


def thread_of(client):
    """Return the thread that runs the loop of a started client."""
    return next(t for t in threading.enumerate() if t.ident == client.ioloop_thread_id)


def last_request(device, name):
    """Return the last request of a name that the device got, as text with its id."""
    device.wait_for_request(name)
    return str(device.received_requests(name)[-1])


class Notes:
    """A mixin that notes what happens to a client, in order."""

    def __init__(self, *args, **kwargs):
        self.notes = Recorder()
        super().__init__(*args, **kwargs)

    def unhandled_inform(self, msg):
        self.notes("unhandled", str(msg))

    def unhandled_reply(self, msg):
        self.notes("unhandled", str(msg))

    def unhandled_request(self, msg):
        self.notes("unhandled", str(msg))


# ---- the module ----


def test_the_module():
    """'Clients for the KAT device control language.' All of them are in katcp.client."""
    names = [cls.__name__ for cls in CLASSES]
    names += ["make_threadsafe", "make_threadsafe_blocking", "request_check"]
    for name in names:
        member = getattr(katcp.client, name)
        assert member.__name__ == name
        assert getattr(katcp, name) is member


@pytest.mark.parametrize(
    ("cls", "base"),
    [
        ("AsyncClient", "katcp.client.DeviceClient"),
        ("BlockingClient", "katcp.client.CallbackClient"),
        ("CallbackClient", "katcp.client.AsyncClient"),
        ("DeviceClient", "future.types.newobject.newobject"),
    ],
)
def test_bases(cls, base):
    """'Bases: katcp.client.DeviceClient', and so on for each of the four."""
    (found,) = getattr(katcp.client, cls).__bases__
    assert f"{found.__module__}.{found.__qualname__}" == base
    assert getattr(katcp.client, cls).__module__ == "katcp.client"


# The list of methods that the reference gives for each class.
SUMMARIES = {
    "convert_seconds": "Convert a time in seconds to the device timestamp units.",
    "disconnect": "Force client connection to close, reconnect if auto-connect set.",
    "enable_thread_safety": "Enable thread-safety features.",
    "handle_inform": "Dispatch an inform message to the appropriate method.",
    "handle_message": "Handle a message from the server.",
    "handle_reply": "Dispatch a reply message to the appropriate method.",
    "handle_request": "Dispatch a request message to the appropriate method.",
    "inform_build_state": "Handle katcp v4 and below build-state inform.",
    "inform_version": "Handle katcp v4 and below version inform.",
    "inform_version_connect": "Process a #version-connect message.",
    "is_connected": "Check if the socket is currently connected.",
    "join": "Rejoin the client thread.",
    "next": "",
    "notify_connected": "Event handler that is called whenever the connection status changes.",
    "preset_protocol_flags": "Preset server protocol flags.",
    "request": "Send a request message, with automatic message ID assignment.",
    "running": "Whether the client is running.",
    "send_message": "Send any kind of message.",
    "send_request": "Send a request message.",
    "set_ioloop": "Set the tornado.ioloop.IOLoop instance to use.",
    "start": "Start the client in a new thread.",
    "stop": "Stop a running client.",
    "unhandled_inform": "Fallback method for inform messages without a registered handler.",
    "unhandled_reply": "Fallback method for reply messages without a registered handler.",
    "unhandled_request": "Fallback method for requests without a registered handler.",
    "until_connected": "Return future that resolves when the client is connected.",
    "until_protocol": "Return future that resolves after receipt of katcp protocol info.",
    "until_running": "Return future that resolves when the client is running.",
    "until_stopped": "Return future that resolves when the client has stopped.",
    "wait_connected": "Wait until the client is connected.",
    "wait_disconnected": "Wait until the client is disconnected.",
    "wait_protocol": "Wait until katcp protocol information has been received from server.",
    "wait_running": "Wait until the client is running.",
}
ASYNC_SUMMARIES = {
    **SUMMARIES,
    "blocking_request": "Send a request message and wait for its reply.",
    "callback_request": "Send a request message.",
    "future_request": "Send a request message, with future replies.",
    "handle_inform": "Handle inform messages related to any current requests.",
    "handle_reply": "Handle a reply message related to the current request.",
}
CALLBACK_SUMMARIES = {
    **ASYNC_SUMMARIES,
    "setDaemon": "Set daemonic state of the managed ioloop thread to True / False",
}
METHODS = {
    DeviceClient: SUMMARIES,
    AsyncClient: ASYNC_SUMMARIES,
    CallbackClient: CALLBACK_SUMMARIES,
    BlockingClient: CALLBACK_SUMMARIES,
}


@each(CLASSES)
def test_methods(cls):
    """'Methods': each of the list exists, and is documented in the same words."""
    for name, summary in METHODS[cls].items():
        method = getattr(cls, name)
        assert callable(method), name
        assert (inspect.getdoc(method) or "").startswith(summary), name


# ---- class AsyncClient ----


@each(REQUESTING)
def test_requests_on_top_of_device_client(cls, device):
    """'Implement async and callback-based requests on top of DeviceClient.'"""
    client = start_client(device, cls)
    replies = Recorder()
    in_loop(client, client.callback_request, Message.request("echo", 1), replies)
    answers = [replies.wait()[0][0]]
    answers.append(in_loop(client, client.future_request, Message.request("echo", 2))[0])
    answers.append(client.blocking_request(Message.request("echo", 3))[0])
    assert texts(answers) == ["!echo ok 1", "!echo ok 2", "!echo ok 3"]


@each(REQUESTING)
@pytest.mark.parametrize(
    ("protocol", "sent"),
    [("5.1-MIB", "?echo[1]"), ("5.0-I", "?echo[1]"), ("5.0-M", "?echo"), ("4", "?echo")],
)
def test_message_ids_are_used_if_supported(cls, protocol, sent):
    """'This client will use message IDs if the server supports them.'"""
    with TestDevice(protocol=protocol) as device:
        client = start_client(device, cls)
        assert client.blocking_request(Message.request("echo"))[0].reply_ok()
        assert last_request(device, "echo") == sent


@each(CLASSES)
def test_host_and_port(cls, device):
    """'Host to connect to.' 'Port to connect to.' By position and by keyword."""
    host, port = device.address
    for count, client in enumerate([cls(host, port), cls(port=port, host=host)], 1):
        client.start()
        assert client.wait_connected(PATIENCE)
        device.wait_for_connection(count)
        client.stop()


@each(CLASSES)
def test_tb_limit(cls, device, logs):
    """'Maximum number of stack frames to send in error traceback.'"""

    class Client(cls):
        def inform_deep(self, msg):
            self.fall(10)

        def fall(self, depth):
            if not depth:
                raise ValueError("at the bottom")
            self.fall(depth - 1)

    host, port = device.address
    for client in (Client(host, port, 3), Client(host, port, tb_limit=3)):
        client.start()
        assert client.wait_protocol(PATIENCE)
        device.inform(Message.inform("deep"))
        text = logs.expect("Inform deep FAIL", logging.ERROR)
        assert text.count("File ") == 3
        assert "ValueError: at the bottom" in text
        client.stop()


@each(CLASSES)
def test_logger(cls, device, logs):
    """'Python Logger object to log to. Default is a logger named 'katcp'.'

    It is ``katcp.client``, as it always was: what is set for 'katcp' holds for it.
    """
    host, port = device.address
    mine = logging.getLogger("mine")
    position = 4 if issubclass(cls, AsyncClient) else 3
    args = (host, port, 20, 5.0)[:position]
    clients = [cls(host, port), cls(host, port, logger=mine), cls(*args, mine)]
    for client, name in zip(clients, ["katcp.client", "mine", "mine"]):
        client.start()
        assert client.wait_protocol(PATIENCE)
        device.send_raw(b"garbage\n")
        logs.expect("BAD COMMAND", logging.ERROR)
        client.stop()
        assert {r.name for r in logs.matching("Client connect loop")} == {name}
        logs.records.clear()
    parent = logging.getLogger("katcp")
    assert logging.getLogger("katcp.client").parent is parent


@each(CLASSES)
def test_logger_is_optional(cls, device):
    """'logger : object, optional': None is the default."""
    client = start_client(device, cls, logger=None)
    assert client.is_connected()
    client.stop()


@each(CLASSES)
@pytest.mark.parametrize("by", ["default", "keyword", "position"])
def test_auto_reconnect(cls, by, device):
    """'Whether to automatically reconnect if the connection dies.'"""
    kwargs = {"keyword": {"auto_reconnect": False}}.get(by, {})
    args = device.address
    if by == "position":
        logger = logging.getLogger("katcp")
        middle = (20, 5.0, logger) if issubclass(cls, AsyncClient) else (20, logger)
        args = (*args, *middle, False)
    client = cls(*args, **kwargs)
    client.auto_reconnect_delay = 0.02
    client.start()
    assert client.wait_connected(PATIENCE)
    device.wait_for_client()
    device.close_clients()
    if by == "default":
        device.wait_for_connection(2)
    else:
        client.join(PATIENCE)
        assert not client.running()
        assert device.connection_count == 1
    client.stop()


@each(REQUESTING)
@pytest.mark.parametrize("by", ["keyword", "position"])
def test_default_timeout(cls, by, device):
    """'Default number of seconds to wait before a callback callback_request times out.'"""
    kwargs = {"timeout": 0.01} if by == "keyword" else {}
    args = device.address if by == "keyword" else (*device.address, 20, 0.01)
    client = cls(*args, **kwargs)
    client.start()
    assert client.wait_protocol(PATIENCE)
    replies = Recorder()
    in_loop(client, client.callback_request, Message.request("silent"), replies)
    for reply in (
        replies.wait()[0][0],
        in_loop(client, client.future_request, Message.request("silent"))[0],
        client.blocking_request(Message.request("silent"))[0],
    ):
        assert isinstance(reply.local_error, KatcpClientTimeout)
        assert reply.arguments[1].startswith(b"Request silent timed out after 0.0")
    client.stop()


@each(REQUESTING)
def test_timeout_of_one_call(cls, device):
    """'Can be overridden in individual calls to callback_request.'"""
    client = start_client(device, cls, timeout=0.01)
    replies = Recorder()
    hold = Message.request("hold")
    in_loop(client, lambda: client.callback_request(hold, replies, timeout=60))
    held = device.next_held()
    assert client.blocking_request(Message.request("silent"))[0].local_error is not None
    assert replies.calls == []
    held.reply("ok")
    assert replies.wait()[0][0].reply_ok()


ASYNC_EXAMPLE = """
import katcp, threading
from katcp import AsyncClient

printed = threading.Event()

def reply_cb(msg):
    print("Reply:", msg)
    printed.set()

def inform_cb(msg):
    print("Inform:", msg)

c = AsyncClient({host!r}, {port})
c.start()
{wait}
c.ioloop.add_callback(
    c.callback_request,
    katcp.Message.request('myreq'),
    reply_cb=reply_cb,
    inform_cb=inform_cb,
)
# expect reply to be printed here
printed.wait(10)
# stop the client once we're finished with it
c.stop()
c.join()
"""


def add_myreq(device):
    @device.request
    def myreq(request):
        """Do what the examples ask for."""
        request.inform("working")
        return "ok", "done"


@pytest.mark.parametrize("wait", ["c.wait_protocol(10)", ""])
def test_example_of_async_client(wait, device):
    """'expect reply to be printed here': also if nobody waited for the connection."""
    add_myreq(device)
    host, port = device.address
    lines = run_program(ASYNC_EXAMPLE.format(host=host, port=port, wait=wait))
    if wait:
        assert lines == ["Inform: #myreq[1] working", "Reply: !myreq[1] ok done"]
    else:
        assert [line[:13] for line in lines if line.startswith("Reply:")] == ["Reply: !myreq"]


def test_example_of_async_client_stopped_at_once(device):
    """'stop the client once we're finished with it': even before that, the reply is printed."""
    add_myreq(device)
    host, port = device.address
    program = ASYNC_EXAMPLE.format(host=host, port=port, wait="").replace("printed.wait(10)", "")
    lines = run_program(program)
    assert [line[:13] for line in lines if line.startswith("Reply:")] == ["Reply: !myreq"]


# blocking_request


@each(REQUESTING)
def test_blocking_request(cls, device):
    """'Send a request message and wait for its reply.' It returns 'reply' and 'informs'."""
    client = start_client(device, cls)
    reply, informs = client.blocking_request(Message.request("count", 2))
    assert isinstance(reply, Message)
    assert str(reply) == "!count[1] ok 2"
    assert isinstance(informs, list)
    assert [str(inform) for inform in informs] == ["#count[1] 0", "#count[1] 1"]
    assert client.blocking_request(Message.request("count", 0))[1] == []


@each(REQUESTING)
def test_timeout_of_blocking_request(cls, device):
    """'How long to wait for a reply.'"""
    client = start_client(device, cls)
    for args, kwargs in [((0.01,), {}), ((), {"timeout": 0.01})]:
        reply, informs = client.blocking_request(Message.request("silent"), *args, **kwargs)
        assert isinstance(reply.local_error, KatcpClientTimeout)
        assert informs == []


def ask_by_blocking(client, msg, *args, **kwargs):
    return client.blocking_request(msg, *args, **kwargs)[0]


def ask_by_future(client, msg, *args, **kwargs):
    return in_loop(client, lambda: client.future_request(msg, *args, **kwargs))[0]


def ask_by_callback(client, msg, *args, **kwargs):
    replies = Recorder()
    if args:
        args = (None, None, *args)
    in_loop(client, lambda: client.callback_request(msg, replies, *args, **kwargs))
    return replies.wait()[0][0]


@pytest.mark.parametrize("ask", [ask_by_blocking, ask_by_future, ask_by_callback])
def test_use_mid(ask, device, device_v4):
    """'Whether to use message IDs. Default is to use message IDs if the server supports them.'"""
    client, client_v4 = (start_client(d, AsyncClient) for d in (device, device_v4))
    for args, kwargs, mid in [
        ((), {}, b"1"),
        ((), {"use_mid": None}, b"2"),
        ((), {"use_mid": True}, b"3"),
        ((None, True), {}, b"4"),
        ((), {"use_mid": False}, None),
        ((None, False), {}, None),
    ]:
        assert ask(client, Message.request("echo"), *args, **kwargs).mid == mid
        reply = ask(client_v4, Message.request("echo"), *args, **kwargs)
        wanted = kwargs.get("use_mid") or True in args
        assert reply.reply_ok() is not wanted
        assert isinstance(reply.local_error, KatcpVersionError) is wanted


# callback_request


@each(REQUESTING)
def test_callbacks(cls, device):
    """'The reply callback with signature reply_cb(msg) or reply_cb(msg, *user_data)'"""
    client = start_client(device, cls)
    request = client.callback_request
    for kwargs, more in [({}, ()), ({"user_data": (1, "x")}, (1, "x")), ({"user_data": ()}, ())]:
        replies, informs = Recorder(), Recorder()
        msg = Message.request("count", 1)
        assert in_loop(client, request, msg, reply_cb=replies, inform_cb=informs, **kwargs) is None
        ((reply, *rest),) = replies.wait()
        assert (texts([reply]), tuple(rest)) == (["!count ok 1"], more)
        ((inform, *rest),) = informs.wait()
        assert (texts([inform]), tuple(rest)) == (["#count 0"], more)


@each(REQUESTING)
def test_callbacks_by_position(cls, device):
    """'Optional user data to send to the reply and inform callbacks.' And all by position."""
    client = start_client(device, cls)
    replies, informs = Recorder(), Recorder()
    msg = Message.request("count", 1)
    in_loop(client, client.callback_request, msg, replies, informs, ("data",), 60, False)
    assert [(str(m), data) for m, data in replies.wait()] == [("!count ok 1", "data")]
    assert [(str(m), data) for m, data in informs.wait()] == [("#count 0", "data")]


@each(THREADSAFE)
def test_callback_request_from_any_thread(cls, device):
    """'The request message to send.' No callback is needed, and no visit to the loop."""
    client = start_client(device, cls)
    assert client.callback_request(Message.request("echo", "x")) is None
    assert last_request(device, "echo") == "?echo[1] x"


# future_request


@each(REQUESTING)
def test_future_request(cls, device, ioloop):
    """'A tornado.concurrent.Future that resolves with' the reply and the list of informs."""
    client = shared(cls, device, ioloop)

    async def use():
        client.start()
        await client.until_protocol()
        future = client.future_request(Message.request("count", 1))
        assert tornado.concurrent.is_future(future)
        assert isinstance(future, tornado.concurrent.Future)
        reply, informs = await future
        assert (str(reply), texts(informs)) == ("!count[1] ok 1", ["#count 0"])
        for future in (
            client.future_request(Message.request("silent"), 0.01),
            client.future_request(Message.request("silent"), timeout=0.01),
        ):
            reply, informs = await future
            assert isinstance(reply.local_error, KatcpClientTimeout)
            assert informs == []
        client.stop()
        await client.until_stopped()

    run(ioloop, use)


# handle_inform, handle_reply


class BelowAsync(DeviceClient):
    """Stands between AsyncClient and its base, and notes what goes up to it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.went_up = Recorder()

    def handle_inform(self, msg):
        self.went_up(str(msg))
        return super().handle_inform(msg)

    def handle_reply(self, msg):
        self.went_up(str(msg))
        return super().handle_reply(msg)


@each(REQUESTING)
def test_handle_inform_and_reply_of_requests(cls, device):
    """'Handle inform messages related to any current requests.'

    'Inform messages not related to the current request go up to the base class
    method.' And the same of replies.
    """

    class Client(cls, BelowAsync):
        pass

    client = start_client(device, Client)
    greeting = len(client.went_up.calls)
    assert len(client.blocking_request(Message.request("count", 3))[1]) == 3
    assert len(client.went_up.calls) == greeting
    device.send_raw(b"#count alone\n#count[77] other\n!count ok\n!count[77] ok\n")
    assert [text for (text,) in client.went_up.wait(greeting + 4)[greeting:]] == [
        "#count alone",
        "#count[77] other",
        "!count ok",
        "!count[77] ok",
    ]


@each(REQUESTING)
def test_informs_of_a_request_when_none_was_asked_for(cls, device):
    """'The inform message to dispatch.' To the handlers, if the request has no inform_cb."""

    class Client(cls, BelowAsync):
        pass

    client = start_client(device, Client)
    greeting = len(client.went_up.calls)
    replies = Recorder()
    in_loop(client, client.callback_request, Message.request("count", 1), replies)
    replies.wait()
    assert [text for (text,) in client.went_up.calls[greeting:]] == ["#count[1] 0"]


# stop


@each(CLASSES)
def test_stop_of_a_managed_ioloop(cls, device):
    """'This method only returns once the client's main coroutine, _install(), has completed.'"""

    class Client(cls):
        completed = False

        async def _install(self, *args):
            await super()._install(*args)
            self.completed = True

    for args, kwargs in [((), {}), ((PATIENCE,), {}), ((), {"timeout": PATIENCE})]:
        client = start_client(device, Client)
        thread = thread_of(client)
        assert client.stop(*args, **kwargs) is None
        assert client.completed is True
        assert not client.running()
        assert not client.is_connected()
        assert not thread.is_alive()


@each(CLASSES)
def test_stop_of_an_unmanaged_ioloop(cls, device, ioloop):
    """'If using an unmanaged ioloop, this can be called from the same thread as the ioloop.'

    'The until_stopped() method can be used to wait on completion of the main
    coroutine, _install().'
    """

    class Client(cls):
        async def _install(self, *args):
            await super()._install(*args)
            completed.append(self)

    completed = []
    client = shared(Client, device, ioloop)

    async def use():
        for args, kwargs in [((), {}), ((1.0,), {}), ((), {"timeout": 1.0})]:
            client.start()
            await client.until_connected()
            assert client.stop(*args, **kwargs) is None
            assert await client.until_stopped() is True
            assert completed.pop() is client

    run(ioloop, use)


@each(CLASSES)
@pytest.mark.parametrize("by", ["keyword", "position"])
def test_timeout_of_stop(cls, by, device, logs):
    """'Seconds to wait for both client thread to have started, and for stopping.'"""

    class Client(cls):
        busy, go_on = threading.Event(), threading.Event()

        def inform_busy(self, msg):
            self.busy.set()
            self.go_on.wait(PATIENCE)

    client = start_client(device, Client)
    device.inform(Message.inform("busy"))
    assert client.busy.wait(PATIENCE)
    if by == "keyword":
        client.stop(timeout=0.01)
    else:
        client.stop(0.01)
    logs.expect("has not stopped within 0.01 seconds")
    assert thread_of(client).is_alive()
    client.go_on.set()
    client.join(PATIENCE)
    assert not client.running()


# ---- class CallbackClient: setDaemon ----


@each(THREADSAFE)
def test_set_daemon(cls, device):
    """'Set daemonic state of the managed ioloop thread to True / False'

    That the interpreter exits then: test_client.py, "with_a_daemon_thread".
    """
    for kwargs in ({}, {"daemonic": False}, {"daemonic": True}):
        client = cls(*device.address)
        if kwargs:
            assert client.setDaemon(**kwargs) is None
        client.start(timeout=PATIENCE)
        assert thread_of(client).daemon is kwargs.get("daemonic", False)
        client.stop()


@each(THREADSAFE)
def test_set_daemon_after_start(cls, device):
    """'Must be called before start(), or it will also have no effect'"""
    client = start_client(device, cls)
    client.setDaemon(True)
    assert thread_of(client).daemon is False
    assert client.is_connected()


@each(THREADSAFE)
def test_set_daemon_of_a_non_managed_ioloop(cls, device, ioloop):
    """'Calling this method for a non-managed ioloop has no effect.'"""
    client = shared(cls, device, ioloop)
    client.setDaemon(True)
    threads = threading.active_count()

    async def use():
        client.start()
        await client.until_connected()
        assert threading.active_count() == threads
        assert thread_of(client) is threading.current_thread()
        assert not threading.current_thread().daemon
        client.stop()
        await client.until_stopped()

    run(ioloop, use)


# ---- class DeviceClient ----


@each(CLASSES)
def test_handlers_by_name(cls, device):
    """'Subclasses should implement .reply_*, .inform_* and send_request_* methods'

    '... to take actions when messages arrive, and implement unhandled_inform,
    unhandled_reply and unhandled_request to provide fallbacks for messages for
    which there is no handler.'
    """

    class Client(Notes, cls):
        def inform_some_news(self, msg):
            self.notes("inform", str(msg))

        def reply_echo(self, msg):
            self.notes("reply", str(msg))

        def send_request_echo(self, *args):
            self.send_request(Message.request("echo", *args))

    client = start_client(device, Client)
    in_loop(client, client.send_request_echo, "x")
    assert client.notes.wait(1)[-1] == ("reply", "!echo ok x")
    device.send_raw(b"#some-news 1\n#other\n!other ok\n?other\n")
    assert client.notes.wait(5)[1:] == [
        ("inform", "#some-news 1"),
        ("unhandled", "#other"),
        ("unhandled", "!other ok"),
        ("unhandled", "?other"),
    ]


def test_the_client_does_not_block_its_ioloop_for_names(device, ioloop):
    """'The client may block its ioloop if the default blocking tornado DNS resolver is used.'

    It does not: test_client.py, "slow_name_server". And 'it would make sense to
    configure one of the non-blocking resolver classes': such a one is used.
    """
    asked = []

    class Names(Resolver):
        async def resolve(self, host, port, family=socket.AF_UNSPEC):
            asked.append(host)
            return [(socket.AF_INET, ("127.0.0.1", port))]

    client = AsyncClient("some.telescope", device.address[1])
    client.set_ioloop(ioloop)

    async def use():
        client.start()
        await client.until_connected()
        client.stop()
        await client.until_stopped()

    before = Resolver._save_configuration()
    Resolver.configure(Names)
    try:
        run(ioloop, use)
    finally:
        Resolver._restore_configuration(before)
    assert asked == ["some.telescope"]


DEVICE_EXAMPLE = """
import katcp, threading
from katcp import DeviceClient

printed = threading.Event()

class MyClient(DeviceClient):
    def reply_myreq(self, msg):
        print(str(msg))
        printed.set()

c = MyClient({host!r}, {port})
{before}
c.start()
{after}
# expect reply to be printed here
printed.wait(10)
# stop the client once we're finished with it
c.stop()
c.join()
"""


@pytest.mark.parametrize(
    ("before", "send"),
    [
        ("c.enable_thread_safety()", "c.send_request(katcp.Message.request('myreq'))"),
        ("", "c.ioloop.add_callback(c.send_request, katcp.Message.request('myreq'))"),
    ],
)
def test_example_of_device_client(before, send, device):
    """'Request messages can be sent by calling .send_request().'"""
    add_myreq(device)
    host, port = device.address
    after = f"assert c.wait_connected(10)\n{send}"
    lines = run_program(DEVICE_EXAMPLE.format(host=host, port=port, before=before, after=after))
    assert lines == ["!myreq ok done"]


def test_example_of_device_client_as_printed(device):
    """'c.send_request(katcp.Message.request('myreq'))', right after start() and unprotected.

    It never worked; each error says which line is missing.
    """
    c = DeviceClient(*device.address)
    c.start(timeout=PATIENCE)
    with pytest.raises(KatcpThreadError, match=r"Call enable_thread_safety\(\) before start\(\)"):
        c.send_request(Message.request("myreq"))
    c.stop()
    c.join()
    c = DeviceClient("127.0.0.1", closed_port(), auto_reconnect=False)
    c.enable_thread_safety()
    with pytest.raises(RuntimeError, match=r"Call start\(\) before send_request\(\)"):
        c.send_request(Message.request("myreq"))


# the constants


@each(CLASSES)
def test_max_loop_latency(cls):
    """'Do not spend more than this many seconds reading pipelined socket data'

    That it is kept: test_client_messages.py, "the_loop_is_let_go".
    """
    assert cls.MAX_LOOP_LATENCY == cls("localhost", 1).MAX_LOOP_LATENCY == 0.03


@each(CLASSES)
def test_max_msg_size(cls, device, logs):
    """'Maximum message size that can be received in bytes.'

    'If more than MAX_MSG_SIZE bytes are read from the socket without
    encountering a message terminator (i.e. newline), the connection is closed.'
    """
    assert cls.MAX_MSG_SIZE == cls("localhost", 1).MAX_MSG_SIZE == 2097152

    class Client(Notes, cls):
        MAX_MSG_SIZE = 1000

    client = start_client(device, Client)
    fits = b"#long " + b"x" * 993 + b"\n"
    device.send_raw(fits)
    assert client.notes.wait()[0] == ("unhandled", fits.decode().strip())
    device.send_raw(b"#long " + b"x" * 995)
    logs.expect("a line was longer than MAX_MSG_SIZE (1000 bytes)")
    device.wait_for_connection(2)
    client.stop()
    for _ in logs.matching("Dropped a line"):
        logs.expect("Dropped a line")
    assert len(client.notes.calls) == 1


@each(CLASSES)
def test_max_write_buffer_size(cls, device, logs):
    """'Maximum outstanding bytes to be buffered by the server process.'

    'If more than MAX_WRITE_BUFFER_SIZE bytes are outstanding, the connection is
    closed.' (The "server process" is the client's.)
    """
    assert cls.MAX_WRITE_BUFFER_SIZE == cls("localhost", 1).MAX_WRITE_BUFFER_SIZE == 4194304

    class Client(cls):
        MAX_WRITE_BUFFER_SIZE = 1000

    client = start_client(device, Client)
    in_loop(client, lambda: client.send_message(Message.request("echo", "x" * 900)) and None)
    device.wait_for_request("echo")
    with pytest.raises(KatcpClientOverflow, match=r"MAX_WRITE_BUFFER_SIZE \(1000 bytes\)"):
        in_loop(client, client.send_message, Message.request("echo", "x" * 1100))
    logs.expect("Could not send to device")
    logs.expect("closed with error KatcpClientOverflow")
    device.wait_for_connection(2)
    client.stop()


@each(CLASSES)
def test_bind_address(cls, device):
    """'(host, port) where the client is connecting'"""
    client = start_client(device, cls)
    assert client.bind_address == device.address
    assert cls("some.telescope", 7147).bind_address == ("some.telescope", 7147)


# convert_seconds


@each(CLASSES)
def test_convert_seconds(cls, device, device_v4):
    """'KATCP v4 and earlier, specified all timestamps in milliseconds.'

    'Since KATCP v5, all timestamps are in seconds. If the device KATCP version
    has been detected, this method converts a value in seconds to the
    appropriate (seconds or milliseconds) quantity.'
    """
    assert start_client(device, cls).convert_seconds(1.5) == 1.5
    assert start_client(device_v4, cls).convert_seconds(time_seconds=1.5) == 1500


@each(CLASSES)
def test_convert_seconds_truncates(cls):
    """'For version smaller than V4, the time value will be truncated'

    '... to the nearest millisecond.'
    """
    client = cls("localhost", 1)
    client.preset_protocol_flags(ProtocolFlags(3, 0, []))
    assert client.convert_seconds(1.0019) == 1001
    assert isinstance(client.convert_seconds(1.0019), int)
    client.preset_protocol_flags(ProtocolFlags(4, 0, []))
    assert client.convert_seconds(1.0019) == pytest.approx(1001.9)


# disconnect


@each(CLASSES)
def test_disconnect(cls, device):
    """'Force client connection to close, reconnect if auto-connect set.'"""
    client = start_client(device, cls)
    assert in_loop(client, client.disconnect) is None
    device.wait_for_connection(2)
    assert client.wait_connected(PATIENCE)
    once = start_client(device, cls, auto_reconnect=False)
    in_loop(once, once.disconnect)
    once.join(PATIENCE)
    assert not once.running()


# enable_thread_safety


@each([DeviceClient, AsyncClient])
def test_enable_thread_safety(cls, device):
    """'Enable thread-safety features.' 'Must be called before start().'"""
    client = start_client(device, cls)
    for call in (
        functools.partial(client.request, Message.request("echo")),
        functools.partial(client.send_request, Message.request("echo")),
        functools.partial(client.send_message, Message.request("echo")),
    ):
        with pytest.raises(KatcpThreadError, match="must be called in the thread of the ioloop"):
            call()
    with pytest.raises(RuntimeError, match="Cannot enable thread safety after start"):
        client.enable_thread_safety()
    client = cls(*device.address)
    assert client.enable_thread_safety() is None
    client.start()
    assert client.wait_protocol(PATIENCE)
    assert client.request(Message.request("echo", "a")) == b"1"
    client.send_request(Message.request("echo", "b"))
    client.send_message(Message.request("echo", "c"))
    device.wait_for_request("echo", count=3)
    client.disconnect()
    device.wait_for_client(1)
    client.stop()


@each(THREADSAFE)
def test_enable_thread_safety_again(cls, device):
    """'Enable thread-safety features.' These two have them, and may be told so again."""
    client = start_client(device, cls)
    client.enable_thread_safety()
    assert client.request(Message.request("echo", "a")) == b"1"


# handle_message, handle_inform, handle_reply, handle_request


@each(CLASSES)
def test_handle_x(cls, device):
    """'Dispatch an inform message to the appropriate method.' And a reply, and a request.

    'The Message to dispatch to the handler methods.'
    """

    class Client(Notes, cls):
        def inform_foo(self, msg):
            self.notes("inform", str(msg))

        def reply_foo(self, msg):
            self.notes("reply", str(msg))

        def request_foo(self, msg):
            self.notes("request", str(msg))
            return Message.reply_to_request(msg, "ok")

    client = start_client(device, Client)
    inform, reply, request = Message.inform("foo"), Message.reply("foo"), Message.request("foo")
    in_loop(client, client.handle_inform, inform)
    in_loop(client, client.handle_reply, msg=reply)
    in_loop(client, client.handle_request, msg=request)
    for msg in (inform, reply, request):
        in_loop(client, client.handle_message, msg)
    kinds = [("inform", "#foo"), ("reply", "!foo"), ("request", "?foo")]
    assert client.notes.calls == kinds * 2


@each(CLASSES)
def test_handle_message(cls, device):
    """'Handle a message from the server.' All of them pass here, replies of requests too."""

    class Client(cls):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.got = Recorder()

        def handle_message(self, msg):
            self.got(msg)
            return super().handle_message(msg)

    client = start_client(device, Client)
    greeting = len(client.got.calls)
    in_loop(client, client.request, Message.request("count", 1))
    assert texts(client.got.wait(greeting + 2)[-2][:1]) == ["#count 0"]
    assert texts(client.got.messages[-1:]) == ["!count ok 1"]


# inform_build_state, inform_version, inform_version_connect


@each(CLASSES)
@pytest.mark.parametrize("name", ["inform_version", "inform_build_state"])
def test_informs_of_version_4(cls, name, device_mute):
    """'Handle katcp v4 and below version inform.' And the build-state inform."""
    client = start_client(device_mute, cls, wait="connected")
    inform = Message.inform(name[len("inform_") :].replace("_", "-"), "device-0.1")
    in_loop(client, getattr(client, name), inform)
    assert client.wait_protocol(PATIENCE)
    assert client.protocol_flags == ProtocolFlags(4, 0, [])


@each(CLASSES)
def test_inform_version_connect(cls, device_mute):
    """'Process a #version-connect message.'"""
    client = start_client(device_mute, cls, wait="connected")
    inform = Message.inform("version-connect", "katcp-device", "foo-1.0", "serial-7")
    in_loop(client, client.inform_version_connect, inform)
    assert client.versions == {"katcp-device": ("foo-1.0", "serial-7")}
    assert client.protocol_flags is None
    inform = Message.inform("version-connect", "katcp-protocol", "5.0-IM")
    in_loop(client, client.inform_version_connect, msg=inform)
    assert client.wait_protocol(PATIENCE)
    assert client.protocol_flags == ProtocolFlags(5, 0, "IM")


# is_connected, running, join


@each(CLASSES)
def test_is_connected_and_running(cls, device, logs):
    """'Whether the client is connected.' 'Whether the client is running.'"""
    client = cls(*device.address)
    assert (client.is_connected(), client.running()) == (False, False)
    client.start()
    assert client.wait_connected(PATIENCE)
    assert (client.is_connected(), client.running()) == (True, True)
    client.stop()
    assert (client.is_connected(), client.running()) == (False, False)
    client = cls("127.0.0.1", closed_port())
    client.start(PATIENCE)
    logs.expect("Failed to connect")
    assert (client.is_connected(), client.running()) == (False, True)
    client.stop()


@each(CLASSES)
def test_join(cls, device):
    """'Rejoin the client thread.' 'Seconds to wait for thread to finish.'"""
    client = start_client(device, cls)
    thread = thread_of(client)
    assert client.join(0.01) is None
    assert client.join(timeout=0.01) is None
    assert thread.is_alive()
    client.ioloop.add_callback(client.stop)
    assert client.join() is None
    assert not thread.is_alive()


@each(CLASSES)
def test_join_of_a_non_managed_ioloop(cls, device, ioloop):
    """'Does nothing if the ioloop is not managed. Use until_stopped() instead.'"""
    client = shared(cls, device, ioloop)

    async def use():
        client.start()
        await client.until_connected()
        assert client.join() is None
        assert client.is_connected()
        client.stop()
        await client.until_stopped()

    run(ioloop, use)
    assert client.join() is None


# notify_connected


@each(CLASSES)
def test_notify_connected(cls, device):
    """'Event handler that is called whenever the connection status changes.'

    'Override in derived class for desired behaviour.' 'Whether the client has
    just connected (True) or just disconnected (False).'
    """

    class Client(cls):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.heard = Recorder()

        def notify_connected(self, connected):
            self.heard(connected, self.is_connected())

    assert cls("localhost", 1).notify_connected(True) is None
    client = start_client(device, Client)
    device.close_clients()
    assert client.heard.wait(3) == [(True, True), (False, False), (True, True)]
    client.stop()
    assert client.heard.calls[3:] == [(False, False)]


def test_notify_connected_that_blocks(device):
    """'This function should never block.'

    'Doing so will cause the client to cease processing data from the server
    until notify_connected completes.'
    """
    entered, go_on = threading.Event(), threading.Event()

    class Client(Notes, BlockingClient):
        def notify_connected(self, connected):
            if connected:
                entered.set()
                go_on.wait(PATIENCE)
                self.notes("notified")

    client = Client(*device.address)
    client.start()
    assert entered.wait(PATIENCE)
    device.wait_for_client()
    device.inform(Message.inform("foo"))
    go_on.set()
    assert client.notes.wait(2) == [("notified",), ("unhandled", "#foo")]
    client.stop()


# preset_protocol_flags


@each(CLASSES)
def test_preset_protocol_flags(cls, device, logs):
    """'Sets the assumed server protocol flags and disables automatic server version detection.'"""
    client = cls(*device.address)
    flags = katcp.core.ProtocolFlags(5, 0, "M")
    assert client.preset_protocol_flags(protocol_flags=flags) is None
    assert client.protocol_flags is flags
    client.start()
    assert client.wait_connected(PATIENCE)
    assert client.wait_protocol(PATIENCE)
    logs.expect("Static configuration: '5.0-M'.")
    assert client.protocol_flags is flags
    # The device has ids, but the client was told otherwise.
    assert in_loop(client, client.request, Message.request("echo")) is None
    assert last_request(device, "echo") == "?echo"
    client.stop()


# request


@each(CLASSES)
@pytest.mark.parametrize(
    ("mid", "use_mid", "with_ids", "without_ids"),
    [
        (None, None, b"1", None),
        (None, True, b"1", KatcpVersionError),
        (None, False, None, None),
        (7, None, b"7", KatcpVersionError),
        (7, True, b"7", KatcpVersionError),
        (7, False, b"7", KatcpVersionError),
    ],
)
def test_request(cls, mid, use_mid, with_ids, without_ids, device, device_v4):
    """'The message id, or None if no msg id is used'

    'If use_mid is None and the server supports msg ids, or if use_mid is True a
    message ID will automatically be assigned msg.mid is None. if msg.mid has a
    value, and the server supports msg ids, that value will be used. If the
    server does not support msg ids, KatcpVersionError will be raised.'
    """
    for server, outcome in [(device, with_ids), (device_v4, without_ids)]:
        client = start_client(server, cls)
        msg = Message.request("echo", mid=mid)
        if outcome is KatcpVersionError:
            with pytest.raises(KatcpVersionError, match="Message IDs not supported by server"):
                in_loop(client, client.request, msg, use_mid)
            continue
        assert in_loop(client, client.request, msg, use_mid=use_mid) == outcome
        assert server.wait_for_request("echo").mid == outcome
        assert msg.mid == outcome


# send_message, send_request


@each(CLASSES)
def test_send_message_and_send_request(cls, device):
    """'Send any kind of message.' 'Send a request message.'"""
    client = start_client(device, cls)
    in_loop(client, lambda: client.send_message(msg=Message.inform("foo")) and None)
    in_loop(client, lambda: client.send_message(Message.reply("foo", "ok")) and None)
    in_loop(client, lambda: client.send_message(Message.request("foo")) and None)
    assert in_loop(client, client.send_request, msg=Message.request("bar")) is None
    device.wait_for_request("bar")
    assert texts(device.received) == ["#foo", "!foo ok", "?foo", "?bar"]


# set_ioloop


@each(CLASSES)
def test_set_ioloop(cls, device, ioloop):
    """'Set the tornado.ioloop.IOLoop instance to use.' It is not stopped by the client."""
    client = cls(*device.address)
    assert client.set_ioloop(ioloop=ioloop) is None

    async def use():
        threads = threading.active_count()
        client.start()
        assert client.ioloop is ioloop
        await client.until_connected()
        assert threading.active_count() == threads
        client.stop()
        await client.until_stopped()
        return "still running"

    assert run(ioloop, use) == "still running"


@each(CLASSES)
def test_set_ioloop_without_argument(cls, device, ioloop):
    """'This defaults to IOLoop.current().'"""
    client = cls(*device.address)

    async def use():
        client.set_ioloop()
        client.start()
        assert client.ioloop is IOLoop.current() is ioloop
        await client.until_connected()
        client.stop()
        await client.until_stopped()

    run(ioloop, use)


@each(CLASSES)
def test_set_ioloop_never_called(cls, device):
    """'If set_ioloop() is never called the IOLoop is managed'

    '... started in a new thread, and will be stopped if self.stop() is called.'
    """
    client = start_client(device, cls)
    thread, ioloop = thread_of(client), client.ioloop
    assert isinstance(ioloop, IOLoop)
    assert thread is not threading.current_thread()
    client.stop()
    assert not thread.is_alive()
    assert ioloop.asyncio_loop.is_closed()


@each(CLASSES)
def test_set_ioloop_after_start(cls, device, ioloop):
    """'Must be called before start() is called'"""
    client = start_client(device, cls)
    with pytest.raises(RuntimeError, match="IOLoop instance already set"):
        client.set_ioloop(ioloop)


# start


@each(CLASSES)
@pytest.mark.parametrize("by", ["default", "keyword", "position"])
def test_start(cls, by, device):
    """'Start the client in a new thread.' 'Seconds to wait for client thread to start.'"""
    client = cls(*device.address)
    threads = set(threading.enumerate())
    if by == "default":
        assert client.start() is None
        assert client.wait_running(PATIENCE)
    elif by == "keyword":
        assert client.start(timeout=PATIENCE) is None
    else:
        assert client.start(PATIENCE) is None
    assert client.running()
    assert set(threading.enumerate()) - threads == {thread_of(client)}
    client.stop()


@each(CLASSES)
def test_start_with_a_timeout_in_the_ioloop(cls, device, ioloop):
    """'Do not specify a timeout if start() is being called from the same ioloop'

    '... since it will block the ioloop without progressing.' It does not any more.
    """
    client = shared(cls, device, ioloop)

    async def use():
        began = time.monotonic()
        client.start(timeout=60)
        assert time.monotonic() - began < 30
        await client.until_connected()
        client.stop()
        await client.until_stopped()

    run(ioloop, use)


def test_start_of_an_ioloop_that_does_not_run(device, ioloop):
    """'Seconds to wait for client thread to start.' No longer, if it does not come to that."""
    client = shared(AsyncClient, device, ioloop)
    assert client.start(timeout=0.01) is None
    assert not client.running()

    async def use():
        await client.until_connected()
        client.stop()
        await client.until_stopped()

    run(ioloop, use)


# unhandled_x


@each(CLASSES)
def test_unhandled_x(cls, device):
    """'Fallback method for inform messages without a registered handler.'

    The base class's do nothing, but that a request is answered 'invalid'.
    """
    client = start_client(device, cls)
    assert in_loop(client, client.unhandled_inform, msg=Message.inform("foo")) is None
    assert in_loop(client, client.unhandled_reply, msg=Message.reply("foo")) is None
    assert in_loop(client, client.unhandled_request, msg=Message.request("foo")) is None
    device.wait_until(lambda: device.received != [])
    assert texts(device.received) == ["!foo invalid Unknown\\_request."]


# until_x


@each(CLASSES)
def test_until_x(cls, device, ioloop):
    """'Return future that resolves when the client is connected.' And so on.

    'If the returned future resolves, the server's protocol information is
    available in the ProtocolFlags instance self.protocol_flags.'
    """
    client = shared(cls, device, ioloop)

    async def use():
        client.start()
        futures = [
            client.until_running(timeout=PATIENCE),
            client.until_connected(timeout=PATIENCE),
            client.until_protocol(timeout=PATIENCE),
        ]
        assert all(map(tornado.concurrent.is_future, futures))
        await futures[0]
        assert client.running()
        await futures[1]
        assert client.is_connected()
        await futures[2]
        assert isinstance(client.protocol_flags, ProtocolFlags)
        assert str(client.protocol_flags) == "5.1-BIM"
        for method in (client.until_running, client.until_connected, client.until_protocol):
            await method()
        client.stop()
        await client.until_stopped(timeout=PATIENCE)
        await client.until_stopped(PATIENCE)

    run(ioloop, use)


@each(CLASSES)
def test_timeout_of_until_x(cls, device_mute, ioloop):
    """'until_connected(**kwargs)', and until_protocol: timeout= is meant."""
    client = shared(cls, device_mute, ioloop)

    async def use():
        for method in (client.until_running, client.until_connected, client.until_protocol):
            with pytest.raises(GenTimeoutError):
                await method(timeout=0.01)
        client.start()
        await client.until_connected()
        for method in (client.until_protocol, client.until_stopped):
            with pytest.raises(GenTimeoutError):
                await method(timeout=0.01)
        client.stop()
        await client.until_stopped()

    run(ioloop, use)


@each(CLASSES)
def test_until_x_in_another_thread(cls, device):
    """'Must be called from the same ioloop as the client.'

    'If using a different thread, or a managed ioloop, this method should not be
    used. Use join() instead.'
    """
    client = start_client(device, cls)
    for name in ("running", "connected", "protocol", "stopped"):
        with pytest.raises(KatcpThreadError, match="must be called in the thread of the ioloop"):
            getattr(client, f"until_{name}")()


@each(CLASSES)
def test_stopped_is_not_not_running(cls, device, ioloop):
    """'Also note that stopped != not running.'

    'Stopped means the main coroutine has ended, or was never started. When
    stopping, the running flag is cleared some time before stopped is set.'
    """

    class Client(cls):
        seen = None

        def notify_connected(self, connected):
            if not connected:
                self.seen = (self.running(), stopped.done())

    client = shared(Client, device, ioloop)

    async def use():
        nonlocal stopped
        assert await client.until_stopped() is True
        assert not client.running()
        client.start()
        await client.until_connected()
        stopped = client.until_stopped()
        assert (client.running(), stopped.done()) == (True, False)
        client.stop()
        assert await stopped is True
        assert client.seen == (False, False)

    stopped = None
    run(ioloop, use)


# wait_x


@each(CLASSES)
def test_wait_x(cls, device):
    """'Wait until the client is connected.' And running, and disconnected; and the protocol.

    'If this method returns True, the server's protocol information is available
    in the ProtocolFlags instance self.protocol_flags.'
    """
    client = cls(*device.address)
    client.auto_reconnect_delay = 1000
    client.start()
    assert client.wait_running() is True
    assert client.wait_connected() is True
    assert client.wait_protocol() is True
    assert isinstance(client.protocol_flags, ProtocolFlags)
    device.close_clients()
    assert client.wait_disconnected() is True
    assert client.wait_running(PATIENCE) is True
    assert client.wait_running(timeout=PATIENCE) is True
    client.stop()


@each(CLASSES)
def test_timeout_of_wait_x(cls, device_mute, logs):
    """'Seconds to wait for the client to connect.' 'Whether the client is connected.'"""
    client = start_client(device_mute, cls, wait="connected")
    assert client.wait_protocol(0.01) is client.wait_protocol(timeout=0.01) is False
    assert client.wait_disconnected(0.01) is client.wait_disconnected(timeout=0.01) is False
    client = cls("127.0.0.1", closed_port())
    client.start()
    assert client.wait_connected(0.01) is client.wait_connected(timeout=0.01) is False
    logs.expect("Failed to connect")
    client.stop()


@each(CLASSES)
def test_wait_x_in_the_ioloop(cls, device):
    """'Do not call this from the ioloop, use until_connected().'"""
    client = start_client(device, cls)
    for name in ("running", "connected", "disconnected", "protocol"):
        text = rf"Cannot call wait_{name}\(\) in ioloop, use until_{name}\(\)"
        with pytest.raises(KatcpThreadError, match=text):
            in_loop(client, getattr(client, f"wait_{name}"), 1)
        assert callable(getattr(client, f"until_{name}"))


# ---- make_threadsafe, make_threadsafe_blocking ----


def decorated(cls):
    """Return a subclass with decorated methods, which note their thread."""

    class Client(cls):
        @make_threadsafe
        def note(self, *args):
            self.noted(threading.get_ident(), *args)

        @make_threadsafe_blocking
        def where(self, *args):
            return (threading.get_ident(), *args)

        @make_threadsafe_blocking
        def ask(self):
            return self.future_request(Message.request("echo", "x"))

        @make_threadsafe_blocking
        def never(self):
            return tornado.concurrent.Future()

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.noted = Recorder()

    return Client


@each(THREADSAFE)
def test_make_threadsafe(cls, device):
    """'Decorator for a DeviceClient method that should always run in ioloop.'

    'Should only be used for functions that have no return value.'
    """
    client = start_client(device, decorated(cls))
    assert client.note(1) is None
    assert client.noted.wait() == [(client.ioloop_thread_id, 1)]
    assert client.note.__name__ == "note"


@each([DeviceClient, AsyncClient])
def test_make_threadsafe_not_enabled(cls, device):
    """'Used with DeviceClient.enable_thread_safety().'

    'If not called the method will be unprotected and it is the user's
    responsibility to ensure that these methods are only called from the ioloop,
    otherwise the decorated methods are wrapped.'
    """
    client = start_client(device, decorated(cls))
    client.note(1)
    assert client.noted.calls == [(threading.get_ident(), 1)]
    assert client.where() == (threading.get_ident(),)
    client.stop()
    client.enable_thread_safety()
    client.start()
    client.note(2)
    assert client.noted.wait(2)[1] == (client.ioloop_thread_id, 2)
    assert client.where() == (client.ioloop_thread_id,)


@each(THREADSAFE)
def test_make_threadsafe_blocking(cls, device):
    """'Used to provide blocking calls that can be made from other threads.'

    'Will route return value to caller.' 'If meth returns a future, its result
    will be returned, otherwise its result will be passed back directly.'
    """
    client = start_client(device, decorated(cls))
    assert client.where("a", "b") == (client.ioloop_thread_id, "a", "b")
    reply, informs = client.ask()
    assert (texts([reply]), informs) == (["!echo ok x"], [])


@each(THREADSAFE)
def test_make_threadsafe_blocking_in_ioloop(cls, device):
    """'If called in ioloop context, calls the original method directly to prevent deadlocks.'"""
    client = start_client(device, decorated(cls))

    def call():
        future = client.ask()
        return client.where(), tornado.concurrent.is_future(future)

    assert in_loop(client, call) == ((client.ioloop_thread_id,), True)


@each(THREADSAFE)
def test_timeout_of_make_threadsafe_blocking(cls, device):
    """'Add timeout keyword argument to limit blocking time.'"""
    client = start_client(device, decorated(cls))
    with pytest.raises(concurrent.futures.TimeoutError):
        client.never(timeout=0.01)
    assert client.where(timeout=PATIENCE) == (client.ioloop_thread_id,)


# ---- request_check ----


class Broken(Exception):
    """What the tests let request_check raise."""


@each(REQUESTING)
def test_request_check(cls, device):
    """'Make blocking request to client and raise exception if reply is not ok.'

    'Message parameters sent to the Message.request() call'; 'reply, informs : as
    returned by client.blocking_request'
    """
    client = start_client(device, cls)
    reply, informs = request_check(client, Broken, "count", 2)
    assert (texts([reply]), texts(informs)) == (["!count ok 2"], ["#count 0", "#count 1"])
    with pytest.raises(Broken, match=r'Unexpected failure reply "!refuse\[2\] fail not\\_today"'):
        request_check(client, Broken, "refuse")


@each(REQUESTING)
def test_keywords_of_request_check(cls, device):
    """'Forwards kwargs['timeout'] to client.blocking_request().'

    'Forwards kwargs['mid'] to Message.request().'
    """
    client = start_client(device, cls)
    with pytest.raises(Broken, match=r"Request\\_silent\\_timed\\_out\\_after\\_0\.0"):
        request_check(client, Broken, "silent", timeout=0.01)
    assert request_check(client, Broken, "echo", mid=77)[0].mid == b"77"
    assert last_request(device, "echo") == "?echo[77]"


@each(REQUESTING)
def test_request_check_with_partial(cls, device):
    """'A typical use-case for this function is to use functools.partial()'

    '... to bind a particular client and exception. The resulting function can
    then be used instead of direct client.blocking_request() calls to automate
    error handling.'
    """
    check = functools.partial(request_check, start_client(device, cls), Broken)
    assert check("echo", "a", 1)[0].arguments == [b"ok", b"a", b"1"]
    assert check("echo", timeout=PATIENCE)[0].reply_ok()
    with pytest.raises(Broken):
        check("refuse")
