"""How programs in the field use the old package: what they do must go on working."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import re
import threading
import time
from pathlib import Path

import pytest

import katcp
import katcp.client
import katcp.core
from katcp import Message
from tests.support.helpers import (
    PATIENCE,
    Recorder,
    TestDevice,
    in_loop,
    start_client,
    until_answered,
)

# ---- habits ----


def test_the_version_of_the_device_is_native_text(device):
    client = start_client(device)
    assert client.versions["katcp-device"][0].startswith("simulated")


def test_last_connect_time_is_the_loops_time_at_connecting(device):
    before = time.time()
    client = start_client(device)
    first = client.last_connect_time
    assert before <= first <= client.ioloop.time()
    device.close_clients()
    device.wait_for_connection(2)
    until_answered(client)
    assert client.last_connect_time > first


def test_auto_reconnect_delay_is_writable(device):
    client = start_client(device)
    client.auto_reconnect_delay = 0.001
    device.close_clients()
    device.wait_for_connection(2)


def test_send_message_by_add_callback(device):
    client = start_client(device)
    client.ioloop.add_callback(client.send_message, Message.request("echo", "by hand"))
    assert device.wait_for_request("echo").arguments == [b"by hand"]


def test_comparing_the_return_code(device):
    reply, _ = start_client(device).blocking_request(Message.request("echo"))
    assert reply.arguments[0] == Message.OK
    assert reply.arguments[0] != Message.FAIL


def test_changing_the_arguments_of_an_inform(device):
    _, informs = start_client(device).blocking_request(Message.request("count", 1))
    informs[0].arguments.append(b"more")
    assert informs[0].arguments == [b"0", b"more"]


def test_the_same_message_again_in_a_retry_loop(device):
    client = start_client(device)
    device.faults = ["no-reply:echo"]
    request = Message.request("echo", "x")
    for attempt in range(5):
        reply, _ = client.blocking_request(request, timeout=0.02 if attempt < 3 else None)
        if attempt == 2:
            device.faults = []
        if reply.reply_ok():
            break
    assert attempt == 3
    assert reply.arguments == [b"ok", b"x"]


def test_wait_connected_right_after_start(device):
    client = katcp.BlockingClient(*device.address)
    client.start()
    assert client.wait_connected(timeout=PATIENCE)
    client.stop()
    client.join()


def test_a_logger_is_used_for_everything_of_the_client(device, logs):
    logger = logging.getLogger("my.device")
    client = start_client(device, logger=logger)
    device.send_raw(b"garbage\n")
    until_answered(client)
    assert [record.name for record in logs.matching("BAD COMMAND")] == ["my.device"]
    logs.expect("BAD COMMAND", logging.ERROR)


def test_keywords_in_every_order(device):
    host, port = device.address
    for kwargs in (
        {"host": host, "port": port},
        {"auto_reconnect": True, "port": port, "logger": logging.getLogger("x"), "host": host},
        {"timeout": 1, "tb_limit": 5, "port": port, "host": host},
    ):
        client = katcp.CallbackClient(**kwargs)
        client.start()
        assert client.wait_connected(PATIENCE)
        client.stop()
    assert katcp.AsyncClient(host, port, 20, 1.0, logging.getLogger("x"), False)
    assert katcp.DeviceClient(host, port, 20, logging.getLogger("x"), False)


def test_keywords_of_requests_in_every_order(device):
    client = start_client(device)
    reply, _ = client.blocking_request(use_mid=True, timeout=5, msg=Message.request("echo"))
    assert reply.mid == b"1"
    replies = Recorder()
    client.callback_request(
        timeout=5, user_data=(1,), inform_cb=None, reply_cb=replies, msg=Message.request("echo")
    )
    assert replies.wait()[0][1] == 1
    client.callback_request(Message.request("echo"), replies, None, (2,), 5, True)
    assert replies.wait(2)[1][1] == 2


def test_a_sampling_handler_on_the_class_table():
    with TestDevice(sensors=None) as device:

        class Client(katcp.BlockingClient):
            pass

        updates = Recorder()
        Client._inform_handlers["sensor-status"] = lambda client, msg: updates(msg)
        client = start_client(device, Client)
        name = sorted(device.sensors)[0]
        reply, _ = client.blocking_request(Message.request("sensor-sampling", name, "event"))
        assert reply.reply_ok()
        assert updates.wait()[0][0].arguments[2] == name.encode()


def test_the_old_example_of_the_reference(device):
    printed = Recorder()

    class MyClient(katcp.DeviceClient):
        def reply_echo(self, msg):
            printed(str(msg))

    c = MyClient(*device.address)
    c.enable_thread_safety()
    c.start()
    assert c.wait_connected(PATIENCE)
    c.send_request(katcp.Message.request("echo"))
    assert printed.wait() == [("!echo ok",)]
    c.stop()
    c.join()


def test_callback_request_by_add_callback_right_after_start(device):
    # Law of the old example: c.ioloop is there as soon as start() returns.
    c = katcp.AsyncClient(*device.address)
    c.start()
    replies = Recorder()
    c.ioloop.add_callback(c.callback_request, katcp.Message.request("echo"), reply_cb=replies)
    replies.wait()
    c.stop()
    c.join()


def test_functools_partial_of_request_check(device):
    import functools

    client = start_client(device)
    check = functools.partial(katcp.client.request_check, client, RuntimeError)
    assert check("echo", 1)[0].reply_ok()
    with pytest.raises(RuntimeError, match=r"not\\_today"):
        check("refuse")


def test_what_is_posted_right_after_start_finds_a_client_that_runs(device):
    client = katcp.BlockingClient(*device.address)
    found = Recorder()
    for _ in range(2):
        client.start()
        client.ioloop.add_callback(
            lambda: found(client.running(), client.ioloop_thread_id == threading.get_ident())
        )
        client.stop()
    assert found.calls == [(True, True)] * 2


def test_the_host_may_be_bytes(device):
    client = katcp.BlockingClient(b"127.0.0.1", device.address[1])
    assert client.bind_address == device.address
    client.start()
    assert client.wait_connected(PATIENCE)
    client.stop()


def test_yielding_in_a_tornado_coroutine(device, ioloop):
    import tornado.gen

    client = katcp.AsyncClient(*device.address)
    client.set_ioloop(ioloop)

    @tornado.gen.coroutine
    def use():
        client.start()
        yield client.until_protocol(timeout=PATIENCE)
        reply, informs = yield client.future_request(Message.request("count", 2))
        client.stop()
        yield client.until_stopped()
        raise tornado.gen.Return((reply.reply_ok(), len(informs)))

    assert ioloop.run_sync(use) == (True, 2)


def test_under_asyncio_run_with_the_current_loop(device):
    async def use():
        client = katcp.AsyncClient(*device.address)
        client.set_ioloop()
        client.start()
        await client.until_protocol(timeout=PATIENCE)
        replies = await asyncio.gather(
            *(client.future_request(Message.request("echo", i)) for i in range(10))
        )
        client.stop()
        await client.until_stopped()
        return [int(reply.arguments[1]) for reply, _ in replies]

    assert asyncio.run(use()) == list(range(10))


# ---- inheritance as in the field ----


class Transport:
    """A base of a program that knows nothing of KATCP, with names of its own."""

    def __init__(self, **kwargs):
        self._timeout = kwargs.get("timeout", 1)
        self.host = kwargs["host"]
        self.parent = kwargs.get("parent")
        self.logger = logging.getLogger("transport")

    def connect(self, timeout=None):
        raise NotImplementedError

    def read(self, name, size):
        raise NotImplementedError

    def write(self, name, data):
        raise NotImplementedError


class KatcpTransport(Transport, katcp.CallbackClient):
    """A transport over KATCP, as FPGA libraries have it."""

    def __init__(self, host, port, **kwargs):
        katcp.CallbackClient.__init__(self, host, port, tb_limit=20, timeout=10.0)
        Transport.__init__(self, host=host, **kwargs)
        self.unhandled = Recorder()
        self.status = "new"

    def connect(self, timeout=None):
        self.start()
        self.status = "up" if self.wait_protocol(timeout) else "down"
        return self.status == "up"

    def disconnect(self):
        katcp.CallbackClient.stop(self)
        self.status = "stopped"

    def is_connected(self):
        return katcp.CallbackClient.is_connected(self) and self.status == "up"

    def ping(self):
        return self._request("watchdog")[0].reply_ok()

    def read(self, name, size):
        return self._request("read", name, 0, size)[0].arguments[1]

    def write(self, name, data):
        return self._request("write", name, 0, data)[0].reply_ok()

    def _request(self, name, *args):
        return self.blocking_request(Message.request(name, *args), timeout=self._timeout)

    def unhandled_inform(self, msg):
        self.unhandled(msg)

    def __str__(self):
        return f"KatcpTransport({self.host})"

    def __del__(self):
        with contextlib.suppress(RuntimeError):
            self.disconnect()


def test_a_transport_over_a_client(device):
    transport = KatcpTransport(*device.address, parent="parent", timeout=PATIENCE)
    assert str(transport) == "KatcpTransport(127.0.0.1)"
    assert transport.connect(PATIENCE)
    assert transport.is_connected()
    assert transport.ping()
    data = bytes(range(256))
    assert transport.write("bram", data)
    assert transport.read("bram", 256) == data
    device.send_raw(b"#odd\n")
    while not any(msg.name == "odd" for msg in transport.unhandled.messages):
        transport.unhandled.wait(len(transport.unhandled.calls) + 1)
    katcp.CallbackClient.disconnect(transport)
    device.wait_for_connection(2)
    while not katcp.CallbackClient.is_connected(transport):
        katcp.CallbackClient.wait_connected(transport, PATIENCE)
    transport.disconnect()
    assert not transport.is_connected()
    assert not transport.running()
    assert transport.connect(PATIENCE)
    transport.disconnect()
    transport.__del__()
    device.wait_until(lambda: device.client_count == 0)


def test_a_transport_shared_by_eight_threads(device):
    transport = KatcpTransport(*device.address, timeout=PATIENCE)
    transport.connect(PATIENCE)
    wrong = []

    def work():
        for _ in range(20):
            if not transport.ping():
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    transport.disconnect()
    assert wrong == []


def test_overridden_hooks_that_call_up(device):
    calls = []

    class Client(katcp.AsyncClient):
        def handle_message(self, msg):
            calls.append("message")
            return katcp.AsyncClient.handle_message(self, msg)

        def handle_reply(self, msg):
            calls.append("reply")
            return super().handle_reply(msg)

        def handle_inform(self, msg):
            calls.append("inform")
            return super().handle_inform(msg)

        def send_message(self, msg):
            calls.append("send")
            return super().send_message(msg)

        def stop(self, *args, **kwargs):
            calls.append("stop")
            return super().stop(*args, **kwargs)

    client = start_client(device, Client)
    calls.clear()
    client.blocking_request(Message.request("count", 1))
    client.stop(timeout=PATIENCE)
    assert calls == ["send", "message", "inform", "message", "reply", "stop"]


# ---- the reference: names, signatures, defaults ----

# As in the API reference; until_x take **kwargs there, and timeout= is meant.
SIGNATURES = {
    "DeviceClient": {
        "convert_seconds": "time_seconds",
        "disconnect": "",
        "enable_thread_safety": "",
        "handle_inform": "msg",
        "handle_message": "msg",
        "handle_reply": "msg",
        "handle_request": "msg",
        "inform_build_state": "msg",
        "inform_version": "msg",
        "inform_version_connect": "msg",
        "is_connected": "",
        "join": "timeout=None",
        "next": "",
        "notify_connected": "connected",
        "preset_protocol_flags": "protocol_flags",
        "request": "msg, use_mid=None",
        "running": "",
        "send_message": "msg",
        "send_request": "msg",
        "set_ioloop": "ioloop=None",
        "start": "timeout=None",
        "stop": "timeout=None",
        "unhandled_inform": "msg",
        "unhandled_reply": "msg",
        "unhandled_request": "msg",
        "until_connected": "timeout=None",
        "until_protocol": "timeout=None",
        "until_running": "timeout=None",
        "until_stopped": "timeout=None",
        "wait_connected": "timeout=None",
        "wait_disconnected": "timeout=None",
        "wait_protocol": "timeout=None",
        "wait_running": "timeout=None",
    },
    "AsyncClient": {
        "blocking_request": "msg, timeout=None, use_mid=None",
        "callback_request": (
            "msg, reply_cb=None, inform_cb=None, user_data=None, timeout=None, use_mid=None"
        ),
        "future_request": "msg, timeout=None, use_mid=None",
    },
    "CallbackClient": {"setDaemon": "daemonic"},
    "BlockingClient": {},
}


def plain_signature(function):
    """Return the parameters as text, without self and annotations."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    ]
    return str(inspect.Signature(parameters))[1:-1]


@pytest.mark.parametrize(
    ("cls", "name", "signature"),
    [
        (cls, name, signature)
        for owner, methods in SIGNATURES.items()
        for cls in ("DeviceClient", "AsyncClient", "CallbackClient", "BlockingClient")
        if issubclass(getattr(katcp, cls), getattr(katcp, owner))
        for name, signature in methods.items()
    ],
)
def test_methods_have_the_signatures_of_the_reference(cls, name, signature):
    assert plain_signature(getattr(getattr(katcp, cls), name)) == signature


@pytest.mark.parametrize(
    ("cls", "signature"),
    [
        ("DeviceClient", "host, port, tb_limit=20, logger=LOGGER, auto_reconnect=True"),
        ("AsyncClient", "host, port, tb_limit=20, timeout=5.0, logger=LOGGER, auto_reconnect=True"),
        (
            "CallbackClient",
            "host, port, tb_limit=20, timeout=5.0, logger=LOGGER, auto_reconnect=True",
        ),
        (
            "BlockingClient",
            "host, port, tb_limit=20, timeout=5.0, logger=LOGGER, auto_reconnect=True",
        ),
    ],
)
def test_constructors_have_the_signatures_of_the_reference(cls, signature):
    found = plain_signature(getattr(katcp, cls))
    found = re.sub(r"<Logger [^>]*>", "LOGGER", found)
    added = "max_msg_size=None, max_write_buffer_size=None, ssl_options=None"
    assert found == f"{signature}, *, {added}"


@pytest.mark.parametrize("cls", ["DeviceClient", "AsyncClient", "CallbackClient", "BlockingClient"])
def test_dir_lists_all_that_the_reference_does(cls):
    names = dir(getattr(katcp, cls)("localhost", 7147))
    limits = {"MAX_MSG_SIZE", "MAX_WRITE_BUFFER_SIZE", "MAX_LOOP_LATENCY"}
    documented = {
        name
        for owner, methods in SIGNATURES.items()
        if issubclass(getattr(katcp, cls), getattr(katcp, owner))
        for name in methods
    }
    assert documented | limits | {"bind_address", "__enter__", "__init__"} <= set(names)


def test_functions_have_the_signatures_of_the_reference():
    assert plain_signature(katcp.client.make_threadsafe) == "meth"
    assert plain_signature(katcp.client.make_threadsafe_blocking) == "meth"
    assert plain_signature(katcp.client.request_check) == (
        "client, exception, *msg_parms, **kwargs"
    )


def test_the_classes_derive_from_each_other_as_in_the_reference():
    assert katcp.BlockingClient.__bases__ == (katcp.CallbackClient,)
    assert katcp.CallbackClient.__bases__ == (katcp.AsyncClient,)
    assert katcp.AsyncClient.__bases__ == (katcp.DeviceClient,)
    assert katcp.DeviceClient.__bases__[0].__name__ == "newobject"
    assert type(katcp.DeviceClient) is katcp.DeviceMetaclass


def test_every_public_method_has_a_docstring():
    for cls in ("DeviceClient", "AsyncClient", "CallbackClient", "BlockingClient"):
        for name, member in inspect.getmembers(getattr(katcp, cls)):
            if not name.startswith("_") and callable(member) and name != "next":
                assert inspect.getdoc(member), f"{cls}.{name}"


def test_nothing_imports_future_but_for_newobject():
    sources = Path(katcp.__file__).parent.rglob("*.py")
    lines = [
        line.strip()
        for source in sources
        for line in source.read_text().splitlines()
        if re.match(r"\s*(from|import) future\b", line)
    ]
    assert [line.partition("  #")[0] for line in lines] == [
        "from future.types.newobject import newobject"
    ]


def test_in_loop_calls_of_a_threadsafe_client_are_direct(device):
    client = start_client(device, katcp.CallbackClient)
    assert in_loop(client, lambda: client.request(Message.request("echo"))) == b"1"
