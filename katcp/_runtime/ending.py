"""The end of the main thread, which a client may outlive.

A thread that is no daemon keeps the process alive when the main thread has ended. Programs
rely on that: a script starts a client and ends, and its handlers go on. But nobody wants it
after an interactive session, or when the main thread has failed.

Python does not tell a library how the main thread has ended. What can be seen afterwards:
the exception that was printed, where the outermost frame has stopped, and the last call of
`sys.exit`.
"""

from __future__ import annotations

import dis
import functools
import logging
import sys
import threading
import types
from typing import Any, Optional, Protocol

_logger = logging.getLogger("katcp.client")
_exit = sys.exit
# What the main thread has called sys.exit() with, the last time.
_exit_status: list[Any] = []
_outermost: list[types.FrameType] = []


class KeptAlive(Protocol):
    """What runs in a thread that is no daemon."""

    def describe(self) -> str:
        """Return what it is."""

    def stop_soon(self) -> None:
        """End it, without waiting for that."""


_running: dict[KeptAlive, None] = {}


@functools.wraps(_exit)
def _noted_exit(*status: Any) -> Any:
    if threading.current_thread() is threading.main_thread():
        _exit_status[:] = [status[0] if status else None]
    _exit(*status)


# When the package is imported: in sys.exit(main()) it is looked up before main() is called.
sys.exit = _noted_exit


def is_interactive() -> bool:
    """Return whether the process is an interactive session, or will be one."""
    return hasattr(sys, "ps1") or bool(sys.flags.interactive)


def note_running(running: KeptAlive) -> None:
    """Note what is to be stopped if the main thread ends badly; any thread."""
    if not _outermost:
        frame: Optional[types.FrameType] = sys._current_frames().get(
            threading.main_thread().ident or 0
        )
        register = getattr(threading, "_register_atexit", None)
        if frame is None or register is None:
            return
        while frame.f_back is not None:
            frame = frame.f_back
        _outermost.append(frame)
        register(_on_end_of_main_thread)
    _running[running] = None


def note_stopped(running: KeptAlive) -> None:
    """Note that it has ended; any thread."""
    _running.pop(running, None)


def _on_end_of_main_thread() -> None:
    """Stop what nobody wants any more, or say what keeps the process alive."""
    running = list(_running)
    if is_interactive() or _has_failed():
        for one in running:
            one.stop_soon()
    elif running:
        what = ", ".join(one.describe() for one in running)
        _logger.info("The main thread has ended, the process goes on until these stop: %s", what)


def _has_failed() -> bool:
    """Return whether the main thread has ended by an exception, and not by sys.exit(0)."""
    [frame] = _outermost
    if dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith("RETURN"):
        return False
    # Of a SystemExit that was raised by itself nobody knows the status.
    was_printed = hasattr(sys, "last_value")
    return was_printed or _exit_status not in ([None], [0])
