r"""Transcripts: files that hold what a client and a device said to each other.

Strategy
--------
A transcript is a JSON list of entries; docs/reference/transcripts.rst tells what
is in them. `TranscriptWriter` writes one: the file is a whole list after every
entry, so that what was recorded can be read whatever ends the recorder.
`read_transcript` reads those, and also older ones without times.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple, Optional, Union

# What begins each connection: its banner is received with it.
ON_CONNECT = "on connect"

_END = b"\n]\n"


class Entry(NamedTuple):
    """What a client sent, and what the device said to that.

    Attributes
    ----------
    connection : int
        The number of the connection; the first has number 1.
    sent, received : bytes
        What the client and what the device said; either may be empty.
    note : str
        ``"on connect"`` for the first entry of a connection, else any text.
    time : float
        When it began, in seconds since 1970; 0 if that is not known.
    delay : float
        Seconds from then until the device said something.
    closed : str
        How the device closed the connection after that: ``"eof"``, ``"reset"``
        with the reason, or nothing if it did not.
    """

    connection: int
    sent: bytes = b""
    received: bytes = b""
    note: str = ""
    time: float = 0.0
    delay: float = 0.0
    closed: str = ""


class TranscriptError(Exception):
    """A file is not a transcript; the text says why."""


class TranscriptWriter:
    """Write a transcript to a new file.

    Parameters
    ----------
    path : str
        The file; it must not exist.

    Raises
    ------
    OSError
        If it exists, or cannot be made.
    """

    def __init__(self, path: Union[str, os.PathLike[str]]) -> None:
        self._file = open(path, "xb")  # noqa: SIM115  (closed by `close`)
        self._separator = b"\n"
        self._write(b"[" + _END)

    def write(self, entry: Entry) -> None:
        """Add an entry; it is in the file on return."""
        fields: dict[str, Any] = {
            "send_hex": entry.sent.hex(),
            "recv_hex": entry.received.hex(),
            "note": entry.note,
            "conn": entry.connection,
            "time": round(entry.time, 6),
        }
        if entry.received:
            fields["delay"] = round(entry.delay, 6)
        if entry.closed:
            fields["closed"] = entry.closed
        self._add(fields)

    def write_remark(self, connection: int, note: str, time: float) -> None:
        """Add a remark: an entry without bytes, which readers pass over."""
        fields = {"send_hex": "", "recv_hex": "", "note": note, "conn": connection}
        self._add({**fields, "time": round(time, 6), "meta": True})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, fields: dict[str, Any]) -> None:
        # The end of the list is written over, and written again.
        self._file.seek(-len(_END), os.SEEK_END)
        self._write(self._separator + json.dumps(fields).encode() + _END)
        self._separator = b",\n"

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()


def read_transcript(path: Union[str, os.PathLike[str]]) -> list[list[Entry]]:
    """Return the connections of a transcript, each a list of its entries.

    Parameters
    ----------
    path : str
        The file.

    Returns
    -------
    list of list of Entry
        Without remarks; what the recorder left out of long lines is put back.

    Raises
    ------
    OSError
        If the file cannot be read.
    TranscriptError
        If it is not a transcript.
    """
    with open(path, "rb") as file:
        text = file.read()
    connections: dict[int, list[Entry]] = {}
    try:
        for fields in json.loads(text):
            if not fields.get("meta"):
                connections.setdefault(fields["conn"], []).append(_make_entry(fields))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TranscriptError(f"it is not a transcript: {error!r}") from error
    if not connections:
        raise TranscriptError("it holds no connection")
    return list(connections.values())


def _make_entry(fields: dict[str, Any]) -> Entry:
    sent, received = bytes.fromhex(fields["send_hex"]), bytes.fromhex(fields["recv_hex"])
    if fields.get("truncated") and "recv_hex cut" in fields["note"]:
        # Of a flood the beginning was kept; it ends in the middle of a line.
        received = received[: received.rfind(b"\n") + 1]
    return Entry(
        fields["conn"],
        _complete(sent, fields.get("send_len")),
        _complete(received, fields.get("recv_len")),
        fields.get("note", ""),
        float(fields.get("time", 0.0)),
        float(fields.get("delay", 0.0)),
        fields.get("closed", ""),
    )


def _complete(data: bytes, length: Optional[int]) -> bytes:
    """Return the whole of a long line, of which the beginning was kept."""
    if length is None or length <= len(data):
        return data
    return data + data[-1:] * (length - len(data) - 1) + b"\n"
