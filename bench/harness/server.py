"""Starts the device of the benchmark: bench/server/server.c, compiled when there is a compiler."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator, Optional

HERE = Path(__file__).parent.parent / "server"
SOURCE = HERE / "server.c"
FALLBACK = HERE / "fallback.py"


def make_command(folder: Path) -> list[str]:
    """Return the command of the server, compiled if that is possible."""
    compiler = shutil.which("cc")
    if compiler is None:
        return [sys.executable, str(FALLBACK)]
    # Several checkouts may share the folder.
    program = folder / f"server-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}"
    if not program.exists():
        subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE)], check=True)
    return [str(program)]


@contextlib.contextmanager
def running_server(command: list[str], cpu: Optional[int]) -> Iterator[int]:
    """Give the port of a server that runs meanwhile, on processor *cpu* alone unless None."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if cpu is not None:
            os.sched_setaffinity(process.pid, {cpu})
        # Left, its standard input is closed, and so it ends.
        yield int(process.stdout.readline())
