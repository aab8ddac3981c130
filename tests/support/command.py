"""The command ``katcp`` as a process that listens, for its tests."""

from __future__ import annotations

import signal
import socket
from typing import Any

from tests.support.helpers import PATIENCE
from tests.support.process import KatcpProcess


class Listening(KatcpProcess):
    """A ``katcp record`` or ``katcp replay`` that listens when the block begins.

    Attributes
    ----------
    output, errors : str
        What it has written, as far as it was read; the errors at its end.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*map(str, arguments))
        self.output = self.errors = ""

    def __enter__(self) -> Listening:
        line = self.line()
        while " listens on " not in line:
            if not line:
                raise AssertionError(self.end())
            line = self.line()
        host, _, port = line.split(" listens on ")[1].strip().rpartition(":")
        self.address = (host, int(port))
        return self

    def line(self) -> str:
        """Wait for a line of output, and return it."""
        line = super().line()
        self.output += line
        return line

    def wait_output(self, text: str) -> None:
        """Read its output until *text* comes."""
        while text not in self.output:
            assert self.line(), self.output

    def stop(self, number: int = signal.SIGINT) -> int:
        """End it as Ctrl-C does, and return its exit code."""
        self.send_signal(number)
        code, output, self.errors = self.end()
        self.output += output
        return code

    def connect(self) -> socket.socket:
        """Return a socket that is connected to it."""
        return socket.create_connection(self.address, PATIENCE)


def recording_of(device: Any, path: Any, *options: str) -> Listening:
    """Run ``katcp record`` for a simulated device."""
    where = "{}:{}".format(*device.address)
    return Listening("record", where, path, "--listen", "0", *options)


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """Return what comes up to and with *end*."""
    data = b""
    while not data.endswith(end):
        piece = sock.recv(1 << 16)
        assert piece, data
        data += piece
    return data


def read_all(sock: socket.socket) -> bytes:
    """Return what comes until the end of the connection."""
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))
