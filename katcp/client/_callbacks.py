"""Callbacks for informs and for changes of the connection."""

from __future__ import annotations

import weakref
from typing import Any, Callable, Optional, Protocol

from .._wire.message import Message


class Stream(Protocol):
    """A consumer of informs."""

    def put(self, msg: Message) -> None:
        """Add an inform."""

    def close(self) -> None:
        """Accept no more."""


class CallbackTable:
    """Callbacks by name; None stands for all names.

    It may be changed in any thread, even while its callbacks are called, without a lock.

    Attributes
    ----------
    by_name : dict
        Lists of callbacks by name; empty if there were never any.
    """

    def __init__(self) -> None:
        self.by_name: dict[Optional[str], list[Callable[..., Any]]] = {}

    def add(self, name: Optional[str], callback: Callable[..., Any]) -> None:
        """Call *callback* for *name* from now on, after those added before."""
        self.by_name.setdefault(name, []).append(callback)

    def remove(self, name: Optional[str], callback: Callable[..., Any]) -> bool:
        """Remove *callback* once; return whether it was there."""
        try:
            self.by_name.get(name, []).remove(callback)
        except ValueError:
            return False
        return True

    def matching(self, name: str) -> tuple[Callable[..., Any], ...]:
        """Return the callbacks for *name*, then those for all names."""
        by_name = self.by_name
        return (*by_name.get(name, ()), *by_name.get(None, ()))

    def all(self) -> list[Callable[..., Any]]:
        """Return all callbacks."""
        return [callback for callbacks in [*self.by_name.values()] for callback in callbacks]


class StreamFeed:
    """A callback that feeds a stream with informs, as long as the stream exists."""

    def __init__(self, table: CallbackTable, name: Optional[str], stream: Stream) -> None:
        self._table = table
        self._name = name
        self._stream = weakref.ref(stream)

    def __call__(self, msg: Message) -> None:
        stream = self._stream()
        if stream is None:
            self.remove()
        else:
            stream.put(msg)

    def remove(self) -> None:
        """Stop feeding; any thread."""
        self._table.remove(self._name, self)

    def end(self) -> None:
        """End the stream: no more informs will come."""
        stream = self._stream()
        if stream is not None:
            stream.close()
        self.remove()
