"""Python, or the command ``katcp``, as a process of its own, for tests that interrupt it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from tests.support.helpers import PATIENCE
from tests.support.snippets import ROOT

# The devices of the person who runs the tests are none of theirs.
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "KATCP_DEVICE": "",
    "XDG_CONFIG_HOME": str(ROOT / "no-config"),
}


class PythonProcess:
    """Python with some arguments, with pipes for its output; it ends with the block."""

    def __init__(self, *arguments: Any, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env={**ENVIRONMENT, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def __enter__(self) -> PythonProcess:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._process.kill()
        self._process.communicate()

    def line(self) -> str:
        """Wait for a line of output, and return it."""
        return str(self._process.stdout.readline())

    def error_line(self) -> str:
        """Wait for a line on the standard error, and return it."""
        return str(self._process.stderr.readline())

    def is_running(self) -> bool:
        """Return whether it has not ended."""
        return self._process.poll() is None

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.send_signal(signal.SIGINT)

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def close_output(self) -> None:
        """Let the reader of the output go away."""
        self._process.stdout.close()
        self._process.stdout = None

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; return the exit code and the output that was not read yet."""
        output, errors = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, output or "", errors


class KatcpProcess(PythonProcess):
    """``katcp`` with some arguments."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        super().__init__("-m", "katcp", *arguments, **environment)
