"""The clients that may be used from any thread."""

from __future__ import annotations

import ssl
from typing import Any, Optional, Union

from .._wire.message import Message
from ._async import AsyncClient
from ._device import _default_logger


class CallbackClient(AsyncClient):
    """An `AsyncClient` that may be used from any thread.

    Its thread-safety features are enabled from the beginning. Parameters are
    those of `AsyncClient`.

    Attributes
    ----------
    daemon : bool
        Whether the thread of a managed ioloop is a daemon thread, which does not keep the
        interpreter from exiting. Set it before `start`.
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
        return self._session.run.manager.daemon

    @daemon.setter
    def daemon(self, daemonic: bool) -> None:
        self._session.run.manager.setDaemon(daemonic)

    def setDaemon(self, daemonic: bool) -> None:  # noqa: N802  (the documented name)
        """Set daemonic state of the managed ioloop thread to True / False.

        Calling this method for a non-managed ioloop has no effect. Must be
        called before start(), or it will also have no effect.

        Parameters
        ----------
        daemonic : bool
            Whether the interpreter may exit while the client runs.
        """
        self._session.run.manager.setDaemon(daemonic)


class BlockingClient(CallbackClient):
    """A `CallbackClient`, under the name used by scripts with `blocking_request`.

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
        Raised with one argument, a text.
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
