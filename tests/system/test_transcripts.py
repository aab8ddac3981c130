"""What 18 real servers said, said again: the client understands every line of it.

The rules of the play:

- *What the client sends.* If the recorder sent whole requests, written as the
  grammar wants them, and the server takes ids where they have one, the client
  is made to send them; so are replies and informs. All else (malformed lines,
  odd blanks, CR, halves of a line, ids that the device did not announce) no
  client of ours sends: it is written to its stream as raw bytes.
- *Where an answer belongs.* With an id: to the request with that id and name.
  Without: to the first unanswered request of that name that the client sent
  without id. Else to the handlers, so do `#log`, `#sensor-status`, greetings,
  and answers to what was written raw.
- *A line that is no message* (`!watchdog[0] ok`, `!1abc invalid`) is logged as
  BAD COMMAND and reaches nobody. Blank lines reach nobody.
- *The end.* Requests that the server never answered end with a reply that the
  client makes up when the connection ends, and after `notify_connected(False)`.
  A recorded close comes from the server, any other from the client.

One client plays all connections of a file: it reconnects. Where the server
answers in one piece, single requests are blocking ones; where it answers byte
by byte, all have callbacks, and the order of all that arrives is checked as one.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple, Union

import pytest

from katcp import BlockingClient, KatcpClientDisconnected, KatcpVersionError, Message
from tests.support.abnf import BadLine, Line, decode_stream, encode
from tests.support.helpers import PATIENCE, Recorder, in_loop
from tests.support.replay import TRANSCRIPTS, Exchange, ReplayServer, read_transcript

# What each server speaks, and of what it tells the versions.
_KATCP = ["katcp-protocol", "katcp-library", "katcp-device"]
SERVERS: dict[str, tuple[str, list[str]]] = {
    "aiokatcp-2.3.0-example": ("5.1-BIM", _KATCP),
    "c-kcs-v4.9": ("4.0", []),
    "c-server-example-v4.9": ("4.0", []),
    "c-server-example-v5.0": ("5.0-M", ["mylabel", "katcp-library", "katcp-protocol", "kernel"]),
    "c-tcpborphserver3-v4.9": ("4.0", []),
    "c-tcpborphserver3-v5.0": ("5.0-M", ["katcp-library", "katcp-protocol", "kernel"]),
    "katcp-0.3.5-py27-ticking-v4": ("4.0", []),
    "katcp-0.3.5-py27-v4": ("4.0", []),
    "katcp-0.5.5-py27-v5": ("5.0-IM", _KATCP),
    "katcp-0.9.3-asynctest-v5": ("5.0-IM", _KATCP),
    "katcp-0.9.3-example-v5": ("5.0-IM", _KATCP),
    "katcp-0.9.3-test-v4": ("4.0", []),
    "katcp-0.9.3-test-v5": ("5.0-IM", _KATCP),
    "katcp-0.9.3-test-v5.1-bulk": ("5.1-BIM", _KATCP),
    "katcp-0.9.3-test-v5.1-hints": ("5.1-IMT", _KATCP),
    "katcp-0.9.3-ticking-v4": ("4.0", []),
    "katcp-0.9.3-ticking-v5": ("5.0-IM", _KATCP),
    "rust-katcp-rs-example": ("5.0-IM", _KATCP),
}

HANDLERS = "handlers"
# The longest line of a transcript has 3 MiB.
MAX_MSG_SIZE = 4 * 1024 * 1024


class Asked(NamedTuple):
    """A request that the client sent; the number tells equal ones apart."""

    number: int
    line: Line


# What the client notes: where something arrived, and what.
Place = Union[str, int]
Note = tuple[Place, Any]


class Listener(BlockingClient):
    """Notes all that arrives, in its order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.notes = Recorder()

    def notify_connected(self, connected: bool) -> None:
        self.notes("connected", connected)

    def note(self, msg: Message) -> None:
        self.notes(HANDLERS, as_line(msg))

    def note_answer(self, msg: Message, number: int) -> None:
        made_up = isinstance(msg.local_error, KatcpClientDisconnected)
        self.notes(number, "connection closed" if made_up else as_line(msg))

    unhandled_inform = unhandled_reply = unhandled_request = note
    # Some that a program would handle by name.
    inform_log = inform_sensor_status = reply_watchdog = note

    def inform_version_connect(self, msg: Message) -> None:
        super().inform_version_connect(msg)
        self.note(msg)

    def inform_version(self, msg: Message) -> None:
        super().inform_version(msg)
        self.note(msg)

    def inform_build_state(self, msg: Message) -> None:
        super().inform_build_state(msg)
        self.note(msg)


class Play:
    """One connection of a transcript, and what is to come of it."""

    def __init__(self, client: Listener, server: ReplayServer, blocking: bool, logs: Any) -> None:
        self.client = client
        self.server = server
        self.blocking = blocking
        self.logs = logs
        self.taken = 0
        self.number = 0
        self.sent_raw = 0
        self.unanswered: list[Asked] = []

    def expect(self, notes: list[Note]) -> None:
        """Check that these are the next that the client notes."""
        noted = self.client.notes.wait(self.taken + len(notes))[self.taken :][: len(notes)]
        if self.blocking:
            # What a blocking request returned was noted after all else.
            noted, notes = sorted(noted, key=_by_place), sorted(notes, key=_by_place)
        assert noted == notes
        self.taken += len(notes)

    def greet(self, banner: Exchange, flags: str, roles: list[str]) -> None:
        """Let the banner come, and check that it was understood."""
        self.expect([("connected", True)])
        assert self.client.protocol_flags is None
        assert self.client.versions == {}
        self.server.play_next()
        self.server.heard()
        said = decode_stream(banner.received)
        self.expect(self.answers(said))
        assert self.client.wait_protocol(PATIENCE)
        assert str(self.client.protocol_flags) == flags
        assert list(self.client.versions) == roles
        assert self.client.versions == {
            line.arguments[0].decode(): tuple(text.decode() for text in line.arguments[1:])
            for line in said
            if line.name == "version-connect"
        }

    def exchange(self, exchange: Exchange) -> None:
        """Send what was sent, and check that all arrives that the server says."""
        self.server.play_next()
        lines = client_lines(exchange.sent, self.client)
        asked = [self.ask(line) for line in lines or ()]
        self.unanswered += filter(None, asked)
        said = decode_stream(exchange.received)
        notes = self.answers(said)
        self.sent_raw += lines is None
        if lines is None:
            in_loop(self.client, write_raw, self.client, exchange.sent)
        elif self.can_wait(exchange, asked):
            self.request_and_wait(asked[0])
        else:
            for line, request in zip(lines, asked):
                self.send(line, request)
        assert self.server.heard() == exchange.sent
        self.expect(notes)
        for line in said:
            if isinstance(line, BadLine):
                logged = self.logs.expect(f"in line {line.line!r}", logging.ERROR)
                assert logged.startswith("BAD COMMAND: ")
        if exchange.closed:
            self.expect_end()
            if exchange.closed.startswith("reset"):
                self.logs.expect("closed with error ConnectionResetError")

    def ask(self, line: Line) -> Asked | None:
        """Return *line* with a number, if it is a request."""
        self.number += 1
        return Asked(self.number, line) if line.type == b"?" else None

    def can_wait(self, exchange: Exchange, asked: list[Asked | None]) -> bool:
        """Return whether there is one request, which is answered, and nothing after it."""
        single = len(asked) == 1 and asked[0] is not None and asked[0] not in self.unanswered
        return self.blocking and single and not exchange.closed

    def send(self, line: Line, asked: Asked | None) -> None:
        """Let the client send a line and not wait for an answer."""
        if asked is None:
            self.client.send_message(as_message(line))
            return
        self.client.callback_request(
            as_message(line),
            reply_cb=self.client.note_answer,
            inform_cb=self.client.note_answer,
            user_data=(asked.number,),
            use_mid=line.mid is not None,
        )

    def request_and_wait(self, asked: Asked) -> None:
        """Let the client send a request and wait for its answer."""
        reply, informs = self.client.blocking_request(
            as_message(asked.line), use_mid=asked.line.mid is not None
        )
        for answer in (*informs, reply):
            self.client.note_answer(answer, asked.number)

    def answers(self, said: list[Line | BadLine]) -> list[Note]:
        """Return where the lines that the server says belong."""
        notes: list[Note] = []
        for line in said:
            if isinstance(line, BadLine):
                continue
            asked = self.asked(line)
            notes.append((HANDLERS if asked is None else asked.number, line))
            if asked is not None and line.type == b"!":
                self.unanswered.remove(asked)
        return notes

    def asked(self, answer: Line) -> Asked | None:
        """Return the request that *answer* belongs to."""
        assert answer.type != b"?"
        for asked in self.unanswered:
            if (asked.line.name, asked.line.mid) == (answer.name, answer.mid):
                return asked
        return None

    def expect_end(self) -> None:
        """Check that the client notices the end, and what it tells the unanswered."""
        closed = [(asked.number, "connection closed") for asked in self.unanswered]
        self.unanswered = []
        self.expect([("connected", False), *closed])


def as_line(msg: Message) -> Line:
    """Return a message of the client as the decoder would have it."""
    symbol = Message.TYPE_SYMBOLS[msg.mtype]
    return Line(symbol, msg.name, msg.mid, tuple(msg.arguments))


def as_message(line: Line) -> Message:
    """Return a line as the message that the client sends."""
    mtype = Message.TYPE_SYMBOL_LOOKUP[line.type]
    return Message(mtype, line.name, list(line.arguments), line.mid)


def client_lines(sent: bytes, client: Listener) -> list[Line] | None:
    """Return the messages that *client* can send as *sent*; None if it would not."""
    if sent[-1:] not in (b"", b"\n"):
        return None
    lines = [line for line in decode_stream(sent) if isinstance(line, Line)]
    if b"".join(map(encode, lines)) != sent:
        return None
    flags = client.protocol_flags
    if any(line.mid for line in lines) and not (flags and flags.message_ids):
        with pytest.raises(KatcpVersionError):
            client.send_request(as_message(lines[0]))
        return None
    return lines


def write_raw(client: Listener, data: bytes) -> None:
    """Write what no client of ours sends; in the loop."""
    assert client._stream is not None
    client._stream.write(data)


def _by_place(note: Note) -> str:
    return str(note[0])


def play_transcript(name: str, bytewise: bool, logs: Any) -> None:
    """Play all connections of a file to one client."""
    flags, roles = SERVERS[name]
    connections = read_transcript(name)
    with ReplayServer(connections, bytewise) as server:
        client = Listener(*server.address, timeout=3 * PATIENCE, max_msg_size=MAX_MSG_SIZE)
        client.auto_reconnect_delay = client.auto_reconnect_max_delay = 0.001
        play = Play(client, server, not bytewise, logs)
        client.start()
        try:
            for banner, *exchanges in connections:
                play.greet(banner, flags, roles)
                for exchange in exchanges:
                    play.exchange(exchange)
                if not exchanges[-1].closed:
                    client.disconnect()
                    play.expect_end()
                    assert server.heard() == b"", "the client sent more than was recorded"
            # The server listens until the client has gone.
        finally:
            client.stop(PATIENCE)
    # The rules let the client send most of what the recorder did.
    assert play.sent_raw <= 0.3 * sum(map(len, connections))
    # It may have come back to a server that accepts nobody any more.
    assert client.notes.calls[play.taken :] in ([], [("connected", True), ("connected", False)])


def test_every_transcript_is_played():
    assert sorted(SERVERS) == sorted(path.stem for path in TRANSCRIPTS.glob("*.json"))


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("name", SERVERS)
def test_the_client_delivers_what_the_server_said(name, bytewise, logs):
    play_transcript(name, bytewise, logs)
