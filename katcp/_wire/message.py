"""The KATCP message, and how it is encoded.

Strategy
--------
A message is a type, a name, an optional id and a list of arguments. Names are native strings, ids
and arguments are bytes: KATCP defines no encoding, and an argument may contain any binary data.

Escaping never loops over bytes in Python. Most messages have nothing to escape, which a few
searches of the whole line show. Otherwise each kind of special byte in an argument costs one
`bytes.replace`. Long arguments are escaped block by block: a block of zero bytes (blank FPGA
memory) is recognised as a whole, and one full of special bytes is escaped by a codec, all kinds in
one step.

Parsing is in `katcp._wire.parser`.
"""

from __future__ import annotations

import logging
import numbers
import re
import sys
from typing import Any, Callable, ClassVar, Iterable, Optional, TypeVar, Union

from ..errors import KatcpArgumentError, KatcpClientError, KatcpSyntaxError, KatcpTypeError
from . import escaping
from .arguments import (
    array_item,
    read_bool,
    read_float,
    read_int,
    read_text,
    read_timestamp,
    write_number,
)
from .escaping import (
    BLOCK_SIZE,
    MARK_SPECIALS_BUT_SPACE,
    SEPARATOR,
    SMALL_SIZE,
    escape_argument,
    escaped_pieces,
    with_escaped,
)
from .text import as_text, shorten

logger = logging.getLogger("katcp.core")

_Value = TypeVar("_Value")

MAX_MID = 2**31 - 1
_LAST_MID = b"%d" % MAX_MID
_NAME_RE = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")

# Heads ("?foo") that were checked and encoded before. Programs use few names, but may generate
# them, and a client answers a device's requests of any name: the table keeps short ones only and is
# cleared when it is full.
_heads: dict[tuple[int, str], bytes] = {}
_MAX_HEADS = 1000
_MAX_HEAD_SIZE = 100


# The memory in bytes of a message without arguments, and of its name and id.
_EMPTY_SIZE = 200

# The memory of an argument besides its bytes: the object, and its place in the list.
_ARGUMENT_SIZE = sys.getsizeof(b"") + 8

# How many bytes of an argument IPython shows, where people look at many messages.
_PLAIN_SIZE = 120


class AssignedMid(bytes):
    """A message id chosen by the client, which may choose another when the message is sent again.

    Ids chosen by the program are never changed. The type distinguishes them, so that several
    threads may use a message: reading its id is one step.
    """

    __slots__ = ()


class Message:
    r"""A KATCP message: a request, a reply or an inform.

    Parameters
    ----------
    mtype : {Message.REQUEST, Message.REPLY, Message.INFORM}
        The type of the message.
    name : str
        The name: ASCII letters, digits and dashes, beginning with a letter.
    arguments : iterable, optional
        The arguments; each is converted by `format_argument`.
    mid : int, str or bytes, optional
        The message id, 1 to 2147483647 without leading zeros. Default: no id.

    Raises
    ------
    KatcpSyntaxError
        If the type, the name or the id is not allowed by the grammar.
    KatcpTypeError
        If the name, the id or an argument has a type that cannot be sent.

    Attributes
    ----------
    mtype : int
        One of `REQUEST`, `REPLY`, `INFORM`.
    name : str
        The name.
    arguments : list of bytes
        The arguments, unescaped. A plain list, which may be changed.
    mid : bytes or None
        The message id.
    local_error : KatcpClientError or None
        In a local failure reply, made by the client itself (timeout, disconnected, stopped, ...),
        the exception with the cause. None in every other message.

    Notes
    -----
    A message may be created and read in any thread. It is mutable, and hence not hashable.

    Examples
    --------
    >>> msg = Message.request("sensor-sampling", "temperature", "period", 0.5)
    >>> bytes(msg)
    b'?sensor-sampling temperature period 0.5'
    >>> Message.reply("read", "ok", b"two words").arguments
    [b'ok', b'two words']
    """

    __slots__ = ("arguments", "local_error", "mid", "mtype", "name")

    mtype: int
    name: str
    arguments: list[bytes]
    mid: Optional[bytes]
    local_error: Optional[KatcpClientError]

    # Message types.
    REQUEST: ClassVar[int] = 0
    REPLY: ClassVar[int] = 1
    INFORM: ClassVar[int] = 2

    # Return codes: the first argument of a reply.
    OK: ClassVar[bytes] = b"ok"
    FAIL: ClassVar[bytes] = b"fail"
    INVALID: ClassVar[bytes] = b"invalid"

    TYPE_NAMES: ClassVar[dict[int, str]] = {
        REQUEST: "REQUEST",
        REPLY: "REPLY",
        INFORM: "INFORM",
    }
    TYPE_SYMBOLS: ClassVar[dict[int, bytes]] = {REQUEST: b"?", REPLY: b"!", INFORM: b"#"}
    TYPE_SYMBOL_LOOKUP: ClassVar[dict[bytes, int]] = {
        symbol: mtype for mtype, symbol in TYPE_SYMBOLS.items()
    }

    # The letter after a backslash -> the byte it stands for, and the inverse. The empty key is the
    # empty argument, written ``\@``.
    ESCAPE_LOOKUP: ClassVar[dict[bytes, bytes]] = escaping.ESCAPE_LOOKUP
    REVERSE_ESCAPE_LOOKUP: ClassVar[dict[bytes, bytes]] = escaping.REVERSE_ESCAPE_LOOKUP
    ESCAPE_RE: ClassVar[re.Pattern[bytes]] = re.compile(rb"[\\ \0\n\r\x1b\t]")

    def __init__(
        self,
        mtype: int,
        name: str,
        arguments: Optional[Iterable[Any]] = None,
        mid: Union[int, str, bytes, None] = None,
    ) -> None:
        # Bytes are never looked up: "foo" and b"foo" have the same hash, and ``python -bb`` forbids
        # comparing them.
        if type(name) is not str or (mtype, name) not in _heads:
            _encode_head(mtype, name)
        if isinstance(arguments, (str, bytes, bytearray)):
            raise KatcpTypeError(
                f"The arguments of {name!r} must be a sequence of arguments, "
                f"not a single {type(arguments).__name__}."
            )
        self.mtype = mtype
        self.name = name
        self.arguments = [] if arguments is None else [*map(self.format_argument, arguments)]
        self.mid = None if mid is None else _format_mid(mid)
        self.local_error = None

    @classmethod
    def request(cls, name: str, *args: Any, **kwargs: Any) -> Message:
        """Return a request message.

        Parameters
        ----------
        name : str
            The name of the request.
        *args
            The arguments.
        mid : int, str or bytes, optional
            The message id (keyword only). Default: no id.

        Returns
        -------
        Message
        """
        return cls(cls.REQUEST, name, args, _only_mid(kwargs) if kwargs else None)

    @classmethod
    def reply(cls, name: str, *args: Any, **kwargs: Any) -> Message:
        """Return a reply message; parameters as for `request`.

        Returns
        -------
        Message
        """
        return cls(cls.REPLY, name, args, _only_mid(kwargs) if kwargs else None)

    @classmethod
    def inform(cls, name: str, *args: Any, **kwargs: Any) -> Message:
        """Return an inform message; parameters as for `request`.

        Returns
        -------
        Message
        """
        return cls(cls.INFORM, name, args, _only_mid(kwargs) if kwargs else None)

    @classmethod
    def reply_to_request(cls, req_msg: Message, *args: Any) -> Message:
        """Return a reply with the name and the id of *req_msg*.

        Parameters
        ----------
        req_msg : Message
            The request to answer.
        *args
            The arguments of the reply.

        Returns
        -------
        Message
        """
        return cls(cls.REPLY, req_msg.name, args, mid=req_msg.mid)

    @classmethod
    def reply_inform(cls, req_msg: Message, *args: Any) -> Message:
        """Return an inform with the name and the id of *req_msg*.

        Parameters
        ----------
        req_msg : Message
            The request that the inform answers.
        *args
            The arguments of the inform.

        Returns
        -------
        Message
        """
        return cls(cls.INFORM, req_msg.name, args, mid=req_msg.mid)

    def copy(self) -> Message:
        """Return a copy with its own argument list and without the id.

        Returns
        -------
        Message
        """
        copied = make_message(self.mtype, self.name, list(self.arguments), None)
        copied.local_error = self.local_error
        return copied

    def reply_ok(self) -> bool:
        """Return whether this is a reply whose first argument is ``ok``.

        Returns
        -------
        bool
        """
        return self.mtype == self.REPLY and self.arguments[:1] == [self.OK]

    # Arguments as values. Positions are those of the list `arguments`.

    def get_text(self, index: int) -> str:
        """Return an argument as text.

        Parameters
        ----------
        index : int
            The position in `arguments`.

        Returns
        -------
        str

        Raises
        ------
        KatcpArgumentError
            If there is no such argument, or it is not UTF-8.

        Examples
        --------
        >>> Message.inform("sensor-status", "1.5", "1", "wind").get_text(2)
        'wind'
        """
        return self._read_argument(index, "text in UTF-8", read_text)

    def get_int(self, index: int) -> int:
        """Return an argument as an integer.

        Parameters
        ----------
        index : int
            The position in `arguments`.

        Returns
        -------
        int

        Raises
        ------
        KatcpArgumentError
            If there is no such argument, or it is not an integer.

        Examples
        --------
        >>> Message.reply("help", "ok", "many").get_int(1)
        Traceback (most recent call last):
          ...
        katcp.errors.KatcpArgumentError: arguments[1] of !help is not an integer: 'many'
        """
        return self._read_argument(index, "an integer", read_int)

    def get_float(self, index: int) -> float:
        """Return an argument as a number.

        Parameters
        ----------
        index : int
            The position in `arguments`.

        Returns
        -------
        float
            May be infinite or NaN: devices send ``inf`` and ``nan``.

        Raises
        ------
        KatcpArgumentError
            If there is no such argument, or it is not a number.
        """
        return self._read_argument(index, "a number", read_float)

    def get_bool(self, index: int) -> bool:
        """Return an argument as a boolean.

        Parameters
        ----------
        index : int
            The position in `arguments`.

        Returns
        -------
        bool

        Raises
        ------
        KatcpArgumentError
            If there is no such argument, or it is neither ``1`` nor ``0``.
        """
        return self._read_argument(index, "a boolean (1 or 0)", read_bool)

    def get_timestamp(self, index: int, milliseconds: Optional[bool] = None) -> float:
        """Return an argument as a time.

        Parameters
        ----------
        index : int
            The position in `arguments`.
        milliseconds : bool, optional
            Whether the device sends milliseconds, as in protocol version 4, and not seconds.
            Default: assume milliseconds if the number is too large for seconds (from 10\\ :sup:`11`
            on).

        Returns
        -------
        float
            Seconds since 1970, UTC.

        Raises
        ------
        KatcpArgumentError
            If there is no such argument, or it is not a finite number.

        Examples
        --------
        >>> Message.inform("log", "warn", "1322206610270").get_timestamp(1)
        1322206610.27
        """
        return self._read_argument(
            index, "a timestamp", lambda argument: read_timestamp(argument, milliseconds)
        )

    def _read_argument(self, index: int, kind: str, read: Callable[[bytes], _Value]) -> _Value:
        """Apply *read* to an argument, or raise the error that names it."""
        try:
            return read(self.arguments[index])
        except (IndexError, ValueError):
            raise KatcpArgumentError(self._describe_argument(index, kind)) from None

    def _describe_argument(self, index: int, kind: str) -> str:
        """Describe why an argument is not *kind*."""
        head = f"{self.TYPE_SYMBOLS[self.mtype].decode()}{self.name}"
        count = len(self.arguments)
        if not -count <= index < count:
            return f"{head} has no arguments[{index}], which should be {kind}: it has {count}."
        text = repr(as_text(self.arguments[index]))
        return f"arguments[{index}] of {head} is not {kind}: {shorten(text, 200)}"

    def format_argument(self, arg: Any) -> bytes:
        """Return *arg* as the bytes of one argument, before escaping.

        Bytes, bytearrays and memoryviews are taken unchanged, text as UTF-8, True and False as
        ``1`` and ``0``, numbers (NumPy's too) by value, and anything else as its `str`.

        Parameters
        ----------
        arg : object
            The argument.

        Returns
        -------
        bytes

        Raises
        ------
        KatcpTypeError
            If *arg* is an array: that is many arguments, or binary data.
        """
        if isinstance(arg, bytes):
            return arg
        if isinstance(arg, str):
            return _encode_text(arg)
        if isinstance(arg, (bytearray, memoryview)):
            return bytes(arg)
        if isinstance(arg, numbers.Number):
            return write_number(arg)
        item = array_item(arg)
        return _encode_text(str(arg)) if item is arg else self.format_argument(item)

    def __bytes__(self) -> bytes:
        """Return the line to send, without its terminator."""
        arguments = self.arguments
        try:
            head = _heads[self.mtype, self.name]
        except KeyError:
            head = _encode_head(self.mtype, self.name)
        mid = self.mid
        if mid is not None:
            # An id assigned by a client is valid, and so are most others.
            if type(mid) is not AssignedMid and not (
                type(mid) is bytes and mid.isdigit() and len(mid) < 10 and mid >= b"1"
            ):
                mid = _format_mid(mid)
            head = b"".join((head, b"[", mid, b"]"))
        if not arguments:
            return head
        try:
            together = b" ".join(arguments)
        except TypeError:
            raise self._argument_error() from None
        # Most messages have nothing to escape: one check for all arguments. In a large argument,
        # finding a space is faster than counting all spaces.
        size = len(together)
        if (
            (size <= BLOCK_SIZE or size <= BLOCK_SIZE * len(arguments))
            and together.translate(MARK_SPECIALS_BUT_SPACE) == together
            and together.count(b" ") < len(arguments)
            and b"" not in arguments
        ):
            return head + b" " + together
        if size <= SMALL_SIZE and together.find(SEPARATOR) < 0:
            return with_escaped(head, arguments)
        return b" ".join([head, *map(escape_argument, map(bytes, arguments))])

    def _argument_error(self) -> KatcpTypeError:
        """Return the error that names the argument which is not bytes."""
        position, argument = next(
            (position, argument)
            for position, argument in enumerate(self.arguments, 1)
            if not isinstance(argument, (bytes, bytearray, memoryview))
        )
        return KatcpTypeError(
            f"Argument {position} of {self.name!r} is of type {type(argument).__name__}, "
            "not bytes: use Message.format_argument() before adding it."
        )

    def __str__(self) -> str:
        """Return the line as text, with backslash escapes for what is not UTF-8."""
        try:
            line = bytes(self)
        except (KatcpSyntaxError, KatcpTypeError):
            # The program has changed it so that it cannot be sent. It can still be shown.
            return repr(self)
        return as_text(line)

    def __repr__(self) -> str:
        return self._describe(_short_repr)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the message in IPython, with its arguments as Python shows them."""
        printer.text(pretty_repr(self))

    def _describe(self, describe_argument: Callable[[Any], str]) -> str:
        kind = self.TYPE_NAMES.get(self.mtype, "unknown").lower()
        # A program may have put anything here.
        mid = as_text(self.mid) if isinstance(self.mid, bytes) else self.mid
        head = self.name if mid is None else f"{self.name}[{mid}]"
        arguments = ", ".join(map(describe_argument, self.arguments))
        return f"<Message {kind} {head} {'(' + arguments + ')' if arguments else ''}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return (
            self.mtype == other.mtype
            and self.name == other.name
            and self.mid == other.mid
            and self.arguments == other.arguments
        )

    __hash__ = None  # type: ignore[assignment]


def encode_utf8_with_error_log(arg: str) -> bytes:
    """Encode *arg* in UTF-8, logging an error and using ``?`` for what cannot be encoded.

    Parameters
    ----------
    arg : str
        The text. Only lone surrogates cannot be encoded.

    Returns
    -------
    bytes
    """
    try:
        return arg.encode("utf-8")
    except UnicodeEncodeError:
        logger.error(
            "Error encoding message argument to byte str! Replacing bad characters with '?'."
        )
        return arg.encode("utf-8", "replace")


_encode_text = encode_utf8_with_error_log


def is_mid(mid: bytes) -> bool:
    """Return whether *mid* is a valid id: 1 to 2147483647, no leading zero.

    Parameters
    ----------
    mid : bytes
        The id to check.

    Returns
    -------
    bool
    """
    # isdigit() of bytes knows ASCII digits only. Numbers of the same length sort like their texts.
    return (
        mid.isdigit() and mid >= b"1" and (len(mid) < 10 or (len(mid) == 10 and mid <= _LAST_MID))
    )


def quote(message: Message) -> str:
    """Return the line of a message for logs: as a Python literal, shortened.

    Parameters
    ----------
    message : Message
        Any message.

    Returns
    -------
    str
    """
    return shorten(repr(str(message)))


def memory_size(message: Message) -> int:
    """Estimate the memory that a message takes, in bytes.

    With short arguments this is many times the size of its line.

    Parameters
    ----------
    message : Message
        Any message.

    Returns
    -------
    int
    """
    arguments = message.arguments
    count = len(arguments)
    # Joining a few is four times as fast; for many it takes memory.
    size = len(b"".join(arguments)) if count <= 10 else sum(map(len, arguments))
    return _EMPTY_SIZE + len(message.name) + _ARGUMENT_SIZE * count + size


_new_message = Message.__new__


def make_message(mtype: int, name: str, arguments: list[bytes], mid: Optional[bytes]) -> Message:
    """Return a message of parts that are known to be valid, unchecked and not copied."""
    message = _new_message(Message)
    message.mtype = mtype
    message.name = name
    message.arguments = arguments
    message.mid = mid
    message.local_error = None
    return message


def _encode_head(mtype: int, name: str) -> bytes:
    """Check type and name, and encode them."""
    if mtype not in Message.TYPE_SYMBOLS:
        raise KatcpSyntaxError(f"Invalid command type {mtype!r}.")
    if not name:
        raise KatcpSyntaxError("Command missing command name.")
    if not isinstance(name, str):
        raise KatcpTypeError(f"A message name must be a str, not {type(name).__name__}.")
    if not _NAME_RE.fullmatch(name):
        if not _NAME_RE.match(name):
            raise KatcpSyntaxError(
                "Command name should start with an alphabetic character "
                f"(got {shorten(name, 100)!r})."
            )
        raise KatcpSyntaxError(
            "Command name should consist only of alphanumeric characters and dashes "
            f"(got {shorten(name, 100)!r})."
        )
    head = Message.TYPE_SYMBOLS[mtype] + name.encode("ascii")
    if len(head) <= _MAX_HEAD_SIZE:
        if len(_heads) >= _MAX_HEADS:
            _heads.clear()
        _heads[mtype, name] = head
    return head


def _format_mid(mid: Union[int, str, bytes]) -> bytes:
    """Return a message id as bytes, or raise KatcpSyntaxError."""
    text = mid.encode("utf-8", "replace") if isinstance(mid, str) else mid
    if isinstance(text, numbers.Integral) and not isinstance(text, bool):
        text = b"%d" % int(text)
    if not (isinstance(text, bytes) and is_mid(text)):
        raise KatcpSyntaxError(f"Invalid message id {mid!r}.")
    return text


def _only_mid(kwargs: dict[str, Any]) -> Any:
    """Return the keyword argument ``mid``, or raise if there are others."""
    unknown = {key: value for key, value in kwargs.items() if key != "mid"}
    if unknown:
        raise TypeError(f"Invalid keyword argument(s): {unknown!r}")
    return kwargs["mid"]


def _short_repr(argument: Any) -> str:
    if not isinstance(argument, bytes):
        return shorten(repr(argument))
    # As in a list of arguments: b"", not the "\@" that is sent for it.
    escaped = escape_argument(argument[:1001]) if argument else argument
    return repr(escaped) if len(escaped) <= 1000 else f"{escaped[:1000]!r}..."


def pretty_repr(message: Message) -> str:
    """Return a message as IPython shows it: with its arguments as Python shows them."""
    return message._describe(plain_repr)


def plain_repr(argument: Any, size: int = _PLAIN_SIZE) -> str:
    """Return an argument as Python shows it, cut to *size* bytes."""
    # Cut first: an argument may hold megabytes.
    if isinstance(argument, bytes) and len(argument) > size:
        return f"{argument[:size]!r}... ({len(argument)} bytes)"
    return shorten(repr(argument))


def line_in_pieces(message: Message) -> list[bytes]:
    """Return the line to send, with its terminator; a large one in pieces."""
    # Large arguments are mostly the last. A program's subclass may encode its messages itself.
    last = message.arguments[-1] if message.arguments else b""
    if type(last) is not bytes or len(last) <= BLOCK_SIZE or type(message) is not Message:
        # Faster than bytes(message).
        return [message.__bytes__() + b"\n"]
    pieces = [bytes(make_message(message.mtype, message.name, [], message.mid))]
    try:
        for argument in message.arguments:
            data = argument if type(argument) is bytes else memoryview(argument).tobytes()
            pieces += (b" ", *escaped_pieces(data))
    except TypeError:
        raise message._argument_error() from None
    pieces.append(b"\n")
    return pieces
