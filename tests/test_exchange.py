"""One request whose reply is read by the thread that waits for it: the search for the reply."""

import contextlib
import select
import socket
import threading
import time

import pytest

from katcp.connection import CHECK_INTERVAL, MAX_LOAN_SIZE
from katcp.exchange import CHUNK_SIZE, Exchange
from katcp.message import Message

# A limit that is exceeded only by a test that fails.
TIMEOUT = 5.0


@pytest.fixture
def ends(ends):
    """A socket as the client has it, and that of the device."""
    ends[0].setblocking(False)
    return ends


@pytest.fixture
def reader(ends):
    """The socket that is read, as `Connection.lend_reading` makes it."""
    with ends[0].dup() as reader:
        reader.settimeout(CHECK_INTERVAL)
        yield reader


class ScriptedReader:
    """A reader whose ``recv`` returns or raises one thing after the other."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.timeouts = []

    def settimeout(self, timeout):
        self.timeouts.append(timeout)

    def recv(self, size):
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


def exchange_of(mid=None, timeout=TIMEOUT, name="ask"):
    now = time.monotonic()
    deadline = None if timeout is None else now + timeout
    return Exchange(Message.request(name, mid=mid), now, deadline)


def read(*chunks, mid=None):
    """Return an exchange that has read *chunks*, or as many as it wanted."""
    exchange = exchange_of(mid)
    exchange.read_reply(ScriptedReader(*chunks, ConnectionResetError()))
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
    assert exchange.send(ours, b"?ask\n")
    assert exchange.was_sent
    assert exchange.unsent == b""
    assert theirs.recv(100) == b"?ask\n"


def test_what_the_kernel_does_not_take_is_unsent(ends):
    ours, _ = ends
    data = bytes(range(256)) * 40000
    exchange = exchange_of()
    assert not exchange.send(ours, data)
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
    assert not exchange.send(ours, b"?ask\n")
    assert not exchange.was_sent
    assert exchange.unsent == b"?ask\n"


# ---- reading ----


@pytest.mark.parametrize("mid", [None, "7"])
def test_it_finds_its_own_informs_and_its_own_reply(mid):
    own = b"" if mid is None else b"[7]"
    exchange = read(b"#ask%s 1\n#ask%s 2\n!ask%s ok\n".replace(b"%s", own), mid=mid)
    assert [text.replace("[7]", "") for text in as_text(exchange)] == [
        "#ask 1",
        "#ask 2",
        "!ask ok",
    ]
    assert exchange.unhandled == b""


@pytest.mark.parametrize("chunks", [[b"!ask ok\n"], [b"!ask ok", b"\n"], [b"!ask", b" ok\r"]])
def test_a_reply_alone_is_found_in_one_piece_or_in_several(chunks):
    exchange = read(*chunks)
    assert as_text(exchange) == ["!ask ok"]
    assert exchange.unhandled == b""


def test_informs_and_blank_lines_may_come_alone():
    exchange = read(b"\n", b"#ask 1\n", b"\r\n", b"#ask 2\n", b"!ask ok\n")
    assert as_text(exchange) == ["#ask 1", "#ask 2", "!ask ok"]
    assert exchange.unhandled == b""


def test_it_goes_on_until_the_reply_is_whole(ends, reader):
    theirs = ends[1]
    exchange = exchange_of()
    theirs.sendall(b"#ask 1\n!a")
    thread = threading.Thread(target=exchange.read_reply, args=[reader])
    thread.start()
    theirs.sendall(b"sk o")
    theirs.sendall(b"k\r")
    thread.join(TIMEOUT)
    assert as_text(exchange) == ["#ask 1", "!ask ok"]
    assert exchange.unhandled == b""


def test_what_follows_the_reply_is_for_the_loop():
    exchange = read(b"!ask ok\r\n\n#next 1\n#half")
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
def test_anything_else_is_for_the_loop_with_all_that_was_read(other):
    data = b"#ask[7] 1\n" + other + b"\n!ask[7] ok\n"
    exchange = read(data, mid="7")
    assert exchange.reply is None
    assert exchange.unhandled == data


@pytest.mark.parametrize("other", [b"!other ok\n", b"?ask 1\n", b"nonsense\n"])
def test_so_is_another_line_alone(other):
    exchange = read(other, b"!ask ok\n")
    assert exchange.reply is None
    assert exchange.unhandled == other


def test_a_reply_of_the_largest_size_is_found():
    data = b"!ask ok ".ljust(MAX_LOAN_SIZE - 1, b"x") + b"\n"
    exchange = read(*(data[at : at + CHUNK_SIZE] for at in range(0, len(data), CHUNK_SIZE)))
    assert bytes(exchange.reply) + b"\n" == data
    assert exchange.unhandled == b""


@pytest.mark.parametrize("size", [1, 1000, CHUNK_SIZE - 1, CHUNK_SIZE])
def test_of_a_longer_reply_no_more_than_the_largest_size_is_read(size):
    exchange = read(*[b"x" * size] * (MAX_LOAN_SIZE // size + 1))
    assert exchange.reply is None
    assert MAX_LOAN_SIZE - CHUNK_SIZE < len(exchange.unhandled) <= MAX_LOAN_SIZE


def test_it_reads_no_more_than_a_chunk_at_a_time(ends, reader):
    data = b"#ask 1\n" * 50000
    thread = threading.Thread(target=ends[1].sendall, args=[data])
    thread.start()
    exchange = exchange_of()
    exchange.read_reply(reader)
    left = len(data) - len(exchange.unhandled)
    reader.settimeout(TIMEOUT)
    while left:
        left -= len(reader.recv(left))
    thread.join(TIMEOUT)
    assert exchange.reply is None
    assert data.startswith(exchange.unhandled)
    assert MAX_LOAN_SIZE - CHUNK_SIZE < len(exchange.unhandled) <= MAX_LOAN_SIZE


@pytest.mark.parametrize("timeout", [0, -1, 0.02])
def test_it_does_not_read_beyond_its_time(ends, reader, timeout):
    exchange = exchange_of(timeout=timeout)
    if timeout <= 0:
        ends[1].sendall(b"!ask ok\n")
    exchange.read_reply(reader)
    assert exchange.reply is None
    assert exchange.unhandled == b""


def test_it_does_not_read_beyond_its_time_though_the_device_goes_on():
    exchange = exchange_of()

    class Late(ScriptedReader):
        def recv(self, size):
            if len(self.steps) == 1:
                exchange.deadline = time.monotonic()
            return super().recv(size)

    reader = Late(b"#ask 1\n", b"#as", b"k 2\n")
    exchange.read_reply(reader)
    assert (reader.steps, exchange.unhandled) == ([], b"#ask 1\n#ask 2\n")
    assert exchange.reply is None


def test_it_waits_no_longer_at_a_time_than_it_has():
    near, far = ScriptedReader(b"!ask ok\n"), ScriptedReader(b"!ask ok\n")
    exchange_of(timeout=CHECK_INTERVAL / 2).read_reply(near)
    exchange_of(timeout=TIMEOUT).read_reply(far)
    assert len(near.timeouts) == 1
    assert 0 < near.timeouts[0] <= CHECK_INTERVAL / 2
    # It has the right one already.
    assert far.timeouts == []


def test_without_a_deadline_it_waits():
    reader = ScriptedReader(*[socket.timeout()] * 20, b"!ask ok\n")
    exchange = exchange_of(timeout=None)
    exchange.read_reply(reader)
    assert as_text(exchange) == ["!ask ok"]
    assert reader.timeouts == []


@pytest.mark.parametrize("end", ["close", "reset"])
def test_the_end_of_the_connection_ends_it(end):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours:
        ours.settimeout(CHECK_INTERVAL)
        if end == "reset":
            ours.send(b"unread")
            select.select([theirs], [], [], TIMEOUT)
        theirs.close()
        exchange = exchange_of(timeout=None)
        exchange.read_reply(ours)
        assert exchange.reply is None
        assert exchange.unhandled == b""


def test_what_was_read_before_the_end_is_for_the_loop():
    exchange = read(b"#ask 1\n#disconn", b"ect\n", b"")
    assert exchange.reply is None
    assert exchange.unhandled == b"#ask 1\n#disconnect\n"


def test_a_socket_that_is_closed_already_ends_it(reader):
    reader.close()
    exchange = exchange_of()
    exchange.read_reply(reader)
    assert exchange.reply is None


def test_a_socket_that_is_closed_without_a_word_ends_it(reader):
    reader.settimeout(0.01)
    exchange = exchange_of(timeout=None)
    thread = threading.Thread(target=exchange.read_reply, args=[reader])
    thread.start()
    reader.close()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_the_callbacks_hand_the_answer_to_the_waiter():
    exchange = exchange_of()
    on_reply, on_inform = exchange.callbacks()
    on_inform(Message.inform("ask", "1"))
    on_reply(Message.reply("ask", "ok"))
    assert exchange.waiter.is_over()
    reply, informs = exchange.waiter.result()
    assert (str(reply), [str(inform) for inform in informs]) == ("!ask ok", ["#ask 1"])
