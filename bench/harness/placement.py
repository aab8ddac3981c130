"""Which processors the server and the competitors run on."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def processors(placement: str) -> tuple[set[int], set[int]]:
    """Return the processors of the server and of the competitor, as `Workload.placement` says."""
    available = sorted(os.sched_getaffinity(0))
    first, last = {available[0]}, {available[-1]}
    return {
        "apart": (first, last),
        "same": (first, first),
        "free": (set(available), set(available)),
    }[placement]


def place(pid: int, cpus: set[int]) -> None:
    """Pin all threads of a process, and those that they start, to *cpus*."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        # It may have ended.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cpus)
