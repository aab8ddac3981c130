"""``katcp request --repeat``: repeating a request, and measuring the replies."""

from __future__ import annotations

import argparse
import statistics
import time

from ...core import Message
from ..connect import CommandClient, answers, code_of, reason_of, show_request
from ..formats import Record, RecordWriter
from ..output import (
    INTERRUPTED,
    OK,
    CommandError,
    StatusLine,
    count,
    show_duration,
)


def repeat_request(client: CommandClient, request: Message, options: argparse.Namespace) -> int:
    """Repeat a request as the options say; print statistics, and return the exit code."""
    latencies = Latencies(client, request)
    status = StatusLine()
    code = OK
    try:
        while not options.repeat or latencies.count < options.repeat:
            code = max(code, latencies.measure())
            status.show(latencies)
            time.sleep(options.interval)
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        status.clear()
        latencies.print(options.output)
    return code


class Latencies:
    """The response times of a request.

    Attributes
    ----------
    count : int
        How many requests were made.
    """

    def __init__(self, client: CommandClient, request: Message) -> None:
        self.count = 0
        self._client = client
        self._request = request
        self._refused = 0
        self._seconds: list[float] = []

    def measure(self) -> int:
        """Make the request once, and return the exit code for its reply."""
        began = time.perf_counter()
        *_, reply = answers(self._client, self._request.copy())
        self.count += 1
        if reply.local_error is not None:
            what = show_request(self._client, self._request)
            raise CommandError(f"{what}: {reason_of(reply)}", code_of(reply))
        self._seconds.append(time.perf_counter() - began)
        self._refused += not reply.reply_ok()
        return code_of(reply)

    def __str__(self) -> str:
        if not self._seconds:
            return "no replies"
        shown = [f"{name} {show_duration(seconds)}" for name, seconds in self._statistics().items()]
        refused = f" ({self._refused} refused)" if self._refused else ""
        replies = count(len(self._seconds), "reply", "replies")
        return f"{replies}{refused}: {', '.join(shown)}"

    def print(self, form: str) -> None:
        """Print the statistics in an output format."""
        if form not in ("json", "jsonl", "csv"):
            print(f"{show_request(self._client, self._request)}: {self}")
            return
        record: Record = {
            "device": str(self._client.device),
            "request": self._request.name,
            "count": self.count,
            "refused": self._refused,
        }
        for name, seconds in self._statistics().items():
            record[f"{name}_ms"] = round(seconds * 1000, 3)
        RecordWriter(form, [*record]).write(record)

    def _statistics(self) -> dict[str, float]:
        """Return the statistics in seconds; empty if there was no reply."""
        seconds = sorted(self._seconds)
        if not seconds:
            return {}
        return {
            "min": seconds[0],
            "mean": statistics.fmean(seconds),
            "median": statistics.median(seconds),
            "p99": seconds[len(seconds) * 99 // 100],
            "max": seconds[-1],
        }
