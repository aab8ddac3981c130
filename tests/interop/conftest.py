"""Each test of a peer runs with each of them; a client that a test starts is stopped after it."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Callable, Iterator

import pytest

import katcp
from tests.interop.peers import KINDS, Peer
from tests.support.helpers import PATIENCE, Recorder

if "KATCP_PEERS" not in os.environ:
    raise pytest.UsageError("tests/interop needs the virtualenvs of its peers: tox -e interop")


@pytest.fixture(scope="session", params=KINDS, ids=lambda kind: kind.name)
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    """A server that tests share: none of them may end it."""
    with Peer(request.param) as peer:
        yield peer


@pytest.fixture
def start_peer() -> Iterator[Callable[..., Peer]]:
    """Start servers that the test may end."""
    with contextlib.ExitStack() as peers:
        yield lambda *args: peers.enter_context(Peer(*args))


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def own_peer(request: pytest.FixtureRequest, start_peer: Callable[..., Peer]) -> Peer:
    """One of each kind."""
    return start_peer(request.param)


class Client(katcp.BlockingClient):
    """Notes what belongs to no request; connects again without delay."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.auto_reconnect_delay = 0.02
        self.sensor_updates = Recorder()
        self.unclaimed = Recorder()
        self.connections = Recorder()

    def inform_sensor_status(self, msg: katcp.Message) -> None:
        self.sensor_updates(msg)

    def unhandled_reply(self, msg: katcp.Message) -> None:
        self.unclaimed(msg)

    def notify_connected(self, connected: bool) -> None:
        self.connections(connected)


# It needs the other fixture for the order alone: clients are stopped before their servers are.
@pytest.fixture
def connect(start_peer: Callable[..., Peer]) -> Iterator[Callable[[Peer], Client]]:
    """Start clients that know what their server speaks."""
    clients: list[Client] = []

    def connect(peer: Peer) -> Client:
        client = Client(*peer.address, timeout=PATIENCE)
        clients.append(client)
        client.start()
        assert client.wait_protocol(PATIENCE)
        return client

    yield connect
    for client in clients:
        client.stop(PATIENCE)
