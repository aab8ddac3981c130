"""The four clients of KATCP devices.

`DeviceClient` connects, reads, dispatches by name and sends. `AsyncClient`
adds requests whose replies are waited for, `CallbackClient` and
`BlockingClient` are safe to be called from any thread.

A message's way in::

    socket -> Connection.read_lines -> MessageParser.parse -> handle_message
           -> handle_reply / handle_inform -> PendingRequests, else the table
              of reply_* / inform_* methods, else unhandled_*

and out::

    request -> _assign_mid -> (pending, timer) -> send_message -> Connection.send

Everything private here runs in the loop's thread, unless its docstring says
"any thread". Programs subclass these clients and use short names for methods
and attributes of their own, so the private names here are long.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import numbers
import os
import random
import ssl
import sys
import threading
import time
from concurrent.futures import Future as ConcurrentFuture
from concurrent.futures import InvalidStateError
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Awaitable,
    Callable,
    ClassVar,
    Iterable,
    Optional,
    TypeVar,
    Union,
)

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from tornado.util import ObjectDict
from tornado.util import TimeoutError as TornadoTimeoutError

from .._net.connection import Connection, ConnectionEnded, ConnectionFailed
from .._net.tls import TlsFailure, check_ssl_options
from .._runtime.events import AsyncEvent
from .._runtime.portal import LoopPortal, running_loop
from .._runtime.tasks import FATAL, is_awaitable, run_logged, spawn, spawn_if_awaitable
from .._runtime.waiter import LoopGone, Waiter
from .._state.handlers import DeviceMetaclass
from .._state.lifecycle import EVENT_NAMES, Lifecycle, State
from .._state.negotiation import LogText, ServerProtocol
from .._state.replies import (
    Answer,
    UnsentReply,
    answer_of,
    fallen_behind,
    made_up_reply,
    stopped_first,
    timed_out,
    unsent_reply,
)
from .._state.requests import PendingRequest, PendingRequests
from .._state.validation import (
    check_callback,
    check_host,
    check_inform_name,
    check_port,
    check_request,
    check_timeout,
)
from .._wire.flags import FLOAT_TS_KATCP_MAJOR, SEC_TO_MS_FAC, SEC_TS_KATCP_MAJOR, ProtocolFlags
from .._wire.message import AssignedMid, Message, memory_size, quote, shorten
from .._wire.parser import MessageParser
from ..errors import (
    KatcpClientDisconnected,
    KatcpClientError,
    KatcpClientOverflow,
    KatcpClientStopped,
    KatcpClientTimeout,
    KatcpSyntaxError,
    KatcpThreadError,
    KatcpTypeError,
    KatcpUsageError,
    KatcpVersionError,
)
from ..ioloop_manager import IOLoopManager
from ._decorators import make_threadsafe, make_threadsafe_blocking
from ._held import HeldRequests
from ._informs import CallbackTable, InformStream, StreamFeed
from ._log import CurrentException, RateLimitedLog, complete

if TYPE_CHECKING:
    # Checkers know nothing of the package "future": to them every attribute of
    # a class derived from its newobject would be there, misspelt ones too.
    from builtins import object as newobject
else:
    from future.types.newobject import newobject

__all__ = [
    "AsyncClient",
    "BlockingClient",
    "CallbackClient",
    "DeviceClient",
    "address_to_string",
    "make_threadsafe",
    "make_threadsafe_blocking",
    "request_check",
]

_default_logger = logging.getLogger("katcp.client")

# How much longer than its timeout a blocking request waits for a loop that a
# handler keeps busy, in seconds.
BUSY_LOOP_MARGIN = 1.0

# Each delay before a reconnect is this many times the one before, and then
# made shorter by up to a quarter: clients that were thrown out together must
# not come back together.
_DELAY_GROWTH = 1.6
_DELAY_JITTER = 0.25

# After this many failures in a row, a success is worth a warning.
_NOTABLE_FAILURES = 5

# How long deadlines are not looked at again, for each request that was looked at,
# in seconds: ten times as long as the look takes.
_REST_PER_REQUEST = 1e-6

# What a callback without user data is called with: nothing more.
_NO_USER_DATA: tuple[Any, ...] = ()

# What an entry of a dict takes beside its key and its value, in bytes.
_EMPTY_VERSION_SIZE = 100

_Callback = Callable[..., Any]
_Client = TypeVar("_Client", bound="DeviceClient")

# Counts the forks that led to this process: a client lives in the process
# that started it, and nowhere else.
_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


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
        Whether to automatically reconnect if the connection dies, or cannot
        be made. If not, the client ends by itself then.
    max_msg_size : int, optional
        `MAX_MSG_SIZE` of this client, in bytes.
    max_write_buffer_size : int, optional
        `MAX_WRITE_BUFFER_SIZE` of this client, in bytes.
    ssl_options : ssl.SSLContext, optional
        How to encrypt the connection with TLS, as
        `ssl.create_default_context` makes it. The certificate of the device
        must be for *host*, unless the context says not to check that.
        Default: no encryption.

    Attributes
    ----------
    protocol_flags : ProtocolFlags or None
        The protocol of the device; None as long as it is not known.
    versions : tornado.util.ObjectDict
        What the device said of its versions: ``{"katcp-device": ("1.0",)}``.
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

    Without `enable_thread_safety`, methods that do not say otherwise may only
    be called in the thread of the ioloop.

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

    auto_reconnect_delay: float = 0.5
    auto_reconnect_max_delay: float = 5.0
    last_connect_time: Optional[float] = None
    ioloop_thread_id: Optional[int] = None

    # How long `with` waits until the client is ready, in seconds.
    _request_timeout: Optional[float] = 5.0

    # What stands here, and above, is an attribute of the class until it changes:
    # an object with more than 30 attributes takes a kilobyte more.
    _message_parser = MessageParser()
    _threadsafe = False
    _loop_portal: Optional[LoopPortal] = None
    # Which thread is in the middle of start().
    _starting_thread: Optional[int] = None
    _device_connection: Optional[Connection] = None
    _versions_overflowed = False
    # What reading has to wait for, as a handler wants.
    _reading_pause: Optional[asyncio.Future[Any]] = None
    _reconnect_attempt = 0
    _connect_failures = 0
    _connect_failure_reason: Optional[str] = None
    _disconnect_inform: Optional[Message] = None

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
        self._versions_size = 0
        self._bindaddr = (check_host(host), check_port(port))
        self._device_ssl_context = check_ssl_options(ssl_options)
        self._tb_limit = tb_limit
        self._logger = complete(_default_logger if logger is None else logger)
        self._device_log = RateLimitedLog(self)
        self._auto_reconnect = auto_reconnect
        self._forks_at_start = _forks
        self._ioloop_manager = IOLoopManager()
        self._start_lock = threading.Lock()
        self._lifecycle = Lifecycle()
        self._state_events = {name: AsyncEvent() for name in [*sorted(EVENT_NAMES), "protocol"]}
        self._stop_wanted = AsyncEvent()
        self._stop_waiters: list[Waiter] = []
        self._server_protocol = ServerProtocol()
        self._pending_requests = PendingRequests(self._device_log)
        self._inform_callbacks = CallbackTable()
        self._connection_callbacks = CallbackTable()
        self._show_state_in_events()

    # What it is and where it is.

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
        """(address, port) of the client's end; port -1 while it is not connected."""
        connection = self._device_connection
        return (connection and connection.local_address) or (self._bindaddr[0], -1)

    @property
    def sockname_string(self) -> str:
        """``address:port`` of the client's end."""
        return address_to_string(self.sockname)

    @property
    def protocol_flags(self) -> Optional[ProtocolFlags]:
        """The protocol of the device; None as long as it is not known."""
        return self._server_protocol.flags

    @property
    def ioloop(self) -> Optional[IOLoop]:
        """The ioloop of the client; None before `start`."""
        return None if self._loop_portal is None else self._loop_portal.ioloop

    @property
    def threadsafe(self) -> bool:
        """Whether `enable_thread_safety` was called."""
        return self._threadsafe

    def __repr__(self) -> str:
        if "_lifecycle" not in self.__dict__:
            # A program shows it before it is made.
            return super().__repr__()
        address = address_to_string(self._bindaddr)
        return f"<{type(self).__name__} {address} {self._lifecycle.state.value}>"

    @property
    def _stream(self) -> Optional[IOStream]:
        """The stream of the connection; programs set its limits."""
        connection = self._device_connection
        return None if connection is None else connection.stream

    # Before the start.

    def set_ioloop(self, ioloop: Optional[IOLoop] = None) -> None:
        """Set the tornado.ioloop.IOLoop instance to use.

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

        Notes
        -----
        Must be called before `start` is called. May be called in any thread.
        """
        if self._lifecycle.state is not State.STOPPED:
            raise KatcpUsageError("IOLoop instance already set")
        self._ioloop_manager.set_ioloop(ioloop, managed=False)

    def enable_thread_safety(self) -> None:
        """Enable thread-safety features.

        From then on, `request`, `send_request`, `send_message`,
        `AsyncClient.callback_request` and all methods that are decorated with
        `make_threadsafe` or `make_threadsafe_blocking` may be called from any thread.

        Must be called before `start`.

        Raises
        ------
        RuntimeError
            If the client is started.
        """
        if self._threadsafe:
            return
        if self._lifecycle.state is not State.STOPPED:
            raise KatcpUsageError("Cannot enable thread safety after start")
        self._threadsafe = True

    def preset_protocol_flags(self, protocol_flags: ProtocolFlags) -> None:
        """Preset server protocol flags.

        Sets the assumed server protocol flags and disables automatic server
        version detection.

        Parameters
        ----------
        protocol_flags : katcp.core.ProtocolFlags instance
            The flags.

        Raises
        ------
        KatcpTypeError
            If they are anything else.

        Notes
        -----
        May be called at any time and from any thread.
        """
        if not isinstance(protocol_flags, ProtocolFlags):
            raise KatcpTypeError(
                f"protocol_flags must be a ProtocolFlags, not {type(protocol_flags).__name__}."
            )
        self._server_protocol.use_preset(protocol_flags)
        portal = self._loop_portal
        if portal is None or portal.in_loop() or self._lifecycle.state is State.STOPPED:
            self._learn_protocol(None)
        else:
            portal.call_soon(self._learn_protocol, None)

    # Start, stop, and waiting for either.

    def start(self, timeout: Optional[float] = None) -> None:
        """Start the client in a new thread.

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
        May be called from any thread. A client that could not be started is
        stopped: it may be started later, and `stop` and `join` do nothing.
        """
        # Nobody waits for this lock: a finalizer may call start() in the middle of it.
        if not self._start_lock.acquire(blocking=False):
            raise KatcpUsageError("Device client already started.")
        try:
            self._refuse_in_fork("start")
            if self._lifecycle.state is not State.STOPPED:
                raise KatcpUsageError("Device client already started.")
            self._starting_thread = threading.get_ident()
            self._start_run()
        finally:
            self._starting_thread = None
            self._start_lock.release()
        if timeout is not None and not self._is_in_ioloop():
            self.wait_running(timeout)

    def stop(self, timeout: Optional[float] = None) -> None:
        """Stop a running client.

        Called from another thread than the ioloop's, this method only returns
        once the client's main coroutine, _install(), has completed (and, if
        the ioloop is managed, its thread has ended). Called in the thread of
        the ioloop it returns at once; `until_stopped` can be used to wait.

        Connecting, waiting to reconnect and pending requests are cut short. A
        client that is stopped already, or that has ended by itself, is left as
        it is.

        Parameters
        ----------
        timeout : float in seconds
            Seconds to wait for both client thread to have started, and for
            stopping. Default: no limit.

        Raises
        ------
        RuntimeError
            If the client was never started.

        Notes
        -----
        May be called from any thread.
        """
        portal = self._loop_portal
        if portal is None:
            if self._stop_wanted.is_set():
                return  # it could not be started
            raise KatcpUsageError("Call start() before stop()")
        if self._is_forked():
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._lifecycle.state is not State.STOPPED:
            self._stop_and_wait(portal, timeout)
        if self._starting_thread == threading.get_ident():
            return
        if self._ioloop_manager.managed and not portal.in_loop():
            remaining = None if deadline is None else max(deadline - time.monotonic(), 0)
            self._ioloop_manager.join(remaining)

    def join(self, timeout: Optional[float] = None) -> None:
        """Rejoin the client thread.

        Parameters
        ----------
        timeout : float in seconds
            Seconds to wait for thread to finish. Default: no limit.

        Raises
        ------
        RuntimeError
            If the client was never started, or in the thread of the ioloop.

        Notes
        -----
        Does nothing if the ioloop is not managed. Use `until_stopped` instead.
        """
        self._ioloop_manager.join(timeout)

    def running(self) -> bool:
        """Whether the client is running.

        Returns
        -------
        running : bool
            Whether the client is running.

        Notes
        -----
        May be called from any thread.
        """
        return self._lifecycle.holds("running") and not self._is_forked()

    def is_connected(self) -> bool:
        """Check if the socket is currently connected.

        Returns
        -------
        connected : bool
            Whether the client is connected.

        Notes
        -----
        May be called from any thread.
        """
        return self._lifecycle.holds("connected") and not self._is_forked()

    def wait_running(self, timeout: Optional[float] = None) -> bool:
        """Wait until the client is running.

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

        Notes
        -----
        Do not call this from the ioloop, use `until_running`.
        """
        return self._wait_for("running", timeout)

    def wait_connected(self, timeout: Optional[float] = None) -> bool:
        """Wait until the client is connected.

        Parameters
        ----------
        timeout : float in seconds
            Seconds to wait for the client to connect. Default: no limit.

        Returns
        -------
        connected : bool
            Whether the client is connected.

        Raises
        ------
        RuntimeError
            Before `start`, after `stop`, or in the ioloop.

        Notes
        -----
        Do not call this from the ioloop, use `until_connected`.
        """
        return self._wait_for("connected", timeout)

    def wait_disconnected(self, timeout: Optional[float] = None) -> bool:
        """Wait until the client is disconnected.

        Parameters
        ----------
        timeout : float in seconds
            Seconds to wait for the client to disconnect. Default: no limit.

        Returns
        -------
        disconnected : bool
            Whether the client is disconnected.

        Raises
        ------
        RuntimeError
            Before `start`, or in the ioloop.

        Notes
        -----
        Do not call this from the ioloop, use `until_disconnected`.
        """
        return self._wait_for("disconnected", timeout)

    def wait_protocol(self, timeout: Optional[float] = None) -> bool:
        """Wait until katcp protocol information has been received from server.

        Parameters
        ----------
        timeout : float in seconds
            Seconds to wait for the client to connect. Default: no limit.

        Returns
        -------
        received : bool
            Whether protocol information was received. If this method returns
            True, the server's protocol information is available in the
            ProtocolFlags instance self.protocol_flags.

        Raises
        ------
        RuntimeError
            Before `start`, after `stop`, or in the ioloop.

        Notes
        -----
        Do not call this from the ioloop, use `until_protocol`.
        """
        return self._wait_for("protocol", timeout)

    def until_running(self, timeout: Optional[float] = None) -> Awaitable[Any]:
        """Return future that resolves when the client is running.

        Parameters
        ----------
        timeout : float in seconds
            After this time the future fails with `tornado.gen.TimeoutError`.
            Default: no limit.

        Returns
        -------
        tornado.concurrent.Future
            It fails with `KatcpClientStopped` if the client is stopped first.

        Notes
        -----
        Must be called from the same ioloop as the client.
        """
        return self._until("running", timeout)

    def until_connected(self, timeout: Optional[float] = None) -> Awaitable[Any]:
        """Return future that resolves when the client is connected.

        Parameters
        ----------
        timeout : float in seconds
            After this time the future fails with `tornado.gen.TimeoutError`.
            Default: no limit.

        Returns
        -------
        tornado.concurrent.Future
            It fails with `KatcpClientStopped` if the client is stopped first.

        Notes
        -----
        Must be called from the same ioloop as the client.
        """
        return self._until("connected", timeout, value=None)

    def until_disconnected(self, timeout: Optional[float] = None) -> Awaitable[Any]:
        """Return future that resolves when the client is disconnected.

        Parameters
        ----------
        timeout : float in seconds
            After this time the future fails with `tornado.gen.TimeoutError`.
            Default: no limit.

        Returns
        -------
        tornado.concurrent.Future

        Notes
        -----
        Must be called from the same ioloop as the client.
        """
        return self._until("disconnected", timeout, value=None)

    def until_protocol(self, timeout: Optional[float] = None) -> Awaitable[Any]:
        """Return future that resolves after receipt of katcp protocol info.

        If the returned future resolves, the server's protocol information is
        available in the ProtocolFlags instance self.protocol_flags.

        Parameters
        ----------
        timeout : float in seconds
            After this time the future fails with `tornado.gen.TimeoutError`.
            Default: no limit.

        Returns
        -------
        tornado.concurrent.Future
            It fails with `KatcpClientStopped` if the client is stopped first.

        Notes
        -----
        Must be called from the same ioloop as the client.
        """
        return self._until("protocol", timeout, value=None)

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
        return self._until("stopped", timeout)

    # From start to stop in one block.

    def __enter__(self: _Client) -> _Client:
        """Start the client and wait until it is ready.

        It is ready when it is connected and the protocol of the device is
        known. That may take as long as a request: the ``timeout`` of the
        client, 5 seconds for a `DeviceClient`. The end of the block stops it.

        Raises
        ------
        KatcpClientDisconnected
            If it cannot connect; the text says why. The client is stopped then.
        KatcpClientTimeout
            If it takes too long. The client is stopped then.
        KatcpThreadError
            In the thread of a running loop: use ``async with`` there.

        Notes
        -----
        This calls nothing that a subclass overrides; `notify_connected` is
        called as always.
        """
        if running_loop() is not None:
            raise KatcpThreadError(
                "'with' would block the loop that runs in this thread: use 'async with'."
            )
        DeviceClient.start(self)
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop_and_join()
            raise
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc: Optional[BaseException],
        exc_tb: Optional[TracebackType],
    ) -> None:
        """Stop the client, and wait until it has."""
        self._stop_and_join()

    async def __aenter__(self: _Client) -> _Client:
        """Start the client in the running loop and wait until it is ready.

        As for ``with``, and without `set_ioloop`: the loop is the one that
        runs, of asyncio or tornado.

        Raises
        ------
        KatcpClientDisconnected, KatcpClientTimeout
            As for ``with``.
        KatcpUsageError
            If `set_ioloop` was called with another loop.
        """
        if self._lifecycle.state is not State.STOPPED:
            raise KatcpUsageError("Device client already started.")
        self._ioloop_manager.use_running_ioloop()
        DeviceClient.start(self)
        try:
            await self._until_ready()
        except BaseException:
            await self._stop_and_await()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc: Optional[BaseException],
        exc_tb: Optional[TracebackType],
    ) -> None:
        """Stop the client, and wait until it has."""
        await self._stop_and_await()

    # Informs and changes of the connection, without a subclass.

    def add_inform_callback(self, name: Optional[str], callback: Callable[[Message], Any]) -> None:
        """Call a function with each inform that does not belong to a request.

        It is called in the ioloop, after the ``inform_*`` method if there is
        one. What it raises is logged, and so is what an awaitable that it
        returns raises. It is called as often as it was added.

        Parameters
        ----------
        name : str or None
            The name of the informs, like ``sensor-status``. None: all.
        callback : callable
            The function, called as ``callback(msg)``. It must not block.

        Raises
        ------
        KatcpSyntaxError
            If no inform can have this name.
        KatcpTypeError
            If *callback* cannot be called.

        Notes
        -----
        May be called at any time and from any thread.
        """
        check_inform_name(name)
        self._inform_callbacks.add(name, check_callback(callback))

    def remove_inform_callback(
        self, name: Optional[str], callback: Callable[[Message], Any]
    ) -> None:
        """Undo one `add_inform_callback`.

        Parameters
        ----------
        name : str or None
            The name it was added for.
        callback : callable
            The function.

        Raises
        ------
        KatcpUsageError
            If it was not added, or is removed already.

        Notes
        -----
        May be called at any time and from any thread, by the callback too.
        """
        if not self._inform_callbacks.remove(name, callback):
            raise KatcpUsageError(f"{callback!r} is not a callback for informs {name!r}.")

    def add_connection_callback(self, callback: Callable[[bool], Any]) -> None:
        """Call a function whenever the connection is made or lost.

        It is called in the ioloop, after `notify_connected`. What it raises is
        logged, and so is what an awaitable that it returns raises.

        Parameters
        ----------
        callback : callable
            The function, called as ``callback(connected)``. It must not block.

        Raises
        ------
        KatcpTypeError
            If *callback* cannot be called.

        Notes
        -----
        May be called at any time and from any thread.
        """
        self._connection_callbacks.add(None, check_callback(callback))

    def remove_connection_callback(self, callback: Callable[[bool], Any]) -> None:
        """Undo one `add_connection_callback`.

        Parameters
        ----------
        callback : callable
            The function.

        Raises
        ------
        KatcpUsageError
            If it was not added, or is removed already.

        Notes
        -----
        May be called at any time and from any thread, by the callback too.
        """
        if not self._connection_callbacks.remove(None, callback):
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
            The name of the informs, like ``sensor-status``. Default: all.
        maxsize : int or None
            How many informs are kept for an iteration that is slow. When there
            are more, the oldest are dropped and counted in
            `InformStream.dropped`. None: no limit.
        timeout : float in seconds, optional
            How long to wait for each inform; then the iteration raises
            `KatcpClientTimeout`, and may be gone on with. Default: no limit.

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
        May be called at any time and from any thread. Informs that arrive from
        now on are kept, so call it before the request that lets them come.

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
        return InformStream(self, name, maxsize, check_timeout(timeout))

    # Sending.

    @make_threadsafe_blocking
    def send_message(self, msg: Message) -> Awaitable[None]:
        """Send any kind of message.

        The reply to a request that is sent like this goes to the handlers.

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
            If more than MAX_WRITE_BUFFER_SIZE bytes would wait to be sent. The
            connection is closed then.
        KatcpTypeError
            If *msg* is not a Message.
        """
        self._refuse_other_threads("send_message")
        if not isinstance(msg, Message):
            raise KatcpTypeError(f"Only a Message can be sent, not {type(msg).__name__}.")
        connection = self._send(msg)
        if msg.mtype == Message.REQUEST:
            self._note_sent(msg)
        return connection.until_sent()

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
        self._refuse_other_threads("send_request")
        check_request(msg)
        if msg.mid is not None:
            self._check_mid(msg.mid)
        self._send_unclaimed(msg)

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
            As said.
        KatcpUsageError
            If the program chose an id that a pending request uses.
        KatcpTypeError
            If *msg* is not a request.
        KatcpClientDisconnected, KatcpClientOverflow
            As for `send_message`.
        """
        self._refuse_other_threads("request")
        check_request(msg)
        self._assign_mid(msg, use_mid)
        self._send_unclaimed(msg)
        return msg.mid

    def disconnect(self) -> None:
        """Force client connection to close, reconnect if auto-connect set.

        Does nothing if the client is not connected, started or not.

        Notes
        -----
        May be called from any thread.
        """
        self._refuse_in_fork("disconnect")
        portal = self._loop_portal
        if portal is None or self._lifecycle.state is State.STOPPED:
            return
        if portal.in_loop():
            self._disconnect_now()
        else:
            # A loop that is closed meanwhile has no connection any more.
            with contextlib.suppress(KatcpUsageError):
                portal.call_soon(self._disconnect_now)

    def convert_seconds(self, time_seconds: float) -> float:
        """Convert a time in seconds to the device timestamp units.

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

        Notes
        -----
        May be called from any thread.
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

    def _send(self, msg: Message) -> Connection:
        """Send *msg* and return where to, or raise as `send_message` does."""
        connection = self._device_connection
        if connection is None or self._lifecycle.state is not State.CONNECTED:
            raise self._not_connected()
        pieces = msg._line_in_pieces()
        if self._logger.isEnabledFor(logging.DEBUG):
            line = b"".join(pieces)
            self._device_log.debug(
                "Sending to %s: %s", self.bind_address_string, shorten(repr(line[:2000]))
            )
        try:
            if len(pieces) == 1:
                connection.send(pieces[0])
            else:
                connection.send_pieces(pieces)
        except KatcpClientOverflow as error:
            connection.close(error)
            reason = f"Could not send to device {self.bind_address_string}: {error}"
            self._device_log.warning("%s. Message: %s", reason, shorten(repr(msg)))
            raise KatcpClientOverflow(reason) from None
        except KatcpClientDisconnected:
            raise self._not_connected() from None
        return connection

    # What arrives: documented hooks, called in the ioloop.

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
        if msg.mtype == Message.INFORM:
            return self.handle_inform(msg)
        if msg.mtype == Message.REPLY:
            return self.handle_reply(msg)
        return self.handle_request(msg)

    def handle_inform(self, msg: Message) -> Any:
        """Dispatch an inform message to the appropriate method.

        Parameters
        ----------
        msg : Message object
            The inform message to dispatch.

        Returns
        -------
        awaitable or None
            What the handler returned.
        """
        result = self._call_handler("Inform", self._inform_handlers, self.unhandled_inform, msg)
        if self._inform_callbacks:
            self._call_inform_callbacks(msg)
        return result

    def handle_reply(self, msg: Message) -> Any:
        """Dispatch a reply message to the appropriate method.

        Parameters
        ----------
        msg : Message object
            The reply message to dispatch.

        Returns
        -------
        awaitable or None
            What the handler returned.
        """
        return self._call_handler("Reply", self._reply_handlers, self.unhandled_reply, msg)

    def handle_request(self, msg: Message) -> Any:
        """Dispatch a request message to the appropriate method.

        The Message that the method returns, or that the awaitable it returns
        resolves with, is sent as the reply.

        Parameters
        ----------
        msg : Message object
            The request message to dispatch.

        Returns
        -------
        awaitable or None
            An awaitable if the handler returned one.
        """
        if msg.name not in self._request_handlers:
            return self._call_handler("Request", {}, self.unhandled_request, msg)
        reply = self._call_handler("Request", self._request_handlers, None, msg)
        if is_awaitable(reply):
            return self._send_handler_reply_later(msg, reply)
        self._send_handler_reply(msg, reply)
        return None

    def inform_version_connect(self, msg: Message) -> None:
        """Process a #version-connect message.

        Parameters
        ----------
        msg : Message object
            The inform: a role like ``katcp-device``, its version, and perhaps
            more.
        """
        if len(msg.arguments) < 2:
            return
        role, *texts = (_as_text(argument) for argument in msg.arguments)
        self._remember_version(role, tuple(texts))
        if role == "katcp-protocol":
            self._learn_protocol(self._server_protocol.on_version_connect(msg))

    def inform_version(self, msg: Message) -> None:
        """Handle katcp v4 and below version inform.

        Parameters
        ----------
        msg : Message object
            The inform.
        """
        self._learn_protocol(self._server_protocol.on_v4_inform(msg))

    def inform_build_state(self, msg: Message) -> None:
        """Handle katcp v4 and below build-state inform.

        Parameters
        ----------
        msg : Message object
            The inform.
        """
        self._learn_protocol(self._server_protocol.on_v4_inform(msg))

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

        Answers ``invalid``: the protocol wants a reply to every request.

        Parameters
        ----------
        msg : Message object
            The request message that wasn't processed by any handlers.
        """
        self.send_message(Message.reply_to_request(msg, Message.INVALID, "Unknown request."))

    # Threads and misuse.

    def _is_forked(self) -> bool:
        """Whether the client was started in another process; any thread."""
        return self._forks_at_start != _forks and self._lifecycle.state is not State.STOPPED

    def _has_ended_by_itself(self) -> bool:
        """Whether it was started and is stopped, though nobody stopped it; any thread."""
        started = self._loop_portal is not None
        stopped = self._lifecycle.state is State.STOPPED
        return started and stopped and not self._stop_wanted.is_set()

    def _is_at_work_here(self) -> bool:
        """Whether it is connected and this is the loop's thread: nothing to refuse; any thread."""
        portal = self._loop_portal
        return (
            portal is not None
            and running_loop() is portal.asyncio_loop
            and self._lifecycle.state is State.CONNECTED
            and self._forks_at_start == _forks
        )

    def _is_in_ioloop(self) -> bool:
        """Whether this is the thread of the loop; any thread."""
        return self._loop_portal is not None and self._loop_portal.in_loop()

    def _refuse_in_fork(self, name: str) -> None:
        """Raise if the client was started in another process; any thread."""
        if self._is_forked():
            raise KatcpUsageError(
                f"Cannot call {name}(): the client was started in another process. "
                "Make a new client after the fork."
            )

    def _refuse_other_threads(
        self,
        name: str,
        instead: str = "Call enable_thread_safety() before start() to use it from other threads.",
    ) -> None:
        """Raise unless this is the thread of a started client's loop; any thread."""
        portal = self._started_portal(name)
        if portal.thread_id is not None and not portal.in_loop():
            raise KatcpThreadError(
                f"{name}() must be called in the thread of the ioloop. {instead}"
            )

    def _started_portal(self, name: str) -> LoopPortal:
        """Return the portal of a client that is not stopped, or raise; any thread."""
        portal = self._loop_portal
        self._refuse_in_fork(name)
        if portal is None:
            raise KatcpUsageError(f"Call start() before {name}()")
        if self._has_ended_by_itself():
            raise self._not_connected()
        if self._lifecycle.state is State.STOPPED:
            raise KatcpUsageError(f"The client is stopped: call start() before {name}()")
        return portal

    def _portal_to_enter(self, name: str) -> Optional[LoopPortal]:
        """Return where a thread-safe call has to go in, None to call directly; any thread."""
        if not self._threadsafe or self._is_in_ioloop():
            return None
        return self._started_portal(name)

    def _post(self, name: str, function: Callable[..., Any], *args: Any) -> None:
        """Let the loop run *function*, or raise as `_started_portal` does; any thread."""
        try:
            self._started_portal(name).call_soon(function, *args)
        except KatcpUsageError:
            # The client ended a moment ago: say how, if it is known by now.
            self._started_portal(name)
            raise

    def _portal_of_run(self, name: str) -> LoopPortal:
        """Return the portal of a client that was started, here, at some time; any thread."""
        self._refuse_in_fork(name)
        portal = self._loop_portal
        if portal is None:
            raise KatcpUsageError(f"Call start() before {name}()")
        return portal

    def _portal_to_wait_at(self, name: str, instead: str) -> LoopPortal:
        """Return the portal of a started client, in a thread that may wait; any thread."""
        portal = self._portal_of_run(name)
        if portal.in_loop():
            raise KatcpThreadError(f"Cannot call {name}() in ioloop{instead}")
        return portal

    def _not_connected(self) -> KatcpClientDisconnected:
        return KatcpClientDisconnected(f"Not connected to device {self.bind_address_string}")

    # States and the events that show them.

    def _enter(self, state: State) -> None:
        """Go to *state*, and let the events show it."""
        self._lifecycle.move(state)
        self._show_state_in_events()

    def _show_state_in_events(self) -> None:
        held = self._lifecycle.events
        for name in EVENT_NAMES:
            event = self._state_events[name]
            if event.is_set():
                if name not in held:
                    event.clear()
            elif name in held:
                event.set()

    def _forget_protocol_event(self) -> None:
        """Let nobody think that the protocol of the next connection is known; any thread."""
        if not self._server_protocol.preset:
            self._state_events["protocol"].clear()

    def _wait_for(self, event_name: str, timeout: Optional[float]) -> bool:
        """Wait for an event; return whether it holds; any thread but the loop's."""
        name = f"wait_{event_name}"
        portal = self._portal_to_wait_at(name, f", use until_{event_name}()")
        event = self._state_events[event_name]
        if event_name != "disconnected" and not self._has_ended_by_itself():
            self._started_portal(name)
        if event.is_set():
            return True
        if self._has_ended_by_itself() or (timeout is not None and timeout <= 0):
            return False
        waiter = Waiter()
        try:
            portal.call_soon(self._wake_at, event, waiter, timeout)
            came = waiter.wait(portal.is_gone, timeout) and waiter.result()
        except (KatcpUsageError, LoopGone):
            return False
        return came or event.is_set()

    def _wake_at(self, event: AsyncEvent, waiter: Waiter, timeout: Optional[float]) -> None:
        """Tell *waiter* whether *event* came before the timeout and the client's end."""
        if self._lifecycle.state is State.STOPPED:
            waiter.set_result(False)
            return
        future = asyncio.ensure_future(event.until_set(timeout))
        future.add_done_callback(lambda done: waiter.set_result(done.exception() is None))

    def _until(
        self, event_name: str, timeout: Optional[float], value: Optional[bool] = True
    ) -> Awaitable[Any]:
        """Return a future that resolves with *value* when an event holds."""
        name = f"until_{event_name}"
        self._refuse_in_fork(name)
        portal = self._loop_portal
        if portal is None and self._ioloop_manager.managed:
            raise KatcpThreadError(
                f"Call start() before {name}(), and call that in the ioloop only."
            )
        if portal is not None and portal.thread_id is not None and not portal.in_loop():
            raise KatcpThreadError(f"{name}() must be called in the thread of the ioloop.")
        return self._state_events[event_name].until_set(timeout, value)

    # `with` and `async with`.

    def _wait_until_ready(self) -> None:
        """Return when requests may be made, or raise what prevents that; any thread."""
        began, timeout = time.monotonic(), self._request_timeout
        if self._wait_for("connected", timeout):
            remaining = None if timeout is None else timeout - (time.monotonic() - began)
            if self._wait_for("protocol", remaining):
                return
        raise self._not_ready(timeout)

    async def _until_ready(self) -> None:
        """Return when requests may be made, or raise what prevents that."""
        began, timeout = time.monotonic(), self._request_timeout
        try:
            await self._until("connected", timeout)
            remaining = None if timeout is None else timeout - (time.monotonic() - began)
            await self._until("protocol", remaining)
        except (TornadoTimeoutError, KatcpClientStopped):
            raise self._not_ready(timeout) from None

    def _not_ready(self, timeout: Optional[float]) -> KatcpClientError:
        """Return why the client is not ready after *timeout* seconds; any thread."""
        device = address_to_string(self._bindaddr)
        if self._stop_wanted.is_set():
            return KatcpClientStopped(f"The client of {device} was stopped before it was ready")
        if self._lifecycle.holds("connected"):
            return KatcpClientTimeout(
                f"Connected to {device}, which has not said within {timeout} seconds what "
                "protocol it speaks: if it never does, preset_protocol_flags() before."
            )
        if self._connect_failure_reason is not None:
            return KatcpClientDisconnected(
                f"Could not connect to {device}: {self._connect_failure_reason}"
            )
        if self.last_connect_time is not None:
            return KatcpClientDisconnected(
                f"The connection to {device} was lost at once{self._announced_end()}"
            )
        return KatcpClientTimeout(f"Could not connect to {device} within {timeout} seconds")

    def _stop_and_join(self) -> None:
        """Stop, whatever methods a subclass has; any thread but the loop's."""
        DeviceClient.stop(self)
        DeviceClient.join(self)

    async def _stop_and_await(self) -> None:
        """Stop, whatever methods a subclass has."""
        DeviceClient.stop(self)
        await self._until("stopped", None)

    # The life of a run: from start to stop.

    def _start_run(self) -> None:
        """Let the main coroutine begin; any thread, under the start lock."""
        manager = self._ioloop_manager
        if self._loop_portal is not None and manager.managed:
            # The last run may have ended a moment ago, and its thread with it.
            manager.join()
        try:
            manager.start()
        except BaseException:
            # There are no threads or no descriptors left.
            self._stop_wanted.set()
            raise
        portal = manager.get_portal()
        if portal.is_closed():
            raise KatcpUsageError("The ioloop is closed: a client needs one that can run.")
        for event in (*self._state_events.values(), self._stop_wanted):
            event.ioloop = portal.ioloop
        self._forks_at_start = _forks
        self._stop_wanted.clear()
        self._connect_failures = 0
        self._connect_failure_reason = None
        self._forget_protocol_event()
        self._loop_portal = portal
        self._enter(State.STARTING)
        portal.call_soon(self._begin_run, portal)

    def _begin_run(self, portal: LoopPortal) -> None:
        """Be running, and let the main coroutine go on.

        Not all in a coroutine, which would begin a turn later: what a program
        posts right after start() finds a client that runs, as it always has.
        """
        portal.remember_thread()
        self.ioloop_thread_id = portal.thread_id
        if self._lifecycle.state is State.STOPPING:
            # stop() came in the middle of start().
            self._end_run()
            return
        self._enter(State.CONNECTING)
        # What it raises ends the loop, and is reported with that.
        spawn(self._install()).add_done_callback(_retrieve)

    async def _install(self) -> None:
        """The main coroutine: from start to stop."""
        try:
            if not self._stop_wanted.is_set():
                await self._keep_connected()
        except Exception:
            self._device_log.exception("Unhandled exception in the client's main coroutine")
        finally:
            # A loop that was closed behind its back throws this coroutine away
            # some time after the run was ended without it.
            if self._lifecycle.state is not State.STOPPED:
                self._end_run()

    async def _keep_connected(self) -> None:
        """Connect, and connect again, until the client shall end."""
        self._reconnect_attempt = 0
        while True:
            lasted = 0.0
            connection = await self._connect()
            if connection is not None:
                began = time.monotonic()
                await self._use_connection(connection)
                lasted = time.monotonic() - began
            if self._stop_wanted.is_set():
                return
            if self._lifecycle.state is not State.WAITING:
                self._enter(State.WAITING)
            if not self._auto_reconnect:
                return
            if lasted >= self.auto_reconnect_max_delay:
                self._reconnect_attempt = 0
            with contextlib.suppress(TornadoTimeoutError):
                delay = self._reconnect_delay(self._reconnect_attempt)
                await self._stop_wanted.until_set(delay)
            # Not only when the delay was cut: stop() may have come right behind.
            if self._stop_wanted.is_set():
                return
            self._reconnect_attempt += 1
            self._enter(State.CONNECTING)

    def _reconnect_delay(self, attempt: int) -> float:
        """Return how long to wait before an attempt; the first is number 0."""
        if attempt == 0:
            return self.auto_reconnect_delay
        # The exponent is bounded, or a year without connection would overflow.
        grown = self.auto_reconnect_delay * _DELAY_GROWTH ** min(attempt, 100)
        longest = max(self.auto_reconnect_delay, self.auto_reconnect_max_delay)
        return min(grown, longest) * (1 - _DELAY_JITTER * random.random())

    async def _connect(self) -> Optional[Connection]:
        """Return an open connection, or None after the reason was logged."""
        host, port = self._bindaddr
        connection = Connection(host, port, self, self._device_ssl_context)
        self._device_connection = connection
        try:
            await connection.open(self.CONNECT_TIMEOUT)
        except ConnectionFailed as error:
            self._log_connect_failure(str(error))
            return None
        finally:
            # Cancelled, too, it must not stay open.
            if connection.stream is None:
                connection.close()
        self._log_connected()
        return connection

    async def _use_connection(self, connection: Connection) -> None:
        """Handle the lines of *connection* to its end; then nothing is pending any more."""
        self.last_connect_time = IOLoop.current().time()
        self._server_protocol.reset()
        self.versions = ObjectDict()
        self._versions_size = 0
        if self._versions_overflowed:
            self._versions_overflowed = False
        if self._disconnect_inform is not None:
            self._disconnect_inform = None
        self._forget_protocol_event()
        self._enter(State.CONNECTED)
        try:
            connection.on_lines = functools.partial(self._handle_lines, connection)
            is_open = self._notify(True)
            while is_open:
                try:
                    # Most lines are handled as they arrive, in the middle of this.
                    lines = await connection.read_lines()
                except ConnectionEnded as end:
                    self._log_end(connection, end.cause)
                    is_open = False
                else:
                    await self._handle_all(connection, lines)
            if self._stop_wanted.is_set():
                # As in the old client, what is pending fails before the end is notified;
                # those who await a future hear of it in the next turn of the loop.
                self._fail_pending(stopped_first())
                await asyncio.sleep(0)
        finally:
            connection.close()
            if self._lifecycle.state is State.CONNECTED:
                self._enter(State.WAITING)
            try:
                self._notify(False)
            finally:
                self._fail_pending(self._why_ended(connection))
        if connection.was_refused:
            self._log_connect_failure(str(connection.error))

    def _notify(self, connected: bool) -> bool:
        """Call notify_connected(); return whether it did not raise."""
        has_succeeded = True
        try:
            self.notify_connected(connected)
        except FATAL:
            raise
        except BaseException:
            self._device_log.exception(
                "Notify connect failed. Disconnecting." if connected else "Notify connect failed"
            )
            has_succeeded = False
        self._call_connection_callbacks(connected)
        return has_succeeded

    def _why_ended(self, connection: Connection) -> KatcpClientError:
        """Return what the requests that were pending are told."""
        if self._stop_wanted.is_set():
            return stopped_first()
        reason = "Connection closed before reply was received"
        if isinstance(connection.error, (KatcpClientDisconnected, TlsFailure)):
            reason = f"{reason}: {connection.error}"
        else:
            reason += self._announced_end()
        error = KatcpClientDisconnected(reason)
        error.__cause__ = connection.error
        return error

    def _announced_end(self) -> str:
        """Return what the device said of the end of the connection, to follow a reason."""
        if self._disconnect_inform is None or not self._disconnect_inform.arguments:
            return ""
        text = _as_text(self._disconnect_inform.arguments[0])
        return f", as the device announced: {shorten(text)}"

    def _disconnect_now(self) -> None:
        connection = self._device_connection
        if connection is not None and self._lifecycle.state is State.CONNECTED:
            connection.close()
            self._reconnect_attempt = 0
            self._enter(State.WAITING)

    def _stop_and_wait(self, portal: LoopPortal, timeout: Optional[float]) -> None:
        """Let the main coroutine end; wait for it, but not in its thread; any thread."""
        waiter = Waiter()
        try:
            portal.call_soon(self._begin_stop, waiter)
        except KatcpUsageError:
            self._end_run_without_ioloop(portal)
            return
        if (
            portal.in_loop()
            or self._starting_thread == threading.get_ident()
            or not (self._ioloop_manager.managed or portal.has_run())
        ):
            # Nobody to wait for: the caller himself has to run the loop, or is a finalizer
            # in the middle of start().
            return
        try:
            if not waiter.wait(portal.is_gone, timeout):
                self._device_log.warning("The client has not stopped within %s seconds", timeout)
        except LoopGone:
            self._device_log.warning("The ioloop does not run: the client stops when it does")
            self._end_run_without_ioloop(portal)

    def _begin_stop(self, waiter: Waiter) -> None:
        """Cut whatever the main coroutine waits for."""
        if self._lifecycle.state is State.STOPPED:
            waiter.set_result(None)
            return
        self._stop_waiters.append(waiter)
        self._stop_wanted.set()
        if self._lifecycle.state is not State.STOPPING:
            self._enter(State.STOPPING)
        if self._device_connection is not None:
            self._device_connection.close()

    def _end_run(self) -> None:
        """Let nobody wait for a client that has ended."""
        if self._lifecycle.state is not State.STOPPING:
            self._enter(State.STOPPING)
        if self._device_connection is not None:
            self._device_connection.close()
        try:
            self._fail_pending(stopped_first())
        finally:
            self._be_stopped()

    def _be_stopped(self) -> None:
        """Wake all that wait for a client that has ended."""
        self._device_connection = None
        self._device_log.info("Client connect loop for %r finished.", self._bindaddr)
        self._forget_protocol_event()
        self._enter(State.STOPPED)
        for name in ("running", "connected", "protocol"):
            self._state_events[name].fail_waiting(KatcpClientStopped("The client has stopped."))
        waiters, self._stop_waiters = self._stop_waiters, []
        for waiter in waiters:
            waiter.set_result(None)
        for callback in self._inform_callbacks.all():
            if isinstance(callback, StreamFeed):
                callback.end()
        if self._ioloop_manager.managed:
            self._ioloop_manager.stop()

    def _end_run_without_ioloop(self, portal: LoopPortal) -> None:
        """End the run of a client whose loop was closed behind its back; any thread."""
        if portal.is_closed() and self._lifecycle.state is not State.STOPPED:
            self._stop_wanted.set()
            self._end_run()

    # Reading.

    async def _handle_all(self, connection: Connection, lines: list[bytes]) -> None:
        """Handle what `_handle_lines` left, after that for which it was left."""
        left: Optional[list[bytes]] = lines
        while left is not None:
            pause, self._reading_pause = self._reading_pause, None
            if pause is not None:
                await connection.until_done_or_closed(pause)
            else:
                await asyncio.sleep(0)
            left = self._handle_lines(connection, left)

    def _handle_lines(self, connection: Connection, lines: list[bytes]) -> Optional[list[bytes]]:
        """Handle *lines*; if something else has to come first, return those that are left.

        That is what a handler has to wait for, or the other work of the loop.
        """
        if self._connect_failures:
            self._forget_connect_failures()
        clock = time.monotonic
        turn_end = clock() + self.MAX_LOOP_LATENCY if len(lines) > 1 else math.inf
        parser = self._message_parser
        parse = parser.parse_plain if connection.splitter.plain else parser.parse
        handlers = self._handlers_by_type()
        is_debugging = self._logger.isEnabledFor(logging.DEBUG)
        is_closed = connection.until_closed.done
        for position, line in enumerate(lines):
            if position and clock() > turn_end:
                return lines[position:]
            if is_closed():
                break
            try:
                msg = parse(line)
            except KatcpSyntaxError:
                self._log_bad_line(line)
            else:
                if is_debugging:
                    self._log_received(msg)
                if msg.name == "disconnect" and msg.mtype == Message.INFORM:
                    # Not in a handler: that one belongs to the program.
                    self._disconnect_inform = msg
                try:
                    result = handlers[msg.mtype](msg)
                except FATAL:
                    raise
                except BaseException:
                    self._log_unhandled(msg)
                    result = None
                if result is not None and is_awaitable(result):
                    log = functools.partial(self._log_unhandled, msg)
                    self._reading_pause = spawn(run_logged(result, log))
                    return lines[position + 1 :]
        return None

    def _handlers_by_type(self) -> tuple[Callable[[Message], Any], ...]:
        """Return what handles requests, replies and informs, in the order of their types.

        A hook that nobody has overridden is not called for each message.
        """
        if (
            type(self).handle_message is not DeviceClient.handle_message
            or "handle_message" in self.__dict__
        ):
            return (self.handle_message,) * 3
        return self.handle_request, self.handle_reply, self.handle_inform

    def _call_handler(
        self,
        kind: str,
        handlers: dict[str, Callable[..., Any]],
        fallback: Optional[Callable[[Message], Any]],
        msg: Message,
    ) -> Any:
        """Call the handler of *msg*, or the fallback; what it raises is logged."""
        handler = handlers.get(msg.name)
        try:
            if handler is not None:
                result = handler(self, msg)
            else:
                result = fallback(msg) if fallback is not None else None
        except FATAL:
            raise
        except BaseException:
            self._log_handler_failure(kind, msg)
            return None
        if result is None or not is_awaitable(result):
            return result
        log = functools.partial(self._log_handler_failure, kind, msg)
        return run_logged(result, log)

    def _call_inform_callbacks(self, msg: Message) -> None:
        for callback in self._inform_callbacks.matching(msg.name):
            self._call_back(self._log_inform_failure, callback, (), msg)

    def _call_connection_callbacks(self, connected: bool) -> None:
        for callback in self._connection_callbacks.all():
            self._call_back(self._log_connection_failure, callback, (), connected)

    def _call_back(
        self,
        log: Callable[[Any], None],
        callback: Callable[..., Any],
        more: tuple[Any, ...],
        news: Any,
    ) -> None:
        """Call a callback with its news; what it raises, now or later, is logged."""
        try:
            result = callback(news) if more is _NO_USER_DATA else callback(news, *more)
        except FATAL:
            raise
        except BaseException:
            log(news)
            return
        if result is not None and is_awaitable(result):
            spawn(run_logged(result, functools.partial(log, news)))

    async def _send_handler_reply_later(self, msg: Message, reply: Awaitable[Any]) -> None:
        self._send_handler_reply(msg, await reply)

    def _send_handler_reply(self, msg: Message, reply: Any) -> None:
        """Send what the handler of the device's request *msg* returned."""
        if reply is None:
            return
        try:
            if not _is_reply_to(msg, reply):
                raise KatcpTypeError(
                    f"The handler of the request {msg.name!r} must return a reply "
                    f"of that name, not {reply!r}."
                )
            reply.mid = msg.mid
            self.send_message(reply)
        except FATAL:
            raise
        except BaseException:
            self._log_handler_failure("Request", msg)

    def _remember_version(self, role: str, texts: tuple[str, ...]) -> None:
        """Keep what the device says of one version, unless it says too much."""
        size = self._versions_size + _version_size(role, texts)
        if role in self.versions:
            size -= _version_size(role, self.versions[role])
        if size <= self.MAX_VERSIONS_SIZE:
            self.versions[role] = texts
            self._versions_size = size
        elif not self._versions_overflowed:
            self._versions_overflowed = True
            self._device_log.warning(
                "Device %s tells more of its versions than MAX_VERSIONS_SIZE (%d bytes): "
                "the rest is left out.",
                self.bind_address_string,
                self.MAX_VERSIONS_SIZE,
            )

    def _learn_protocol(self, warning: Optional[LogText]) -> None:
        """Note that an inform, or the program, told of the protocol."""
        if warning is not None:
            self._device_log.warning(*warning)
        if self._server_protocol.flags is not None:
            self._state_events["protocol"].set()

    # Message ids.

    def _assign_mid(self, msg: Message, use_mid: Optional[bool]) -> None:
        """Give *msg* the id to send it with, or none; raise if that cannot be."""
        supported = self._server_protocol.message_ids
        if msg.mid is not None:
            if self._is_stale_mid(msg) or (
                self._is_own_mid(msg) and (use_mid is False or not supported)
            ):
                msg.mid = None
            else:
                self._check_mid(msg.mid)
                return
        if use_mid or (use_mid is None and supported):
            if not supported:
                raise KatcpVersionError("Message IDs not supported by server")
            msg.mid = AssignedMid(b"%d" % self._pending_requests.next_mid())

    def _is_own_mid(self, msg: Message) -> bool:
        """Whether a client gave *msg* its id, when it was sent before."""
        return type(msg.mid) is AssignedMid

    def _is_stale_mid(self, msg: Message) -> bool:
        """Whether the id from the last time *msg* was sent may still be answered."""
        if not self._is_own_mid(msg):
            return False
        mid = int(msg.mid or 0)
        pending = self._pending_requests
        return pending.is_mid_pending(mid) or pending.may_be_answered_late(mid)

    def _check_mid(self, mid: bytes) -> None:
        """Raise if no message can be sent with an id that the program chose."""
        if not self._server_protocol.message_ids:
            raise KatcpVersionError("Message IDs not supported by server")
        if self._is_mid_in_use(int(mid)):
            raise KatcpUsageError(
                f"Message id {_as_text(mid)} is used by a pending request: "
                "choose another one, or leave the choice to the client."
            )

    def _is_mid_in_use(self, mid: int) -> bool:
        """Whether a reply with this id is waited for; any thread."""
        return self._pending_requests.is_mid_pending(mid)

    def _note_sent(self, msg: Message) -> None:
        """Note that send_message() sent a request: another one must not get its reply."""

    def _send_unclaimed(self, msg: Message) -> None:
        """Send a request whose reply goes to the handlers."""
        self.send_message(msg)

    def _fail_pending(self, error: KatcpClientError) -> None:
        """Let all pending requests end with a made-up reply."""

    # Logs.

    def _traceback(self) -> CurrentException:
        return CurrentException(self._tb_limit)

    def _log_bad_line(self, line: bytes) -> None:
        self._device_log.error(
            "BAD COMMAND: %s\n in line %s", self._traceback(), shorten(repr(line[:2000]))
        )

    def _log_received(self, msg: Message) -> None:
        self._device_log.debug("received from %s: %s", self.bind_address_string, quote(msg))

    def _log_handler_failure(self, kind: str, msg: Message) -> None:
        self._device_log.error(f"{kind} %s FAIL: %s", shorten(msg.name), self._traceback())

    def _log_inform_failure(self, inform: Message) -> None:
        self._device_log.error("Callback inform %s FAIL: %s", inform.name, self._traceback())

    def _log_connection_failure(self, connected: bool) -> None:
        self._device_log.error("Callback connected=%s FAIL: %s", connected, self._traceback())

    def _log_unhandled(self, msg: Message) -> None:
        self._device_log.exception(
            "Unhandled exception in handle_message() from %s for message %s",
            self.bind_address_string,
            quote(msg),
        )

    def _log_connect_failure(self, reason: str) -> None:
        """Log the reason: once as a warning, then only for those who debug."""
        self._connect_failures += 1
        known = reason == self._connect_failure_reason
        self._connect_failure_reason = reason
        if not self._stop_wanted.is_set():
            log = self._device_log.debug if known else self._device_log.warning
            log("Failed to connect to %r: %s", self._bindaddr, reason)

    def _log_connected(self) -> None:
        self._device_log.debug(
            "Connected to %s with client addr %s", self.bind_address_string, self.sockname_string
        )

    def _forget_connect_failures(self) -> None:
        """Note that the device has spoken: not before is it sure that it accepts the client."""
        failures, self._connect_failures = self._connect_failures, 0
        self._connect_failure_reason = None
        if failures >= _NOTABLE_FAILURES:
            self._device_log.warning("Reconnected to %s", self.bind_address_string)

    def _log_end(self, connection: Connection, cause: Optional[BaseException]) -> None:
        self._device_log.end_period()
        # A client that was stopped or disconnected does not want the rest.
        half_line = connection.splitter.pending
        if half_line and self._lifecycle.state is State.CONNECTED:
            self._device_log.warning(
                "Dropped a line of %d bytes without end from %s: %s",
                len(half_line),
                self.bind_address_string,
                shorten(repr(half_line[:2000])),
            )
        if cause is not None and not connection.was_refused:
            self._device_log.warning(
                "Client stream for server %s closed with error %r",
                self.bind_address_string,
                cause,
            )


class _ReplyFuture(asyncio.Future):  # type: ignore[type-arg]
    """The future of a reply and its informs; in the loop's thread."""

    # Set by who makes it, and not by __init__, which would take a third of its time.
    __slots__ = ("client", "informs", "request")

    client: AsyncClient
    informs: list[Message]
    # None: nothing is pending.
    request: Optional[PendingRequest]

    def take_reply(self, reply: Message) -> None:
        if not self.done():
            self.request = None
            self.set_result((reply, self.informs))

    def cancel(self, *args: Any, **kwargs: Any) -> bool:
        is_cancelled = super().cancel(*args, **kwargs)
        # At once: a done callback would come a turn of the loop later.
        if is_cancelled and self.request is not None:
            self.client._forget(self.request)
        return is_cancelled


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
    Every request ends exactly once: with the device's reply, or with a reply
    ``fail reason`` that the client makes up itself. The latter has an
    exception in its attribute `Message.local_error` that tells the cause.

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

    #: How many seconds requests wait at most, after a reconnect to a device that
    #: had message ids, for the greeting that tells whether it still has them.
    #:
    #: The wait counts in their timeout. Requests with ``use_mid=False`` do not
    #: wait, nor do those of `request` and `send_request`, unless they would
    #: overtake one that does.
    GREETING_TIMEOUT: float = 1.0

    # One timer for all pending requests, set to the earliest deadline.
    _deadline_timer: Optional[asyncio.TimerHandle] = None
    _timer_deadline = math.inf
    _timer_rests_until = -math.inf

    # After a reconnect, until it is known whether the device has ids.
    _held_requests: Optional[HeldRequests] = None

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
        self._request_timeout = check_timeout(timeout)

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
            The reply callback with signature reply_cb(msg) or
            reply_cb(msg, \\*user_data). Without it the reply goes to the
            ``reply_*`` handlers, also the one that the client makes up when it
            is not connected.
        inform_cb : function
            The inform callback with signature inform_cb(msg) or
            inform_cb(msg, \\*user_data). Without it the informs go to the
            ``inform_*`` handlers.
        user_data : tuple
            Optional user data to send to the reply and inform callbacks, as it is when
            they are called. What is no sequence fails then, and is logged.
        timeout : float in seconds
            How long to wait for a reply. The default is the the timeout set
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
        check_request(msg)
        if reply_cb is not None:
            check_callback(reply_cb)
        if inform_cb is not None:
            check_callback(inform_cb)
        limit = check_timeout(timeout, self._request_timeout)
        more = _NO_USER_DATA if user_data is None else user_data
        try:
            if self._is_at_work_here():
                self._begin_request(msg, reply_cb, inform_cb, limit, use_mid, more)
                return
            request = (msg, reply_cb, inform_cb, limit, use_mid, more)
            if self._portal_to_enter("callback_request") is None:
                self._refuse_other_threads("callback_request")
                self._begin_request(*request)
            else:
                self._check_before_posting(msg)
                self._post("callback_request", self._posted_callback_request, *request)
        except KatcpClientError as error:
            self._answer_soon(msg, reply_cb, more, error)

    def future_request(
        self, msg: Message, timeout: Optional[float] = None, use_mid: Optional[bool] = None
    ) -> Awaitable[tuple[Message, list[Message]]]:
        """Send a request message, with future replies.

        Parameters
        ----------
        msg : Message object
            The request Message to send.
        timeout : float in seconds
            How long to wait for a reply. The default is the the timeout set
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
        Must be called in the ioloop. A future that is cancelled forgets the
        request.
        """
        check_request(msg)
        portal = self._loop_portal
        if portal is None:
            raise KatcpUsageError("Call start() before future_request()")
        future = _ReplyFuture(loop=portal.asyncio_loop)
        future.client = self
        informs: list[Message] = []
        future.informs = informs
        future.request = None
        limit = check_timeout(timeout, self._request_timeout)
        try:
            if not self._is_at_work_here():
                self._refuse_other_threads(
                    "future_request",
                    "Use blocking_request() or callback_request() in other threads.",
                )
            request = self._begin_request(msg, future.take_reply, informs.append, limit, use_mid)
        except KatcpClientError as error:
            future.take_reply(made_up_reply(msg, error))
            return future
        request.keeps_informs = True
        future.request = request
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
            How long to wait for a reply. The default is the the timeout set
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
        check_request(msg)
        limit = check_timeout(timeout, self._request_timeout)
        began = time.monotonic()
        waiter = Waiter()
        begun: list[PendingRequest] = []
        portal = self._loop_portal
        try:
            portal = self._portal_to_wait_at("blocking_request", "")
            self._post(
                "blocking_request", self._blocking_request, waiter, begun, msg, limit, use_mid
            )
            patience = None if limit is None else max(limit, 0) + BUSY_LOOP_MARGIN
            if waiter.wait(portal.is_gone, patience):
                reply, informs = waiter.result()
                return reply, informs
        except KatcpUsageError:
            raise
        except KatcpClientDisconnected as error:
            return made_up_reply(msg, error), []
        except LoopGone:
            return made_up_reply(msg, stopped_first()), []
        except BaseException:
            # Ctrl-C, or what another signal handler raises.
            if portal is not None:
                with contextlib.suppress(KatcpUsageError):
                    portal.call_soon(self._forget_begun, begun)
            raise
        finally:
            waiter.give_up()
        return made_up_reply(msg, timed_out(msg.name, time.monotonic() - began)), []

    def concurrent_request(
        self, msg: Message, timeout: Optional[float] = None, use_mid: Optional[bool] = None
    ) -> ConcurrentFuture[tuple[Message, list[Message]]]:
        """Send a request message, with a future for any thread.

        Many requests may be in flight: wait for them with
        `concurrent.futures.wait` or `concurrent.futures.as_completed`.

        Parameters
        ----------
        msg : Message object
            The request Message to send.
        timeout : float in seconds
            How long to wait for a reply. The default is the the timeout set
            when creating the AsyncClient.
        use_mid : boolean, optional
            Whether to use message IDs. Default is to use message IDs if the
            server supports them.

        Returns
        -------
        concurrent.futures.Future
            It resolves with reply and informs, as `blocking_request` returns
            them. Cancelling it forgets the request.

        Raises
        ------
        KatcpTypeError
            If *msg* is not a request.
        KatcpUsageError
            Before `start` or after `stop`.

        Notes
        -----
        May be called from any thread, the ioloop's too; but to wait for the
        result there would stop the loop that brings it.

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
        check_request(msg)
        return self._concurrent_request("concurrent_request", msg, timeout, use_mid)

    async def async_request(
        self, msg: Message, timeout: Optional[float] = None, use_mid: Optional[bool] = None
    ) -> tuple[Message, list[Message]]:
        """Send a request message and await its reply, in whatever asyncio loop.

        Parameters
        ----------
        msg : Message object
            The request Message to send.
        timeout : float in seconds
            How long to wait for a reply. The default is the the timeout set
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
            Before `start` or after `stop`.

        Notes
        -----
        May be awaited in any asyncio loop: the client's own, or another one in
        another thread. Cancelling it forgets the request.
        """
        check_request(msg)
        future = self._concurrent_request("async_request", msg, timeout, use_mid)
        return await asyncio.wrap_future(future)

    def ask(self, name: str, *args: Any, timeout: Optional[float] = None) -> Answer:
        """Make a request that must succeed, and wait for the answer.

        Parameters
        ----------
        name : str
            The name of the request.
        *args
            Its arguments, as for `Message.request`.
        timeout : float in seconds
            How long to wait for a reply. The default is the the timeout set
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
        msg = Message.request(name, *args)
        self._portal_to_wait_at("ask", ", use await async_ask()")
        return answer_of(*AsyncClient.blocking_request(self, msg, timeout))

    async def async_ask(self, name: str, *args: Any, timeout: Optional[float] = None) -> Answer:
        """Make a request that must succeed, and await the answer.

        Parameters
        ----------
        name : str
            The name of the request.
        *args
            Its arguments, as for `Message.request`.
        timeout : float in seconds
            How long to wait for a reply. The default is the the timeout set
            when creating the AsyncClient.

        Returns
        -------
        Answer
            The reply's arguments after ``ok``, and the informs.

        Raises
        ------
        KatcpReplyError, KatcpClientError
            As for `ask`.
        KatcpUsageError
            Before `start` or after `stop`.

        Notes
        -----
        May be awaited in any asyncio loop, as `async_request`.
        """
        msg = Message.request(name, *args)
        return answer_of(*await AsyncClient.async_request(self, msg, timeout))

    def handle_inform(self, msg: Message) -> Any:
        """Handle inform messages related to any current requests.

        Inform messages not related to the current request go up to the base
        class method.

        Parameters
        ----------
        msg : Message object
            The inform message to dispatch.
        """
        request = self._pending_requests.match_inform(msg)
        if request is not None and request.on_inform is not None:
            if request.keeps_informs:
                request.on_inform(msg)
                request.informs_size += memory_size(msg)
                if request.informs_size > self.MAX_INFORMS_SIZE:
                    self._fail_for_its_informs(request)
            else:
                self._call_back(self._log_inform_failure, request.on_inform, request.more, msg)
            return
        # As in the old client, reading does not pause for these handlers.
        spawn_if_awaitable(super().handle_inform(msg))

    def handle_reply(self, msg: Message) -> Any:
        """Handle a reply message related to the current request.

        Reply messages not related to the current request go up to the base
        class method.

        Parameters
        ----------
        msg : Message object
            The reply message to dispatch.
        """
        if msg.local_error is None:
            request = self._pending_requests.match_reply(msg)
        else:
            # Made here: it answers no request that was sent.
            request = getattr(msg, "origin", None)
        if request is not None:
            more = request.more
            on_reply = request.take_callback()
            if on_reply is not None:
                if request.keeps_informs:
                    on_reply(msg)
                else:
                    self._call_back(self._log_reply_failure, on_reply, more, msg)
                return
        spawn_if_awaitable(super().handle_reply(msg))

    # A connection, and what it tells of the protocol.

    async def _use_connection(self, connection: Connection) -> None:
        if self._server_protocol.had_ids and not self._server_protocol.preset:
            self._held_requests = HeldRequests(self)
        await super()._use_connection(connection)

    def _learn_protocol(self, warning: Optional[LogText]) -> None:
        super()._learn_protocol(warning)
        if self._held_requests is not None and self._server_protocol.flags is not None:
            self._held_requests.on_protocol(self._server_protocol.message_ids)

    # The beginning of a request.

    def _answer_soon(
        self,
        msg: Message,
        on_reply: Optional[_Callback],
        more: tuple[Any, ...],
        error: KatcpClientError,
    ) -> None:
        """Let the loop answer a request that was not sent; any thread.

        Not at once: a callback that tries again would never return. If there is no loop any
        more, it is done here.
        """
        portal = self._loop_portal
        if portal is None:
            return
        reply = unsent_reply(PendingRequest(msg, on_reply, None, 0.0, None, more), error)
        try:
            portal.call_soon(self._handle_unsent, reply)
        except KatcpUsageError:
            self._handle_unsent(reply)

    def _handle_unsent(self, reply: UnsentReply) -> None:
        """Handle a reply as if the device had sent it; hooks see it, as in the old client."""
        log = functools.partial(self._log_unhandled, reply)
        try:
            result = self.handle_reply(reply)
        except FATAL:
            raise
        except BaseException:
            log()
        else:
            if result is not None and is_awaitable(result):
                spawn(run_logged(result, log))

    def _posted_callback_request(
        self,
        msg: Message,
        on_reply: Optional[_Callback],
        on_inform: Optional[_Callback],
        timeout: Optional[float],
        use_mid: Optional[bool],
        more: tuple[Any, ...],
    ) -> None:
        """Begin a request for another thread, which cannot be told of misuse any more."""
        try:
            self._begin_request(msg, on_reply, on_inform, timeout, use_mid, more)
        except KatcpClientError as error:
            self._answer_soon(msg, on_reply, more, error)
        except BaseException as error:
            self._answer_soon(msg, on_reply, more, KatcpClientError(str(error)))
            raise

    def _blocking_request(
        self,
        waiter: Waiter,
        begun: list[PendingRequest],
        msg: Message,
        timeout: Optional[float],
        use_mid: Optional[bool],
    ) -> None:
        """Begin a request for a thread that waits, unless it has given up already."""
        if waiter.is_over:
            return
        informs: list[Message] = []

        def on_reply(reply: Message) -> None:
            waiter.set_result((reply, informs))

        try:
            request = self._begin_request(msg, on_reply, informs.append, timeout, use_mid)
            request.wakes_thread = request.keeps_informs = True
            begun.append(request)
        except KatcpClientError as error:
            on_reply(made_up_reply(msg, error))
        except BaseException as error:
            waiter.set_error(error)
            if isinstance(error, FATAL):
                raise

    def _begin_request(
        self,
        msg: Message,
        on_reply: Optional[_Callback],
        on_inform: Optional[_Callback],
        timeout: Optional[float],
        use_mid: Optional[bool],
        more: tuple[Any, ...] = (),
    ) -> PendingRequest:
        """Send *msg* and let it be pending, or raise and let nothing be pending."""
        if self._lifecycle.state is State.STOPPED and not self._has_ended_by_itself():
            # Another thread began it when the client still ran.
            raise stopped_first()
        now = asyncio.get_running_loop().time()
        deadline = None if timeout is None else now + (timeout if timeout > 0 else 0)
        held = self._held_requests
        if held is not None and self.is_connected() and held.must_wait(msg, use_mid):
            request = PendingRequest(msg, on_reply, on_inform, now, deadline, more)
            held.add(request, msg, use_mid)
        else:
            self._assign_mid(msg, use_mid)
            request = PendingRequest(msg, on_reply, on_inform, now, deadline, more)
            self._send_pending(request, msg)
        if deadline is not None and deadline < self._timer_deadline:
            self._set_timer(deadline)
        return request

    def _send_pending(self, request: PendingRequest, msg: Message) -> None:
        """Send *msg* and let *request* be pending, or raise and let nothing be pending."""
        pending = self._pending_requests
        is_hooked = (
            type(self).send_message is not DeviceClient.send_message
            or "send_message" in self.__dict__
        )
        pending.add(request)
        try:
            if is_hooked:
                pending.leave_to_program(request)
                self.send_message(msg)
            else:
                self._send(msg)
        except Exception:
            pending.take_back(request, left_to_program=is_hooked)
            raise
        except BaseException:
            # Ctrl-C may come after it was sent.
            pending.abandon(request)
            raise

    def _concurrent_request(
        self, name: str, msg: Message, timeout: Optional[float], use_mid: Optional[bool]
    ) -> ConcurrentFuture[Any]:
        """Begin a request here or in the loop, and return its future; any thread."""
        limit = check_timeout(timeout, self._request_timeout)
        future: ConcurrentFuture[Any] = ConcurrentFuture()
        begun: list[PendingRequest] = []
        request = (future, begun, msg, limit, use_mid)
        try:
            portal = self._started_portal(name)
            future.add_done_callback(functools.partial(self._end_if_cancelled, portal, begun))
            if portal.in_loop():
                self._begin_concurrent_request(*request)
            else:
                self._check_before_posting(msg)
                self._post(name, self._begin_concurrent_request, *request)
        except KatcpClientDisconnected as error:
            future.set_result((made_up_reply(msg, error), []))
        return future

    def _begin_concurrent_request(
        self,
        future: ConcurrentFuture[Any],
        begun: list[PendingRequest],
        msg: Message,
        timeout: Optional[float],
        use_mid: Optional[bool],
    ) -> None:
        """Begin a request for a future, unless that was cancelled already."""
        if future.cancelled():
            return
        informs: list[Message] = []

        def on_reply(reply: Message) -> None:
            # Another thread may cancel it at any moment.
            with contextlib.suppress(InvalidStateError):
                future.set_result((reply, informs))

        try:
            request = self._begin_request(msg, on_reply, informs.append, timeout, use_mid)
            request.wakes_thread = request.keeps_informs = True
            begun.append(request)
        except KatcpClientError as error:
            on_reply(made_up_reply(msg, error))
        except BaseException as error:
            with contextlib.suppress(InvalidStateError):
                future.set_exception(error)
            if isinstance(error, FATAL):
                raise

    def _check_before_posting(self, msg: Message) -> None:
        """Raise in the caller what could only be logged in the loop; any thread."""
        bytes(msg)
        # Read once: the loop may be about to send the same message for another thread.
        mid = msg.mid
        if mid is not None and type(mid) is not AssignedMid and self._server_protocol.message_ids:
            self._check_mid(mid)

    # The end of a request.

    def _fail_for_its_informs(self, request: PendingRequest) -> None:
        """Let a request end whose informs, which are all kept, take too much memory."""
        error = KatcpClientOverflow(
            f"The informs of request {shorten(request.name)} would take more memory than "
            f"MAX_INFORMS_SIZE ({self.MAX_INFORMS_SIZE} bytes)"
        )
        self._device_log.warning("%s: it has failed.", error)
        self._pending_requests.abandon(request)
        self._end_locally(request, error)

    def _log_reply_failure(self, reply: Message) -> None:
        failure = ""
        if reply.local_error is not None:
            failure = f"during failure {reply.local_error}, "
        self._device_log.error(
            "Callback reply %s%s FAIL: %s", failure, reply.name, self._traceback()
        )

    def _end_if_cancelled(
        self, portal: LoopPortal, begun: list[PendingRequest], future: ConcurrentFuture[Any]
    ) -> None:
        """Forget the request of a future that was cancelled; any thread."""
        if not future.cancelled():
            return
        # Who waits with concurrent.futures.wait() is not told before.
        future.set_running_or_notify_cancel()
        with contextlib.suppress(KatcpUsageError):
            portal.call_soon(self._forget_begun, begun)

    def _forget_begun(self, begun: list[PendingRequest]) -> None:
        for request in begun:
            self._forget(request)

    def _forget(self, request: PendingRequest) -> None:
        self._pending_requests.abandon(request)
        request.take_callback()

    def _note_sent(self, msg: Message) -> None:
        self._pending_requests.note_sent(msg)

    def _send_unclaimed(self, msg: Message) -> None:
        if self._held_requests is not None and self._held_requests.must_wait(msg, False):
            self._held_requests.add(None, msg, False)
        else:
            super()._send_unclaimed(msg)

    def _set_timer(self, deadline: float) -> None:
        """Let the timer go off at *deadline*, which is earlier than it would."""
        self._cancel_timer()
        loop = asyncio.get_running_loop()
        when = max(deadline, self._timer_rests_until)
        self._deadline_timer = loop.call_at(when, self._end_expired)
        self._timer_deadline = deadline

    def _cancel_timer(self) -> None:
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline_timer = None
        self._timer_deadline = math.inf

    def _end_expired(self) -> None:
        """Let the requests end whose time is over."""
        self._cancel_timer()
        now = asyncio.get_running_loop().time()
        ended: list[tuple[PendingRequest, KatcpClientError]] = []
        for request in self._pending_requests.take_expired(now):
            hint = ""
            if self._pending_requests.is_behind(request):
                hint = fallen_behind(request.name)
                self._renew_connection(hint)
            ended.append((request, timed_out(request.name, now - request.started, hint)))
        self._end_all(ended)
        self._timer_rests_until = now + len(self._pending_requests) * _REST_PER_REQUEST
        self._update_timer()

    def _renew_connection(self, reason: str) -> None:
        """Close the connection, if another one follows."""
        if self._auto_reconnect and self._device_connection is not None:
            self._device_connection.close(KatcpClientDisconnected(reason))

    def _update_timer(self) -> None:
        """Let the timer go off at the earliest deadline."""
        deadline = self._pending_requests.next_deadline()
        if deadline is not None and deadline < self._timer_deadline:
            self._set_timer(deadline)

    def _fail_pending(self, error: KatcpClientError) -> None:
        self._cancel_timer()
        self._timer_rests_until = -math.inf
        if self._held_requests is not None:
            self._held_requests.drop()
            self._held_requests = None
        # A thread that wakes must find what the callbacks did, as it always has.
        requests = sorted(self._pending_requests.take_all(), key=lambda r: r.wakes_thread)
        self._end_all((request, error) for request in requests)

    def _end_all(self, ended: Iterable[tuple[PendingRequest, KatcpClientError]]) -> None:
        """Answer all of several requests, whatever the callbacks raise."""
        fatal: Optional[BaseException] = None
        for request, error in ended:
            try:
                self._end_locally(request, error)
            except FATAL as raised:
                fatal = raised
        if fatal is not None:
            raise fatal

    def _end_locally(self, request: PendingRequest, error: KatcpClientError) -> None:
        """Answer a request, which is not pending any more, with a made-up reply."""
        more = request.more
        on_reply = request.take_callback()
        if on_reply is None:
            self._device_log.debug("Request %s, whose reply nobody awaits: %s", request.name, error)
            return
        self._call_back(self._log_reply_failure, on_reply, more, made_up_reply(request, error))


class CallbackClient(AsyncClient):
    """An `AsyncClient` that may be used from any thread.

    Its thread-safety features are enabled from the beginning. Parameters are
    those of `AsyncClient`.

    Attributes
    ----------
    daemon : bool
        Whether the thread of a managed ioloop is a daemon thread, which does
        not keep the interpreter from exiting. To be set before `start`.
    """

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
            timeout=timeout,
            logger=logger,
            auto_reconnect=auto_reconnect,
            max_msg_size=max_msg_size,
            max_write_buffer_size=max_write_buffer_size,
            ssl_options=ssl_options,
        )
        self.enable_thread_safety()

    @property
    def daemon(self) -> bool:
        """Whether the thread of a managed ioloop is a daemon thread."""
        return self._ioloop_manager.daemon

    @daemon.setter
    def daemon(self, daemonic: bool) -> None:
        self._ioloop_manager.setDaemon(daemonic)

    def setDaemon(self, daemonic: bool) -> None:  # noqa: N802  (the documented name)
        """Set daemonic state of the managed ioloop thread to True / False.

        Calling this method for a non-managed ioloop has no effect. Must be
        called before start(), or it will also have no effect.

        Parameters
        ----------
        daemonic : bool
            Whether the interpreter may exit while the client runs.
        """
        self._ioloop_manager.setDaemon(daemonic)


class BlockingClient(CallbackClient):
    """A `CallbackClient`, by the name that scripts with `blocking_request` use.

    Parameters are those of `AsyncClient`.

    Examples
    --------
    >>> client = katcp.BlockingClient("localhost", 7147)
    >>> client.start()
    >>> client.wait_protocol(timeout=5)
    True
    >>> reply, informs = client.blocking_request(katcp.Message.request("watchdog"))
    >>> client.stop()
    """


def request_check(
    client: AsyncClient, exception: type[Exception], *msg_parms: Any, **kwargs: Any
) -> tuple[Message, list[Message]]:
    """Make blocking request to client and raise exception if reply is not ok.

    Parameters
    ----------
    client : DeviceClient instance
        A client with `blocking_request`.
    exception : Exception class to raise
        It is raised with one argument, a text.
    *msg_parms : Message parameters sent to the Message.request() call
        The name of the request and its arguments.
    **kwargs : Keyword arguments
        Forwards kwargs['timeout'] to client.blocking_request().
        Forwards kwargs['mid'] to Message.request().

    Returns
    -------
    reply, informs : as returned by client.blocking_request

    Raises
    ------
    exception
        The one passed as parameter, if reply.reply_ok() is False.
    TypeError
        If there is another keyword argument.

    Notes
    -----
    A typical use-case for this function is to use functools.partial() to bind
    a particular client and exception. The resulting function can then be used
    instead of direct client.blocking_request() calls to automate error
    handling.
    """
    unknown = sorted(set(kwargs) - {"timeout", "mid"})
    if unknown:
        raise TypeError(f"request_check() got unexpected keyword argument(s) {unknown}")
    request = Message.request(*msg_parms, mid=kwargs.get("mid"))
    reply, informs = client.blocking_request(request, timeout=kwargs.get("timeout"))
    if not reply.reply_ok():
        raise exception(
            f'Unexpected failure reply "{reply}"\n'
            f' with device at {client.bind_address_string}, request \n"{request}"'
        )
    return reply, informs


def address_to_string(addr_tuple: tuple[Any, ...]) -> str:
    """Return an address as ``host:port``.

    Parameters
    ----------
    addr_tuple : tuple
        Host and port; what follows is left out.

    Returns
    -------
    str
    """
    return ":".join(str(part) for part in addr_tuple[:2])


def _retrieve(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _is_reply_to(request: Message, reply: Any) -> bool:
    return (
        isinstance(reply, Message) and reply.mtype == Message.REPLY and reply.name == request.name
    )


def _version_size(role: str, texts: tuple[str, ...]) -> int:
    """Return about how many bytes an entry of `versions` takes."""
    return _EMPTY_VERSION_SIZE + sum(map(sys.getsizeof, (role, texts, *texts)))


def _as_text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
