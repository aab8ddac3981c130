"""What is measured, and what is to be reached: one row for each figure of the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

# Must and aim against katcp 0.9.3, must and aim against aiokatcp.
Figures = tuple[float, float, float, float]


@dataclass(frozen=True)
class Target:
    """How many times better than a rival: what must be, and what is aimed at."""

    must: float
    aim: float


@dataclass(frozen=True)
class Workload:
    """One row.

    Attributes
    ----------
    name : str
        What the workers call it.
    title : str
        What people call it; what one operation is.
    old, aio, floor : Target or None
        Against katcp 0.9.3, aiokatcp and the bare blocking socket.
    step : int
        The number of operations is a multiple of this.
    whole : bool
        The amount is of a round as a whole, and not of each of its operations.
    operations, quick_operations : int or None
        That many operations in a round; None: as many as fill the wanted time.
    unit : str
        "seconds" or "bytes".
    fresh : bool
        Every round is done by a new process.
    limit : float or None
        What our amount may be at most, whatever the rivals do.
    """

    name: str
    title: str
    old: Optional[Target] = None
    aio: Optional[Target] = None
    floor: Optional[Target] = None
    step: int = 1
    whole: bool = False
    operations: Optional[int] = None
    quick_operations: Optional[int] = None
    unit: str = "seconds"
    fresh: bool = False
    limit: Optional[float] = None


def _payload(kind: str, title: str, send: Figures, fetch: Figures) -> list[Workload]:
    """Return two rows."""
    rows = [("send", "sent", send), ("fetch", "received", fetch)]
    return [
        Workload(
            f"{way}-{kind}", f"1 MiB {title}, {done}", Target(*figures[:2]), Target(*figures[2:])
        )
        for way, done, figures in rows
    ]


def _codec(kind: str, title: str, parse: Figures, serialise: Figures) -> list[Workload]:
    """Return two rows."""
    return [
        Workload(f"{way}-{kind}", f"{way} {title}", Target(*figures[:2]), Target(*figures[2:]))
        for way, figures in [("parse", parse), ("serialise", serialise)]
    ]


WORKLOADS = [
    Workload(
        "blocking",
        "blocking_request, one by one",
        Target(4, 8),
        Target(2, 4.5),
        floor=Target(0, 0.75),
    ),
    Workload("future", "await future_request, one by one", Target(2.3, 3), Target(1.1, 1.3)),
    Workload("callback", "callback_request, one by one", Target(2.2, 2.8), Target(1.2, 1.45)),
    Workload("threads-8", "8 threads on one client", Target(2.3, 4), Target(1.4, 2.2), step=8),
    Workload("future-100", "future_request, 100 together", Target(6, 10), Target(3.3, 5), step=100),
    Workload(
        "future-1000",
        "future_request, 1000 together",
        Target(7.5, 12),
        Target(3.5, 5.5),
        step=1000,
    ),
    Workload(
        "callback-100", "callback_request, 100 together", Target(8.5, 13), Target(4.5, 7), step=100
    ),
    Workload(
        "callback-1000",
        "callback_request, 1000 together",
        Target(11, 16),
        Target(6.5, 9),
        step=1000,
    ),
    Workload(
        "flood",
        "inform to its handler",
        Target(20, 35),
        Target(9, 15),
        operations=30_000,
        quick_operations=5_000,
    ),
    Workload(
        "informs",
        "inform of a request",
        Target(15, 25),
        Target(2.2, 3.5),
        operations=100_000,
        quick_operations=5_000,
    ),
    *_payload("plain", "plain", (12, 15, 2.5, 3.5), (35, 45, 1, 1.3)),
    *_payload("escaped-16", "with 1/16 escaped", (12, 18, 0.6, 1), (13, 20, 0.4, 1)),
    *_payload("escaped-2", "with 1/2 escaped", (25, 40, 0.15, 1), (9, 15, 0.25, 1)),
    *_payload("spaces-16", "with 1/16 spaces", (12, 18, 0.6, 1), (13, 20, 0.4, 1)),
    *_payload("spaces-2", "with 1/2 spaces", (25, 40, 0.15, 1), (9, 15, 0.25, 1)),
    *_payload("zeros", "of zeros", (50, 200, 1, 1.5), (50, 200, 1, 1.5)),
    Workload("gains", "4100 numbers: parse, copy, serialise", Target(4, 10), Target(1.2, 2)),
    *_codec("status", "a sensor-status line", (10, 14, 4, 5), (3, 4.5, 2, 3)),
    *_codec("short", "short request, reply", (3.4, 5, 2.5, 3.5), (1.9, 3, 2.3, 3)),
    *_codec("escapes", "short line of escapes", (3.5, 5, 0.85, 1.1), (2.9, 4, 0.75, 1)),
    *_codec("plain-mib", "1 MiB plain", (100, 170, 10, 14), (35, 45, 6.5, 8)),
    *_codec("escaped-mib", "1 MiB with 1/16 escaped", (11, 16, 0.6, 1), (24, 30, 0.9, 1.1)),
    *_codec("spaces-mib", "1 MiB with 1/16 spaces", (11, 16, 0.6, 1), (24, 30, 0.9, 1.1)),
    Workload("clients-100", "100 clients asking", Target(4.5, 6.5), Target(1.15, 1.6), step=100),
    Workload("clients-1000", "1000 clients asking", Target(4.5, 6.5), Target(1.15, 1.6), step=1000),
    Workload(
        "connect-1000",
        "connecting 1000 clients, each",
        Target(3.8, 4.5),
        Target(2.4, 3),
        operations=1000,
        quick_operations=200,
    ),
    Workload("managed-100", "100 managed clients, threads", Target(3, 9), step=100),
    Workload(
        "memory",
        "memory of a connected client",
        Target(2, 3),
        Target(20, 40),
        operations=1000,
        quick_operations=300,
        unit="bytes",
        fresh=True,
    ),
    Workload("pending-1000", "one by one, 1000 others pending"),
    Workload(
        "timer-99",
        "1 ms timer in a flood, 99th percentile",
        whole=True,
        operations=50_000,
        quick_operations=10_000,
        limit=0.002,
    ),
    Workload(
        "timer-worst",
        "1 ms timer in a flood, latest",
        whole=True,
        operations=50_000,
        quick_operations=10_000,
        limit=0.03,
    ),
    Workload("import", "import", Target(1.3, 1.8), Target(0.85, 1.2), operations=1),
]
