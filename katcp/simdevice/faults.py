"""Faults that a simulated device can have on purpose.

The output of a device is a list of steps: messages, raw bytes, pauses, and the end of the
connection. A fault is a function that takes such a step and returns the steps to take instead;
`_Kind` has the six points at which it is called. To add a fault, add an entry to `_KINDS`, the
table at the end. A `Fault` is the public object: a kind, its parameter, and the name of the request
to which it is limited.

Faults are applied in the device's order, each to the steps of the previous one. They know requests
and connections only as `FaultyRequest` and `FaultyConnection`, and have no state: output that has
to wait is in *held* there.
"""

from __future__ import annotations

import enum
import functools
import re
from typing import (
    Any,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
    Union,
)

from .._wire.flags import VERSION_CONNECT_KATCP_MAJOR, ProtocolFlags
from .._wire.message import MAX_MID, Message


class Pause(NamedTuple):
    """A step: wait this many seconds before the next one."""

    seconds: float


class End(enum.Enum):
    """A step: the connection ends."""

    CLOSE = "close"
    RESET = "reset"


Step = Union[Message, bytes, Pause, End]
Value = Union[float, int, str, None]


class FaultyConnection(Protocol):
    """A connection, as used by faults."""

    number: int
    protocol: ProtocolFlags
    held: list[Message]

    def hold(self, data: bytes, seconds: float) -> list[bytes]: ...
    def mute(self) -> list[Step]: ...
    def other_greeting(self) -> list[Message]: ...


class FaultyRequest(Protocol):
    """A request, as used by faults."""

    message: Message
    held: list[Message]

    @property
    def connection(self) -> FaultyConnection: ...
    @property
    def sensors(self) -> Mapping[str, object]: ...


class _Kind(NamedTuple):
    """A kind of fault, and its actions; each function takes the parameter first."""

    description: str
    # The default of the parameter, and its type. None: no parameter.
    default: Value = None
    # A client has connected; nothing was sent yet.
    connect: Optional[Callable[[Any, FaultyConnection], object]] = None
    greeting: Optional[Callable[[Any, list[Step], FaultyConnection], list[Step]]] = None
    # A request has come; None: answer it, else take these steps instead.
    request: Optional[Callable[[Any, FaultyRequest], Optional[list[Step]]]] = None
    # A reply; an inform of a request, or ``#sensor-status``, which has no request; or both.
    reply: Optional[Callable[[Any, Message, FaultyRequest], list[Step]]] = None
    inform: Optional[Callable[[Any, Message, Optional[FaultyRequest]], list[Step]]] = None
    message: Optional[Callable[[Any, Message, object], list[Step]]] = None
    # Bytes for the socket; the pieces are written one by one.
    output: Optional[Callable[[Any, bytes, FaultyConnection], list[bytes]]] = None


class Fault:
    """One fault of a simulated device.

    Parameters
    ----------
    name : str
        The name; see `list_faults`.
    value : float, int or str, optional
        The parameter, if the fault has one.
    request : str, optional
        The only request that has the fault. Default: all.

    Raises
    ------
    ValueError
        If there is no such fault, or it cannot have this parameter.

    Examples
    --------
    >>> Fault("late-reply", 0.5, request="read")
    <Fault late-reply:read=0.5>
    >>> Fault.parse("no-reply:read")
    <Fault no-reply:read>
    """

    def __init__(
        self,
        name: str,
        value: Value = None,
        *,
        request: Optional[str] = None,
    ) -> None:
        if name not in _KINDS:
            raise ValueError(f"There is no fault {name!r}: use one of {', '.join(sorted(_KINDS))}.")
        self.name = name
        self.request = request
        self._kind = kind = _KINDS[name]
        self.value: Any = self._parse_value(value)
        if request and not (kind.request or kind.reply or kind.inform or kind.message):
            raise ValueError(f"The fault {name!r} cannot be limited to a request.")

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Parse ``NAME[:REQUEST][=VALUE]``.

        Parameters
        ----------
        text : str
            The text.

        Returns
        -------
        Fault
        """
        head, has_value, value = text.partition("=")
        name, _, request = head.partition(":")
        return cls(name, value if has_value else None, request=request or None)

    def hook(self, point: str, name: Optional[str] = None) -> Optional[Callable[..., Any]]:
        """Return the action at a point, for a message with this name; None: none."""
        if self.request is not None and name != self.request:
            return None
        function = getattr(self._kind, point)
        return function and functools.partial(function, self.value)

    def replace(self, step: Step, name: str, request: Optional[FaultyRequest]) -> list[Step]:
        """Return the steps that replace one of a request with this name."""
        if not isinstance(step, Message) or self.request not in (None, name):
            return [step]
        function: Any = None
        if step.mtype == Message.REPLY:
            function = self._kind.reply or self._kind.message
        elif step.mtype == Message.INFORM:
            function = self._kind.inform or self._kind.message
        return function(self.value, step, request) if function else [step]

    def _parse_value(self, value: Value) -> Value:
        """Parse the parameter, which has the type of the fault's default."""
        default = self._kind.default
        if value is None:
            return default
        if default is None:
            raise ValueError(f"The fault {self.name!r} has no parameter.")
        return type(default)(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fault) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __str__(self) -> str:
        request = "" if self.request is None else f":{self.request}"
        value = "" if self.value is None else f"={self.value}"
        return self.name + request + value

    def __repr__(self) -> str:
        return f"<Fault {self}>"


def list_faults() -> dict[str, str]:
    """Return the names of all faults, each with its description.

    Returns
    -------
    dict
    """
    return {
        name if kind.default is None else f"{name}={kind.default}": kind.description
        for name, kind in sorted(_KINDS.items())
    }


def find_hooks(
    faults: Iterable[Fault], point: str, name: Optional[str] = None
) -> Iterator[Callable[..., Any]]:
    """Return the actions of faults at a point, for a message with this name, in order."""
    return filter(None, (fault.hook(point, name) for fault in faults))


def distort(
    faults: Sequence[Fault], message: Message, request: Optional[FaultyRequest] = None
) -> list[Step]:
    """Return the steps that replace the sending of an inform or a reply."""
    name = message.name if request is None else request.message.name
    steps: list[Step] = [message]
    for fault in faults:
        steps = [taken for step in steps for taken in fault.replace(step, name, request)]
    return steps


# ---- longer actions ----


def _other_version(value: Value, connection: FaultyConnection) -> None:
    if connection.number % 2 == 0:
        is_v5 = connection.protocol.major >= VERSION_CONNECT_KATCP_MAJOR
        connection.protocol = ProtocolFlags(4, 0) if is_v5 else ProtocolFlags(5, 0, "IM")


def _is_protocol(step: Step) -> bool:
    return isinstance(step, Message) and step.arguments[:1] == [b"katcp-protocol"]


def _hold_every_other(value: Value, reply: Message, request: FaultyRequest) -> list[Step]:
    held = request.connection.held
    if held:
        return [reply, held.pop()]
    held.append(reply)
    return []


def _hold_inform(value: Value, inform: Message, request: Optional[FaultyRequest]) -> list[Step]:
    if request is None:
        return [inform]
    request.held.append(inform)
    return []


def _add_to_count(value: int, reply: Message, request: FaultyRequest) -> list[Step]:
    if len(reply.arguments) != 2 or not reply.arguments[1].isdigit():
        return [reply]
    return [_changed(reply, arguments=[reply.arguments[0], int(reply.arguments[1]) + value])]


def _match_prefix(value: Value, request: FaultyRequest) -> None:
    message = request.message
    if message.name not in ("sensor-list", "sensor-value") or not message.arguments:
        return
    prefix, *others = message.arguments
    # A name that is no unique prefix is left unchanged, and then refused as unknown.
    if any(name.encode().startswith(prefix) for name in request.sensors):
        pattern = b"/^%s/" % re.escape(prefix)
        request.message = _changed(message, arguments=[pattern, *others])


def _with_decimals(value: Value, reply: Message, request: FaultyRequest) -> list[Step]:
    if reply.name != "sensor-sampling":
        return [reply]
    arguments = reply.arguments[:3] + [b"%.6f" % float(text) for text in reply.arguments[3:]]
    return [_changed(reply, arguments=arguments)]


_READINGS = ("sensor-value", "sensor-status")


def _with_argument(message: Message, names: Sequence[str], position: int, value: Any) -> list[Step]:
    """Return a message with another argument at a position, if it has one of the names."""
    if message.name not in names:
        return [message]
    before, after = message.arguments[:position], message.arguments[position + 1 :]
    return [_changed(message, arguments=[*before, value, *after])]


def _changed(message: Message, **changes: Any) -> Message:
    """Return a copy of the message with another name, other arguments or another id."""
    parts = {"name": message.name, "arguments": message.arguments, "mid": message.mid, **changes}
    return Message(message.mtype, **parts)


_KINDS: dict[str, _Kind] = {
    # The connection.
    "stall": _Kind(
        "Accept and say nothing; limited to a request: nothing from that request on.",
        connect=lambda value, connection: connection.mute(),
        request=lambda value, request: request.connection.mute(),
    ),
    "other-version": _Kind(
        "Speak version 4 instead of 5, or 5 instead of 4, in every second connection.",
        connect=_other_version,
    ),
    "close-on-request": _Kind(
        "Close the connection instead of answering, without #disconnect.",
        request=lambda *_: [End.CLOSE],
    ),
    "disconnect-on-request": _Kind(
        "Send #disconnect instead of answering, and close the connection.",
        request=lambda value, request: [
            Message.inform("disconnect", f"No more of ?{request.message.name}."),
            End.CLOSE,
        ],
    ),
    "reset-on-request": _Kind(
        "Reset the connection (RST) instead of answering.", request=lambda *_: [End.RESET]
    ),
    # The greeting.
    "no-greeting": _Kind("Send no greeting.", greeting=lambda *_: []),
    "late-greeting": _Kind(
        "Send the greeting this many seconds late; requests are answered before.",
        0.5,
        greeting=lambda value, steps, _: [Pause(value), *steps],
    ),
    "protocol-last": _Kind(
        "Send katcp-protocol as the last line of the greeting.",
        greeting=lambda value, steps, _: sorted(steps, key=_is_protocol),
    ),
    "both-greetings": _Kind(
        "Send the greetings of version 4 and of version 5.",
        greeting=lambda value, steps, connection: [*connection.other_greeting(), *steps],
    ),
    "bad-version": _Kind(
        "Announce this text as the version of the protocol.",
        "five",
        greeting=lambda value, steps, _: [
            Message.inform("version-connect", "katcp-protocol", value)
            if _is_protocol(step)
            else step
            for step in steps
        ],
    ),
    # Ids.
    "no-ids": _Kind(
        "Answer without ids, whatever the greeting says.",
        message=lambda value, message, _: [_changed(message, mid=None)],
    ),
    "wrong-id": _Kind(
        "Answer with the id that follows the request's own.",
        message=lambda value, message, _: [
            _changed(message, mid=int(message.mid or 0) % MAX_MID + 1)
        ],
    ),
    "unknown-id": _Kind(
        "Answer with this id, always.",
        MAX_MID,
        message=lambda value, message, _: [_changed(message, mid=value)],
    ),
    "duplicate-id": _Kind(
        "Answer requests of an even id with the id before it: 1, 1, 3, 3, and so on.",
        message=lambda value, message, _: [
            _changed(message, mid=message.mid and (int(message.mid) - 1 | 1))
        ],
    ),
    # Replies.
    "no-reply": _Kind("Never send the reply.", reply=lambda *_: []),
    "late-reply": _Kind(
        "Send the reply this many seconds late.",
        0.5,
        reply=lambda value, reply, _: [Pause(value), reply],
    ),
    "duplicate-reply": _Kind(
        "Send every reply twice.", reply=lambda value, reply, _: [reply, reply]
    ),
    "reordered-replies": _Kind(
        "Hold every other reply back and send it after the next one.", reply=_hold_every_other
    ),
    "wrong-name": _Kind(
        "Reply with this name instead of the request's.",
        "wrong-name",
        reply=lambda value, reply, _: [_changed(reply, name=value)],
    ),
    "reply-before-informs": _Kind(
        "Send the reply before the informs that belong to it.",
        inform=_hold_inform,
        reply=lambda value, reply, request: [reply, *request.held],
    ),
    "no-code": _Kind(
        "Reply without return code and arguments.",
        reply=lambda value, reply, _: [_changed(reply, arguments=[])],
    ),
    "unknown-code": _Kind(
        "Reply with this return code.",
        "partial",
        reply=lambda value, reply, _: [_changed(reply, arguments=[value, *reply.arguments[1:]])],
    ),
    "wrong-count": _Kind(
        "Add this to the number of informs that the reply states.", 1, reply=_add_to_count
    ),
    # Unexpected messages and odd sensors.
    "request-to-client": _Kind(
        "Send a request to the client before each reply.",
        reply=lambda value, reply, _: [Message.request("surprise", "are you there?"), reply],
    ),
    "unknown-inform": _Kind(
        "Send an inform that nobody knows before each reply.",
        reply=lambda value, reply, _: [Message.inform("surprise", "out of the blue"), reply],
    ),
    "prefix-matching": _Kind(
        "Answer ?sensor-list and ?sensor-value for all names that begin so, like C servers.",
        request=_match_prefix,
    ),
    "unknown-status": _Kind(
        "Give all sensors this status.",
        "odd",
        inform=lambda value, inform, _: _with_argument(inform, _READINGS, 3, value),
    ),
    "wrong-triples": _Kind(
        "Say that each reading of one sensor holds so many.",
        2,
        inform=lambda value, inform, _: _with_argument(inform, _READINGS, 1, value),
    ),
    "unknown-type": _Kind(
        "Give all sensors this type.",
        "odd",
        inform=lambda value, inform, _: _with_argument(inform, ["sensor-list"], 3, value),
    ),
    "normalised-parameters": _Kind(
        "Reply to ?sensor-sampling with six decimals in all parameters.", reply=_with_decimals
    ),
    # Lines.
    "bad-escape": _Kind(
        "Send replies with an unknown escape, so that they are no messages.",
        reply=lambda value, reply, _: [bytes(reply) + b" \\q\n"],
    ),
    "not-utf8": _Kind(
        "Add an argument that is not UTF-8 to informs and replies.",
        message=lambda value, message, _: [
            _changed(message, arguments=[*message.arguments, b"\xff\xfe\x80"])
        ],
    ),
    "over-long-line": _Kind(
        "Make the line of the reply this many bytes long.",
        3 * 1024 * 1024,
        reply=lambda value, reply, _: [(bytes(reply) + b" ").ljust(value - 1, b"x") + b"\n"],
    ),
    "half-line-then-close": _Kind(
        "Send half of the reply, then close the connection.",
        reply=lambda value, reply, _: [bytes(reply)[: len(bytes(reply)) // 2], End.CLOSE],
    ),
    # Bytes.
    "cr": _Kind("End lines with CR.", output=lambda value, data, _: [data.replace(b"\n", b"\r")]),
    "crlf": _Kind(
        "End lines with CR LF.", output=lambda value, data, _: [data.replace(b"\n", b"\r\n")]
    ),
    "blank-lines": _Kind(
        "Send an empty and a blank line after each line.",
        output=lambda value, data, _: [data.replace(b"\n", b"\n\n \t \n")],
    ),
    "byte-by-byte": _Kind(
        "Send single bytes, one in each iteration of the loop.",
        output=lambda value, data, _: [data[at : at + 1] for at in range(len(data))],
    ),
    "coalesce": _Kind(
        "Collect what is to be sent for this many seconds and send it in one piece.",
        0.05,
        output=lambda value, data, connection: connection.hold(data, value),
    ),
}
