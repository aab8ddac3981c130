"""Which request a reply or an inform belongs to.

`PendingRequests` holds the requests of one client that have been sent and not
answered. It never calls anybody and knows no clock: the client asks it, and
acts. The rules (protocol.md, section 4):

With ids: match by id, as a number, then check the name. On a mismatch the
request stays pending. A request that timed out, or whose reply nobody asked for,
is forgotten, but its id is not given out again while the reply may still come.

Without ids: match by name, first in, first out. A request that timed out stays
in the queue of its name as *abandoned*: the next reply of that name, and the
informs before it, are its own and go to nobody. Should that reply have been
lost for good, the queue would stay one behind for ever; so a request that
times out after an abandoned one took a reply *during its own life* is
forgotten instead. One lost reply costs at most one more timeout, and a late
reply does not answer a later request. (What nobody can tell without ids: after a
reply was lost for good, which of several requests in flight a reply is for; and
whether a reply was lost, or this one and the next are both late.)

Nothing that is done for each message costs more when more requests are pending:
what is finished is skipped when it is met, and swept when it is the larger part.
Only deadlines are looked for among all pending requests. That is seldom, since
most requests are answered long before, and is far cheaper than to keep them in
order.
"""

from __future__ import annotations

import collections
import enum
import operator
from typing import Any, Callable, Optional, Protocol, Union

from .._wire.message import MAX_MID, Message, shorten

# How many ids of requests that nobody waits for are remembered at most: a device
# that never answers must not cost memory for ever.
MAX_ABANDONED_MIDS = 1000

# How many finished requests may lie among the pending ones, beside half of all,
# before they are swept.
SLACK = 1000


class Fate(enum.Enum):
    """What became of a request."""

    PENDING = "pending"
    ENDED = "ended"
    ABANDONED = "abandoned"


class PendingRequest:
    """One request that waits for its reply.

    Attributes
    ----------
    name : str
        Its name.
    mid : bytes or None
        The id it was sent with.
    on_reply : callable or None
        What to call with the reply. None: nobody asked for it.
    on_inform : callable or None
        What to call with each inform. None: nobody asked for them.
    started : float
        When it was sent.
    deadline : float or None
        When it times out.
    fate : Fate
        What became of it.
    more : tuple
        What both callbacks are called with after the message.
    keeps_informs : bool
        Whether its informs are kept until its end, so that they have a limit.
        Its callbacks are those of the client then, which raise nothing.
    informs_size : int
        What they take, in bytes of memory.
    wakes_thread : bool
        Whether its end wakes a thread: if all end at once, these come last.
    """

    __slots__ = (
        "deadline",
        "fate",
        "informs_size",
        "keeps_informs",
        "late_before",
        "late_replies",
        "mid",
        "more",
        "name",
        "number",
        "on_inform",
        "on_reply",
        "started",
        "wakes_thread",
    )

    # Without id, in the queue of its name: how many abandoned requests were
    # swept from the place before it, and how many replies such ones had taken.
    late_before: int
    late_replies: int

    def __init__(
        self,
        message: Message,
        on_reply: Optional[Callable[..., Any]],
        on_inform: Optional[Callable[..., Any]],
        started: float,
        deadline: Optional[float],
        more: tuple[Any, ...] = (),
    ) -> None:
        self.name = message.name
        self.mid = message.mid
        self.number = None if message.mid is None else int(message.mid)
        self.on_reply = on_reply
        self.on_inform = on_inform
        self.started = started
        self.deadline = deadline
        self.more = more
        self.fate = Fate.PENDING
        self.keeps_informs = False
        self.informs_size = 0
        self.wakes_thread = False

    def take_callback(self) -> Optional[Callable[..., Any]]:
        """Return `on_reply`, and let go of both callbacks and of `more`.

        A finished request may lie in the queue of its name for some time: it
        must not keep what its callbacks keep.
        """
        on_reply = self.on_reply
        self.on_reply = self.on_inform = None
        self.more = ()
        return on_reply


class _Logger(Protocol):
    """What takes warnings."""

    def warning(self, _text: str, /, *args: object) -> None:
        """Log a warning."""


class _NameQueue:
    """The requests of one name that were sent without id, in their order."""

    __slots__ = ("finished", "late", "late_at_end", "late_replies", "requests")

    def __init__(self) -> None:
        self.requests: collections.deque[PendingRequest] = collections.deque()
        # How many in `requests` are not pending any more.
        self.finished = 0
        # How many abandoned requests stand before all in `requests`, how many
        # behind them, and how many replies such ones have taken.
        self.late = 0
        self.late_at_end = 0
        self.late_replies = 0

    def append(self, request: PendingRequest) -> None:
        """Let *request* be the last."""
        request.late_replies = self.late_replies
        request.late_before, self.late_at_end = self.late_at_end, 0
        self.requests.append(request)

    def note_finished(self) -> None:
        """Note that one in `requests` is not pending any more."""
        self.finished += 1
        if self.finished > len(self.requests) // 2 + SLACK:
            self._sweep()

    def settle(self) -> None:
        """Let the first in `requests` be pending, or let there be none."""
        while self.requests:
            first = self.requests[0]
            self.late += first.late_before
            first.late_before = 0
            if first.fate is Fate.PENDING:
                return
            self.requests.popleft()
            self.finished -= 1
            if first.fate is Fate.ABANDONED:
                self.late += 1
        self.late += self.late_at_end
        self.late_at_end = 0

    def _sweep(self) -> None:
        """Keep the number of the abandoned ones between the pending ones, not themselves."""
        requests, self.requests = self.requests, collections.deque()
        self.finished = 0
        late = 0
        for request in requests:
            late += request.late_before
            if request.fate is Fate.PENDING:
                request.late_before, late = late, 0
                self.requests.append(request)
            elif request.fate is Fate.ABANDONED:
                late += 1
        self.late_at_end += late

    def is_idle(self) -> bool:
        return not self.late and not self.requests


class PendingRequests:
    """The requests of one client that wait for their replies.

    Parameters
    ----------
    logger : logging.Logger or katcp.client._log.RateLimitedLog
        Where a reply that cannot be right is reported.
    """

    def __init__(self, logger: _Logger) -> None:
        self._logger = logger
        self._last_mid = 0
        # In the order in which they were sent; by their ids, those that have
        # none by themselves.
        self._pending: dict[Union[int, PendingRequest], PendingRequest] = {}
        self._by_name: dict[str, _NameQueue] = {}
        self._abandoned_mids: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def is_idle(self) -> bool:
        """Return whether the next reply can only be that to the next request."""
        return not self._pending and not self._by_name

    def is_mid_pending(self, mid: int) -> bool:
        """Return whether a pending request has this id."""
        return mid in self._pending

    def may_be_answered_late(self, mid: int) -> bool:
        """Return whether nobody waits for a request with this id, and it was not answered yet."""
        return mid in self._abandoned_mids

    def next_mid(self) -> int:
        """Return an id that no request uses: 1 to 2147483647, then 1 again."""
        mid = self._last_mid % MAX_MID + 1
        while mid in self._pending or mid in self._abandoned_mids:
            mid = mid % MAX_MID + 1
        self._last_mid = mid
        return mid

    def add(self, request: PendingRequest) -> None:
        """Let *request* be pending."""
        if request.number is not None:
            self._pending[request.number] = request
        else:
            self._pending[request] = request
            self._queue_of(request.name).append(request)

    def add_unclaimed(self, message: Message) -> None:
        """Note a request whose reply nobody waits for: it must not answer another one."""
        if message.mid is not None:
            self._remember_mid(int(message.mid))
            return
        queue = self._queue_of(message.name)
        queue.late_at_end += 1
        queue.settle()

    def match_reply(self, reply: Message) -> Optional[PendingRequest]:
        """Return the request that *reply* ends, which is not pending any more."""
        if reply.mid is not None:
            number = int(reply.mid)
            request = self._pending.get(number)
            if request is None:
                self._abandoned_mids.pop(number, None)
                return None
            if request.name != reply.name:
                self._warn_of_mid(reply, request)
                return None
            del self._pending[number]
            request.fate = Fate.ENDED
            return request
        request = self._next_of_name(reply.name)
        if request is None:
            self._take_late_reply(reply.name)
            return None
        self.end(request)
        return request

    def match_inform(self, inform: Message) -> Optional[PendingRequest]:
        """Return the pending request that *inform* belongs to."""
        if inform.mid is None:
            return self._next_of_name(inform.name) if self._by_name else None
        request = self._pending.get(int(inform.mid))
        if request is None or request.name == inform.name:
            return request
        self._warn_of_mid(inform, request)
        return None

    def end(self, request: PendingRequest) -> None:
        """Let *request* be over: it was answered, or nobody can answer it."""
        if request.fate is not Fate.PENDING:
            return
        request.fate = Fate.ENDED
        self._remove(request)

    def abandon(self, request: PendingRequest) -> None:
        """Let nobody wait for *request* any more, although it may still be answered."""
        if request.fate is not Fate.PENDING:
            return
        if request.number is not None:
            request.fate = Fate.ABANDONED
            self._remember_mid(request.number)
        else:
            healed = self._by_name[request.name].late_replies > request.late_replies
            request.fate = Fate.ENDED if healed else Fate.ABANDONED
        self._remove(request)

    def take_expired(self, now: float) -> list[PendingRequest]:
        """Return the requests whose deadline is over; they are abandoned now.

        It looks at all that are pending, and so does `next_deadline`.
        """
        expired = [
            request
            for request in self._pending.values()
            if request.deadline is not None and request.deadline <= now
        ]
        expired.sort(key=operator.attrgetter("deadline"))
        for request in expired:
            self.abandon(request)
        return expired

    def next_deadline(self) -> Optional[float]:
        """Return the earliest deadline of a pending request."""
        deadlines = (request.deadline for request in self._pending.values())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def take_all(self) -> list[PendingRequest]:
        """Return all pending requests, in their order, and forget everything of them."""
        requests = list(self._pending.values())
        for request in requests:
            request.fate = Fate.ENDED
        self._pending.clear()
        self._by_name.clear()
        self._abandoned_mids.clear()
        return requests

    def _queue_of(self, name: str) -> _NameQueue:
        """Return the queue of a name, which is made if there is none."""
        queue = self._by_name.get(name)
        if queue is None:
            queue = self._by_name[name] = _NameQueue()
        return queue

    def _warn_of_mid(self, msg: Message, request: PendingRequest) -> None:
        """Tell that *msg* has the id of *request*, but another name."""
        self._logger.warning(
            "Ignoring the id of %s: the pending request with this id is ?%s.",
            shorten(str(msg)),
            request.name,
        )

    def _next_of_name(self, name: str) -> Optional[PendingRequest]:
        """Return the request that the next message of *name* without id belongs to."""
        queue = self._by_name.get(name)
        if queue is None:
            return None
        queue.settle()
        return None if queue.late or not queue.requests else queue.requests[0]

    def _take_late_reply(self, name: str) -> None:
        """Let an abandoned request of *name* have had its reply, if there is one."""
        queue = self._by_name.get(name)
        if queue is not None and queue.late:
            queue.late -= 1
            queue.late_replies += 1
            self._tidy(name, queue)

    def _remove(self, request: PendingRequest) -> None:
        """Take a request that is not pending any more out of the tables."""
        if request.number is not None:
            del self._pending[request.number]
        else:
            del self._pending[request]
            queue = self._by_name[request.name]
            queue.note_finished()
            self._tidy(request.name, queue)

    def _tidy(self, name: str, queue: _NameQueue) -> None:
        queue.settle()
        if queue.is_idle():
            del self._by_name[name]

    def _remember_mid(self, mid: int) -> None:
        self._abandoned_mids[mid] = None
        if len(self._abandoned_mids) > MAX_ABANDONED_MIDS:
            del self._abandoned_mids[next(iter(self._abandoned_mids))]
