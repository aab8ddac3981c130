"""The end of the main thread, which a client may outlive.

A thread that is no daemon keeps the process alive when the main thread has ended. Programs rely on
that: a script starts a client and ends, and its handlers go on. After an interactive session, or
when the main thread has failed, this is not wanted.

Python does not tell a library how the main thread has ended. Visible afterwards are the exception
that was printed, where the outermost frame stopped, and the last call of `sys.exit`.
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
# The argument of the last sys.exit() in the main thread.
_exit_status: list[Any] = []
_outermost: list[types.FrameType] = []


class KeptAlive(Protocol):
    """Runs in a thread that is no daemon."""

    def describe(self) -> str:
        """Return a description for the log."""

    def stop_soon(self) -> None:
        """Stop it, without waiting."""


_running: dict[KeptAlive, None] = {}


@functools.wraps(_exit)
def _noted_exit(*status: Any) -> Any:
    if threading.current_thread() is threading.main_thread():
        _exit_status[:] = [status[0] if status else None]
    _exit(*status)


# Done on import: in sys.exit(main()) it is looked up before main() is called.
sys.exit = _noted_exit


def is_interactive() -> bool:
    """Return whether the process is an interactive session, or will be one."""
    return hasattr(sys, "ps1") or bool(sys.flags.interactive)


def note_running(running: KeptAlive) -> None:
    """Note what to stop if the main thread ends badly; any thread."""
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
    """Note that it has stopped; any thread."""
    _running.pop(running, None)


def _on_end_of_main_thread() -> None:
    """Stop what is not wanted any more, or log what keeps the process alive."""
    running = list(_running)
    if is_interactive() or _has_failed():
        for one in running:
            one.stop_soon()
    elif running:
        what = ", ".join(one.describe() for one in running)
        _logger.info("The main thread has ended, the process goes on until these stop: %s", what)


def _has_failed() -> bool:
    """Return whether the main thread ended with an exception other than sys.exit(0)."""
    [frame] = _outermost
    if dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith("RETURN"):
        return False
    # The status of a SystemExit that was raised directly is unknown.
    was_printed = hasattr(sys, "last_value")
    return was_printed or _exit_status not in ([None], [0])
