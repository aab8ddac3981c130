"""Run something at a given step of what a thread does: where Python runs code of its own accord.

That is a signal handler, or an exception from another thread, at certain instructions; and
since Python 3.12 a finalizer of garbage at these, too.
"""

from __future__ import annotations

import dis
import sys
import threading
from typing import Any, Callable, Optional

# Where Python looks for signals: after calls, at the beginning of functions, and where a
# loop begins anew.
_POINTS = ("CALL", "RESUME", "RETURN", "JUMP_BACKWARD", "JUMP_ABSOLUTE")

# A number for sys.monitoring that no debugger, profiler or coverage uses.
_TOOL = 4


class AtStep:
    """Within its block, call *action* once, at the step of a given number, in this thread.

    Attributes
    ----------
    where : str or None
        Where that was; None: there were not so many steps.
    """

    def __init__(self, step: int, action: Callable[[], Any]) -> None:
        self.where: Optional[str] = None
        self._step = step
        self._steps = 0
        self._action = action
        self._was_point = False
        self._thread = threading.get_ident()
        self._before: Any = None
        # The steps of the block itself are not counted.
        self._file = sys._getframe(1).f_code.co_filename

    def __enter__(self) -> AtStep:
        if sys.version_info >= (3, 12):
            # There, sys.settrace does not show all that it should.
            events = sys.monitoring.events
            sys.monitoring.use_tool_id(_TOOL, "steps")
            sys.monitoring.register_callback(_TOOL, events.INSTRUCTION, self._monitor)
            sys.monitoring.set_events(_TOOL, events.INSTRUCTION)
        else:
            self._before = sys.gettrace()
            sys.settrace(self._trace)
        return self

    def __exit__(self, *exception: object) -> None:
        if sys.version_info >= (3, 12):
            sys.monitoring.set_events(_TOOL, 0)
            sys.monitoring.register_callback(_TOOL, sys.monitoring.events.INSTRUCTION, None)
            sys.monitoring.free_tool_id(_TOOL)
        else:
            sys.settrace(self._before)

    def _monitor(self, code: Any, offset: int) -> None:
        # It shows the steps of all threads.
        if threading.get_ident() == self._thread:
            self._instruction(code, offset)

    def _trace(self, frame: Any, event: str, arg: Any) -> Any:
        if event == "call":
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            self._was_point = True
        elif event == "return":
            self._was_point = True
        elif event == "opcode":
            self._instruction(frame.f_code, frame.f_lasti)
        return self._trace

    def _instruction(self, code: Any, offset: int) -> None:
        # The steps of the end of the tracing are not the client's.
        if self.where is not None or code.co_filename in (__file__, self._file):
            return
        was_point = self._was_point
        self._was_point = dis.opname[code.co_code[offset]].startswith(_POINTS)
        if was_point:
            self._steps += 1
            if self._steps == self._step:
                self.where = f"{code.co_filename}, {code.co_name} at {offset}"
                self._action()
