"""What `PendingRequests` must say: a model that is too slow and too simple to be wrong.

It keeps everything that was sent, in lists that are searched from their beginning, where the real
thing counts.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Optional

from katcp import Message
from katcp._state import requests
from katcp._state.requests import PendingRequest
from katcp._wire.message import MAX_MID


@dataclasses.dataclass(eq=False)
class Entry:
    """One request that was sent.

    Attributes
    ----------
    request : PendingRequest or None
        Whose it is. None: nobody's.
    is_waiting : bool
        Whether its reply is waited for.
    queue : Queue or None
        Where it has a place. None: it was sent with an id to a device that repeats ids.
    is_doubtful : bool
        Whether a request with an id stood before it when it was sent.
    saw_late : bool
        Whether a reply went to nobody while it waited.
    """

    request: Optional[PendingRequest]
    is_waiting: bool
    name: str
    mid: Optional[int]
    deadline: Optional[float] = None
    queue: Optional[Queue] = None
    is_doubtful: bool = False
    saw_late: bool = False


@dataclasses.dataclass(eq=False)
class Queue:
    """The requests of one name since the last time that all had had their replies."""

    entries: list[Entry] = dataclasses.field(default_factory=list)
    # How many replies without id have come.
    replies: int = 0
    signs: int = 0

    def owner(self) -> Optional[Entry]:
        """Return whom the next message without id is for."""
        entry = self.entries[self.replies]
        is_for_it = entry.is_waiting and entry.mid is None and not entry.is_doubtful
        return entry if is_for_it else None

    @property
    def is_behind(self) -> bool:
        return self.signs >= requests.SIGNS_OF_LOSS


class Model:
    """The requests of one client, and what becomes of them."""

    def __init__(self) -> None:
        self.last_mid = 0
        self.forget_all()

    def forget_all(self) -> None:
        self.entries: list[Entry] = []
        self.queues: dict[str, Queue] = {}
        self.late_mids: list[int] = []
        self.echoes = False

    # What the tests look at.

    def pending(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.is_waiting]

    def entry_of(self, request: PendingRequest) -> Entry:
        return next(entry for entry in self.entries if entry.request is request)

    # What the real thing is asked, too.

    def next_mid(self) -> int:
        used = {entry.mid for entry in self.pending()} | set(self.late_mids)
        while True:
            self.last_mid = 1 if self.last_mid == MAX_MID else self.last_mid + 1
            if self.last_mid not in used:
                return self.last_mid

    def add(
        self, request: PendingRequest, message: Message, now: float, deadline: Optional[float]
    ) -> None:
        mid = None if message.mid is None else int(message.mid)
        self._append(Entry(request, True, message.name, mid, deadline))

    def note_sent(self, message: Message) -> None:
        mid = None if message.mid is None else int(message.mid)
        self._append(Entry(None, False, message.name, mid))
        if mid is not None and mid not in [entry.mid for entry in self.pending()]:
            self._remember(mid)

    def match_inform(self, inform: Message) -> Optional[PendingRequest]:
        if inform.mid is not None:
            entry = self._with_mid(int(inform.mid))
            return entry.request if entry is not None and entry.name == inform.name else None
        queue = self.queues.get(inform.name)
        owner = None if queue is None else queue.owner()
        return None if owner is None else owner.request

    def match_reply(self, reply: Message) -> Optional[PendingRequest]:
        if reply.mid is not None:
            return self._match_reply_with_mid(reply.name, int(reply.mid))
        queue = self.queues.get(reply.name)
        if queue is None:
            return None
        owner = queue.owner()
        queue.replies += 1
        if owner is None:
            for entry in queue.entries:
                entry.saw_late |= entry.is_waiting
        self._drop_if_answered(reply.name)
        return None if owner is None else self._end(owner)

    def abandon(self, request: PendingRequest) -> None:
        entry = self.entry_of(request)
        if entry.is_waiting:
            self._end(entry)
            if entry.mid is not None:
                self._remember(entry.mid)

    def take_expired(self, now: float) -> list[PendingRequest]:
        timed = [entry for entry in self.pending() if entry.deadline is not None]
        expired = [entry for entry in timed if entry.deadline <= now]
        expired.sort(key=lambda entry: entry.deadline)
        ended = []
        for entry in expired:
            ended.append(entry.request)
            self.abandon(entry.request)
            if entry.mid is None and entry.saw_late:
                entry.queue.signs += 1
        return ended

    def is_behind(self, request: PendingRequest) -> bool:
        entry = self.entry_of(request)
        return entry.mid is None and entry.queue is not None and entry.queue.is_behind

    def is_mid_pending(self, mid: int) -> bool:
        return self._with_mid(mid) is not None

    def next_deadline(self) -> Optional[float]:
        deadlines = [entry.deadline for entry in self.pending()]
        return min((d for d in deadlines if d is not None), default=None)

    def take_all(self) -> list[PendingRequest]:
        pending = [entry.request for entry in self.pending()]
        self.forget_all()
        return pending

    # How.

    def _append(self, entry: Entry) -> None:
        self.entries.append(entry)
        if entry.mid is not None and self.echoes:
            return
        queue = entry.queue = self.queues.setdefault(entry.name, Queue())
        entry.is_doubtful = any(other.mid is not None for other in queue.entries)
        queue.entries.append(entry)

    def _with_mid(self, mid: int) -> Optional[Entry]:
        return next((entry for entry in self.pending() if entry.mid == mid), None)

    def _match_reply_with_mid(self, name: str, mid: int) -> Optional[PendingRequest]:
        entry = self._with_mid(mid)
        if entry is None:
            if mid in self.late_mids:
                self.late_mids.remove(mid)
                self._note_echo()
            return None
        if entry.name != name:
            return None
        self._note_echo()
        return self._end(entry)

    def _note_echo(self) -> None:
        """The device repeats ids: a request with one is not what a reply without one is for."""
        if self.echoes:
            return
        self.echoes = True
        for name, queue in list(self.queues.items()):
            queue.entries = [entry for entry in queue.entries if entry.mid is None]
            for entry in queue.entries:
                entry.is_doubtful = False
            self._drop_if_answered(name)

    def _drop_if_answered(self, name: str) -> None:
        if self.queues[name].replies >= len(self.queues[name].entries):
            del self.queues[name]

    def _end(self, entry: Entry) -> PendingRequest:
        assert entry.request is not None
        entry.is_waiting = False
        return entry.request

    def _remember(self, mid: int) -> None:
        if mid not in self.late_mids:
            self.late_mids = [*self.late_mids, mid][-requests.MAX_ABANDONED_MIDS :]


class Both:
    """Does the same to the real thing and to the model, and compares what they say."""

    def __init__(self, logger: Any) -> None:
        self.real = requests.PendingRequests(logger)
        self.model = Model()

    def __getattr__(self, method: str) -> Any:
        def call(*args: Any) -> Any:
            real = getattr(self.real, method)(*args)
            model = getattr(self.model, method)(*args)
            assert real == model, f"{method}: {real} is not {model}"
            return real

        return call

    def check(self) -> None:
        """Compare what they hold."""
        waiting = self.model.pending()
        real = self.real
        assert len(real) == len(waiting)
        assert list(real._pending.values()) == [entry.request for entry in waiting]
        assert all(key == request.key for key, request in real._pending.items())
        assert list(real._abandoned_mids) == self.model.late_mids
        assert set(real._by_name) == set(self.model.queues)
        for name, queue in self.model.queues.items():
            assert real._by_name[name].sent == len(queue.entries)
            assert real._by_name[name].answered == queue.replies
        for entry in self.model.entries:
            if entry.request is not None:
                self.is_behind(entry.request)
        self.next_deadline()
