"""``katcp record``: what is said is passed on unchanged, shown, and recorded."""

import re
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

import katcp
from katcp import BlockingClient, Message, cli
from katcp.cli.commands import record as cli_record
from katcp.cli.recording import ENDED, REMARK, SAID, SENT, read_recording
from tests.support.command import Listening, read_all, read_until, recording_of
from tests.support.helpers import PATIENCE, TestDevice, closed_port

# No text in any encoding, and all that KATCP must escape.
BINARY = bytes(range(256)) * 8


@pytest.fixture
def path(tmp_path):
    return tmp_path / "recording.txt"


def conversation(path, number=0):
    """Return all that client and device said on a recorded connection."""
    events = read_recording(path)[number]
    return tuple(b"".join(it.data for it in events if it.kind == kind) for kind in (SENT, SAID))


def recording(address, path):
    """Run ``katcp record``, as long as nobody reads its output."""
    return Listening("record", address, path, "--listen", "0", "--quiet")


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
            assert record.stop() == 0
        assert record.errors == ""
        assert record.output.endswith(f"Recorded 1 connection in {path}.\n")
    events = read_recording(path)[0]
    assert [event.kind for event in events[:2]] == ["connected", SAID]
    assert events[1].data.startswith(b"#version")
    sent, received = conversation(path)
    id_ = b"[1]" if "I" in protocol else b""
    echo = bytes(Message.request("echo", BINARY))[len("?echo") :]
    assert sent.startswith(b"?echo" + id_ + echo + b"\n")
    assert b"!echo" + id_ + b" ok" + echo + b"\n" in received
    times = [event.time for event in events]
    assert times == sorted(times)
    assert began <= times[0] + 1e-6
    assert times[-1] <= time.time()
    assert ENDED not in [event.kind for event in events], "the client closed it"


def test_bytes_are_passed_on_and_recorded_as_they_are(path):
    with (
        PlainServer() as server,
        recording(server.address, path) as record,
    ):
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
        assert record.stop(signal.SIGTERM) == 0
    assert conversation(path) == (BINARY + b"half a line", b"\r\n" + BINARY + b"\xfflast\n")


def test_much_is_passed_on_to_one_who_reads_slowly(path):
    """What the client does not read is not piled up, and nothing of it is lost."""
    data = (b"x" * 1000 + b"\n") * 25000 + b"end\n"
    with (
        PlainServer() as server,
        recording(server.address, path) as record,
    ):
        with record.connect() as client, server.accept() as device:
            sender = threading.Thread(target=device.sendall, args=(data,))
            sender.start()
            # More than all buffers hold: it waits for the reader.
            sender.join(1.5)
            assert sender.is_alive()
            assert read_until(client, b"end\n") == data
            sender.join(PATIENCE)
        assert record.stop() == 0
    assert conversation(path)[1] == data


@pytest.mark.parametrize("is_reset", [False, True], ids=["eof", "reset"])
def test_the_device_closes(is_reset, path):
    with (
        PlainServer() as server,
        recording(server.address, path) as record,
    ):
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
        assert record.stop() == 0
    ending = read_recording(path)[0][-1]
    expected = b"reset (ConnectionResetError)" if is_reset else b"eof"
    assert (ending.kind, ending.data) == (ENDED, expected)


def test_the_client_breaks_the_connection(path):
    with (
        PlainServer() as server,
        recording(server.address, path) as record,
    ):
        client = record.connect()
        with server.accept() as device:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            with pytest.raises(ConnectionResetError):
                device.recv(1)
        assert record.stop() == 0
    assert ENDED not in [event.kind for event in read_recording(path)[0]]
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
    assert read_recording(path)[0][-1][1:] == (1, SENT, b"?hold\n")


def test_killed(path):
    """What was answered is in the file, whatever ends the recorder."""
    with TestDevice() as device, recording_of(device, path) as record, record.connect() as client:
        for number in range(3):
            client.sendall(b"?echo %d\n" % number)
            read_until(client, b"!echo ok %d\n" % number)
        assert conversation(path)[1].endswith(b"!echo ok 2\n")
        record.stop(signal.SIGKILL)
    assert conversation(path)[0] == b"?echo 0\n?echo 1\n?echo 2\n"


@pytest.mark.parametrize("option", [[], ["--quiet"]], ids=str)
def test_what_is_said_is_shown(option, path):
    with TestDevice() as device, recording_of(device, path, *option) as record:
        with record.connect() as client:
            read_until(client, f"-{katcp.__version__}\n".encode())
            client.sendall(b"?echo[3] a\\_b \xff" + b"x" * 1000 + b"\n")
            read_until(client, b"x\n")
            if not option:
                record.wait_output("!echo[3]")
        assert record.stop() == 0
    shown = [line.split(" ", 1)[1] for line in record.output.splitlines() if line[2] == ":"]
    if option:
        assert shown == []
    else:
        echoed = r"a\_b \xffxxx"
        assert shown[0].startswith("1 connected 127.0.0.1:")
        assert shown[-2].startswith(f"1 > ?echo[3] {echoed}")
        assert shown[-1].startswith(f"1 < !echo[3] ok {echoed}")
        assert all(line.endswith("...") and len(line) <= 200 for line in shown[-2:])


def test_grep_reads_it(path):
    with TestDevice() as device, recording_of(device, path, "--quiet") as record:
        with record.connect() as client:
            client.sendall("?echo caf\u00e9\n".encode())
            read_until(client, b"!echo ok caf\xc3\xa9\n")
        assert record.stop() == 0
    done = subprocess.run(["grep", "caf\u00e9", path], capture_output=True, text=True, check=True)
    sent, said = done.stdout.splitlines()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[0-9:.]{15}Z 1 > \?echo caf\u00e9", sent)
    assert said.endswith("Z 1 < !echo ok caf\u00e9")


def test_a_device_that_is_away_and_comes(path):
    device = TestDevice(port=closed_port())
    with recording_of(device, path) as record:
        with record.connect() as client:
            assert read_all(client) == b""
        record.wait_output(" sent away, cannot connect: ")
        with device, record.connect() as client:
            read_until(client, b"\n")
        assert record.stop() == 0
    assert f" 1 {REMARK} 127.0.0.1:" in path.read_text()
    assert [events[0].connection for events in read_recording(path)] == [2]


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
    def write(self, events):
        raise OSError(28, "No space left on device")

    def begin_and_connect(recorder, address):
        begin(recorder, address)
        sockets.append(socket.create_connection(address[:2], PATIENCE))

    sockets, begin = [], cli_record._Recorder._begin
    monkeypatch.setattr(cli_record.RecordingWriter, "write", write)
    monkeypatch.setattr(cli_record._Recorder, "_begin", begin_and_connect)
    code, errors = run(capsys, "{}:{}".format(*device.address), path, "--listen", 0)
    assert (code, errors) == (1, f"katcp: cannot write {path}: No space left on device\n")
    sockets[0].close()


@pytest.mark.parametrize("words", [[], ["a:1", "b:2", "file"]])
def test_words_that_are_missing_or_too_many(words, capsys):
    assert run(capsys, *words) == (2, "katcp: which FILE? see katcp record --help\n")
