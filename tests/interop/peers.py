"""The servers of other packages that the tests talk to, each a process of its own."""

from __future__ import annotations

import os
import pathlib
import subprocess
from typing import NamedTuple

import pytest

from tests.interop.environments import python_of
from tests.support.helpers import PATIENCE

HERE = pathlib.Path(__file__).parent


class Kind(NamedTuple):
    """A server that can be started: what runs it, and what it says of itself."""

    name: str
    environment: str
    # Of the script, before the port.
    arguments: tuple[str, ...]
    flags: str
    versions: dict[str, tuple[str, ...]]

    @property
    def major(self) -> int:
        """The protocol's major version."""
        return int(self.flags[0])

    @property
    def has_ids(self) -> bool:
        """Whether the server announces message ids."""
        return "I" in self.flags

    @property
    def is_concurrent(self) -> bool:
        """Whether the server works on several requests of one client at once."""
        return self.environment == "aiokatcp"

    def command(self, port: int) -> list[str]:
        """Return the command that starts it, untouched by the variables of this process."""
        # The tox environment says where it has made the virtualenvs.
        python = python_of(pathlib.Path(os.environ["KATCP_PEERS"]), self.environment)
        script = HERE / f"{self.environment}_server.py"
        return [str(python), "-I", str(script), *self.arguments, str(port)]


def _katcp_kind(flags: str) -> Kind:
    versions = {
        "katcp-protocol": (flags,),
        "katcp-library": ("katcp-python-0.9.3",),
        "katcp-device": ("interop-api-1.0", "interop-build-2.3"),
    }
    return Kind(f"katcp-{flags}", "katcp", (flags,), flags, versions)


# Version 4 has no flags: the server is told that it may serve several clients, and does not say so.
KATCP_V4 = Kind("katcp-4", "katcp", ("4.0-M",), "4.0", {})
KATCP_V5 = _katcp_kind("5.0-IM")
KATCP_V51 = _katcp_kind("5.1-BIMT")
AIOKATCP = Kind(
    "aiokatcp",
    "aiokatcp",
    (),
    "5.1-BIM",
    {
        "katcp-protocol": ("5.1-MIB",),
        "katcp-library": ("aiokatcp-2.3", "aiokatcp-2.3.0"),
        "katcp-device": ("interop-api-1.0", "interop-build-2.3"),
    },
)
KATCP_KINDS = [KATCP_V4, KATCP_V5, KATCP_V51]
KINDS = [*KATCP_KINDS, AIOKATCP]


def only(kinds: list[Kind]) -> pytest.MarkDecorator:
    """Run a test of `peer` with these alone."""
    return pytest.mark.parametrize("peer", kinds, indirect=True, ids=lambda kind: kind.name)


class Peer:
    """A running server; used as a context manager, so that it ends."""

    def __init__(self, kind: Kind, port: int = 0) -> None:
        self.kind = kind
        # The pipe to its standard input holds the server: it ends when the pipe
        # is closed, which the system does for a test run that is killed.
        self.process = subprocess.Popen(
            kind.command(port), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        answer = self.process.stdout.readline()
        if not answer:
            self.end()
            raise RuntimeError(f"the server {kind.name} did not start")
        self.port = int(answer)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self.port

    def kill(self) -> None:
        """Kill it; return when its port is free."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def end(self) -> None:
        """Let it end, if it has not."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        finally:
            # One that does not end, because a test has stopped it, is not left behind.
            self.process.kill()
            self.process.wait(PATIENCE)
            self.process.stdout.close()
