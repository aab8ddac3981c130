"""`DeviceClient`: a client that dispatches messages to its methods."""

from __future__ import annotations

import logging
import numbers
import ssl
from types import TracebackType
from typing import TYPE_CHECKING, Any, Awaitable, Callable, ClassVar, Optional, TypeVar, Union

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from tornado.util import ObjectDict

from .._net.tls import check_ssl_options
from .._runtime.ending import is_interactive
from .._runtime.portal import running_loop
from .._state.handlers import DeviceMetaclass
from .._state.lifecycle import State
from .._state.validation import (
    check_callback,
    check_host,
    check_inform_name,
    check_port,
    check_request,
    check_timeout,
)
from .._wire.flags import (
    FLOAT_TS_KATCP_MAJOR,
    SEC_TO_MS_FAC,
    SEC_TS_KATCP_MAJOR,
    ProtocolFlags,
)
from .._wire.message import Message
from ..errors import KatcpThreadError, KatcpTypeError, KatcpUsageError
from ._addresses import address_to_string
from ._decorators import make_threadsafe_blocking
from ._hooks import shortcut
from ._informs import InformStream
from ._log import complete
from ._session import Session
from ._waits import until, until_ready, wait_for, wait_until_ready

if TYPE_CHECKING:
    # Type checkers do not know the package "future": for them every attribute of a class derived
    # from its newobject would exist, misspelt ones too.
    from builtins import object as newobject
else:
    from future.types.newobject import newobject

_default_logger = logging.getLogger("katcp.client")

# Set in a subclass once, if ever: no completion shows them.
_LIMITS = frozenset(
    [
        "CONNECT_TIMEOUT",
        "GREETING_TIMEOUT",
        "MAX_INFORMS_SIZE",
        "MAX_LOG_RATE",
        "MAX_VERSIONS_SIZE",
    ]
)

_Client = TypeVar("_Client", bound="DeviceClient")


class DeviceClient(newobject, metaclass=DeviceMetaclass):
    """Device client proxy.

    Subclasses should implement ``reply_*``, ``inform_*`` and ``request_*``
    methods to take actions when messages arrive, and implement
    `unhandled_inform`, `unhandled_reply` and `unhandled_request` to provide
    fallbacks for messages for which there is no handler. A handler
    ``inform_sensor_status(self, msg)`` is called for ``#sensor-status``.

    Request messages can be sent by calling `send_request`.

    Parameters
    ----------
    host : str
        Host to connect to: a name or an IP address.
    port : int
        Port to connect to.
    tb_limit : int, optional
        Maximum number of stack frames in a traceback that is logged.
    logger : object, optional
        Python Logger object to log to, or any object with its methods. Default: the logger
        ``katcp.client``.
    auto_reconnect : bool, optional
        Whether to automatically reconnect if the connection dies, or cannot be made. If not, the
        client then ends by itself.
    max_msg_size : int, optional
        `MAX_MSG_SIZE` of this client, in bytes.
    max_write_buffer_size : int, optional
        `MAX_WRITE_BUFFER_SIZE` of this client, in bytes.
    ssl_options : ssl.SSLContext, optional
        How to encrypt the connection with TLS; see `ssl.create_default_context`. The certificate of
        the device must be for *host*, unless the context turns that check off. Default: no
        encryption.

    Attributes
    ----------
    protocol_flags : ProtocolFlags or None
        The protocol of the device; None until it is known.
    versions : tornado.util.ObjectDict
        The versions that the device sent: ``{"katcp-device": ("1.0",)}``.
    last_connect_time : float or None
        ``ioloop.time()`` when the last connection was made.
    auto_reconnect_delay : float
        Seconds until the first attempt to reconnect. The following ones come
        after growing, randomised delays.
    auto_reconnect_max_delay : float
        The largest delay in seconds.

    Notes
    -----
    Host names are looked up without blocking the ioloop.

    Without `enable_thread_safety`, methods may only be called in the thread of the ioloop unless
    stated otherwise.

    Examples
    --------
    >>> class MyClient(katcp.DeviceClient):
    ...     def reply_myreq(self, msg):
    ...         print(str(msg))
    ...
    >>> c = MyClient('localhost', 10000)
    >>> c.enable_thread_safety()
    >>> c.start()
    >>> c.wait_connected()
    True
    >>> c.send_request(katcp.Message.request('myreq'))
    >>> # expect reply to be printed here
    >>> # stop the client once we're finished with it
    >>> c.stop()
    >>> c.join()
    """

    #: Maximum message size that can be received in bytes.
    #:
    #: If more than MAX_MSG_SIZE bytes are read from the socket without
    #: encountering a message terminator (i.e. newline), the connection is
    #: closed.
    MAX_MSG_SIZE: int = 2 * 1024 * 1024

    #: Maximum outstanding bytes to be buffered by the client process.
    #:
    #: If more than MAX_WRITE_BUFFER_SIZE bytes are outstanding, the connection
    #: is closed. Note that the OS also buffers socket writes, so more than
    #: MAX_WRITE_BUFFER_SIZE bytes may be untransmitted in total.
    MAX_WRITE_BUFFER_SIZE: int = 2 * MAX_MSG_SIZE

    #: Do not spend more than this many seconds reading pipelined socket data.
    MAX_LOOP_LATENCY: float = 0.03

    #: Maximum memory, in bytes, for what is kept in `versions`.
    #:
    #: What would take more is left out, and the log says so once.
    MAX_VERSIONS_SIZE: int = 1024 * 1024

    #: Maximum number of warnings and errors of one kind, bad lines for example,
    #: that are logged in a minute.
    #:
    #: More are left out, and the log says how many.
    MAX_LOG_RATE: int = 1000

    #: Seconds until the look-up of a host name is given up, and then an attempt
    #: to connect to one address, with the TLS handshake if there is one.
    CONNECT_TIMEOUT: float = 10.0

    #: How many seconds requests wait at most, after a reconnect to a device that
    #: had message ids, for the greeting that tells whether it still has them.
    #:
    #: The wait counts in their timeout. Requests with ``use_mid=False`` do not
    #: wait, nor do those of `request` and `send_request`, unless they would
    #: overtake one that does.
    GREETING_TIMEOUT: float = 1.0

    auto_reconnect_delay: float = 0.5
    auto_reconnect_max_delay: float = 5.0
    last_connect_time: Optional[float] = None
    ioloop_thread_id: Optional[int] = None

    _inform_handlers: ClassVar[dict[str, Callable[..., Any]]]
    _reply_handlers: ClassVar[dict[str, Callable[..., Any]]]
    _request_handlers: ClassVar[dict[str, Callable[..., Any]]]

    def __init__(
        self,
        host: Union[str, bytes, None],
        port: Union[int, str],
        tb_limit: int = 20,
        logger: Any = _default_logger,
        auto_reconnect: bool = True,
        *,
        max_msg_size: Optional[int] = None,
        max_write_buffer_size: Optional[int] = None,
        ssl_options: Optional[ssl.SSLContext] = None,
    ) -> None:
        if max_msg_size is not None:
            self.MAX_MSG_SIZE = max_msg_size
        if max_write_buffer_size is not None:
            self.MAX_WRITE_BUFFER_SIZE = max_write_buffer_size
        self.versions = ObjectDict()
        self._bindaddr = (check_host(host), check_port(port))
        self._logger = complete(_default_logger if logger is None else logger)
        self._auto_reconnect = auto_reconnect
        self._session = Session(self, tb_limit, check_ssl_options(ssl_options))

    # Identity and addresses.

    @property
    def bind_address(self) -> tuple[str, int]:
        """(host, port) where the client is connecting."""
        return self._bindaddr

    @property
    def bind_address_string(self) -> str:
        """``host:port`` where the client is connecting."""
        return address_to_string(self._bindaddr)

    @property
    def sockname(self) -> tuple[Any, ...]:
        """(address, port) of the client's end; port -1 while not connected."""
        connection = self._session.run.connection
        return (connection and connection.local_address) or (self._bindaddr[0], -1)

    @property
    def sockname_string(self) -> str:
        """``address:port`` of the client's end."""
        return address_to_string(self.sockname)

    @property
    def protocol_flags(self) -> Optional[ProtocolFlags]:
        """The protocol of the device; None until it is known."""
        return self._session.protocol.flags

    @property
    def ioloop(self) -> Optional[IOLoop]:
        """The ioloop of the client; None before `start`."""
        portal = self._session.run.portal
        return None if portal is None else portal.ioloop

    @property
    def threadsafe(self) -> bool:
        """Whether `enable_thread_safety` was called."""
        return self._session.is_threadsafe

    def __repr__(self) -> str:
        if "_session" not in self.__dict__:
            # Programs print a client before it is initialised.
            return super().__repr__()
        state = self._session.run.state.value
        return f"<{type(self).__name__} {address_to_string(self._bindaddr)} {state}>"

    def __dir__(self) -> list[str]:
        """Return what people type: neither private names nor limits that 0.9.3 does not have."""
        return [
            name
            for name in super().__dir__()
            if name not in _LIMITS and (name.startswith("__") or not name.startswith("_"))
        ]

    @property
    def _stream(self) -> Optional[IOStream]:
        """The stream of the connection; programs set its limits."""
        connection = self._session.run.connection
        return None if connection is None else connection.stream

    # Before the start.

    def set_ioloop(self, ioloop: Optional[IOLoop] = None) -> None:
        """Set the tornado.ioloop.IOLoop instance to use.

        Must be called before `start` is called. May be called in any thread.

        If `set_ioloop` is never called the ioloop is managed: started in a new
        thread, and stopped if `stop` is called.

        Parameters
        ----------
        ioloop : tornado.ioloop.IOLoop, optional
            The ioloop. Default: `IOLoop.current()` when `start` is called.

        Raises
        ------
        RuntimeError
            If the client has an ioloop already.
        """
        if self._session.run.state is not State.STOPPED:
            raise KatcpUsageError("IOLoop instance already set")
        self._session.run.manager.set_ioloop(ioloop, managed=False)

    def enable_thread_safety(self) -> None:
        """Enable thread-safety features.

        From now on, `request`, `send_request`, `send_message`, `AsyncClient.callback_request` and
        all methods that are decorated with `make_threadsafe` or `make_threadsafe_blocking` may be
        called from any thread.

        Must be called before `start`.

        Raises
        ------
        RuntimeError
            If the client is started.
        """
        session = self._session
        if not session.is_threadsafe and session.run.state is not State.STOPPED:
            raise KatcpUsageError("Cannot enable thread safety after start")
        session.is_threadsafe = True

    def preset_protocol_flags(self, protocol_flags: ProtocolFlags) -> None:
        """Preset server protocol flags.

        May be called at any time and from any thread.

        Sets the assumed server protocol flags and disables automatic server
        version detection.

        Parameters
        ----------
        protocol_flags : katcp.core.ProtocolFlags instance
            The flags.

        Raises
        ------
        KatcpTypeError
            If it is anything else.
        """
        if not isinstance(protocol_flags, ProtocolFlags):
            raise KatcpTypeError(
                f"protocol_flags must be a ProtocolFlags, not {type(protocol_flags).__name__}."
            )
        run = self._session.run
        run.protocol.use_preset(protocol_flags)
        if run.portal is None or run.portal.in_loop() or run.state is State.STOPPED:
            run.learn_protocol(None)
        else:
            run.portal.call_soon(run.learn_protocol, None)

    # Starting, stopping, and waiting for them.

    def start(self, timeout: Optional[float] = None) -> None:
        """Start the client in a new thread.

        May be called from any thread.

        With `set_ioloop` there is no new thread: the client is started in that
        ioloop.

        Parameters
        ----------
        timeout : float in seconds
            Seconds to wait for client thread to start. Do not specify a
            timeout if start() is being called from the same ioloop that this
            client will be installed on, since it will block the ioloop without
            progressing. Default: do not wait.

        Raises
        ------
        RuntimeError
            If the client is started already, or no thread can be started.
        OSError
            If no file descriptors are left for an ioloop.

        Notes
        -----
        A client that could not be started is stopped: it may be started again, and `stop` and
        `join` do nothing.
        """
        self._session.refuse_fork("start")
        self._session.run.start()
        if timeout is not None and not self._session.is_in_loop():
            self.wait_running(timeout)

    def stop(self, timeout: Optional[float] = None) -> None:
        """Stop a running client.

        May be called from any thread.

        Called from a thread other than the ioloop's, this method only returns once the client's
        main coroutine, _install(), has completed (and, if the ioloop is managed, its thread has
        ended). Called in the thread of the ioloop it returns at once; `until_stopped` can be used
        to wait.

        Connecting, waiting to reconnect and pending requests are cut short. Does nothing if the
        client is already stopped, or has ended by itself.

        Parameters
        ----------
        timeout : float in seconds
            Seconds to wait for both client thread to have started, and for
            stopping. Default: no limit.

        Raises
        ------
        RuntimeError
            If the client was never started.
        """
        run = self._session.run
        if run.portal is None:
            if run.stop_wanted.is_set():
                return  # it could not be started
            raise KatcpUsageError("Call start() before stop()")
        if not run.is_forked():
            run.stop(run.portal, timeout)

    async def _install(self) -> None:
        await self._session.run.main()

    def join(self, timeout: Optional[float] = None) -> None:
        """Rejoin the client thread.

        Does nothing if the ioloop is not managed. Use `until_stopped` instead.

        Parameters
        ----------
        timeout : float in seconds
            Seconds to wait for thread to finish. Default: no limit.

        Raises
        ------
        RuntimeError
            If the client was never started, or in the thread of the ioloop.
        """
        self._session.run.manager.join(timeout)

    def running(self) -> bool:
        """Whether the client is running. May be called from any thread."""
        run = self._session.run
        return run.lifecycle.holds("running") and not run.is_forked()

    def is_connected(self) -> bool:
        """Check if the socket is currently connected.

        May be called from any thread.

        Returns
        -------
        connected : bool
            Whether the client is connected.
        """
        run = self._session.run
        return run.lifecycle.holds("connected") and not run.is_forked()

    def wait_running(self, timeout: Optional[float] = None) -> bool:
        """Wait until the client is running.

        Do not call this from the ioloop, use `until_running`.

        Parameters
        ----------
        timeout : float in seconds
            Seconds to wait for the client to start running. Default: no limit.

        Returns
        -------
        running : bool
            Whether the client is running

        Raises
        ------
        RuntimeError
            Before `start`, after `stop`, or in the ioloop.
        """
        return wait_for(self._session, "running", timeout)

    def wait_connected(self, timeout: Optional[float] = None) -> bool:
        """Wait until the client is connected.

        Do not call this from the ioloop, use `until_connected`. Parameters, result and
        errors as for `wait_running`.
        """
        return wait_for(self._session, "connected", timeout)

    def wait_disconnected(self, timeout: Optional[float] = None) -> bool:
        """Wait until the client is disconnected.

        Do not call this from the ioloop, use `until_disconnected`. Parameters, result and
        errors as for `wait_running`, but it returns True after `stop`.
        """
        return wait_for(self._session, "disconnected", timeout)

    def wait_protocol(self, timeout: Optional[float] = None) -> bool:
        """Wait until katcp protocol information has been received from server.

        Do not call this from the ioloop, use `until_protocol`. Parameters and errors as for
        `wait_running`.

        Returns
        -------
        received : bool
            Whether protocol information was received. If this method returns
            True, the server's protocol information is available in the
            ProtocolFlags instance self.protocol_flags.
        """
        return wait_for(self._session, "protocol", timeout)

    def until_running(self, timeout: Optional[float] = None) -> Awaitable[Any]:
        """Return future that resolves when the client is running.

        Must be called from the same ioloop as the client.

        Parameters
        ----------
        timeout : float in seconds
            After this time the future fails with `tornado.gen.TimeoutError`.
            Default: no limit.

        Returns
        -------
        tornado.concurrent.Future
            It fails with `KatcpClientStopped` if the client is stopped first.
        """
        return until(self._session, "running", timeout)

    def until_connected(self, timeout: Optional[float] = None) -> Awaitable[Any]:
        """Return future that resolves when the client is connected.

        Must be called from the same ioloop as the client. Parameters and errors as for
        `until_running`.
        """
        return until(self._session, "connected", timeout, value=None)

    def until_disconnected(self, timeout: Optional[float] = None) -> Awaitable[Any]:
        """Return future that resolves when the client is disconnected.

        Must be called from the same ioloop as the client. The timeout as for
        `until_running`.
        """
        return until(self._session, "disconnected", timeout, value=None)

    def until_protocol(self, timeout: Optional[float] = None) -> Awaitable[Any]:
        """Return future that resolves after receipt of katcp protocol info.

        Must be called from the same ioloop as the client. Parameters and errors as for
        `until_running`.

        If the returned future resolves, the server's protocol information is
        available in the ProtocolFlags instance self.protocol_flags.
        """
        return until(self._session, "protocol", timeout, value=None)

    def until_stopped(self, timeout: Optional[float] = None) -> Awaitable[Any]:
        """Return future that resolves when the client has stopped.

        Parameters
        ----------
        timeout : float in seconds
            Seconds to wait for the client to stop. After this time the future
            fails with `tornado.gen.TimeoutError`. Default: no limit.

        Returns
        -------
        tornado.concurrent.Future

        Notes
        -----
        If already running, `stop` must be called before this.

        Must be called from the same ioloop as the client. If using a different
        thread, or a managed ioloop, this method should not be used. Use `join`
        instead.

        Also note that stopped != not running. Stopped means the main coroutine
        has ended, or was never started. When stopping, the running flag is
        cleared some time before stopped is set.
        """
        return until(self._session, "stopped", timeout)

    # Start and stop in a ``with`` block.

    def __enter__(self: _Client) -> _Client:
        """Start the client and wait until it is ready.

        It is ready when it is connected and the protocol of the device is known. The limit is that
        of requests: the ``timeout`` of the client, 5 seconds for a `DeviceClient`. The end of the
        block stops the client.

        Raises
        ------
        KatcpClientDisconnected
            If it cannot connect; the text says why. The client is then stopped.
        KatcpClientTimeout
            If it takes too long. The client is then stopped.
        KatcpThreadError
            In the thread of a running loop: use ``async with`` there. In an interactive
            session, such as a cell of Jupyter, ``with`` may be used all the same.

        Notes
        -----
        This does not call overridden methods of a subclass, except `notify_connected` as usual.
        """
        is_own_loop = self._session.run.manager.managed and is_interactive()
        if running_loop() is not None and not is_own_loop:
            raise KatcpThreadError(
                "'with' would block the loop that runs in this thread: use 'async with'."
            )
        DeviceClient.start(self)
        try:
            wait_until_ready(self._session, self.bind_address_string)
        except BaseException:
            DeviceClient.__exit__(self, None, None, None)
            raise
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc: Optional[BaseException],
        exc_tb: Optional[TracebackType],
    ) -> None:
        """Stop the client, and wait until it has."""
        DeviceClient.stop(self)
        DeviceClient.join(self)

    async def __aenter__(self: _Client) -> _Client:
        """Start the client in the running loop and wait until it is ready.

        As for ``with``, without `set_ioloop`: the loop is the running one, of asyncio or tornado.

        Raises
        ------
        KatcpClientDisconnected, KatcpClientTimeout
            As for ``with``.
        KatcpUsageError
            If `set_ioloop` was called with another loop.
        """
        run = self._session.run
        if run.state is not State.STOPPED:
            raise KatcpUsageError("Device client already started.")
        run.manager.use_running_ioloop()
        DeviceClient.start(self)
        try:
            await until_ready(self._session, self.bind_address_string)
        except BaseException:
            await DeviceClient.__aexit__(self, None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc: Optional[BaseException],
        exc_tb: Optional[TracebackType],
    ) -> None:
        """Stop the client, and wait until it has."""
        DeviceClient.stop(self)
        await until(self._session, "stopped", None)

    # Informs and changes of the connection, without a subclass.

    def add_inform_callback(self, name: Optional[str], callback: Callable[[Message], Any]) -> None:
        """Call a function with each inform that does not belong to a request.

        May be called at any time and from any thread.

        It is called in the ioloop, after the ``inform_*`` method if there is one, as often as it
        was added. It may return an awaitable. Exceptions are logged.

        Parameters
        ----------
        name : str or None
            The name of the informs, for example ``sensor-status``. None: all.
        callback : callable
            The function, called as ``callback(msg)``. It must not block.

        Raises
        ------
        KatcpSyntaxError
            If no inform can have this name.
        KatcpTypeError
            If *callback* cannot be called.
        """
        check_inform_name(name)
        self._session.dispatcher.inform_callbacks.add(name, check_callback(callback))

    def remove_inform_callback(
        self, name: Optional[str], callback: Callable[[Message], Any]
    ) -> None:
        """Undo one `add_inform_callback`.

        May be called at any time and from any thread, even by the callback.

        Parameters
        ----------
        name : str or None
            The name it was added for.
        callback : callable
            The function.

        Raises
        ------
        KatcpUsageError
            If it was not added, or is already removed.
        """
        if not self._session.dispatcher.inform_callbacks.remove(name, callback):
            raise KatcpUsageError(f"{callback!r} is not a callback for informs {name!r}.")

    def add_connection_callback(self, callback: Callable[[bool], Any]) -> None:
        """Call a function whenever the connection is made or lost.

        May be called at any time and from any thread.

        It is called in the ioloop, after `notify_connected`. It may return an awaitable. Exceptions
        are logged.

        Parameters
        ----------
        callback : callable
            The function, called as ``callback(connected)``. It must not block.

        Raises
        ------
        KatcpTypeError
            If *callback* cannot be called.
        """
        self._session.dispatcher.connection_callbacks.add(None, check_callback(callback))

    def remove_connection_callback(self, callback: Callable[[bool], Any]) -> None:
        """Undo one `add_connection_callback`.

        May be called at any time and from any thread, even by the callback.

        Parameters
        ----------
        callback : callable
            The function.

        Raises
        ------
        KatcpUsageError
            If it was not added, or is already removed.
        """
        if not self._session.dispatcher.connection_callbacks.remove(None, callback):
            raise KatcpUsageError(f"{callback!r} is not a callback for the connection.")

    def informs(
        self,
        name: Optional[str] = None,
        *,
        maxsize: Optional[int] = 1000,
        timeout: Optional[float] = None,
    ) -> InformStream:
        """Return an iterator over the informs that do not belong to a request.

        Parameters
        ----------
        name : str, optional
            The name of the informs, for example ``sensor-status``. Default: all.
        maxsize : int or None
            How many informs are buffered for a slow iteration. When there are more, the oldest are
            dropped and counted in `InformStream.dropped`. None: no limit.
        timeout : float in seconds, optional
            How long to wait for each inform; then the iteration raises `KatcpClientTimeout`, and
            may be continued. Default: no limit.

        Returns
        -------
        InformStream
            For ``for`` in any thread but the ioloop's, and for ``async for``
            in any asyncio loop. It ends when the client stops.

        Raises
        ------
        KatcpSyntaxError
            If no inform can have this name.
        KatcpTypeError
            If *maxsize* or *timeout* is not a number.

        Notes
        -----
        May be called at any time and from any thread. Informs are buffered from now on, so call it
        before the request that triggers them.

        Examples
        --------
        >>> with client.informs("sensor-status", timeout=5) as updates:
        ...     client.ask("sensor-sampling", "temperature", "event")
        ...     for update in updates:
        ...         print(update.get_text(2), update.get_float(4))
        """
        check_inform_name(name)
        if maxsize is not None and (not isinstance(maxsize, numbers.Integral) or maxsize < 1):
            raise KatcpTypeError(f"maxsize must be a number from 1 on, or None, not {maxsize!r}.")
        return InformStream(self._session, name, maxsize, check_timeout(timeout))

    # Sending.

    @shortcut("send")
    @make_threadsafe_blocking
    def send_message(self, msg: Message) -> Awaitable[None]:
        """Send any kind of message.

        The reply to a request sent by this method goes to the handlers.

        Parameters
        ----------
        msg : Message object
            The message to send.

        Returns
        -------
        tornado.concurrent.Future
            It resolves when the operating system has taken the message. A call
            from another thread waits for that.

        Raises
        ------
        KatcpClientDisconnected
            If the client is not connected.
        KatcpClientOverflow
            If more than MAX_WRITE_BUFFER_SIZE bytes would wait to be sent. The connection is then
            closed.
        KatcpTypeError
            If *msg* is not a Message.
        """
        self._session.refuse_other_threads("send_message")
        if not isinstance(msg, Message):
            raise KatcpTypeError(f"Only a Message can be sent, not {type(msg).__name__}.")
        requester = self._session.requester
        outgoing = requester.send(msg)
        if msg.mtype == Message.REQUEST:
            requester.pending.note_sent(msg)
        return outgoing.until_sent()

    @make_threadsafe_blocking
    def send_request(self, msg: Message) -> None:
        """Send a request message.

        Parameters
        ----------
        msg : Message object
            The request Message to send.

        Raises
        ------
        KatcpVersionError
            If it has a message id, and the server does not support these.
        KatcpTypeError
            If *msg* is not a request.
        KatcpClientDisconnected, KatcpClientOverflow
            As for `send_message`.
        """
        self._session.refuse_other_threads("send_request")
        check_request(msg)
        if msg.mid is not None:
            self._session.requester.check_mid(msg.mid)
        self._session.requester.send_unclaimed(msg)

    @make_threadsafe_blocking
    def request(self, msg: Message, use_mid: Optional[bool] = None) -> Optional[bytes]:
        """Send a request message, with automatic message ID assignment.

        Parameters
        ----------
        msg : katcp.Message request message
            The request to send.
        use_mid : bool or None, default=None
            Whether to use message ids. Default: if the server supports them.

        Returns
        -------
        mid : bytes or None
            The message id, or None if no msg id is used.

            If use_mid is None and the server supports msg ids, or if use_mid
            is True, a message ID will automatically be assigned if msg.mid is
            None.

            If msg.mid has a value, and the server supports msg ids, that value
            will be used. If the server does not support msg ids,
            KatcpVersionError will be raised.

        Raises
        ------
        KatcpVersionError
            As above.
        KatcpUsageError
            If the program chose an id that a pending request uses.
        KatcpTypeError
            If *msg* is not a request.
        KatcpClientDisconnected, KatcpClientOverflow
            As for `send_message`.
        """
        self._session.refuse_other_threads("request")
        check_request(msg)
        self._session.requester.assign_mid(msg, use_mid)
        self._session.requester.send_unclaimed(msg)
        return msg.mid

    def disconnect(self) -> None:
        """Force client connection to close, reconnect if auto-connect set.

        May be called from any thread.

        Does nothing if the client is not connected, started or not.
        """
        self._session.refuse_fork("disconnect")
        self._session.run.disconnect_soon()

    def convert_seconds(self, time_seconds: float) -> float:
        """Convert a time in seconds to the device timestamp units.

        May be called from any thread.

        KATCP v4 and earlier, specified all timestamps in milliseconds. Since
        KATCP v5, all timestamps are in seconds. If the device KATCP version
        has been detected, this method converts a value in seconds to the
        appropriate (seconds or milliseconds) quantity. For version smaller
        than V4, the time value will be truncated to the nearest millisecond.

        Parameters
        ----------
        time_seconds : float
            A time in seconds.

        Returns
        -------
        float or int
            The time in seconds or milliseconds.

        Raises
        ------
        KatcpUsageError
            If the version of the device is not known yet.
        """
        flags = self.protocol_flags
        if flags is None:
            raise KatcpUsageError(
                "The protocol version of the device is not known yet: "
                "wait_protocol() or preset_protocol_flags() before convert_seconds()."
            )
        if flags.major >= SEC_TS_KATCP_MAJOR:
            return time_seconds
        milliseconds = time_seconds * SEC_TO_MS_FAC
        return milliseconds if flags.major >= FLOAT_TS_KATCP_MAJOR else int(milliseconds)

    # Incoming messages: documented hooks, called in the ioloop.

    def notify_connected(self, connected: bool) -> None:
        """Event handler that is called whenever the connection status changes.

        Override in derived class for desired behaviour.

        .. note::

           This function should never block. Doing so will cause the client to
           cease processing data from the server until notify_connected
           completes.

        Parameters
        ----------
        connected : bool
            Whether the client has just connected (True) or just disconnected
            (False).
        """

    @shortcut("message")
    def handle_message(self, msg: Message) -> Any:
        """Handle a message from the server.

        Parameters
        ----------
        msg : Message object
            The Message to dispatch to the handler methods.

        Returns
        -------
        awaitable or None
            Reading pauses until the awaitable is done.
        """
        return self._session.dispatcher.message(msg)

    @shortcut("inform")
    def handle_inform(self, msg: Message) -> Any:
        """Dispatch an inform message to the appropriate method.

        Parameters
        ----------
        msg : Message object
            The inform message to dispatch.

        Returns
        -------
        awaitable or None
            The result of the handler.
        """
        return self._session.dispatcher.inform(msg)

    @shortcut("reply")
    def handle_reply(self, msg: Message) -> Any:
        """Dispatch a reply message to the appropriate method.

        Parameters
        ----------
        msg : Message object
            The reply message to dispatch.

        Returns
        -------
        awaitable or None
            The result of the handler.
        """
        return self._session.dispatcher.reply(msg)

    @shortcut("request")
    def handle_request(self, msg: Message) -> Any:
        """Dispatch a request message to the appropriate method.

        The Message that the method returns, directly or by an awaitable, is sent as the reply.

        Parameters
        ----------
        msg : Message object
            The request message to dispatch.

        Returns
        -------
        awaitable or None
            An awaitable if the handler returned one.
        """
        return self._session.dispatcher.request(msg)

    def inform_version_connect(self, msg: Message) -> None:
        """Process a #version-connect message.

        Parameters
        ----------
        msg : Message object
            The inform: a role like ``katcp-device``, its version, and perhaps more.
        """
        self._session.run.take_version_connect(msg)

    def inform_version(self, msg: Message) -> None:
        """Handle katcp v4 and below version inform.

        Parameters
        ----------
        msg : Message object
            The inform.
        """
        self._session.run.take_v4_inform(msg)

    def inform_build_state(self, msg: Message) -> None:
        """Handle katcp v4 and below build-state inform.

        Parameters
        ----------
        msg : Message object
            The inform.
        """
        self._session.run.take_v4_inform(msg)

    def unhandled_inform(self, msg: Message) -> Any:
        """Fallback method for inform messages without a registered handler.

        Parameters
        ----------
        msg : Message object
            The inform message that wasn't processed by any handlers.
        """

    def unhandled_reply(self, msg: Message) -> Any:
        """Fallback method for reply messages without a registered handler.

        Parameters
        ----------
        msg : Message object
            The reply message that wasn't processed by any handlers.
        """

    def unhandled_request(self, msg: Message) -> Any:
        """Fallback method for requests without a registered handler.

        Answers ``invalid``: the protocol requires a reply to every request.

        Parameters
        ----------
        msg : Message object
            The request message that wasn't processed by any handlers.
        """
        self.send_message(Message.reply_to_request(msg, Message.INVALID, "Unknown request."))
