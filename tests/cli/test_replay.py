"""``katcp replay``: a client gets the answers that were recorded, and its own ids."""

import itertools
import socket
import time
from typing import NamedTuple

import pytest

from katcp import BlockingClient, Message, cli
from katcp.cli.commands.replay import read_exchanges
from katcp.cli.recording import (
    CONNECTED,
    ENDED,
    SAID,
    SENT,
    Event,
    RecordingWriter,
    read_recording,
    split_lines,
)
from tests.support import replay
from tests.support.command import Listening, read_all, read_until, recording_of
from tests.support.helpers import PATIENCE, TestDevice, texts


class Entry(NamedTuple):
    """What the client sent, and what the device said some time after that."""

    connection: int
    sent: bytes = b""
    received: bytes = b""
    time: float = 1000.0
    delay: float = 0.0
    closed: str = ""

    def events(self):
        """Return it as the recording has it."""
        number, later = self.connection, self.time + self.delay
        return [
            *(Event(self.time, number, SENT, part) for part in split_lines(self.sent)),
            *(Event(later, number, SAID, part) for part in split_lines(self.received)),
            *([Event(later, number, ENDED, self.closed.encode())] if self.closed else []),
        ]


def exchanges_of(*entries):
    return read_exchanges([event for entry in entries for event in entry.events()])


NOT_A_RECORDING = "cannot replay {}: it is not a recording"
GREETING = b"#version-connect katcp-protocol 5.1-MI\n"


@pytest.fixture
def recording(tmp_path):
    """Return a function that writes a recording and returns its path."""

    numbers = itertools.count()

    def recording(*entries, greeting=GREETING):
        path = tmp_path / f"{next(numbers)}.txt"
        writer = RecordingWriter(path)
        for entry in [Entry(1, b"", greeting, 1000.0), *entries]:
            writer.write(entry.events())
        writer.close()
        return path

    return recording


def ask(sock, request, end=b"\n"):
    sock.sendall(request)
    return read_until(sock, end)


def greeted(device, greeting=GREETING):
    sock = device.connect()
    assert read_until(sock, greeting) == greeting
    return sock


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0", "4"])
def test_recorded_and_replayed(protocol, tmp_path):
    """What a client of ours is told by the device, it is told by the recording."""

    def tour(address):
        client = BlockingClient(*address)
        client.start()
        try:
            assert client.wait_protocol(PATIENCE)
            asked = [("help",), ("echo", bytes(range(256))), ("count", 500), ("refuse",)]
            answers = [client.blocking_request(Message.request(*words)) for words in asked]
            told = [texts([*informs, reply]) for reply, informs in answers]
            return str(client.protocol_flags), dict(client.versions), told
        finally:
            client.stop(PATIENCE)

    path = tmp_path / "recording.txt"
    with TestDevice(protocol=protocol) as device, recording_of(device, path) as record:
        original = tour(record.address)
        assert record.stop() == 0
    with Listening("replay", path, "--listen", "0") as device:
        assert tour(device.address) == original
        assert device.stop() == 0
    assert device.errors == ""


def test_the_id_of_the_answer_is_that_of_the_request(recording):
    path = recording(Entry(1, b"?a[7] x\n", b"#a[7] 1\n#other[7]\n!a[7] ok\n"))
    with Listening("replay", path, "--listen", "0") as device, greeted(device) as sock:
        assert ask(sock, b"?a[31] x\n", b"ok\n") == b"#a[31] 1\n#other[7]\n!a[31] ok\n"
        assert ask(sock, b"?a x\n", b"ok\n") == b"#a 1\n#other[7]\n!a ok\n"


def test_ids_where_the_recorded_client_had_none(recording):
    path = recording(Entry(1, b"?a\n", b"!a ok\n"), Entry(1, b"?b[2]\n", b"!b ok\n"))
    with Listening("replay", path, "--listen", "0") as device, greeted(device) as sock:
        assert ask(sock, b"?a[31]\n") == b"!a[31] ok\n"
        assert ask(sock, b"?b[32]\n") == b"!b ok\n", "a device that leaves ids out"


def test_answers_to_the_same_request_come_in_their_order(recording):
    path = recording(*(Entry(1, b"?a\n", b"!a ok %d\n" % number) for number in range(3)))
    with Listening("replay", path, "--listen", "0") as device, greeted(device) as sock:
        assert [ask(sock, b"?a\n") for _ in range(5)] == [
            b"!a ok %d\n" % number for number in (0, 1, 2, 2, 2)
        ]


def test_requests_that_overtook_each_other(recording):
    path = recording(Entry(1, b"?a[1]\n?b[2]\n", b"#b[2]\n#log x\n#a[1]\n!b[2] ok\n!a[1] ok\n"))
    with Listening("replay", path, "--listen", "0") as device, greeted(device) as sock:
        assert ask(sock, b"?a[9]\n", b"ok\n") == b"#a[9]\n!a[9] ok\n"
        # What came unasked came after the last request.
        assert ask(sock, b"?b[8]\n", b"ok\n") == b"#b[8]\n#log x\n!b[8] ok\n"


def test_what_is_not_in_the_recording(recording):
    path = recording(Entry(1, b"?a\n", b"!a ok\n"))
    reason = b"This\\_request\\_is\\_not\\_in\\_the\\_recording."
    with Listening("replay", path, "--listen", "0") as device, greeted(device) as sock:
        assert ask(sock, b"?a x\n") == b"!a invalid " + reason + b"\n"
        assert ask(sock, b"?z[5] \xff\n") == b"!z[5] invalid " + reason + b"\n"
        assert ask(sock, b"no message\n?a\n") == b"!a ok\n"
        assert device.stop() == 0
    assert device.errors.splitlines() == [
        "not in the recording: ?a x",
        r"not in the recording: ?z[5] \xff",
        "not in the recording: no message",
    ]


def test_bytes_are_said_as_they_were(recording):
    """Line ends, blank lines, half lines and what is no message."""
    garbage = b"\r\n\n \n!no\xff[0]\x00\r\n#half"
    path = recording(
        Entry(1, b"junk \xff\n", garbage[:5]),
        Entry(1, b"", garbage[5:], closed="eof"),
    )
    with Listening("replay", path, "--listen", "0") as device, greeted(device) as sock:
        sock.sendall(b"junk \xff\n")
        assert read_all(sock) == garbage


@pytest.mark.parametrize("cut", range(1, 24))
def test_entries_begin_and_end_anywhere(cut):
    sent, said = b"?a[1] x\n?b[2]\n" + b" " * 10, b"!a[1] ok\n!b[2] ok\n#log\n"
    exchanges = exchanges_of(
        Entry(1, sent[:cut]), Entry(1, sent[cut:], said[:cut]), Entry(1, b"", said[cut:])
    )
    assert [exchange.name for exchange in exchanges] == [b"", b"a", b"b"]
    assert [[line.line for line in exchange.said] for exchange in exchanges] == [
        [],
        [b"!a[1] ok\n"],
        [b"!b[2] ok\n", b"#log\n"],
    ]


def test_each_client_has_a_connection_and_then_again(recording):
    path = recording(
        Entry(1, b"?a\n", b"!a ok first\n"),
        Entry(2, b"", GREETING),
        Entry(2, b"?a\n", b"!a ok second\n"),
        Entry(2, b"?b\n", b"!b ok\n"),
    )
    with Listening("replay", path, "--listen", "0") as device:
        for words in (b"first", b"second", b"first"):
            with greeted(device) as sock:
                assert ask(sock, b"?a\n") == b"!a ok " + words + b"\n"
                # Found on another connection, if need be.
                assert ask(sock, b"?b\n") == b"!b ok\n"


def test_times_are_kept(recording):
    path = recording(
        Entry(1, b"?a\n", b"#a\n", time=1010.0, delay=0.1),
        Entry(1, b"", b"#log\n", time=1010.3),
        Entry(1, b"", b"!a ok\n", time=1010.5),
    )
    with Listening("replay", path, "--listen", "0") as device, greeted(device) as sock:
        began = time.monotonic()
        assert ask(sock, b"?a\n", b"ok\n") == b"#a\n#log\n!a ok\n"
        assert time.monotonic() - began > 0.499


def test_times_are_shortened(recording):
    """What took a day is said while the test waits."""
    path = recording(Entry(1, b"?a\n", b"!a ok\n", time=1010.0, delay=86400.0))
    with (
        Listening("replay", path, "--speed", "1e9", "--listen", "0") as device,
        greeted(device) as sock,
    ):
        assert ask(sock, b"?a\n") == b"!a ok\n"


@pytest.mark.parametrize("closed", ["eof", "reset (ConnectionResetError)"])
def test_the_device_closes(closed, recording):
    path = recording(Entry(1, b"?halt\n", b"!halt ok\n", closed=closed))
    with Listening("replay", path, "--listen", "0") as device, greeted(device) as sock:
        sock.sendall(b"?halt\n")
        if closed == "eof":
            assert read_all(sock) == b"!halt ok\n"
        else:
            with pytest.raises(ConnectionResetError):
                read_all(sock)


@pytest.fixture
def real_recording(tmp_path):
    """Return a function that writes what a real server said as a recording."""

    def real_recording(name):
        path = tmp_path / f"{name}.txt"
        writer = RecordingWriter(path)
        for number, exchanges in enumerate(replay.read_transcript(name), 1):
            for exchange in exchanges:
                _, sent, received, closed = exchange
                writer.write(Entry(number, sent, received, closed=closed).events())
        writer.close()
        return path

    return real_recording


@pytest.mark.parametrize("name", [path.stem for path in replay.TRANSCRIPTS.glob("*.json")])
def test_transcripts_of_real_servers(name, real_recording):
    """Every byte is in the file, and becomes part of an exchange."""
    asked = answered = 0
    for events, exchanges in zip(
        read_recording(real_recording(name)), replay.read_transcript(name)
    ):
        for kind, field in ((SENT, "sent"), (SAID, "received")):
            bytes_ = b"".join(event.data for event in events if event.kind == kind)
            assert bytes_ == b"".join(getattr(exchange, field) for exchange in exchanges)
        read = read_exchanges(events)
        said = [line.line for exchange in read for line in exchange.said]
        assert sorted(b"".join(said)) == sorted(
            b"".join(exchange.received for exchange in exchanges)
        )
        asked += sum(exchange.request is not None for exchange in read)
        answered += sum(any(line.is_answer for line in exchange.said) for exchange in read)
    assert answered > 0.9 * asked


def test_a_real_server_is_played(real_recording):
    path = real_recording("katcp-0.9.3-test-v5")
    with Listening("replay", path, "--listen", "0") as device:
        client = BlockingClient(*device.address)
        client.start()
        try:
            assert client.wait_protocol(PATIENCE)
            reply, informs = client.blocking_request(Message.request("help"))
            assert reply.arguments == [b"ok", b"%d" % len(informs)]
            assert str(client.protocol_flags) == "5.0-IM"
        finally:
            client.stop(PATIENCE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot read {}: No such file or directory"),
        ("", "cannot replay {}: it holds no connection"),
        ("# Only a remark\n", "cannot replay {}: it holds no connection"),
        ("[1]", f"{NOT_A_RECORDING}: see its line 1"),
        ("# Title\n\nText\n", f"{NOT_A_RECORDING}: see its line 3"),
        (
            "2026-13-45T00:00:00Z 1 > ?a\n",
            f"{NOT_A_RECORDING}: see its line 1",
        ),
        (
            "2026-11-24T19:29:06Z 1 ? ?a\n",
            f"{NOT_A_RECORDING}: see its line 1",
        ),
        (b"[\xff]", f"{NOT_A_RECORDING}: it is not text"),
    ],
)
def test_a_file_that_is_no_recording(content, reason, tmp_path, capsys):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert cli.main(["replay", str(path)]) == 2
    assert capsys.readouterr().err == f"katcp: {reason.format(path)}\n"


@pytest.mark.parametrize("speed", ["0", "-1", "nan", "inf", "fast"])
def test_speed(speed, capsys):
    assert cli.main(["replay", "file", "--speed", speed]) == 2
    assert f"'{speed}' is not a number greater than 0" in capsys.readouterr().err


def test_a_fixed_port(recording):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with Listening("replay", recording(), "--listen", port) as device:
        assert device.address == ("127.0.0.1", port)


def test_no_file(capsys):
    assert cli.main(["replay"]) == 2
    assert capsys.readouterr().err == "katcp: which FILE? see katcp replay --help\n"


# ---- the file ----


@pytest.mark.parametrize(
    "data",
    [
        b"?echo two\\_words\n",
        b"\n",
        b"\r\n",
        b"no end",
        b" blanks  \n",
        b"\xff\x00\x1b\x7f\xc2\x9b\n",
        "caf\u00e9 \u2028\u202e\n".encode(),
        rb"\xff \\xff \x5c \\\x" + b"\n",
        b"\\\xff\n",
        bytes(range(256)),
    ],
)
def test_every_byte_is_kept(data, tmp_path):
    path = tmp_path / "file"
    writer = RecordingWriter(path)
    now = 1700000000.123456
    parts = split_lines(data)
    events = [Event(now, 1, kind, part) for kind in (SENT, SAID) for part in parts]
    writer.write([Event(1700000000.0, 1, CONNECTED, b"127.0.0.1:1"), *events])
    # It is in the file, although the file is open.
    assert read_recording(path)[0][1:] == events
    writer.close()
    assert all(line.isprintable() for line in path.read_text().splitlines())


def test_the_file_is_for_people(tmp_path):
    path = tmp_path / "file"
    writer = RecordingWriter(path)
    writer.write(
        [Event(1700000000.5, 7, SENT, rb"?echo a\_b" + b"\n"), Event(1700000001.0, 7, SAID, b"!ec")]
    )
    writer.close()
    assert path.read_text() == (
        "# Recorded by katcp record; times are UTC.\n"
        "2023-11-14T22:13:20.500000Z 7 > ?echo a\\_b\n"
        "2023-11-14T22:13:21.000000Z 7 <~ !ec\n"
    )
