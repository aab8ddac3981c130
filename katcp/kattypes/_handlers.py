"""Decorators of message handlers, which convert arguments to values, and values to a reply.

They include those for the handlers of a device: programs have both in one class.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, Awaitable, Callable, Iterable, Optional, Sequence, TypeVar, cast

from tornado import gen
from tornado.concurrent import is_future

from .._wire.flags import DEFAULT_KATCP_MAJOR
from .._wire.message import Message
from .._wire.text import convert_method_name
from ._parameters import pack_types, unpack_types
from ._types import KatcpType, Str

_Handler = Callable[..., Any]
_AnyHandler = TypeVar("_AnyHandler", bound=_Handler)

_REQUEST_PREFIX = "request_"


# ---- from a message to a handler ----


def request(*types: KatcpType, **options: Any) -> Callable[[_Handler], _Handler]:
    """Decorate a request handler to take values.

    Parameters
    ----------
    *types : KatcpType
        The types of the arguments.
    include_msg : bool, optional
        Whether the message is passed to the handler, too, before the values. Default: False.
    has_req : bool, optional
        Whether the decorated handler is called with a request object before the
        message, which is passed on. Default: True; a client's handlers have none.
    major : int, optional
        The major version of the protocol. Default: 5.

    Returns
    -------
    decorator
        The decorated handler is called with ``self``, the request object and the
        message. It raises `FailReply` if the arguments do not fit.

    Raises
    ------
    TypeError
        If there is another option, or a *multiple* type is not the last.

    Examples
    --------
    >>> class Device(DeviceServer):                             # doctest: +SKIP
    ...     @request(Int(min=0), Float(default=1.0))
    ...     @return_reply(Float())
    ...     def request_scale(self, req, count, factor):
    ...         "Multiply a count."
    ...         return "ok", count * factor
    """
    include_msg, has_req, major = _take(
        options, "", include_msg=False, has_req=True, major=DEFAULT_KATCP_MAJOR
    )
    _check(types)

    def decorator(handler: _Handler) -> _Handler:
        # The arguments before the values: self, and those of the options.
        names = list(inspect.signature(handler).parameters.values())[1 + has_req + include_msg :]
        argnames = [
            parameter.name
            for parameter in names
            if parameter.kind is not inspect.Parameter.VAR_POSITIONAL
        ]

        def call(msg: Message, *before: Any) -> Any:
            values = unpack_types(types, msg.arguments, argnames, major)
            return handler(*before, *([msg] if include_msg else []), *values)

        raw_handler: _Handler
        if has_req:

            @functools.wraps(handler)
            def raw_handler(self: Any, req: Any, msg: Message) -> Any:
                return call(msg, self, req)
        else:

            @functools.wraps(handler)
            def raw_handler(self: Any, msg: Message) -> Any:
                return call(msg, self)

        cast(Any, raw_handler)._request_decorated = True
        return raw_handler

    return decorator


inform = functools.partial(request, has_req=False)
inform.__doc__ = """Decorate an inform handler: as `request`, with ``has_req=False``."""

unpack_message = functools.partial(request, has_req=False)
unpack_message.__doc__ = (
    """Decorate any handler of a message: as `request`, with ``has_req=False``."""
)


# ---- from a handler to a message ----


def make_reply(
    msgname: str, types: Sequence[KatcpType], arguments: Sequence[Any], major: int
) -> Message:
    """Make the reply from a handler's result.

    Parameters
    ----------
    msgname : str
        The name of the reply.
    types : sequence of KatcpType
        The types of the values after ``ok``.
    arguments : sequence
        ``"ok"`` and the values, or ``"fail"`` and a reason.
    major : int
        The major version of the protocol.

    Returns
    -------
    Message
        Without an id.

    Raises
    ------
    ValueError, TypeError
        If the first is neither, or the values do not fit the types.
    """
    status, *values = arguments[0], *arguments[1:]
    if status == "fail":
        types = [Str()]
    elif status != "ok":
        raise ValueError("First returned value must be 'ok' or 'fail'.")
    return Message.reply(msgname, status, *pack_types(types, values, major))


@gen.coroutine
def async_make_reply(
    msgname: str, types: Sequence[KatcpType], arguments_future: Awaitable[Any], major: int
) -> Any:
    """Return a future of the reply from a handler's awaitable.

    Parameters
    ----------
    msgname : str
        The name of the reply.
    types : sequence of KatcpType
        The types of the values after ``ok``.
    arguments_future : awaitable
        Resolves with the *arguments* of `make_reply`.
    major : int
        The major version of the protocol.

    Returns
    -------
    Future of Message
    """
    arguments = yield arguments_future
    return make_reply(msgname, types, arguments, major)


def return_reply(*types: KatcpType, **options: Any) -> Callable[[_Handler], _Handler]:
    """Decorate a request handler to return its result as a reply.

    Parameters
    ----------
    *types : KatcpType
        The types of the values after ``ok``.
    major : int, optional
        The major version of the protocol. Default: 5.

    Returns
    -------
    decorator
        For a method named ``request_...`` that returns ``("ok", values ...)`` or ``("fail",
        reason)``, or an awaitable of these. The decorated handler returns the reply, without an id,
        or a future of it.

    Raises
    ------
    TypeError
        If there is another option, or a *multiple* type is not the last.
    ValueError
        If the method has another name.
    """
    (major,) = _take(options, "return_reply ", major=DEFAULT_KATCP_MAJOR)
    _check(types)

    def decorator(handler: _Handler) -> _Handler:
        if not handler.__name__.startswith(_REQUEST_PREFIX):
            raise ValueError(
                "This decorator can only be used on a katcp request handler "
                "(method name should start with 'request_')."
            )
        msgname = convert_method_name(_REQUEST_PREFIX, handler.__name__)

        @functools.wraps(handler)
        def raw_handler(self: Any, *args: Any) -> Any:
            result = handler(self, *args)
            if is_future(result) or inspect.isawaitable(result):
                return async_make_reply(msgname, types, result, major)
            return make_reply(msgname, types, result, major)

        return raw_handler

    return decorator


def send_reply(*types: KatcpType, **options: Any) -> Callable[[_Handler], _Handler]:
    """Decorate a callback that ends a request to send its result as the reply.

    Parameters
    ----------
    *types : KatcpType
        The types of the values after ``ok``.
    major : int, optional
        The major version of the protocol. Default: 5.

    Returns
    -------
    decorator
        For a method that returns ``(req, "ok", values ...)`` or ``(req, "fail",
        reason)``. The reply, named after ``req.msg``, goes to
        ``req.reply_with_message()``.

    Raises
    ------
    TypeError
        If there is another option.
    """
    (major,) = _take(options, "send_reply ", major=DEFAULT_KATCP_MAJOR)

    def decorator(handler: _Handler) -> _Handler:
        @functools.wraps(handler)
        def raw_handler(self: Any, *args: Any) -> None:
            result = handler(self, *args)
            req = result[0]
            req.reply_with_message(make_reply(req.msg.name, types, result[1:], major))

        return raw_handler

    return decorator


# ---- information for a server ----


def concurrent_reply(handler: _AnyHandler) -> _AnyHandler:
    """Mark a request handler as concurrent: other requests are served until its future is done.

    Parameters
    ----------
    handler : callable
        The handler.

    Returns
    -------
    callable
        The handler.
    """
    cast(Any, handler)._concurrent_reply = True
    return handler


def request_timeout_hint(timeout_hint: Optional[float]) -> Callable[[_AnyHandler], _AnyHandler]:
    """Mark a request handler with the time that a client should wait for the reply.

    Parameters
    ----------
    timeout_hint : float in seconds or None
        The time. None: no hint.

    Returns
    -------
    decorator
        It sets the attribute ``request_timeout_hint``.
    """
    hint = None if timeout_hint is None else float(timeout_hint)

    def decorator(handler: _AnyHandler) -> _AnyHandler:
        cast(Any, handler).request_timeout_hint = hint
        return handler

    return decorator


def minimum_katcp_version(major: int, minor: int = 0) -> Callable[[_AnyHandler], _AnyHandler]:
    """Mark a request handler with the first protocol version that has the request.

    Parameters
    ----------
    major, minor : int
        The version.

    Returns
    -------
    decorator
    """

    def decorator(handler: _AnyHandler) -> _AnyHandler:
        cast(Any, handler)._minimum_katcp_version = (major, minor)
        return handler

    return decorator


def has_katcp_protocol_flags(
    protocol_flags: Iterable[bytes],
) -> Callable[[_AnyHandler], _AnyHandler]:
    """Mark a request handler with the protocol flags that the request requires.

    Parameters
    ----------
    protocol_flags : iterable of bytes
        The flags, for example ``ProtocolFlags.BULK_SET_SENSOR_SAMPLING``.

    Returns
    -------
    decorator
    """

    def decorator(handler: _AnyHandler) -> _AnyHandler:
        cast(Any, handler)._has_katcp_protocol_flags = protocol_flags
        return handler

    return decorator


def _take(options: dict[str, Any], decorator: str, **defaults: Any) -> list[Any]:
    """Return the values of the options; raise TypeError if there are others."""
    unknown = [name for name in options if name not in defaults]
    if unknown:
        raise TypeError(f"{decorator}does not take keyword argument(s) {unknown!r}.")
    return [options.get(name, default) for name, default in defaults.items()]


def _check(types: Sequence[KatcpType]) -> None:
    """Raise TypeError if a type other than the last is *multiple*."""
    if any([kattype._multiple for kattype in types][:-1]):
        raise TypeError("Only the last parameter type can accept multiple arguments.")
