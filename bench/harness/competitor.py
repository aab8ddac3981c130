"""A competitor: a worker program in a process of its own, driven over a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional, TextIO

WORKERS = Path(__file__).parent.parent / "workers"

# Their names in the tables.
OURS = "ours"
OLD = "katcp 0.9.3"
AIOKATCP = "aiokatcp"
FLOOR = "floor"

# A competitor that has not answered after this many seconds is out.
PATIENCE = 300.0


class Failed(Exception):
    """The competitor could not do it; the text says why."""


@dataclass(frozen=True)
class Competitor:
    """Who takes part: the name in the table, the worker program and its interpreter."""

    name: str
    python: str
    program: str
    source: Optional[Path] = None

    def command(self, port: int) -> list[str]:
        """Return the command that starts it."""
        command = [self.python, str(WORKERS / self.program), "--port", str(port)]
        if self.source is not None:
            command += ["--source", str(self.source)]
        return command


class Worker:
    """The running process of a competitor.

    Attributes
    ----------
    pid : int
        Of the process.
    workloads : list of str
        What it can do.
    versions : dict
        Of its Python and its libraries.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        hello = self._receive()
        self.workloads: list[str] = hello["workloads"]
        self.versions: dict[str, str] = hello["versions"]

    def open(self, workload: str) -> None:
        """Make the clients of a workload."""
        self._call({"do": "open", "workload": workload})

    def round(self, operations: int) -> dict[str, float]:
        """Do so many operations, and return the ``amount`` and ``cpu`` of all."""
        return self._call({"do": "round", "operations": operations})

    def close(self) -> None:
        """Stop the clients."""
        self._call({"do": "close"})

    def _call(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Failed(f"the process has ended: {error}") from None
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        timer = threading.Timer(PATIENCE, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            raise Failed("the process has ended, or did not answer")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer


@contextlib.contextmanager
def running(competitor: Competitor, port: int, log: TextIO) -> Iterator[Worker]:
    """Yield the worker of a competitor, whose process ends afterwards; *log* gets its stderr."""
    # PYTHONPATH must not decide which katcp is measured.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.Popen(
        competitor.command(port),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=environment,
    )
    try:
        yield Worker(process)
    finally:
        process.kill()
        process.communicate()
