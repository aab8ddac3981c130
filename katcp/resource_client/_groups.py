"""Several devices: containers of resource clients, and groups of them."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from typing import Any, Awaitable, Callable, Generator, Iterable, Mapping, Optional, Union

from tornado import gen
from tornado.ioloop import IOLoop

from .._runtime.events import until_any
from .._runtime.tasks import spawn
from ..compat import AttrDict
from ..resource import KATCPResource, escape_name
from ._manager import default_logger
from ._resource import KATCPClientResource


class GroupResults(dict):  # type: ignore[type-arg]
    """What the clients of a group answered, by name: true if all of them succeeded."""

    def __bool__(self) -> bool:
        return self.succeeded

    @property
    def succeeded(self) -> bool:
        """Whether all of them succeeded."""
        return all(self.values())


class _QuorumResults(GroupResults):
    """Which clients fulfil a condition: true if they are enough."""

    quorum = 0

    @property
    def succeeded(self) -> bool:
        """Whether they are enough."""
        return sum(map(bool, self.values())) >= self.quorum


class GroupRequest:
    """A request of a group; call it to make the request of all clients that have it.

    Parameters
    ----------
    group : ClientGroup
        The group.
    name, description : str
        What the devices say of the request.
    """

    def __init__(self, group: ClientGroup, name: str, description: str) -> None:
        self.group = group
        self.name = name
        self.description = description
        # What interactive shells show.
        self.__doc__ = description

    @gen.coroutine
    def __call__(self, *args: Any, **kwargs: Any) -> Generator[Any, Any, GroupResults]:
        """Make the request.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with `GroupResults`; None for clients that do not have the request.
        """
        identifier = escape_name(self.name)
        replies: dict[str, Any] = {client.name: None for client in self.group.clients}
        for client in self.group.clients:
            if identifier in client.req:
                replies[client.name] = client.req[identifier](*args, **kwargs)
        pending = {name: reply for name, reply in replies.items() if reply is not None}
        replies.update((yield pending))
        return GroupResults(replies)


class ClientGroup:
    """Several clients that are asked together.

    Parameters
    ----------
    name : str
        The name.
    clients : sequence of KATCPClientResource
        The clients.
    """

    def __init__(self, name: str, clients: Iterable[KATCPClientResource]) -> None:
        self.name = name
        self.clients = tuple(clients)

    @property
    def req(self) -> AttrDict:
        """The requests that any client has now, by escaped name."""
        return AttrDict(
            {
                identifier: GroupRequest(self, request.name, request.description)
                for client in self.clients
                for identifier, request in dict.items(client.req)
            }
        )

    def client_updated(self, client: KATCPClientResource) -> None:
        """Do nothing: `req` is always up to date. Kept for old programs."""

    def is_connected(self) -> bool:
        """Return whether all clients are connected."""
        return all(client.is_connected() for client in self.clients)

    def set_sampling_strategy(self, sensor_name: str, strategy_and_params: Any) -> Any:
        """Have a sensor of all clients sampled; see `KATCPResource.set_sampling_strategy`.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with a dict from the name of a client to what that returns.
        """
        return gen.multi(
            {
                client.name: client.set_sampling_strategy(sensor_name, strategy_and_params)
                for client in self.clients
            }
        )

    def set_sampling_strategies(self, filter: str, strategy_and_params: Any) -> Any:
        """Have sensors of all clients sampled; see `KATCPResource.set_sampling_strategies`.

        Returns
        -------
        tornado.concurrent.Future
            As for `set_sampling_strategy`.
        """
        return gen.multi(
            {
                client.name: client.set_sampling_strategies(filter, strategy_and_params)
                for client in self.clients
            }
        )

    def wait(
        self,
        sensor_name: str,
        condition_or_value: Any,
        timeout: Optional[float] = 5.0,
        quorum: Optional[Union[int, float]] = None,
        max_grace_period: float = 1.0,
    ) -> Awaitable[GroupResults]:
        """Wait until a sensor shows a value, at all clients or at enough of them.

        Parameters
        ----------
        sensor_name : str
            The name, escaped or not.
        condition_or_value : callable or object
            As for `KATCPSensor.wait`.
        timeout : float in seconds, optional
            How long to wait.
        quorum : int or float, optional
            How many are enough: a number, or as a float a part of them. Default: all.
        max_grace_period : float in seconds, optional
            How long to wait for the others when there are enough.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with a dict from the name of a client to whether its sensor shows the
            value; the dict is true if they are enough.
        """
        waiting = {
            client.name: asyncio.ensure_future(
                client.wait(sensor_name, condition_or_value, timeout)
            )
            for client in self.clients
        }
        if quorum is None:
            quorum = len(waiting)
        elif isinstance(quorum, float):
            quorum = math.ceil(quorum * len(waiting))
        return spawn(_until_enough(waiting, quorum, max_grace_period))


async def _until_enough(
    waiting: Mapping[str, asyncio.Future[bool]], quorum: int, max_grace_period: float
) -> GroupResults:
    pending = set(waiting.values())
    for future in pending:
        # The first error is raised; others are no news.
        future.add_done_callback(asyncio.Future.exception)
    count = 0
    while pending and count < quorum:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        count += sum(future.result() for future in done)
    if pending:
        await asyncio.wait(pending, timeout=max_grace_period)
    results = _QuorumResults(
        {name: future.done() and future.result() for name, future in waiting.items()}
    )
    results.quorum = quorum
    return results


class KATCPClientResourceContainer(KATCPResource):
    """Several devices as one resource: their names come before those of requests and sensors.

    Parameters
    ----------
    resources_spec : dict
        With the keys ``name`` and ``clients``, a dict from name to specification as for
        `KATCPClientResource`; and perhaps ``description`` and ``groups``, a dict from name to
        the names of clients.
    logger : logging.Logger, optional
        Where to log.

    Raises
    ------
    KeyError
        If a key is missing, or a group names a client that there is not.
    """

    def __init__(
        self, resources_spec: Mapping[str, Any], logger: logging.Logger = default_logger
    ) -> None:
        super().__init__()
        self._name = resources_spec["name"]
        self._description = resources_spec.get("description", "")
        self._logger = logger
        self._groups = AttrDict()
        self._is_started = False
        self.ioloop: Optional[IOLoop] = None
        for name, spec in resources_spec["clients"].items():
            self.add_child_resource_client(name, spec)
        for name, client_names in resources_spec.get("groups", {}).items():
            self.add_group(name, client_names)

    def __repr__(self) -> str:
        cls = type(self)
        return f"<{cls.__module__}.{cls.__name__}(name={self.name}) at {id(self):#x}>"

    @property
    def _clients(self) -> list[tuple[str, KATCPClientResource]]:
        return list(dict.items(self._children))

    @property
    def groups(self) -> AttrDict:
        """The groups, by escaped name."""
        return self._groups

    @property
    def req(self) -> AttrDict:
        """The requests that devices have now: ``yield container.req.dev_help()``."""
        return AttrDict(
            {
                f"{prefix}_{identifier}": request
                for prefix, client in self._clients
                for identifier, request in dict.items(client.req)
            }
        )

    @property
    def sensor(self) -> AttrDict:
        """The sensors that devices have now: ``container.sensor.dev_a_b``."""
        return AttrDict(
            {
                f"{prefix}_{identifier}": sensor
                for prefix, client in self._clients
                for identifier, sensor in dict.items(client.sensor)
            }
        )

    sensors = sensor

    def client_resource_factory(
        self, res_spec: Mapping[str, Any], parent: KATCPResource, logger: logging.Logger
    ) -> KATCPClientResource:
        """Return a client; for subclasses.

        Parameters
        ----------
        res_spec, parent, logger
            As for `KATCPClientResource`.

        Returns
        -------
        KATCPClientResource
        """
        return KATCPClientResource(res_spec, parent=parent, logger=logger)

    def add_child_resource_client(
        self, res_name: str, res_spec: Mapping[str, Any]
    ) -> KATCPClientResource:
        """Add a device; it is started if the others are.

        Parameters
        ----------
        res_name : str
            Its name.
        res_spec : dict
            As for `KATCPClientResource`, without name.

        Returns
        -------
        KATCPClientResource
        """
        spec = dict(res_spec, name=res_name)
        child = self.client_resource_factory(spec, parent=self, logger=self._logger)
        self._children[escape_name(res_name)] = child
        if self.ioloop is not None:
            child.set_ioloop(self.ioloop)
        if self._is_started:
            child.start()
        return child

    def add_group(self, group_name: str, group_client_names: Iterable[str]) -> None:
        """Add a group.

        Parameters
        ----------
        group_name : str
            Its name.
        group_client_names : sequence of str
            The names of its clients.
        """
        clients = [self._children[escape_name(name)] for name in group_client_names]
        self._groups[escape_name(group_name)] = ClientGroup(group_name, clients)

    # Start and stop.

    def set_ioloop(self, ioloop: Optional[IOLoop] = None) -> None:
        """Set the loop to run in; before the start.

        Parameters
        ----------
        ioloop : tornado.ioloop.IOLoop, optional
            The loop. Default: the current one.
        """
        self.ioloop = ioloop or IOLoop.current()
        for _, client in self._clients:
            client.set_ioloop(self.ioloop)

    def start(self) -> None:
        """Start all clients."""
        self._is_started = True
        for _, client in self._clients:
            client.start()

    def stop(self) -> None:
        """Stop all clients."""
        self._is_started = False
        for _, client in self._clients:
            client.stop()

    def is_connected(self) -> bool:
        """Return whether all clients are connected."""
        return all(client.is_connected() for _, client in self._clients)

    # Waiting.

    def until_stopped(self, timeout: Optional[float] = None) -> Any:
        """Return a future that resolves when all clients have stopped."""
        return gen.multi({name: client.until_stopped(timeout) for name, client in self._clients})

    @gen.coroutine
    def until_all_children_in_state(
        self, state: str, timeout: Optional[float] = None
    ) -> Generator[Any, Any, None]:
        """Wait until all clients are in a state; see `KATCPClientResource.until_state`."""
        yield [client.until_state(state, timeout) for _, client in self._clients]

    def until_any_child_in_state(self, state: str, timeout: Optional[float] = None) -> Any:
        """Wait until any client is in a state; see `KATCPClientResource.until_state`."""
        return until_any(*(client.until_state(state, timeout) for _, client in self._clients))

    def until_synced(self, timeout: Optional[float] = None) -> Any:
        """Wait until all clients are synced; see `KATCPClientResource.until_state`."""
        return self.until_all_children_in_state("synced", timeout)

    @gen.coroutine
    def until_not_synced(self, timeout: Optional[float] = None) -> Generator[Any, Any, None]:
        """Wait until any client is not synced; see `KATCPClientResource.until_state`."""
        yield until_any(*(client.until_not_synced(timeout) for _, client in self._clients))

    # Sensors.

    def _split(self, sensor_name: str) -> tuple[str, KATCPClientResource, str]:
        """Return whose a sensor is, and its name there."""
        identifier = escape_name(sensor_name)
        for prefix, client in sorted(self._clients, reverse=True):
            if identifier.startswith(f"{prefix}_"):
                return prefix, client, identifier[len(prefix) + 1 :]
        raise KeyError(sensor_name)

    @gen.coroutine
    def _delegate(
        self, sensor_name: str, call: Callable[[KATCPClientResource, str], Any]
    ) -> Generator[Any, Any, dict[str, Any]]:
        """Call a method of the client whose a sensor is, and return what it returns."""
        try:
            prefix, client, name = self._split(sensor_name)
        except KeyError:
            return {}
        result = yield call(client, name)
        return {f"{prefix}_{identifier}": value for identifier, value in result.items()}

    def set_sampling_strategy(self, sensor_name: str, strategy_and_parms: Any) -> Any:
        """Have a sensor sampled; see `KATCPResource.set_sampling_strategy`."""
        return self._delegate(
            sensor_name, lambda client, name: client.set_sampling_strategy(name, strategy_and_parms)
        )

    def set_sensor_listener(self, sensor_name: str, listener: Callable[..., Any]) -> Any:
        """Call a function with readings; see `KATCPClientResource.set_sensor_listener`."""
        return self._delegate(
            sensor_name, lambda client, name: client.set_sensor_listener(name, listener)
        )

    @gen.coroutine
    def set_sampling_strategies(
        self, filter: str, strategy_and_parms: Any
    ) -> Generator[Any, Any, dict[str, Any]]:
        """Have sensors sampled; see `KATCPResource.set_sampling_strategies`."""
        regex = re.compile(filter)
        identifiers = [identifier for identifier in self.sensor if regex.search(identifier)]
        results = yield [self.set_sampling_strategy(i, strategy_and_parms) for i in identifiers]
        return {identifier: value for result in results for identifier, value in result.items()}
