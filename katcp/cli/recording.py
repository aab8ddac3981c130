r"""Recordings: files with the traffic between clients and a device.

docs/reference/recordings.rst describes the format. A line is for people and ``grep``, and still
contains every byte: unprintable ones are written as ``\xff``, and so is a backslash before an
``x``.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
from typing import Iterable, Iterator, NamedTuple, Union

from .output import paint

# The kinds of lines in a recording.
SENT, SAID = ">", "<"
CONNECTED, ENDED, REMARK = "connected", "ended", "remark"

# Follows the sign of a piece that does not end with a line feed.
_UNFINISHED = "~"
_HEADING = "# Recorded by katcp record; times are UTC.\n"
_LINE_RE = re.compile(r"(\S+) ([0-9]{1,9}) ([<>]~?|connected|ended|remark)(?: (.*))?")
_ESCAPE_RE = re.compile(rb"\\x([0-9a-f]{2})")
_ESCAPED = [chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in range(256)]
_COLOURS = {SENT: "cyan", SAID: "green"}


class Event(NamedTuple):
    """An event on a connection.

    Attributes
    ----------
    time : float
        When it happened, in seconds since 1970.
    connection : int
        The number of the connection; the first has number 1.
    kind : str
        `SENT` by the client, `SAID` by the device; `CONNECTED`, with the address of the client as
        data; `ENDED` by the device, with ``eof``, or ``reset`` and the reason, as data; or a
        `REMARK`.
    data : bytes
        A line of the protocol with its end, or a part of one; or a text.
    """

    time: float
    connection: int
    kind: str
    data: bytes


class RecordingError(Exception):
    """A file is not a recording; the text says why."""


class RecordingWriter:
    """Write a recording to a file; `FileExistsError` if there is one."""

    def __init__(self, path: Union[str, os.PathLike[str]]) -> None:
        self._file = open(path, "x", encoding="utf-8", newline="\n")  # noqa: SIM115
        self._file.write(_HEADING)
        self._file.flush()

    def write(self, events: Iterable[Event]) -> None:
        """Add events; they are in the file on return."""
        self._file.writelines(
            f"{_moment(event).isoformat(timespec='microseconds')}Z {event.connection} "
            f"{_show(event)}\n"
            for event in events
        )
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def split_lines(data: bytes) -> list[bytes]:
    """Split data into lines with their ends; the last may have none."""
    return re.findall(rb"[^\n]*\n|[^\n]+", data)


def show_event(event: Event, width: int) -> str:
    """Format an event for people who watch it: as in the file, but without the date."""
    time = _moment(event).time().isoformat("milliseconds")
    text = _show(event)
    room = max(width - len(f"{time} {event.connection} "), 10)
    text = text if len(text) <= room else f"{text[: room - 3]}..."
    return f"{paint(time, 'dim')} {event.connection} {paint(text, _COLOURS.get(event.kind))}"


def read_recording(path: Union[str, os.PathLike[str]]) -> list[list[Event]]:
    """Return the connections of a recording, each a list of events.

    Raises `OSError` if the file cannot be read, `RecordingError` if it is not a recording.
    """
    connections: dict[int, list[Event]] = {}
    with open(path, encoding="utf-8", newline="\n") as file:
        try:
            for event in _read_events(file):
                connections.setdefault(event.connection, []).append(event)
        except UnicodeDecodeError:
            raise RecordingError("it is not a recording: it is not text") from None
    talked = [events for events in connections.values() if any(it.kind != REMARK for it in events)]
    if not talked:
        raise RecordingError("it holds no connection")
    return talked


def _read_events(lines: Iterator[str]) -> Iterator[Event]:
    for number, line in enumerate(lines, 1):
        if line.startswith("#") or not line.strip():
            continue
        match = _LINE_RE.fullmatch(line.removesuffix("\n"))
        try:
            if match is None:
                raise ValueError
            time = datetime.datetime.fromisoformat(match[1].removesuffix("Z") + "+00:00")
        except ValueError:
            raise RecordingError(f"it is not a recording: see its line {number}") from None
        data = _ESCAPE_RE.sub(
            lambda escape: bytes.fromhex(escape[1].decode()), (match[4] or "").encode()
        )
        kind = match[3].removesuffix(_UNFINISHED)
        if match[3] in (SENT, SAID):
            data += b"\n"
        yield Event(time.timestamp(), int(match[2]), kind, data)


def _moment(event: Event) -> datetime.datetime:
    utc = datetime.datetime.fromtimestamp(event.time, datetime.timezone.utc)
    return utc.replace(tzinfo=None)


def _show(event: Event) -> str:
    """Format kind and data of an event as one line."""
    sign, data = event.kind, event.data
    if sign in (SENT, SAID):
        sign += "" if data.endswith(b"\n") else _UNFINISHED
        data = data.removesuffix(b"\n")
    return f"{sign} {_escape(data)}"


def _escape(data: bytes) -> str:
    """Return data as printable text, with escapes for what is not printable UTF-8."""
    data = data.replace(b"\\x", b"\\x5cx")
    with contextlib.suppress(UnicodeDecodeError):
        text = data.decode()
        if text.isprintable():
            return text
    return "".join(map(_ESCAPED.__getitem__, data))
