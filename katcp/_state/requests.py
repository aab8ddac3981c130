"""Matching of replies and informs to requests.

`PendingRequests` holds the requests of one client that were sent and not answered yet. It makes no
calls and has no clock: the client asks it, and acts. The rules (protocol.md, section 4):

With ids: match by id, as a number, then check the name. On a mismatch the request stays pending. A
request that timed out, or whose reply is not wanted, is forgotten, but its id is not reused while
the reply may still come.

Without ids: match by name, first in, first out. Each request takes the next *place* in the queue of
its name, and each reply of that name belongs to the next place. A place is *abandoned* if its reply
is not awaited: the request timed out or was cancelled, or its reply is not wanted. Its reply and
informs are dropped. An abandoned place remains until the connection ends. Places are counted, not
stored, so requests that are never answered take no memory.

Guarantees for requests without ids:

- If the device answers every request, and those of one name in order, no request ever gets the
  reply or an inform of another one, however late the replies are and however many requests are in
  flight.
- If such a device loses replies, each later reply is attributed to an earlier place. So no request
  ever gets the reply of an earlier one, and it gets its own or none unless others of its name are
  sent before it has ended. Then it may get the reply of one of these: there is no way to tell.

After a loss, requests that are sent one by one all time out, since each reply goes to the place
before. The sign is a request that times out although a reply came while it was pending and went to
an abandoned place. After `SIGNS_OF_LOSS` such requests the queue is *behind*, until all its places
have had their replies, which proves that none was lost, or until `take_all`: the client reconnects.
A timeout without any reply is no sign, and an answer to one of several in flight proves nothing, so
neither resets the count. A device that is always slower than the timeouts shows the same signs as
one that has lost a reply.

A device may announce ids and then ignore them, and answer in order without ids. So requests with
ids have places, too, until the first reply with an id arrives. A request without id that was sent
after them is in doubt until then: a reply without id may not be its own, and so it gets none.

The cost per message does not depend on the number of pending requests. Only the search for
deadlines looks at all of them. It is rare, since most requests are answered long before, and far
cheaper than keeping them sorted.
"""

from __future__ import annotations

import operator
from typing import Generic, Optional, Protocol, TypeVar, Union

from .._wire.message import MAX_MID, Message
from .._wire.text import shorten

# How many ids of abandoned requests are remembered at most: a device that never answers must not
# cost memory for ever.
MAX_ABANDONED_MIDS = 1000

# How many requests must time out although a reply came, before a queue is behind.
SIGNS_OF_LOSS = 3


class _NameQueue:
    """Counts the places of one name, and its replies without id."""

    __slots__ = ("answered", "late", "mids", "sent", "signs", "unsent")

    def __init__(self) -> None:
        # Places assigned, and how many of them have had their replies.
        self.sent = self.answered = 0
        # How many of these replies were dropped.
        self.late = 0
        # Requests that timed out although a reply came.
        self.signs = 0
        # How many places belong to requests with ids.
        self.mids = 0
        # How many requests have a place, but are yet to be sent by the program's own
        # send_message().
        self.unsent = 0


class PendingRequest:
    """A request without its reply.

    Attributes
    ----------
    name : str
        Its name.
    mid : bytes or None
        Its id.
    started : float
        When it was sent.
    deadline : float or None
        When it times out.
    key : int, tuple, PendingRequest or None
        Its key while it is pending: its id as a number; its name and place; itself, as long as it
        is in doubt or held. None before and afterwards.
    """

    __slots__ = (
        "deadline",
        "key",
        "late_before",
        "mid",
        "mids_before",
        "name",
        "place",
        "queue",
        "started",
    )

    name: str
    mid: Optional[bytes]
    started: float
    deadline: Optional[float]
    key: Optional[_Key]
    # If it has a place: which one, and the counts of the queue before.
    queue: Optional[_NameQueue]
    place: int
    late_before: int
    mids_before: int

    def __init__(self) -> None:
        self.key = None


_Key = Union[int, tuple[str, int], PendingRequest]
_Request = TypeVar("_Request", bound=PendingRequest)


class _Logger(Protocol):
    def warning(self, _text: str, /, *args: object) -> None:
        """Log a warning."""


class PendingRequests(Generic[_Request]):
    """The pending requests of one client.

    Parameters
    ----------
    logger : logging.Logger or katcp.client._log.RateLimitedLog
        Takes warnings about wrong replies.
    """

    def __init__(self, logger: _Logger) -> None:
        self._logger = logger
        self._last_mid = 0
        # By key, in the order in which they were sent.
        self._pending: dict[_Key, _Request] = {}
        # Those with a place that has not had its reply.
        self._by_name: dict[str, _NameQueue] = {}
        self._abandoned_mids: dict[int, None] = {}
        # Whether a reply has come with the id of its request.
        self._echoes_mids = False

    def __len__(self) -> int:
        return len(self._pending)

    def is_mid_pending(self, mid: int) -> bool:
        """Return whether a pending request has this id."""
        return mid in self._pending

    def may_be_answered_late(self, mid: int) -> bool:
        """Return whether the request with this id was abandoned and not answered yet."""
        return mid in self._abandoned_mids

    def is_behind(self, request: _Request) -> bool:
        """Return whether *request* had no id, and the queue of its name is behind."""
        queue = request.queue
        return request.mid is None and queue is not None and queue.signs >= SIGNS_OF_LOSS

    def next_mid(self) -> int:
        """Return an id that no request uses: 1 to 2147483647, then 1 again."""
        mid = self._last_mid % MAX_MID + 1
        while mid in self._pending or mid in self._abandoned_mids:
            mid = mid % MAX_MID + 1
        self._last_mid = mid
        return mid

    def add(
        self, request: _Request, message: Message, now: float, deadline: Optional[float]
    ) -> None:
        """Add *request* for the reply to *message*, which is sent next."""
        request.name = message.name
        mid = request.mid = message.mid
        request.started = now
        request.deadline = deadline
        request.queue = None
        if mid is not None:
            if not self._echoes_mids:
                self._give_place(request).mids += 1
            request.key = int(mid)
        else:
            queue = self._give_place(request)
            request.key = request if queue.mids else (request.name, request.place)
        self._pending[request.key] = request

    def hold(
        self, request: _Request, message: Message, now: float, deadline: Optional[float]
    ) -> None:
        """Add *request*, which is sent later: it is pending, but nothing can answer it yet."""
        request.name = message.name
        request.mid = request.queue = None
        request.started = now
        request.deadline = deadline
        request.key = request
        self._pending[request] = request

    def release(self, request: _Request, now: float) -> bool:
        """Remove *request*, which was held; return False if it must not be sent any more."""
        if request.key is None or (request.deadline is not None and request.deadline <= now):
            return False
        self._remove(request)
        return True

    def leave_to_program(self, request: _Request) -> None:
        """Note that the program's own send_message() sends *request*."""
        if request.queue is not None:
            request.queue.unsent += 1

    def note_sent(self, message: Message) -> None:
        """Note a request that send_message() has sent; without a place, its reply is not wanted."""
        if message.mid is not None:
            number = int(message.mid)
            if number not in self._pending:
                self._remember_mid(number)
            if self._echoes_mids:
                return
        queue = self._queue_of(message.name)
        if queue.unsent:
            queue.unsent -= 1
        else:
            queue.sent += 1
            queue.mids += message.mid is not None

    def take_back(self, request: _Request, *, left_to_program: bool = False) -> None:
        """Remove *request*, whose sending failed; its place remains if it was sent all the same."""
        if request.key is None:
            return
        self._remove(request)
        queue = request.queue
        if queue is None or (left_to_program and not queue.unsent):
            return
        queue.unsent -= left_to_program
        if request.place == queue.sent - 1:
            queue.sent -= 1
            queue.mids -= request.mid is not None
            self._tidy(request.name, queue)

    def match_reply(self, reply: Message) -> Optional[_Request]:
        """Return the request that *reply* ends; it is not pending any more."""
        if reply.mid is not None:
            number = int(reply.mid)
            request = self._pending.get(number)
            if request is None:
                if number in self._abandoned_mids:
                    del self._abandoned_mids[number]
                    self._note_echo()
                return None
            if request.name != reply.name:
                self._warn_of_mid(reply, request)
                return None
            if not self._echoes_mids:
                self._note_echo()
            del self._pending[number]
            request.key = None
            return request
        name = reply.name
        queue = self._by_name.get(name)
        if queue is None:
            return None
        request = self._pending.pop((name, queue.answered), None)
        if request is None:
            queue.late += 1
        else:
            request.key = None
        queue.answered += 1
        if queue.answered == queue.sent:
            del self._by_name[name]
        return request

    def match_inform(self, inform: Message) -> Optional[_Request]:
        """Return the pending request that *inform* belongs to."""
        if inform.mid is None:
            queue = self._by_name.get(inform.name)
            return None if queue is None else self._pending.get((inform.name, queue.answered))
        request = self._pending.get(int(inform.mid))
        if request is None or request.name == inform.name:
            return request
        self._warn_of_mid(inform, request)
        return None

    def abandon(self, request: _Request) -> None:
        """Remove *request*, whose reply is not wanted any more but may still come."""
        if request.key is None:
            return
        self._remove(request)
        if request.mid is not None:
            self._remember_mid(int(request.mid))

    def take_expired(self, now: float) -> list[_Request]:
        """Abandon and return the requests whose deadline has passed.

        Looks at all pending requests, like `next_deadline`.
        """
        expired = [
            request
            for request in self._pending.values()
            if request.deadline is not None and request.deadline <= now
        ]
        expired.sort(key=operator.attrgetter("deadline"))
        for request in expired:
            self.abandon(request)
            queue = request.queue
            if request.mid is None and queue is not None and queue.late > request.late_before:
                queue.signs += 1
        return expired

    def next_deadline(self) -> Optional[float]:
        """Return the earliest deadline of a pending request."""
        deadlines = (request.deadline for request in self._pending.values())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def take_all(self) -> list[_Request]:
        """Return all pending requests in order, and forget everything."""
        requests = list(self._pending.values())
        for request in requests:
            request.key = None
        self._pending.clear()
        self._by_name.clear()
        self._abandoned_mids.clear()
        self._echoes_mids = False
        return requests

    def _queue_of(self, name: str) -> _NameQueue:
        """Return the queue of a name, creating it if needed."""
        queue = self._by_name.get(name)
        if queue is None:
            queue = self._by_name[name] = _NameQueue()
        return queue

    def _give_place(self, request: _Request) -> _NameQueue:
        """Give *request* the next place of its name, and return the queue."""
        queue = request.queue = self._queue_of(request.name)
        request.place = queue.sent
        request.late_before = queue.late
        request.mids_before = queue.mids
        queue.sent += 1
        return queue

    def _note_echo(self) -> None:
        """Note that the device answers with ids: requests with one need no place."""
        if self._echoes_mids:
            return
        self._echoes_mids = True
        pending: dict[_Key, _Request] = {}
        for key, request in self._pending.items():
            queue = self._by_name.get(request.name)
            if key is request and queue is request.queue and queue is not None:
                place = request.place - request.mids_before
                # Before that, its reply came and was dropped.
                if place >= queue.answered:
                    key = request.key = (request.name, place)
            pending[key] = request
        # At once: other threads check whether an id is pending.
        self._pending = pending
        for name, queue in list(self._by_name.items()):
            queue.sent -= queue.mids
            queue.mids = queue.unsent = 0
            self._tidy(name, queue)

    def _warn_of_mid(self, msg: Message, request: _Request) -> None:
        """Warn that *msg* has the id of *request*, but another name."""
        self._logger.warning(
            "Ignoring the id of %s: the pending request with this id is ?%s.",
            shorten(str(msg)),
            request.name,
        )

    def _remove(self, request: _Request) -> None:
        """Remove *request* from those that are pending."""
        assert request.key is not None
        del self._pending[request.key]
        request.key = None

    def _tidy(self, name: str, queue: _NameQueue) -> None:
        """Drop *queue* if all its places have had their replies."""
        if queue.answered >= queue.sent:
            del self._by_name[name]

    def _remember_mid(self, mid: int) -> None:
        self._abandoned_mids[mid] = None
        if len(self._abandoned_mids) > MAX_ABANDONED_MIDS:
            del self._abandoned_mids[next(iter(self._abandoned_mids))]
