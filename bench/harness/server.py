"""Starts the device of the benchmark: server.c, compiled where there is a compiler."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator, NamedTuple

HERE = Path(__file__).parent.parent / "server"
SOURCE = HERE / "server.c"
FALLBACK = HERE / "fallback.py"


class Server(NamedTuple):
    """A running server."""

    pid: int
    port: int


def make_command(folder: Path, sensors: int) -> list[str]:
    """Return the command of a server with so many sensors, compiled if that is possible."""
    compiler = shutil.which("cc")
    if compiler is None:
        return [sys.executable, str(FALLBACK), str(sensors)]
    # Several checkouts may share the folder.
    program = folder / f"server-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}"
    if not program.exists():
        subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE)], check=True)
    return [str(program), str(sensors)]


@contextlib.contextmanager
def running_server(command: list[str]) -> Iterator[Server]:
    """Yield a server that runs in the meantime."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        # Leaving closes its standard input, which ends it.
        yield Server(process.pid, int(process.stdout.readline()))
