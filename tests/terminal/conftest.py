"""A terminal in which ``katcp`` runs."""

from __future__ import annotations

import re
import shlex
import signal
import sys
import time
from typing import Any, Callable, Iterator, Optional

import pexpect
import pytest

from katcp.simdevice import Sensor
from tests.cli.conftest import config as config
from tests.support.helpers import PATIENCE, TestDevice
from tests.support.process import ENVIRONMENT

DEFAULTS = {"LC_ALL": "C.UTF-8", "TERM": "xterm-256color", "NO_COLOR": ""}

# What moves the cursor, colours, and the like.
_CONTROL_RE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>78])")


def make_sensors() -> list[Sensor]:
    return [
        Sensor("dish.temp", "float", "", "degC", value=20.5, timestamp=time.time()),
        Sensor("dish.state", "string", value="ok", timestamp=time.time()),
    ]


@pytest.fixture(params=["5.1-MIB", "4"])
def observatory(request: pytest.FixtureRequest) -> Iterator[TestDevice]:
    with TestDevice(protocol=request.param, sensors=make_sensors()) as device:
        yield device


class Terminal:
    """A terminal in which ``katcp`` runs, as wide and high as asked for.

    *pipe* is a command that gets its output. Without an encoding, all is bytes.
    """

    def __init__(
        self,
        *arguments: str,
        columns: int = 80,
        rows: int = 24,
        pipe: str = "",
        encoding: Optional[str] = "utf-8",
        **environment: str,
    ) -> None:
        command = [sys.executable, "-m", "katcp", *arguments]
        if pipe:
            command = ["sh", "-c", f"{shlex.join(command)} | {pipe}"]
        self._child = pexpect.spawn(
            command[0],
            command[1:],
            env={**ENVIRONMENT, **DEFAULTS, **environment},
            dimensions=(rows, columns),
            encoding=encoding,
            timeout=PATIENCE,
        )
        # It need not be left time to end: `end` and `close` wait until it has.
        self._child.ptyproc.delayafterclose = 0

    def expect(self, pattern: str) -> str:
        """Wait until *pattern* is written; return what was written up to its end."""
        self._child.expect(pattern)
        return str(self._child.before + self._child.after)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size."""
        self._child.setwinsize(rows, columns)

    def press(self, key: str) -> None:
        """Press a key with Ctrl."""
        self._child.sendcontrol(key)

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was written until then."""
        self._child.expect(pexpect.EOF)
        output = str(self._child.before)
        self._child.wait()
        self._child.close()
        return int(self._child.exitstatus), output

    def close(self) -> None:
        """Make sure that nothing is left."""
        self._child.kill(signal.SIGKILL)
        self._child.wait()
        self._child.close()


def plain(text: str) -> str:
    """Return what a person sees of the output: neither colours nor movements of the cursor."""
    return _CONTROL_RE.sub("", text).replace("\r\n", "\n")


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Start ``katcp`` in a terminal: a function of the arguments."""
    terminals: list[Terminal] = []

    def start(*arguments: str, **kwargs: Any) -> Terminal:
        terminals.append(Terminal(*arguments, **kwargs))
        return terminals[-1]

    yield start
    for started in terminals:
        started.close()
