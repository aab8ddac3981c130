"""The sensors of the device: which there are, and what those that are watched show.

All of it runs in the loop's thread. Consumers are given readings; the sampling that they
want is set on the device, and set again after every reconnect and after the device has said
that its interface changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Iterator, Optional, Protocol, Sequence

from tornado.util import TimeoutError as TornadoTimeoutError

from .._runtime.tasks import spawn
from .._state.readings import Reading, Status
from .._state.replies import Answer, KatcpReplyError, answer_of
from .._state.subscriptions import NONE, Strategy, Subscriptions
from .._wire.flags import SEC_TS_KATCP_MAJOR
from .._wire.message import Message
from .._wire.text import as_text, shorten
from ..errors import (
    KatcpClientError,
    KatcpClientTimeout,
    KatcpSensorError,
)
from ._addresses import address_to_string
from ._descriptions import Description, Reader, reader_of, triples_of
from ._patterns import Pattern, matcher_of, regex_of
from ._session import Session
from ._sinks import FutureSink, ReplyFuture

# How much memory the answer to ?sensor-list may take, in bytes.
_MAX_ANSWER_SIZE = 256 * 1024 * 1024

# How long the greeting of a device is waited for; then it is taken for version 4.
GREETING_TIMEOUT = 2.0

# How many requests for sampling are in flight together.
_MAX_IN_FLIGHT = 100

# How many sensors are named in one request, where the device allows several.
_MAX_IN_BULK = 500

# For fewer sensors than this, each is asked for by its name.
_FEW = 20


class Consumer(Protocol):
    """Who is given readings; in the loop's thread."""

    patterns: Sequence[Pattern]
    strategy: Strategy
    is_over: bool

    def put_reading(self, name: str, reading: Reading) -> None:
        """Take a reading."""

    def end(self) -> None:
        """Take no more: the client has stopped."""


class _Watched:
    """A sensor that somebody hears of."""

    __slots__ = ("consumers", "reader", "reading")

    def __init__(self, reader: Reader) -> None:
        self.consumers: tuple[Consumer, ...] = ()
        self.reading: Optional[Reading] = None
        self.reader = reader

    @property
    def description(self) -> Description:
        return self.reader.description

    @property
    def is_current(self) -> bool:
        """Whether the device has sent its reading on this connection."""
        return self.reading is not None and self.reading.status is not Status.UNREACHABLE


class Tracker:
    """The sensors of one device.

    Parameters
    ----------
    session : Session
        The session of the client.

    Attributes
    ----------
    descriptions : dict
        What the device has told of its sensors on this connection, by name.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._log = session.log
        self.descriptions: dict[str, Description] = {}
        # Has it told of all?
        self._is_complete = False
        # Whether its greeting on this connection was waited for in vain.
        self._is_silent = False
        # By their names as they come.
        self._watched: dict[bytes, _Watched] = {}
        self._subscriptions: Subscriptions[Consumer] = Subscriptions()
        # Sensors that somebody wants and that are not there now.
        self._vanished: set[str] = set()
        self._consumers: dict[Consumer, None] = {}
        # Whose first strategies are being set, and why one was refused.
        self._joining: dict[Consumer, Optional[KatcpClientError]] = {}
        self._syncing: Optional[asyncio.Future[None]] = None
        # Sensors to look at again, None for all; and the task that does it.
        self._changed: set[Optional[str]] = set()
        self._restoring: Optional[asyncio.Future[None]] = None
        own_informs = session.dispatcher.own_informs
        own_informs["sensor-status"] = self._on_sensor_status
        own_informs["interface-changed"] = self._on_interface_changed
        own_informs["device-changed"] = self._on_interface_changed
        session.dispatcher.connection_callbacks.add(None, self._on_connection)
        session.run.at_end.append(self._on_end)

    # Asking the device.

    async def _ask(self, name: str, *args: Any, timeout: Optional[float] = None) -> Answer:
        """Make a request that must succeed, and await the answer."""
        session = self._session
        portal = session.portal_of_run(name)
        future = ReplyFuture(loop=portal.asyncio_loop)
        future.sink = sink = FutureSink(session.requester, _MAX_ANSWER_SIZE, future)
        limit = session.timeout if timeout is None else timeout
        session.begin(name, Message.request(name, *args), sink, limit, None)
        return answer_of(*await future)

    async def _major(self) -> int:
        """Return the major version of the device's protocol; 4 if it does not say."""
        protocol = self._session.protocol
        if protocol.flags is None and not self._is_silent:
            try:
                await self._session.run.events["protocol"].until_set(GREETING_TIMEOUT)
            except TornadoTimeoutError:
                self._is_silent = True
        return 4 if protocol.flags is None else protocol.flags.major

    # Which sensors there are.

    async def find(self, pattern: Pattern, timeout: Optional[float] = None) -> list[Description]:
        """Return what the device says of the sensors that a name or a pattern stands for.

        Only these are asked for, where the device can do that.
        """
        if not self._is_complete:
            regex = regex_of(pattern)
            if regex is None:
                return [await self.describe(str(pattern), timeout)]
            major = await self._major()
            is_selective = pattern != "*" and major >= SEC_TS_KATCP_MAJOR
            if not is_selective or await self.list_some(f"/{regex}/", timeout) is None:
                await self.list_all(timeout)
        matches = matcher_of(pattern)
        return [found for name, found in self.descriptions.items() if matches(name)]

    async def describe(self, name: str, timeout: Optional[float] = None) -> Description:
        """Return what the device says of one sensor."""
        description = self.descriptions.get(name)
        if description is None and not self._is_complete:
            try:
                await self.list_some(name, timeout, must_succeed=True)
            except KatcpReplyError as error:
                raise self._no_sensor(name, f": {error}") from error
            description = self.descriptions.get(name)
        if description is None:
            raise self._no_sensor(name)
        return description

    async def list_all(self, timeout: Optional[float]) -> None:
        """Ask for the descriptions of all sensors."""
        known, self.descriptions = self.descriptions, {}
        try:
            await self.list_some(None, timeout, must_succeed=True)
        except BaseException:
            self.descriptions = known
            raise
        self._is_complete = True

    async def list_some(
        self, name: Optional[str], timeout: Optional[float], must_succeed: bool = False
    ) -> Optional[list[str]]:
        """Ask for descriptions, None for all; return whose came, None if the device refuses."""
        arguments = () if name is None else (name,)
        try:
            answer = await self._ask("sensor-list", *arguments, timeout=timeout)
        except KatcpReplyError:
            if must_succeed:
                raise
            return None
        names = []
        for inform in answer.informs:
            if len(inform.arguments) >= 4:
                found, *texts = map(as_text, inform.arguments[:4])
                params = tuple(inform.arguments[4:])
                self.descriptions[found] = Description(found, texts[0], texts[1], texts[2], params)
                names.append(found)
        return names

    def _no_sensor(self, name: str, reason: str = "") -> KatcpSensorError:
        return KatcpSensorError(f"{self.address()} has no sensor {name!r}{reason}")

    def address(self) -> str:
        """Return which device it is; any thread."""
        return address_to_string(self._session.client._bindaddr)

    # Readings.

    async def read(self, name: str, timeout: Optional[float] = None) -> Reading:
        """Ask the device for a reading."""
        description = await self.describe(name, timeout)
        major = await self._major()
        try:
            answer = await self._ask("sensor-value", name, timeout=timeout)
        except KatcpReplyError as error:
            raise self._no_sensor(name, f": {error}") from error
        raw_name = name.encode("utf-8", "surrogateescape")
        for inform in answer.informs:
            for found, *raw in triples_of(inform):
                if found == raw_name:
                    return self._reading(reader_of(description, major), inform.arguments[0], *raw)
        raise KatcpSensorError(f"{self.address()} has sent no value of sensor {name!r}")

    async def read_all(
        self, patterns: Sequence[Pattern], timeout: Optional[float] = None
    ) -> dict[str, Reading]:
        """Ask the device for the readings of sensors, with one request if they are many."""
        wanted = {
            description.name: description
            for pattern in patterns
            for description in await self.find(pattern, timeout)
        }
        major = await self._major()
        asked = [(name,) for name in wanted] if len(wanted) < _FEW else [()]
        answers = await asyncio.gather(*(self._values(timeout, *names) for names in asked))
        readings = {}
        for inform in (inform for informs in answers for inform in informs):
            for raw_name, *raw in triples_of(inform):
                description = wanted.get(as_text(raw_name))
                if description is not None:
                    readings[description.name] = self._reading_or_unknown(
                        reader_of(description, major), inform.arguments[0], *raw
                    )
        return readings

    async def _values(self, timeout: Optional[float], *names: str) -> list[Message]:
        """Return the informs of ``?sensor-value``; none of a sensor that has vanished."""
        try:
            return (await self._ask("sensor-value", *names, timeout=timeout)).informs
        except KatcpReplyError:
            if names:
                return []
            raise

    def _reading_or_unknown(self, reader: Reader, *raw_reading: bytes) -> Reading:
        """Return a reading as `_reading`; one that makes no sense is logged, and unknown."""
        try:
            return self._reading(reader, *raw_reading)
        except KatcpSensorError as error:
            self._log.warning("%s", error)
            return Reading(time.time(), Status.UNKNOWN, None)

    def _reading(
        self, reader: Reader, raw_time: bytes, raw_status: bytes, raw_value: bytes
    ) -> Reading:
        """Return a reading, or raise the error that names what is wrong with it."""
        description = reader.description
        status = _STATUSES.get(raw_status, Status.UNKNOWN)
        value = None
        try:
            value = reader.read_value(raw_value)
        except ValueError:
            if description.type == "discrete":
                value = as_text(raw_value)
                self.warn(description.name, f"an option that it has not listed: {value!r}")
            elif status.is_usable:
                what = f"value of type {description.type}"
                raise self._unreadable(description.name, what, raw_value) from None
        try:
            timestamp = reader.read_time(raw_time)
        except ValueError:
            raise self._unreadable(description.name, "timestamp", raw_time) from None
        return Reading(timestamp, status, value)

    def _unreadable(self, name: str, what: str, data: bytes) -> KatcpSensorError:
        return KatcpSensorError(
            f"{self.address()} sensor {name}: {shorten(repr(data), 200)} is no {what}"
        )

    def warn(self, name: str, what: str) -> None:
        """Log what is odd about a sensor."""
        self._log.warning("%s sensor %s: %s", self.address(), name, what)

    def _on_sensor_status(self, msg: Message) -> None:
        """Give the readings of a ``#sensor-status`` to those who want them."""
        for raw_name, raw_status, raw_value in triples_of(msg):
            watched = self._watched.get(raw_name)
            if watched is None:
                continue
            raw_time, reader = msg.arguments[0], watched.reader
            try:
                reading = Reading(
                    reader.read_time(raw_time), _STATUSES[raw_status], reader.read_value(raw_value)
                )
            except (KeyError, ValueError):
                # Consumers must be given it, and the next one.
                reading = self._reading_or_unknown(reader, raw_time, raw_status, raw_value)
            self._put(watched, reading)

    def _put(self, watched: _Watched, reading: Reading) -> None:
        watched.reading = reading
        for consumer in watched.consumers:
            consumer.put_reading(watched.description.name, reading)

    # Consumers.

    async def subscribe(self, consumer: Consumer, timeout: Optional[float] = None) -> list[str]:
        """Give *consumer* the readings of the sensors that it wants; return their names."""
        descriptions = {}
        for pattern in consumer.patterns:
            found = await self.find(pattern, timeout)
            if not found:
                raise KatcpSensorError(f"{self.address()} has no sensor like {pattern!r}")
            descriptions.update({description.name: description for description in found})
        major = await self._major()
        if consumer.is_over:
            return []  # it was closed meanwhile
        self._consumers[consumer] = self._joining[consumer] = None
        try:
            for description in descriptions.values():
                self._add(consumer, description, major)
            await self._sync()
            error = self._joining[consumer]
        except BaseException:
            self.unsubscribe(consumer)
            raise
        finally:
            self._joining.pop(consumer, None)
        if error is not None:
            self.unsubscribe(consumer)
            raise error
        return list(descriptions)

    def _add(self, consumer: Consumer, description: Description, major: int) -> None:
        name = description.name
        raw_name = name.encode("utf-8", "surrogateescape")
        watched = self._watched.get(raw_name)
        if watched is None:
            watched = self._watched[raw_name] = _Watched(reader_of(description, major))
        elif watched.reading is not None and watched.consumers:
            consumer.put_reading(name, watched.reading)
        self._subscriptions.add(name, consumer, consumer.strategy)
        watched.consumers = self._subscriptions.consumers(name)

    def unsubscribe(self, consumer: Consumer) -> None:
        """Give *consumer* no more readings; what nobody wants any more is not sampled."""
        self._consumers.pop(consumer, None)
        for raw_name, watched in list(self._watched.items()):
            if consumer in watched.consumers:
                name = watched.description.name
                self._subscriptions.remove(name, consumer)
                watched.consumers = self._subscriptions.consumers(name)
                if not watched.consumers:
                    del self._watched[raw_name]
        if self._session.requester.connection is not None:
            spawn(self._sync_logged())

    def want(self, name: str, consumer: Consumer, strategy: Strategy) -> Strategy:
        """Note what a consumer wants that takes readings elsewhere; return what all want."""
        if strategy == NONE:
            self._subscriptions.remove(name, consumer)
        else:
            self._subscriptions.add(name, consumer, strategy)
        return self._subscriptions.wanted(name)

    async def _sync_logged(self) -> None:
        # Without a connection there is no sampling that could be switched off.
        with contextlib.suppress(KatcpClientError):
            await self._sync()

    # Sampling.

    async def _sync(self) -> None:
        """Set on the device what consumers want, and wait until that is done."""
        # One that is done has not seen what was wanted since, even if nobody knows yet of its end.
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.ensure_future(self._set_all())
            self._syncing.add_done_callback(_take_error)
        await asyncio.shield(self._syncing)

    async def _set_all(self) -> None:
        while True:
            changes = {
                name: strategy
                for name, strategy in self._subscriptions.take_changes().items()
                if name not in self._vanished
            }
            if not changes:
                return
            for name, error in (await self.set_sampling(changes)).items():
                self._note_refused(name, changes[name], error)

    async def set_sampling(self, changes: dict[str, Strategy]) -> dict[str, KatcpClientError]:
        """Set strategies on the device, by sensor; return those that failed, and why."""
        major = await self._major()
        flags = self._session.protocol.flags
        if flags is not None and flags.bulk_set_sensor_sampling and len(changes) > 1:
            changes = await self._set_in_bulk(changes, major)
        failed: dict[str, KatcpClientError] = {}
        left = iter(changes.items())
        count = min(len(changes), _MAX_IN_FLIGHT)
        await asyncio.gather(*(self._set_each(left, major, failed) for _ in range(count)))
        return failed

    async def _set_in_bulk(self, changes: dict[str, Strategy], major: int) -> dict[str, Strategy]:
        """Set strategies of several sensors at once; return those that have to be set singly."""
        groups: dict[tuple[bytes, ...], list[str]] = {}
        for name, strategy in changes.items():
            arguments = strategy.arguments(self._type_of(name), major)
            groups.setdefault(tuple(arguments), []).append(name)
        left = {}
        for arguments_, names in groups.items():
            for start in range(0, len(names), _MAX_IN_BULK):
                some = names[start : start + _MAX_IN_BULK]
                try:
                    await self._ask("sensor-sampling", ",".join(some), *arguments_)
                except KatcpReplyError:
                    # One of them has vanished, or refuses: all or nothing.
                    left.update({name: changes[name] for name in some})
                else:
                    for name in some:
                        self._subscriptions.note_set(name, changes[name])
        return left

    async def _set_each(
        self,
        changes: Iterator[tuple[str, Strategy]],
        major: int,
        failed: dict[str, KatcpClientError],
    ) -> None:
        """Set one strategy after the other; several do so together."""
        for name, strategy in changes:
            arguments = strategy.arguments(self._type_of(name), major)
            try:
                await self._ask("sensor-sampling", name, *arguments)
            except (KatcpReplyError, KatcpClientTimeout) as error:
                failed[name] = error
            else:
                self._subscriptions.note_set(name, strategy)
                if major < SEC_TS_KATCP_MAJOR:
                    await self._put_present(name)

    async def _put_present(self, name: str) -> None:
        """Give the present reading of a sensor, which devices of version 4 need not send."""
        watched = self._watched_of(name)
        if watched is not None and not watched.is_current:
            with contextlib.suppress(KatcpSensorError, KatcpClientTimeout):
                reading = await self.read(name)
                if not watched.is_current:
                    self._put(watched, reading)

    def _watched_of(self, name: str) -> Optional[_Watched]:
        return self._watched.get(name.encode("utf-8", "surrogateescape"))

    def _type_of(self, name: str) -> str:
        watched = self._watched_of(name)
        description = self.descriptions.get(name) if watched is None else watched.description
        return "" if description is None else description.type

    def _note_refused(self, name: str, strategy: Strategy, error: KatcpClientError) -> None:
        """Tell those who have just asked for a strategy that the device refuses it."""
        if strategy == NONE and isinstance(error, KatcpReplyError):
            # The sensor is not there any more.
            self._subscriptions.note_set(name, NONE)
        text = f"{self.address()} sensor {name} cannot be sampled with {str(strategy)!r}: {error}"
        for consumer in self._subscriptions.consumers(name):
            if consumer.strategy != strategy:
                continue
            if consumer in self._joining:
                if isinstance(error, KatcpReplyError):
                    error = KatcpReplyError(text, error.reply, error.informs)
                self._joining[consumer] = error
                self._subscriptions.remove(name, consumer)
            else:
                self._log.warning("%s", text)

    # Changes.

    def _on_connection(self, connected: bool) -> None:
        self.descriptions.clear()
        self._is_complete = False
        self._is_silent = False
        if connected:
            self._subscriptions.note_connected()
            self._restore_soon(None)
            return
        for watched in self._watched.values():
            self._put_unreachable(watched)

    def _on_interface_changed(self, msg: Message) -> None:
        kind, *names = [as_text(argument) for argument in msg.arguments[:2]] or ["sensor-list"]
        if kind == "sensor" and names:
            self._restore_soon(names[0])
        elif kind == "sensor-list":
            self.descriptions.clear()
            self._is_complete = False
            self._restore_soon(None)

    def _restore_soon(self, name: Optional[str]) -> None:
        """Look at a sensor again, None for all, and set what is wanted."""
        self._changed.add(name)
        if self._restoring is None:
            self._restoring = spawn(self._restore())

    async def _restore(self) -> None:
        try:
            while self._changed:
                changed, self._changed = self._changed, set()
                await self._look_again(changed)
        except KatcpClientError as error:
            # Without a connection it begins anew with the next one.
            if self._session.requester.connection is not None:
                self._log.warning(
                    "%s: cannot restore the sampling of sensors: %s", self.address(), error
                )
        finally:
            self._restoring = None

    async def _look_again(self, changed: set[Optional[str]]) -> None:
        """Describe what has changed anew, and set what consumers want."""
        names = None if None in changed else {name for name in changed if name is not None}
        for name in names or ():
            self.descriptions.pop(name, None)
        if not self._consumers:
            # Whoever wants one of them asks again.
            self._is_complete = False
            return
        for name in names or ():
            await self.list_some(name, None)
        await self._describe_wanted(await self._major())
        self._vanished.clear()
        for watched in list(self._watched.values()):
            if watched.description.name not in self.descriptions:
                self._vanished.add(watched.description.name)
                self._put_unreachable(watched)
                self.warn(watched.description.name, "the device does not have it any more")
        self._subscriptions.forget_sampling(names)
        await self._sync()

    async def _describe_wanted(self, major: int) -> None:
        """Describe what consumers want, also what is new and matches their patterns."""
        patterns = {pattern for consumer in self._consumers for pattern in consumer.patterns}
        if len(patterns) > _FEW and not self._is_complete:
            await self.list_all(None)
        for pattern in patterns:
            with contextlib.suppress(KatcpSensorError):
                for description in await self.find(pattern):
                    self._describe_anew(description, pattern, major)

    def _describe_anew(self, description: Description, pattern: Pattern, major: int) -> None:
        watched = self._watched_of(description.name)
        if watched is not None:
            watched.reader = reader_of(description, major)
        for consumer in self._consumers:
            if pattern in consumer.patterns and (
                watched is None or consumer not in watched.consumers
            ):
                self._add(consumer, description, major)

    def _put_unreachable(self, watched: _Watched) -> None:
        last = watched.reading
        value = None if last is None else last.value
        self._put(watched, Reading(time.time(), Status.UNREACHABLE, value))

    def _on_end(self) -> None:
        """End those who are given readings: the client has stopped."""
        consumers, self._consumers = self._consumers, {}
        self._watched.clear()
        self._subscriptions = Subscriptions()
        for consumer in consumers:
            consumer.end()


def _take_error(task: asyncio.Future[None]) -> None:
    """Take the error of a task, which those who wait for it have."""
    if not task.cancelled():
        task.exception()


_STATUSES = {str(status).encode("ascii"): status for status in Status}
