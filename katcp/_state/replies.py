"""The outcome of a request: the device's answer, or a local failure reply."""

from __future__ import annotations

from typing import Any, Optional, Sequence, TypeVar, Union

from .._wire.message import Message, pretty_repr
from .._wire.text import as_text, shorten
from ..errors import (
    KatcpClientError,
    KatcpClientStopped,
    KatcpClientTimeout,
)
from .requests import PendingRequest
from .tables import as_html_table, as_text_table, rows_of

_Reply = TypeVar("_Reply", bound=Message)


class KatcpReplyError(KatcpClientError):
    """The device refused a request: its reply is ``fail``, ``invalid`` or anything but ``ok``.

    The text is the device's reason.

    Parameters
    ----------
    reason : str
        The text.
    reply : Message, optional
        The reply.
    informs : sequence of Message, optional
        The informs before it.

    Attributes
    ----------
    reply : Message or None
        The reply.
    informs : list of Message
        The informs that came before it.
    """

    def __init__(
        self, reason: str, reply: Optional[Message] = None, informs: Sequence[Message] = ()
    ) -> None:
        super().__init__(reason)
        self.reply = reply
        self.informs = list(informs)


class Answer(tuple[list[bytes], list[Message]]):
    """The answer to a request that the device did not refuse.

    It unpacks into `arguments` and `informs`::

        arguments, informs = client.ask("sensor-value", "temperature")

    Parameters
    ----------
    reply : Message
        The reply, whose first argument is ``ok``.
    informs : list of Message
        The informs before it.
    """

    _reply: Message

    def __new__(cls, reply: Message, informs: list[Message]) -> Answer:
        self = super().__new__(cls, (reply.arguments[1:], informs))
        self._reply = reply
        return self

    def __getnewargs__(self) -> tuple[Message, list[Message]]:
        return self.reply, self.informs

    @property
    def arguments(self) -> list[bytes]:
        """The arguments of the reply after ``ok``."""
        return self[0]

    @property
    def informs(self) -> list[Message]:
        """The informs that came before the reply."""
        return self[1]

    @property
    def reply(self) -> Message:
        """The reply itself; its argument 0 is ``ok``."""
        return self._reply

    def __repr__(self) -> str:
        return self._describe(repr(self.reply))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the answer in IPython, with a table of the informs unless it is in a list."""
        text = self._describe(pretty_repr(self.reply))
        if self.informs and not printer.indentation:
            text += "\n" + as_text_table(rows_of(*self))
        printer.text(text)

    def _repr_html_(self) -> Optional[str]:
        """Return the table that Jupyter shows; None without informs."""
        caption = self._describe(pretty_repr(self.reply))
        return as_html_table(rows_of(*self), caption) if self.informs else None

    def _describe(self, reply: str) -> str:
        count = len(self.informs)
        informs = f", {count} inform{'' if count == 1 else 's'}" if count else ""
        return f"<Answer {reply}{informs}>"


def answer_of(reply: Message, informs: list[Message]) -> Answer:
    """Return the answer, or raise the reason why there is none.

    Raises
    ------
    KatcpReplyError
        If the device refused the request.
    KatcpClientError
        The reply's `Message.local_error`, if the device did not answer.
    """
    if reply.reply_ok():
        return Answer(reply, informs)
    error = reply.local_error
    if error is not None:
        # A new one: requests that end together share theirs, and each thread that raises an
        # exception writes to it.
        raise type(error)(*error.args) from error.__cause__
    raise KatcpReplyError(_reason(reply), reply, informs)


def _reason(reply: Message) -> str:
    """Return why the device refused, in its own words if there are any."""
    code, *texts = reply.arguments or [b""]
    if texts and code in (Message.FAIL, Message.INVALID):
        return as_text(texts[0])
    return str(reply.copy())


class UnsentReply(Message):
    """The local failure reply of a request that was not sent.

    It goes through the program's hooks like a reply of the device, and so carries its request,
    which cannot be found among those that were sent.
    """

    __slots__ = ("origin",)

    origin: PendingRequest


def local_failure(request: Union[Message, PendingRequest], error: KatcpClientError) -> Message:
    """Return the local failure reply with this cause."""
    return _local_reply(Message, request, error)


def unsent_reply(origin: PendingRequest, msg: Message, error: KatcpClientError) -> UnsentReply:
    """Return the local failure reply to *msg* of *origin*, which was not sent."""
    reply = _local_reply(UnsentReply, msg, error)
    reply.origin = origin
    return reply


def _local_reply(
    cls: type[_Reply], request: Union[Message, PendingRequest], error: KatcpClientError
) -> _Reply:
    reply = cls(Message.REPLY, request.name, [Message.FAIL, str(error)], request.mid)
    reply.local_error = error
    return reply


def stopped_first() -> KatcpClientStopped:
    return KatcpClientStopped("Client stopped before reply was received")


def timed_out(name: str, seconds: float, hint: str = "") -> KatcpClientTimeout:
    text = f"Request {name} timed out after {seconds:f} seconds."
    return KatcpClientTimeout(f"{text} {hint}" if hint else text)


def fallen_behind(name: str) -> str:
    """Return the error of requests that this connection can no longer answer without ids."""
    return (
        f"?{shorten(name)}: replies come, but to earlier requests, since one was lost or all are "
        "slower than the timeout; without message ids only a new connection settles that"
    )
