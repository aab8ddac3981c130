"""What callbacks and handlers raise that is no `Exception`: nobody else may suffer."""

from __future__ import annotations

import asyncio
import logging

import pytest

from katcp import BlockingClient, KatcpClientError, KatcpClientTimeout, Message
from tests.support.helpers import PATIENCE, Recorder, in_loop, start_client
from tests.support.peek import Peek


class Strange(BaseException):
    """Neither an `Exception` nor a reason to end."""


# The first is what result() of a future raises that was cancelled.
RAISED = [asyncio.CancelledError, GeneratorExit, Strange]
ENDING = [KeyboardInterrupt, SystemExit]


def raiser(error):
    def raise_it(*args):
        raise error("raised")

    return raise_it


@pytest.mark.parametrize("error", RAISED)
def test_a_reply_callback_that_raises_costs_no_other_reply(device, logs, error):
    client = start_client(device)
    replies = Recorder()
    in_loop(
        client,
        lambda: [
            client.callback_request(
                Message.request("echo", n), raiser(error) if n == 1 else replies
            )
            for n in range(4)
        ],
    )
    assert [reply.arguments[1] for (reply,) in replies.wait(3)] == [b"0", b"2", b"3"]
    assert error.__name__ in logs.expect("Callback reply echo FAIL", logging.ERROR)


@pytest.mark.parametrize("error", RAISED)
def test_a_timeout_callback_that_raises_costs_no_other_timeout(device, logs, error):
    client = start_client(device)
    replies = Recorder()

    def ask_all():
        for n in range(4):
            callback = raiser(error) if n == 1 else replies
            client.callback_request(Message.request("silent"), callback, timeout=0)

    in_loop(client, ask_all)
    assert all(isinstance(r.local_error, KatcpClientTimeout) for (r,) in replies.wait(3))
    logs.expect("Callback reply during failure", logging.ERROR)
    assert client.ask("echo", "later").arguments == [b"later"]


@pytest.mark.parametrize("error", RAISED)
def test_a_callback_that_raises_at_a_lost_connection_ends_nothing(device, logs, error):
    client = start_client(device)
    replies = Recorder()
    for callback in (replies, raiser(error), replies):
        client.callback_request(Message.request("hold"), callback)
        device.next_held()
    client.disconnect()
    replies.wait(2)
    logs.expect("Callback reply during failure", logging.ERROR)
    device.wait_for_connection(2, PATIENCE)
    assert client.wait_protocol(PATIENCE)
    assert client.ask("echo", "later").arguments == [b"later"]


@pytest.mark.parametrize("error", RAISED)
@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("how", ["hook", "callback"])
def test_what_is_told_of_connections_may_raise(device, logs, error, connected, how):
    told = []

    def tell(is_connected):
        told.append(is_connected)
        if is_connected is connected and told.count(connected) == 1:
            raise error("raised")

    client = start_client(device, wait=None)
    if how == "hook":
        client.stop(PATIENCE)
        client.notify_connected = tell
        client.start()
    else:
        client.add_connection_callback(tell)
        client.stop(PATIENCE)
        client.start()
    assert client.wait_connected(PATIENCE)
    client.disconnect()
    text = "Notify connect failed" if how == "hook" else f"Callback connected={connected} FAIL"
    logs.expect(text, logging.ERROR)
    assert client.wait_protocol(PATIENCE)
    while not client.blocking_request(Message.request("echo"))[0].reply_ok():
        pass


@pytest.mark.parametrize("error", RAISED)
@pytest.mark.parametrize("is_coroutine", [False, True])
def test_handlers_that_raise_are_logged_and_the_next_line_is_read(
    device, logs, error, is_coroutine
):
    later = Recorder()

    class Client(BlockingClient):
        def inform_later(self, msg):
            later(msg)

    def handler(self, msg):
        if is_coroutine:
            return raise_later()
        raise error("raised")

    async def raise_later():
        raise error("raised")

    for name in ("inform_bad", "reply_bad", "request_bad"):
        setattr(Client, name, handler)
    client_class = type("Handling", (Client,), {})
    start_client(device, client_class)
    device.send_raw(b"#bad\n!bad\n?bad\n#later\n")
    later.wait()
    for kind in ("Inform", "Reply", "Request"):
        logs.expect(f"{kind} bad FAIL", logging.ERROR)


@pytest.mark.parametrize("error", RAISED)
def test_what_another_thread_submits_may_raise(device, logs, error):
    client = start_client(device)
    Peek(client).portal.call_soon(raiser(error))
    logs.expect("Exception in callback", logging.ERROR)
    assert client.ask("echo", "later").arguments == [b"later"]


@pytest.mark.parametrize("error", ENDING)
@pytest.mark.parametrize("where", ["reply callback", "timeout", "handler", "notify"])
def test_what_ends_the_loop_ends_the_client_and_all_that_is_pending(device, logs, error, where):
    class Client(BlockingClient):
        def inform_bad(self, msg):
            raise error("raised")

        def notify_connected(self, connected):
            if not connected and where == "notify":
                raise error("raised")

    client = start_client(device, Client)
    replies = Recorder()
    for _ in range(3):
        client.callback_request(Message.request("hold"), replies, timeout=None)
        device.next_held()
    if where == "reply callback":
        client.callback_request(Message.request("echo"), raiser(error))
    elif where == "timeout":
        client.callback_request(Message.request("silent"), raiser(error), timeout=0)
    elif where == "handler":
        device.send_raw(b"#bad\n")
    else:
        client.disconnect()
    assert all(isinstance(r.local_error, KatcpClientError) for (r,) in replies.wait(3))
    client.join(PATIENCE)
    assert not client.running()
    assert error.__name__ in logs.expect("Error running tornado IOloop", logging.ERROR)
    for _ in logs.matching("closed with error"):
        logs.expect("closed with error")
    # It may be started again.
    client = start_client(device)
    assert client.ask("echo", "again").arguments == [b"again"]
