"""Streams of informs, for use without a subclass.

A stream is fed by a callback for informs. The client has only a weak reference to it: a stream that
the program drops, say by leaving its ``for``, ends.
"""

from __future__ import annotations

from typing import Optional

from .._wire.message import Message
from ._callbacks import StreamFeed
from ._session import Session
from ._stream import Stream


class InformStream(Stream[Message]):
    """Informs in the order of their arrival, returned by `DeviceClient.informs`.

    Iterate over it with ``for`` in any thread but the ioloop's, or with ``async for`` in any
    asyncio loop. The iteration waits for the next inform, and ends when the client stops or the
    stream is closed; informs that arrived before are still delivered. As a context manager it is
    closed at the end.

    Notes
    -----
    Informs are buffered from the moment the stream is created. When there are too many, the oldest
    are dropped: a warning is logged the first time, and `dropped` counts them.
    """

    __slots__ = ("_feed", "_name")

    _kind = "inform"

    def __init__(
        self,
        session: Session,
        name: Optional[str],
        maxsize: Optional[int],
        timeout: Optional[float],
    ) -> None:
        super().__init__(session, maxsize, timeout)
        self._name = name
        callbacks = session.dispatcher.inform_callbacks
        self._feed = StreamFeed(callbacks, name, self)
        callbacks.add(name, self._feed)

    def close(self) -> None:
        """Accept no more informs, and end the iterations; may be called again."""
        self._feed.remove()
        super().close()

    def _described(self) -> str:
        return f"{'' if self._name is None else '#' + self._name + ' '}of {self._address()}"
