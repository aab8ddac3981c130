"""What resources return: replies, readings, errors; and the names they use."""

from __future__ import annotations

from typing import Any, Iterable, NamedTuple, Sequence, Union

from .._sensor import Sensor
from .._wire.message import Message
from .._wire.text import as_text

NO_STRATEGY = ("none",)


class KATCPResourceError(Exception):
    """Something went wrong with a resource."""


class KATCPResourceInactive(KATCPResourceError):
    """A request was made of a resource that the program has set inactive."""


class KATCPSensorError(KATCPResourceError):
    """A sensor cannot be read, sampled or waited for."""


class _KATCPReplyTuple(NamedTuple):
    reply: Message
    informs: Sequence[Message]


class KATCPReply(_KATCPReplyTuple):
    """What a device answered: it is true if the device has done what was asked.

    Attributes
    ----------
    reply : Message
        The reply.
    informs : list of Message
        The informs before it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n".join(map(_readable, self.messages))

    def __str__(self) -> str:
        return "\n".join(map(str, self.messages))

    def __bool__(self) -> bool:
        return self.succeeded

    @property
    def messages(self) -> list[Message]:
        """The reply, then the informs."""
        return [self.reply, *self.informs]

    @property
    def succeeded(self) -> bool:
        """Whether the reply begins with ``ok``."""
        return self.reply.reply_ok()


def _readable(message: Message) -> str:
    """Return a message for people: without id, and not escaped."""
    arguments = " ".join(map(as_text, message.arguments))
    return f"{Message.TYPE_SYMBOLS[message.mtype].decode()}{message.name} {arguments}"


class _KATCPSensorReadingTuple(NamedTuple):
    received_timestamp: float
    timestamp: float
    istatus: int
    value: Any


class KATCPSensorReading(_KATCPSensorReadingTuple):
    """What a sensor showed at a moment.

    Attributes
    ----------
    received_timestamp, timestamp : float
        When the client got it, and when the device read it, in seconds since 1970.
    istatus : int
        One of the statuses of `katcp.Sensor`.
    value : object
        The value, in the sensor's own type.
    """

    __slots__ = ()

    @property
    def status(self) -> str:
        """The name of the status, like ``nominal``."""
        return Sensor.STATUSES[int(self.istatus or Sensor.UNKNOWN)]


def escape_name(name: str) -> str:
    """Return a name as an attribute: with ``_`` in place of ``.`` and ``-``.

    Parameters
    ----------
    name : str
        The name of a sensor or a request.

    Returns
    -------
    str
    """
    return name.replace(".", "_").replace("-", "_")


def normalize_strategy_parameters(params: Union[str, Iterable[Any]]) -> tuple[str, ...]:
    """Return a sampling strategy as a tuple of text.

    Parameters
    ----------
    params : str or sequence
        Like ``"period 5"`` or ``("period", 5)``.

    Returns
    -------
    tuple of str
        Like ``("period", "5.0")``; what is no number stays as it is.

    Raises
    ------
    TypeError
        If it is anything else.
    """
    if isinstance(params, bytes):
        raise TypeError(f"A strategy must be text, not {params!r}.")
    name, *numbers = list(params.split() if isinstance(params, str) else params) or [""]
    return (name, *map(_number_as_text, numbers))


def _number_as_text(param: Any) -> str:
    try:
        return str(float(param))
    except ValueError:
        return str(param)
