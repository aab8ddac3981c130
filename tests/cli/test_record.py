"""``katcp record``: passed on unchanged, and recorded as the tests' transcripts are."""

import contextlib
import json
import signal
import socket
import struct
import threading
import time

import pytest

import katcp
from katcp import BlockingClient, Message, cli
from katcp.cli.commands import record as cli_record
from katcp.cli.commands.record import _Session
from katcp.cli.transcript import Entry, TranscriptError, read_transcript
from tests.support import replay
from tests.support.command import Listening, read_all, read_until, recording_of
from tests.support.helpers import PATIENCE, TestDevice, closed_port

# No text in any encoding, and all that KATCP must escape.
BINARY = bytes(range(256)) * 8


@pytest.fixture
def path(tmp_path):
    return tmp_path / "recording.json"


def conversation(path, number=0):
    """Return all that client and device said on a recorded connection."""
    entries = read_transcript(path)[number]
    return b"".join(e.sent for e in entries), b"".join(e.received for e in entries)


class PlainServer:
    """A server for one client, which the test lets speak byte by byte."""

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE)
        self.address = "{}:{}".format(*self.listener.getsockname())
        return self

    def __exit__(self, *exception):
        self.listener.close()

    def accept(self):
        sock, _ = self.listener.accept()
        sock.settimeout(PATIENCE)
        return sock


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0", "4"])
def test_a_client_of_ours_through_the_proxy(protocol, path):
    with TestDevice(protocol=protocol) as device:
        began = time.time()
        with recording_of(device, path) as record:
            client = BlockingClient(*record.address)
            client.start()
            try:
                assert client.wait_protocol(PATIENCE)
                reply, _ = client.blocking_request(Message.request("echo", BINARY))
                assert reply.arguments == [b"ok", BINARY]
                reply, informs = client.blocking_request(Message.request("count", 1000))
                assert len(informs) == 1000
            finally:
                client.stop(PATIENCE)
            record.wait_output("1: 127.0.0.1")
            record.wait_output("ended")
            assert record.stop() == 0
        assert record.errors == ""
        assert "1 connection is recorded" in record.output
    entries = read_transcript(path)[0]
    assert (entries[0].note, entries[0].sent) == ("on connect", b"")
    assert entries[0].received.startswith(b"#version")
    sent, received = conversation(path)
    id_ = b"[1]" if "I" in protocol else b""
    echo = bytes(Message.request("echo", BINARY))[len("?echo") :]
    assert sent.startswith(b"?echo" + id_ + echo + b"\n")
    assert b"!echo" + id_ + b" ok" + echo + b"\n" in received
    times = [entry.time for entry in entries]
    assert times == sorted(times)
    assert began <= times[0] <= times[-1] <= time.time()
    assert all(entry.delay >= 0 for entry in entries)
    assert entries[-1].closed == "", "the client closed it"


def test_bytes_are_passed_on_and_recorded_as_they_are(path):
    with PlainServer() as server, Listening("record", server.address, path) as record:
        with record.connect() as client, server.accept() as device:
            device.sendall(b"\r\n" + BINARY)
            assert read_until(client, BINARY) == b"\r\n" + BINARY
            client.sendall(BINARY + b"half a line")
            assert read_until(device, b"line") == BINARY + b"half a line"
            # The end of one direction leaves the other alone.
            client.shutdown(socket.SHUT_WR)
            assert read_all(device) == b""
            device.sendall(b"\xfflast\n")
            device.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"\xfflast\n"
        record.wait_output("ended")
        assert record.stop(signal.SIGTERM) == 0
    assert conversation(path) == (BINARY + b"half a line", b"\r\n" + BINARY + b"\xfflast\n")


def test_much_is_passed_on_to_one_who_reads_slowly(path):
    """What the client does not read is not piled up, and nothing of it is lost."""
    data = BINARY * 12288 + b"end\n"
    with PlainServer() as server, Listening("record", server.address, path) as record:
        with record.connect() as client, server.accept() as device:
            sender = threading.Thread(target=device.sendall, args=(data,))
            sender.start()
            # More than all buffers hold: it waits for the reader.
            sender.join(1.5)
            assert sender.is_alive()
            assert read_until(client, b"end\n") == data
            sender.join(PATIENCE)
        record.wait_output("ended")
        assert record.stop() == 0
    assert conversation(path)[1] == data


@pytest.mark.parametrize("is_reset", [False, True], ids=["eof", "reset"])
def test_the_device_closes(is_reset, path):
    with PlainServer() as server, Listening("record", server.address, path) as record:
        with record.connect() as client:
            device = server.accept()
            device.sendall(b"#disconnect bye\n")
            assert read_until(client, b"\n") == b"#disconnect bye\n"
            if is_reset:
                device.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            device.close()
            if is_reset:
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
            else:
                assert client.recv(1) == b""
        record.wait_output("ended")
        assert record.stop() == 0
    closed = read_transcript(path)[0][-1].closed
    assert closed == ("reset (ConnectionResetError)" if is_reset else "eof")


def test_the_client_breaks_the_connection(path):
    with PlainServer() as server, Listening("record", server.address, path) as record:
        client = record.connect()
        with server.accept() as device:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            with pytest.raises(ConnectionResetError):
                device.recv(1)
        record.wait_output("ended")
        assert record.stop() == 0
    assert read_transcript(path)[0][-1].closed == ""
    assert record.errors == ""


def test_each_client_is_a_connection(path):
    with TestDevice() as device, recording_of(device, path) as record:
        with record.connect() as first, record.connect() as second:
            for sock, name in ((second, b"second"), (first, b"first")):
                sock.sendall(b"?echo " + name + b"\n")
                read_until(sock, b"!echo ok " + name + b"\n")
        assert record.stop() == 0
    assert {conversation(path, number)[0] for number in (0, 1)} == {
        b"?echo first\n",
        b"?echo second\n",
    }


def test_interrupted_in_the_middle(path):
    """A request that was not answered yet is in the file, and the file is whole."""
    with TestDevice() as device, recording_of(device, path) as record, record.connect() as client:
        read_until(client, b"\n")
        client.sendall(b"?hold\n")
        device.next_held()
        assert record.stop() == 0
        read_all(client)
    assert read_transcript(path)[0][-1]._replace(time=0) == Entry(1, b"?hold\n")


def test_killed(path):
    """What was answered is in the file, whatever ends the recorder."""
    with TestDevice() as device, recording_of(device, path) as record, record.connect() as client:
        for number in range(3):
            client.sendall(b"?echo %d\n" % number)
            read_until(client, b"!echo ok %d\n" % number)
        said = b""
        while b"ok 2" not in said:
            assert record.is_running()
            # The file may be read while its end is written anew.
            with contextlib.suppress(TranscriptError):
                said = conversation(path)[1]
        record.stop(signal.SIGKILL)
    assert conversation(path)[0] == b"?echo 0\n?echo 1\n?echo 2\n"


def test_the_tests_own_reader_reads_it_and_plays_it_again(path):
    with TestDevice() as device, recording_of(device, path) as record:
        with record.connect() as client:
            greeting = read_until(client, f"-{katcp.__version__}\n".encode())
            client.sendall(b"?echo[3] \xff\n")
            answer = read_until(client, b"\n")
        record.wait_output("ended")
        assert record.stop() == 0
    connections = replay.read_transcript(str(path.with_suffix("")))
    with (
        replay.ReplayServer(connections, bytewise=False) as server,
        socket.create_connection(server.address, PATIENCE) as client,
    ):
        server.play_next()
        assert read_until(client, greeting) == greeting
        server.play_next()
        client.sendall(b"?echo[3] \xff\n")
        assert read_until(client, b"\n") == answer == b"!echo[3] ok \xff\n"


def test_a_device_that_is_away_and_comes(path):
    device = TestDevice(port=closed_port())
    with recording_of(device, path) as record:
        with record.connect() as client:
            assert read_all(client) == b""
        record.wait_output("no connection to the device: ")
        with device, record.connect() as client:
            read_until(client, b"\n")
        record.wait_output("2: 127.0.0.1")
        record.wait_output("ended")
        assert record.stop() == 0
    remarks = [entry for entry in json.loads(path.read_text()) if entry.get("meta")]
    assert [(remark["conn"], remark["send_hex"]) for remark in remarks] == [(1, "")]
    assert [entries[0].connection for entries in read_transcript(path)] == [2]


def run(capsys, *arguments):
    code = cli.main(["record", *map(str, arguments)])
    return code, capsys.readouterr().err


def test_no_file_is_overwritten(path, capsys):
    path.write_text("precious")
    code, errors = run(capsys, "localhost:1", path)
    assert (code, errors) == (2, f"katcp: {path} exists: record to a new file\n")
    assert path.read_text() == "precious"


def test_a_file_that_cannot_be_made(tmp_path, capsys):
    code, errors = run(capsys, "localhost:1", tmp_path / "missing" / "file")
    assert code == 2
    assert errors.endswith("file: No such file or directory\n")


def test_a_port_that_is_taken(path, device, capsys):
    code, errors = run(capsys, "localhost:1", path, "--listen", device.address[1])
    assert code == 1
    assert errors.startswith("katcp: cannot listen on 127.0.0.1:")
    assert errors.count("\n") == 1
    assert not path.exists(), "nothing was recorded"


def test_a_full_disk_ends_it(path, device, capsys, monkeypatch):
    def write(self, entry):
        raise OSError(28, "No space left on device")

    def begin_and_connect(recorder, address):
        begin(recorder, address)
        sockets.append(socket.create_connection(address, PATIENCE))

    sockets, begin = [], cli_record._Recorder._begin
    monkeypatch.setattr(cli_record.TranscriptWriter, "write", write)
    monkeypatch.setattr(cli_record._Recorder, "_begin", begin_and_connect)
    code, errors = run(capsys, "{}:{}".format(*device.address), path)
    assert (code, errors) == (1, f"katcp: cannot write {path}: No space left on device\n")
    sockets[0].close()


def test_entries_hold_what_belongs_together(ioloop, monkeypatch):
    """What comes within `BURST` is one entry; an answer after it begins none."""
    monkeypatch.setattr(cli_record.time, "time", lambda: now)
    recorded = []
    now = 100.0

    async def play():
        nonlocal now
        session = _Session(1, recorded.append)
        session._on_received(b"#version 1\n")
        now = 101.0
        session._on_sent(b"?a")
        session._on_sent(b" x\n")
        now = 102.5
        session._on_sent(b"?b\n")
        now = 103.0
        session._on_received(b"!a ok\n")
        session._on_received(b"!b ok\n")
        session._finish()
        now = 104.0
        session._on_received(b"#log\n")
        session._finish()
        session._finish()

    ioloop.run_sync(play)
    assert recorded == [
        Entry(1, b"", b"#version 1\n", "on connect", 100.0),
        Entry(1, b"?a x\n", time=101.0),
        Entry(1, b"?b\n", b"!a ok\n!b ok\n", time=102.5, delay=0.5),
        Entry(1, b"", b"#log\n", time=104.0),
    ]
