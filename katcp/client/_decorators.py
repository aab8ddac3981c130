"""Decorators for methods that may be called from any thread."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, TypeVar, cast

from .._runtime.portal import DEFAULT_CALL_TIMEOUT

_Method = TypeVar("_Method", bound=Callable[..., Any])


def make_threadsafe(meth: _Method) -> _Method:
    """Decorate a DeviceClient method that should always run in the ioloop.

    Used with `DeviceClient.enable_thread_safety`. If that is not called the method is unprotected,
    and it is the user's responsibility to call it from the ioloop only. Should only be used for
    methods without a return value: a call from another thread returns None at once, and exceptions
    of the method are logged.

    Parameters
    ----------
    meth : function
        The method.

    Returns
    -------
    function
        The method, safe to be called from any thread, bound or unbound.

    Examples
    --------
    >>> class MyClient(katcp.CallbackClient):
    ...     @make_threadsafe
    ...     def set_mode(self, mode):
    ...         self.mode = mode
    """

    @functools.wraps(meth)
    def threadsafe_meth(self: Any, *args: Any, **kwargs: Any) -> Any:
        portal = self._session.portal_to_enter(meth.__name__)
        if portal is None:
            return meth(self, *args, **kwargs)
        portal.call_soon(meth, self, *args, **kwargs)
        return None

    return cast(_Method, threadsafe_meth)


def make_threadsafe_blocking(meth: _Method) -> _Method:
    """Decorate a DeviceClient method that will block.

    Used with `DeviceClient.enable_thread_safety`. A call from another thread runs the method in the
    ioloop, waits, and returns its result or raises its exception; a future or a coroutine is
    awaited first. A call in ioloop context calls the original method directly, to prevent
    deadlocks.

    The keyword argument ``timeout`` (seconds, default 5, None for no limit) limits the blocking
    time. It is passed on to a method that has a parameter of that name, which may then also be
    positional.

    Parameters
    ----------
    meth : function or coroutine function
        The method.

    Returns
    -------
    function
        The method, safe to be called from any thread, bound or unbound.

    Raises
    ------
    concurrent.futures.TimeoutError
        By the decorated method, if it takes longer than ``timeout``.

    Examples
    --------
    >>> class MyClient(katcp.CallbackClient):
    ...     @make_threadsafe_blocking
    ...     async def read_twice(self, name):
    ...         first = await self.future_request(katcp.Message.request("read", name))
    ...         second = await self.future_request(katcp.Message.request("read", name))
    ...         return first, second
    """
    signature = inspect.signature(meth)
    takes_timeout = "timeout" in signature.parameters

    @functools.wraps(meth)
    def threadsafe_meth(self: Any, *args: Any, **kwargs: Any) -> Any:
        if takes_timeout:
            given = signature.bind(self, *args, **kwargs).arguments
            limit = given.get("timeout", DEFAULT_CALL_TIMEOUT)
        else:
            limit = kwargs.pop("timeout", DEFAULT_CALL_TIMEOUT)
        portal = self._session.portal_to_enter(meth.__name__)
        if portal is None:
            return meth(self, *args, **kwargs)
        return portal.call(functools.partial(meth, self, *args, **kwargs), timeout=limit)

    return cast(_Method, threadsafe_meth)
