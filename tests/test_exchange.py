"""One request whose reply is read by the thread that waits for it: the search for the reply."""

import contextlib
import select
import socket
import threading
import time

import pytest

from katcp.connection import MAX_LOAN_SIZE
from katcp.exchange import CHUNK_SIZE, Exchange
from katcp.message import Message

# A limit that is exceeded only by a test that fails.
TIMEOUT = 5.0

pytestmark = pytest.mark.skipif(not hasattr(select, "poll"), reason="used with epoll only")


@pytest.fixture
def ends():
    """A socket as the client has it, and that of the device."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def exchange_of(mid=None, timeout=TIMEOUT, name="ask"):
    now = time.monotonic()
    deadline = None if timeout is None else now + timeout
    return Exchange(Message.request(name, mid=mid), now, deadline)


def read(ends, *chunks, mid=None):
    """Return an exchange that has read *chunks*."""
    ours, theirs = ends
    exchange = exchange_of(mid)
    for chunk in chunks:
        theirs.sendall(chunk)
    exchange.read_reply(ours)
    return exchange


def as_text(exchange):
    return [str(message) for message in (*exchange.informs, exchange.reply)]


# ---- sending ----


def test_at_first_nothing_was_sent_or_read():
    exchange = exchange_of()
    assert not exchange.was_sent
    assert (exchange.unsent, exchange.unhandled) == (b"", b"")
    assert (exchange.reply, exchange.informs, exchange.pending) == (None, [], None)


def test_what_the_kernel_takes_was_sent(ends):
    ours, theirs = ends
    exchange = exchange_of()
    exchange.send(ours, b"?ask\n")
    assert exchange.was_sent
    assert exchange.unsent == b""
    assert theirs.recv(100) == b"?ask\n"


def test_what_the_kernel_does_not_take_is_unsent(ends):
    ours, _ = ends
    data = bytes(range(256)) * 40000
    exchange = exchange_of()
    exchange.send(ours, data)
    assert exchange.was_sent
    assert 0 < len(exchange.unsent) < len(data)
    assert data.endswith(exchange.unsent)


@pytest.mark.parametrize("kind", ["full", "closed"])
def test_what_cannot_be_sent_was_not_sent(ends, kind):
    ours, _ = ends
    if kind == "closed":
        ours.close()
    else:
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(b"x" * 65536)
    exchange = exchange_of()
    exchange.send(ours, b"?ask\n")
    assert not exchange.was_sent
    assert exchange.unsent == b"?ask\n"


# ---- reading ----


@pytest.mark.parametrize("mid", [None, "7"])
def test_it_finds_its_own_informs_and_its_own_reply(ends, mid):
    own = b"" if mid is None else b"[7]"
    exchange = read(ends, b"#ask%s 1\n#ask%s 2\n!ask%s ok\n".replace(b"%s", own), mid=mid)
    assert [text.replace("[7]", "") for text in as_text(exchange)] == [
        "#ask 1",
        "#ask 2",
        "!ask ok",
    ]
    assert exchange.unhandled == b""


def test_it_goes_on_until_the_reply_is_whole(ends):
    ours, theirs = ends
    exchange = exchange_of()
    theirs.sendall(b"#ask 1\n!a")
    thread = threading.Thread(target=exchange.read_reply, args=[ours])
    thread.start()
    theirs.sendall(b"sk o")
    theirs.sendall(b"k\r")
    thread.join(TIMEOUT)
    assert as_text(exchange) == ["#ask 1", "!ask ok"]
    assert exchange.unhandled == b""


def test_what_follows_the_reply_is_for_the_loop(ends):
    exchange = read(ends, b"!ask ok\r\n\n#next 1\n#half")
    assert as_text(exchange) == ["!ask ok"]
    assert exchange.unhandled == b"#next 1\n#half"


@pytest.mark.parametrize(
    "other",
    [
        b"#other 1",
        b"!other ok",
        b"#ask[8] 1",
        b"!ask[8] ok",
        b"!ask ok",
        b"?ask[7] 1",
        b"!Ask[7] ok",
        b"nonsense",
        b"!ask[7] \\x",
    ],
)
def test_anything_else_is_for_the_loop_with_all_that_was_read(ends, other):
    data = b"#ask[7] 1\n" + other + b"\n!ask[7] ok\n"
    exchange = read(ends, data, mid="7")
    assert exchange.reply is None
    assert exchange.unhandled == data


def test_a_reply_of_the_largest_size_is_found(ends):
    ours, theirs = ends
    data = b"!ask ok ".ljust(MAX_LOAN_SIZE - 1, b"x") + b"\n"
    thread = threading.Thread(target=theirs.sendall, args=[data])
    thread.start()
    exchange = exchange_of()
    exchange.read_reply(ours)
    thread.join(TIMEOUT)
    read_size = len(exchange.unhandled) if exchange.reply is None else len(data)
    # How the kernel cuts it decides whether the thread or the loop finds it.
    assert MAX_LOAN_SIZE - CHUNK_SIZE < read_size <= MAX_LOAN_SIZE


def test_of_a_longer_reply_no_more_than_the_largest_size_is_read(ends):
    ours, theirs = ends
    data = b"#ask 1\n" * 50000
    thread = threading.Thread(target=theirs.sendall, args=[data])
    thread.start()
    exchange = exchange_of()
    exchange.read_reply(ours)
    left = len(data) - len(exchange.unhandled)
    ours.setblocking(True)
    while left:
        left -= len(ours.recv(left))
    thread.join(TIMEOUT)
    assert exchange.reply is None
    assert data.startswith(exchange.unhandled)
    assert MAX_LOAN_SIZE - CHUNK_SIZE < len(exchange.unhandled) <= MAX_LOAN_SIZE


@pytest.mark.parametrize("timeout", [0, -1, 0.02])
def test_it_does_not_read_beyond_its_time(ends, timeout):
    ours, theirs = ends
    exchange = exchange_of(timeout=timeout)
    if timeout <= 0:
        theirs.sendall(b"!ask ok\n")
    exchange.read_reply(ours)
    assert exchange.reply is None
    assert exchange.unhandled == b""


def test_without_a_deadline_it_waits(ends, monkeypatch):
    monkeypatch.setattr("katcp.exchange.CHECK_INTERVAL", 0.001)
    ours, theirs = ends
    exchange = exchange_of(timeout=None)
    looks = []
    fileno = ours.fileno

    class Watched:
        recv = staticmethod(ours.recv)

        def fileno(self):
            looks.append(1)
            if len(looks) == 20:
                theirs.sendall(b"!ask ok\n")
            return fileno()

    exchange.read_reply(Watched())
    assert as_text(exchange) == ["!ask ok"]


@pytest.mark.parametrize("end", ["close", "reset"])
def test_the_end_of_the_connection_ends_it(end):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours:
        ours.setblocking(False)
        if end == "reset":
            ours.send(b"unread")
            select.select([theirs], [], [], TIMEOUT)
        theirs.close()
        exchange = exchange_of()
        exchange.read_reply(ours)
        assert exchange.reply is None
        assert exchange.unhandled == b""


def test_a_socket_that_is_closed_already_ends_it(ends):
    ours, _ = ends
    ours.close()
    exchange = exchange_of()
    exchange.read_reply(ours)
    assert exchange.reply is None


def test_a_socket_that_is_closed_without_a_word_ends_it(ends, monkeypatch):
    monkeypatch.setattr("katcp.exchange.CHECK_INTERVAL", 0.01)
    ours, _ = ends
    exchange = exchange_of(timeout=None)
    thread = threading.Thread(target=exchange.read_reply, args=[ours])
    thread.start()
    ours.close()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_a_wake_up_for_nothing_ends_it(ends):
    class Empty:
        fileno = staticmethod(ends[0].fileno)

        def recv(self, size):
            raise BlockingIOError

    ends[1].sendall(b"!ask ok\n")
    exchange = exchange_of()
    exchange.read_reply(Empty())
    assert (exchange.reply, exchange.unhandled) == (None, b"")


def test_the_callbacks_hand_the_answer_to_the_waiter():
    exchange = exchange_of()
    on_reply, on_inform = exchange.callbacks()
    on_inform(Message.inform("ask", "1"))
    on_reply(Message.reply("ask", "ok"))
    assert exchange.waiter.is_over()
    reply, informs = exchange.waiter.result()
    assert (str(reply), [str(inform) for inform in informs]) == ("!ask ok", ["#ask 1"])
