"""A terminal with a screen: keys go in, and the screen shows what a person would see."""

from __future__ import annotations

import time
from typing import Any, Callable

import pexpect
import pyte

from tests.support.helpers import PATIENCE
from tests.terminal.conftest import Terminal

ROWS, COLUMNS = 24, 100


class ScreenTerminal(Terminal):
    """A terminal in which ``katcp`` runs until it ends or the block does.

    Attributes
    ----------
    said : bytes
        All that it wrote.
    """

    def __init__(
        self,
        *arguments: str,
        state: Any = "",
        columns: int = COLUMNS,
        rows: int = ROWS,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *arguments,
            columns=columns,
            rows=rows,
            encoding=None,
            XDG_STATE_HOME=str(state),
            **kwargs,
        )
        self._child.delaybeforesend = None
        self.said = b""
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)

    def __enter__(self) -> ScreenTerminal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def lines(self) -> list[str]:
        """The lines on the screen, without blanks at their ends and empty ones."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def wait(self, holds: Callable[[list[str]], Any]) -> list[str]:
        """Wait until something holds of the lines on the screen, and return them."""
        deadline = time.monotonic() + PATIENCE
        while not holds(self.lines):
            assert time.monotonic() < deadline, "\n".join(self.lines)
            self._read()
        return self.lines

    def wait_line(self, text: str) -> str:
        """Wait for a line that holds *text*, and return it."""
        return next(
            line for line in self.wait(lambda lines: text in "\n".join(lines)) if text in line
        )

    def wait_prompt(self, typed: str = "") -> None:
        """Wait until the last line but the toolbar is a prompt, with what is typed."""
        self.wait(lambda lines: len(lines) > 1 and lines[-2].endswith(f"> {typed}".rstrip()))

    @property
    def screen(self) -> list[str]:
        """All lines on the screen, without blanks at their ends."""
        return [line.rstrip() for line in self._screen.display]

    def type(self, keys: Any) -> None:
        """Press keys."""
        self._child.send(keys)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the window."""
        self._screen.resize(rows, columns)
        super().resize(columns, rows)

    def kill(self, number: int) -> None:
        """Send it a signal."""
        self._child.kill(number)

    def wait_end(self) -> int:
        """Wait until it ends by itself, and return its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read():
            assert time.monotonic() < deadline, "\n".join(self.lines)
        self._child.wait()
        assert self._child.exitstatus is not None, f"signal {self._child.signalstatus}"
        return int(self._child.exitstatus)

    def _read(self) -> bool:
        """Take in what it wrote; return whether it may write more."""
        try:
            data = self._child.read_nonblocking(1 << 16, timeout=0.1)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.said += data
        self._stream.feed(data)
        # It asks where the cursor is.
        for _ in range(data.count(b"\x1b[6n")):
            cursor = self._screen.cursor
            self._child.send(f"\x1b[{cursor.y + 1};{cursor.x + 1}R")
        return True
