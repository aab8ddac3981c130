"""What a simulated device can do wrong on purpose.

Strategy
--------
What a device says is a list of steps: messages, raw bytes, pauses, and the end
of the connection. A fault is a function that gets such a step and returns the
steps to take instead. There are six points at which one can hook in:

=============  ============================================================
``connect``    a client has connected; nothing was said yet
``greeting``   the steps of the greeting -> other steps
``request``    a request came -> None (handle it), or steps to take instead
``inform``     an inform of a request, or ``#sensor-status`` -> steps
``reply``      a reply -> steps
``output``     bytes on their way to the socket -> pieces, written one by one
=============  ============================================================

To add a fault, write one function below and decorate it with its name, its
point and its default parameter; its docstring is what users read.

A `Fault` is the value that users handle: which fault, its parameter, and the
name of the request to which it is limited.

Rules
-----
- Faults are asked in the order in which the device has them: each gets what the
  one before it has left.
- A fault knows requests and connections only as `FaultyRequest` and
  `FaultyConnection`, and keeps no state of its own: what has to wait is kept in
  their *held*, and goes with them.
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
    """A step: what follows comes this many seconds later."""

    seconds: float


class End(enum.Enum):
    """A step: the connection ends."""

    CLOSE = "close"
    RESET = "reset"


Step = Union[Message, bytes, Pause, End]


class FaultyConnection(Protocol):
    """What a fault sees of a connection: *held* is a place to keep messages."""

    number: int
    protocol: ProtocolFlags
    held: list[Message]

    def hold(self, data: bytes, seconds: float) -> None:
        """Keep *data* back and write it in one piece with what follows."""

    def mute(self) -> None:
        """Say nothing from now on."""

    def other_greeting(self) -> list[Message]:
        """Return the greeting of the other protocol version."""


class FaultyDevice(Protocol):
    """What a fault sees of the device."""

    @property
    def sensors(self) -> Mapping[str, object]:
        """The sensors by name."""


class FaultyRequest(Protocol):
    """What a fault sees of a request: *held* is a place to keep messages."""

    message: Message
    held: list[Message]

    @property
    def connection(self) -> FaultyConnection:
        """The connection it came by."""

    @property
    def device(self) -> FaultyDevice:
        """The device that got it."""


class _Kind(NamedTuple):
    """A fault as it stands in the registry."""

    description: str
    default: Union[float, int, str, None]
    hooks: dict[str, Callable[..., Any]]


_KINDS: dict[str, _Kind] = {}
_POINTS_OF_REQUESTS = frozenset(["request", "inform", "reply"])


class Fault:
    """One thing that a simulated device does wrong.

    Parameters
    ----------
    name : str
        The name; `list_faults` tells them all.
    value : float, int or str, optional
        The parameter of those faults that have one.
    request : str, optional
        The name of the request that the fault is limited to. Default: all.

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
        value: Union[float, int, str, None] = None,
        *,
        request: Optional[str] = None,
    ) -> None:
        if name not in _KINDS:
            raise ValueError(f"There is no fault {name!r}: use one of {', '.join(sorted(_KINDS))}.")
        self.name = name
        self.request = request
        self._kind = _KINDS[name]
        self.value: Any = self._parse_value(value)
        if request is not None and not _POINTS_OF_REQUESTS & self._kind.hooks.keys():
            raise ValueError(f"The fault {name!r} cannot be limited to a request.")

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Return the fault that ``NAME[:REQUEST][=VALUE]`` stands for.

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
        """Return what the fault does at a point, or None if it does nothing.

        Parameters
        ----------
        point : str
            The point; see the head of this module.
        name : str, optional
            The name of the message, at points that have one.

        Returns
        -------
        callable or None
        """
        if self.request is not None and name != self.request:
            return None
        return self._kind.hooks.get(point)

    def _parse_value(self, value: Union[float, int, str, None]) -> Union[float, int, str, None]:
        """Return the parameter, which has the type of the fault's default."""
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
    """Return what some faults do at a point, in their order.

    Parameters
    ----------
    faults : iterable of Fault
        The faults.
    point : str
        The point; see the head of this module.
    name : str, optional
        The name of the message, at points that have one.

    Returns
    -------
    iterator of callable
    """
    for fault in faults:
        hook = fault.hook(point, name)
        if hook is not None:
            yield functools.partial(hook, fault)


def distort(
    faults: Iterable[Fault], message: Message, request: Optional[FaultyRequest] = None
) -> list[Step]:
    """Return the steps to take instead of saying an inform or a reply.

    Parameters
    ----------
    faults : iterable of Fault
        The faults.
    message : Message
        What a healthy device would say.
    request : FaultyRequest, optional
        The request that it belongs to, if it belongs to one.

    Returns
    -------
    list of Step
    """
    name = message.name if request is None else request.message.name
    steps: list[Step] = [message]
    # Informs first: a reply may bring held ones along, which are as they shall be.
    for point, mtype in (("inform", Message.INFORM), ("reply", Message.REPLY)):
        for hook in find_hooks(faults, point, name):
            steps = _replace_messages(steps, mtype, functools.partial(hook, request))
    return steps


def _replace_messages(
    steps: Sequence[Step], mtype: int, hook: Callable[[Message], list[Step]]
) -> list[Step]:
    """Return the steps, each message of a type replaced by what *hook* makes of it."""
    replaced: list[Step] = []
    for step in steps:
        if isinstance(step, Message) and step.mtype == mtype:
            replaced += hook(step)
        else:
            replaced.append(step)
    return replaced


_Function = Callable[..., Any]


def _fault(
    name: str, *points: str, default: Union[float, int, str, None] = None
) -> Callable[[_Function], _Function]:
    """Enter the decorated function in the registry; several make one fault."""

    def register(function: _Function) -> _Function:
        description = (function.__doc__ or "").partition("\n")[0]
        kind = _KINDS.setdefault(name, _Kind(description, default, {}))
        kind.hooks.update(dict.fromkeys(points, function))
        return function

    return register


# ---- the connection ----


@_fault("stall", "connect")
def _stall(fault: Fault, connection: FaultyConnection) -> None:
    """Accept and say nothing; limited to a request: nothing from that request on."""
    connection.mute()


@_fault("stall", "request")
def _stall_on_request(fault: Fault, request: FaultyRequest) -> list[Step]:
    request.connection.mute()
    return []


@_fault("other-version", "connect")
def _other_version(fault: Fault, connection: FaultyConnection) -> None:
    """Speak version 4 instead of 5, or 5 instead of 4, in every second connection."""
    if connection.number % 2 == 0:
        is_v5 = connection.protocol.major >= VERSION_CONNECT_KATCP_MAJOR
        connection.protocol = ProtocolFlags(4, 0) if is_v5 else ProtocolFlags(5, 0, "IM")


@_fault("close-on-request", "request")
def _close_on_request(fault: Fault, request: FaultyRequest) -> list[Step]:
    """Close the connection instead of answering, without #disconnect."""
    return [End.CLOSE]


@_fault("disconnect-on-request", "request")
def _disconnect_on_request(fault: Fault, request: FaultyRequest) -> list[Step]:
    """Send #disconnect instead of answering, and close the connection."""
    return [Message.inform("disconnect", f"No more of ?{request.message.name}."), End.CLOSE]


@_fault("reset-on-request", "request")
def _reset_on_request(fault: Fault, request: FaultyRequest) -> list[Step]:
    """Reset the connection (RST) instead of answering."""
    return [End.RESET]


# ---- the greeting ----


@_fault("no-greeting", "greeting")
def _no_greeting(fault: Fault, connection: FaultyConnection, steps: list[Step]) -> list[Step]:
    """Send no greeting."""
    return []


@_fault("late-greeting", "greeting", default=0.5)
def _late_greeting(fault: Fault, connection: FaultyConnection, steps: list[Step]) -> list[Step]:
    """Send the greeting this many seconds late; requests are answered before."""
    return [Pause(fault.value), *steps]


@_fault("protocol-last", "greeting")
def _protocol_last(fault: Fault, connection: FaultyConnection, steps: list[Step]) -> list[Step]:
    """Send katcp-protocol as the last line of the greeting."""
    return sorted(steps, key=_is_protocol)


@_fault("both-greetings", "greeting")
def _both_greetings(fault: Fault, connection: FaultyConnection, steps: list[Step]) -> list[Step]:
    """Send the greetings of version 4 and of version 5."""
    return [*connection.other_greeting(), *steps]


@_fault("bad-version", "greeting", default="five")
def _bad_version(fault: Fault, connection: FaultyConnection, steps: list[Step]) -> list[Step]:
    """Announce this text as the version of the protocol."""
    return [
        Message.inform("version-connect", "katcp-protocol", fault.value)
        if _is_protocol(step)
        else step
        for step in steps
    ]


def _is_protocol(step: Step) -> bool:
    return isinstance(step, Message) and step.arguments[:1] == [b"katcp-protocol"]


# ---- ids ----


@_fault("no-ids", "inform", "reply")
def _no_ids(fault: Fault, request: FaultyRequest, message: Message) -> list[Step]:
    """Answer without ids, whatever the greeting says."""
    return [_changed(message, mid=None)]


@_fault("wrong-id", "inform", "reply")
def _wrong_id(fault: Fault, request: FaultyRequest, message: Message) -> list[Step]:
    """Answer with the id that follows the request's own."""
    return [_changed(message, mid=int(message.mid or 0) % MAX_MID + 1)]


@_fault("unknown-id", "inform", "reply", default=MAX_MID)
def _unknown_id(fault: Fault, request: FaultyRequest, message: Message) -> list[Step]:
    """Answer with this id, always."""
    return [_changed(message, mid=fault.value)]


@_fault("duplicate-id", "inform", "reply")
def _duplicate_id(fault: Fault, request: FaultyRequest, message: Message) -> list[Step]:
    """Answer requests of an even id with the id before it: 1, 1, 3, 3, and so on."""
    return [message if message.mid is None else _changed(message, mid=(int(message.mid) - 1) | 1)]


# ---- replies ----


@_fault("no-reply", "reply")
def _no_reply(fault: Fault, request: FaultyRequest, reply: Message) -> list[Step]:
    """Never send the reply."""
    return []


@_fault("late-reply", "reply", default=0.5)
def _late_reply(fault: Fault, request: FaultyRequest, reply: Message) -> list[Step]:
    """Send the reply this many seconds late."""
    return [Pause(fault.value), reply]


@_fault("duplicate-reply", "reply")
def _duplicate_reply(fault: Fault, request: FaultyRequest, reply: Message) -> list[Step]:
    """Send every reply twice."""
    return [reply, reply]


@_fault("reordered-replies", "reply")
def _reordered_replies(fault: Fault, request: FaultyRequest, reply: Message) -> list[Step]:
    """Hold every other reply back and send it after the next one."""
    held = request.connection.held
    if held:
        return [reply, held.pop()]
    held.append(reply)
    return []


@_fault("wrong-name", "reply", default="wrong-name")
def _wrong_name(fault: Fault, request: FaultyRequest, reply: Message) -> list[Step]:
    """Reply with this name instead of the request's."""
    return [_changed(reply, name=fault.value)]


@_fault("reply-before-informs", "reply")
def _reply_before_informs(fault: Fault, request: FaultyRequest, reply: Message) -> list[Step]:
    """Send the reply before the informs that belong to it."""
    return [reply, *request.held]


@_fault("reply-before-informs", "inform")
def _hold_inform(fault: Fault, request: Optional[FaultyRequest], inform: Message) -> list[Step]:
    if request is None:
        return [inform]
    request.held.append(inform)
    return []


@_fault("no-code", "reply")
def _no_code(fault: Fault, request: FaultyRequest, reply: Message) -> list[Step]:
    """Reply without return code and arguments."""
    return [_changed(reply, arguments=[])]


@_fault("unknown-code", "reply", default="partial")
def _unknown_code(fault: Fault, request: FaultyRequest, reply: Message) -> list[Step]:
    """Reply with this return code."""
    return [_changed(reply, arguments=[fault.value, *reply.arguments[1:]])]


@_fault("wrong-count", "reply", default=1)
def _wrong_count(fault: Fault, request: FaultyRequest, reply: Message) -> list[Step]:
    """Add this to the number of informs that the reply states."""
    if len(reply.arguments) != 2 or not reply.arguments[1].isdigit():
        return [reply]
    return [_changed(reply, arguments=[reply.arguments[0], int(reply.arguments[1]) + fault.value])]


# ---- unexpected messages and odd sensors ----


@_fault("request-to-client", "reply")
def _request_to_client(fault: Fault, request: FaultyRequest, reply: Message) -> list[Step]:
    """Send a request to the client before each reply."""
    return [Message.request("surprise", "are you there?"), reply]


@_fault("unknown-inform", "reply")
def _unknown_inform(fault: Fault, request: FaultyRequest, reply: Message) -> list[Step]:
    """Send an inform that nobody knows before each reply."""
    return [Message.inform("surprise", "out of the blue"), reply]


@_fault("prefix-matching", "request")
def _prefix_matching(fault: Fault, request: FaultyRequest) -> None:
    """Answer ?sensor-list and ?sensor-value for all names that begin so, like C servers."""
    message = request.message
    if message.name not in ("sensor-list", "sensor-value") or not message.arguments:
        return
    prefix, *others = message.arguments
    # A name that begins no other is left as it is, to be refused as unknown.
    if any(name.encode().startswith(prefix) for name in request.device.sensors):
        pattern = b"/^%s/" % re.escape(prefix)
        request.message = _changed(message, arguments=[pattern, *others])


@_fault("unknown-status", "inform", default="odd")
def _unknown_status(fault: Fault, request: object, inform: Message) -> list[Step]:
    """Give all sensors this status."""
    return [_with_argument(inform, _READINGS, 3, fault.value)]


@_fault("wrong-triples", "inform", default=2)
def _wrong_triples(fault: Fault, request: object, inform: Message) -> list[Step]:
    """Say that each reading of one sensor holds so many."""
    return [_with_argument(inform, _READINGS, 1, fault.value)]


@_fault("unknown-type", "inform", default="odd")
def _unknown_type(fault: Fault, request: object, inform: Message) -> list[Step]:
    """Give all sensors this type."""
    return [_with_argument(inform, ["sensor-list"], 3, fault.value)]


@_fault("normalised-parameters", "reply")
def _normalised_parameters(fault: Fault, request: FaultyRequest, reply: Message) -> list[Step]:
    """Reply to ?sensor-sampling with six decimals in all parameters."""
    if reply.name != "sensor-sampling":
        return [reply]
    arguments = reply.arguments[:3] + [b"%.6f" % float(text) for text in reply.arguments[3:]]
    return [_changed(reply, arguments=arguments)]


# ---- lines ----


@_fault("bad-escape", "reply")
def _bad_escape(fault: Fault, request: FaultyRequest, reply: Message) -> list[Step]:
    """Send replies with an unknown escape, so that they are no messages."""
    return [bytes(reply) + b" \\q\n"]


@_fault("not-utf8", "inform", "reply")
def _not_utf8(fault: Fault, request: FaultyRequest, message: Message) -> list[Step]:
    """Add an argument that is not UTF-8 to informs and replies."""
    return [_changed(message, arguments=[*message.arguments, b"\xff\xfe\x80"])]


@_fault("over-long-line", "reply", default=3 * 1024 * 1024)
def _over_long_line(fault: Fault, request: FaultyRequest, reply: Message) -> list[Step]:
    """Make the line of the reply this many bytes long."""
    line = bytes(reply) + b" "
    return [line + b"x" * (fault.value - len(line) - 1) + b"\n"]


@_fault("half-line-then-close", "reply")
def _half_line_then_close(fault: Fault, request: FaultyRequest, reply: Message) -> list[Step]:
    """Send half of the reply, then close the connection."""
    line = bytes(reply)
    return [line[: len(line) // 2], End.CLOSE]


# ---- bytes ----


@_fault("cr", "output")
def _cr(fault: Fault, connection: FaultyConnection, data: bytes) -> list[bytes]:
    """End lines with CR."""
    return [data.replace(b"\n", b"\r")]


@_fault("crlf", "output")
def _crlf(fault: Fault, connection: FaultyConnection, data: bytes) -> list[bytes]:
    """End lines with CR LF."""
    return [data.replace(b"\n", b"\r\n")]


@_fault("blank-lines", "output")
def _blank_lines(fault: Fault, connection: FaultyConnection, data: bytes) -> list[bytes]:
    """Send an empty and a blank line after each line."""
    return [data.replace(b"\n", b"\n\n \t \n")]


@_fault("byte-by-byte", "output")
def _byte_by_byte(fault: Fault, connection: FaultyConnection, data: bytes) -> list[bytes]:
    """Send single bytes, one in each turn of the loop."""
    return [data[position : position + 1] for position in range(len(data))]


@_fault("coalesce", "output", default=0.05)
def _coalesce(fault: Fault, connection: FaultyConnection, data: bytes) -> list[bytes]:
    """Collect what is to be sent for this many seconds and send it in one piece."""
    connection.hold(data, fault.value)
    return []


_READINGS = ("sensor-value", "sensor-status")


def _with_argument(message: Message, names: Sequence[str], position: int, value: Any) -> Message:
    """Return a message, if it has one of the names with another argument at a position."""
    if message.name not in names:
        return message
    before, after = message.arguments[:position], message.arguments[position + 1 :]
    return _changed(message, arguments=[*before, value, *after])


def _changed(message: Message, **changes: Any) -> Message:
    """Return a copy of the message with another name, other arguments or another id."""
    parts: dict[str, Any] = {
        "name": message.name,
        "arguments": message.arguments,
        "mid": message.mid,
    }
    return Message(message.mtype, **{**parts, **changes})
