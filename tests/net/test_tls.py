"""Devices behind a proxy that takes TLS; certificates are made here, for this run only."""

import asyncio
import contextlib
import datetime
import errno
import socket
import ssl
import sys

import pytest
import trustme

from katcp import (
    AsyncClient,
    BlockingClient,
    CallbackClient,
    DeviceClient,
    KatcpClientDisconnected,
    KatcpClientOverflow,
    KatcpTypeError,
    Message,
)
from katcp._net import tls
from katcp._net.connection import Connection, ConnectionEnded
from katcp._net.dial import ConnectionFailed, Dialler, _is_connected
from katcp._net.tls import TlsFailure
from tests.support.faultproxy import LINGER
from tests.support.helpers import (
    PATIENCE,
    Recorder,
    TestDevice,
    in_loop,
    start_client,
    until_answered,
)
from tests.support.peek import Peek
from tests.support.tlsrelay import TlsRelay

MEGABYTE = 1 << 20

# A limit that the test waits for.
SOON = 0.2

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def version_name(version):
    return version.name


class Authority:
    """Who issues the certificates of the test."""

    def __init__(self):
        self.ca = trustme.CA()
        self.good = self.ca.issue_cert("localhost", "127.0.0.1", "::1", "device")
        self.wrong_name = self.ca.issue_cert("elsewhere.example")
        self.expired = self.ca.issue_cert(
            "127.0.0.1", not_after=datetime.datetime(2001, 1, 1, tzinfo=datetime.timezone.utc)
        )
        self.not_yet = self.ca.issue_cert(
            "127.0.0.1",
            not_before=datetime.datetime(2090, 1, 1, tzinfo=datetime.timezone.utc),
            not_after=datetime.datetime(2091, 1, 1, tzinfo=datetime.timezone.utc),
        )
        self.client = self.ca.issue_cert("client@example.org")

    def server_context(self, certificate=None, wants_client=False, version=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (certificate or self.good).configure_cert(context)
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
            self.ca.configure_trust(context)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context

    def client_context(self, certificate=None):
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if certificate is not None:
            certificate.configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def relay_to(authority):
    """Make relays, which end when the clients of their devices have."""
    with contextlib.ExitStack() as stack:

        def relay_to(device, context=None, host="127.0.0.1"):
            relay = stack.enter_context(
                TlsRelay(device.address, context or authority.server_context(), host)
            )
            for client in device.started_clients:
                stack.callback(client.stop, PATIENCE)
            return relay

        yield relay_to


@pytest.fixture
def encrypted_client(authority, device):
    """Start clients of *device* by way of a relay; they are stopped first of all."""
    clients = []

    def encrypted_client(relay, cls=BlockingClient, *, host=None, context=None, **kwargs):
        def make(*_, **kwargs):
            context_ = context or authority.client_context()
            return cls(host or relay.address[0], relay.address[1], ssl_options=context_, **kwargs)

        client = start_client(device, make, **kwargs)
        clients.append(client)
        return client

    yield encrypted_client
    for client in clients:
        client.stop(PATIENCE)


# A device that can be reached


@pytest.mark.parametrize("version", VERSIONS, ids=version_name)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_good_certificate_is_accepted(
    device, authority, relay_to, encrypted_client, host, version
):
    relay = relay_to(device, authority.server_context(version=version))
    client = encrypted_client(relay, host=host)
    reply, _ = client.blocking_request(Message.request("echo", "in secret"))
    assert reply.arguments == [b"ok", b"in secret"]
    assert client._stream.socket.version() == version.name.replace("_", ".")
    reply, informs = client.blocking_request(Message.request("count", 1000))
    assert [inform.arguments for inform in informs] == [[b"%d" % n] for n in range(1000)]


@pytest.mark.parametrize("cls", [AsyncClient, BlockingClient, CallbackClient])
def test_every_client_takes_ssl_options(device, relay_to, encrypted_client, cls):
    client = encrypted_client(relay_to(device), cls)
    on_reply = Recorder()
    in_loop(client, client.callback_request, Message.request("echo", "x"), on_reply)
    [(reply,)] = on_reply.wait()
    assert reply.arguments == [b"ok", b"x"]


def test_a_device_client_takes_ssl_options(device, relay_to, encrypted_client):
    received = Recorder()

    class Client(DeviceClient):
        def reply_echo(self, msg):
            received(msg)

    client = encrypted_client(relay_to(device), Client)
    in_loop(client, client.send_request, Message.request("echo", "x"))
    [reply] = [call[0] for call in received.wait()]
    assert reply.arguments == [b"ok", b"x"]


def test_a_mebibyte_goes_both_ways(device, relay_to, encrypted_client):
    client = encrypted_client(relay_to(device))
    content = bytes(range(256)) * (MEGABYTE // 256)
    for _ in range(3):
        reply, _ = client.blocking_request(Message.request("echo", content), timeout=PATIENCE)
        assert reply.arguments == [b"ok", content]


def test_the_clients_certificate_is_given(device, authority, relay_to, encrypted_client):
    relay = relay_to(device, authority.server_context(wants_client=True))
    client = encrypted_client(relay, context=authority.client_context(authority.client))
    assert until_answered(client).reply_ok()


def test_the_check_of_the_name_may_be_switched_off(device, authority, relay_to, encrypted_client):
    relay = relay_to(device, authority.server_context(authority.wrong_name))
    context = authority.client_context()
    context.check_hostname = False
    assert until_answered(encrypted_client(relay, context=context)).reply_ok()


def test_a_client_connects_again_when_the_other_end_was_killed(
    device, relay_to, encrypted_client, logs
):
    relay = relay_to(device)
    client = encrypted_client(relay)
    for _ in range(3):
        on_reply = Recorder()
        client.callback_request(Message.request("hold"), on_reply)
        device.next_held()
        relay.kill()
        [(reply,)] = on_reply.wait()
        assert isinstance(reply.local_error, KatcpClientDisconnected)
        relay.start()
        until_answered(client)
    client.stop(PATIENCE)
    # Whether it tried in between is a matter of time.
    for record in logs.matching("Failed to connect"):
        logs.expect("Failed to connect", record.levelno)


# Several addresses


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_device_at_an_ipv6_address(authority, encrypted):
    with TestDevice(host="::1") as device, contextlib.ExitStack() as stack:
        address, options = device.address, {}
        if encrypted:
            relay = TlsRelay(device.address, authority.server_context(), "::1")
            address = stack.enter_context(relay).address
            options = {"ssl_options": authority.client_context()}
        assert address[0] == "::1"
        client = stack.enter_context(stopping(BlockingClient(*address, **options)))
        client.start()
        assert until_answered(client).reply_ok()
        assert client.sockname[0] == "::1"
        assert client.bind_address_string == f"::1:{address[1]}"


@contextlib.contextmanager
def stopping(client):
    try:
        yield client
    finally:
        client.stop(PATIENCE)


@pytest.mark.parametrize("encrypted", [False, True])
def test_the_addresses_of_a_name_are_tried_in_turn(
    device, authority, relay_to, resolve_to, silent_address, refused_address, encrypted
):
    address, options = device.address, {}
    if encrypted:
        address = relay_to(device).address
        options = {"ssl_options": authority.client_context()}
    resolve_to(refused_address, silent_address, ("::1", refused_address[1], 0, 0), address)
    client = BlockingClient("device", 1, **options)
    client.CONNECT_TIMEOUT = SOON
    with stopping(client):
        client.start()
        # In the first attempt: a failure would have been logged.
        assert until_answered(client).reply_ok()


@pytest.mark.parametrize("encrypted", [False, True])
def test_when_no_address_answers_each_is_named(
    authority, resolve_to, silent_address, refused_address, logs, encrypted
):
    resolve_to(refused_address, silent_address, ("::1", refused_address[1], 0, 0))
    options = {"ssl_options": authority.client_context()} if encrypted else {}
    client = BlockingClient("device", 1, **options)
    client.CONNECT_TIMEOUT = SOON
    with stopping(client):
        client.start()
        text = logs.expect("Failed to connect")
        assert set(text.replace("Failed to connect to ('device', 1): ", "").split("; ")) == {
            f"127.0.0.1:{refused_address[1]}: [Errno 111] Connection refused",
            f"127.0.0.1:{silent_address[1]}: no answer within {SOON} seconds",
            f"[::1]:{refused_address[1]}: [Errno 111] Connection refused",
        }


def test_an_address_that_does_not_speak_tls_is_passed_over(device, authority, relay_to, resolve_to):
    relay = relay_to(device)
    resolve_to(device.address, relay.address)
    client = BlockingClient("device", 1, ssl_options=authority.client_context())
    with stopping(client):
        client.start()
        assert until_answered(client).reply_ok()


@pytest.mark.parametrize("host", [".", ".device", "x" * 70])
def test_a_host_that_no_certificate_can_be_for_is_a_failure(
    authority, device, host, logs, resolve_to
):
    resolve_to(device.address)
    client = BlockingClient(host, 1, ssl_options=authority.client_context())
    with stopping(client):
        client.start()
        logs.expect("no certificate can be for the host")


# A device that is refused, or refuses


def failing(device, encrypted_client, relay, logs, *reasons, **kwargs):
    """Return a client that cannot connect, for a reason that it logs once."""
    client = encrypted_client(relay, wait=None, **kwargs)
    text = logs.expect("Failed to connect")
    assert all(reason in text for reason in reasons), text
    reply, _ = client.blocking_request(Message.request("echo"))
    assert isinstance(reply.local_error, KatcpClientDisconnected)
    # It is tried again, and the same reason is no news.
    failures = Peek(client).connect_failures
    while in_loop(client, lambda: Peek(client).connect_failures) < failures + 3:
        pass
    return client


def test_another_host_name_is_refused(device, authority, relay_to, encrypted_client, logs):
    relay = relay_to(device, authority.server_context(authority.wrong_name))
    reasons = ("is for another host name", "'localhost'")
    failing(device, encrypted_client, relay, logs, *reasons, host="localhost")


def test_another_address_is_refused(device, authority, relay_to, encrypted_client, logs):
    relay = relay_to(device, authority.server_context(authority.wrong_name))
    failing(device, encrypted_client, relay, logs, "is for another IP address", "'127.0.0.1'")


def test_an_expired_certificate_is_refused(device, authority, relay_to, encrypted_client, logs):
    relay = relay_to(device, authority.server_context(authority.expired))
    failing(device, encrypted_client, relay, logs, "the certificate of the device has expired")


def test_a_certificate_of_the_future_is_refused(
    device, authority, relay_to, encrypted_client, logs
):
    relay = relay_to(device, authority.server_context(authority.not_yet))
    failing(device, encrypted_client, relay, logs, "certificate of the device is not valid yet")


def test_an_unknown_issuer_is_refused(device, relay_to, encrypted_client, logs):
    reason = "was issued by an authority that ssl_options does not trust"
    relay, context = relay_to(device), Authority().client_context()
    failing(device, encrypted_client, relay, logs, reason, context=context)


def test_a_self_signed_certificate_is_refused(
    device, tmp_path, authority, relay_to, encrypted_client, logs
):
    # An authority's own certificate is signed with its own key.
    authority.ca.cert_pem.write_to_path(str(tmp_path / "certificate"))
    authority.ca.private_key_pem.write_to_path(str(tmp_path / "key"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    relay = relay_to(device, context)
    stranger = Authority().client_context()
    failing(device, encrypted_client, relay, logs, "is self-signed", context=stranger)


def test_no_common_version_is_a_failure(device, authority, relay_to, encrypted_client, logs):
    relay = relay_to(device, authority.server_context(version=ssl.TLSVersion.TLSv1_2))
    context = authority.client_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    failing(device, encrypted_client, relay, logs, "speaks no TLS version", context=context)


def test_a_missing_client_certificate_is_named_in_the_handshake(
    device, authority, relay_to, encrypted_client, logs
):
    version = ssl.TLSVersion.TLSv1_2
    relay = relay_to(device, authority.server_context(wants_client=True, version=version))
    failing(device, encrypted_client, relay, logs, "may require a client certificate")


def test_a_missing_client_certificate_is_named_after_the_handshake(
    device, authority, relay_to, encrypted_client, logs
):
    """With TLS 1.3 the client is connected by then, and may have asked."""
    version = ssl.TLSVersion.TLSv1_3
    relay = relay_to(device, authority.server_context(wants_client=True, version=version))
    on_reply = Recorder()
    reason = "the device requires a client certificate"

    class Client(BlockingClient):
        def notify_connected(self, connected):
            if connected:
                self.callback_request(Message.request("echo"), on_reply)

    client = failing(device, encrypted_client, relay, logs, reason, cls=Client)
    # Whether an attempt fails as the first thing after the handshake is a matter of time.
    client.auto_reconnect_max_delay = 0.02
    (reply,) = on_reply.wait()[0]
    assert isinstance(reply.local_error, KatcpClientDisconnected)
    assert reason in str(reply.local_error)
    assert isinstance(reply.local_error.__cause__.__cause__, ssl.SSLError)


def test_a_client_certificate_of_a_stranger_is_refused_by_name(
    device, authority, relay_to, encrypted_client, logs
):
    version = ssl.TLSVersion.TLSv1_2
    relay = relay_to(device, authority.server_context(wants_client=True, version=version))
    context = authority.client_context(Authority().client)
    reason = "the device does not trust the issuer of the client certificate"
    failing(device, encrypted_client, relay, logs, reason, context=context)


def test_a_device_without_tls_is_a_failure(device, encrypted_client, logs):
    failing(device, encrypted_client, device, logs, "the device does not speak TLS on this port")


def test_without_reconnect_a_client_ends_after_a_failed_handshake(
    device, authority, relay_to, encrypted_client, logs
):
    relay = relay_to(device, authority.server_context(authority.expired))
    client = encrypted_client(relay, wait=None, auto_reconnect=False)
    client.join(PATIENCE)
    assert not client.running()
    logs.expect("the certificate of the device has expired")


def test_a_client_without_tls_is_cut_off_by_a_device_with_tls(device, relay_to, logs):
    relay = relay_to(device)
    client = start_client(device, lambda *_: BlockingClient(*relay.address), wait=None)
    assert client.wait_connected(PATIENCE)
    reply, _ = client.blocking_request(Message.request("echo"))
    assert isinstance(reply.local_error, KatcpClientDisconnected)
    client.stop(PATIENCE)
    logs.records.clear()


# Limits of time


@pytest.fixture
def silent_peer():
    """Somebody who accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        yield listener


def test_a_silent_peer_is_given_up(authority, silent_peer, logs):
    client = BlockingClient(*silent_peer.getsockname(), ssl_options=authority.client_context())
    client.CONNECT_TIMEOUT = SOON
    client.start()
    text = logs.expect("Failed to connect")
    assert f"no end of the TLS handshake within {SOON} seconds" in text
    client.stop(PATIENCE)


def test_stop_cuts_the_handshake(authority, silent_peer):
    client = BlockingClient(*silent_peer.getsockname(), ssl_options=authority.client_context())
    client.CONNECT_TIMEOUT = 1000
    client.start()
    peer, _ = silent_peer.accept()
    with peer:
        peer.settimeout(PATIENCE)
        # The client has begun the handshake.
        assert peer.recv(1) == b"\x16"
        client.stop(PATIENCE)
        assert not client.running()
        while peer.recv(65536):
            pass


@pytest.mark.parametrize("how", ["end", "reset"])
def test_an_end_in_the_handshake_is_a_failure(authority, silent_peer, logs, how):
    client = BlockingClient(*silent_peer.getsockname(), ssl_options=authority.client_context())
    client.start()
    peer, _ = silent_peer.accept()
    if how == "end":
        peer.settimeout(PATIENCE)
        peer.recv(65536)
    else:
        # Bytes that nobody reads make the close a reset.
        peer.recv(1)
    peer.close()
    text = logs.expect("Failed to connect")
    assert ("in the TLS handshake" if how == "end" else "TLS handshake failed") in text
    client.stop(PATIENCE)
    logs.records.clear()


@pytest.fixture
def at_once(monkeypatch):
    """Let the client go on in a moment of opening a connection only when its peer has gone."""

    def at_once(moment):
        owner, name = {
            "after the connect": (Dialler, "_connect_socket"),
            "after the handshake": (tls, "shake_hands"),
        }[moment]
        step = getattr(owner, name)

        async def step_and_wait(*args):
            await step(*args)
            [sock] = [arg for arg in args if isinstance(arg, socket.socket)]
            while _is_connected(sock):
                await asyncio.sleep(0)

        monkeypatch.setattr(owner, name, step_and_wait)

    return at_once


@pytest.mark.parametrize("version", VERSIONS, ids=version_name)
def test_a_client_goes_on_when_it_is_reset_right_after_the_handshake(
    authority, silent_peer, at_once, logs, version
):
    at_once("after the handshake")
    server_context = authority.server_context(version=version)
    client = BlockingClient(*silent_peer.getsockname(), ssl_options=authority.client_context())
    client.auto_reconnect_delay = 0.02
    client.start()
    with stopping(client):
        for _ in range(5):
            raw, _ = silent_peer.accept()
            with server_context.wrap_socket(raw, server_side=True) as peer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        with silent_peer.accept()[0]:
            client.stop(PATIENCE)
    assert not client.running()
    resets = len(logs.unexpected())
    for _ in range(resets):
        logs.expect("closed with error ConnectionResetError")
    # Some Pythons take it for an orderly end (https://github.com/python/cpython/issues/115627).
    assert resets == 5 or (3, 10) <= sys.version_info < (3, 13)


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_client_goes_on_when_it_is_reset_right_after_the_connect(
    authority, silent_peer, at_once, logs, encrypted
):
    at_once("after the connect")
    options = {"ssl_options": authority.client_context()} if encrypted else {}
    client = BlockingClient(*silent_peer.getsockname(), **options)
    client.auto_reconnect_delay = client.auto_reconnect_max_delay = 0.02
    client.start()
    with stopping(client):
        for _ in range(5):
            peer, _ = silent_peer.accept()
            with peer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        # Without TLS, nothing else could fail; the same reason is logged once.
        logs.expect("Failed to connect" if encrypted else "with error ConnectionResetError")
    assert not client.running()
    logs.records.clear()


# Limits of size


def test_a_line_longer_than_the_limit_ends_the_connection(device, relay_to, encrypted_client, logs):
    client = encrypted_client(relay_to(device), max_msg_size=100_000)
    reply, _ = client.blocking_request(Message.request("echo", b"x" * 99_000))
    assert reply.reply_ok()
    reply, _ = client.blocking_request(Message.request("echo", b"x" * 100_000))
    assert isinstance(reply.local_error, (KatcpClientDisconnected, KatcpClientOverflow))
    assert "longer than MAX_MSG_SIZE (100000 bytes)" in str(reply.local_error)
    logs.expect("longer than MAX_MSG_SIZE (100000 bytes)")
    assert until_answered(client)


def expect_overflow(logs):
    logs.expect("Could not send")
    logs.expect(f"more than MAX_WRITE_BUFFER_SIZE ({MEGABYTE} bytes)")


def test_more_than_the_write_buffer_overflows(device, relay_to, encrypted_client, logs):
    client = encrypted_client(relay_to(device), max_write_buffer_size=MEGABYTE)
    reply, _ = client.blocking_request(Message.request("echo", b"x" * MEGABYTE))
    assert isinstance(reply.local_error, KatcpClientOverflow)
    expect_overflow(logs)
    assert until_answered(client)


def test_a_device_that_does_not_read_fills_the_write_buffer(
    device, relay_to, encrypted_client, logs
):
    client = encrypted_client(relay_to(device), max_write_buffer_size=MEGABYTE)
    device.pause_reading()
    on_reply = Recorder()
    count = 0
    while not on_reply.calls:
        client.callback_request(Message.request("echo", b"x" * 100_000), on_reply, timeout=PATIENCE)
        count += 1
        # The client has tried.
        in_loop(client, int)
    # All that was pending ended with the connection.
    ends = [reply.local_error for (reply,) in on_reply.wait(count)]
    assert len(ends) == count > 10
    assert all(isinstance(error, KatcpClientDisconnected) for error in ends)
    assert any(isinstance(error, KatcpClientOverflow) for error in ends)
    expect_overflow(logs)
    device.resume_reading()
    assert until_answered(client)


# The stream's own behaviour, with TLS as without


class Peer:
    """The other end of one connection, which is used in the loop's thread."""

    def __init__(self, context):
        self.context = context
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.socket = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.listener.close()
        if self.socket is not None:
            self.socket.close()

    def connection(self, context):
        """Return a connection that would be to this end."""
        return Connection(*self.listener.getsockname(), DeviceClient, context)

    async def turn(self):
        """Let the loop have its turn, and go on with the handshake; return whether it is over."""
        await asyncio.sleep(0)
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            if self.socket is None:
                raw, _ = self.listener.accept()
                raw.setblocking(False)
                self.socket = self.context.wrap_socket(
                    raw, server_side=True, do_handshake_on_connect=False
                )
            self.socket.do_handshake()
            return True
        return False

    async def until_end(self):
        """Wait until nothing holds the other end open."""
        while True:
            await asyncio.sleep(0)
            try:
                # As it comes, since there may be no TLS yet.
                if not socket.socket.recv(self.socket, 65536):
                    return
            except BlockingIOError:
                pass
            except ConnectionResetError:
                return

    async def opened(self, context):
        """Return a connection to this end."""
        connection = self.connection(context)
        opening = asyncio.ensure_future(connection.open(PATIENCE))
        while not await self.turn():
            pass
        await opening
        self.socket.settimeout(PATIENCE)
        return connection


@pytest.fixture
def run(ioloop):
    """Run a coroutine function in a loop of its own."""
    return lambda main: ioloop.run_sync(main, 2 * PATIENCE)


@pytest.fixture
def peer(authority):
    with Peer(authority.server_context()) as peer:
        yield peer


async def lines_to_end(connection):
    """Return all lines and the cause of the end."""
    lines = []
    while True:
        try:
            lines += await connection.read_lines()
        except ConnectionEnded as end:
            return lines, end.cause


def test_a_write_to_a_peer_that_has_gone_does_not_lose_what_it_said_before(run, peer, authority):
    async def main():
        connection = await peer.opened(authority.client_context())
        lines = [b"#line %d" % number for number in range(1000)]
        peer.socket.sendall(b"\n".join(lines) + b"\n")
        peer.socket.close()
        for _ in range(5):
            connection.outgoing.send(b"?are-you-there\n")
            await connection.outgoing.until_sent()
        read, cause = await lines_to_end(connection)
        assert read == lines
        assert cause is None or isinstance(cause, (BrokenPipeError, ConnectionResetError))

    run(main)


def test_an_end_without_farewell_comes_after_what_arrived_first(run, peer, authority):
    async def main():
        connection = await peer.opened(authority.client_context())
        peer.socket.sendall(b"#last words\n#half")
        peer.socket.close()
        assert await lines_to_end(connection) == ([b"#last words"], None)
        assert connection.splitter.pending == b"#half"

    run(main)


def test_an_orderly_end_of_tls_is_an_orderly_end(run, peer, authority):
    async def main():
        connection = await peer.opened(authority.client_context())
        peer.socket.sendall(b"#last words\n")
        peer.socket.setblocking(False)
        # Nobody answers the farewell.
        with pytest.raises(ssl.SSLWantReadError):
            peer.socket.unwrap()
        assert await lines_to_end(connection) == ([b"#last words"], None)

    run(main)


def test_the_first_of_a_turn_is_sent_at_once(run, peer, authority):
    async def main():
        connection = peer.connection(authority.client_context())

        async def open_and_write():
            await connection.open(PATIENCE)
            connection.outgoing.send(b"?first\n")
            return connection.stream.writing()

        writing = asyncio.ensure_future(open_and_write())
        while not await peer.turn():
            pass
        assert not await writing
        peer.socket.settimeout(PATIENCE)
        assert peer.socket.recv(100) == b"?first\n"
        connection.close()

    run(main)


def test_bytes_that_are_not_tls_end_the_connection_with_a_reason(run, peer, authority):
    async def main():
        connection = await peer.opened(authority.client_context())
        peer.socket.sendall(b"#last words\n")
        socket.socket.send(peer.socket, b"#version-connect katcp-protocol 5.0\n" * 10)
        lines, cause = await lines_to_end(connection)
        assert lines == [b"#last words"]
        assert isinstance(cause, TlsFailure)
        assert cause.errno == errno.ECONNRESET
        assert not connection.was_refused

    run(main)


def test_a_refusal_after_the_handshake_is_told_apart(run, authority):
    version = ssl.TLSVersion.TLSv1_3

    async def main():
        with Peer(authority.server_context(wants_client=True, version=version)) as peer:
            connection = peer.connection(authority.client_context())
            opening = asyncio.ensure_future(connection.open(PATIENCE))
            # What the client says first comes with the connection.
            while peer.socket is None:
                await peer.turn()
            # Answered, the client has all it needs; this end has not seen what it needs.
            await opening
            with pytest.raises(ssl.SSLError):
                peer.socket.do_handshake()
            lines, cause = await lines_to_end(connection)
            assert lines == []
            assert "the device requires a client certificate" in str(cause)
            assert connection.was_refused

    run(main)


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_an_end_in_any_turn_of_opening_leaves_no_socket(run, authority, how):
    async def main():
        outcomes = set()
        server_context, client_context = authority.server_context(), authority.client_context()
        for moment in range(40):
            with Peer(server_context) as peer:
                connection = peer.connection(client_context)
                opening = asyncio.ensure_future(connection.open(PATIENCE))
                for _ in range(moment):
                    await peer.turn()
                if how == "close":
                    connection.close()
                else:
                    opening.cancel()
                await asyncio.wait([opening])
                outcome = "cancelled" if opening.cancelled() else type(opening.exception())
                outcomes.add(outcome)
                if outcome is type(None):
                    connection.close()
                if peer.socket is not None:
                    await peer.until_end()
        return outcomes

    # Else the moments do not span the whole of it.
    cut = ConnectionFailed if how == "close" else "cancelled"
    assert run(main) == {cut, type(None)}


# Misuse


@pytest.mark.parametrize("cls", [DeviceClient, AsyncClient, CallbackClient, BlockingClient])
@pytest.mark.parametrize("ssl_options", [{}, {"cert_reqs": ssl.CERT_REQUIRED}, True, "ca.pem"])
def test_anything_but_a_context_is_refused_at_once(cls, ssl_options):
    text = (
        r"ssl_options must be an ssl.SSLContext \(ssl.create_default_context\(\) makes one\) "
        rf"or None, not {type(ssl_options).__name__}"
    )
    with pytest.raises(KatcpTypeError, match=text):
        cls("localhost", 7147, ssl_options=ssl_options)


def test_a_context_of_a_server_is_refused_at_once(authority):
    with pytest.raises(KatcpTypeError, match="is a context of a server"):
        BlockingClient("localhost", 7147, ssl_options=authority.server_context())


def test_ssl_options_is_given_by_name_only(authority):
    with pytest.raises(TypeError, match="positional"):
        DeviceClient("localhost", 7147, 20, None, True, authority.client_context())
