"""Resources for other threads than the loop's: calls that wait."""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Mapping
from typing import Any, Callable, Iterator

from tornado.util import TimeoutError as TornadoTimeoutError

from ..errors import KatcpClientTimeout
from ..ioloop_manager import IOLoopThreadWrapper, ThreadSafeMethodAttrWrapper
from ..resource import KATCPReply


class MappingProxy(Mapping[str, Any]):
    """A mapping whose values are wrapped when they are asked for.

    Parameters
    ----------
    mapping : mapping
        The mapping.
    wrapper : callable
        Called with a value, returns the wrapped one.
    """

    def __init__(self, mapping: Mapping[str, Any], wrapper: Callable[[Any], Any]) -> None:
        self._mapping = mapping
        self._wrapper = wrapper

    def __getitem__(self, key: str) -> Any:
        return self._wrapper(self._mapping[key])

    def __iter__(self) -> Iterator[str]:
        # It may change in the loop's thread.
        return iter(list(self._mapping))

    def __len__(self) -> int:
        return len(self._mapping)


class AttrMappingProxy(MappingProxy):
    """A `MappingProxy` whose items may be got as attributes."""

    def __getattr__(self, name: str) -> Any:
        if name in ("_mapping", "_wrapper"):
            # While it is copied, it has none yet.
            raise AttributeError(name)
        return self._wrapper(getattr(self._mapping, name))

    def __dir__(self) -> list[str]:
        return list(self)


class _Wrapper(ThreadSafeMethodAttrWrapper):
    """Raises what threads expect when a timeout has passed."""

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        return _for_threads(value) if callable(value) else value


def _for_threads(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except TornadoTimeoutError as error:
            raise concurrent.futures.TimeoutError(*error.args) from None

    return called


class ThreadSafeKATCPSensorWrapper(_Wrapper):
    """A `KATCPSensor` for other threads than the loop's."""

    @property
    def sampling_strategy(self) -> tuple[str, ...]:
        """How it is sampled."""
        return self.__subject__.sampling_strategy  # type: ignore[no-any-return]


class ThreadSafeKATCPClientResourceRequestWrapper(_Wrapper):
    """A `KATCPRequest`, or one of a group, for other threads than the loop's."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make the request and wait for its reply.

        Raises
        ------
        concurrent.futures.TimeoutError
            If a ``timeout`` is given, and there is no reply in time.
        """
        timeout = kwargs.get("timeout")
        reply = self._ioloop_wrapper.call_in_ioloop(self.__subject__, args, kwargs, timeout)
        if timeout is not None and isinstance(reply, KATCPReply):
            # Either timer may be the first to go off.
            error = reply.reply.local_error
            if isinstance(error, KatcpClientTimeout):
                raise concurrent.futures.TimeoutError(str(error))
        return reply


class ThreadSafeKATCPClientGroupWrapper(_Wrapper):
    """A `ClientGroup` for other threads than the loop's."""

    @property
    def clients(self) -> list[Any]:
        """The clients."""
        wrapper = self._ioloop_wrapper
        return [ThreadSafeKATCPClientResourceWrapper(c, wrapper) for c in self.__subject__.clients]

    @property
    def req(self) -> AttrMappingProxy:
        """The requests."""
        return _proxy(self, "req", ThreadSafeKATCPClientResourceRequestWrapper)


class ThreadSafeKATCPClientResourceWrapper(_Wrapper):
    """A `KATCPClientResource` or a container for other threads than the loop's.

    Its methods, and those of its requests and sensors, run in the loop; the calling thread
    waits for their results.

    Parameters
    ----------
    subject : KATCPResource
        The resource.
    ioloop_wrapper : katcp.ioloop_manager.IOLoopThreadWrapper
        The loop.

    Examples
    --------
    >>> manager = IOLoopManager(managed_default=True)
    >>> ioloop = manager.get_ioloop()
    >>> manager.start()
    >>> resource = KATCPClientResource(spec)
    >>> resource.set_ioloop(ioloop)
    >>> ioloop.add_callback(resource.start)
    >>> client = ThreadSafeKATCPClientResourceWrapper(resource, IOLoopThreadWrapper(ioloop))
    >>> client.until_synced(timeout=5)
    True
    >>> client.sensor.temperature.get_value()
    21.5
    """

    def wait(self, *args: Any, **kwargs: Any) -> bool:
        """Wait until a sensor shows a value; see `KATCPResource.wait`.

        Raises
        ------
        concurrent.futures.TimeoutError
            If a ``timeout`` is given, and the sensor does not show it in time.
        """
        timeout = kwargs.get("timeout")
        wait = self.__subject__.wait
        is_met = self._ioloop_wrapper.call_in_ioloop(wait, args, kwargs, timeout)
        if not is_met and timeout is not None:
            raise concurrent.futures.TimeoutError("Timeout")
        return bool(is_met)

    @property
    def children(self) -> AttrMappingProxy:
        """The resources that are parts of it."""
        return _proxy(self, "children", ThreadSafeKATCPClientResourceWrapper)

    @property
    def groups(self) -> AttrMappingProxy:
        """The groups of a container."""
        return _proxy(self, "groups", ThreadSafeKATCPClientGroupWrapper)

    @property
    def parent(self) -> Any:
        """The resource that it is a part of, or None."""
        parent = self.__subject__.parent
        if parent is None:
            return None
        return ThreadSafeKATCPClientResourceWrapper(parent, self._ioloop_wrapper)

    @property
    def req(self) -> AttrMappingProxy:
        """The requests."""
        return _proxy(self, "req", ThreadSafeKATCPClientResourceRequestWrapper)

    @property
    def sensor(self) -> AttrMappingProxy:
        """The sensors."""
        return _proxy(self, "sensor", ThreadSafeKATCPSensorWrapper)

    sensors = sensor


def _proxy(
    wrapped: Any, name: str, cls: Callable[[Any, IOLoopThreadWrapper], Any]
) -> AttrMappingProxy:
    """Return a mapping of a wrapped object, with its values wrapped."""
    mapping = getattr(wrapped.__subject__, name)
    return AttrMappingProxy(mapping, lambda value: cls(value, wrapped._ioloop_wrapper))
