"""A proxy between a client and a device that does what networks do to connections.

`FaultProxy` listens on loopback and connects every client to the device. What
happens to the bytes is said by one `Way` for each direction, what happens to
newcomers by its `Door`; both may be changed at any time, from any thread.

Nothing here waits for a time to be over, unless a fault is a time itself, and
nothing is left to chance:

- an address is *refused* while only a socket that does not listen is bound to
  it; that socket keeps the port for the proxy all the time;
- an address *never answers* while the backlog of the listener is full: Linux
  drops every SYN then. A backlog of 0 has room for one connection, so it is
  full, and stays so, as soon as the listener has one to accept.

All state belongs to the thread of the proxy's own loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import enum
import select
import socket
import struct
import threading
from typing import Any, Callable, Optional

from tests.support.helpers import PATIENCE

SIZE = 65536
BACKLOG = 100

# What makes a close a reset.
LINGER = struct.pack("ii", 1, 0)


class End(enum.Enum):
    """What the byte finds that may not pass any more."""

    STALL = "nobody reads"
    HALF_CLOSE = "this way is closed, the other is not"
    CLOSE = "both ways are closed, to both sides"
    RESET = "the connection is reset, on both sides"


@dataclasses.dataclass(frozen=True, eq=False)
class Way:
    """What becomes of the bytes that go one way; as it stands, nothing.

    Attributes
    ----------
    delay : float
        Every piece is that many seconds late.
    gather : float
        What arrives within that many seconds goes on in one piece.
    single : bool
        Every byte goes on alone.
    limit : int or None
        So many bytes pass, from now on or from the beginning of a connection;
        the next one finds `end`.
    end : End
        What that is.
    """

    delay: float = 0.0
    gather: float = 0.0
    single: bool = False
    limit: Optional[int] = None
    end: End = End.CLOSE


class Door(enum.Enum):
    """What happens to those who want to connect."""

    OPEN = "they are connected to the device"
    SILENT = "they are accepted, and that is all"
    REFUSED = "nobody listens"
    FULL = "the backlog is full, so nobody answers"


class FaultProxy:
    """Connects clients to a device, and does harm to their connections.

    Parameters
    ----------
    target : tuple
        The address of the device.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self._port_keeper = socket.socket()
        self._port_keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port_keeper.bind(("127.0.0.1", 0))
        self.address = self._port_keeper.getsockname()
        self._listener: Optional[socket.socket] = None
        self._filler: Optional[socket.socket] = None
        self._door = Door.REFUSED
        self._ways = {"to_device": Way(), "to_client": Way()}
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faultproxy")

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self.door = Door.OPEN
        return self

    def __exit__(self, *exception: object) -> None:
        self.door = Door.REFUSED
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()
        self._port_keeper.close()

    @property
    def to_device(self) -> Way:
        """What becomes of what clients say."""
        return self._ways["to_device"]

    @to_device.setter
    def to_device(self, way: Way) -> None:
        self._in_loop(self._set_way, "to_device", way)

    @property
    def to_client(self) -> Way:
        """What becomes of what the device says."""
        return self._ways["to_client"]

    @to_client.setter
    def to_client(self, way: Way) -> None:
        self._in_loop(self._set_way, "to_client", way)

    @property
    def door(self) -> Door:
        """What happens to newcomers; those who are in are left alone."""
        return self._door

    @door.setter
    def door(self, door: Door) -> None:
        self._in_loop(self._set_door, door)

    def end_links(self, end: End) -> None:
        """End all connections."""
        self._in_loop(lambda: [link.end(end) for link in self._links])

    def heal(self) -> None:
        """Do no harm from now on; what was held back goes on."""
        self.to_device = Way()
        self.to_client = Way()
        self.door = Door.OPEN

    def _in_loop(self, function: Callable[..., Any], *args: Any) -> None:
        done: concurrent.futures.Future[None] = concurrent.futures.Future()

        def call() -> None:
            try:
                function(*args)
                done.set_result(None)
            except BaseException as error:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        done.result(PATIENCE)

    async def _end(self) -> None:
        # Who came as the door was shut is let in once more.
        while self._links:
            tasks = [link.cancel() for link in self._links]
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)

    def _set_way(self, name: str, way: Way) -> None:
        self._ways[name] = way
        for link in self._links:
            link.on_change()

    def _set_door(self, door: Door) -> None:
        if self._filler is not None:
            self._filler.close()
            self._filler = None
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
        if door is Door.REFUSED:
            self._close_listener()
        elif self._listener is None:
            self._listener = self._make_listener()
        if self._listener is not None and door is Door.FULL:
            self._filler = _fill_backlog(self._listener)
        elif self._listener is not None:
            # Those who came when the backlog was full need not come again.
            self._listener.listen(BACKLOG)
            self._loop.add_reader(self._listener, self._accept, self._listener)
        self._door = door

    def _make_listener(self) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Small, so that a client whose bytes nobody reads notices soon.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SIZE)
        listener.setblocking(False)
        listener.bind(self.address)
        return listener

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        link = _Link(self, sock, None if self._door is Door.SILENT else self.target)
        self._links.add(link)
        link.start()


class _Link:
    """One connection of a client, and the one to the device that belongs to it."""

    def __init__(
        self, proxy: FaultProxy, client: socket.socket, target: Optional[tuple[str, int]]
    ) -> None:
        self._proxy = proxy
        self._target = target
        self._client = client
        self._device = socket.socket()
        for sock in (self._client, self._device):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._changed = asyncio.Event()
        self._ended = {"to_device": False, "to_client": False}

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._run())
        # Not at the end of the task, which may be cancelled before it begins.
        self._task.add_done_callback(self._close)

    def cancel(self) -> asyncio.Task[None]:
        self._task.cancel()
        return self._task

    def on_change(self) -> None:
        """The ways have changed: wake those who wait for that."""
        self._changed.set()
        self._changed = asyncio.Event()

    def end(self, end: End, name: str = "to_client") -> None:
        """Let the connection end; a way that has ended swallows what comes."""
        if end is End.RESET:
            for sock in (self._client, self._device):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
            self._ended = dict.fromkeys(self._ended, True)
            self._task.cancel()
            return
        for way in self._ended if end is End.CLOSE else (name,):
            self._end_way(way)

    async def _run(self) -> None:
        ways: list[asyncio.Task[None]] = []
        try:
            if self._target is None:
                self._ended["to_device"] = True
                await self._carry("to_device", self._client, self._device)
                return
            await asyncio.get_running_loop().sock_connect(self._device, self._target)
            ways.append(asyncio.ensure_future(self._carry("to_device", self._client, self._device)))
            ways.append(asyncio.ensure_future(self._carry("to_client", self._device, self._client)))
            await asyncio.gather(*ways)
        except OSError:
            # One side was reset, or closed while the other one still spoke.
            pass
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def _close(self, task: asyncio.Task[None]) -> None:
        self._client.close()
        self._device.close()
        self._proxy._links.discard(self)

    async def _carry(self, name: str, source: socket.socket, sink: socket.socket) -> None:
        """Carry bytes until *source* ends."""
        way, passed = Way(), 0
        while True:
            data = await self._read(source, self._proxy._ways[name].gather)
            if not data:
                break
            while data and not self._ended[name]:
                if way is not self._proxy._ways[name]:
                    way, passed = self._proxy._ways[name], 0
                allowed = len(data)
                if way.limit is not None:
                    allowed = min(allowed, way.limit - passed)
                if allowed:
                    await self._write(sink, data[:allowed], way)
                    data = data[allowed:]
                    passed += allowed
                elif way.end is End.STALL:
                    await self._changed.wait()
                else:
                    self.end(way.end, name)
        self._end_way(name)

    async def _read(self, source: socket.socket, gather: float) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(source, SIZE)
        if data and gather:
            await asyncio.sleep(gather)
            with contextlib.suppress(BlockingIOError):
                data += source.recv(SIZE)
        return data

    async def _write(self, sink: socket.socket, data: bytes, way: Way) -> None:
        await asyncio.sleep(way.delay)
        size = 1 if way.single else len(data)
        for position in range(0, len(data), size):
            await asyncio.get_running_loop().sock_sendall(sink, data[position : position + size])

    def _end_way(self, name: str) -> None:
        if not self._ended[name]:
            self._ended[name] = True
            sink = self._device if name == "to_device" else self._client
            # A peer that has gone, or is not there yet, need not be told.
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
        self.on_change()


def _fill_backlog(listener: socket.socket) -> socket.socket:
    """Let the backlog be full; return what fills it."""
    listener.listen(0)
    filler = socket.create_connection(listener.getsockname(), PATIENCE)
    assert select.select([listener], [], [], PATIENCE)[0]
    return filler
