"""`AsyncClient`: requests with callbacks and futures, on top of `DeviceClient`."""

from __future__ import annotations

import asyncio
import ssl
from concurrent.futures import Future as ConcurrentFuture
from typing import Any, Awaitable, Callable, Optional, Union

from .._runtime.waiter import Waiter
from .._state.replies import Answer, answer_of
from .._state.validation import check_callback, check_request, check_timeout, make_request
from .._wire.message import Message
from ..errors import KatcpClientError, KatcpUsageError
from ._device import DeviceClient, _default_logger
from ._hooks import shortcut
from ._sensors import SensorsAttribute
from ._sinks import CallbackSink, ConcurrentSink, FutureSink, ReplyFuture, ThreadSink


class AsyncClient(DeviceClient):
    """Implement async and callback-based requests on top of DeviceClient.

    This client will use message IDs if the server supports them.

    Parameters
    ----------
    host : str
        Host to connect to.
    port : int
        Port to connect to.
    tb_limit : int, optional
        Maximum number of stack frames in a traceback that is logged.
    timeout : float in seconds, optional
        Default number of seconds to wait before a callback callback_request
        times out. Can be overridden in individual calls to callback_request.
        None: no limit.
    logger : object, optional
        As for `DeviceClient`.
    auto_reconnect : bool, optional
        Whether to automatically reconnect if the connection dies.
    max_msg_size, max_write_buffer_size : int, optional
        As for `DeviceClient`.
    ssl_options : ssl.SSLContext, optional
        As for `DeviceClient`.

    Notes
    -----
    Every request ends exactly once: with the device's reply, or with a local failure reply ``fail
    reason`` of the client. The latter has the cause in its attribute `Message.local_error`.

    Examples
    --------
    >>> def reply_cb(msg):
    ...     print("Reply:", msg)
    ...
    >>> def inform_cb(msg):
    ...     print("Inform:", msg)
    ...
    >>> c = katcp.AsyncClient('localhost', 10000)
    >>> c.start()
    >>> c.wait_protocol(timeout=5)
    True
    >>> c.ioloop.add_callback(
    ...     c.callback_request,
    ...     katcp.Message.request('myreq'),
    ...     reply_cb=reply_cb,
    ...     inform_cb=inform_cb,
    ... )
    ...
    >>> # expect reply to be printed here
    >>> # stop the client once we're finished with it
    >>> c.stop()
    >>> c.join()
    """

    #: Maximum memory, in bytes, for the informs of one request of
    #: `future_request` or `blocking_request`, which return them all at its end.
    #:
    #: If they take more, the request fails with `KatcpClientOverflow`; the
    #: connection stays. `callback_request` keeps no informs and has no limit.
    MAX_INFORMS_SIZE: int = 256 * 1024 * 1024

    #: The sensors of the device, by name: ``client.sensors["temperature"].read()``.
    sensors = SensorsAttribute()

    def __init__(
        self,
        host: Union[str, bytes, None],
        port: Union[int, str],
        tb_limit: int = 20,
        timeout: Optional[float] = 5.0,
        logger: Any = _default_logger,
        auto_reconnect: bool = True,
        *,
        max_msg_size: Optional[int] = None,
        max_write_buffer_size: Optional[int] = None,
        ssl_options: Optional[ssl.SSLContext] = None,
    ) -> None:
        super().__init__(
            host,
            port,
            tb_limit=tb_limit,
            logger=logger,
            auto_reconnect=auto_reconnect,
            max_msg_size=max_msg_size,
            max_write_buffer_size=max_write_buffer_size,
            ssl_options=ssl_options,
        )
        self._session.timeout = check_timeout(timeout)
        self._session.dispatcher.above = super()

    def callback_request(
        self,
        msg: Message,
        reply_cb: Optional[Callable[..., Any]] = None,
        inform_cb: Optional[Callable[..., Any]] = None,
        user_data: Any = None,
        timeout: Optional[float] = None,
        use_mid: Optional[bool] = None,
    ) -> None:
        """Send a request message.

        Parameters
        ----------
        msg : Message object
            The request message to send.
        reply_cb : function
            The reply callback with signature reply_cb(msg) or reply_cb(msg, \\*user_data). Without
            it the reply goes to the ``reply_*`` handlers, including the local failure reply of a
            client that is not connected.
        inform_cb : function
            The inform callback with signature inform_cb(msg) or
            inform_cb(msg, \\*user_data). Without it the informs go to the
            ``inform_*`` handlers.
        user_data : tuple
            Optional user data to send to the reply and inform callbacks, in its state at the time
            of the call. If it is not a sequence, the call fails and the error is logged.
        timeout : float in seconds
            How long to wait for a reply. The default is the timeout set
            when creating the AsyncClient.
        use_mid : boolean, optional
            Whether to use message IDs. Default is to use message IDs if the
            server supports them.

        Raises
        ------
        KatcpTypeError
            If *msg* is not a request.
        KatcpUsageError
            Before `start` or after `stop`, or if the program chose a message
            id that a pending request uses.

        Notes
        -----
        The callbacks are called in the ioloop, never before this method has
        returned. May be called from any thread after `enable_thread_safety`.
        """
        session = self._session
        limit = check_request(msg, timeout, session.timeout)
        if reply_cb is not None:
            check_callback(reply_cb)
        if inform_cb is not None:
            check_callback(inform_cb)
        sink = CallbackSink(session.dispatcher, reply_cb, inform_cb, user_data)
        try:
            if session.is_threadsafe and not session.is_in_loop():
                session.submit("callback_request", msg, sink, limit, use_mid)
            else:
                session.begin("callback_request", msg, sink, limit, use_mid)
        except KatcpClientError as error:
            session.fail_soon(sink, msg, error)

    def future_request(
        self, msg: Message, timeout: Optional[float] = None, use_mid: Optional[bool] = None
    ) -> Awaitable[tuple[Message, list[Message]]]:
        """Send a request message, with future replies.

        Parameters
        ----------
        msg : Message object
            The request Message to send.
        timeout : float in seconds
            How long to wait for a reply. The default is the timeout set
            when creating the AsyncClient.
        use_mid : boolean, optional
            Whether to use message IDs. Default is to use message IDs if the
            server supports them.

        Returns
        -------
        A tornado.concurrent.Future that resolves with:

        reply : Message object
            The reply message received.
        informs : list of Message objects
            A list of the inform messages received.

        Raises
        ------
        KatcpTypeError
            If *msg* is not a request.
        KatcpUsageError
            Before `start` or after `stop`, from another thread than the
            ioloop's, or if the program chose a message id that a pending
            request uses.

        Notes
        -----
        Must be called in the ioloop. Cancelling the future drops the request.
        """
        session = self._session
        limit = check_request(msg, timeout, session.timeout)
        if session.run.portal is None:
            raise KatcpUsageError("Call start() before future_request()")
        future = ReplyFuture(loop=session.run.portal.asyncio_loop)
        future.sink = sink = FutureSink(session.requester, self.MAX_INFORMS_SIZE, future)
        try:
            session.begin("future_request", msg, sink, limit, use_mid)
        except KatcpClientError as error:
            sink.fail(msg, error)
        return future

    def blocking_request(
        self, msg: Message, timeout: Optional[float] = None, use_mid: Optional[bool] = None
    ) -> tuple[Message, list[Message]]:
        """Send a request message and wait for its reply.

        Parameters
        ----------
        msg : Message object
            The request Message to send.
        timeout : float in seconds
            How long to wait for a reply. The default is the timeout set
            when creating the AsyncClient.
        use_mid : boolean, optional
            Whether to use message IDs. Default is to use message IDs if the
            server supports them.

        Returns
        -------
        reply : Message object
            The reply message received.
        informs : list of Message objects
            A list of the inform messages received.

        Raises
        ------
        KatcpTypeError
            If *msg* is not a request.
        KatcpUsageError
            Before `start` or after `stop`, in the ioloop, or if the program
            chose a message id that a pending request uses.

        Notes
        -----
        May be called from any thread but the ioloop's.

        Examples
        --------
        >>> reply, informs = client.blocking_request(katcp.Message.request("help"))
        >>> if reply.reply_ok():
        ...     for inform in informs:
        ...         print(inform.arguments[0].decode())
        """
        session = self._session
        limit = check_request(msg, timeout, session.timeout)
        sink = ThreadSink(session.requester, self.MAX_INFORMS_SIZE, Waiter())
        return session.ask(msg, sink, limit, use_mid)

    def concurrent_request(
        self, msg: Message, timeout: Optional[float] = None, use_mid: Optional[bool] = None
    ) -> ConcurrentFuture[tuple[Message, list[Message]]]:
        """Send a request message and return a future for any thread.

        Many requests may be in flight: wait for them with
        `concurrent.futures.wait` or `concurrent.futures.as_completed`.

        Parameters
        ----------
        msg : Message object
            The request Message to send.
        timeout : float in seconds
            How long to wait for a reply. The default is the timeout set
            when creating the AsyncClient.
        use_mid : boolean, optional
            Whether to use message IDs. Default is to use message IDs if the
            server supports them.

        Returns
        -------
        concurrent.futures.Future
            It resolves with reply and informs, as `blocking_request` returns them. Cancelling it
            drops the request.

        Raises
        ------
        KatcpTypeError
            If *msg* is not a request.
        KatcpUsageError
            Before `start` or after `stop`.

        Notes
        -----
        May be called from any thread, including the ioloop's; but waiting for the result there
        would block the loop.

        Examples
        --------
        >>> names = ["temperature", "pressure"]
        >>> futures = [
        ...     client.concurrent_request(katcp.Message.request("sensor-value", name))
        ...     for name in names
        ... ]
        >>> for future in concurrent.futures.as_completed(futures):
        ...     reply, informs = future.result()
        """
        session = self._session
        limit = check_request(msg, timeout, session.timeout)
        sink = ConcurrentSink(session.requester, self.MAX_INFORMS_SIZE, ConcurrentFuture())
        return session.ask_concurrently("concurrent_request", msg, sink, limit, use_mid)

    async def async_request(
        self, msg: Message, timeout: Optional[float] = None, use_mid: Optional[bool] = None
    ) -> tuple[Message, list[Message]]:
        """Send a request message and await its reply, in any asyncio loop.

        Parameters, result and errors as for `blocking_request`.

        Notes
        -----
        May be awaited in any asyncio loop: the client's own, or another one in another thread.
        Cancelling it drops the request.
        """
        session = self._session
        limit = check_request(msg, timeout, session.timeout)
        sink = ConcurrentSink(session.requester, self.MAX_INFORMS_SIZE, ConcurrentFuture())
        future = session.ask_concurrently("async_request", msg, sink, limit, use_mid)
        return await asyncio.wrap_future(future)

    def ask(self, name: str, *args: Any, timeout: Optional[float] = None) -> Answer:
        """Make a request that must succeed, and wait for the answer.

        Parameters
        ----------
        name : str
            The name of the request.
        *args
            Its arguments: text, bytes, numbers and booleans.
        timeout : float in seconds
            How long to wait for a reply. The default is the timeout set
            when creating the AsyncClient.

        Returns
        -------
        Answer
            The reply's arguments after ``ok``, and the informs.

        Raises
        ------
        KatcpReplyError
            If the device refuses the request.
        KatcpClientTimeout, KatcpClientDisconnected, KatcpClientStopped
            If there is no reply.
        KatcpTypeError
            If an argument is None, a list, a tuple, a set or a dict. `Message.request` sends their
            `str`.
        KatcpUsageError
            Before `start`, after `stop` or in the ioloop.

        Notes
        -----
        May be called from any thread but the ioloop's; use `async_ask` there.

        Examples
        --------
        >>> client.ask("log-level", "warn").arguments
        [b'warn']
        >>> arguments, informs = client.ask("sensor-value", "temperature")
        >>> informs[0].get_float(4)
        21.5
        """
        msg = make_request(name, args)
        self._session.portal_to_wait("ask", ", use await async_ask()")
        self._session.started_portal("ask")
        return answer_of(*AsyncClient.blocking_request(self, msg, timeout))

    async def async_ask(self, name: str, *args: Any, timeout: Optional[float] = None) -> Answer:
        """Make a request that must succeed, and await the answer.

        Parameters, result and errors as for `ask`.

        Notes
        -----
        May be awaited in any asyncio loop: the client's own, or another one in
        another thread.
        """
        msg = make_request(name, args)
        self._session.started_portal("async_ask")
        return answer_of(*await AsyncClient.async_request(self, msg, timeout))

    @shortcut("inform_of_request")
    def handle_inform(self, msg: Message) -> Any:
        """Handle inform messages related to any current requests.

        Inform messages not related to the current request go up to the base
        class method.

        Parameters
        ----------
        msg : Message object
            The inform message to dispatch.
        """
        return self._session.dispatcher.inform_of_request(msg)

    @shortcut("reply_of_request")
    def handle_reply(self, msg: Message) -> Any:
        """Handle a reply message related to the current request.

        Reply messages not related to the current request go up to the base
        class method.

        Parameters
        ----------
        msg : Message object
            The reply message to dispatch.
        """
        return self._session.dispatcher.reply_of_request(msg)
